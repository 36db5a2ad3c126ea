//! This host's netfilter: rules that see nothing of services, and rules that keep ARP and neighbour discovery from it,
//! without which nobody finds its addresses and it finds nobody's. (Packets of services meet none of its rules.)

use super::{ERROR, Subject, WARNING, here};
use crate::netfilter::Netfilter;
use dirigent_api::Finding;
use dirigent_config::ruleset::Asked;
use std::collections::{BTreeMap, BTreeSet};

/// The rules as they are now, if they are wanted.
pub async fn read(wanted: bool) -> Option<Netfilter> {
    if !wanted {
        return None;
    }
    tokio::task::spawn_blocking(Netfilter::read).await.ok()
}

/// What is wrong with them.
pub fn look(subject: &Subject, netfilter: &Netfilter) -> Vec<Finding> {
    let unseen = netfilter.warnings(&subject.model).into_iter().map(|problem| Finding {
        name: "rule_sees_nothing".into(),
        severity: WARNING.into(),
        evidence: vec![format!("netfilter has it: {}", problem.place)],
        place: problem.place,
        what: problem.what,
        rule: "the director takes packets of services before netfilter's hooks: its rules hold for everything else on this \
               host"
            .into(),
        remedy: problem.remedy,
        ..Finding::default()
    });
    unseen.chain(deaf(subject, netfilter)).collect()
}

/// Rules that drop what links' hosts are asked by, each once.
fn deaf(subject: &Subject, netfilter: &Netfilter) -> Vec<Finding> {
    let families: BTreeSet<bool> = subject.ways().map(|way| way.server.address.is_ipv6()).collect();
    let mut all: BTreeMap<(String, String), (Asked, Vec<&str>)> = BTreeMap::new();
    for link in subject.running().map(|index| subject.link(index)) {
        for asked in Asked::ALL.into_iter().filter(|asked| families.contains(&asked.is_ipv6())) {
            if let Some(rule) = netfilter.drops(asked, link) {
                all.entry(rule).or_insert((asked, Vec::new())).1.push(link);
            }
        }
    }
    let finding = |((place, words), (asked, mut links)): ((String, String), (Asked, Vec<&str>))| {
        links.dedup();
        let chain = place.split(',').next().unwrap_or_default().trim_start_matches("nft ");
        Finding {
            name: "neighbours_filtered".into(),
            severity: ERROR.into(),
            what: format!("netfilter drops {} on {}: {}", asked.name(), links.join(" and "), asked.harm()),
            evidence: vec![format!("{place}: {words}")],
            rule: "a frame needs a MAC, which hosts ask each other for (RFC 826, RFC 4861); netfilter sees these packets, \
                   unlike those of services"
                .into(),
            remedy: "accept them before that rule".into(),
            commands: vec![here(format!("nft -a list {chain}"))],
            place,
            ..Finding::default()
        }
    };
    all.into_iter().map(finding).collect()
}
