//! Loading, attaching, taking over and detaching, on this machine's kernel. Needs root.
//!
//! Each test runs in a network namespace without a name, on a thread of its own: it goes
//! away with the thread, also when the test is killed. Pins are named after the process,
//! and those of processes that are gone are removed by the next run.

mod budgets;
mod support;

use std::{
    net::UdpSocket,
    path::Path,
    process::{Child, Command},
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

use dirigent_datapath::kernel::{
    Attached, Direction, Error, Facts, Features, Hook, Instance, Kernel, LOOPBACK, LoadOptions, Mode, PathKind,
    STACK_LIMIT, Shape, SkbContext, TcKind, attached, detach_all, pin_pass,
    select::{FEATURE_BASIC, FEATURE_REDIRECT, FEATURE_TRANSMIT},
    verify,
};
use dirigent_datapath::names;

use budgets::Budgets;

const LAYOUT: u32 = 1;
const XDP_PASS: u32 = 2;
const BPF: &str = "/sys/fs/bpf/dirigent";

/// Runs a test in a fresh namespace, which has only a loopback device, set up.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    clean_up_after_the_dead();
    support::in_namespace(|| {
        sh("ip link set lo up");
        test();
    });
}

fn clean_up_after_the_dead() {
    for entry in std::fs::read_dir(BPF).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("unit-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Another test of this run may be at it too.
            let _ = detach_all(&Instance::new(&name).unwrap());
        }
    }
}

/// Runs a command in the calling thread's namespace; returns what it printed.
fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {text}");
    text
}

/// A process that ends with the test.
struct Background(Child);

impl Background {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Self(Command::new(program).args(arguments).spawn().unwrap());
        // Both that are used here are ready at once, but for their start.
        std::thread::sleep(Duration::from_millis(300));
        child
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn veth() -> u32 {
    sh("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up");
    sh("cat /proc/net/dev >/dev/null; ip -o link show v0").split(':').next().unwrap().trim().parse().unwrap()
}

/// An instance of this test, gone at its end.
struct Pinned(Instance);

impl Pinned {
    fn new(test: &str) -> Self {
        Self(Instance::new(&format!("unit-{}-{test}", std::process::id())).unwrap())
    }

    fn load(&self) -> Kernel {
        self.load_as(LAYOUT, &[]).unwrap_or_else(|e| panic!("{e}"))
    }

    fn load_as(&self, layout: u32, map_sizes: &[(&str, u32)]) -> Result<Kernel, Error> {
        self.load_for(Features::NONE, layout, map_sizes)
    }

    fn load_for(&self, features: Features, layout: u32, map_sizes: &[(&str, u32)]) -> Result<Kernel, Error> {
        let mut sizes = vec![("CONNS4", 1024), ("CONNS6", 1024)];
        sizes.extend_from_slice(map_sizes);
        Kernel::load(&LoadOptions { instance: Some(&self.0), layout, map_sizes: &sizes, features })
    }

    fn attached(&self) -> Vec<Attached> {
        attached(&self.0).unwrap()
    }

    fn hooks(&self) -> Vec<Hook> {
        self.attached().iter().map(|one| one.hook).collect()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(e) = detach_all(&self.0) {
            eprintln!("{e}");
        }
    }
}

fn unpinned() -> Kernel {
    let sizes = [("CONNS4", 1024), ("CONNS6", 1024)];
    // Display, not Debug: the verifier's log has many lines.
    Kernel::load(&LoadOptions { instance: None, layout: LAYOUT, map_sizes: &sizes, features: Features::NONE })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// How tc is attached if it is left to the kernel's version.
fn tc_hooks() -> [Hook; 1] {
    let [ingress, _] = both_tc_hooks();
    [ingress]
}

/// The same where a real server is this host.
fn both_tc_hooks() -> [Hook; 2] {
    if has_tcx() { [Hook::TcxIngress, Hook::TcxEgress] } else { [Hook::ClassicIngress, Hook::ClassicEgress] }
}

fn has_tcx() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 6)
}

/// A frame that is not the director's business.
fn foreign_frame() -> Vec<u8> {
    let mut frame = vec![0xffu8; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(60, 0x5a);
    frame
}

/// The file of budgets; a guest that runs this test has only what was built in.
const BUDGETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/budgets.txt");

/// With `DIRIGENT_BUDGETS` (`make budgets`) the budgets are saved anew, for the reason that it says.
#[test]
fn the_verifier_takes_every_program_with_room_to_spare() {
    in_namespace(|| {
        let column = budgets::column(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap());
        let mut now = Budgets::default();
        let mut refused = 0;
        for one in verify().unwrap() {
            match one.result {
                Ok(count) => {
                    let (count, Shape { instructions, stack }) = (count.unwrap(), one.shape);
                    println!(
                        "{:32} {instructions:5} instructions, {stack:3} bytes of stack of {STACK_LIMIT}; \
                         {count:7} instructions verified, of 1,000,000",
                        one.program
                    );
                    // Or kernel 6.1 refuses it, whatever this one does.
                    refused += usize::from(count >= 500_000 || stack > STACK_LIMIT);
                    let numbers = [("instructions", instructions), ("stack", stack), (&*column, count)];
                    let numbers = numbers.map(|(column, number)| (column.to_owned(), number));
                    now.programs.insert(one.program.replace(": ", ":").replace(' ', "-"), numbers.into());
                }
                Err(error) => {
                    refused += 1;
                    let text = error.to_string();
                    // The reason is near the end, before the statistics.
                    let lines: Vec<_> = text.lines().collect();
                    println!("{:32} REFUSED: {}", one.program, lines[0].chars().take(300).collect::<String>());
                    lines[lines.len().saturating_sub(12).max(1)..].iter().for_each(|line| println!("        {line}"));
                    if let Some(directory) = std::env::var_os("DIRIGENT_VERIFIER_LOGS") {
                        std::fs::write(Path::new(&directory).join(&one.program), text).unwrap();
                    }
                }
            }
        }
        assert_eq!(refused, 0, "programs refused, or near the kernel's limits");
        let saved = Budgets::read(include_str!("../../../bpf/budgets.txt")).unwrap();
        if let Ok(reason) = std::env::var("DIRIGENT_BUDGETS") {
            assert!(!reason.trim().is_empty(), "budgets are saved for a reason");
            for line in saved.exceeded(&now) {
                println!("anew: {line}");
            }
            std::fs::write(BUDGETS, saved.saved_anew(&now, &reason).text()).unwrap();
            return;
        }
        if !saved.programs.values().any(|numbers| numbers.contains_key(&column)) {
            println!("SKIPPED: {column}: bpf/budgets.txt has nothing of this kernel's verifier");
        }
        let wrong = saved.exceeded(&now);
        assert!(
            wrong.is_empty(),
            "over the budgets of bpf/budgets.txt by more than 5 %; `make budgets REASON=\"...\"` saves them anew:\n{}",
            wrong.join("\n")
        );
    });
}

#[test]
fn programs_run_on_frames() {
    in_namespace(|| {
        let ifindex = veth();
        let kernel = unpinned();
        let frame = foreign_frame();
        let ran = kernel.run_xdp(ifindex, &frame).unwrap();
        assert_eq!((ran.action, &ran.frame), (XDP_PASS, &frame));
        for direction in [Direction::Ingress, Direction::Egress] {
            let context =
                SkbContext { ifindex, ingress_ifindex: ifindex, mark: 7, cb: [1, 2, 3, 4, 5], ..SkbContext::default() };
            let ran = kernel.run_tc(direction, &context, &frame).unwrap();
            assert_eq!(ran.frame, frame);
            assert_eq!((ran.context.mark, ran.context.ifindex), (7, ifindex));
        }
        kernel.run_expire(0).unwrap();
    });
}

#[test]
fn stages_are_loaded_when_something_needs_them() {
    in_namespace(|| {
        veth();
        let pinned = Pinned::new("stages");
        // Of both families, by the order of `names::STAGES`.
        let linked = |map: &str| {
            let programs = pinned.0.open_table::<u32, u32>(map).unwrap();
            let has = |stage: &u32| {
                let [v4, v6] = [0, 1].map(|family| programs.get(&(stage * 2 + family)).unwrap().is_some());
                assert_eq!(v4, v6, "stage {stage} of {map}");
                v4
            };
            (0..u32::try_from(names::STAGES.len()).unwrap())
                .filter(has)
                .map(|stage| names::STAGES[stage as usize])
                .collect::<Vec<_>>()
        };
        let without = |left_out: &[&str]| {
            let all = names::STAGES.iter().copied();
            all.filter(|stage| !left_out.contains(stage)).collect::<Vec<_>>()
        };
        let optional = [
            "one_packet",
            "icmp_open",
            "tunnel_error",
            "encapsulate",
            "sctp",
            "persist",
            "assign",
            "ftp",
            "claim",
            "tell",
        ];

        let mut kernel = pinned.load_for(Features::NONE, LAYOUT, &[]).unwrap();
        assert_eq!(linked("INGRESS_STAGES"), without(&optional));
        assert_eq!((linked("EGRESS_STAGES"), linked("XDP_STAGES")), (vec!["icmp"], vec![]));
        kernel.need(Features::SCTP | Features::FTP).unwrap();
        assert_eq!(linked("EGRESS_STAGES"), ["icmp", "sctp"]);
        let left = ["one_packet", "icmp_open", "tunnel_error", "encapsulate", "persist", "assign", "tell"];
        assert_eq!(linked("INGRESS_STAGES"), without(&left));
        assert_eq!(linked("XDP_STAGES"), [""; 0]);
        kernel.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        assert!(["sctp", "ftp", "claim"].iter().all(|stage| linked("XDP_STAGES").contains(stage)));
        assert!(left.iter().all(|stage| !linked("XDP_STAGES").contains(stage)));

        // What an earlier daemon's connections needed, those of the next need too.
        drop(kernel);
        let mut kernel = pinned.load_for(Features::TUNNELS, LAYOUT, &[]).unwrap();
        assert!(kernel.took_over());
        assert_eq!(linked("INGRESS_STAGES"), without(&["one_packet", "icmp_open", "persist", "assign", "tell"]));
        kernel.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        kernel.need(Features::ALL).unwrap();
        assert_eq!(linked("INGRESS_STAGES"), names::STAGES);
        assert_eq!(linked("XDP_STAGES").len(), names::STAGES.len() - 4);
    });
}

#[test]
fn a_program_without_pins_is_not_attached() {
    in_namespace(|| {
        veth();
        let error = unpinned().attach(&[("v0", Mode::Tc)], TcKind::Auto).unwrap_err();
        assert!(matches!(error, Error::NotPinned), "{error}");
    });
}

#[test]
fn tables_hold_records() {
    in_namespace(|| {
        let kernel = unpinned();
        assert!(kernel.verified_instructions("dirigent_xdp").unwrap().unwrap() > 0);
        let table = kernel.table::<[u8; 8], u32>("SERVICES4").unwrap();
        assert_eq!(table.get(&[1; 8]).unwrap(), None);
        assert!(table.insert_new([1; 8], 11).unwrap());
        assert!(!table.insert_new([1; 8], 12).unwrap());
        assert_eq!(table.get(&[1; 8]).unwrap(), Some(11));
        table.insert_all((0..3000u32).map(|i| ([i.to_ne_bytes(), [9; 4]].concat().try_into().unwrap(), i))).unwrap();
        let mut walk = table.walk(64);
        let mut seen = Vec::new();
        while walk.next_chunk(|_, value| seen.push(value)).unwrap() {}
        seen.sort_unstable();
        assert_eq!(seen.len(), 3001);
        assert_eq!(table.entries().unwrap().len(), 3001);
        assert!(table.remove(&[1; 8]).unwrap());
        assert!(!table.remove(&[1; 8]).unwrap());

        let shared = kernel.mapped::<AtomicU32>("SLOTS").unwrap();
        let slots = kernel.table::<u32, u32>("SLOTS").unwrap();
        slots.insert(5, 55).unwrap();
        // Elements of an array are 8 bytes apart, whatever their size.
        assert_eq!(shared.get(5).unwrap().load(Ordering::Relaxed), 55);
        shared.get(6).unwrap().store(66, Ordering::Relaxed);
        assert_eq!(slots.get(&6).unwrap(), Some(66));
        assert!(shared.get(u32::try_from(shared.len()).unwrap()).is_none());

        let reasons = kernel.per_cpu_table::<u32, u64>("REASONS").unwrap();
        reasons.set_all(3, 30).unwrap();
        assert!(reasons.get(&3).unwrap().unwrap().iter().all(|count| *count == 30));
        assert_eq!(reasons.keys().unwrap().len(), reasons.max_entries() as usize);

        // Wrong types are an error, not garbage.
        assert!(kernel.table::<u32, u32>("SERVICES4").is_err());
        assert!(kernel.table::<u32, u64>("REASONS").is_err());
        assert!(kernel.table::<u32, u64>("NO_SUCH_MAP").is_err());
    });
}

/// Mark rules, local prefixes and services by mark in the kernel's maps, and read back.
#[test]
fn marks_and_prefixes_are_in_the_maps() {
    use dirigent_config::{Command, Model};
    use dirigent_datapath::control::{Control, KernelStore, Store as _};
    use dirigent_datapath::memory::LocalNet;
    in_namespace(|| {
        let kernel = unpinned();
        let mut model =
            dirigent_config::file::parse("f", "version = 1\n[[mark]]\nsource = \"10.0.0.0/8\"\nset = 7\n").unwrap();
        for line in ["-A -f 7 -p", "-a -f 7 -r 10.0.0.1:0 -g", "-A -f 70000 -6"] {
            Command::parse(line).unwrap().unwrap().apply(&mut model).unwrap();
        }
        let nets: std::collections::BTreeSet<_> =
            [("0.0.0.0", 0, true), ("198.51.100.0", 24, false), ("2001:db8::", 32, false)]
                .map(|(address, length, marked)| LocalNet { address: address.parse().unwrap(), length, marked })
                .into();
        let mut control = Control::open(KernelStore::new(&kernel).unwrap(), &model).unwrap();
        control.set_local_nets(&nets).unwrap();
        let read = |control: &Control<KernelStore>| {
            let store = control.store();
            let word = store.settings().unwrap().mark_rules;
            let rules = store.mark_rules(word >> 16, word & 0xffff).unwrap();
            assert_eq!((rules.len(), rules[0].value, rules[0].dports), (1, 7, [0, 65535]));
            let mut found = store.local_nets().unwrap();
            found.sort_unstable();
            assert_eq!(found, nets.iter().copied().collect::<Vec<_>>());
            let mut marks: Vec<_> = store
                .places()
                .unwrap()
                .into_iter()
                .map(|(spot, index)| (spot.mark, store.service(index).unwrap().mark))
                .collect();
            marks.sort_unstable();
            assert_eq!(marks, [(true, 7), (true, 70000)]);
        };
        read(&control);
        let mut control = Control::open(KernelStore::new(&kernel).unwrap(), &model).unwrap();
        read(&control);
        control.set_local_nets(&Default::default()).unwrap();
        control.change_to(&Model::default()).unwrap();
        assert!(control.store().local_nets().unwrap().is_empty());
        assert_eq!(control.store().settings().unwrap().mark_rules & 0xffff, 0);
    });
}

/// A SYN from 198.51.100.7 to this port of 198.18.0.1, or the same in IPv6.
fn syn(v6: bool, port: u8) -> Vec<u8> {
    support::segment(v6, [0x1000, 0x1f00 | u16::from(port)], 2)
}

/// A place that is in the tables, but whose address nobody noted, shows that the sieve stands before them, in its map too.
#[test]
fn packets_of_nobodys_addresses_pass_the_sieve_of_the_kernel() {
    use dirigent_datapath::control::{Control, KernelStore, Spot, Store as _};
    use dirigent_director::Reason;
    use dirigent_director::records::Link;
    use dirigent_director::sieve::{SLOTS, VIRTUAL};
    use dirigent_wire::Mac;
    const OTHERS: [&str; 2] = ["198.18.0.1", "2001:db8:1::1"];
    in_namespace(|| {
        let link = veth();
        let kernel = unpinned();
        let sieve = || {
            let bits = kernel.table::<u32, [u8; SLOTS]>("SIEVE").unwrap().get(&0).unwrap().unwrap();
            bits.into_iter().filter(|bits| *bits != 0).collect::<Vec<_>>()
        };
        assert!(sieve().is_empty(), "nothing is noted");
        let service = "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.1:7936\"\n";
        let model = dirigent_config::file::parse("f", service).unwrap();
        let mut store = Control::open(KernelStore::new(&kernel).unwrap(), &model).unwrap().into_store();
        assert_eq!(sieve(), [VIRTUAL]);
        store.put_link(link, &Link { mac: Mac::new([2, 0, 0, 0, 0, 1]), used: 1, ..Link::default() }).unwrap();
        let (_, index) = store.places().unwrap()[0];
        let context = SkbContext { ifindex: link, ingress_ifindex: link, ..SkbContext::default() };
        for (v6, address) in [(false, OTHERS[0]), (true, OTHERS[1])] {
            let address: std::net::IpAddr = address.parse().unwrap();
            store.set_place(&Spot { address, port: 7936, protocol: 6, mark: false }, Some(index)).unwrap();
            let frame = syn(v6, 0);
            let went = |store: &KernelStore, reason: Reason| {
                let count = || store.reasons().unwrap()[reason as usize];
                let before = count();
                kernel.run_xdp(link, &frame).unwrap();
                kernel.run_tc(Direction::Ingress, &context, &frame).unwrap();
                count() - before
            };
            assert_eq!(went(&store, Reason::NoService), 2, "{address}");
            store.add_to_sieve(address, VIRTUAL).unwrap();
            // The service has no server.
            assert_eq!(went(&store, Reason::NoService), 0, "{address}");
        }
        store.open_sieve().unwrap();
        assert_eq!(sieve(), [u8::MAX; SLOTS]);
    });
}

/// Packets that netfilter has marked, by the link that marks lead to and by another: tc and memory say the same, and
/// tc leaves a mark where it has not led here.
#[test]
fn marked_packets_fare_the_same_on_tc_and_in_memory() {
    use dirigent_datapath::control::{Control, KernelStore, Store};
    use dirigent_datapath::memory::{Capacity, Incoming, MemoryTables, run_slow, run_tc};
    use dirigent_director::records::{Link, NextHop, hop, link_flag};
    use dirigent_director::{Action, Reason, shared::S32};
    use dirigent_wire::Mac;
    const SERVICES: &str = r#"
version = 1
director = { mark_device = "m" }
[[service]]
fwmark = 7
server = [{ address = "10.0.0.2" }]
[[service]]
fwmark = 7
family = 6
server = [{ address = "fd00::2" }]
"#;
    fn set_up<S: Store>(store: S, marked: u32, other: u32) -> Control<S> {
        let model = dirigent_config::file::parse("f", SERVICES).unwrap();
        let mut control = Control::open(store, &model).unwrap();
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let way = NextHop {
            state: S32::new(hop::RESOLVED),
            ifindex: other,
            mtu: 1500,
            src: mac,
            dst: Mac::new([2, 0, 0, 0, 0, 3]),
            ..NextHop::default()
        };
        for server in ["10.0.0.2", "fd00::2"] {
            control.set_next_hop(server.parse().unwrap(), &way).unwrap();
        }
        for (ifindex, flags) in [(marked, link_flag::MARKED), (other, 0)] {
            control.store_mut().put_link(ifindex, &Link { mac, used: 1, flags, ..Link::default() }).unwrap();
        }
        control
    }
    /// The reason that was counted since, of which there is one.
    fn reason<S: Store>(control: &Control<S>, before: &[u64]) -> Reason {
        let counts = control.store().reasons().unwrap();
        let mut rose = Reason::ALL.iter().filter(|reason| counts[**reason as usize] != before[**reason as usize]);
        let found = *rose.next().unwrap();
        assert_eq!(rose.next(), None);
        found
    }
    in_namespace(|| {
        let marked = veth();
        let other: u32 = sh("ip -o link show v1").split(':').next().unwrap().trim().parse().unwrap();
        let kernel = unpinned();
        let in_kernel = set_up(KernelStore::new(&kernel).unwrap(), marked, other);
        let [mut in_memory, mut all_slow] =
            [(); 2].map(|()| set_up(MemoryTables::new(&Capacity::default()), marked, other));
        let mut port = 0;
        for v6 in [false, true] {
            for (ifindex, mark, wanted, left) in [
                (marked, 7, Reason::Request, 0),
                (marked, 0, Reason::NoService, 0),
                (marked, 8, Reason::NoService, 0),
                (other, 7, Reason::NoService, 7),
                (marked, 7, Reason::Request, 0),
            ] {
                port += 1;
                let frame = syn(v6, port);
                let before = in_kernel.store().reasons().unwrap();
                let context = SkbContext { ifindex, ingress_ifindex: ifindex, mark, ..SkbContext::default() };
                let ran = kernel.run_tc(Direction::Ingress, &context, &frame).unwrap();
                let what = format!("IPv6 {v6}, interface {ifindex}, mark {mark}");
                assert_eq!((reason(&in_kernel, &before), ran.context.mark), (wanted, left), "{what}");
                let packet = Incoming { frame: &frame, ingress: ifindex, mark, ..Incoming::default() };
                let outcome = run_tc(in_memory.store_mut(), &packet);
                assert_eq!((outcome.verdict.reason, outcome.mark), (wanted, left), "{what}");
                assert_eq!(run_slow(all_slow.store_mut(), &packet), outcome, "{what}");
                assert_eq!(ran.frame, outcome.frame, "{what}");
                let action = if wanted == Reason::Request { (7, Action::Transmit) } else { (u32::MAX, Action::Pass) };
                assert_eq!((ran.action, outcome.verdict.action), action, "{what}");
            }
        }
    });
}

/// Who may open connections: the longest prefix says so, on tc as in memory, of services by
/// address and by mark, with and without persistence, and after changes and a new daemon.
#[test]
fn clients_are_judged_the_same_on_tc_and_in_memory() {
    use dirigent_config::Model;
    use dirigent_datapath::control::{Control, KernelStore, Store, features};
    use dirigent_datapath::memory::{Capacity, Incoming, MemoryTables, run_slow, run_tc};
    use dirigent_director::records::{Link, NextHop, hop};
    use dirigent_director::{Reason, shared::S32};
    use dirigent_wire::Mac;
    /// A service of 0x1fxx of each family, the one by its address, the other by a mark.
    fn model(four: &str, six: &str, persistent: bool) -> Model {
        let port = 0x1f00;
        let table = if persistent { "persistence = {}" } else { "" };
        let text = format!(
            "version = 1\n[[mark]]\nfamily = 6\nset = 7\n\
             [[service]]\nprotocol = \"tcp\"\naddress = \"198.18.0.1:{port}\"\n{four}\n{table}\n\
             server = [{{ address = \"10.0.0.2:{port}\" }}]\n\
             [[service]]\nfwmark = 7\nfamily = 6\n{six}\n{table}\nserver = [{{ address = \"fd00::2\" }}]\n"
        );
        dirigent_config::file::parse("f", &text).unwrap()
    }
    fn lead<S: Store>(control: &mut Control<S>, link: u32) {
        let (src, dst) = (Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 3]));
        let way = NextHop { state: S32::new(hop::RESOLVED), ifindex: link, mtu: 1500, src, dst, ..NextHop::default() };
        for server in ["10.0.0.2", "fd00::2"] {
            control.set_next_hop(server.parse().unwrap(), &way).unwrap();
        }
    }
    fn set_up<S: Store>(store: S, link: u32) -> Control<S> {
        let mut control = Control::open(store, &model("", "", false)).unwrap();
        lead(&mut control, link);
        let store = control.store_mut();
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        store.put_link(link, &Link { mac, used: 1, ..Link::default() }).unwrap();
        for vip in ["198.18.0.1", "2001:db8:1::1"] {
            store.set_local(vip.parse().unwrap(), true).unwrap();
        }
        control
    }
    in_namespace(|| {
        let link = veth();
        let mut kernel = unpinned();
        let mut in_kernel = set_up(KernelStore::new(&kernel).unwrap(), link);
        let mut memories = [(); 2].map(|()| set_up(MemoryTables::new(&Capacity::default()), link));
        // The client is 198.51.100.7 or 2001:db8:7::7.
        let mut source = 0;
        for (four, six, may) in [
            ("", "", true),
            ("deny = [\"198.51.100.0/24\"]", "deny = [\"2001:db8:7::/48\"]", false),
            ("deny = [\"203.0.113.0/24\"]", "deny = [\"2001:db8:9::/48\"]", true),
            ("allow = [\"203.0.113.0/24\"]", "allow = [\"2001:db8:9::/48\"]", false),
            ("allow = [\"198.51.100.7\"]", "allow = [\"2001:db8:7::7\"]", true),
            (
                "allow = [\"198.51.0.0/16\"]\ndeny = [\"198.51.100.0/29\"]",
                "allow = [\"2001:db8::/32\"]\ndeny = [\"2001:db8:7::/64\"]",
                false,
            ),
            (
                "deny = [\"198.51.0.0/16\"]\nallow = [\"198.51.100.0/29\"]",
                "deny = [\"2001:db8::/32\"]\nallow = [\"2001:db8:7::/64\"]",
                true,
            ),
            ("deny = [\"0.0.0.0/0\"]", "deny = [\"::/0\"]", false),
            ("allow = [\"0.0.0.0/0\"]", "allow = [\"::/0\"]", true),
            ("", "", true),
        ] {
            for persistent in [false, true] {
                let new = model(four, six, persistent);
                kernel.need(features(&new)).unwrap();
                in_kernel.change_to(&new).unwrap();
                memories.iter_mut().for_each(|control| control.change_to(&new).unwrap());
                let mut kept = in_kernel.store().sources().unwrap();
                kept.sort_unstable();
                for control in &memories {
                    let mut same = control.store().sources().unwrap();
                    same.sort_unstable();
                    assert_eq!(kept, same, "{four}");
                }
                // A new daemon finds what is there.
                in_kernel = Control::open(KernelStore::new(&kernel).unwrap(), &new).unwrap();
                lead(&mut in_kernel, link);
                for v6 in [false, true] {
                    source += 1;
                    let mut frame = syn(v6, 0);
                    let port = if v6 { 54 } else { 34 };
                    frame[port + 1] = source;
                    let before = in_kernel.store().reasons().unwrap();
                    let context = SkbContext { ifindex: link, ingress_ifindex: link, ..SkbContext::default() };
                    let ran = kernel.run_tc(Direction::Ingress, &context, &frame).unwrap();
                    let after = in_kernel.store().reasons().unwrap();
                    let rose: Vec<_> =
                        Reason::ALL.iter().filter(|r| after[**r as usize] != before[**r as usize]).collect();
                    let wanted = if may { Reason::Request } else { Reason::Denied };
                    let what = format!("{four} {six} IPv6 {v6}, persistent {persistent}");
                    assert_eq!(rose, [&wanted], "{what}");
                    let packet = Incoming { frame: &frame, ingress: link, ..Incoming::default() };
                    let [in_memory, all_slow] = &mut memories;
                    let outcome = run_tc(in_memory.store_mut(), &packet);
                    assert_eq!(outcome.verdict.reason, wanted, "{what}");
                    assert_eq!(run_slow(all_slow.store_mut(), &packet), outcome, "{what}");
                    assert_eq!(ran.frame, outcome.frame, "{what}");
                }
            }
        }
        // Who is known goes on, denied or not; and nothing stays in the tables.
        let deny = model("deny = [\"0.0.0.0/0\"]", "deny = [\"::/0\"]", true);
        in_kernel.change_to(&deny).unwrap();
        for (v6, known) in [(false, source - 1), (true, source)] {
            let mut frame = syn(v6, 0);
            frame[if v6 { 55 } else { 35 }] = known;
            let before = in_kernel.store().reasons().unwrap();
            let context = SkbContext { ifindex: link, ingress_ifindex: link, ..SkbContext::default() };
            kernel.run_tc(Direction::Ingress, &context, &frame).unwrap();
            let after = in_kernel.store().reasons().unwrap();
            let request = Reason::Request as usize;
            assert_eq!(after[request], before[request] + 1, "IPv6 {v6}");
        }
        in_kernel.change_to(&Model::default()).unwrap();
        assert_eq!(in_kernel.store().sources().unwrap(), []);
    });
}

#[test]
fn auto_on_a_virtual_device_is_tc_and_says_why() {
    in_namespace(|| {
        let ifindex = veth();
        let pinned = Pinned::new("auto");
        let mut kernel = pinned.load();
        let done = kernel.attach(&[("v0", Mode::Auto)], TcKind::Auto).unwrap();
        // Half of what the verifier has to do is left until an interface has a use for it.
        let frame = foreign_frame();
        assert!(kernel.run_xdp(ifindex, &frame).is_err(), "XDP's programs are loaded");
        let [one] = done.as_slice() else { panic!("{done:?}") };
        assert_eq!((one.path, one.tcx, one.replaced), (PathKind::Tc, has_tcx(), false));
        assert!(one.reason.contains("virtual device (veth)"), "{}", one.reason);
        assert_eq!(pinned.hooks(), tc_hooks());
    });
}

#[test]
fn a_device_tells_what_it_can_do_with_xdp() {
    in_namespace(|| {
        veth();
        let facts = || Facts::gather("v0").unwrap();
        assert!(facts().strips_tags);
        sh("ethtool -K v0 rxvlan off");
        assert!(!facts().strips_tags);
        // Before 6.3 the kernel does not tell.
        let Some(before) = facts().features else { return };
        let pinned = Pinned::new("features");
        pinned.load().attach(&[("v1", Mode::Xdp)], TcKind::Auto).unwrap();
        let after = facts().features.unwrap();
        let can = FEATURE_BASIC | FEATURE_REDIRECT;
        assert_eq!([before & can, after & can], [can; 2]);
        assert_eq!(
            [before & FEATURE_TRANSMIT, after & FEATURE_TRANSMIT],
            [0, FEATURE_TRANSMIT],
            "its other end takes them"
        );
        assert_eq!(Facts::gather("lo").unwrap().features.map(|f| f & can), Some(0));
    });
}

/// As of a daemon that is stopped and goes on: the kernel gives a verification up when a signal comes.
#[test]
fn signals_do_not_end_a_load() {
    extern "C" fn nothing(_: libc::c_int) {}
    in_namespace(|| {
        let pinned = Pinned::new("signals");
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR2, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_millis(30));
                    // All threads: whichever verify.
                    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
                        let task: libc::pid_t = task.file_name().to_str().unwrap().parse().unwrap();
                        // SAFETY: a system call without memory of ours; a thread that has ended is an error.
                        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), task, libc::SIGUSR2) };
                    }
                }
            });
            drop(pinned.load());
        });
    });
}

#[test]
fn a_new_daemon_takes_over_maps_and_links_without_detaching_them() {
    in_namespace(|| {
        veth();
        let pinned = Pinned::new("takeover");
        let mut first = pinned.load();
        assert!(!first.took_over());
        first.see_answers(TcKind::Auto).unwrap();
        first.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        first.table::<[u8; 8], u32>("SERVICES4").unwrap().insert([7; 8], 77).unwrap();
        let before = pinned.attached();
        assert_eq!(pinned.hooks(), [&[Hook::Xdp][..], &both_tc_hooks()].concat());
        // The daemon dies: everything stays.
        drop(first);
        assert_eq!(pinned.attached(), before);
        assert!(sh("ip link show v0").contains("xdp"), "XDP is gone");

        let mut second = pinned.load_as(LAYOUT, &[("SERVICES4", 77)]).unwrap();
        assert!(second.took_over());
        assert!(second.notes().iter().any(|note| note.contains("SERVICES4")), "{:?}", second.notes());
        let done = second.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        assert!(done.iter().all(|one| one.replaced && one.path == PathKind::Xdp), "{done:?}");
        let after = pinned.attached();
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(old.link, new.link, "{:?} was detached", old.hook);
            // Of classic filters the pins do not tell.
            assert!(old.program.is_none() || old.program != new.program, "{:?} still runs the old program", old.hook);
        }
        assert_eq!(second.table::<[u8; 8], u32>("SERVICES4").unwrap().get(&[7; 8]).unwrap(), Some(77));
        // Commands that only look need no programs.
        assert_eq!(pinned.0.open_table::<[u8; 8], u32>("SERVICES4").unwrap().get(&[7; 8]).unwrap(), Some(77));

        let gone = detach_all(&pinned.0).unwrap();
        assert_eq!(gone, after);
        assert!(!pinned.0.directory().exists());
        assert!(!sh("ip link show v0").contains("xdp"));
        assert!(!pinned.load().took_over());
    });
}

#[test]
fn taking_over_again_and_again_loses_no_packet() {
    const TAKE_OVERS: usize = 10;
    in_namespace(|| {
        // The far end in a namespace of its own, held by a process that only waits.
        let holder = Background::start("unshare", &["--net", "sleep", "600"]);
        let far = holder.0.id();
        sh(&format!(
            "ip link add v0 type veth peer name v1 netns {far} && ip addr add 10.9.9.1/24 dev v0 && ip link set v0 up && \
             nsenter -t {far} -n ip addr add 10.9.9.2/24 dev v1 && nsenter -t {far} -n ip link set v1 up"
        ));
        let echo = sh("command -v socat >/dev/null && echo yes || echo no");
        assert_eq!(echo.trim(), "yes", "socat is missing: make test installs it");
        let _server =
            Background::start("nsenter", &["-t", &far.to_string(), "-n", "socat", "UDP4-LISTEN:7", "EXEC:cat"]);

        let pinned = Pinned::new("traffic");
        pinned.load().attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        let lost = std::thread::scope(|scope| {
            let socket = UdpSocket::bind("10.9.9.1:0").unwrap();
            socket.connect("10.9.9.2:7").unwrap();
            // Late is not lost: an emulated CPU that has a program to verify lets others wait.
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let (stop, sent) = (&stop, &sent);
            // The socket belongs to the namespace that it was made in, whichever thread uses it.
            let traffic = scope.spawn(move || {
                let mut lost = 0;
                while !stop.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
                    let mut answer = [0; 8];
                    socket.send(&number).unwrap();
                    if socket.recv(&mut answer).is_err() || answer != number {
                        lost += 1;
                    }
                }
                lost
            });
            for _ in 0..TAKE_OVERS {
                pinned.load().attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            traffic.join().unwrap()
        });
        let sent = sent.into_inner();
        println!("{sent} packets there and back during {TAKE_OVERS} take-overs, {lost} lost");
        assert!(sent > 100, "only {sent} packets went during the take-overs");
        assert_eq!(lost, 0);
    });
}

#[test]
fn modes_change_in_place() {
    in_namespace(|| {
        veth();
        let pinned = Pinned::new("modes");
        let mut kernel = pinned.load();
        for (mode, word) in
            [(Mode::Xdp, "xdp/"), (Mode::XdpGeneric, "xdpgeneric/"), (Mode::Xdp, "xdp/"), (Mode::Tc, "")]
        {
            kernel.attach(&[("v0", mode)], TcKind::Auto).unwrap();
            let shown = sh("ip -d link show v0");
            match word {
                "" => assert!(!shown.contains("prog/xdp"), "{shown}"),
                _ => assert!(
                    shown.contains(&format!("prog/{word}")) || shown.contains(&word.replace('/', " ")),
                    "{shown}"
                ),
            }
        }
        assert_eq!(pinned.hooks(), tc_hooks());
    });
}

#[test]
fn foreign_programs_are_left_alone() {
    in_namespace(|| {
        veth();
        let ours = Pinned::new("ours");
        let pin = format!("/sys/fs/bpf/dirigent-test-{}-pass", std::process::id());
        pin_pass(Path::new(&pin)).unwrap();
        sh(&format!("ip link set dev v0 xdpdrv pinned {pin}; rm {pin}"));
        let shown = || sh("ip -d link show dev v0");
        let before = shown();
        let id: u32 = before.split("prog/xdp id ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();

        let mut our_kernel = ours.load();
        let error = our_kernel.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::ForeignXdp { program, .. } if program == id), "{text}");
        assert!(text.contains(&id.to_string()) && text.contains("dirigent_pass") && text.contains("xdp off"), "{text}");
        assert_eq!(ours.hooks(), [], "a refused interface is left as it was");

        if has_tcx() {
            let done = our_kernel.attach(&[("v0", Mode::Auto)], TcKind::Auto).unwrap();
            assert!(
                done.iter().all(|one| one.path == PathKind::Tc && one.reason.contains(&id.to_string())),
                "{done:?}"
            );
        }
        assert_eq!(shown(), before);
    });
}

/// XDP tells tc what it has judged by a mark that all directors know: behind another's XDP a director would be deaf.
#[test]
fn two_directors_share_an_interface_by_tc_alone() {
    in_namespace(|| {
        veth();
        let (theirs, ours) = (Pinned::new("theirs"), Pinned::new("ours"));
        let (mut their_kernel, mut our_kernel) = (theirs.load(), ours.load());
        let refused = |error: Error, how: &str| {
            let text = error.to_string();
            assert!(matches!(error, Error::OtherDirector { how: found, .. } if found == how), "{text}");
            assert!(text.contains(theirs.0.name()) && text.contains("mode = \"tc\""), "{text}");
        };
        their_kernel.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        let before = theirs.attached();
        for mode in [Mode::Xdp, Mode::XdpGeneric, Mode::Auto, Mode::Tc] {
            refused(our_kernel.attach(&[("v0", mode)], TcKind::Auto).unwrap_err(), "XDP");
        }
        for kind in [TcKind::Auto, TcKind::Classic] {
            their_kernel.attach(&[("v0", Mode::Tc)], kind).unwrap();
            for mode in [Mode::Xdp, Mode::XdpGeneric] {
                refused(our_kernel.attach(&[("v0", mode)], TcKind::Auto).unwrap_err(), "tc");
            }
        }
        assert_eq!(ours.hooks(), [], "a refused interface is left as it was");
        // Classic filters have one place, which is theirs now.
        let error = our_kernel.attach(&[("v0", Mode::Tc)], TcKind::Classic).unwrap_err();
        assert!(matches!(error, Error::ForeignFilter { .. }), "{error}");
        their_kernel.attach(&[("v0", Mode::Xdp)], TcKind::Auto).unwrap();
        assert_eq!(theirs.attached().len(), before.len());
        their_kernel.attach(&[("v0", Mode::Tc)], TcKind::Auto).unwrap();
        if has_tcx() {
            let done = our_kernel.attach(&[("v0", Mode::Auto)], TcKind::Auto).unwrap();
            assert!(done.iter().all(|one| one.path == PathKind::Tc), "{done:?}");
            assert_eq!(theirs.hooks(), tc_hooks());
        }
    });
}

#[test]
fn classic_filters_serve_kernels_without_tcx() {
    in_namespace(|| {
        veth();
        let pinned = Pinned::new("classic");
        let filters = || sh("tc filter show dev v0 ingress; tc filter show dev v0 egress");
        for round in 0..3 {
            let mut kernel = pinned.load();
            let done = kernel.attach(&[("v0", Mode::Tc)], TcKind::Classic).unwrap();
            assert!(done.iter().all(|one| !one.tcx && one.replaced == (round > 0)), "{done:?}");
            if round == 0 {
                assert_eq!(pinned.hooks(), [Hook::ClassicIngress]);
                kernel.see_answers(TcKind::Classic).unwrap();
            }
            drop(kernel);
            let shown = filters();
            assert_eq!(shown.matches("dirigent_ingress direct-action").count(), 1, "{shown}");
            assert_eq!(shown.matches("dirigent_egress direct-action").count(), 1, "{shown}");
            assert_eq!(pinned.hooks(), [Hook::ClassicIngress, Hook::ClassicEgress]);
        }
        pinned.load().attach(&[("v0", Mode::Tc)], TcKind::Auto).unwrap();
        assert_eq!(filters().contains("dirigent"), !has_tcx(), "{}", filters());
        assert_eq!(pinned.hooks(), both_tc_hooks());
        pinned.load().attach(&[("v0", Mode::Tc)], TcKind::Classic).unwrap();
        assert_eq!(pinned.hooks(), [Hook::ClassicIngress, Hook::ClassicEgress]);
        detach_all(&pinned.0).unwrap();
        assert!(!filters().contains("dirigent"), "{}", filters());
    });
}

/// A program on egress costs all that is forwarded: it is there once a real server is this host.
#[test]
fn what_this_host_sends_is_seen_once_a_server_is_here() {
    in_namespace(|| {
        let ifindex = veth();
        let pinned = Pinned::new("answers");
        let egress = || {
            let all = pinned.attached().into_iter();
            all.filter(|one| both_tc_hooks()[1] == one.hook).map(|one| one.ifindex).collect::<Vec<_>>()
        };
        let mut kernel = pinned.load();
        kernel.attach(&[("v0", Mode::Tc), ("lo", Mode::Tc)], TcKind::Auto).unwrap();
        assert_eq!(egress(), [LOOPBACK], "clients on this host come by it");
        assert!(!kernel.sees_answers());
        for _ in 0..2 {
            kernel.see_answers(TcKind::Auto).unwrap();
            assert_eq!(egress(), [LOOPBACK, ifindex]);
        }
        assert!(kernel.sees_answers());
        kernel.attach(&[("v1", Mode::Xdp)], TcKind::Auto).unwrap();
        assert_eq!(egress().len(), 3, "an interface that comes later has it, too");
        drop(kernel);
        // Connections to a server on this host outlive its daemon.
        let done = pinned.load().attach(&[("v0", Mode::Tc)], TcKind::Auto).unwrap();
        assert!(done.iter().all(|one| one.replaced), "{done:?}");
        assert_eq!(egress().len(), 3);
    });
}

#[test]
fn an_interface_that_goes_and_comes_back_is_attached_anew() {
    in_namespace(|| {
        for kind in [TcKind::Auto, TcKind::Classic] {
            let ifindex = veth();
            let pinned = Pinned::new("comeback");
            let mut kernel = pinned.load();
            kernel.attach(&[("v0", Mode::Xdp)], kind).unwrap();
            sh("ip link del v0");
            assert!(pinned.attached().iter().all(|one| !one.alive), "{:?}", pinned.attached());
            assert!(matches!(kernel.attach(&[("v0", Mode::Xdp)], kind), Err(Error::NoInterface(_))));
            assert_eq!(pinned.hooks(), [], "pins of a dead interface are swept");
            // The same number again, and not swept in between.
            sh(&format!("ip link add v0 index {ifindex} type veth peer name v1"));
            kernel.attach(&[("v0", Mode::Xdp)], kind).unwrap();
            sh(&format!("ip link del v0; ip link add v0 index {ifindex} type veth peer name v1"));
            let done = kernel.attach(&[("v0", Mode::Xdp)], kind).unwrap();
            assert!(done.iter().all(|one| one.ifindex == ifindex), "{done:?}");
            assert_eq!(pinned.attached().iter().filter(|one| one.alive).count(), 2);
            assert!(sh("ip link show v0").contains("xdp"));
            kernel.detach(ifindex).unwrap();
            assert_eq!(pinned.hooks(), []);
            sh("ip link del v0");
        }
    });
}

#[test]
fn maps_of_another_layout_are_refused_and_kept() {
    in_namespace(|| {
        let pinned = Pinned::new("layout");
        let kernel = pinned.load();
        kernel.table::<[u8; 8], u32>("SERVICES4").unwrap().insert([7; 8], 77).unwrap();
        drop(kernel);
        let error = pinned.load_as(LAYOUT + 1, &[]).unwrap_err();
        assert!(matches!(error, Error::Layout { found: LAYOUT, .. }), "{error}");
        assert!(error.to_string().contains("dirigent stop --detach"), "{error}");
        assert_eq!(pinned.0.open_table::<[u8; 8], u32>("SERVICES4").unwrap().get(&[7; 8]).unwrap(), Some(77));
        // A map of another shape under a known name: nobody else's version number helps there.
        std::fs::remove_file(pinned.0.map("SERVICES6")).unwrap();
        std::fs::rename(pinned.0.map("SERVICES4"), pinned.0.map("SERVICES6")).unwrap();
        let error = pinned.load_as(LAYOUT, &[]).unwrap_err();
        assert!(matches!(&error, Error::MapShape { map, .. } if map == "SERVICES6"), "{error}");
    });
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    in_namespace(|| {
        let pinned = Pinned::new("huge");
        let error = pinned.load_as(LAYOUT, &[("CONNS4", u32::MAX)]).unwrap_err();
        assert!(error.to_string().contains("CONNS4"), "{error}");
        assert!(!pinned.0.directory().exists());
    });
}

/// That they count, and whose, `dirigent::losses` shows; here, that each kernel takes them and tells what they need.
#[test]
fn lost_frames_are_counted_until_detached() {
    in_namespace(|| {
        let pinned = Pinned::new("losses");
        let mut kernel = pinned.load();
        kernel.count_losses().unwrap_or_else(|e| panic!("{e}"));
        let pins = || {
            let links = std::fs::read_dir(pinned.0.links()).into_iter().flatten().flatten();
            links.filter(|pin| pin.file_name().to_string_lossy().starts_with("dirigent_lost_")).count()
        };
        assert_eq!(pins(), 4);
        drop(kernel);
        // Pinned, they count without a daemon; the next one puts its own in their place.
        assert_eq!(pins(), 4);
        pinned.load().count_losses().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(pins(), 4);
        detach_all(&pinned.0).unwrap();
        assert_eq!(pins(), 0);
    });
}

#[test]
fn without_the_kernels_types_nothing_is_counted_and_an_error_says_so() {
    in_namespace(|| {
        let pinned = Pinned::new("untyped");
        pinned.load().count_losses().unwrap_or_else(|e| panic!("{e}"));
        // SAFETY: gives this thread, which shares no working directory that a test changes, mounts of its own.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", std::io::Error::last_os_error());
        sh("mount --make-rprivate / && mount --bind /dev/null /sys/kernel/btf/vmlinux");
        let error = pinned.load().count_losses().unwrap_err().to_string();
        assert!(error.contains("/sys/kernel/btf/vmlinux"), "{error}");
        let links = std::fs::read_dir(pinned.0.links()).unwrap().count();
        assert_eq!(links, 0, "nor do the programs of an earlier daemon go on");
    });
}

/// Pins an XDP program that says XDP_ABORTED to each frame: an exception.
fn pin_aborting(pin: &str) {
    // r0 = 0; exit
    let code = [0xb7u64, 0x95];
    let licence = c"GPL";
    // Type XDP and two instructions; where they are; where the licence is. All else zero.
    let mut load = [6 | 2 << 32, code.as_ptr() as u64, licence.as_ptr() as u64, 0, 0, 0];
    // SAFETY: BPF_PROG_LOAD reads two instructions and a terminated string, both live.
    let program = unsafe { libc::syscall(libc::SYS_bpf, 5, load.as_mut_ptr(), size_of_val(&load)) };
    assert!(program >= 0, "{}", std::io::Error::last_os_error());
    let path = std::ffi::CString::new(pin).unwrap();
    let mut obj = [path.as_ptr() as u64, program as u64];
    // SAFETY: BPF_OBJ_PIN reads a terminated string; the descriptor is the one just made, closed once.
    let pinned = unsafe {
        let pinned = libc::syscall(libc::SYS_bpf, 6, obj.as_mut_ptr(), size_of_val(&obj));
        libc::close(program as libc::c_int);
        pinned
    };
    assert_eq!(pinned, 0, "{}", std::io::Error::last_os_error());
}

/// `xdp_exception`, in this network namespace and in one where an interface has the same number; and of another's program
/// on an interface that is directed by tc.
#[test]
fn exceptions_are_counted_for_their_own_director() {
    /// Makes v0, on which each frame is aborted.
    fn aborting(pin: &str) -> u32 {
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let ifindex = veth();
        sh(&format!("ip link set dev v0 xdpgeneric pinned {pin}"));
        ifindex
    }
    fn send_ten() {
        sh("for i in 0 1 2 3 4 5 6 7 8 9; do head -c 60 /dev/zero | socat -u - INTERFACE:v1; done");
        // The last may still be under way.
        std::thread::sleep(Duration::from_millis(200));
    }
    in_namespace(|| {
        let pinned = Pinned::new("exceptions");
        let mut kernel = pinned.load();
        kernel.count_losses().unwrap_or_else(|e| panic!("{e}"));
        let counted = || {
            let reasons = kernel.per_cpu_table::<u32, u64>("REASONS").unwrap();
            reasons.get(&(dirigent_director::Reason::TransmitFailed as u32)).unwrap().unwrap().iter().sum::<u64>()
        };
        let pin = format!("{}/aborting", pinned.0.directory().display());
        pin_aborting(&pin);
        let ifindex = aborting(&pin);
        let links = kernel.table::<u32, [u8; 96]>("LINKS").unwrap();
        // `Link::used` and `Link::flags`.
        let link = |xdp: u8| {
            let mut link = [0; 96];
            link[6..8].copy_from_slice(&1u16.to_ne_bytes());
            link[28..32].copy_from_slice(&u32::from(xdp).to_ne_bytes());
            links.insert(ifindex, link).unwrap();
        };

        link(0);
        send_ten();
        assert_eq!(counted(), 0, "the program on an interface that is directed by tc is not ours");
        link(1);
        send_ten();
        assert_eq!(counted(), 10);
        let theirs = pin.clone();
        in_namespace(move || {
            assert_eq!(aborting(&theirs), ifindex);
            send_ten();
        });
        assert_eq!(counted(), 10, "another namespace's");
        std::fs::remove_file(&pin).unwrap();
    });
}

/// What tracing tells of packets on XDP and tc: as they came and left, why, their connection before and after, and the
/// servers there were to choose from; only of those that are wanted, and no more than is allowed.
#[test]
fn lives_of_packets_are_told() {
    use dirigent_datapath::control::{Control, KernelStore, Store as _};
    use dirigent_director::records::{Link, NextHop, hop, kind};
    use dirigent_director::trace::{Wanted, by};
    use dirigent_director::{Action, Reason, shared::S32};
    use dirigent_wire::Mac;
    const SERVICES: &str = r#"
version = 1
[[service]]
protocol = "tcp"
address = "198.18.0.1:7936"
scheduler = "wlc"
server = [{ address = "10.0.0.2:8080", weight = 3 }, { address = "10.0.0.3:8080", weight = 0 }]
[[service]]
protocol = "tcp"
address = "[2001:db8:1::1]:7936"
server = [{ address = "[fd00::2]:8080" }]
"#;
    let all = Wanted { reasons: u64::MAX, ..Wanted::default() };
    let with = move |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = all;
        change(&mut wanted);
        wanted
    };
    in_namespace(move || {
        let link = veth();
        let mut kernel = unpinned();
        let model = dirigent_config::file::parse("f", SERVICES).unwrap();
        let mut control = Control::open(KernelStore::new(&kernel).unwrap(), &model).unwrap();
        let (mac, server) = (Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 3]));
        let way = NextHop {
            state: S32::new(hop::RESOLVED),
            ifindex: link,
            mtu: 1500,
            src: mac,
            dst: server,
            ..NextHop::default()
        };
        for server in ["10.0.0.2", "10.0.0.3", "fd00::2"] {
            control.set_next_hop(server.parse().unwrap(), &way).unwrap();
        }
        control.store_mut().put_link(link, &Link { mac, used: 1, ..Link::default() }).unwrap();
        for vip in ["198.18.0.1", "2001:db8:1::1"] {
            control.store_mut().set_local(vip.parse().unwrap(), true).unwrap();
        }
        let context = SkbContext { ifindex: link, ingress_ifindex: link, ..SkbContext::default() };
        // The port's low byte is in the destination: 0 is the service's.
        let run = |kernel: &Kernel, path: u32, frame: &[u8]| match path {
            by::XDP => kernel.run_xdp(link, frame).unwrap().frame,
            _ => kernel.run_tc(Direction::Ingress, &context, frame).unwrap().frame,
        };
        let mut client = 0;
        for path in [by::XDP, by::INGRESS] {
            for v6 in [false, true] {
                client += 1;
                let (mut frame, at) = (syn(v6, 0), if v6 { 54 } else { 34 });
                frame[at + 1] = client;
                let mut tracer = kernel.trace(&all).unwrap();
                // Nothing before it is allowed.
                run(&kernel, path, &syn(v6, 9));
                assert_eq!(tracer.take().map(|life| life.head), None);
                assert_eq!(tracer.withheld().unwrap(), 1);
                tracer.allow(10).unwrap();
                let left = run(&kernel, path, &frame);
                let life = tracer.take().expect("one is told of");
                let head = life.head;
                let what = format!("path {path}, IPv6 {v6}: {head:?}");
                assert_eq!((head.by, head.interface, head.out), (path, link, link), "{what}");
                assert_eq!(head.reason, Reason::Request as u32, "{what}");
                // XDP_TX, TC_ACT_REDIRECT
                let returned = if path == by::XDP { 3 } else { 7 };
                assert_eq!((head.action, head.returned), (Action::Transmit as u32, returned), "{what}");
                assert_eq!(&life.incoming[..head.came[1] as usize], &frame[..], "{what}");
                assert_eq!(&life.outgoing[..head.left[1] as usize], &left[..], "{what}");
                assert_ne!(left, frame, "{what}");
                assert_eq!(
                    (head.came[0], head.family),
                    (u32::try_from(frame.len()).unwrap(), if v6 { 6 } else { 4 }),
                    "{what}"
                );
                assert_eq!((head.before.found, head.after.found), (0, 1), "{what}");
                assert_eq!(
                    (head.after.kind, head.after.service),
                    (u32::from(kind::NAT_REQUEST), head.service - 1),
                    "{what}"
                );
                let listed = if v6 { 1 } else { 2 };
                assert_eq!(head.listed, listed, "{what}");
                let weights: Vec<_> = head.candidates[..listed as usize].iter().map(|c| c.weight).collect();
                assert_eq!(weights, if v6 { vec![1] } else { vec![0, 3] }, "{what}");
                assert!(head.candidates.iter().any(|c| c.server == head.after.server && c.weight != 0), "{what}");
                // The next packet of the same connection.
                run(&kernel, path, &frame);
                let life = tracer.take().unwrap();
                assert_eq!((life.head.before.found, life.head.listed), (1, 0));
                assert!(life.head.time > head.time);
                assert_eq!(life.head.before.server, head.after.server);

                // Only what is wanted: a reason, a service, a server, a client.
                let other_service = with(&|w| w.service = 3 - head.service);
                let this_service = with(&|w| w.service = head.service);
                let words = |first: [u8; 2]| [u16::from_ne_bytes(first), 0, 0, 0, 0, 0, 0, 0];
                let from = |first: [u8; 2]| {
                    with(&|w| {
                        (w.family, w.client, w.mask) = (head.family, words(first), words([0xff, 0xff]));
                    })
                };
                let mine = if v6 { [0x20, 0x01] } else { [198, 51] };
                let server = |port: u16| {
                    with(&|w| {
                        w.server_family = head.family;
                        w.server = if v6 {
                            [0xfd00_u16.to_be(), 0, 0, 0, 0, 0, 0, 2_u16.to_be()]
                        } else {
                            [0x0a00_u16.to_be(), 2_u16.to_be(), 0, 0, 0, 0, 0, 0]
                        };
                        w.server_port = port.to_be().into();
                    })
                };
                for (wanted, is) in [
                    (with(&|w| w.reasons = 1 << Reason::Request as u64), true),
                    (with(&|w| w.reasons = !(1 << Reason::Request as u64)), false),
                    (this_service, true),
                    (other_service, false),
                    (from(mine), true),
                    (from([9, 9]), false),
                    (server(8080), true),
                    (server(0), true),
                    (server(81), false),
                ] {
                    let mut tracer = kernel.trace(&wanted).unwrap();
                    tracer.allow(10).unwrap();
                    run(&kernel, path, &frame);
                    assert_eq!(tracer.take().is_some(), is, "{wanted:?}");
                    assert_eq!(tracer.withheld().unwrap(), 0);
                    drop(tracer);
                    // Without it nothing is noted.
                    run(&kernel, path, &frame);
                    assert_eq!(kernel.trace(&all).unwrap().take().map(|life| life.head), None);
                }
            }
        }
    });
}
