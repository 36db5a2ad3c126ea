//! Frames that the kernel loses after the verdict are counted, each once and by its own director. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::TestLab;
use dirigent_datapath::kernel::Instance;
use std::time::{Duration, Instant};

const FRAMES: u64 = 40;

fn count(lab: &TestLab, reason: &str) -> u64 {
    let stats = lab.json(&["stats", "--json"]);
    let reasons = stats["reasons"].as_array().unwrap();
    reasons.iter().find(|r| r["name"] == reason).and_then(|r| r["count"].as_u64()).unwrap_or(0)
}

/// Datagrams to the virtual address, all of one connection.
fn send(lab: &TestLab) {
    let script = format!("exec 3>/dev/udp/192.0.2.10/7; for i in $(seq {FRAMES}); do echo $i >&3; done");
    lab.on("client", &["bash", "-c", &script]);
}

/// The director's interfaces, with their numbers.
fn numbers(lab: &TestLab) -> String {
    lab.sh("director", "ip -o link show | cut -d: -f1,2 | cut -d@ -f1")
}

fn wait_for(lab: &TestLab, reason: &str, wanted: u64) -> u64 {
    let begun = Instant::now();
    while count(lab, reason) < wanted && begun.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(20));
    }
    count(lab, reason)
}

/// In a lab with these arguments, and one like it beside: after `break_it` on the switch every frame is lost and counted
/// there, and none in the other lab, whose interfaces have the same numbers.
fn losses_are_counted(args: &[&str], break_it: &str) {
    let args = [&["--servers", "1", "--path", "xdp", "--no-offloads"], args].concat();
    let (lab, other) = (TestLab::up(&args), TestLab::up(&args));
    assert_eq!(numbers(&lab), numbers(&other), "the labs' interfaces differ: nothing is proved");
    for lab in [&lab, &other] {
        assert!(!lab.log().contains("not counted"), "{}", lab.log());
        send(lab);
        assert_eq!(wait_for(lab, "request", FRAMES), FRAMES);
        assert_eq!(count(lab, "transmit_failed"), 0, "nothing is broken yet");
        // It would notice what is done to the links, and send nothing there.
        lab.kill_daemon();
    }
    lab.sh("switch", break_it);
    send(&lab);
    assert_eq!(wait_for(&lab, "transmit_failed", FRAMES), FRAMES, "by {break_it:?}");
    send(&other);
    wait_for(&other, "request", 2 * FRAMES);
    assert_eq!(count(&lab, "transmit_failed"), FRAMES, "counted once");
    assert_eq!(count(&other, "transmit_failed"), 0, "another lab's losses");
}

/// Losses are a director's where its own XDP program is, and nowhere else: the daemon says so in the tables, whatever the
/// mode, after a reload and after a restart. That the programs heed it `datapath::kernel` shows.
#[test]
fn only_where_xdp_is_ours() {
    let lab = TestLab::up(&["--servers", "1", "--path", "tc", "--no-offloads"]);
    let table = Instance::new(lab.name()).unwrap().open_table::<u32, [u32; 24]>("LINKS").unwrap();
    // Interfaces in use besides loopback, and those of them where our XDP program is.
    let counts = || {
        let links = table.entries().unwrap();
        let used = links.iter().filter(|(ifindex, link)| *ifindex != 1 && link[1] >> 16 != 0);
        (used.clone().count(), used.filter(|(_, link)| link[7] == 1).count())
    };
    assert_eq!(counts(), (2, 0), "on tc");
    let config = lab.config();
    assert!(config.contains("mode = \"tc\""), "{config}");
    lab.write_config(&config.replacen("mode = \"tc\"", "mode = \"xdp-generic\"", 1));
    lab.dirigent(&["reload"]);
    assert_eq!(counts(), (2, 2), "on generic XDP");
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(counts(), (2, 2), "taken over");
    lab.write_config(&config);
    lab.dirigent(&["reload"]);
    assert_eq!(counts(), (2, 0), "on tc again");
}

/// `xdp_redirect_err`: the outgoing device says that it takes no XDP frames (before 6.3 it refuses each).
#[test]
fn a_device_that_cannot_transmit() {
    losses_are_counted(&[], "ip link set director xdpdrv off");
}

/// `xdp_devmap_xmit`: the outgoing device was willing, but its other end is down.
#[test]
fn a_device_that_does_not_transmit() {
    losses_are_counted(&[], "ip link set director down");
}

/// `xdp_bulk_tx`: on one arm the frame goes back where it came from.
#[test]
fn a_device_that_does_not_take_its_frame_back() {
    losses_are_counted(&["--one-arm"], "ip link set director xdpdrv off");
}
