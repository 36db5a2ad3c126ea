//! Which interfaces the packet path is on, and what follows when interfaces come and go.

use super::network::Own;
use crate::failure::Result;
use dirigent_config::{Mode, Model};
use dirigent_datapath::kernel::{Attached, Attachment, Hook, Instance, Kernel, LOOPBACK, PathKind, TcKind, attached};
use dirigent_net::{Netlink, Snapshot, choose};
use std::collections::{BTreeMap, BTreeSet};

/// An interface with the packet path on it.
#[derive(Debug, Clone)]
pub struct Used {
    /// Why the interface.
    pub why: Vec<String>,
    /// How, and why so.
    pub attachment: Attachment,
}

/// The interfaces in use, by number.
#[derive(Debug, Default)]
pub struct Interfaces {
    used: BTreeMap<u32, Used>,
    /// What probes come by, while there are any.
    probes: Option<String>,
}

impl Interfaces {
    /// All in use.
    pub fn all(&self) -> impl Iterator<Item = (&u32, &Used)> + Clone {
        self.used.iter()
    }
    /// The numbers of all in use.
    pub fn indexes(&self) -> BTreeSet<u32> {
        self.used.keys().copied().collect()
    }
    /// The interface that probes come by is this one from now on.
    pub fn set_probes(&mut self, name: Option<String>) {
        self.probes = name;
    }
    /// Those that the director made for itself, of which one is of this name.
    pub fn own<'a>(&'a self, marked: Option<&'a str>) -> Own<'a> {
        Own { marked, probes: self.probes.as_deref() }
    }
    /// The same with those that will be.
    pub fn planned(&self, model: &Model, snapshot: &Snapshot) -> BTreeSet<u32> {
        self.wanted(model, snapshot).into_keys().chain(self.indexes()).collect()
    }

    /// What an earlier daemon was attached to and the configuration does not ask for now: left where interfaces are named,
    /// kept where they are chosen (a route that is away for the moment must not break connections).
    pub fn take_over(&mut self, kernel: &mut Kernel, instance: &Instance, model: &Model, all: &Snapshot) -> Result<()> {
        let wanted = self.wanted(model, all);
        let found: BTreeSet<u32> = in_use(instance)?.iter().filter(|a| a.alive).map(|a| a.ifindex).collect();
        for index in found.into_iter().filter(|index| !wanted.contains_key(index)) {
            let Some(link) = all.links.get(&index) else { continue };
            if model.settings().interfaces.is_some() {
                kernel.detach(index)?;
                tracing::info!(
                    event = "interface_detached",
                    interface = link.name,
                    "detached from {}, which an earlier daemon used and the configuration does not name",
                    link.name
                );
                continue;
            }
            let attachment = Attachment {
                interface: link.name.clone(),
                ifindex: index,
                path: PathKind::Tc,
                reason: String::new(),
                without_xdp: None,
                tcx: false,
                replaced: false,
            };
            self.used.insert(index, Used { why: vec!["an earlier daemon used it".into()], attachment });
        }
        Ok(())
    }

    /// Attaches to what is wanted now. Interfaces that are gone are forgotten; one that was chosen before and only lost
    /// its route stays, unless `strictly`: a route that flaps must not break connections.
    pub fn follow(
        &mut self,
        kernel: &mut Kernel,
        instance: &Instance,
        model: &Model,
        snapshot: &Snapshot,
        strictly: bool,
    ) -> Result<()> {
        self.used.retain(|index, used| {
            let stays = snapshot.links.contains_key(index);
            if !stays {
                let interface = &used.attachment.interface;
                tracing::warn!(event = "interface_gone", interface, "interface {interface} is gone");
            }
            stays
        });
        let wanted = self.wanted(model, snapshot);
        self.rename(snapshot);
        let stay: BTreeSet<u32> = wanted.keys().copied().collect();
        let new = wanted.keys().any(|index| !self.used.contains_key(index));
        // Those of an earlier daemon have its programs still.
        let stale = self.used.values().any(|used| used.attachment.reason.is_empty());
        if new || stale || strictly {
            self.attach(kernel, model, wanted, strictly)?;
        }
        if strictly {
            self.leave_others(kernel, instance, &stay)?;
        }
        Ok(())
    }

    /// By the pins: an attempt that failed half-way may have attached to more than is in use.
    fn leave_others(&mut self, kernel: &mut Kernel, instance: &Instance, stay: &BTreeSet<u32>) -> Result<()> {
        let found: BTreeSet<u32> = in_use(instance)?.iter().filter(|a| a.alive).map(|a| a.ifindex).collect();
        for index in found.difference(stay) {
            kernel.detach(*index)?;
            let interface = self.used.remove(index).map(|used| used.attachment.interface);
            let interface = interface.unwrap_or_else(|| format!("number {index}"));
            tracing::info!(
                event = "interface_detached",
                interface,
                "detached from interface {interface}, which is not wanted any more"
            );
        }
        Ok(())
    }

    /// The programs stay on a renamed interface: they are bound to its number.
    fn rename(&mut self, snapshot: &Snapshot) {
        for (index, used) in &mut self.used {
            let Some(link) = snapshot.links.get(index) else { continue };
            if link.name != used.attachment.interface {
                tracing::info!("interface {} is called {} now", used.attachment.interface, link.name);
                used.attachment.interface.clone_from(&link.name);
            }
        }
    }

    /// All at once, since the choice of XDP or tc looks at all of them.
    fn attach(
        &mut self,
        kernel: &mut Kernel,
        model: &Model,
        wanted: BTreeMap<u32, (String, Vec<String>)>,
        strictly: bool,
    ) -> Result<()> {
        let mut all = wanted;
        for (index, used) in self.used.iter().filter(|_| !strictly) {
            all.entry(*index).or_insert_with(|| (used.attachment.interface.clone(), used.why.clone()));
        }
        let (mode, inside) = (model.settings().mode, model.settings().mark_device_inside());
        // Apart: no packet of a client leaves by them, and of marks and probes tc alone knows.
        let own = |name: &str| [inside.as_deref(), self.probes.as_deref()].contains(&Some(name));
        let (own, names): (Vec<_>, Vec<_>) = all.values().map(|(n, _)| n.as_str()).partition(|name| own(name));
        let mut attached = kernel.attach(&with(&names, mode), TcKind::Auto)?;
        for attachment in kernel.attach(&with(&own, Mode::Tc), TcKind::Auto)? {
            let of_probes = self.probes.as_ref() == Some(&attachment.interface);
            let why = if of_probes { "XDP leaves probes to it" } else { "XDP sees no marks" };
            let reason = format!("{}: tc, because {why}", attachment.interface);
            attached.push(Attachment { reason, ..attachment });
        }
        for attachment in attached {
            let why = all.get(&attachment.ifindex).map(|(_, why)| why.clone()).unwrap_or_default();
            for reason in &why {
                tracing::info!("interface {}: {reason}", attachment.interface);
            }
            self.used.insert(attachment.ifindex, Used { why, attachment });
        }
        // Where clients on the director itself would meet its own closed ports: guarded, not in use.
        kernel.attach(&[("lo", Mode::Tc)], TcKind::Auto)?;
        Ok(())
    }
}

impl Interfaces {
    /// Number, name and reasons of each interface that the configuration asks for, or that the director made, and that
    /// is there.
    fn wanted(&self, model: &Model, snapshot: &Snapshot) -> BTreeMap<u32, (String, Vec<String>)> {
        let mut all = wanted(model, snapshot);
        if let Some(link) = self.probes.as_deref().and_then(|name| snapshot.link_named(name)) {
            all.insert(
                link.index,
                (link.name.clone(), vec!["health checks along the clients' path come by it".into()]),
            );
        }
        all
    }
}

fn with<'a>(names: &[&'a str], mode: Mode) -> Vec<(&'a str, Mode)> {
    names.iter().map(|name| (*name, mode)).collect()
}

/// Number, name and reasons of each interface that the configuration asks for and that is there.
fn wanted(model: &Model, snapshot: &Snapshot) -> BTreeMap<u32, (String, Vec<String>)> {
    let mut all = asked_for(model, snapshot);
    let settings = model.settings();
    if let (Some(device), Some(inside)) = (&settings.mark_device, settings.mark_device_inside())
        && let Some(link) = snapshot.link_named(&inside)
    {
        let why = format!("what `ip rule fwmark` leads to {device} comes out of it, and tc sees the mark");
        all.insert(link.index, (inside, vec![why]));
    }
    all
}

/// The same without the end of the mark device.
fn asked_for(model: &Model, snapshot: &Snapshot) -> BTreeMap<u32, (String, Vec<String>)> {
    if let Some(names) = &model.settings().interfaces {
        let there = names.iter().filter_map(|name| snapshot.link_named(name));
        return there
            .map(|link| (link.index, (link.name.clone(), vec!["named in the configuration".into()])))
            .collect();
    }
    let servers: Vec<_> = super::config::servers(model).into_iter().collect();
    let chosen = choose::interfaces(snapshot, &servers).chosen;
    let up = |index: &u32| snapshot.links.get(index).is_some_and(|link| link.up);
    let chosen = chosen.into_iter().filter(|(index, _)| up(index));
    chosen.map(|(index, c)| (index, (c.name, c.reasons.iter().map(ToString::to_string).collect()))).collect()
}

/// The interfaces that packets of clients and servers come by, as the pins tell them: without loopback, which is only
/// guarded.
pub fn in_use(instance: &Instance) -> Result<Vec<Attached>> {
    let mut found = attached(instance)?;
    found.retain(|one| one.ifindex != LOOPBACK);
    Ok(found)
}

/// Of these interfaces, those that a program of ours should be on and is not, and which: somebody took it off, or its pin
/// away. `answers`: whether one should be at tc egress ([`Kernel::sees_answers`]).
pub fn bare<'u>(
    instance: &Instance,
    answers: bool,
    used: impl Iterator<Item = (&'u u32, &'u Used)>,
) -> Result<BTreeMap<u32, Vec<String>>> {
    let mut netlink = Netlink::route()?;
    let mut there = Vec::new();
    for one in attached(instance)?.into_iter().filter(|one| one.alive) {
        let classic = matches!(one.hook, Hook::ClassicIngress | Hook::ClassicEgress);
        // Classic filters go with what they hang on.
        if !classic || netlink.has_clsact(one.ifindex)? {
            there.push((one.ifindex, one.hook));
        }
    }
    let missing = |(index, used): (&u32, &Used)| {
        let any = |hooks: &[Hook]| hooks.iter().any(|hook| there.contains(&(*index, *hook)));
        let wanted = [
            ("tc ingress", any(&[Hook::TcxIngress, Hook::ClassicIngress])),
            ("tc egress", !answers || any(&[Hook::TcxEgress, Hook::ClassicEgress])),
            ("XDP", used.attachment.path == PathKind::Tc || any(&[Hook::Xdp])),
        ];
        let missing: Vec<_> = wanted.iter().filter(|(_, there)| !there).map(|(what, _)| (*what).to_owned()).collect();
        (!missing.is_empty()).then_some((*index, missing))
    };
    Ok(used.filter_map(missing).collect())
}

/// The numbers of those on which our XDP program is, by the pins as well: also before an earlier daemon's are taken over.
pub fn with_xdp(instance: &Instance) -> Result<BTreeSet<u32>> {
    let found = attached(instance)?.into_iter().filter(|one| one.hook == Hook::Xdp && one.alive);
    Ok(found.map(|one| one.ifindex).collect())
}
