//! As many servers as a service may have, with any weights: each scheduler in memory, on XDP and
//! on tc. Needs root.

use std::net::{IpAddr, Ipv4Addr};

use dirigent_config::{Command, Model};
use dirigent_datapath::memory::Capacity;
use dirigent_director::schedule::Scheduler;
use dirigent_testkit::golden::executor::Load;
use dirigent_testkit::golden::kernel::{InKernel, Path};
use dirigent_testkit::golden::{Bed, Does, Executor, Side, memory::Memory};
use dirigent_testkit::packet::{self as build, IpOptions, Tcp, flag, proto};

const SERVERS: u32 = 4096;
const CONNECTIONS: u32 = 150;
const HEAVIEST: u32 = (1 << 31) - 1;

fn server(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a02_0000 + n)
}

/// Weights from 0 to the largest, so that sums and products do not fit into 32 bits.
fn weight(n: u32) -> u32 {
    match n % 8 {
        0 => HEAVIEST,
        1 => 0,
        2 => 1,
        3 => HEAVIEST - n,
        _ => n.wrapping_mul(2_654_435_761) >> 1,
    }
}

fn model(scheduler: Scheduler) -> Model {
    let mut lines = vec![format!("-A -t 192.0.2.10:80 -s {}", scheduler.name())];
    lines.extend((0..SERVERS).map(|n| format!("-a -t 192.0.2.10:80 -r {}:80 -m -w {}", server(n), weight(n))));
    let mut model = Model::default();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        Command::from_args(&words).unwrap().apply(&mut model).unwrap();
    }
    model
}

fn open(executor: &mut dyn Executor, n: u32) -> IpAddr {
    let (src, dst) = (Ipv4Addr::from(0xcb00_7101 + n * 77).into(), IpAddr::from([192, 0, 2, 10]));
    let tcp = Tcp { sport: 10_000 + n as u16, dport: 80, flags: flag::SYN, seq: 1, ack: 0, payload: b"" };
    let packet = build::ip(src, dst, proto::TCP, &build::tcp(src, dst, &tcp), &IpOptions::default());
    let frame = build::eth(Side::C.mac(), [2, 0, 0, 0, 0, 0xfe], &packet);
    match executor.run(Side::C, &frame).unwrap() {
        (Does::Out(_, out) | Does::Resolve(_, out, _), _) => Ipv4Addr::new(out[30], out[31], out[32], out[33]).into(),
        (does, verdict) => panic!("connection {n}: {does:?}, {verdict:?}"),
    }
}

/// The first in list order whose `cost` per `by` is least, in numbers that nothing overflows.
fn least(loads: &[Load], cost: impl Fn(u128, u128) -> u128, by_weight: bool) -> IpAddr {
    let mut best: Option<(u128, u128, IpAddr)> = None;
    for Load { address, counts: [weight, active, inactive] } in loads {
        let by = if by_weight { u128::from(*weight) } else { 1 };
        let mine = cost((*active).into(), (*inactive).into());
        if *weight > 0 && best.is_none_or(|(least, its, _)| mine * its < least * by) {
            best = Some((mine, by, *address));
        }
    }
    best.unwrap().2
}

/// Where the next connection must go, of schedulers whose rule says it without their state.
fn expected(scheduler: Scheduler, loads: &[Load]) -> Option<IpAddr> {
    let overhead = |active: u128, inactive: u128| active * 256 + inactive;
    let heaviest = |fits: &dyn Fn(&Load) -> bool| {
        let mut best: Option<&Load> = None;
        for load in loads.iter().filter(|load| load.counts[0] > 0 && fits(load)) {
            if best.is_none_or(|b| load.counts[0] > b.counts[0]) {
                best = Some(load);
            }
        }
        best.map(|load| load.address)
    };
    match scheduler {
        Scheduler::Lc => Some(least(loads, overhead, false)),
        Scheduler::Wlc => Some(least(loads, overhead, true)),
        Scheduler::Sed => Some(least(loads, |active, _| active + 1, true)),
        Scheduler::Nq => {
            let idle = loads.iter().find(|load| load.counts[0] > 0 && load.counts[1] == 0);
            Some(idle.map_or_else(|| least(loads, |active, _| active + 1, true), |load| load.address))
        }
        Scheduler::Fo => heaviest(&|_| true),
        Scheduler::Ovf => heaviest(&|load| load.counts[1] <= load.counts[0]),
        _ => None,
    }
}

#[test]
fn each_scheduler_takes_4096_servers_of_any_weight() {
    let bed = Bed::with_servers(2, &[]).unwrap();
    let mut executors: Vec<Box<dyn Executor>> = vec![
        Box::new(Memory::with_room(Capacity { servers: 8192, slots: 1 << 17, ..Capacity::default() })),
        Box::new(InKernel::new(Path::Xdp)),
        Box::new(InKernel::new(Path::Tc)),
    ];
    for scheduler in Scheduler::ALL.iter().copied() {
        let model = model(scheduler);
        let mut first: Option<Vec<IpAddr>> = None;
        for executor in &mut executors {
            let (name, executor) = (format!("{} {}", scheduler.name(), executor.name()), &mut **executor);
            executor.set_up(&bed, &model).unwrap();
            let mut chosen = Vec::new();
            for n in 0..CONNECTIONS {
                // Reading all servers takes its time: not before each.
                let wanted = if n < 5 || n % 50 == 0 { expected(scheduler, &executor.loads().unwrap()) } else { None };
                let got = open(executor, n);
                assert!(wanted.is_none_or(|wanted| wanted == got), "{name}: {got}, expected {wanted:?}");
                chosen.push(got);
            }
            for address in &chosen {
                let IpAddr::V4(four) = address else { panic!("{address}") };
                assert!(weight(u32::from(*four) - 0x0a02_0000) > 0, "{name}: {address} has weight 0");
            }
            let loads = executor.loads().unwrap();
            assert_eq!(loads.len() as u32, SERVERS, "{name}");
            assert_eq!(loads.iter().map(|load| load.counts[1] + load.counts[2]).sum::<u32>(), CONNECTIONS, "{name}");
            // Twos draws, everybody differently.
            if scheduler != Scheduler::Twos {
                assert_eq!(*first.get_or_insert_with(|| chosen.clone()), chosen, "{name}");
            }
        }
    }
}
