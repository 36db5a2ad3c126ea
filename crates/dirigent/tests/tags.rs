//! VLAN tags: in the frame's bytes for XDP, taken off by the kernel before tc (a veth end that receives a tagged frame
//! does with it what a network card does that strips tags). Both must judge the same frame alike. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use dirigent_net::{lab::Lab, raw::PacketSocket};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

/// Ways from the router to the director: its interface, and the director's there. On a wire the tag is in the frame's
/// bytes until the director's kernel takes it off; behind a switch, whose kernel has done so, it comes beside them, as
/// from a network card that strips tags.
const WIRE: (&str, [u8; 6]) = ("outside0", [2, 0, 0, 0, 2, 1]);
const SWITCH: (&str, [u8; 6]) = ("servers0", [2, 0, 0, 0, 2, 2]);
/// Nobody.
const SENDER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const EACH: u64 = 3;

/// What stands before the EtherType, and whether the frame is for the host as it stands (IEEE 802.1Q §6.9: VLAN id 0 has
/// only a priority), or for a VLAN.
const CASES: [(&str, &[u8], &str); 9] = [
    ("no tag", &[], "request"),
    ("a priority tag", &[0x81, 0, 0, 0], "request"),
    ("a priority tag with a priority", &[0x81, 0, 0xa0, 0], "request"),
    ("VLAN 5", &[0x81, 0, 0, 5], "vlan"),
    ("VLAN 5 with a priority", &[0x81, 0, 0xe0, 5], "vlan"),
    ("a service tag with a customer tag", &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7], "vlan"),
    ("a service tag with a priority only", &[0x88, 0xa8, 0x20, 0], "request"),
    ("VLAN 5 in a priority tag", &[0x81, 0, 0, 0, 0x81, 0, 0, 5], "vlan"),
    ("VLAN 5 in a service tag with a priority only", &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 5], "vlan"),
];

/// A datagram from the client to the virtual address's echo service.
fn frame(to: [u8; 6], tags: &[u8], port: u16) -> Vec<u8> {
    let data = b"tagged?";
    let mut ip = vec![0x45, 0, 0, 28 + data.len() as u8, 0, 1, 0x40, 0, 64, 17, 0, 0];
    ip.extend([[198, 51, 100, 7], [192, 0, 2, 10]].concat());
    let sum = !dirigent_wire::checksum::sum_bytes(&ip);
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());
    // Without a checksum, as IPv4 allows.
    let udp = [port.to_be_bytes(), [0, 7], [0, 8 + data.len() as u8], [0, 0]].concat();
    [&to[..], &SENDER, tags, &[8, 0], &ip, &udp, data].concat()
}

fn counts(lab: &TestLab) -> BTreeMap<String, u64> {
    let stats = lab.json(&["stats", "--json"]);
    let reasons = stats["reasons"].as_array().unwrap().iter();
    reasons.map(|r| (r["name"].as_str().unwrap().to_owned(), r["count"].as_u64().unwrap())).collect()
}

/// Sends out of the router's interface.
fn send(lab: &TestLab, ifindex: u32, frame: &[u8]) {
    let lab = Lab::open(lab.name()).unwrap();
    lab.run("router", || PacketSocket::sender()?.send(ifindex, frame)).unwrap().unwrap();
}

fn number(lab: &TestLab, interface: &str) -> u32 {
    let shown = lab.on("router", &["ip", "-o", "link", "show", interface]);
    shown.split(':').next().unwrap().parse().unwrap()
}

fn lab_on(path: &str) -> TestLab {
    TestLab::up(&["--servers", "1", "--path", path, "--no-offloads"])
}

fn tagged_frames_are_judged(lab: &TestLab, path: &str, (by, to): (&str, [u8; 6])) {
    let ifindex = number(lab, by);
    assert_eq!(lab.json(&["status", "--json"])["interfaces"][0]["path"], path);
    let mut wrong = Vec::new();
    for (port, (what, tags, expected)) in (40000..).zip(CASES) {
        let before = counts(lab);
        let now = || {
            let after = counts(lab);
            let of = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
            ["request", "reply", "vlan"].map(of)
        };
        // The server's answers too: what reached it was a sound frame.
        let wanted = |n| if expected == "request" { [n, n, 0] } else { [0, 0, n] };
        for n in 1..=EACH {
            // One by one: the server's program may lose what comes while it starts a child.
            send(lab, ifindex, &frame(to, tags, port));
            let begun = Instant::now();
            while now() != wanted(n) && begun.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let wanted = wanted(EACH);
        if now() != wanted {
            wrong.push(format!("{what}: [request, reply, vlan] grew by {:?}, not {wanted:?}", now()));
        }
    }
    assert!(wrong.is_empty(), "on {path}:\n{}", wrong.join("\n"));
}

#[test]
fn stripped_tags_are_judged_by_tc() {
    tagged_frames_are_judged(&lab_on("tc"), "tc", WIRE);
}

#[test]
fn tags_are_judged_by_native_xdp() {
    tagged_frames_are_judged(&lab_on("xdp"), "xdp", WIRE);
}

#[test]
fn tags_are_judged_by_generic_xdp() {
    tagged_frames_are_judged(&lab_on("xdp-generic"), "xdp-generic", WIRE);
}

#[test]
fn tags_beside_the_frame_are_judged_by_tc() {
    tagged_frames_are_judged(&lab_on("tc"), "tc", SWITCH);
}

/// XDP sees no tag beside the frame. The status says so, and what to do; done, the tags are judged.
fn what_xdp_does_not_see_is_told(path: &str) {
    let lab = lab_on(path);
    let interfaces = &lab.json(&["status", "--json"])["interfaces"];
    let inside = interfaces.as_array().unwrap().iter().find(|i| i["name"] == "r0").unwrap();
    let told = inside["reasons"].to_string();
    assert!(told.contains("takes VLAN tags off before XDP") && told.contains("txvlan off"), "{told}");
    lab.sh("switch", "ethtool -K director txvlan off tx-vlan-stag-hw-insert off");
    tagged_frames_are_judged(&lab, path, SWITCH);
}

#[test]
fn native_xdp_tells_that_it_does_not_see_tags_beside_the_frame() {
    what_xdp_does_not_see_is_told("xdp");
}

#[test]
fn generic_xdp_tells_that_it_does_not_see_tags_beside_the_frame() {
    what_xdp_does_not_see_is_told("xdp-generic");
}

/// What belongs to a VLAN goes on as it came, byte for byte: into a bridge here, whose own device shows it.
#[test]
fn a_passed_frame_keeps_its_tags() {
    for path in ["tc", "xdp"] {
        let lab = lab_on(path);
        let ifindex = number(&lab, WIRE.0);
        // It would leave an interface that became a bridge's port.
        lab.kill_daemon();
        lab.sh("director", "ip link add br9 type bridge; ip link set c0 master br9; ip link set br9 up");
        for tags in [&[0x81, 0, 0xe0, 5][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7]] {
            let sent = frame(WIRE.1, tags, 41000);
            // Its end is the end of the wait: what is killed from here is only the way to it.
            let argv =
                ["timeout", "10", "tcpdump", "-i", "br9", "-c", "1", "-U", "-w", "-", "ether src 02:00:00:00:09:09"];
            let mut seen = lab.start("director", &argv);
            while seen.try_wait().unwrap().is_none() {
                send(&lab, ifindex, &sent);
                std::thread::sleep(Duration::from_millis(100));
            }
            let mut bytes = Vec::new();
            seen.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes.windows(sent.len()).any(|w| w == sent), "on {path}, {tags:02x?}: {bytes:02x?}");
        }
    }
}
