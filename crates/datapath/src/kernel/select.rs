//! Which way the packets of an interface are taken: a pure decision from facts.

use std::fmt;

use super::{error::Error, netlink};
use crate::names;
pub use dirigent_config::Mode;

/// Which program sees an interface's packets first. tc is attached in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// XDP in the driver.
    Xdp,
    /// XDP in the network stack.
    XdpGeneric,
    /// tc.
    Tc,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        })
    }
}

/// What the decision rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The interface's name.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// The kind of virtual device (`veth`, `bridge`, ...), if it is one.
    pub kind: Option<String>,
    /// The driver's name.
    pub driver: Option<String>,
    /// The driver's XDP features (`NETDEV_XDP_ACT_*`); the kernel tells since 6.3.
    pub features: Option<u64>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether VLAN tags are taken off before programs see a frame.
    pub strips_tags: bool,
    /// A foreign XDP program on it: number and name.
    pub foreign_xdp: Option<(u32, String)>,
    /// Another director that takes its packets by tc.
    pub beside: Option<String>,
    /// Whether our XDP program takes packets that span several buffers.
    pub program_takes_frags: bool,
}

/// The driver can run an XDP program.
pub const FEATURE_BASIC: u64 = 1;
/// The driver can redirect to another device.
pub const FEATURE_REDIRECT: u64 = 1 << 1;
/// The driver can transmit frames that another device redirected to it.
pub const FEATURE_TRANSMIT: u64 = 1 << 2;
/// The driver hands packets of several buffers to XDP.
pub const FEATURE_RECEIVE_FRAGS: u64 = 1 << 5;
/// The driver can transmit redirected frames of several buffers.
pub const FEATURE_TRANSMIT_FRAGS: u64 = 1 << 6;

/// The largest MTU that every driver takes in one buffer: a page of 4,096 bytes less
/// headroom (256), the space kept for the stack (320) and Ethernet with two VLAN tags (22).
/// Drivers may take less; then attaching fails and `auto` falls back to tc.
pub const MTU_OF_ONE_BUFFER: u32 = 4096 - 256 - 320 - 22;

impl Facts {
    /// Asks the kernel about an interface of the calling thread's namespace.
    pub fn gather(interface: &str) -> Result<Self, Error> {
        let link = netlink::link(interface, 0).map_err(|e| match e.raw_os_error() {
            Some(libc::ENODEV) => Error::NoInterface(interface.to_owned()),
            _ => Error::system(format!("asking about interface {interface}"), e),
        })?;
        let driver = netlink::driver(&link.name);
        Ok(Self {
            // The driver of a virtual device answers for some that have no kind of their own.
            kind: link.kind.or_else(|| driver.clone().filter(|name| VIRTUAL.contains(&name.as_str()))),
            driver,
            features: netlink::xdp_features(link.index),
            strips_tags: netlink::strips_tags(&link.name),
            interface: link.name,
            ifindex: link.index,
            mtu: link.mtu,
            // The caller knows which programs are ours.
            foreign_xdp: None,
            beside: None,
            program_takes_frags: names::PROGRAMS.iter().any(|(section, _)| *section == "xdp.frags"),
        })
    }

    /// Whether it is hardware, or over some.
    fn is_for_xdp(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| STACKED.contains(&kind))
    }

    fn who(&self) -> String {
        match (&self.kind, &self.driver) {
            (Some(kind), _) => format!("{} ({kind})", self.interface),
            (None, Some(driver)) => format!("{} (driver {driver})", self.interface),
            (None, None) => self.interface.clone(),
        }
    }

    /// What XDP does not see, unlike tc: for want of the tag it takes a VLAN's frame for one without.
    fn untagged(&self) -> String {
        let name = &self.interface;
        let remedy = match self.kind.as_deref() {
            // Its tags are as the sender has left them.
            Some("veth") => "`ethtool -K … txvlan off` at its other end".to_owned(),
            _ => format!("`ethtool -K {name} rxvlan off`"),
        };
        format!("{name} takes VLAN tags off before XDP sees the frame: if VLANs come by it, {remedy}, or mode = \"tc\"")
    }

    /// Why this interface cannot take part in native XDP, if it cannot.
    fn obstacle(&self) -> Option<String> {
        let who = self.who();
        let Some(features) = self.features else {
            return Some(format!("the kernel does not say whether {who} can transmit XDP frames (it does since 6.3)"));
        };
        let lacks = |wanted: u64| features & wanted != wanted;
        if lacks(FEATURE_BASIC | FEATURE_REDIRECT) {
            return Some(format!("the driver of {who} has no native XDP"));
        }
        if lacks(FEATURE_TRANSMIT) {
            return Some(format!("the driver of {who} cannot transmit XDP frames"));
        }
        if self.mtu <= MTU_OF_ONE_BUFFER {
            return None;
        }
        let too_big =
            format!("the MTU of {who}, {}, is more than XDP takes in one buffer ({MTU_OF_ONE_BUFFER})", self.mtu);
        if !self.program_takes_frags {
            return Some(too_big);
        }
        lacks(FEATURE_RECEIVE_FRAGS | FEATURE_TRANSMIT_FRAGS)
            .then(|| format!("{too_big}, and its driver does not take several"))
    }
}

/// Drivers of devices without hardware that report no link kind.
const VIRTUAL: &[&str] = &["tun", "veth", "bridge", "macvlan", "dummy", "ifb"];

/// A decision and its reason, as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub path: PathKind,
    /// Why.
    pub reason: String,
    /// Why it is tc on a device that XDP is meant for: the end of the reason. `None` where nothing is amiss.
    pub without_xdp: Option<String>,
}

impl Choice {
    fn by(path: PathKind, reason: String) -> Self {
        Self { path, reason, without_xdp: None }
    }

    /// tc, because of something; what XDP is meant for loses by it.
    pub(super) fn tc_because(here: &Facts, why: String) -> Self {
        let reason = format!("{}: tc, because {why}", here.interface);
        Self { path: PathKind::Tc, reason, without_xdp: here.is_for_xdp().then_some(why) }
    }
}

/// Devices over others that are hardware: where XDP could be, if not on these.
const STACKED: &[&str] = &["bond", "team", "vlan"];

/// How an interface's packets are taken. `all` are the director's interfaces: a packet
/// that arrives here may leave by any of them, so native XDP needs all to transmit.
#[must_use]
pub fn choose(mode: Mode, here: &Facts, all: &[Facts]) -> Choice {
    let mut choice = by_mode(mode, here, all);
    if choice.path != PathKind::Tc && here.strips_tags {
        choice.reason.push_str(&format!("; {}", here.untagged()));
    }
    choice
}

fn by_mode(mode: Mode, here: &Facts, all: &[Facts]) -> Choice {
    let name = &here.interface;
    match mode {
        Mode::Xdp => return Choice::by(PathKind::Xdp, format!("{name}: native XDP, as configured")),
        Mode::XdpGeneric => {
            return Choice::by(PathKind::XdpGeneric, format!("{name}: generic XDP, as configured"));
        }
        Mode::Tc => return Choice::by(PathKind::Tc, format!("{name}: tc, as configured")),
        Mode::Auto => {}
    }
    let tc = |why: String| Choice::tc_because(here, why);
    if let Some((id, program)) = &here.foreign_xdp {
        return tc(format!("it carries XDP program {id} ({program}), which is not Dirigent's"));
    }
    if let Some(other) = &here.beside {
        return tc(format!("the director {other} uses it too, by tc, and XDP would keep its packets from that one"));
    }
    if let Some(kind) = here.kind.as_ref().filter(|kind| STACKED.contains(&kind.as_str())) {
        return tc(format!(
            "it is a {kind} device, and XDP is not relied on but in the drivers of the devices below it"
        ));
    }
    if let Some(kind) = &here.kind {
        return tc(format!(
            "it is a virtual device ({kind}), where XDP is no faster and cannot take large offloaded packets"
        ));
    }
    if let Some(obstacle) = here.obstacle() {
        return tc(obstacle);
    }
    for other in all.iter().filter(|other| other.ifindex != here.ifindex) {
        if let Some(kind) = &other.kind {
            return tc(format!(
                "packets may leave by {}, a virtual device ({kind}), which XDP cannot be relied on to transmit to",
                other.interface
            ));
        }
        if let Some(obstacle) = other.obstacle() {
            return tc(format!("packets may leave by {}: {obstacle}", other.interface));
        }
    }
    let reason = format!("{name}: native XDP, because every driver here can transmit XDP frames and the MTU fits");
    Choice::by(PathKind::Xdp, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, ifindex: u32) -> Facts {
        Facts {
            interface: name.to_owned(),
            ifindex,
            driver: Some("ice".to_owned()),
            features: Some(FEATURE_BASIC | FEATURE_REDIRECT | FEATURE_TRANSMIT),
            mtu: 1500,
            ..Facts::default()
        }
    }

    fn auto(here: &Facts, all: &[Facts]) -> Choice {
        choose(Mode::Auto, here, all)
    }

    #[test]
    fn auto_takes_native_xdp_on_cards_that_transmit() {
        let both = [nic("eth0", 2), nic("eth1", 3)];
        assert_eq!(auto(&both[0], &both).path, PathKind::Xdp);
    }

    #[test]
    fn auto_takes_tc_on_virtual_devices_and_says_so() {
        let veth = Facts { kind: Some("veth".to_owned()), ..nic("v0", 2) };
        let choice = auto(&veth, std::slice::from_ref(&veth));
        assert_eq!(choice.path, PathKind::Tc);
        assert!(choice.reason.contains("virtual device (veth)"), "{}", choice.reason);
    }

    #[test]
    fn one_interface_that_cannot_transmit_takes_all_to_tc() {
        let dumb = Facts {
            features: Some(FEATURE_BASIC | FEATURE_REDIRECT),
            driver: Some("old".to_owned()),
            ..nic("eth1", 3)
        };
        let both = [nic("eth0", 2), dumb];
        let choice = auto(&both[0], &both);
        assert_eq!(choice.path, PathKind::Tc);
        assert!(choice.reason.contains("eth1 (driver old) cannot transmit"), "{}", choice.reason);
    }

    #[test]
    fn large_mtus_need_frags_of_program_and_driver() {
        let frags = FEATURE_RECEIVE_FRAGS | FEATURE_TRANSMIT_FRAGS;
        let plain = Facts { mtu: 9000, ..nic("eth0", 2) };
        assert_eq!(auto(&plain, &[]).path, PathKind::Tc);
        let program = Facts { program_takes_frags: true, ..plain.clone() };
        assert_eq!(auto(&program, &[]).path, PathKind::Tc);
        let both = Facts { features: program.features.map(|f| f | frags), ..program };
        assert_eq!(auto(&both, &[]).path, PathKind::Xdp);
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_assumed() {
        let silent = Facts { features: None, ..nic("eth0", 2) };
        let choice = auto(&silent, &[]);
        assert_eq!(choice.path, PathKind::Tc);
        assert!(choice.reason.contains("6.3"), "{}", choice.reason);
    }

    #[test]
    fn a_foreign_program_is_left_alone() {
        let taken = Facts { foreign_xdp: Some((7, "xdp_drop".to_owned())), ..nic("eth0", 2) };
        let choice = auto(&taken, &[]);
        assert_eq!(choice.path, PathKind::Tc);
        assert!(choice.reason.contains("program 7 (xdp_drop)"), "{}", choice.reason);
    }

    #[test]
    fn beside_another_director_auto_takes_tc() {
        let shared = Facts { beside: Some("main".to_owned()), ..nic("eth0", 2) };
        let choice = auto(&shared, &[]);
        assert_eq!(choice.path, PathKind::Tc);
        assert!(choice.reason.contains("the director main uses it too"), "{}", choice.reason);
    }

    #[test]
    fn xdp_on_a_card_that_strips_tags_says_what_to_do() {
        let strips = Facts { strips_tags: true, ..nic("eth0", 2) };
        for mode in [Mode::Auto, Mode::Xdp, Mode::XdpGeneric] {
            let choice = choose(mode, &strips, &[]);
            assert!(choice.reason.contains("`ethtool -K eth0 rxvlan off`"), "{}", choice.reason);
            assert!(!choose(mode, &nic("eth0", 2), &[]).reason.contains("VLAN"));
        }
        assert!(!choose(Mode::Tc, &strips, &[]).reason.contains("VLAN"), "tc sees them");
    }

    /// What the doctor tells: of hardware, and of what is over it; of nothing that was asked for, or that XDP is not for.
    #[test]
    fn devices_that_xdp_is_meant_for_lose_by_tc() {
        let lost = |mode, here: &Facts, all: &[Facts]| choose(mode, here, all).without_xdp;
        let eth = nic("eth0", 2);
        assert_eq!(lost(Mode::Auto, &eth, &[]), None);
        let of = |kind: &str| Facts { kind: Some(kind.to_owned()), ..eth.clone() };
        for (here, why) in [
            (of("bond"), "it is a bond device"),
            (of("vlan"), "it is a vlan device"),
            (Facts { mtu: 9000, ..eth.clone() }, "the MTU of eth0 (driver ice), 9000, is more than XDP takes"),
            (Facts { features: Some(0), ..eth.clone() }, "the driver of eth0 (driver ice) has no native XDP"),
            (Facts { features: None, ..eth.clone() }, "it does since 6.3"),
            (Facts { foreign_xdp: Some((7, "drop".to_owned())), ..eth.clone() }, "XDP program 7 (drop)"),
        ] {
            let said = lost(Mode::Auto, &here, &[]).unwrap_or_default();
            assert!(said.contains(why), "{said}");
            assert_eq!(lost(Mode::Tc, &here, &[]), None, "as configured");
        }
        let tap = Facts { ifindex: 3, ..of("tun") };
        assert!(lost(Mode::Auto, &eth, &[eth.clone(), tap.clone()]).unwrap().contains("packets may leave by"));
        for here in [of("veth"), of("bridge"), tap] {
            assert_eq!(lost(Mode::Auto, &here, &[]), None, "XDP is no faster there");
        }
    }

    #[test]
    fn what_is_configured_is_done() {
        let veth = Facts { kind: Some("veth".to_owned()), ..nic("v0", 2) };
        assert_eq!(choose(Mode::Xdp, &veth, &[]).path, PathKind::Xdp);
        assert_eq!(choose(Mode::XdpGeneric, &veth, &[]).path, PathKind::XdpGeneric);
        assert_eq!(choose(Mode::Tc, &nic("eth0", 2), &[]).path, PathKind::Tc);
    }
}
