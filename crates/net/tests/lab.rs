//! Builds real labs (needs root), looks at them, takes them down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dirigent_net::lab::{Family, Lab, LabGuard, LabSpec, Phase};
use dirigent_net::links::link_named;
use dirigent_net::raw::PacketSocket;
use dirigent_net::{Namespace, ethtool};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn two_arms() -> LabSpec {
    LabSpec::default()
}

fn one_arm() -> LabSpec {
    LabSpec { one_arm: true, ..LabSpec::default() }
}

/// A datagram there and back between two hosts, by UDP, retried while neighbours resolve.
fn reaches(lab: &Lab, from: &str, source: IpAddr, to: &str, target: IpAddr) {
    let server = lab.run(to, || UdpSocket::bind((target, 0)).unwrap()).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let address = server.local_addr().unwrap();
    let client = lab.run(from, || UdpSocket::bind((source, 0)).unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.send_to(b"there", address).unwrap();
    let mut buffer = [0; 16];
    let (_, back) = server.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{from} {source} -> {to} {target}: {e}"));
    server.send_to(b"back", back).unwrap();
    let (length, _) = client.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{to} {target} -> {from} {source}: {e}"));
    assert_eq!(&buffer[..length], b"back");
}

fn everyone_reaches_everyone(spec: &LabSpec) {
    let lab = LabGuard::up(spec).unwrap();
    for family in [Family::V4, Family::V6] {
        let spec = LabSpec { family, ..lab.spec().clone() };
        reaches(&lab, "client", spec.client(), "director", spec.vip());
        reaches(&lab, "client", spec.client(), "server1", spec.server(1));
        reaches(&lab, "server2", spec.server(2), "client", spec.client());
        reaches(&lab, "server1", spec.server(1), "server2", spec.server(2));
        reaches(&lab, "server1", spec.server(1), "director", spec.vip());
        lab.set_server_route_around_director(1, true).unwrap();
        reaches(&lab, "server1", spec.server(1), "client", spec.client());
        lab.set_server_route_around_director(1, false).unwrap();
    }
    let status = Lab::status(lab.name()).unwrap().unwrap();
    assert!(status.is_whole(), "{status}");
    println!("{status}");
}

#[test]
fn two_armed_lab_carries_packets_between_all_hosts() {
    everyone_reaches_everyone(&two_arms());
}

#[test]
fn one_armed_lab_carries_packets_between_all_hosts() {
    everyone_reaches_everyone(&one_arm());
}

#[test]
fn tcp_flows_through_namespaces_by_closures() {
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    let target = SocketAddr::new(lab.spec().server(1), 8080);
    let listener = lab.run("server1", || TcpListener::bind(target).unwrap()).unwrap();
    let mut client = lab.run("client", || TcpStream::connect(target).unwrap()).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), lab.spec().client());
    client.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
}

#[test]
fn offloads_and_mtu_are_as_asked() {
    let lab = LabGuard::up(&LabSpec { offloads: false, server_mtu: 1400, ..two_arms() }).unwrap();
    for (host, interface, mtu) in [("director", "c0", 1500), ("director", "r0", 1400), ("switch", "server1", 1400)] {
        let (offloads, link) =
            lab.run(host, || (ethtool::offloads(interface).unwrap(), link_named(interface).unwrap())).unwrap();
        assert_eq!(offloads, ethtool::Offloads::OFF, "{interface} of {host}");
        assert_eq!(link.mtu, mtu, "{interface} of {host}");
        assert_eq!(link.kind.as_deref(), Some("veth"));
    }
}

#[test]
fn up_refuses_a_name_in_use_and_down_twice_is_fine() {
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    let error = Lab::up(lab.spec()).unwrap_err().to_string();
    assert!(error.contains("up already") && error.contains("lab down --name"), "{error}");
    assert!(Lab::down(lab.name()).unwrap().existed);
    assert!(!Lab::down(lab.name()).unwrap().existed);
    assert!(!Namespace::exists(&format!("{}-client", lab.name())));
    assert!(Lab::open(lab.name()).unwrap_err().to_string().contains("there is no lab"));
}

#[test]
fn a_foreign_namespace_of_the_same_name_is_left_alone() {
    let name = format!("f{}", std::process::id());
    let foreign = format!("{name}-router");
    Namespace::create(&foreign).unwrap();
    let error = Lab::up(&LabSpec { name: name.clone(), ..two_arms() }).unwrap_err().to_string();
    Lab::down(&name).unwrap();
    assert!(Namespace::exists(&foreign));
    Namespace::delete(&foreign).unwrap();
    assert!(error.contains("is no lab's"), "{error}");
}

#[test]
fn exec_sees_its_own_devices_and_the_bpf_file_system() {
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    let output = lab.output("director", &["sh", "-c", "ls /sys/class/net; stat -f -c %T /sys/fs/bpf"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["c0", "lo", "r0", "bpf_fs"], "{text}");
    let argv = ["test", "-d", "/sys/class/net/c0"].map(String::from);
    assert!(Lab::exec(lab.name(), "director", &argv).unwrap().success());
    assert_eq!(Lab::exec(lab.name(), "director", &["false".to_string()]).unwrap().code(), Some(1));
    let error = Lab::exec(lab.name(), "nobody", &argv).unwrap_err().to_string();
    assert!(error.contains("its hosts are client, router"), "{error}");
    let error = lab.output("client", &["no-such-program"]).unwrap_err().to_string();
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn the_host_and_ip_netns_see_the_same_namespaces() {
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    let name = format!("{}-server1", lab.name());
    let output = Command::new("ip").args(["netns", "exec", &name, "ip", "-o", "address"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("10.0.0.2/24"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("fd00::2/64"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("tentative"), "{output:?}");
}

#[test]
fn down_ends_background_processes_and_what_they_started() {
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    let script = "trap '' TERM; sleep 1000 & echo started; wait; wait";
    let process = lab.start("server1", "stubborn", &["sh", "-c", script]).unwrap();
    for _ in 0..500 {
        if std::fs::read_to_string(&process.log).unwrap().contains("started") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = Lab::status(lab.name()).unwrap().unwrap();
    assert!(status.processes[0].running, "{status}");
    let report = Lab::down(lab.name()).unwrap();
    assert_eq!((report.ended, report.left), (2, vec![]));
    assert!(!process.log.exists());
}

/// A correct TCP SYN-ACK from server 1 straight to the client by the router.
fn unasked_syn_ack() -> Vec<u8> {
    let sum = |bytes: &[u8], start: u32| {
        let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = words.sum::<u32>() + start;
        !((sum & 0xffff) + (sum >> 16)) as u16
    };
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 198, 51, 100, 7];
    let checksum = sum(&ip, 0);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut tcp = vec![0x1f, 0x90, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0];
    let pseudo = sum(&ip[12..], 6 + 20);
    let checksum = sum(&tcp, u32::from(!pseudo));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    [&[2, 0, 0, 0, 1, 3, 2, 0, 0, 0, 3, 1, 8, 0][..], &ip, &tcp].concat()
}

#[test]
fn a_firewall_on_the_router_drops_what_it_does_not_know() {
    if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: nft is not installed (make test installs nftables)");
        return;
    }
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    let target = SocketAddr::new(lab.spec().server(1), 8080);
    let _listener = lab.run("server1", || TcpListener::bind(target).unwrap()).unwrap();
    let connect = || lab.run("client", || TcpStream::connect_timeout(&target, Duration::from_secs(2))).unwrap();
    lab.drop_invalid_on_router(true).unwrap();
    connect().unwrap();
    assert_eq!(lab.invalid_drops_on_router().unwrap(), 0);
    // A server's answer of its own, to a client that never asked it: what a way around the director looks like here.
    lab.run("server1", || {
        let index = link_named("eth0").unwrap().index;
        PacketSocket::sender().unwrap().send(index, &unasked_syn_ack()).unwrap();
    })
    .unwrap();
    for _ in 0..500 {
        if lab.invalid_drops_on_router().unwrap() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(lab.invalid_drops_on_router().unwrap(), 1);
    lab.drop_invalid_on_router(true).unwrap();
    lab.drop_invalid_on_router(false).unwrap();
    lab.drop_invalid_on_router(false).unwrap();
    assert!(lab.invalid_drops_on_router().is_err());
    connect().unwrap();
}

#[test]
fn one_process_is_ended_by_its_host_and_label() {
    let lab = LabGuard::up(&LabSpec { servers: 2, ..two_arms() }).unwrap();
    let start = |host: &str| lab.start(host, "sleeper", &["sh", "-c", "sleep 1000 & sleep 1000"]).unwrap();
    let (mut one, mut two) = (start("server1"), start("server2"));
    let started = |status: &str| status.matches("running").count() == 2;
    assert!(started(&Lab::status(lab.name()).unwrap().unwrap().to_string()));
    assert!(lab.end("server1", "sleeper").unwrap() >= 1);
    assert!(one.child.try_wait().unwrap().is_some());
    assert!(two.child.try_wait().unwrap().is_none());
    assert_eq!(lab.end("server1", "sleeper").unwrap(), 0);
}

/// Kills builders at moments spread over the time that a lab takes to build: none leaves anything behind.
#[test]
fn a_builder_killed_at_any_moment_leaves_nothing() {
    for delay in (0..300).step_by(25) {
        let mut helper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_that_is_killed", "--nocapture"])
            .env("DIRIGENT_NET_KILL_ME", "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        helper.kill().unwrap();
        helper.wait().unwrap();
        Lab::clean_stale().unwrap();
        let prefix = format!("t{}-", helper.id());
        let gone = || {
            let names = std::fs::read_dir("/run/netns").unwrap().chain(std::fs::read_dir("/run/dirigent/lab").unwrap());
            !names.filter_map(|e| e.unwrap().file_name().into_string().ok()).any(|name| name.starts_with(&prefix))
        };
        // Another test's guard may be at the cleaning just now.
        for _ in 0..500 {
            if gone() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone(), "killed after {delay} ms");
    }
}

#[test]
fn an_adopted_lab_goes_with_its_guard() {
    let name = format!("a{}", std::process::id());
    Lab::up(&LabSpec { name: name.clone(), servers: 1, family: Family::V6, ..two_arms() }).unwrap();
    let guard = LabGuard::adopt(&name).unwrap();
    assert_eq!(guard.spec().vip().to_string(), "2001:db8::10");
    assert!(Lab::clean_stale().unwrap().iter().all(|cleaned| *cleaned != name));
    drop(guard);
    assert!(Lab::status(&name).unwrap().is_none());
    assert!(LabGuard::adopt(&name).is_err());
}

/// Run again by the next test as a process to kill: builds a lab, starts a process in it, says its name, and waits.
#[test]
fn helper_that_is_killed() {
    if std::env::var_os("DIRIGENT_NET_KILL_ME").is_none() {
        return;
    }
    let lab = LabGuard::up(&LabSpec { servers: 1, ..two_arms() }).unwrap();
    lab.start("server1", "sleep", &["sleep", "1000"]).unwrap();
    println!("lab={}", lab.name());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_lab_of_a_killed_owner_is_cleaned() {
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_is_killed", "--nocapture"])
        .env("DIRIGENT_NET_KILL_ME", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(helper.stdout.take().unwrap());
    let name = loop {
        let mut line = String::new();
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut line).unwrap(), 0, "the helper died");
        if let Some((_, name)) = line.trim().split_once("lab=") {
            break name.to_string();
        }
    };
    let status = Lab::status(&name).unwrap().unwrap();
    assert_eq!((status.phase, status.processes.len()), (Phase::Up, 1));
    helper.kill().unwrap();
    helper.wait().unwrap();
    // Another test's guard may be quicker: what counts is that it goes.
    Lab::clean_stale().unwrap();
    for _ in 0..1000 {
        if Lab::status(&name).unwrap().is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Lab::status(&name).unwrap().is_none());
    assert!(!Namespace::exists(&format!("{name}-server1")));
    assert!(!status.processes[0].identity.is_alive());
    assert!(!Path::new("/run/dirigent/lab").join(format!("{name}.json")).exists());
}
