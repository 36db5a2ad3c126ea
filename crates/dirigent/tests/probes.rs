//! Probes along the clients' path, in a lab: from their namespace to one given server of the virtual address and back,
//! and how a server that clients would not reach is found. Needs root. The daemon is ended, and its director taken over
//! by the test, which does what a daemon's checks do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use common::traffic::VIPS;
use dirigent_config::{Method, Mode, Model};
use dirigent_datapath::control::{Control, Flow, KernelStore, Pinned, Pins, Store as _, Target, words};
use dirigent_datapath::kernel::{Features, Instance, Kernel, LoadOptions, TcKind};
use dirigent_director::records::{LAYOUT_VERSION, Link, NextHop, hop, link_flag, map, tunnel};
use dirigent_director::shared::S32;
use dirigent_net::probe::{self, SOURCE4, SOURCE6, Sources};
use dirigent_net::{NextHopState, ProbeNet, Resolver};
use dirigent_wire::Mac;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const XDP: &[&str] = &["--path", "xdp", "--no-offloads"];
const TC: &[&str] = &["--path", "tc"];
const TCP: u8 = 6;
const UDP: u8 = 17;
const EMSGSIZE: i32 = 90;
/// Longer than an answer takes on a busy machine; what is not answered takes as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the kernel says of the way to a server, as the daemon writes it.
fn way(resolver: &mut Resolver, server: IpAddr) -> NextHop {
    let begun = Instant::now();
    resolver.resolve_and_keep(server).unwrap();
    loop {
        let next = resolver.resolve(server).unwrap();
        if next.state == NextHopState::Resolved || begun.elapsed() > Duration::from_secs(3) {
            let state = if next.state == NextHopState::Resolved { hop::RESOLVED } else { hop::NO_NEIGHBOUR };
            return NextHop {
                state: S32::new(state),
                ifindex: next.ifindex,
                mtu: next.mtu,
                src: Mac::new(next.source_mac),
                dst: Mac::new(next.mac),
                flags: if next.neighbour.is_some_and(|ip| ip.is_ipv6()) { tunnel::PEER_V6 } else { 0 },
                source: next.source.map(words).unwrap_or_default(),
                peer: next.neighbour.map(words).unwrap_or_default(),
                ..NextHop::default()
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a daemon has that makes probes.
struct Prober {
    control: Control<KernelStore>,
    pins: Pins<KernelStore>,
    net: ProbeNet,
    model: Model,
    _kernel: Kernel,
    runtime: tokio::runtime::Runtime,
}

impl Prober {
    fn take_over(lab: &TestLab) -> Self {
        let model = dirigent_config::file::parse("dirigent.toml", &lab.config()).unwrap();
        lab.kill_daemon();
        let name = lab.name().to_owned();
        lab.namespace("director").run_mounted(|| Self::start(&name, model)).unwrap()
    }

    fn start(name: &str, model: Model) -> Self {
        let instance = Instance::new(name).unwrap();
        let entries = instance.open_table::<[u16; 8], [u64; 8]>(map::CONNS4).unwrap().max_entries();
        let sizes = [(map::CONNS4, entries), (map::CONNS6, entries)];
        let options = LoadOptions {
            instance: Some(&instance),
            layout: LAYOUT_VERSION,
            map_sizes: &sizes,
            features: Features::ALL,
        };
        let mut kernel = Kernel::load(&options).unwrap();
        let mut control = Control::open(KernelStore::new(&kernel).unwrap(), &model).unwrap();
        let mut resolver = Resolver::new().unwrap();
        let servers: HashSet<IpAddr> =
            model.services().iter().flat_map(|s| s.servers.iter().map(|server| server.address)).collect();
        for server in &servers {
            control.set_next_hop(*server, &way(&mut resolver, *server)).unwrap();
        }
        let net = ProbeNet::make(name, 1500).unwrap();
        let end = net.outside();
        let link = Link { mac: Mac::new(end.mac.unwrap()), used: 1, flags: link_flag::PROBE, ..Link::default() };
        control.store_mut().put_link(end.index, &link).unwrap();
        kernel.attach(&[(&end.name, Mode::Tc)], TcKind::Auto).unwrap();
        let targets: HashSet<Target> = model.services().iter().flat_map(|s| s.servers.iter()).map(target_of).collect();
        control.set_targets(&targets).unwrap();
        let direct = |to: &&Target| to.method != Method::Nat;
        let of_host = targets.iter().filter(direct).filter_map(|to| control.source_towards(to.address)).collect();
        net.set_sources(&Sources { of_host, ..Sources::usual() }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pins = Pins::new(KernelStore::new(&kernel).unwrap());
        Self { control, pins, net, model, _kernel: kernel, runtime }
    }

    /// Server `k` of the service of this protocol and family.
    fn target(&self, protocol: u8, v6: bool, k: usize) -> (SocketAddr, Target) {
        let of = |s: &&dirigent_config::Service| {
            s.key.protocol().is_some_and(|p| p.number() == protocol) && s.key.is_ipv6() == v6
        };
        let service = self.model.services().iter().find(of).unwrap();
        let vip = SocketAddr::new(service.key.address().unwrap(), service.key.port());
        (vip, target_of(&service.servers[k - 1]))
    }

    /// Where a probe of this server comes from, with any port.
    fn source(&self, to: &Target, v6: bool) -> SocketAddr {
        let own: IpAddr = if v6 { SOURCE6.into() } else { SOURCE4.into() };
        let nat = to.method == Method::Nat;
        SocketAddr::new(if nat { own } else { self.control.source_towards(to.address).unwrap() }, 0)
    }

    fn pin(&mut self, protocol: u8, from: SocketAddr, vip: SocketAddr, to: &Target) -> Pinned {
        let aim = self.control.aim(to).unwrap();
        self.pins.pin(&Flow::of_probe(protocol, from, vip), &aim, self.net.outside().index).unwrap()
    }

    /// The page that server `k` gives, asked for by the virtual address.
    fn page(&mut self, v6: bool, k: usize) -> io::Result<String> {
        let (vip, to) = self.target(TCP, v6, k);
        let socket = TcpStream::from(self.net.tcp(self.source(&to, v6)).unwrap());
        let pinned = self.pin(TCP, socket.local_addr().unwrap(), vip, &to);
        let ask = async {
            let mut stream = TcpSocket::from_std_stream(socket).connect(vip).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut page = String::new();
            stream.read_to_string(&mut page).await?;
            Ok(page.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned())
        };
        let page = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, ask).await });
        self.pins.unpin(&pinned).unwrap();
        page.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What server `k` echoes.
    fn echo(&mut self, v6: bool, k: usize, said: &[u8]) -> io::Result<Vec<u8>> {
        let (vip, to) = self.target(UDP, v6, k);
        let socket = UdpSocket::from(self.net.udp(self.source(&to, v6)).unwrap());
        let pinned = self.pin(UDP, socket.local_addr().unwrap(), vip, &to);
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = vec![0; 65536];
        socket.connect(vip).unwrap();
        let mut ask = || socket.send(said).and_then(|_| socket.recv(&mut buffer));
        // The first tells it what the way carries.
        let got = match ask() {
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) => ask(),
            first => first,
        };
        self.pins.unpin(&pinned).unwrap();
        got.map(|n| buffer[..n].to_vec())
    }

    /// All servers answer, each as itself, whatever the schedulers would say.
    fn all_answer(&mut self) {
        for v6 in [false, true] {
            for k in [2, 1, 3, 2] {
                assert_eq!(self.page(v6, k).unwrap(), format!("server{k}"), "IPv6 {v6}");
            }
            for size in [10, 4000] {
                let said = vec![7; size];
                assert_eq!(self.echo(v6, 2, &said).unwrap(), said, "IPv6 {v6}");
            }
        }
    }

    /// Server 2 does not, and the others do. Its host says that it takes nothing out of tunnels, if `told`.
    fn only_the_second_is_dead(&mut self, told: bool) {
        for v6 in [false, true] {
            let error = self.page(v6, 2).unwrap_err();
            let timed_out = error.kind() == io::ErrorKind::TimedOut;
            // By IPv6 it says so of some tunnels.
            assert!(timed_out != told || told && v6, "IPv6 {v6}: {error:?}");
            for k in [1, 3] {
                assert_eq!(self.page(v6, k).unwrap(), format!("server{k}"), "IPv6 {v6}");
            }
        }
    }
}

fn target_of(server: &dirigent_config::Server) -> Target {
    Target { address: server.address, port: server.port, method: server.method }
}

/// Clients are served meanwhile.
fn clients_are_served(lab: &TestLab) {
    for (_, _, host) in VIPS {
        assert!(lab.curl(&format!("http://{host}/")).starts_with("server"));
    }
}

/// Server 2 refuses, which a probe hears at once: of TCP by a reset, of UDP by an ICMP error.
fn refusals_come_back(lab: &TestLab, prober: &mut Prober) {
    let rules = "meta l4proto tcp reject with tcp reset; udp dport 7 reject;";
    lab.sh(
        "server2",
        &format!("nft 'table inet refuses {{ chain i {{ type filter hook input priority 0; {rules} }}; }}'"),
    );
    for v6 in [false, true] {
        assert_eq!(prober.page(v6, 2).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "IPv6 {v6}");
        assert_eq!(prober.echo(v6, 2, b"x").unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "IPv6 {v6}");
    }
    lab.sh("server2", "nft delete table inet refuses");
}

fn nat(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3"], path].concat());
    let mut prober = Prober::take_over(&lab);
    prober.all_answer();
    let before = lab.json(&["stats", "--json"])["total"].clone();
    prober.all_answer();
    assert_eq!(lab.json(&["stats", "--json"])["total"], before, "probes are nobody's traffic");
    clients_are_served(&lab);
    assert_ne!(lab.json(&["stats", "--json"])["total"], before);
    refusals_come_back(&lab, &mut prober);
    // Answers that go around the director reach no client, whatever its address.
    lab.sh("server2", "ip route replace default via 10.0.0.254; ip -6 route replace default via fd00::254");
    prober.only_the_second_is_dead(false);
    lab.sh("server2", "ip route replace default via 10.0.0.1; ip -6 route replace default via fd00::1");
    prober.all_answer();
    assert!(prober.pins.is_empty().unwrap());
    unannounced_packets_go_nowhere(&lab, &mut prober);
    nothing_is_left(&lab, prober);
}

/// Not to the host, which holds the virtual address and would answer, nor anywhere else.
fn unannounced_packets_go_nowhere(lab: &TestLab, prober: &mut Prober) {
    let before = lab.count("unpinned");
    for to in [VIPS[0].1, "10.0.0.1", "10.0.0.3", "198.51.100.7"] {
        let from = SocketAddr::new(SOURCE4.into(), 0);
        let socket = TcpStream::from(prober.net.tcp(from).unwrap());
        let connect =
            async { TcpSocket::from_std_stream(socket).connect(SocketAddr::new(to.parse().unwrap(), 80)).await };
        let outcome =
            prober.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(300), connect).await });
        assert!(outcome.is_err(), "{to}: {outcome:?}");
    }
    assert!(lab.count("unpinned") >= before + 4);
}

/// The namespace goes with its owner, and the link with it.
fn nothing_is_left(lab: &TestLab, prober: Prober) {
    let outside = probe::outside(lab.name());
    assert!(lab.sh("director", "ip -o link").contains(&outside));
    drop(prober);
    let begun = Instant::now();
    while lab.sh("director", "ip -o link").contains(&outside) {
        assert!(begun.elapsed() < Duration::from_secs(5), "the probes' link stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(lab.sh("director", "ip route show 198.18.0.1"), "");
    clients_are_served(lab);
}

#[test]
fn nat_servers_are_probed_on_tc() {
    nat(TC);
}

#[test]
fn nat_servers_are_probed_on_xdp() {
    nat(XDP);
}

fn direct_routing(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3", "--mode", "dr"], path].concat());
    let mut prober = Prober::take_over(&lab);
    prober.all_answer();
    clients_are_served(&lab);
    refusals_come_back(&lab, &mut prober);
    // Without the virtual address the server takes no client's packet.
    lab.sh("server2", "ip addr del 192.0.2.10/32 dev lo; ip addr del 2001:db8::10/128 dev lo");
    prober.only_the_second_is_dead(false);
    lab.sh("server2", "ip addr add 192.0.2.10/32 dev lo; ip addr add 2001:db8::10/128 dev lo nodad");
    prober.all_answer();
}

#[test]
fn servers_of_direct_routing_are_probed_on_tc() {
    direct_routing(TC);
}

#[test]
fn servers_of_direct_routing_are_probed_on_xdp() {
    direct_routing(XDP);
}

fn tunnel(path: &[&str], kind: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3", "--mode", "tun"], kind, path].concat());
    let mut prober = Prober::take_over(&lab);
    prober.all_answer();
    clients_are_served(&lab);
    refusals_come_back(&lab, &mut prober);
    // The virtual address is there, but nobody takes packets out of the tunnel.
    let state = lab.file("server2-realserver.json");
    lab.sh("server2", &format!("{} realserver undo --yes --state {}", common::BIN, state.display()));
    lab.sh("server2", "ip addr add 192.0.2.10/32 dev lo; ip addr add 2001:db8::10/128 dev lo nodad");
    prober.only_the_second_is_dead(true);
}

#[test]
fn servers_behind_tunnels_are_probed_on_tc() {
    tunnel(TC, &[]);
}

#[test]
fn servers_behind_tunnels_are_probed_on_xdp() {
    tunnel(XDP, &[]);
}

#[test]
fn servers_behind_gue_are_probed_on_tc() {
    tunnel(TC, &["--tunnel", "gue"]);
}
