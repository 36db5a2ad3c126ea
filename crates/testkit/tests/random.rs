//! Random frames, in order, on one director each: in memory, easy cases and not, and in
//! the kernel, XDP and tc. They must agree about every frame and about the table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dirigent_config::{Command, Model};
use dirigent_testkit::decode::describe;
use dirigent_testkit::golden::compare::{same_deed, same_rows};
use dirigent_testkit::golden::kernel::{InKernel, Path};
use dirigent_testkit::golden::memory::{Memory, Plays};
use dirigent_testkit::golden::{Bed, Does, Executor, Side};
use dirigent_testkit::packet::{self as build, IpOptions, Tcp, proto};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SETUP: [&str; 21] = [
    "-A -t 192.0.2.10:80 -s rr",
    "-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m",
    "-a -t 192.0.2.10:80 -r 10.1.0.12:8080 -m",
    "-A -u 192.0.2.10:53 -s wlc",
    "-a -u 192.0.2.10:53 -r 10.1.0.11:5353 -m",
    "-A -t 192.0.2.10:99 -s rr",
    "-A -u 192.0.2.11:53 -s rr -o",
    "-a -u 192.0.2.11:53 -r 10.1.0.12:53 -m",
    "-A -t [2001:db8::10]:80 -s wrr",
    "-a -t [2001:db8::10]:80 -r [fd00:1::11]:8080 -m -w 2",
    "-a -t [2001:db8::10]:80 -r [fd00:1::12]:8080 -m",
    "-A -u [2001:db8::10]:53 -s mh",
    "-a -u [2001:db8::10]:53 -r [fd00:1::11]:5353 -m",
    "-a -u [2001:db8::10]:53 -r [fd00:1::12]:5353 -m",
    "-A -t [2001:db8::10]:99 -s rr",
    "-A --sctp-service 192.0.2.10:80 -s rr",
    "-a --sctp-service 192.0.2.10:80 -r 10.1.0.11:8080 -m",
    "-a --sctp-service 192.0.2.10:80 -r 10.1.0.12:80 -m",
    "-A --sctp-service [2001:db8::10]:80 -s wlc",
    "-a --sctp-service [2001:db8::10]:80 -r [fd00:1::11]:8080 -m",
    // A server that no neighbour answers for: handed over by XDP, resolved by tc.
    "-a -t 192.0.2.10:99 -r 10.1.0.77:99 -m",
];

fn model(schedule_icmp: bool, nat_icmp_send: bool) -> Model {
    let mut model = Model::default();
    let mut settings = model.settings().clone();
    (settings.schedule_icmp, settings.nat_icmp_send) = (schedule_icmp, nat_icmp_send);
    (settings.errors.rate, settings.errors.destination_rate) = (0, 0);
    model.set_settings(settings).unwrap();
    for line in SETUP {
        let words: Vec<&str> = line.split(' ').collect();
        Command::from_args(&words).unwrap().apply(&mut model).unwrap();
    }
    model
}

/// What a frame is made of.
#[derive(Clone, Debug)]
struct Recipe {
    v6: bool,
    from_server: bool,
    kind: u8,
    client: u8,
    port: u8,
    server: u8,
    flags: u8,
    ttl: u8,
    size: usize,
    shape: u8,
    tag: bool,
    damage: Option<(usize, u8)>,
    cut: Option<usize>,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let flags = prop_oneof![Just(2u8), Just(16), Just(18), Just(17), Just(4), Just(20), any::<u8>()];
    let ttl = prop_oneof![6 => Just(64u8), 1 => 0u8..3];
    let size = prop_oneof![6 => 0usize..40, 1 => 1300usize..1461];
    let damage = proptest::option::weighted(0.15, (0usize..120, any::<u8>()));
    let cut = proptest::option::weighted(0.1, 14usize..90);
    let who = (any::<bool>(), any::<bool>(), 0u8..7, 0u8..4, 0u8..4, 0u8..2);
    (who, flags, ttl, size, 0u8..12, proptest::bool::weighted(0.05), damage, cut).prop_map(
        |((v6, from_server, kind, client, port, server), flags, ttl, size, shape, tag, damage, cut)| Recipe {
            v6,
            from_server,
            kind,
            client,
            port,
            server,
            flags,
            ttl,
            size,
            shape,
            tag,
            damage,
            cut,
        },
    )
}

impl Recipe {
    fn ends(&self) -> (IpAddr, IpAddr, IpAddr) {
        let n = u16::from(self.client);
        let client = match (self.v6, self.client) {
            (false, 3) => IpAddr::V4(Ipv4Addr::new(10, 1, 0, 11)),
            (false, _) => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5 + self.client)),
            (true, _) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5 + n)),
        };
        let last = 0x11 + u16::from(self.server);
        if self.v6 {
            let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
            (client, vip.into(), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last).into())
        } else {
            let vip = Ipv4Addr::new(192, 0, 2, if self.port == 3 && self.kind == 1 { 11 } else { 10 });
            (client, vip.into(), Ipv4Addr::new(10, 1, 0, 11 + self.server).into())
        }
    }
    /// The packet between two ends, of this protocol.
    fn flow(&self, protocol: u8, reply: bool) -> Vec<u8> {
        let udp = protocol == proto::UDP;
        let (client, vip, server) = self.ends();
        let cport = 4000 + u16::from(self.client);
        let (vport, sport) = match (udp, self.port) {
            (true, 3) => (53, 53),
            (true, _) => (53, 5353),
            (false, 2) => (99, 99),
            (false, _) => (80, 8080),
        };
        let (src, dst, from, to) = if reply { (server, client, sport, cport) } else { (client, vip, cport, vport) };
        let payload = vec![0x61; self.size];
        let mut l4 = match protocol {
            proto::UDP => build::udp(src, dst, from, to, &payload),
            proto::SCTP => {
                // INIT twice as often as what follows it, and anything.
                let chunk = *[1, 1, 2, 10, 11, 0, 7, 8, 14, 6].get(usize::from(self.flags)).unwrap_or(&self.flags);
                build::sctp(from, to, &[&[chunk, 0, 0, 4][..], &payload].concat())
            }
            _ => {
                let (sport, dport, flags) = (from, to, self.flags);
                build::tcp(src, dst, &Tcp { sport, dport, flags, seq: 1, ack: 1, payload: &payload })
            }
        };
        match (protocol, self.shape) {
            (proto::UDP, 11) => l4[6..8].fill(0),
            (proto::SCTP, 10) => l4[8..12].fill(0),
            (proto::SCTP, 11) => l4[8] ^= 1,
            _ => {}
        }
        self.packet(src, dst, protocol, &l4)
    }
    fn packet(&self, src: IpAddr, dst: IpAddr, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let mut with = IpOptions { ttl: self.ttl, ..IpOptions::default() };
        match (self.v6, self.shape) {
            (_, 0) => with.tos = 0xb9,
            (false, 1) => with.fragment = 0,
            (false, 2) => with.fragment = 0x2000,
            (false, 3) => with.fragment = 0x00b9,
            (false, 4) => with.options = vec![1, 1, 1, 0],
            (false, 5) => with.options = vec![7, 7, 4, 0, 0, 0, 0, 0],
            (false, 6) => with.options = vec![1, 131, 7, 4, 192, 0, 2, 1],
            (true, 1) => with.extensions = Some((60, vec![protocol, 0, 1, 4, 0, 0, 0, 0])),
            (true, 2) => with.extensions = Some((44, vec![protocol, 0, 0, 0, 0, 0, 0, 7])),
            (true, 3) => with.extensions = Some((44, vec![protocol, 0, 0, 1, 0, 0, 0, 7])),
            (true, 4) => with.extensions = Some((44, vec![protocol, 0, 0, 9, 0, 0, 0, 7])),
            (true, 5) => with.extensions = Some((0, vec![43, 0, 1, 4, 0, 0, 0, 0, protocol, 0, 4, 0, 0, 0, 0, 0])),
            _ => {}
        }
        build::ip(src, dst, protocol, l4, &with)
    }
    /// An ICMP error about a packet that went the other way.
    fn error(&self, protocol: u8) -> Vec<u8> {
        let (client, vip, server) = self.ends();
        let quoted = Self { shape: 7, ttl: 60, size: self.size.min(200), ..self.clone() };
        // About a request that the server got, or about an answer that the client did.
        let (about, src, dst) = if self.from_server {
            let mut sent = quoted.flow(protocol, true);
            reverse(&mut sent, self.v6);
            (sent, server, client)
        } else {
            let mut sent = quoted.flow(protocol, false);
            reverse(&mut sent, self.v6);
            (sent, client, vip)
        };
        let kinds = if self.v6 { [(1, 4), (2, 0), (3, 0), (129, 0)] } else { [(3, 3), (3, 4), (11, 0), (12, 0)] };
        let kind = kinds[usize::from(self.shape) % 4];
        let mut error = build::error(src, dst, kind, 1400, &about, 60 + self.size % 40);
        if let (false, Some(ttl)) = (self.v6, error.get_mut(8)) {
            // Also TTL 0 and 1, with the checksum kept right by a full sum.
            *ttl = self.ttl;
            error[10..12].fill(0);
            let check = build::checksum(&[&error[..20]]);
            error[10..12].copy_from_slice(&check.to_be_bytes());
        }
        error
    }
    fn frame(&self) -> (Side, Vec<u8>) {
        let side = if self.from_server { Side::R } else { Side::C };
        let packet = match self.kind {
            0 => self.flow(proto::TCP, self.from_server),
            1 => self.flow(proto::UDP, self.from_server),
            2 => self.error(proto::TCP),
            3 => self.error(proto::UDP),
            4 => self.flow(proto::SCTP, self.from_server),
            5 => self.error(proto::SCTP),
            _ => {
                let (client, vip, _) = self.ends();
                let (src, dst) = if self.from_server { (vip, client) } else { (client, vip) };
                self.packet(src, dst, 50, &[0; 16])
            }
        };
        let neighbour = if self.from_server { [2, 0, 0, 0, 1, 1] } else { [2, 0, 0, 0, 0, 0xfe] };
        let mut frame = build::eth(side.mac(), neighbour, &packet);
        if self.tag {
            let tci = if self.shape.is_multiple_of(2) { 0x2000u16 } else { 5 };
            frame.splice(12..12, [0x81, 0, (tci >> 8) as u8, tci as u8]);
        }
        if let Some((at, mask)) = self.damage
            && let Some(byte) = frame.get_mut(14 + at)
        {
            *byte ^= mask;
        }
        if let Some(len) = self.cut {
            // The kernel runs tc on nothing shorter than an IP header.
            frame.truncate(len.max(if self.v6 { 54 } else { 34 }));
        }
        (side, frame)
    }
}

/// Turns a packet's ends round, checksums unchanged: sums do not mind.
fn reverse(p: &mut [u8], v6: bool) {
    let (at, len, l4) = if v6 { (8, 16, 40) } else { (12, 4, 20) };
    let (src, dst) = (p[at..at + len].to_vec(), p[at + len..at + 2 * len].to_vec());
    p[at..at + len].copy_from_slice(&dst);
    p[at + len..at + 2 * len].copy_from_slice(&src);
    let (from, to) = (p[l4..l4 + 2].to_vec(), p[l4 + 2..l4 + 4].to_vec());
    p[l4..l4 + 2].copy_from_slice(&to);
    p[l4 + 2..l4 + 4].copy_from_slice(&from);
}

fn compare(executors: &mut [Box<dyn Executor>], frames: &[Recipe], options: u8, mtu: u32) -> Result<(), TestCaseError> {
    let bed = Bed::new(1500, mtu, &[]).unwrap();
    let model = model(options & 1 != 0, options & 2 != 0);
    for executor in executors.iter_mut() {
        executor.set_up(&bed, &model).unwrap();
    }
    for (number, recipe) in frames.iter().enumerate() {
        let (side, frame) = recipe.frame();
        let mut first = None;
        for executor in executors.iter_mut() {
            let (does, verdict) = executor.run(side, &frame).map_err(|e| {
                TestCaseError::fail(format!("{} on frame {number}: {e}\n{}", executor.name(), describe(&frame)))
            })?;
            let (name, expected, why) = first.get_or_insert((executor.name(), does.clone(), verdict));
            let show = |does: &Does| match does {
                Does::Pieces(pieces) => format!("{} pieces", pieces.len()),
                Does::ToHost(f) | Does::Out(_, f) | Does::Resolve(_, f, _) => {
                    format!("{does:.0?}\n      {}", describe(f))
                }
                Does::Drop => "Drop".into(),
            };
            prop_assert!(
                same_deed(side, &frame, expected, &does),
                "frame {number} by {}: {}\n  {name} ({why:?}): {}\n  {} ({verdict:?}): {}",
                side.name(),
                describe(&frame),
                show(expected),
                executor.name(),
                show(&does)
            );
        }
    }
    let (first, others) = executors.split_first_mut().unwrap();
    let rows = first.conns().unwrap();
    for other in others {
        let got = other.conns().unwrap();
        prop_assert!(same_rows(&rows, &got), "{}: {rows:#?}\n{}: {got:#?}", first.name(), other.name());
    }
    Ok(())
}

fn run(cases: u32, most: usize, mut executors: Vec<Box<dyn Executor>>) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if cases > 50 { 400 } else { 12 },
        ..Config::default()
    };
    let input = (proptest::collection::vec(recipe(), 1..most), 0u8..4, prop_oneof![Just(1500u32), Just(1400)]);
    let executors = std::cell::RefCell::new(&mut executors);
    TestRunner::new(config)
        .run(&input, |(frames, options, mtu)| compare(&mut executors.borrow_mut(), &frames, options, mtu))
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn easy_and_slow_stages_agree() {
    run(
        300,
        60,
        vec![
            Box::new(Memory::playing(Plays::Tc)),
            Box::new(Memory::playing(Plays::SlowTc)),
            Box::new(Memory::playing(Plays::XdpThenTc)),
        ],
    );
}

#[test]
fn memory_xdp_and_tc_agree() {
    run(
        6,
        400,
        vec![Box::new(Memory::default()), Box::new(InKernel::new(Path::Xdp)), Box::new(InKernel::new(Path::Tc))],
    );
}

proptest! {
    /// No bytes make the packet path read outside, or panic.
    #[test]
    fn any_bytes_get_a_verdict(
        frames in proptest::collection::vec((any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 1..20),
    ) {
        let mut memory = Memory::default();
        memory.set_up(&Bed::new(1500, 1500, &[]).unwrap(), &model(true, true)).unwrap();
        for (server, v6, bytes) in frames {
            let side = if server { Side::R } else { Side::C };
            let mut frame = bytes;
            if let Some(head) = frame.get_mut(..15) {
                head[..6].copy_from_slice(&side.mac());
                head[12..14].copy_from_slice(&if v6 { build::IPV6 } else { build::IPV4 }.to_be_bytes());
                head[14] = if v6 { 0x60 } else { 0x45 };
            }
            memory.run(side, &frame).unwrap();
        }
    }
}

/// The sweep in the kernel: the expire step takes what is over, both directions, and
/// leaves what is not.
#[test]
fn a_sweep_in_the_kernel_takes_what_is_over() {
    let mut kernel = InKernel::new(Path::Tc);
    kernel.set_up(&Bed::new(1500, 1500, &[]).unwrap(), &model(false, false)).unwrap();
    let open = |v6, kind, client| Recipe {
        v6,
        from_server: false,
        kind,
        client,
        port: 0,
        server: 0,
        flags: 2,
        ttl: 64,
        size: 0,
        shape: 7,
        tag: false,
        damage: None,
        cut: None,
    };
    for recipe in [open(false, 0, 0), open(false, 1, 1), open(true, 0, 0), open(true, 1, 1)] {
        let (side, frame) = recipe.frame();
        kernel.run(side, &frame).unwrap();
    }
    assert_eq!(kernel.conns().unwrap().len(), 4);
    // SYN_RECV lives 60 s, UDP 300 s.
    assert_eq!(kernel.sweep_after(59).unwrap(), (0, 0));
    assert_eq!(kernel.sweep_after(2).unwrap(), (2, 0));
    assert_eq!(kernel.conns().unwrap().iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["UDP", "UDP"]);
    assert_eq!(kernel.sweep_after(240).unwrap(), (2, 0));
    assert!(kernel.conns().unwrap().is_empty());
}
