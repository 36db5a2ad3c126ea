//! The configuration file, and what of it does not fit this host.

use super::mail;
use crate::failure::{Failure, Result, code};
use crate::keepalived;
use dirigent_api::Problem;
use dirigent_config::import::{Refused, is_keepalived};
use dirigent_config::{Model, Violation, VipPolicy, file};
use dirigent_net::links::RouteEntry;
use dirigent_net::{Snapshot, TableRule};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// What the file says; without one nothing but defaults. A name on the command line wins over the file's.
pub fn layer(path: Option<&Path>, instance: Option<String>) -> Result<Model> {
    let (model, lost) = load(path, instance)?;
    lost.iter().for_each(|problem| tracing::warn!("{problem}"));
    Ok(model)
}

/// The same, with what of the file has no counterpart: keepalived.conf may be the file, too.
pub fn load(path: Option<&Path>, instance: Option<String>) -> Result<(Model, Vec<Problem>)> {
    let (model, lost) = match path {
        Some(path) => {
            let name = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|e| Failure::io(name.clone(), &e))?;
            if is_keepalived(&name, &text) {
                let (model, refused) = keepalived::read(&name, &text).strict()?;
                let lost = |one: &Refused| {
                    let what = format!("{:?} is not translated", one.rule);
                    Problem::new(one.place.clone(), what, one.reason.clone())
                };
                (model, refused.iter().map(lost).collect())
            } else {
                (parse(&name, &text)?, Vec::new())
            }
        }
        None => (Model::default(), Vec::new()),
    };
    Ok((named(model, instance)?, lost))
}

/// The Model of a text.
pub fn parse(name: &str, text: &str) -> Result<Model> {
    Ok(file::parse(name, text)?)
}

fn named(mut model: Model, instance: Option<String>) -> Result<Model> {
    if let Some(instance) = instance {
        let settings = dirigent_config::Settings { instance, ..model.settings().clone() };
        model.set_settings(settings).map_err(|e| {
            let remedy = match &e {
                dirigent_config::IpvsError::Invalid(violation) => Violation::remedy(violation),
                _ => String::new(),
            };
            let what = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Failure { code: code::INVALID, ..Failure::new("--instance", what, remedy) }
        })?;
    }
    Ok(model)
}

/// The addresses of all virtual services, and whether the daemon manages them.
pub fn virtual_addresses(model: &Model) -> Vec<(IpAddr, bool)> {
    let services = model.services().iter();
    let addresses = services.filter_map(|s| Some((s.key.address()?, s.vip == VipPolicy::Manage)));
    let mut managed = HashMap::new();
    for (address, one) in addresses.clone() {
        *managed.entry(address).or_insert(false) |= one;
    }
    // Each once, in the services' order.
    addresses.filter_map(|(address, _)| managed.remove_entry(&address)).collect()
}

/// The addresses of all real servers, sorry servers among them.
pub fn servers(model: &Model) -> BTreeSet<IpAddr> {
    let sorry = model.services().iter().filter_map(|s| s.health.sorry.as_deref()).map(|sorry| sorry.address);
    model.services().iter().flat_map(|s| &s.servers).map(|s| s.address).chain(sorry).collect()
}

/// What a Model asks for that this host does not have now.
pub fn warnings(model: &Model, snapshot: &Snapshot) -> Vec<Problem> {
    let mut all = unheld(model, snapshot);
    all.extend(misfits(model, snapshot));
    all
}

/// The same, but for virtual addresses that nobody holds.
pub fn misfits(model: &Model, snapshot: &Snapshot) -> Vec<Problem> {
    let mut all = Vec::new();
    for name in model.settings().interfaces.iter().flatten() {
        if snapshot.link_named(name).is_none() {
            let remedy = "check the name with `ip link`; the daemon attaches to it when it appears";
            all.push(Problem::new(format!("interface {name}"), "it does not exist", remedy));
        }
    }
    all.extend(unled(model, snapshot));
    all.extend(model.failover().mail.iter().flat_map(mail::wrong));
    all.extend(alone(model));
    all
}

/// What of failover is configured and not done.
fn alone(model: &Model) -> Vec<Problem> {
    let failover = model.failover();
    let remedy = "remove it, or let keepalived do this virtual router";
    let problem = |(place, what)| Problem::new(place, what, remedy);
    let mut all: Vec<_> = super::failover::undone(failover).into_iter().map(problem).collect();
    if failover.sync.as_ref().is_some_and(|sync| sync.backup_only) {
        let what = "a backup forwards what reaches it all the same: `backup_only` is not done by this version";
        all.push(Problem::new("sync.backup_only", what, "remove it"));
    }
    all
}

/// What is wrong with the rules that lead to a device for marks, once it is there.
fn unled(model: &Model, snapshot: &Snapshot) -> Option<Problem> {
    let name = model.settings().mark_device.as_ref()?;
    let device = snapshot.link_named(name)?.index;
    let over_it = |route: &&RouteEntry| route.hops.iter().any(|hop| hop.ifindex == device);
    let lead = |rule: &&TableRule| {
        let mut routes = snapshot.routes.iter().filter(over_it);
        routes.any(|route| (route.destination.0.is_ipv6(), route.table) == (rule.ipv6, rule.table))
    };
    let rules: Vec<_> = snapshot.rules.iter().filter(lead).collect();
    let place = format!("mark_device {name}");
    if rules.is_empty() {
        let remedy = format!(
            "for each mark: `ip rule add fwmark MARK iif INTERFACE lookup 107`, and `ip route add default dev {name} \
             table 107`; with `ip -6` for IPv6"
        );
        return Some(Problem::new(place, "no rule and route lead packets to it", remedy));
    }
    let rule = rules.iter().find(|rule| !rule.by_interface)?;
    let what = format!(
        "a rule that looks up table {} leads packets to it whatever interface they come by: what the director leaves to \
         the host comes back, if netfilter marks it again, until its TTL is used up",
        rule.table
    );
    Some(Problem::new(place, what, "give the rule the clients' interface: `ip rule add fwmark MARK iif INTERFACE …`"))
}

/// So many virtual addresses that nobody holds are told one by one.
const UNHELD_EACH: usize = 8;

/// Virtual addresses that nobody here holds, and that the daemon does not manage.
pub fn unheld(model: &Model, snapshot: &Snapshot) -> Vec<Problem> {
    // A virtual router's are another host's as well as this one's.
    let moving = model.failover().routers.iter().flat_map(|r| r.all_addresses()).map(|a| a.address);
    let own: HashSet<IpAddr> = snapshot.addresses.iter().map(|a| a.ip).chain(moving).collect();
    let held = |ip: IpAddr| own.contains(&ip) || snapshot.is_local(ip);
    let all = virtual_addresses(model).into_iter().filter(|(ip, managed)| !managed && !held(*ip));
    let missing: Vec<IpAddr> = all.map(|(ip, _)| ip).collect();
    let command = |ip: &IpAddr| format!("`ip address add {ip}/{} dev lo`", if ip.is_ipv4() { 32 } else { 128 });
    // A list of thousands would hide what else there is to say.
    match &missing[..] {
        [first, second, .., last] if missing.len() > UNHELD_EACH => vec![Problem::new(
            format!("{} virtual addresses: {first}, {second} … {last}", missing.len()),
            "nobody on this host holds them, so their packets pass untouched",
            format!("add each ({} …), or set vip = \"manage\"", command(first)),
        )],
        few => few
            .iter()
            .map(|ip| {
                Problem::new(
                    format!("virtual address {ip}"),
                    "nobody on this host holds it, so its packets pass untouched",
                    format!("add it ({}), or set vip = \"manage\"", command(ip)),
                )
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_addresses_that_nobody_holds_are_one_warning() {
        let unheld = |count: usize| {
            let service = |n| format!("[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.{n}:80\"\n");
            let text: String = (1..=count).map(service).collect();
            let model = file::parse("dirigent.toml", &format!("version = 1\n{text}")).unwrap();
            warnings(&model, &Snapshot::default())
        };
        let few = unheld(UNHELD_EACH);
        assert_eq!(few.len(), UNHELD_EACH);
        assert_eq!(few[7].place, "virtual address 192.0.2.8");
        let [many] = &unheld(200)[..] else { panic!("one warning") };
        assert_eq!(many.place, "200 virtual addresses: 192.0.2.1, 192.0.2.2 … 192.0.2.200");
        assert!(many.remedy.contains("ip address add 192.0.2.1/32 dev lo"), "{many}");
    }

    #[test]
    fn keepalived_conf_is_taken_as_it_is() {
        let directory = std::env::temp_dir().join(format!("dirigent-keepalived-{}", std::process::id()));
        fs::create_dir_all(directory.join("vs")).unwrap();
        let file = directory.join("lb.conf");
        fs::write(&file, "global_defs {\n router_id x\n}\ninclude vs/*.conf\n").unwrap();
        let server = |text: &str| {
            let text = format!(
                "virtual_server 192.0.2.10 80 {{\n{text}\n real_server 10.0.0.2 80 {{\nTCP_CHECK {{\n}}\n}}\n}}\n"
            );
            fs::write(directory.join("vs/a.conf"), text).unwrap();
            load(Some(&file), None)
        };
        let (model, lost) = server("protocol TCP").unwrap();
        let wrong = server("protocol IP\nlb_alog rr").unwrap_err();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(model.services().len(), 1);
        let [lost] = &lost[..] else { panic!("{lost:?}") };
        assert_eq!(
            (lost.place.as_str(), lost.what.as_str()),
            (&*format!("{}:2", file.display()), "\"router_id x\" is not translated")
        );
        assert_eq!(wrong.code, code::INVALID);
        let places: Vec<_> = wrong.problems.iter().map(|p| p.place.rsplit('/').next().unwrap_or_default()).collect();
        assert_eq!(places, ["a.conf:2:1", "a.conf:3:1"]);
        assert!(wrong.problems.iter().all(|p| !p.remedy.is_empty()));
    }
}
