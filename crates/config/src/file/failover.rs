//! Failover in dirigent.toml. Each table is described once, by what it does with [`Fields`]: of those one reads,
//! the other prints.

use super::duration;
use super::health::{print_script, script};
use super::keys;
use super::print::{list, quoted};
use super::reader::{Report, Table, kind};
use crate::error::Violation;
use crate::failover::*;
use crate::health::{Bfd, Script};
use crate::model::{Service, ServiceKey};
use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How a value is read, and printed, as a string.
type Both<T> = (fn(&str) -> Option<T>, fn(&T) -> String);

/// The keys of one table, and what they mean. Reading, a key that is not there leaves the value; printing, a value
/// that is the default is left out.
trait Fields: Sized {
    fn text(&mut self, key: &'static str, value: &mut Option<String>);
    fn needed(&mut self, key: &'static str, value: &mut String, example: &str);
    fn flag(&mut self, key: &'static str, value: &mut bool, default: bool);
    fn flag_or_none(&mut self, key: &'static str, value: &mut Option<bool>);
    fn number(&mut self, key: &'static str, value: &mut i64, default: Option<i64>, range: RangeInclusive<i64>);
    fn time(&mut self, key: &'static str, value: &mut Duration, default: Option<Duration>);
    fn choice<T: Copy + PartialEq>(&mut self, key: &'static str, value: &mut T, of: &[(&'static str, T)], default: T);
    /// Something that is written as a string.
    fn parsed<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        value: &mut Option<T>,
        default: Option<T>,
        both: Both<T>,
        what: (&str, &str),
    );
    fn texts(&mut self, key: &'static str, value: &mut Vec<String>, required: bool);
    fn script(&mut self, key: &'static str, value: &mut Option<Box<Script>>);
    /// A list whose items are strings, or tables where these do not say enough.
    fn items<T: Item>(&mut self, key: &'static str, value: &mut Vec<T>);
    /// A table within.
    fn table<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        of: keys::Table,
        value: &mut Option<T>,
        plain: T,
        each: fn(&mut T, &mut Self),
    );
    /// `4` or `6`, where nothing else says it.
    fn family(&mut self, ipv6: &mut bool, implied: Option<bool>);

    fn byte(&mut self, key: &'static str, value: &mut u8, default: Option<u8>, range: RangeInclusive<u8>) {
        let mut number = i64::from(*value);
        self.number(key, &mut number, default.map(i64::from), (*range.start()).into()..=(*range.end()).into());
        *value = u8::try_from(number).unwrap_or(*value);
    }
    fn count(&mut self, key: &'static str, value: &mut u32, default: Option<u32>, least: u32) {
        let mut number = i64::from(*value);
        self.number(key, &mut number, default.map(i64::from), least.into()..=u32::MAX.into());
        *value = u32::try_from(number).unwrap_or(*value);
    }
    fn short(&mut self, key: &'static str, value: &mut u16, default: Option<u16>, range: RangeInclusive<u16>) {
        let mut number = i64::from(*value);
        self.number(key, &mut number, default.map(i64::from), (*range.start()).into()..=(*range.end()).into());
        *value = u16::try_from(number).unwrap_or(*value);
    }
    /// A number that may be absent; -1 stands for that on the way.
    fn short_or_none(&mut self, key: &'static str, value: &mut Option<u16>, range: RangeInclusive<u16>) {
        let mut number = value.map_or(i64::MIN, i64::from);
        self.number(key, &mut number, Some(i64::MIN), (*range.start()).into()..=(*range.end()).into());
        *value = u16::try_from(number).ok();
    }
    fn byte_or_none(&mut self, key: &'static str, value: &mut Option<u8>, least: u8) {
        let mut number = value.map(u16::from);
        self.short_or_none(key, &mut number, least.into()..=255);
        *value = number.and_then(|n| u8::try_from(n).ok());
    }
    fn weight(&mut self, value: &mut i16, default: i16, most: i16) {
        let mut number = i64::from(*value);
        self.number("weight", &mut number, Some(default.into()), (-most).into()..=most.into());
        *value = i16::try_from(number).unwrap_or(*value);
    }
    fn time_or_none(&mut self, key: &'static str, value: &mut Option<Duration>) {
        let mut time = value.unwrap_or(Duration::MAX);
        self.time(key, &mut time, Some(Duration::MAX));
        *value = (time != Duration::MAX).then_some(time);
    }
    fn address(&mut self, key: &'static str, value: &mut Option<IpAddr>) {
        const WHAT: (&str, &str) = ("address", "write it in numbers, like \"192.0.2.10\" or \"2001:db8::10\"");
        self.parsed(key, value, None, (|text| text.parse().ok(), IpAddr::to_string), WHAT);
    }
    fn secret(&mut self, key: &'static str, value: &mut Option<Secret>) {
        let mut text = value.as_ref().map(|secret| secret.0.clone());
        self.text(key, &mut text);
        *value = text.map(Secret);
    }
}

/// What a list holds.
trait Item: Clone {
    const TABLE: keys::Table;
    /// What a string is not that cannot be read, and how it is written.
    const WHAT: (&'static str, &'static str);
    /// As a string, if that says all of it.
    fn short(&self) -> Option<String>;
    /// Of a string; of the empty one what a table begins with.
    fn from_short(text: &str) -> Option<Self>;
    fn blank() -> Self;
    fn fields<F: Fields>(&mut self, f: &mut F);
}

impl Item for RouterAddress {
    const TABLE: keys::Table = keys::ADDRESS;
    const WHAT: (&'static str, &'static str) =
        ("address", "write it like \"192.0.2.10/24\" or { address = \"2001:db8::10/64\", device = \"eth1\" }");
    fn short(&self) -> Option<String> {
        let plain = *self == Self::new(self.address, self.length);
        plain.then(|| Self::prefix(self.address, self.length))
    }
    fn from_short(text: &str) -> Option<Self> {
        Self::parse(text).map(|(address, length)| Self::new(address, length))
    }
    fn blank() -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED.into(), 32)
    }
    fn fields<F: Fields>(&mut self, f: &mut F) {
        let prefix: Both<(IpAddr, u8)> = (Self::parse, |(address, length)| Self::prefix(*address, *length));
        let mut own = Some((self.address, self.length)).filter(|(address, _)| !address.is_unspecified());
        f.parsed("address", &mut own, None, prefix, Self::WHAT);
        (self.address, self.length) = own.unwrap_or((self.address, self.length));
        f.text("device", &mut self.device);
        f.text("label", &mut self.label);
        f.text("scope", &mut self.scope);
        let both: Both<Ipv4Addr> = (|text| text.parse().ok(), Ipv4Addr::to_string);
        f.parsed("broadcast", &mut self.broadcast, None, both, ("address of IPv4", "write it like \"192.0.2.255\""));
        f.parsed("peer", &mut self.peer, None, prefix, Self::WHAT);
        f.flag("virtual_mac", &mut self.virtual_mac, false);
        f.flag("track", &mut self.track, true);
        f.time_or_none("preferred", &mut self.preferred);
        f.texts("flags", &mut self.flags, false);
    }
}

impl Item for Peer {
    const TABLE: keys::Table = keys::PEER;
    const WHAT: (&'static str, &'static str) =
        ("address", "write it like \"192.0.2.3\" or { address = \"192.0.2.3\", min_ttl = 254 }");
    fn short(&self) -> Option<String> {
        (*self == Self::new(self.address)).then(|| self.address.to_string())
    }
    fn from_short(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::new)
    }
    fn blank() -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED.into())
    }
    fn fields<F: Fields>(&mut self, f: &mut F) {
        let mut address = Some(self.address).filter(|address| !address.is_unspecified());
        f.address("address", &mut address);
        self.address = address.unwrap_or(self.address);
        f.byte_or_none("min_ttl", &mut self.min_ttl, 0);
        f.byte_or_none("max_ttl", &mut self.max_ttl, 0);
    }
}

impl Item for Tracked {
    const TABLE: keys::Table = keys::TRACKED;
    const WHAT: (&'static str, &'static str) = ("name", "write \"NAME\" or { name = \"NAME\", weight = -10 }");
    fn short(&self) -> Option<String> {
        (*self == Self::new(self.name.clone())).then(|| self.name.clone())
    }
    fn from_short(text: &str) -> Option<Self> {
        Some(Self::new(text))
    }
    fn blank() -> Self {
        Self::new("")
    }
    fn fields<F: Fields>(&mut self, f: &mut F) {
        f.needed("name", &mut self.name, "eth1");
        let mut weight = self.weight.map_or(i64::MIN, i64::from);
        let most = i64::from(MAX_COUNT_WEIGHT);
        f.number("weight", &mut weight, Some(i64::MIN), -most..=most);
        self.weight = i16::try_from(weight).ok();
        f.flag("reverse", &mut self.reverse, false);
    }
}

fn router<F: Fields>(r: &mut VirtualRouter, f: &mut F) {
    f.needed("name", &mut r.name, "web");
    f.text("interface", &mut r.interface);
    f.text("vrf", &mut r.vrf);
    let mut version = r.version.number();
    f.byte("version", &mut version, Some(3), 2..=3);
    r.version = if version == 2 { Version::V2 } else { Version::V3 };
    f.byte("vrid", &mut r.vrid, None, 1..=255);
    f.byte("priority", &mut r.priority, Some(100), 1..=255);
    f.time("interval", &mut r.interval, Some(Duration::from_secs(1)));
    f.choice("state", &mut r.state, &Initial::ALL.map(|s| (s.name(), s)), Initial::Backup);
    f.flag("preempt", &mut r.preempt, true);
    f.time("preempt_delay", &mut r.preempt_delay, Some(Duration::ZERO));
    f.byte("down_timer_adverts", &mut r.down_timer_adverts, Some(3), 1..=100);
    f.items("addresses", &mut r.addresses);
    f.items("excluded", &mut r.excluded);
    f.texts("routes", &mut r.routes, false);
    f.texts("rules", &mut r.rules, false);
    f.flag("promote_secondaries", &mut r.promote_secondaries, false);
    f.address("source", &mut r.source);
    f.flag("track_source", &mut r.track_source, false);
    f.address("multicast", &mut r.multicast);
    f.items("peers", &mut r.peers);
    let implied = r.implied_family();
    f.family(&mut r.ipv6, implied);
    f.flag("check_unicast_src", &mut r.check_unicast_src, false);
    f.byte_or_none("unicast_ttl", &mut r.unicast_ttl, 0);
    f.flag("fault_without_peer", &mut r.fault_without_peer, false);
    f.flag("v3_checksum_as_v2", &mut r.v3_checksum_as_v2, false);
    f.flag("accept", &mut r.accept, true);
    f.flag("lower_prio_no_advert", &mut r.lower_prio_no_advert, false);
    f.flag("higher_prio_send_advert", &mut r.higher_prio_send_advert, true);
    f.flag("owner_ignore_adverts", &mut r.owner_ignore_adverts, false);
    f.flag("skip_check_adv_addr", &mut r.skip_check_adv_addr, false);
    f.flag("strict", &mut r.strict, false);
    f.flag("track_interface", &mut r.track_interface, true);
    f.flag_or_none("mail", &mut r.mail);
    let plain = Authentication { ah: false, password: Secret(String::new()) };
    f.table("authentication", keys::AUTHENTICATION, &mut r.authentication, plain, |a, f| {
        f.needed("password", &mut a.password.0, "secret");
        f.flag("ah", &mut a.ah, false);
    });
    f.table("virtual_mac", keys::VIRTUAL_MAC, &mut r.virtual_mac, VirtualMac::default(), |m, f| {
        f.text("name", &mut m.name);
        f.text("mac", &mut m.mac);
        f.flag("transmit_base", &mut m.transmit_base, false);
        f.flag("addresses", &mut m.addresses, false);
        f.count("group", &mut m.group, Some(0), 0);
    });
    within(f, "announce", keys::ANNOUNCE, &mut r.announce, announce);
    within(f, "track", keys::ROUTER_TRACK, &mut r.track, tracking);
    within(f, "notify", keys::ROUTER_NOTIFY, &mut r.notify, notify);
}

/// A table within that is as good as there when it is not.
fn within<F: Fields, T: Clone + PartialEq + Default>(
    f: &mut F,
    key: &'static str,
    of: keys::Table,
    value: &mut T,
    each: fn(&mut T, &mut F),
) {
    let mut some = (*value != T::default()).then(|| value.clone());
    f.table(key, of, &mut some, T::default(), each);
    *value = some.unwrap_or_default();
}

fn announce<F: Fields>(a: &mut Announce, f: &mut F) {
    let d = Announce::default();
    f.time("delay", &mut a.delay, Some(d.delay));
    f.short("repeat", &mut a.repeat, Some(d.repeat), 1..=u16::MAX);
    f.time_or_none("lower_prio_delay", &mut a.lower_prio_delay);
    f.short_or_none("lower_prio_repeat", &mut a.lower_prio_repeat, 0..=u16::MAX);
    f.time("refresh", &mut a.refresh, Some(d.refresh));
    f.short("refresh_repeat", &mut a.refresh_repeat, Some(d.refresh_repeat), 1..=u16::MAX);
    f.time("arp_interval", &mut a.arp_interval, Some(d.arp_interval));
    f.time("nd_interval", &mut a.nd_interval, Some(d.nd_interval));
    f.time("extra_interval", &mut a.extra_interval, Some(d.extra_interval));
    f.flag("extra_all", &mut a.extra_all, false);
}

fn tracking<F: Fields>(t: &mut Tracking, f: &mut F) {
    f.items("interfaces", &mut t.interfaces);
    f.items("scripts", &mut t.scripts);
    f.items("files", &mut t.files);
    f.items("processes", &mut t.processes);
    f.items("bfd", &mut t.bfd);
    f.items("services", &mut t.services);
}

fn notify<F: Fields>(n: &mut Notify, f: &mut F) {
    f.script("master", &mut n.master);
    f.script("backup", &mut n.backup);
    f.script("fault", &mut n.fault);
    f.script("stop", &mut n.stop);
    f.script("deleted", &mut n.deleted);
    f.script("lower_prio", &mut n.lower_prio);
    f.script("all", &mut n.all);
    f.flag("priority_changes", &mut n.priority_changes, false);
}

fn group<F: Fields>(g: &mut SyncGroup, f: &mut F) {
    f.needed("name", &mut g.name, "all");
    f.texts("members", &mut g.members, true);
    f.flag("track_weights", &mut g.track_weights, false);
    f.flag_or_none("mail", &mut g.mail);
    within(f, "track", keys::GROUP_TRACK, &mut g.track, tracking);
    within(f, "notify", keys::GROUP_NOTIFY, &mut g.notify, notify);
}

fn track_script<F: Fields>(s: &mut TrackScript, f: &mut F) {
    f.needed("name", &mut s.name, "nginx");
    let mut command = (!s.command.command.is_empty()).then(|| Box::new(s.command.clone()));
    f.script("command", &mut command);
    s.command = command.map_or_else(|| s.command.clone(), |command| *command);
    f.time("interval", &mut s.interval, Some(Duration::from_secs(1)));
    f.time_or_none("timeout", &mut s.timeout);
    f.weight(&mut s.weight, 0, MAX_TRACK_WEIGHT);
    f.flag("reverse", &mut s.reverse, false);
    f.count("rise", &mut s.rise, Some(1), 1);
    f.count("fall", &mut s.fall, Some(1), 1);
    f.choice("start", &mut s.start_down, &[("up", false), ("down", true)], false);
}

fn track_file<F: Fields>(t: &mut TrackFile, f: &mut F) {
    f.needed("name", &mut t.name, "load");
    f.needed("path", &mut t.path, "/run/load");
    f.weight(&mut t.weight, 1, MAX_COUNT_WEIGHT);
    f.flag("reverse", &mut t.reverse, false);
    let mut initial = t.initial.map_or(i64::MIN, i64::from);
    f.number("initial", &mut initial, Some(i64::MIN), i32::MIN.into()..=i32::MAX.into());
    t.initial = i32::try_from(initial).ok();
    f.flag("overwrite", &mut t.overwrite, false);
}

fn track_process<F: Fields>(p: &mut TrackProcess, f: &mut F) {
    f.needed("name", &mut p.name, "nginx");
    f.texts("command", &mut p.command, true);
    f.choice("arguments", &mut p.arguments, &Arguments::ALL.map(|a| (a.name(), a)), Arguments::Exact);
    f.flag("full_command", &mut p.full_command, false);
    f.weight(&mut p.weight, 0, MAX_COUNT_WEIGHT);
    f.flag("reverse", &mut p.reverse, false);
    f.short("quorum", &mut p.quorum, Some(1), 1..=u16::MAX);
    f.short_or_none("quorum_max", &mut p.quorum_max, 0..=u16::MAX);
    f.time("start_delay", &mut p.start_delay, Some(Duration::ZERO));
    f.time("stop_delay", &mut p.stop_delay, Some(Duration::ZERO));
}

fn bfd<F: Fields>(s: &mut BfdSession, f: &mut F) {
    let d = Bfd::default();
    f.needed("name", &mut s.name, "gateway");
    f.address("address", &mut s.target.address);
    f.address("source", &mut s.target.source);
    f.time("min_rx", &mut s.bfd.min_rx, Some(d.min_rx));
    f.time("min_tx", &mut s.bfd.min_tx, Some(d.min_tx));
    f.time("idle_tx", &mut s.bfd.idle_tx, Some(d.idle_tx));
    f.byte("multiplier", &mut s.bfd.multiplier, Some(d.multiplier), 1..=255);
    f.flag("passive", &mut s.bfd.passive, false);
    f.byte_or_none("ttl", &mut s.bfd.ttl, 1);
    let mut hops = s.bfd.max_hops.unwrap_or(255);
    f.byte("max_hops", &mut hops, Some(0), 0..=255);
    // 255 hops are as far as a packet goes: no limit.
    s.bfd.max_hops = (hops < 255).then_some(hops);
    f.flag("multihop", &mut s.bfd.multihop, false);
    f.weight(&mut s.weight, 0, MAX_TRACK_WEIGHT);
    f.flag("reverse", &mut s.reverse, false);
}

fn interface_delay<F: Fields>(d: &mut InterfaceDelay, f: &mut F) {
    f.needed("interface", &mut d.interface, "eth0");
    f.time("down", &mut d.down, Some(Duration::ZERO));
    f.time("up", &mut d.up, Some(Duration::ZERO));
}

fn fifo<F: Fields>(o: &mut Fifo, f: &mut F) {
    f.needed("path", &mut o.path, "/run/dirigent/changes");
    f.choice("events", &mut o.events, &Events::ALL.map(|e| (e.name(), e)), Events::All);
    f.text("user", &mut o.user);
    f.text("group", &mut o.group);
    f.script("script", &mut o.script);
    f.flag("states_on_reload", &mut o.states_on_reload, false);
}

fn mail<F: Fields>(m: &mut Mail, f: &mut F) {
    f.needed("server", &mut m.server, "192.0.2.25");
    f.short("port", &mut m.port, Some(25), 1..=u16::MAX);
    f.texts("to", &mut m.to, true);
    f.text("from", &mut m.from);
    f.text("helo", &mut m.helo);
    f.text("host", &mut m.host);
    f.time("timeout", &mut m.timeout, Some(Duration::from_secs(30)));
    f.flag_or_none("routers", &mut m.routers);
    f.flag_or_none("services", &mut m.services);
    f.flag("no_faults", &mut m.no_faults, false);
}

fn sync<F: Fields>(s: &mut Sync, f: &mut F) {
    const ADDRESS: (&str, &str) = ("address", "write it in numbers, like \"224.0.0.81\" or \"ff02::8848\"");
    let d = Sync::default();
    f.choice("role", &mut s.role, &SyncRole::ALL.map(|r| (r.name(), r)), SyncRole::Both);
    f.text("router", &mut s.router);
    f.text("interface", &mut s.interface);
    f.byte("id", &mut s.id, Some(0), 0..=255);
    let both: Both<IpAddr> = (|text| text.parse().ok(), IpAddr::to_string);
    let mut group = Some(s.group);
    f.parsed("group", &mut group, Some(d.group), both, ADDRESS);
    s.group = group.unwrap_or(s.group);
    f.short("port", &mut s.port, Some(d.port), 1..=u16::MAX);
    f.byte("ttl", &mut s.ttl, Some(d.ttl), 1..=255);
    f.short_or_none("maxlen", &mut s.maxlen, 1..=65507);
    f.count("threshold", &mut s.threshold, Some(d.threshold), 0);
    f.count("period", &mut s.period, Some(d.period), 0);
    f.time("refresh_period", &mut s.refresh_period, Some(d.refresh_period));
    f.byte("retries", &mut s.retries, Some(0), 0..=3);
    f.items("peers", &mut s.peers);
    f.secret("key", &mut s.key);
    f.flag("persist_mode", &mut s.persist_mode, false);
    f.flag("backup_only", &mut s.backup_only, false);
}

impl Item for IpAddr {
    const TABLE: keys::Table = keys::PEER;
    const WHAT: (&'static str, &'static str) = ("address", "write it in numbers, like \"192.0.2.3\"");
    fn short(&self) -> Option<String> {
        Some(self.to_string())
    }
    fn from_short(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn blank() -> Self {
        Ipv4Addr::UNSPECIFIED.into()
    }
    fn fields<F: Fields>(&mut self, _: &mut F) {}
}

fn general<F: Fields>(o: &mut Failover, f: &mut F) {
    f.time("startup_delay", &mut o.startup_delay, Some(Duration::ZERO));
    f.time("boot_delay", &mut o.boot_delay, Some(Duration::ZERO));
    f.flag("log_unknown_vrids", &mut o.log_unknown_vrids, false);
}

/// Where the tables stand, by header and number.
type Places<'a, 't> = HashMap<(&'static str, usize), Table<'a, 't>>;

/// Reads a table.
struct Read<'r, 'a, 't, 'x> {
    table: Table<'a, 't>,
    /// Which of its kind.
    at: usize,
    report: &'r mut Report<'x>,
    places: &'r mut Places<'a, 't>,
    /// Parts of the file are not TOML: what is missing may stand there.
    gaps: bool,
}

impl Read<'_, '_, '_, '_> {
    fn missing(&mut self, key: &str, example: &str) {
        if !self.gaps {
            self.report.add(self.table.at, format!("{key} is missing"), format!("add {key} = {example}"));
        }
    }
}

impl Fields for Read<'_, '_, '_, '_> {
    fn text(&mut self, key: &'static str, value: &mut Option<String>) {
        if let Some((text, _)) = self.table.string(key, self.report) {
            *value = Some(text.to_owned());
        }
    }
    fn needed(&mut self, key: &'static str, value: &mut String, example: &str) {
        if self.table.get(key).is_none() {
            self.missing(key, &quoted(example));
        }
        if let Some((text, _)) = self.table.string(key, self.report) {
            *value = text.to_owned();
        }
    }
    fn flag(&mut self, key: &'static str, value: &mut bool, _: bool) {
        *value = self.table.boolean(key, self.report).unwrap_or(*value);
    }
    fn flag_or_none(&mut self, key: &'static str, value: &mut Option<bool>) {
        *value = self.table.boolean(key, self.report).or(*value);
    }
    fn number(&mut self, key: &'static str, value: &mut i64, default: Option<i64>, range: RangeInclusive<i64>) {
        let Some((found, at)) = self.table.get(key) else {
            if default.is_none() {
                self.missing(key, "51");
            }
            return;
        };
        let remedy = format!("use a whole number from {} to {}, without quotes", range.start(), range.end());
        let Some(number) = found.as_integer() else {
            return self.report.add(at, format!("{key} is {}, not an integer", kind(found)), remedy);
        };
        match i64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n)) {
            Some(number) => *value = number,
            None => self.report.add(at, format!("{key} is {}", number.as_str()), remedy),
        }
    }
    fn time(&mut self, key: &'static str, value: &mut Duration, _: Option<Duration>) {
        *value = self.table.duration(key, self.report).unwrap_or(*value);
    }
    fn choice<T: Copy + PartialEq>(&mut self, key: &'static str, value: &mut T, of: &[(&'static str, T)], _: T) {
        *value = self.table.choice(key, of, self.report).unwrap_or(*value);
    }
    fn parsed<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        value: &mut Option<T>,
        _: Option<T>,
        (parse, _): Both<T>,
        (what, remedy): (&str, &str),
    ) {
        let Some((text, at)) = self.table.string(key, self.report) else { return };
        match parse(text) {
            Some(found) => *value = Some(found),
            None => self.report.add(at, format!("{key} is {text:?}, no {what}"), remedy),
        }
    }
    fn texts(&mut self, key: &'static str, value: &mut Vec<String>, required: bool) {
        if required && self.table.get(key).is_none() {
            self.missing(key, "[\"…\"]");
        }
        if let Some(texts) = self.table.strings(key, self.report) {
            *value = texts.into_iter().map(|(text, _)| text.to_owned()).collect();
        }
    }
    fn script(&mut self, key: &'static str, value: &mut Option<Box<Script>>) {
        if let Some(found) = script(&self.table, key, self.report) {
            *value = Some(Box::new(found));
        }
    }
    fn items<T: Item>(&mut self, key: &'static str, value: &mut Vec<T>) {
        let Some(array) = self.table.array(key, self.report) else { return };
        value.clear();
        for item in array.iter() {
            let (found, at) = (item.get_ref(), item.span().start);
            let (what, remedy) = T::WHAT;
            // What cannot be understood keeps its place, so that the places of the others stay true.
            let mut one = T::blank();
            if let Some(text) = found.as_str() {
                match T::from_short(text) {
                    Some(read) => one = read,
                    None => self.report.add(at, format!("{key} holds {text:?}, no {what}"), remedy),
                }
            } else if let Some(entries) = found.as_table() {
                let table = Table::open(T::TABLE, entries, at, self.report);
                if entries.get("address").or(entries.get("name")).is_none() {
                    self.report.add(at, format!("{key} holds a table without {what}"), remedy);
                }
                let Read { report, places, gaps, .. } = self;
                one.fields(&mut Read { table, at: 0, report, places, gaps: *gaps });
            } else {
                self.report.add(at, format!("{key} holds {}", kind(found)), remedy);
            }
            value.push(one);
        }
    }
    fn table<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        of: keys::Table,
        value: &mut Option<T>,
        plain: T,
        each: fn(&mut T, &mut Self),
    ) {
        let Some(inner) = self.table.table(key, of, self.report) else { return };
        self.places.insert((of.header, self.at), inner);
        let mut found = plain;
        let outer = std::mem::replace(&mut self.table, inner);
        each(&mut found, self);
        self.table = outer;
        *value = Some(found);
    }
    fn family(&mut self, ipv6: &mut bool, implied: Option<bool>) {
        let mut family = if implied == Some(true) { 6 } else { 4 };
        let key = "family";
        if let Some((_, at)) = self.table.get(key) {
            self.number(key, &mut family, Some(4), 4..=6);
            if family == 5 {
                self.report.add(at, "family is 5", "use 4 or 6");
            }
        }
        *ipv6 = family == 6;
    }
}

/// Prints a table.
#[derive(Default)]
struct Print {
    /// `key = value`, each with its key.
    lines: Vec<String>,
    /// Tables within.
    tables: Vec<(&'static str, Vec<String>)>,
}

impl Print {
    fn line(&mut self, key: &str, value: impl Display) {
        self.lines.push(format!("{key} = {value}"));
    }
    fn end(self, header: &str, out: &mut String) {
        for (header, lines) in [(header, self.lines)].into_iter().chain(self.tables) {
            *out += &format!("\n{header}\n");
            lines.iter().for_each(|line| *out += &format!("{line}\n"));
        }
    }
}

impl Fields for Print {
    fn text(&mut self, key: &'static str, value: &mut Option<String>) {
        if let Some(text) = value {
            self.line(key, quoted(text));
        }
    }
    fn needed(&mut self, key: &'static str, value: &mut String, _: &str) {
        self.line(key, quoted(value));
    }
    fn flag(&mut self, key: &'static str, value: &mut bool, default: bool) {
        if *value != default {
            self.line(key, *value);
        }
    }
    fn flag_or_none(&mut self, key: &'static str, value: &mut Option<bool>) {
        if let Some(value) = value {
            self.line(key, *value);
        }
    }
    fn number(&mut self, key: &'static str, value: &mut i64, default: Option<i64>, _: RangeInclusive<i64>) {
        if Some(*value) != default {
            self.line(key, *value);
        }
    }
    fn time(&mut self, key: &'static str, value: &mut Duration, default: Option<Duration>) {
        if Some(*value) != default {
            self.line(key, quoted(&duration::format(*value)));
        }
    }
    fn choice<T: Copy + PartialEq>(&mut self, key: &'static str, value: &mut T, of: &[(&'static str, T)], default: T) {
        if let Some((name, _)) = of.iter().find(|(_, one)| one == value && *value != default) {
            self.line(key, quoted(name));
        }
    }
    fn parsed<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        value: &mut Option<T>,
        default: Option<T>,
        (_, print): Both<T>,
        _: (&str, &str),
    ) {
        if let Some(one) = value.as_ref().filter(|_| *value != default) {
            self.line(key, quoted(&print(one)));
        }
    }
    fn texts(&mut self, key: &'static str, value: &mut Vec<String>, required: bool) {
        if required || !value.is_empty() {
            self.line(key, list(value));
        }
    }
    fn script(&mut self, key: &'static str, value: &mut Option<Box<Script>>) {
        let mut text = String::new();
        print_script(&mut text, key, value.as_deref());
        self.lines.extend(text.lines().map(str::to_owned));
    }
    fn items<T: Item>(&mut self, key: &'static str, value: &mut Vec<T>) {
        let item = |one: &mut T| match one.short() {
            Some(text) => quoted(&text),
            None => {
                let mut inner = Self::default();
                one.fields(&mut inner);
                format!("{{ {} }}", inner.lines.join(", "))
            }
        };
        if !value.is_empty() {
            let items: Vec<_> = value.iter_mut().map(item).collect();
            self.line(key, format_args!("[{}]", items.join(", ")));
        }
    }
    fn table<T: Clone + PartialEq>(
        &mut self,
        _: &'static str,
        of: keys::Table,
        value: &mut Option<T>,
        _: T,
        each: fn(&mut T, &mut Self),
    ) {
        if let Some(value) = value {
            let outer = std::mem::take(&mut self.lines);
            each(value, self);
            let inner = std::mem::replace(&mut self.lines, outer);
            self.tables.push((of.header, inner));
        }
    }
    fn family(&mut self, ipv6: &mut bool, implied: Option<bool>) {
        if implied.unwrap_or(false) != *ipv6 {
            self.line("family", if *ipv6 { 6 } else { 4 });
        }
    }
}

/// All of failover, and objections to it.
pub fn read(root: &Table, services: &[Service], gaps: bool, report: &mut Report) -> Failover {
    let mut places = Places::default();
    let mut failover = Failover::default();
    let mut reader = Reader { root, places: &mut places, gaps, report };
    if let Some(table) = root.table("failover", keys::FAILOVER, reader.report) {
        reader.one(table, 0, &mut failover, |v, f| general(v, f));
    }
    failover.routers = reader.all("router", keys::ROUTER, |v, f| router(v, f));
    failover.groups = reader.all("router_group", keys::ROUTER_GROUP, |v, f| group(v, f));
    failover.scripts = reader.all("track_script", keys::TRACK_SCRIPT, |v, f| track_script(v, f));
    failover.files = reader.all("track_file", keys::TRACK_FILE, |v, f| track_file(v, f));
    failover.processes = reader.all("track_process", keys::TRACK_PROCESS, |v, f| track_process(v, f));
    failover.bfd = reader.all("bfd", keys::BFD, |v, f| bfd(v, f));
    failover.interface_delays = reader.all("interface_delay", keys::INTERFACE_DELAY, |v, f| interface_delay(v, f));
    failover.fifos = reader.all("fifo", keys::FIFO, |v, f| fifo(v, f));
    failover.mail = root.table("mail", keys::MAIL, reader.report).map(|table| {
        let mut found = Mail::default();
        reader.one(table, 0, &mut found, |v, f| mail(v, f));
        found
    });
    failover.sync = root.table("sync", keys::SYNC, reader.report).map(|table| {
        let mut found = Sync::default();
        reader.one(table, 0, &mut found, |v, f| sync(v, f));
        found
    });
    blame(&failover, services, &places, report);
    failover
}

/// Tells what is wrong with all of it, where that has not been told of.
fn blame(failover: &Failover, services: &[Service], places: &Places, report: &mut Report) {
    let place = |part: Part, key: &str| {
        let table = places.get(&(part.table, part.at)).or_else(|| places.get(&(outer(part.table), part.at)));
        let Some(table) = table else { return 0 };
        let known = table.knows(key).then(|| table.get(key)).flatten();
        let item = part.item.zip(known).and_then(|(at, (value, _))| value.as_array()?.get(at));
        item.map_or_else(|| known.map_or(table.at, |(_, at)| at), |item| item.span().start)
    };
    for (part, (key, what, remedy)) in failover.faults() {
        report.add_unless_told(place(part, key), what, remedy);
    }
    for (at, router) in failover.routers.iter().enumerate() {
        track(router.track.service_keys(), Part { table: "[router.track]", at, item: None }, services, &place, report);
    }
    for (at, group) in failover.groups.iter().enumerate() {
        let part = Part { table: "[router_group.track]", at, item: None };
        track(group.track.service_keys(), part, services, &place, report);
    }
}

/// The table that a table is in.
fn outer(header: &'static str) -> &'static str {
    match header {
        "[router_group.track]" | "[router_group.notify]" => "[[router_group]]",
        _ => "[[router]]",
    }
}

/// Tells of tracked services that the file does not have.
fn track(
    keys: impl Iterator<Item = Option<ServiceKey>>,
    part: Part,
    services: &[Service],
    place: &dyn Fn(Part, &str) -> usize,
    report: &mut Report,
) {
    for (item, key) in keys.enumerate() {
        let Some(key) = key.filter(|key| !services.iter().any(|s| s.key == *key)) else { continue };
        let at = place(Part { item: Some(item), ..part }, "services");
        report.add_unless_told(at, format!("there is no service {key}"), "add it, or correct the name");
    }
}

/// Tells of virtual addresses that two would hold; `at`: where a service says that the daemon does.
pub fn held_twice(failover: &Failover, services: &[Service], at: impl Fn(&ServiceKey) -> usize, report: &mut Report) {
    for violation in crate::check::held_twice(failover, services) {
        if let Violation::HeldTwice { service, .. } = &violation {
            report.add(at(service), violation.to_string(), violation.remedy());
        }
    }
}

struct Reader<'r, 'a, 't, 'x> {
    root: &'r Table<'a, 't>,
    places: &'r mut Places<'a, 't>,
    gaps: bool,
    report: &'r mut Report<'x>,
}

impl<'a, 't, 'x> Reader<'_, 'a, 't, 'x> {
    fn one<T>(&mut self, table: Table<'a, 't>, at: usize, value: &mut T, each: fn(&mut T, &mut Read<'_, 'a, 't, 'x>)) {
        self.places.insert((table.header(), at), table);
        each(value, &mut Read { table, at, report: self.report, places: self.places, gaps: self.gaps });
    }
    fn all<T: Default>(
        &mut self,
        key: &'static str,
        of: keys::Table,
        each: fn(&mut T, &mut Read<'_, 'a, 't, 'x>),
    ) -> Vec<T> {
        let tables = self.root.tables(key, of, self.report);
        let mut out = Vec::new();
        for (at, table) in tables.into_iter().enumerate() {
            let mut one = T::default();
            self.one(table, at, &mut one, each);
            out.push(one);
        }
        out
    }
}

/// Prints all of failover.
pub fn print(failover: &Failover, out: &mut String) {
    let mut f = failover.clone();
    let mut head = Print::default();
    general(&mut f, &mut head);
    if !head.lines.is_empty() {
        head.end("[failover]", out);
    }
    each(&mut f.routers, "[[router]]", router, out);
    each(&mut f.groups, "[[router_group]]", group, out);
    each(&mut f.scripts, "[[track_script]]", track_script, out);
    each(&mut f.files, "[[track_file]]", track_file, out);
    each(&mut f.processes, "[[track_process]]", track_process, out);
    each(&mut f.bfd, "[[bfd]]", bfd, out);
    each(&mut f.interface_delays, "[[interface_delay]]", interface_delay, out);
    each(&mut f.fifos, "[[fifo]]", fifo, out);
    each(f.mail.as_mut_slice(), "[mail]", mail, out);
    each(f.sync.as_mut_slice(), "[sync]", sync, out);
}

fn each<T>(all: &mut [T], header: &str, one: fn(&mut T, &mut Print), out: &mut String) {
    for value in all {
        let mut print = Print::default();
        one(value, &mut print);
        print.end(header, out);
    }
}
