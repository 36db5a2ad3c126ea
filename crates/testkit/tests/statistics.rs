//! Statistics: IPVS's counters and rates on the same traffic, in memory, on XDP and on tc; and
//! that no count is lost or told twice when servers and services come and go. Needs root.

use std::net::IpAddr;
use std::path::Path;

use dirigent_config::ipvsadm::Command;
use dirigent_config::{Model, Plan, ServiceKey};
use dirigent_datapath::control::tally::{Estimator, Tally};
use dirigent_director::records::Counters;
use dirigent_testkit::golden::kernel::{InKernel, Path as KernelPath};
use dirigent_testkit::golden::{Bed, Does, Executor, Side, memory::Memory};
use dirigent_testkit::packet::{self as build, IpOptions, Tcp, flag, proto};
use serde::Deserialize;

fn executors() -> Vec<Box<dyn Executor>> {
    vec![Box::new(Memory::default()), Box::new(InKernel::new(KernelPath::Xdp)), Box::new(InKernel::new(KernelPath::Tc))]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vip() -> IpAddr {
    ip("192.0.2.10")
}

fn model(rules: &[&str]) -> Model {
    rules.iter().fold(Model::default(), |model, line| changed(&model, line))
}

/// The Model after a command of ipvsadm.
fn changed(model: &Model, line: &str) -> Model {
    let mut model = model.clone();
    let words: Vec<&str> = line.split_whitespace().collect();
    Command::from_args(&words).unwrap().apply(&mut model).unwrap();
    model
}

const SERVICE: [&str; 3] =
    ["-A -t 192.0.2.10:80 -s rr", "-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m", "-a -t 192.0.2.10:80 -r 10.1.0.12:80 -g"];

fn segment(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let tcp = Tcp { sport: from.1, dport: to.1, flags, seq: 1, ack: 1, payload };
    build::ip(from.0, to.0, proto::TCP, &build::tcp(from.0, to.0, &tcp), &IpOptions::default())
}

/// A client's SYN with 60 bytes; the first server, by NAT, answers with 100.
fn connect(executor: &mut dyn Executor, n: u16) {
    let client = (ip(&format!("203.0.113.{}", 1 + n % 200)), 7000 + n);
    let syn = segment(client, (vip(), 80), flag::SYN, &[b'p'; 60]);
    let frame = build::eth(Side::C.mac(), [2, 0, 0, 0, 0, 0xfe], &syn);
    let (Does::Out(Side::R, out), _) = executor.run(Side::C, &frame).unwrap() else { panic!("not sent to a server") };
    if out[5] == 1 {
        let answer = segment((ip("10.1.0.11"), 80), client, flag::SYN | flag::ACK, &[b'q'; 100]);
        executor.run(Side::R, &build::eth(Side::R.mac(), [2, 0, 0, 0, 1, 1], &answer)).unwrap();
    }
}

/// A recording of what ipvsadm and /proc/net/ip_vs_stats print each second.
#[derive(Deserialize)]
struct Recording {
    steps: Vec<Second>,
}

#[derive(Deserialize)]
struct Second {
    second: u32,
    stats: String,
    rate: String,
    proc: String,
}

/// The numbers of a line, in ipvsadm's order: connections, packets in and out, bytes in and out.
fn numbers(words: &[&str], radix: u32) -> Counters {
    let words: Vec<u64> = words.iter().map(|word| u64::from_str_radix(word, radix).unwrap()).collect();
    let [conns, in_packets, out_packets, in_bytes, out_bytes] = words.try_into().unwrap();
    Counters { conns, in_packets, in_bytes, out_packets, out_bytes }
}

/// Of the service and its two servers.
fn lines(text: &str) -> Vec<Counters> {
    let last = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        numbers(&words[words.len() - 5..], 10)
    };
    text.lines().skip(3).map(last).collect()
}

/// Of everything: counters and rates.
fn whole(text: &str) -> [Counters; 2] {
    let line = |n: usize| numbers(&text.lines().nth(n).unwrap().split_whitespace().collect::<Vec<_>>(), 16);
    [line(2), line(5)]
}

fn recording() -> Option<Recording> {
    let golden = match (std::env::var_os("DIRIGENT_GOLDEN"), std::env::var_os("DIRIGENT_ORACLE")) {
        (Some(golden), _) => golden.into(),
        (None, Some(oracle)) => Path::new(&oracle).join("golden"),
        (None, None) => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle/golden"),
    };
    let file = golden.join("text/text-rates.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no {}", file.display());
        eprintln!("SKIPPED: no {} (set DIRIGENT_GOLDEN)", file.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// The same traffic as in the recording gives the same counters, and the estimator the same
/// rates. IPVS shows its counters as of its last look, every two seconds; those are compared.
#[test]
fn counters_and_rates_are_those_of_the_recording() {
    let Some(recording) = recording() else { return };
    let bed = Bed::with_servers(2, &[]).unwrap();
    for executor in &mut executors() {
        let (name, executor) = (executor.name(), &mut **executor);
        executor.set_up(&bed, &model(&SERVICE)).unwrap();
        executor.zero(None).unwrap();
        let mut estimators: [Estimator; 4] = Default::default();
        let mut n = 0;
        for step in &recording.steps {
            if step.second % 2 == 0 && step.second > 0 {
                let now = counted(&executor.tally().unwrap());
                for (estimator, now) in estimators.iter_mut().zip(now) {
                    estimator.tick(now);
                }
            }
            let at = format!("{name}, second {}", step.second);
            let shown: Vec<_> = estimators.iter().map(|e| e.last).collect();
            let rates: Vec<_> = estimators.iter().map(Estimator::rates).collect();
            assert_eq!(shown[..3], lines(&step.stats), "{at}");
            assert_eq!(rates[..3], lines(&step.rate), "{at}");
            assert_eq!([shown[3], rates[3]], whole(&step.proc), "{at}");
            for _ in 0..if step.second < 8 { 10 } else { 0 } {
                n += 1;
                connect(executor, n);
            }
        }
        assert_eq!(n, 80);
    }
}

/// The only service, its servers in the order of their addresses, and everything.
fn counted(tally: &Tally) -> [Counters; 4] {
    let service = *tally.services.values().next().unwrap();
    let mut servers: Vec<_> = tally.servers.iter().map(|(_, counters)| *counters).collect();
    servers.sort_by_key(|c| std::cmp::Reverse(c.out_packets));
    [service, servers[0], servers[1], tally.total]
}

fn conns(c: Counters) -> u64 {
    c.conns
}

/// Zeroing, removal and return: the sums of services and of everything stay what IPVS's are.
#[test]
fn counts_outlive_their_servers_and_are_told_once() {
    let bed = Bed::with_servers(3, &[]).unwrap();
    for executor in &mut executors() {
        let (name, executor) = (executor.name(), &mut **executor);
        let mut now = model(&SERVICE);
        executor.set_up(&bed, &now).unwrap();
        executor.zero(None).unwrap();
        let mut change = |executor: &mut dyn Executor, line: &str| {
            let next = changed(&now, line);
            executor.change(&Plan::between(&now, &next)).unwrap();
            now = next;
        };
        let sums = |executor: &mut dyn Executor| {
            let tally = executor.tally().unwrap();
            (tally.services.values().copied().map(conns).sum::<u64>(), conns(tally.total))
        };
        (0..10).for_each(|n| connect(executor, n));
        assert_eq!(counted(&executor.tally().unwrap()).map(conns), [10, 5, 5, 10], "{name}");

        // A server leaves: its service keeps what it had. It returns, and has it again.
        change(executor, "-d -t 192.0.2.10:80 -r 10.1.0.12:80");
        assert_eq!(sums(executor), (10, 10), "{name}");
        (10..14).for_each(|n| connect(executor, n));
        change(executor, "-a -t 192.0.2.10:80 -r 10.1.0.12:80 -g");
        assert_eq!(counted(&executor.tally().unwrap()).map(conns), [14, 9, 5, 14], "{name}");

        // Zeroing a service zeroes its servers, and not the whole.
        let key: ServiceKey =
            ServiceKey::Address { protocol: dirigent_config::Protocol::Tcp, address: vip(), port: 80 };
        executor.zero(Some(key)).unwrap();
        assert_eq!(counted(&executor.tally().unwrap()).map(conns), [0, 0, 0, 14], "{name}");
        (14..20).for_each(|n| connect(executor, n));
        assert_eq!(counted(&executor.tally().unwrap()).map(conns), [6, 3, 3, 20], "{name}");

        // A service leaves and comes back: it begins anew, and so do its servers.
        change(executor, "-D -t 192.0.2.10:80");
        assert_eq!(sums(executor), (0, 20), "{name}");
        SERVICE.iter().for_each(|line| change(executor, line));
        assert_eq!(sums(executor), (0, 20), "{name}");
        (20..24).for_each(|n| connect(executor, n));
        assert_eq!(sums(executor), (4, 24), "{name}");

        executor.zero(None).unwrap();
        assert_eq!(counted(&executor.tally().unwrap()).map(conns), [0, 0, 0, 0], "{name}");
        connect(executor, 24);
        assert_eq!(sums(executor), (1, 1), "{name}");
    }
}
