//! The interfaces in use: whether they run, what of ours is on them, and what of their settings is in its way.

use super::way::Way;
use super::{ERROR, Subject, WARNING, dotted, here, parameters, read_out, set};
use dirigent_api::Finding;
use dirigent_config::Method;
use dirigent_net::links::contains;
use dirigent_net::seen::sees_unfinished;
use dirigent_net::{Link, sysctl};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// So long frames are looked at: a little longer than a way to a server may take.
const LOOK: Duration = Duration::from_millis(1800);

/// What is wrong with them.
pub struct Looked {
    /// That.
    pub findings: Vec<Finding>,
    /// Interfaces that ways to servers cannot be right by.
    pub faulty: BTreeSet<u32>,
}

/// Of all of them; findings of whatever is looked at are one service's as well as all.
pub fn look(subject: &Subject) -> Looked {
    let mut looked = Looked { findings: Vec::new(), faulty: BTreeSet::new() };
    for link in subject.interfaces.iter().filter_map(|index| subject.host.links.get(index)) {
        let found = down(link).or_else(|| bare(subject, link));
        looked.faulty.extend(found.as_ref().map(|_| link.index));
        looked.findings.extend(found);
        looked.findings.extend(without_xdp(subject, link));
        looked.findings.extend(unforwarded(subject, link));
        looked.findings.extend(silent(subject, link));
    }
    looked
}

fn about(link: &Link, name: &str, severity: &str, what: String) -> Finding {
    Finding {
        name: name.into(),
        severity: severity.into(),
        place: format!("interface {}", link.name),
        what,
        ..Finding::default()
    }
}

/// It does not run.
fn down(link: &Link) -> Option<Finding> {
    if link.running {
        return None;
    }
    let (what, remedy, commands) = if link.up {
        ("it has no carrier: no packet comes or goes by it", "see to the cable, or the other end", Vec::new())
    } else {
        let up = here(format!("ip link set {} up", link.name));
        (
            "it is down: no packet comes or goes by it",
            "set it up, with the addresses and routes that went with it",
            vec![up],
        )
    };
    Some(Finding {
        evidence: vec![format!("{}: {}", link.name, if link.up { "UP, NO-CARRIER" } else { "DOWN" })],
        rule: "packets of clients or servers come by this interface".into(),
        remedy: remedy.into(),
        commands,
        ..about(link, "interface_down", ERROR, what.into())
    })
}

/// What should be on it was taken off.
fn bare(subject: &Subject, link: &Link) -> Option<Finding> {
    let missing = subject.bare.get(&link.index)?.join(" and ");
    Some(Finding {
        evidence: vec![format!("no program of {} is on {} at {missing}", subject.status.instance, link.name)],
        rule: "packets are directed by the programs on the interfaces; where there is none, the host itself gets them"
            .into(),
        remedy: "have the director attach them again".into(),
        commands: vec![here("dirigent reload".into())],
        ..about(link, "program_gone", ERROR, format!("the director's program was taken off ({missing})"))
    })
}

/// It could do more.
fn without_xdp(subject: &Subject, link: &Link) -> Option<Finding> {
    let (_, why) = subject.without_xdp.iter().find(|(index, _)| *index == link.index)?;
    Some(no_xdp(link, why))
}

fn no_xdp(link: &Link, why: &str) -> Finding {
    Finding {
        evidence: vec![format!("tc is used instead: {why}")],
        rule:
            "XDP takes packets before the kernel makes anything of them, at several times the rate of tc; what it does \
               with them is the same"
                .into(),
        remedy: "remove what is in its way, or set mode = \"tc\" in [director], which says that it need not be".into(),
        ..about(link, "xdp_unavailable", WARNING, format!("XDP is not used on it, because {why}"))
    }
}

fn path<'s>(subject: &'s Subject, link: &Link) -> Option<&'s str> {
    let used = subject.status.interfaces.iter().find(|used| used.index == link.index)?;
    Some(used.path.as_str())
}

/// The kernel's own lookup, which XDP uses, refuses what comes by an interface that does not forward.
fn unforwarded(subject: &Subject, link: &Link) -> Vec<Finding> {
    if path(subject, link).is_none_or(|path| path == "tc") {
        return Vec::new();
    }
    let answers = |way: &&Way| {
        let by = subject.hops.get(&way.server.address).map(|hop| hop.ifindex);
        way.server.method == Method::Nat && by == Some(link.index)
    };
    let families: BTreeSet<bool> = subject.ways().filter(answers).map(|way| way.server.address.is_ipv6()).collect();
    let finding = |ipv6: bool| {
        let name = format!("net/ipv{}/conf/{}/forwarding", if ipv6 { 6 } else { 4 }, link.name);
        if sysctl::get(&name).ok()? != "0" {
            return None;
        }
        let names = [name];
        let (commands, sysctls) = set(&names, "1");
        let remedy = if ipv6 {
            "have it forward; where router advertisements are heard, accept_ra = 2 is needed then"
        } else {
            "have it forward"
        };
        Some(Finding {
            evidence: read_out(&names),
            rule: "XDP asks the kernel for the way to a client, and the kernel tells none to what comes by an interface that \
                   does not forward: tc sends those answers, more slowly"
                .into(),
            remedy: remedy.into(),
            commands,
            // In IPv6 it may take the host's own default route away: that is for the operator to see to.
            sysctls: if ipv6 { Vec::new() } else { sysctls },
            ..about(
                link,
                "forwarding_off",
                WARNING,
                format!("it does not forward IPv{}: XDP leaves servers' answers to tc", if ipv6 { 6 } else { 4 }),
            )
        })
    };
    families.into_iter().filter_map(finding).collect()
}

/// ARP for virtual addresses is not answered by this host.
fn silent(subject: &Subject, link: &Link) -> Option<Finding> {
    // 1 and 2: only for addresses of the interface that is asked; 8: for none (Documentation/networking/ip-sysctl.rst).
    let quiet = ["1", "2", "8"];
    let on = parameters(&link.name, "arp_ignore", |value| quiet.contains(&value));
    if on.is_empty() {
        return None;
    }
    let here_on = |ip: IpAddr| subject.host.addresses.iter().find(|address| address.ip == ip);
    let on_link = |ip: IpAddr| {
        let mut own = subject.host.addresses.iter().filter(|a| a.ifindex == link.index && a.prefix < 32);
        own.any(|own| own.ip != ip && contains((own.ip, own.prefix), ip))
    };
    let addresses: BTreeSet<IpAddr> = subject.ways().filter_map(|way| way.service.address()).collect();
    let unheard = addresses
        .into_iter()
        .find(|ip| ip.is_ipv4() && on_link(*ip) && here_on(*ip).is_some_and(|address| address.ifindex != link.index))?;
    let (commands, sysctls) = set(&on, "0");
    Some(Finding {
        evidence: read_out(&on).into_iter().chain([format!("{unheard} is in a network of {}", link.name)]).collect(),
        rule: "hosts on that link ask by ARP who has the virtual address; arp_ignore is for real servers, and has the \
               director be silent about an address that is on another interface"
            .into(),
        remedy: "have it answer".into(),
        commands,
        sysctls,
        ..about(link, "arp_ignored", ERROR, format!("ARP for {unheard} is not answered there: clients do not find it"))
    })
}

/// Native XDP on virtual links: what comes from hosts on the same machine has no checksum yet.
pub async fn offloaded(subject: &Subject) -> Vec<Finding> {
    let virtual_xdp = |index: &u32| {
        let link = subject.host.links.get(index)?;
        let of_xdp = path(subject, link).is_some_and(|path| path.starts_with("xdp"));
        (of_xdp && link.running && link.kind.is_some()).then_some(link)
    };
    let looks = subject.interfaces.iter().filter_map(virtual_xdp).map(|link| async move {
        let index = link.index;
        let seen = tokio::task::spawn_blocking(move || sees_unfinished(index, LOOK)).await;
        seen.is_ok_and(|seen| seen.is_ok_and(|seen| seen)).then(|| unfinished(link))
    });
    futures_util::future::join_all(looks).await.into_iter().flatten().collect()
}

fn unfinished(link: &Link) -> Finding {
    let name = &link.name;
    let kind = link.kind.as_deref().unwrap_or("virtual");
    Finding {
        evidence: vec![format!("a server's answer came in by {name} ({kind}) with a checksum left to the device")],
        rule: "on a virtual link nobody fills in a checksum that the sender left to its device; XDP forwards the frame as it \
               is, and who gets it drops it"
            .into(),
        remedy: format!(
            "switch that off where the frames are made (`ethtool -K DEV tx off` at the other end of {name}), or set mode = \
             \"tc\" in [director]"
        ),
        ..about(
            link,
            "offloads",
            ERROR,
            "packets that come by it have no checksum: XDP forwards them, and they are dropped as damaged".into(),
        )
    }
}

/// Evidence that the kernel drops checks' answers there.
pub fn strict(
    link: &str,
    on: &[String],
) -> (Vec<dirigent_api::HostCommand>, Vec<dirigent_api::Parameter>, Vec<String>) {
    // The larger of the two counts: loose on this interface alone is enough.
    let (commands, sysctls) = set(&[format!("net/ipv4/conf/{link}/rp_filter")], "2");
    (commands, sysctls, on.iter().map(|name| format!("{} = 1", dotted(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, up: bool, running: bool) -> Link {
        Link {
            index: 2,
            name: name.into(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            kind: None,
            up,
            running,
            loopback: false,
            master: None,
            lower: None,
            xdp: Vec::new(),
        }
    }

    /// A cable that is out cannot be made of virtual links: the answer is as the `net` crate has it.
    #[test]
    fn links_that_do_not_run_are_told_apart() {
        assert_eq!(down(&link("eth0", true, true)), None);
        let unplugged = down(&link("eth0", true, false)).unwrap();
        assert!(unplugged.what.contains("no carrier") && unplugged.commands.is_empty(), "{unplugged:?}");
        let off = down(&link("eth0", false, false)).unwrap();
        assert_eq!(off.commands[0].command, "ip link set eth0 up");
    }

    /// With the reasons that `datapath` gives of recorded devices.
    #[test]
    fn a_device_without_xdp_is_told_with_the_reason_and_what_is_used_instead() {
        let found = no_xdp(&link("bond0", true, true), "it is a bond device");
        assert_eq!((found.name.as_str(), found.severity.as_str()), ("xdp_unavailable", "warning"));
        assert!(
            found.what.ends_with("because it is a bond device") && found.evidence[0].contains("tc is used instead")
        );
    }
}
