//! VRRP: instances, groups, what they track; mail, FIFOs and the synchronisation daemon.

use super::checkers::FileOf;
use super::keywords::{self, GROUP_KNOWN, INSTANCE, INSTANCE_KNOWN, SCRIPT_KNOWN};
use super::syntax::{Node, Place};
use super::values::{address, boolean, integer, rights, script, seconds, word};
use super::{Globals, Said};
use crate::failover::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Blocks that are read here.
pub const BLOCKS: [&str; 6] =
    ["vrrp_script", "vrrp_track_process", "vrrp_instance", "vrrp_sync_group", "garp_group", "interface_up_down_delays"];

/// What global_defs say for all instances.
#[derive(Clone, Debug)]
pub struct Defaults {
    version: Version,
    multicast4: Option<IpAddr>,
    multicast6: Option<IpAddr>,
    announce: Announce,
    least: bool,
    down_timer_adverts: u8,
    lower_prio_no_advert: bool,
    higher_prio_send_advert: bool,
    owner_ignore_adverts: bool,
    v3_checksum_as_v2: bool,
    check_unicast_src: bool,
    skip_check_adv_addr: bool,
    strict: bool,
    priority_changes: bool,
    vmac_prefix: Option<String>,
    general: Failover,
    mail: Mail,
    /// What is about mail, and where it stands.
    mailed: Vec<Node>,
    sync: Option<Node>,
    fifos: Vec<(Events, Fifo, Place)>,
    readers: Vec<(Events, Node)>,
    states_on_reload: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            version: Version::V2,
            multicast4: None,
            multicast6: None,
            announce: Announce::default(),
            least: false,
            down_timer_adverts: 3,
            lower_prio_no_advert: false,
            higher_prio_send_advert: false,
            owner_ignore_adverts: false,
            v3_checksum_as_v2: false,
            check_unicast_src: false,
            skip_check_adv_addr: false,
            strict: false,
            priority_changes: false,
            vmac_prefix: None,
            general: Failover::default(),
            mail: Mail::default(),
            mailed: Vec::new(),
            sync: None,
            fifos: Vec::new(),
            readers: Vec::new(),
            states_on_reload: false,
        }
    }
}

/// Seconds to three digits behind the point, at most `most`.
fn time(n: &Node, most: u64, said: &mut Said) -> Option<Duration> {
    let text = word(n, said)?;
    let found = seconds(text).filter(|time| *time <= Duration::from_secs(most));
    if found.is_none() {
        said.fault(&n.place, format!("{} is {text:?}", n.keyword), format!("use seconds, up to {most}, like 3 or 2.5"));
    }
    found
}

fn byte(n: &Node, min: i64, max: i64, said: &mut Said) -> Option<u8> {
    integer(n, min, max, said).and_then(|n| u8::try_from(n).ok())
}

fn short(n: &Node, min: i64, said: &mut Said) -> Option<u16> {
    integer(n, min, 65535, said).and_then(|n| u16::try_from(n).ok())
}

const DAY: u64 = 86_400;

impl Defaults {
    /// Takes one of its keywords.
    pub fn take(&mut self, n: &Node, said: &mut Said) -> bool {
        let yes = |said: &mut Said| boolean(n, said).unwrap_or(false);
        match n.keyword.as_str() {
            "vrrp_version" => {
                if let Some(number) = integer(n, 2, 3, said) {
                    self.version = if number == 2 { Version::V2 } else { Version::V3 };
                }
            }
            "vrrp_mcast_group4" => self.multicast4 = word(n, said).and_then(|text| address(n, text, said)),
            "vrrp_mcast_group6" => self.multicast6 = word(n, said).and_then(|text| address(n, text, said)),
            "vrrp_min_garp" => self.least = yes(said),
            "vrrp_garp_interval" => self.announce.arp_interval = time(n, DAY, said).unwrap_or_default(),
            "vrrp_gna_interval" => self.announce.nd_interval = time(n, DAY, said).unwrap_or_default(),
            "vrrp_down_timer_adverts" => self.down_timer_adverts = byte(n, 1, 100, said).unwrap_or(3),
            "vrrp_lower_prio_no_advert" => self.lower_prio_no_advert = yes(said),
            "vrrp_higher_prio_send_advert" => self.higher_prio_send_advert = yes(said),
            "vrrp_owner_ignore_adverts" => self.owner_ignore_adverts = yes(said),
            "v3_checksum_as_v2" => self.v3_checksum_as_v2 = yes(said),
            "vrrp_check_unicast_src" => self.check_unicast_src = yes(said),
            "vrrp_skip_check_adv_addr" => self.skip_check_adv_addr = yes(said),
            "vrrp_strict" => self.strict = yes(said),
            "vrrp_notify_priority_changes" => self.priority_changes = yes(said),
            "vmac_prefix" => self.vmac_prefix = word(n, said).map(str::to_owned),
            "vrrp_startup_delay" => self.general.startup_delay = time(n, DAY, said).unwrap_or_default(),
            "vrrp_delay_after_boot" => self.general.boot_delay = time(n, DAY, said).unwrap_or_default(),
            "log_unknown_vrids" => self.general.log_unknown_vrids = yes(said),
            "lvs_sync_daemon" => self.sync = Some(n.clone()),
            "fifo_write_vrrp_states_on_reload" => self.states_on_reload = true,
            word if word.ends_with("notify_fifo") => {
                let Some(path) = n.value(0) else {
                    said.fault(&n.place, format!("{word} has no value"), "write a path after it");
                    return true;
                };
                let (user, group) = rights(n.values.get(1..).unwrap_or_default());
                let fifo = Fifo { path: path.to_owned(), events: events(word), user, group, ..Fifo::default() };
                self.fifos.push((events(word), fifo, n.place.clone()));
            }
            word if word.ends_with("notify_fifo_script") => self.readers.push((events(word), n.clone())),
            word => {
                let Some(word) = word.strip_prefix("vrrp_") else { return self.mail(n, said) };
                return announce(n, word, &mut self.announce, said).is_some();
            }
        }
        true
    }

    fn mail(&mut self, n: &Node, said: &mut Said) -> bool {
        let m = &mut self.mail;
        let text = |n: &Node, said: &mut Said| word(n, said).map(str::to_owned);
        match n.keyword.as_str() {
            "notification_email" => {
                let inside = n.inside().iter().flat_map(|n| [&n.keyword].into_iter().chain(&n.values));
                m.to.extend(n.values.iter().chain(inside).cloned());
            }
            "notification_email_from" => m.from = text(n, said),
            "smtp_server" => {
                m.server = text(n, said).unwrap_or_default();
                if let Some(port) = n.value(1) {
                    m.port = port.parse().unwrap_or(0);
                    if m.port == 0 {
                        said.fault(&n.place, format!("smtp_server has port {port:?}"), "use 1 to 65535, usually 25");
                        m.port = 25;
                    }
                }
            }
            "smtp_helo_name" => m.helo = text(n, said),
            "smtp_connect_timeout" => m.timeout = time(n, DAY, said).unwrap_or(m.timeout),
            "smtp_alert" => {
                let all = boolean(n, said);
                (m.routers, m.services) = (m.routers.or(all), m.services.or(all));
            }
            "smtp_alert_vrrp" => m.routers = boolean(n, said),
            "smtp_alert_checker" => m.services = boolean(n, said),
            "no_email_faults" => m.no_faults = boolean(n, said).unwrap_or(false),
            "router_id" => m.host = text(n, said),
            _ => return false,
        }
        self.mailed.push(n.clone());
        true
    }
}

fn events(word: &str) -> Events {
    match word.split('_').next() {
        Some("vrrp") => Events::Routers,
        Some("lvs") => Events::Services,
        _ => Events::All,
    }
}

/// One of the keywords about gratuitous ARP.
fn announce(n: &Node, word: &str, a: &mut Announce, said: &mut Said) -> Option<&'static str> {
    match word {
        "garp_master_delay" => a.delay = time(n, DAY, said).unwrap_or(a.delay),
        "garp_master_repeat" => a.repeat = short(n, 1, said).unwrap_or(a.repeat),
        "garp_lower_prio_delay" => a.lower_prio_delay = time(n, DAY, said),
        "garp_lower_prio_repeat" => a.lower_prio_repeat = short(n, 0, said),
        "garp_master_refresh" => a.refresh = time(n, DAY, said).unwrap_or(a.refresh),
        "garp_master_refresh_repeat" => a.refresh_repeat = short(n, 1, said).unwrap_or(a.refresh_repeat),
        "garp_extra_if" | "vmac_garp_intvl" => {
            a.extra_all = n.value(0) == Some("all");
            let found = n.value(a.extra_all.into()).and_then(|text| text.parse().ok()).filter(|s| *s <= DAY);
            match found {
                Some(found) => a.extra_interval = Duration::from_secs(found),
                None => said.fault(&n.place, format!("{} has no time", n.keyword), "write 0 to 86400 seconds after it"),
            }
        }
        _ => return None,
    }
    Some(match word {
        "garp_master_delay" => "delay",
        "garp_master_repeat" => "repeat",
        "garp_lower_prio_delay" => "lower_prio_delay",
        "garp_lower_prio_repeat" => "lower_prio_repeat",
        "garp_master_refresh" => "refresh",
        "garp_master_refresh_repeat" => "refresh_repeat",
        _ => "extra_interval",
    })
}

/// Where keys were said.
type Placed = HashMap<(&'static str, usize, &'static str), Vec<Place>>;

struct Importer<'i> {
    globals: &'i Globals,
    said: &'i mut Said,
    placed: Placed,
    /// What is tracked by a weight of its own without a word about `reverse`: that is the tracked thing's.
    inherits: Vec<(&'static str, usize, &'static str, usize)>,
    /// Where tables begin.
    begun: HashMap<(&'static str, usize), Place>,
}

/// All of failover.
pub fn failover(nodes: &[Node], globals: &Globals, files: &[FileOf], said: &mut Said) -> Failover {
    let defaults = &globals.vrrp;
    let mut failover = defaults.general.clone();
    let mut i = Importer { globals, said, placed: Placed::new(), inherits: Vec::new(), begun: HashMap::new() };
    let mut garps = Vec::new();
    for node in nodes {
        match node.keyword.as_str() {
            "vrrp_script" => {
                let at = failover.scripts.len();
                failover.scripts.extend(i.script(node, at));
            }
            "vrrp_track_process" => {
                let at = failover.processes.len();
                failover.processes.extend(i.process(node, at));
            }
            "vrrp_instance" => {
                let at = failover.routers.len();
                failover.routers.extend(i.instance(node, at));
            }
            "vrrp_sync_group" => {
                let at = failover.groups.len();
                failover.groups.extend(i.group(node, at));
            }
            "garp_group" => garps.push(node),
            "interface_up_down_delays" => {
                for n in node.inside() {
                    let at = failover.interface_delays.len();
                    failover.interface_delays.extend(i.interface_delay(n, at));
                }
            }
            _ => {}
        }
    }
    for node in garps {
        i.garp_group(node, &mut failover.routers);
    }
    i.used(nodes, files, &mut failover);
    i.reversed(&mut failover);
    i.sync(nodes, &mut failover);
    i.fifos(&mut failover);
    i.mail(&mut failover);
    i.blame(failover)
}

impl Importer<'_> {
    fn put(&mut self, table: &'static str, at: usize, key: &'static str, place: &Place) {
        self.placed.entry((table, at, key)).or_default().push(place.clone());
    }
    fn named(&mut self, node: &Node, table: &'static str, at: usize) -> Option<String> {
        self.begun.insert((table, at), node.place.clone());
        word(node, self.said).map(str::to_owned)
    }

    /// Tells what is wrong; what is wrong is left out, and so is what refers to it.
    fn blame(self, failover: Failover) -> Failover {
        let faults = failover.faults();
        for (part, (key, what, remedy)) in &faults {
            let outer = match part.table.strip_prefix("[router.") {
                Some(_) => "[[router]]",
                None if part.table.starts_with("[router_group.") => "[[router_group]]",
                None => part.table,
            };
            let found = [part.table, outer].into_iter().find_map(|table| self.placed.get(&(table, part.at, *key)));
            let place = found.and_then(|all| part.item.map_or_else(|| all.last(), |item| all.get(item)));
            let Some(place) = place.or_else(|| self.begun.get(&(outer, part.at))) else { continue };
            let place = place.clone();
            // A keyword that could not be read has been told of.
            let told = self.said.faults.iter().any(|f| f.line == place.line && *f.file == *place.file);
            if !told {
                self.said.fault(&place, what.clone(), *remedy);
            }
        }
        if faults.is_empty() { failover } else { Failover::default() }
    }

    fn instance(&mut self, node: &Node, at: usize) -> Option<VirtualRouter> {
        const T: &str = "[[router]]";
        let name = self.named(node, T, at)?;
        let d = &self.globals.vrrp;
        let mut r = VirtualRouter {
            name,
            version: d.version,
            down_timer_adverts: d.down_timer_adverts,
            check_unicast_src: d.check_unicast_src,
            lower_prio_no_advert: d.lower_prio_no_advert,
            higher_prio_send_advert: d.higher_prio_send_advert,
            owner_ignore_adverts: d.owner_ignore_adverts,
            skip_check_adv_addr: d.skip_check_adv_addr,
            strict: d.strict,
            announce: d.announce.clone(),
            notify: Notify { priority_changes: d.priority_changes, ..Notify::default() },
            ..VirtualRouter::default()
        };
        if d.least {
            (r.announce.delay, r.announce.repeat) = (Duration::ZERO, 1);
        }
        let all = r.announce.clone();
        let mut own = Own::default();
        for n in node.inside() {
            let key = self.keyword(n, &mut r, &mut own, at);
            if let Some(key) = key {
                self.put(T, at, key, &n.place);
            }
        }
        r.ipv6 = r.implied_family().unwrap_or(false);
        if r.ipv6 && r.version == Version::V2 {
            if let Some(n) = own.version.filter(|n| n.value(0) == Some("2")) {
                self.said.note(n, "IPv6 is of version 3");
            }
            r.version = Version::V3;
        }
        let checksum = own.checksum.unwrap_or(d.v3_checksum_as_v2 && r.version == Version::V3 && !r.ipv6);
        r.v3_checksum_as_v2 = checksum;
        let group = if r.ipv6 { d.multicast6 } else { d.multicast4 };
        r.multicast = r.multicast.or(group.filter(|_| r.peers.is_empty()));
        // Where an instance says nothing of them they follow global_defs, not its own other ones.
        let (delay, repeat) = (all.lower_prio_delay.unwrap_or(all.delay), all.lower_prio_repeat.unwrap_or(all.repeat));
        let a = &mut r.announce;
        a.lower_prio_delay = a.lower_prio_delay.or((delay != a.delay).then_some(delay));
        a.lower_prio_repeat = a.lower_prio_repeat.or((repeat != a.repeat).then_some(repeat));
        r.accept = own.accept.unwrap_or(!r.strict || r.priority == 255);
        if r.strict {
            // A lower master's advert is neither answered nor the reason of announcements.
            r.lower_prio_no_advert = true;
            (r.announce.lower_prio_delay, r.announce.lower_prio_repeat) = (Some(Duration::ZERO), Some(0));
        }
        if let Some(mac) = &mut r.virtual_mac {
            let name = d.vmac_prefix.as_ref().map(|prefix| format!("{prefix}.{}", r.vrid));
            mac.name = mac.name.take().or(name);
            (mac.transmit_base, mac.addresses) = (own.transmit_base, own.mac_addresses);
        } else if own.mac_addresses {
            let all = r.addresses.iter_mut().chain(&mut r.excluded);
            all.filter(|a| a.device.is_some()).for_each(|a| a.virtual_mac = true);
        }
        if own.no_vrid {
            self.said.fault(&node.place, format!("{} has no virtual_router_id", r.name), "add virtual_router_id 51");
        }
        Some(r)
    }

    /// One keyword of an instance, as the key of dirigent.toml.
    fn keyword<'n>(
        &mut self,
        n: &'n Node,
        r: &mut VirtualRouter,
        own: &mut Own<'n>,
        at: usize,
    ) -> Option<&'static str> {
        let said = &mut *self.said;
        let yes = |said: &mut Said| boolean(n, said).unwrap_or(false);
        let text = |said: &mut Said| word(n, said).map(str::to_owned);
        Some(match n.keyword.as_str() {
            "state" => {
                match word(n, said) {
                    Some("MASTER") => r.state = Initial::Master,
                    Some("BACKUP") | None => {}
                    Some(other) => said.fault(&n.place, format!("state is {other:?}"), "use MASTER or BACKUP"),
                }
                "state"
            }
            "interface" => {
                r.interface = text(said);
                "interface"
            }
            "vrf" => {
                r.vrf = text(said);
                "vrf"
            }
            "virtual_router_id" => {
                let vrid = byte(n, 1, 255, said);
                own.no_vrid = false;
                r.vrid = vrid.unwrap_or(r.vrid);
                "vrid"
            }
            "priority" => {
                r.priority = byte(n, 1, 255, said).unwrap_or(r.priority);
                "priority"
            }
            "advert_int" => {
                r.interval = time(n, 255, said).unwrap_or(r.interval);
                "interval"
            }
            "version" => {
                own.version = Some(n);
                if let Some(number) = integer(n, 2, 3, said) {
                    r.version = if number == 2 { Version::V2 } else { Version::V3 };
                }
                "version"
            }
            "down_timer_adverts" => {
                r.down_timer_adverts = byte(n, 1, 100, said).unwrap_or(r.down_timer_adverts);
                "down_timer_adverts"
            }
            "preempt" => {
                r.preempt = true;
                "preempt"
            }
            "nopreempt" => {
                r.preempt = false;
                "preempt"
            }
            "preempt_delay" => {
                r.preempt_delay = time(n, 1000, said).unwrap_or_default();
                "preempt_delay"
            }
            "virtual_ipaddress" => {
                for one in n.inside() {
                    if let Some(found) = virtual_address(one, said) {
                        r.addresses.push(found);
                        self.placed.entry(("[[router]]", at, "addresses")).or_default().push(one.place.clone());
                    }
                }
                return None;
            }
            "virtual_ipaddress_excluded" => {
                for one in n.inside() {
                    if let Some(found) = virtual_address(one, said) {
                        r.excluded.push(found);
                        self.placed.entry(("[[router]]", at, "excluded")).or_default().push(one.place.clone());
                    }
                }
                return None;
            }
            "virtual_routes" | "virtual_rules" => {
                let (key, list) = match n.keyword.as_str() {
                    "virtual_routes" => ("routes", &mut r.routes),
                    _ => ("rules", &mut r.rules),
                };
                for one in n.inside() {
                    let words: Vec<_> = [&one.keyword].into_iter().chain(&one.values).map(String::as_str).collect();
                    list.push(words.join(" "));
                    self.placed.entry(("[[router]]", at, key)).or_default().push(one.place.clone());
                }
                return None;
            }
            "promote_secondaries" => {
                r.promote_secondaries = true;
                "promote_secondaries"
            }
            "mcast_src_ip" | "unicast_src_ip" => {
                r.source = word(n, said).and_then(|text| address(n, text, said));
                "source"
            }
            "mcast_dst_ip" => {
                r.multicast = word(n, said).and_then(|text| address(n, text, said));
                "multicast"
            }
            "track_src_ip" => {
                r.track_source = true;
                "track_source"
            }
            "unicast_peer" => {
                for one in n.inside() {
                    if let Some(peer) = peer(one, said) {
                        r.peers.push(peer);
                        self.placed.entry(("[[router]]", at, "peers")).or_default().push(one.place.clone());
                    }
                }
                return None;
            }
            "unicast_fault_no_peer" => {
                r.fault_without_peer = true;
                "fault_without_peer"
            }
            "unicast_ttl" => {
                r.unicast_ttl = byte(n, 0, 255, said);
                "unicast_ttl"
            }
            "check_unicast_src" => {
                r.check_unicast_src = yes(said);
                "check_unicast_src"
            }
            "v3_checksum_as_v2" => {
                own.checksum = boolean(n, said);
                "v3_checksum_as_v2"
            }
            "use_vmac" => {
                r.virtual_mac = Some(vmac(n, said));
                "virtual_mac"
            }
            "use_vmac_addr" => {
                own.mac_addresses = true;
                "virtual_mac"
            }
            "vmac_xmit_base" => {
                own.transmit_base = true;
                "virtual_mac"
            }
            "dont_track_primary" => {
                r.track_interface = false;
                "track_interface"
            }
            "lower_prio_no_advert" => {
                r.lower_prio_no_advert = yes(said);
                "lower_prio_no_advert"
            }
            "higher_prio_send_advert" => {
                r.higher_prio_send_advert = yes(said);
                "higher_prio_send_advert"
            }
            "owner_ignore_adverts" => {
                r.owner_ignore_adverts = yes(said);
                "owner_ignore_adverts"
            }
            "accept" => {
                own.accept = Some(true);
                "accept"
            }
            "no_accept" => {
                own.accept = Some(false);
                "accept"
            }
            "skip_check_adv_addr" => {
                r.skip_check_adv_addr = yes(said);
                "skip_check_adv_addr"
            }
            "strict_mode" => {
                r.strict = yes(said);
                "strict"
            }
            "authentication" => {
                r.authentication = authentication(n, said);
                "password"
            }
            // It only keeps keepalived from warning.
            "no_virtual_ipaddress" => return None,
            "lvs_sync_daemon_interface" => return None,
            word if announce(n, word, &mut r.announce, said).is_some() => {
                // Read once more for its key's name; nothing is told twice.
                let key = announce(n, word, &mut Announce::default(), &mut Said::default())?;
                self.put("[router.announce]", at, key, &n.place);
                return None;
            }
            word if self.common(
                n,
                word,
                ("[router.track]", "[router.notify]"),
                at,
                &mut r.track,
                &mut r.notify,
                &mut r.mail,
            ) =>
            {
                return None;
            }
            word => {
                match keywords::reason(word, INSTANCE) {
                    Some(why) => self.said.note(n, why),
                    None => {
                        let all = INSTANCE.iter().map(|(name, _)| *name).chain(INSTANCE_KNOWN.iter().copied());
                        self.said.unknown(n, "vrrp_instance", &all.collect::<Vec<_>>());
                    }
                }
                return None;
            }
        })
    }

    /// What instances and groups have in common: tracking, notification and mail.
    #[expect(clippy::too_many_arguments, reason = "they are the parts of either")]
    fn common(
        &mut self,
        n: &Node,
        word: &str,
        (tracks, notifies): (&'static str, &'static str),
        at: usize,
        track: &mut Tracking,
        notify: &mut Notify,
        mail: &mut Option<bool>,
    ) -> bool {
        let (key, list) = match word {
            "track_interface" => ("interfaces", &mut track.interfaces),
            "track_script" => ("scripts", &mut track.scripts),
            "track_file" => ("files", &mut track.files),
            "track_process" => ("processes", &mut track.processes),
            "track_bfd" => ("bfd", &mut track.bfd),
            _ => return self.notification(n, word, notifies, at, notify, mail),
        };
        for one in n.inside() {
            let most = if ["files", "processes"].contains(&key) { MAX_COUNT_WEIGHT } else { MAX_TRACK_WEIGHT };
            if let Some(found) = tracked(one, most, self.said) {
                if found.weight.is_some() && one.value(2).is_none() {
                    self.inherits.push((tracks, at, key, list.len()));
                }
                list.push(found);
                self.placed.entry((tracks, at, key)).or_default().push(one.place.clone());
            }
        }
        true
    }

    fn notification(
        &mut self,
        n: &Node,
        word: &str,
        table: &'static str,
        at: usize,
        notify: &mut Notify,
        mail: &mut Option<bool>,
    ) -> bool {
        let (key, slot) = match word {
            "notify_master" => ("master", &mut notify.master),
            "notify_backup" => ("backup", &mut notify.backup),
            "notify_fault" => ("fault", &mut notify.fault),
            "notify_stop" => ("stop", &mut notify.stop),
            "notify_deleted" if !n.values.is_empty() => ("deleted", &mut notify.deleted),
            "notify_master_rx_lower_pri" => ("lower_prio", &mut notify.lower_prio),
            "notify" => ("all", &mut notify.all),
            "notify_deleted" => {
                self.said.note(n, "of a virtual router that a reload removes, DELETED is told anyway");
                return true;
            }
            "notify_priority_changes" => {
                notify.priority_changes = boolean(n, self.said).unwrap_or(false);
                return true;
            }
            "smtp_alert" => {
                *mail = boolean(n, self.said);
                return true;
            }
            _ => return false,
        };
        // keepalived takes the first.
        if slot.is_none() {
            *slot = script(n, &self.globals.user, self.said).map(Box::new);
        }
        self.put(table, at, key, &n.place);
        true
    }

    fn group(&mut self, node: &Node, at: usize) -> Option<SyncGroup> {
        const T: &str = "[[router_group]]";
        let priority_changes = self.globals.vrrp.priority_changes;
        let notify = Notify { priority_changes, ..Notify::default() };
        let mut g = SyncGroup { name: self.named(node, T, at)?, notify, ..SyncGroup::default() };
        for n in node.inside() {
            match n.keyword.as_str() {
                "group" => {
                    for one in n.inside() {
                        for name in [&one.keyword].into_iter().chain(&one.values) {
                            g.members.push(name.clone());
                            self.put(T, at, "members", &one.place);
                        }
                    }
                }
                "sync_group_tracking_weight" => g.track_weights = true,
                "global_tracking" => {
                    self.said.note(n, "deprecated: name in the group what all of its members shall track");
                }
                word => {
                    let tables = ("[router_group.track]", "[router_group.notify]");
                    if !self.common(n, word, tables, at, &mut g.track, &mut g.notify, &mut g.mail) {
                        self.said.unknown(n, "vrrp_sync_group", GROUP_KNOWN);
                    }
                }
            }
        }
        Some(g)
    }

    fn script(&mut self, node: &Node, at: usize) -> Option<TrackScript> {
        const T: &str = "[[track_script]]";
        let name = self.named(node, T, at)?;
        let user = node.inside().iter().find(|n| n.keyword == "user");
        let user = user.map_or_else(|| self.globals.user.clone(), |n| rights(&n.values));
        let mut s = TrackScript { name, ..TrackScript::default() };
        for n in node.inside() {
            let said = &mut *self.said;
            let key = match n.keyword.as_str() {
                "script" => {
                    s.command = script(n, &user, said).unwrap_or(s.command);
                    "command"
                }
                "interval" => {
                    s.interval = time(n, DAY, said).unwrap_or(s.interval);
                    "interval"
                }
                "timeout" => {
                    s.timeout = time(n, DAY, said).filter(|time| !time.is_zero());
                    "timeout"
                }
                "weight" => {
                    (s.weight, s.reverse) = weight(n, &n.values, MAX_TRACK_WEIGHT, said).unwrap_or_default();
                    "weight"
                }
                "rise" | "fall" => {
                    let number = integer(n, 1, i32::MAX.into(), said).and_then(|n| u32::try_from(n).ok());
                    let slot = if n.keyword == "rise" { &mut s.rise } else { &mut s.fall };
                    *slot = number.unwrap_or(*slot);
                    "rise"
                }
                "init_fail" => {
                    s.start_down = true;
                    "start"
                }
                "user" => continue,
                _ => {
                    said.unknown(n, "vrrp_script", SCRIPT_KNOWN);
                    continue;
                }
            };
            self.put(T, at, key, &n.place);
        }
        if s.command.command.is_empty() {
            let what = format!("vrrp_script {} has no script", s.name);
            self.said.fault(&node.place, what, "add script \"/path/to/program\"");
        }
        Some(s)
    }

    fn process(&mut self, node: &Node, at: usize) -> Option<TrackProcess> {
        const T: &str = "[[track_process]]";
        const KNOWN: &[&str] = &[
            "process",
            "param_match",
            "weight",
            "quorum",
            "quorum_max",
            "fork_delay",
            "terminate_delay",
            "delay",
            "full_command",
        ];
        let mut p = TrackProcess { name: self.named(node, T, at)?, ..TrackProcess::default() };
        for n in node.inside() {
            let said = &mut *self.said;
            let key = match n.keyword.as_str() {
                "process" => {
                    p.command = n.values.clone();
                    "command"
                }
                "param_match" => {
                    p.arguments = match word(n, said) {
                        Some("initial") => Arguments::Initial,
                        Some("partial") => Arguments::Partial,
                        Some("exact") | None => Arguments::Exact,
                        Some(other) => {
                            said.fault(&n.place, format!("param_match is {other:?}"), "use initial or partial");
                            Arguments::Exact
                        }
                    };
                    "arguments"
                }
                "weight" => {
                    (p.weight, p.reverse) = weight(n, &n.values, MAX_COUNT_WEIGHT, said).unwrap_or_default();
                    "weight"
                }
                "quorum" => {
                    p.quorum = short(n, 1, said).unwrap_or(p.quorum);
                    "quorum"
                }
                "quorum_max" => {
                    p.quorum_max = short(n, 0, said);
                    "quorum_max"
                }
                "fork_delay" => {
                    p.start_delay = time(n, 3600, said).unwrap_or_default();
                    "start_delay"
                }
                "terminate_delay" => {
                    p.stop_delay = time(n, 3600, said).unwrap_or_default();
                    "stop_delay"
                }
                "delay" => {
                    p.start_delay = time(n, 3600, said).unwrap_or_default();
                    p.stop_delay = p.start_delay;
                    "start_delay"
                }
                "full_command" => {
                    p.full_command = true;
                    "full_command"
                }
                _ => {
                    said.unknown(n, "vrrp_track_process", KNOWN);
                    continue;
                }
            };
            self.put(T, at, key, &n.place);
        }
        Some(p)
    }

    fn interface_delay(&mut self, n: &Node, at: usize) -> Option<InterfaceDelay> {
        self.begun.insert(("[[interface_delay]]", at), n.place.clone());
        let time = |at: usize| match n.value(at) {
            None => Some(Duration::ZERO),
            Some(text) => seconds(text).filter(|time| *time <= Duration::from_secs(255)),
        };
        let times = time(0).zip(time(1)).filter(|_| n.value(0).is_some());
        if times.is_none() {
            let what = format!("interface_up_down_delays of {}", n.keyword);
            self.said.fault(&n.place, what, "write INTERFACE, and after it seconds down and up, 0 to 255");
        }
        times.map(|(down, up)| InterfaceDelay { interface: n.keyword.clone(), down, up })
    }

    /// Intervals of interfaces go to the instances on them.
    fn garp_group(&mut self, node: &Node, routers: &mut [VirtualRouter]) {
        const KNOWN: &[&str] = &["garp_interval", "gna_interval", "interface", "interfaces"];
        let (mut arp, mut nd, mut interfaces) = (None, None, Vec::new());
        for n in node.inside() {
            match n.keyword.as_str() {
                "garp_interval" => arp = time(n, DAY, self.said),
                "gna_interval" => nd = time(n, DAY, self.said),
                "interface" => interfaces.extend(word(n, self.said).map(|name| (n, name.to_owned()))),
                "interfaces" => {
                    let inside = n.inside().iter().flat_map(|n| [&n.keyword].into_iter().chain(&n.values));
                    interfaces.extend(n.values.iter().chain(inside).map(|name| (n, name.clone())));
                }
                _ => self.said.unknown(n, "garp_group", KNOWN),
            }
        }
        if arp.is_none() && nd.is_none() {
            self.said.fault(&node.place, "garp_group has no interval", "add garp_interval or gna_interval");
        }
        if interfaces.is_empty() {
            self.said.fault(&node.place, "garp_group has no interface", "add interface NAME, or interfaces { … }");
        }
        if interfaces.len() > 1 {
            self.said.note(node, "the interval holds for each of these interfaces, not for all of them together");
        }
        for (n, name) in interfaces {
            let mut on = routers.iter_mut().filter(|r| r.interface.as_deref() == Some(&name)).peekable();
            if on.peek().is_none() {
                self.said.note(n, format!("no vrrp_instance speaks by {name}"));
            }
            on.for_each(|r| {
                r.announce.arp_interval = arp.unwrap_or(r.announce.arp_interval);
                r.announce.nd_interval = nd.unwrap_or(r.announce.nd_interval);
            });
        }
    }

    /// Files and sessions of BFD that somebody tracks; others are for checkers alone.
    fn used(&mut self, nodes: &[Node], files: &[FileOf], failover: &mut Failover) {
        let routers = failover.routers.iter().map(|r| &r.track);
        let all: Vec<_> = routers.chain(failover.groups.iter().map(|g| &g.track)).cloned().collect();
        let tracks = |list: fn(&Tracking) -> &[Tracked], name: &str| {
            all.iter().any(|track| list(track).iter().any(|one| one.name == name))
        };
        for file in files {
            let used = tracks(|t| &t.files, &file.name);
            if let Some(n) = file.initial.as_ref().filter(|_| !used) {
                self.said.note(n, "the director writes no such file: let its owner do so");
            }
            if !used {
                continue;
            }
            let at = failover.files.len();
            self.begun.insert(("[[track_file]]", at), file.place.clone());
            let most = i32::from(MAX_COUNT_WEIGHT);
            let (weight, reverse) = file.weight.unwrap_or((1, false));
            if weight.abs() > most {
                let what = format!("weight {weight} of track_file {} for a vrrp_instance", file.name);
                self.said.fault(&file.place, what, "use -254 to 254");
            }
            let (initial, overwrite) = match &file.initial {
                None => (None, false),
                Some(n) => {
                    let overwrite = n.values.iter().any(|word| word == "overwrite");
                    let number = n.values.iter().find(|word| *word != "overwrite").map_or(Ok(0), |word| word.parse());
                    if number.is_err() {
                        self.said.fault(&n.place, format!("init_file {:?}", n.values), "write a whole number");
                    }
                    (number.ok(), overwrite)
                }
            };
            failover.files.push(TrackFile {
                name: file.name.clone(),
                path: file.path.clone(),
                weight: i16::try_from(weight).unwrap_or(0),
                reverse,
                initial,
                overwrite: overwrite && initial.is_some(),
            });
        }
        for node in nodes.iter().filter(|n| n.keyword == "bfd_instance") {
            let Some((name, target, bfd)) = self.globals.bfd.iter().find(|(name, ..)| node.value(0) == Some(name))
            else {
                continue;
            };
            let inside = |key: &str| node.inside().iter().rev().find(|n| n.keyword == key);
            if !tracks(|t| &t.bfd, name) {
                let unused = ["weight", "vrrp"].into_iter().filter_map(inside);
                unused.for_each(|n| self.said.note(n, "no vrrp_instance tracks this session"));
                continue;
            }
            let at = failover.bfd.len();
            self.begun.insert(("[[bfd]]", at), node.place.clone());
            let number = inside("weight").and_then(|n| weight(n, &n.values, MAX_TRACK_WEIGHT, self.said));
            if let Some(n) = inside("checker") {
                let what = format!("bfd_instance {name} is for checkers only, and a vrrp_instance tracks it");
                self.said.fault(&n.place, what, "remove checker, or do not track it");
            }
            if let Some(n) = inside("vrrp") {
                self.said.note(n, "a session is whose that name it: nothing has to be excluded");
            }
            let (weight, reverse) = number.unwrap_or_default();
            let (target, bfd) = (target.clone(), bfd.clone());
            failover.bfd.push(BfdSession { name: name.clone(), target, bfd, weight, reverse });
        }
    }

    fn reversed(&mut self, failover: &mut Failover) {
        for (table, at, key, item) in std::mem::take(&mut self.inherits) {
            let track = match table {
                "[router.track]" => failover.routers.get_mut(at).map(|r| &mut r.track),
                _ => failover.groups.get_mut(at).map(|g| &mut g.track),
            };
            let Some(track) = track else { continue };
            let (list, reversed): (_, Vec<&str>) = match key {
                "scripts" => {
                    let all = failover.scripts.iter().filter(|one| one.reverse).map(|one| one.name.as_str());
                    (&mut track.scripts, all.collect())
                }
                "files" => {
                    let all = failover.files.iter().filter(|one| one.reverse).map(|one| one.name.as_str());
                    (&mut track.files, all.collect())
                }
                "processes" => {
                    let all = failover.processes.iter().filter(|one| one.reverse).map(|one| one.name.as_str());
                    (&mut track.processes, all.collect())
                }
                "bfd" => {
                    let all = failover.bfd.iter().filter(|one| one.reverse).map(|one| one.name.as_str());
                    (&mut track.bfd, all.collect())
                }
                _ => continue,
            };
            if let Some(one) = list.get_mut(item) {
                one.reverse = reversed.contains(&one.name.as_str());
            }
        }
    }

    fn sync(&mut self, nodes: &[Node], failover: &mut Failover) {
        let own = nodes.iter().filter(|n| n.keyword == "vrrp_instance").find_map(|node| {
            let n = node.inside().iter().find(|n| n.keyword == "lvs_sync_daemon_interface")?;
            Some((n, node.value(0)?.to_owned()))
        });
        let mut sync = Sync::default();
        let n = match (&self.globals.vrrp.sync, own) {
            (Some(n), own) => {
                if let Some((n, _)) = own {
                    self.said.note(n, "lvs_sync_daemon of global_defs is what holds");
                }
                self.sync_daemon(n, &mut sync);
                n
            }
            (None, Some((n, router))) => {
                sync.interface = word(n, self.said).map(str::to_owned);
                sync.router = Some(router);
                n
            }
            (None, None) => return,
        };
        self.begun.insert(("[sync]", 0), n.place.clone());
        let given = n.values.iter().any(|word| word == "id");
        if let Some(router) = failover.routers.iter().find(|r| Some(&r.name) == sync.router.as_ref()).filter(|_| !given)
        {
            sync.id = router.vrid;
        }
        failover.sync = Some(sync);
    }

    /// `IF [[inst] VI] [id N] [maxlen N] [port N] [ttl N] [group IP]`.
    fn sync_daemon(&mut self, n: &Node, sync: &mut Sync) {
        let mut words = n.values.iter().map(String::as_str).peekable();
        sync.interface = words.next().map(str::to_owned);
        let keyword = |word: &&str| ["id", "maxlen", "port", "ttl", "group", "inst"].contains(word);
        if words.peek().is_some_and(|word| !keyword(word)) {
            sync.router = words.next().map(str::to_owned);
        }
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            let number = |min: u16, max: u16| value.parse::<u16>().ok().filter(|n| (min..=max).contains(n));
            let good = match word {
                "inst" => {
                    sync.router = Some(value.to_owned());
                    !value.is_empty()
                }
                "id" => number(0, 255).map(|n| sync.id = n as u8).is_some(),
                "maxlen" => number(1, 65507).map(|n| sync.maxlen = Some(n)).is_some(),
                "port" => number(1, 65535).map(|n| sync.port = n).is_some(),
                "ttl" => number(1, 255).map(|n| sync.ttl = n as u8).is_some(),
                "group" => value.parse().map(|group| sync.group = group).is_ok(),
                _ => false,
            };
            if !good {
                let remedy =
                    "write INTERFACE, and after it inst NAME, id, maxlen, port, ttl with numbers, group ADDRESS";
                return self.said.fault(&n.place, format!("lvs_sync_daemon has {word:?} {value:?}"), remedy);
            }
        }
        if sync.interface.is_none() {
            self.said.fault(&n.place, "lvs_sync_daemon has no value", "write an interface after it");
        }
    }

    fn fifos(&mut self, failover: &mut Failover) {
        let d = &self.globals.vrrp;
        for (of, fifo, place) in &d.fifos {
            let mut fifo = fifo.clone();
            let reader = d.readers.iter().find(|(events, _)| events == of);
            fifo.script = reader.and_then(|(_, n)| script(n, &self.globals.user, self.said)).map(Box::new);
            fifo.states_on_reload = d.states_on_reload && *of != Events::Services;
            self.begun.insert(("[[fifo]]", failover.fifos.len()), place.clone());
            failover.fifos.push(fifo);
        }
        for (_, n) in d.readers.iter().filter(|(of, _)| !d.fifos.iter().any(|(events, ..)| events == of)) {
            self.said.fault(&n.place, format!("{} without its FIFO", n.keyword), "add the FIFO, or remove the script");
        }
    }

    fn mail(&mut self, failover: &mut Failover) {
        let d = &self.globals.vrrp;
        if d.mail.to.is_empty() {
            for n in &d.mailed {
                self.said.note(n, "there is no notification_email, so nothing is mailed");
            }
            return;
        }
        let mut mail = d.mail.clone();
        if mail.server.is_empty() {
            mail.server = Ipv4Addr::LOCALHOST.to_string();
        }
        if let Some(n) = d.mailed.iter().find(|n| n.keyword == "notification_email") {
            self.begun.insert(("[mail]", 0), n.place.clone());
        }
        failover.mail = Some(mail);
    }
}

/// What an instance says that cannot stand in the router at once.
#[derive(Debug)]
struct Own<'n> {
    version: Option<&'n Node>,
    checksum: Option<bool>,
    accept: Option<bool>,
    transmit_base: bool,
    mac_addresses: bool,
    no_vrid: bool,
}

impl Default for Own<'_> {
    fn default() -> Self {
        Self { version: None, checksum: None, accept: None, transmit_base: false, mac_addresses: false, no_vrid: true }
    }
}

/// `N [reverse|noreverse]`.
fn weight(n: &Node, words: &[String], most: i16, said: &mut Said) -> Option<(i16, bool)> {
    let number = words.first().and_then(|text| text.parse::<i16>().ok()).filter(|n| (-most..=most).contains(n));
    let Some(number) = number else {
        said.fault(&n.place, format!("{}: a weight that is none", n.keyword), format!("use -{most} to {most}"));
        return None;
    };
    match words.get(1).map(String::as_str) {
        None | Some("noreverse") => Some((number, false)),
        Some("reverse") => Some((number, true)),
        Some(other) => {
            said.fault(&n.place, format!("weight has {other:?}"), "use reverse, noreverse or nothing");
            None
        }
    }
}

/// `NAME [weight N [reverse]]`.
fn tracked(n: &Node, most: i16, said: &mut Said) -> Option<Tracked> {
    let name = n.keyword.clone();
    match n.value(0) {
        None => Some(Tracked::new(name)),
        Some("weight") => {
            let (weight, reverse) = weight(n, n.values.get(1..).unwrap_or_default(), most, said)?;
            Some(Tracked { name, weight: Some(weight), reverse })
        }
        Some(other) => {
            said.fault(&n.place, format!("{other:?} after {name}"), "write NAME weight N [reverse]");
            None
        }
    }
}

fn peer(n: &Node, said: &mut Said) -> Option<Peer> {
    let mut peer = Peer::new(address(n, &n.keyword, said)?);
    for pair in n.values.chunks(2) {
        let number = pair.get(1).and_then(|text| text.parse().ok());
        match (pair.first().map(String::as_str), number) {
            (Some("min_ttl"), Some(ttl)) => peer.min_ttl = Some(ttl),
            (Some("max_ttl"), Some(ttl)) => peer.max_ttl = Some(ttl),
            (word, _) => {
                let what = format!("{:?} after {}", word.unwrap_or_default(), n.keyword);
                said.fault(&n.place, what, "write min_ttl or max_ttl, and 0 to 255");
                return None;
            }
        }
    }
    Some(peer)
}

/// `[[name] IF] [MAC] [netlink_notify_msg] [group N]`.
fn vmac(n: &Node, said: &mut Said) -> VirtualMac {
    let mut mac = VirtualMac::default();
    let mut words = n.values.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "name" => mac.name = words.next().map(str::to_owned),
            "group" => match words.next().and_then(|text| text.parse().ok()) {
                Some(group) => mac.group = group,
                None => said.fault(&n.place, "use_vmac group is no number", "use a number, as of `ip link set group`"),
            },
            "netlink_notify_msg" => said.note(n, "netlink_notify_msg: nobody has to be told of the director's devices"),
            word if word.contains(':') => mac.mac = Some(word.to_owned()),
            word => mac.name = Some(word.to_owned()),
        }
    }
    mac
}

fn authentication(node: &Node, said: &mut Said) -> Option<Authentication> {
    let (mut ah, mut password) = (None, None);
    for n in node.inside() {
        match n.keyword.as_str() {
            "auth_type" => match word(n, said) {
                Some("PASS" | "pass") => ah = Some(false),
                Some("AH" | "ah") => ah = Some(true),
                other => {
                    let what = format!("auth_type is {:?}", other.unwrap_or_default());
                    said.fault(&n.place, what, "use PASS or AH");
                }
            },
            "auth_pass" => {
                password = word(n, said).map(str::to_owned);
                if password.as_ref().is_some_and(|p| p.len() > 8) {
                    let what = "auth_pass has more than 8 bytes, of which keepalived sends the first 8";
                    said.fault(&n.place, what, "shorten it to those 8, here and on the other hosts");
                    password = None;
                }
            }
            _ => said.unknown(n, "authentication", &["auth_type", "auth_pass"]),
        }
    }
    if password.is_none() && !said.faults.iter().any(|f| f.line >= node.place.line) {
        said.fault(&node.place, "authentication without auth_pass", "add auth_pass, or remove authentication");
    }
    Some(Authentication { ah: ah.unwrap_or(false), password: Secret(password?) })
}

/// A line of virtual_ipaddress.
fn virtual_address(n: &Node, said: &mut Said) -> Option<RouterAddress> {
    let Some((ip, length)) = RouterAddress::parse(&n.keyword) else {
        let remedy = "write it in numbers, like 192.0.2.10/24 or 2001:db8::10/64";
        said.fault(&n.place, format!("{:?} is no address", n.keyword), remedy);
        return None;
    };
    let mut out = RouterAddress::new(ip, length);
    let mut words = n.values.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        let good = match word {
            "dev" => {
                out.device = Some(value().to_owned());
                true
            }
            "brd" | "broadcast" => broadcast(value(), ip, length).map(|found| out.broadcast = found).is_some(),
            "scope" => {
                out.scope = Some(value().to_owned());
                true
            }
            "label" => {
                out.label = Some(value().to_owned());
                true
            }
            "peer" => RouterAddress::parse(value()).map(|peer| out.peer = Some(peer)).is_some(),
            "use_vmac" => {
                out.virtual_mac = true;
                true
            }
            "no_track" => {
                out.track = false;
                true
            }
            "preferred_lft" => match value() {
                "forever" => true,
                text => text.parse().map(|s: u32| out.preferred = Some(Duration::from_secs(s.into()))).is_ok(),
            },
            word => {
                let flag = word.trim_start_matches('-');
                let known = ADDRESS_FLAGS.contains(&flag) && !out.flags.iter().any(|f| f == flag);
                if known {
                    out.flags.push(flag.to_owned());
                }
                known
            }
        };
        if !good {
            let remedy = "write it as keepalived.conf(5) says: brd, dev, scope, label, peer with a value, …";
            said.fault(&n.place, format!("{word:?} after {ip}"), remedy);
            return None;
        }
    }
    Some(out)
}

/// An address, `+` for the net's last one, `-` for none.
fn broadcast(text: &str, ip: IpAddr, length: u8) -> Option<Option<Ipv4Addr>> {
    let IpAddr::V4(ip) = ip else { return None };
    match text {
        "+" => {
            let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            Some(Some(Ipv4Addr::from_bits(ip.to_bits() | host)))
        }
        "-" => Some(None),
        text => text.parse().ok().map(Some),
    }
}
