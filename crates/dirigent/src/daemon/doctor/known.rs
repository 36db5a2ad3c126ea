//! What the daemon knows without looking for it, as findings: where nothing was found that says more.

use super::paths::route_back;
use super::servers;
use super::way::Way;
use super::{ERROR, Subject, WARNING, clients, here, links};
use crate::daemon::suspicion::{Cause, Suspicion, claims_place};
use dirigent_api::{Finding, Problem, TriedPath};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// That. Of servers that something else is to blame for nothing more is said; `unclaimed` are virtual addresses that nobody
/// else answered for just now.
pub async fn look(
    subject: &Subject,
    found: &[Finding],
    blamed: &BTreeSet<IpAddr>,
    paths: &[TriedPath],
    unclaimed: &BTreeSet<IpAddr>,
) -> Vec<Finding> {
    let known = &subject.known;
    let mut all: Vec<Finding> = known.unheld.iter().map(unheld).collect();
    for (service, server, why) in &known.down {
        let is_it = |way: &&Way| way.service.to_string() == *service && way.server.name() == *server;
        let Some(way) = subject.every.iter().find(is_it) else { continue };
        all.push(check_fails(subject, way, why, paths).await);
    }
    let over: BTreeSet<String> = unclaimed.iter().map(|ip| claims_place(*ip)).collect();
    let suspected = known.suspected.iter().filter(|one| !over.contains(&one.problem().place));
    all.extend(suspected.map(|one| suspicion(subject, one, paths)));
    all.extend(known.misfits.iter().chain(&known.unreached).chain(&known.others).map(reported));
    all.retain(|finding| is_about(subject, &finding.place) && !is_told(found, blamed, &finding.place));
    all
}

/// Whether it is what the asker wants to know about.
fn is_about(subject: &Subject, place: &str) -> bool {
    let Some(name) = subject.about.as_deref() else { return true };
    place.contains(name) || subject.ways().any(|way| place == way.place())
}

/// Whether something was found that says more.
fn is_told(found: &[Finding], blamed: &BTreeSet<IpAddr>, place: &str) -> bool {
    let own = server(place);
    let same = |finding: &Finding| {
        let other = server(&finding.place);
        finding.place == place || own.zip(other).is_some_and(|(one, two)| one.0 == two.0 && (one.1 || two.1))
    };
    own.is_some_and(|(ip, _)| blamed.contains(&ip)) || found.iter().any(same)
}

/// The server that a place names, and whether it is meant with all its services.
fn server(place: &str) -> Option<(IpAddr, bool)> {
    let name = place.strip_prefix("server ")?.split(" of ").next()?;
    let whole = name.parse().ok().map(|ip| (ip, true));
    whole.or_else(|| Some((name.parse::<SocketAddr>().ok()?.ip(), false)))
}

/// What `dirigent status` says.
fn from(problem: &Problem, name: &str, severity: &str) -> Finding {
    Finding {
        name: name.into(),
        severity: severity.into(),
        place: problem.place.clone(),
        what: problem.what.clone(),
        remedy: problem.remedy.clone(),
        ..Finding::default()
    }
}

fn reported(problem: &Problem) -> Finding {
    Finding {
        evidence: vec!["`dirigent status` says so".into()],
        rule: "what the daemon finds wrong with its host or configuration by itself it says in `dirigent status`"
            .into(),
        ..from(problem, "reported", WARNING)
    }
}

fn unheld(problem: &Problem) -> Finding {
    let ip = problem.place.strip_prefix("virtual address ").and_then(|ip| ip.parse::<IpAddr>().ok());
    let add = |ip: IpAddr| here(format!("ip address add {ip}/{} dev lo", if ip.is_ipv4() { 32 } else { 128 }));
    Finding {
        evidence: vec!["no interface of this host has it, and no local route delivers it here".into()],
        rule: "the director takes packets to virtual addresses that are this host's: others are on their way to somebody else"
            .into(),
        commands: ip.map(add).into_iter().collect(),
        ..from(problem, "virtual_address_unheld", ERROR)
    }
}

/// Clients' connections, or other hosts' ARP, bore witness.
fn suspicion(subject: &Subject, suspicion: &Suspicion, paths: &[TriedPath]) -> Finding {
    let problem = suspicion.problem();
    let way = subject.every.iter().find(|way| way.place() == problem.place);
    let rule = match suspicion.cause() {
        Cause::RepliesBypass | Cause::RepliesBypassNearby | Cause::NoAnswers => {
            "by NAT the answer to a client must come back through the director: what the doctor tried may go another way \
             than clients of that network"
        }
        Cause::NeverEstablished => {
            "by direct routing and tunnels the server answers clients itself: the doctor sees what it answers to this host"
        }
        Cause::AddressClaimed => "whoever says that it has the virtual address gets the clients' packets",
    };
    let back = matches!(suspicion.cause(), Cause::RepliesBypass | Cause::NoAnswers);
    let right = |way: &&Way| {
        paths.iter().any(|p| p.right && p.service == way.service.to_string() && p.server == way.server.name())
    };
    // What the doctor tried came back by the default route: these clients have one of their own, more specific.
    let astray = suspicion.client.filter(|_| back && way.as_ref().is_some_and(right));
    let route = way.filter(|_| back).and_then(|way| route_back(subject, way.server.address, astray));
    let seen = problem.what.rsplit(": ").next().unwrap_or_default();
    let seen = match suspicion.cause() {
        Cause::AddressClaimed => format!("heard within five minutes: {}", problem.what),
        _ => format!("seen in connections: {seen}"),
    };
    let answers = matches!(suspicion.cause(), Cause::RepliesBypass | Cause::RepliesBypassNearby | Cause::NoAnswers);
    if let Some(client) = suspicion.client.filter(|_| answers)
        && let Some(finding) = clients::unreachable(&problem.place, client, seen.clone())
    {
        return finding;
    }
    let tried = astray.map(|_| "an answer to an address of nobody's came back through the director".to_owned());
    // That it lives and serves was seen just now.
    let (name, remedy) = match astray {
        Some(client) => (
            Cause::RepliesBypass.name(),
            format!(
                "see on the server by which route it answers that client (`ip route get {client}`): it must lead to the director"
            ),
        ),
        None => (suspicion.cause().name(), problem.remedy.clone()),
    };
    Finding {
        evidence: [seen].into_iter().chain(tried).collect(),
        rule: rule.into(),
        remedy,
        commands: route.into_iter().collect(),
        ..from(&problem, name, ERROR)
    }
}

/// A server that is out of its service.
async fn check_fails(subject: &Subject, way: &Way, why: &str, paths: &[TriedPath]) -> Finding {
    let (service, server) = (way.service.to_string(), way.server.name());
    let tried = paths.iter().find(|path| (&path.service, &path.server) == (&service, &server));
    let along = tried.map(|path| format!("along the clients' path: {}", path.what));
    let evidence = [Some(format!("the check says: {why}")), along].into_iter().flatten();
    let right = tried.is_some_and(|path| path.right);
    let strict = if right { servers::strict(subject, way.server.address).await } else { None };
    if let Some((link, on)) = strict {
        let link = subject.link(link);
        let (commands, sysctls, read) = links::strict(link, &on);
        return Finding {
            name: "rp_filter".into(),
            severity: ERROR.into(),
            place: way.place(),
            what: format!("it is out of service: answers to its checks come by {link}, where this host drops them"),
            evidence: evidence.chain(read).collect(),
            rule: "rp_filter = 1 drops what comes by another interface than the route back leads by; packets of services pass \
                   it, those of checks do not"
                .into(),
            remedy: "have it be loose there, or have the route to the server lead over that interface".into(),
            commands,
            sysctls,
            ..Finding::default()
        };
    }
    Finding {
        name: "check_fails".into(),
        severity: ERROR.into(),
        place: way.place(),
        what: format!("it is out of service: its check fails: {why}"),
        evidence: evidence.collect(),
        rule: "a server gets connections while its checks pass".into(),
        remedy: match right {
            true => {
                "clients' packets get there: see what the check asks for, and what of this host's firewall is between"
            }
            false => "see to the server; it gets connections again when its checks pass",
        }
        .into(),
        ..Finding::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_of_a_server_says_more_than_what_is_known_of_it() {
        let found = |place: &str| vec![Finding { place: place.into(), ..Finding::default() }];
        let nobody = BTreeSet::new();
        for (place, known, told) in [
            ("server 10.0.0.2", "server 10.0.0.2:80 of tcp 192.0.2.10:80", true),
            ("server fd00::2", "server [fd00::2]:80 of tcp [2001:db8::10]:80", true),
            ("server 10.0.0.2:80 of tcp 192.0.2.10:80", "server 10.0.0.2", true),
            ("server 10.0.0.2:80 of tcp 192.0.2.10:80", "server 10.0.0.2:80 of tcp 192.0.2.10:80", true),
            ("server 10.0.0.2:80 of tcp 192.0.2.10:80", "server 10.0.0.2:81 of tcp 192.0.2.10:81", false),
            ("server 10.0.0.2", "server 10.0.0.20:80 of tcp 192.0.2.10:80", false),
            ("interface r0", "mark_device m0", false),
        ] {
            assert_eq!(is_told(&found(place), &nobody, known), told, "{place}, {known}");
        }
        let blamed = BTreeSet::from([IpAddr::from([10, 0, 0, 2])]);
        assert!(is_told(&[], &blamed, "server 10.0.0.2:80 of tcp 192.0.2.10:80"));
    }
}
