//! Recordings through the BPF programs, by `BPF_PROG_TEST_RUN`: the same programs, maps
//! and helpers as in service, nothing sent. The bed is a network namespace of a thread of
//! its own, which goes away with it.

use std::net::IpAddr;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use dirigent_api::{Connection, Stats, Timeouts};
use dirigent_config::{Model, Plan, ServiceKey};
use dirigent_datapath::control::tally::Tally;
use dirigent_datapath::control::{Control, Flow, KernelStore, Store as _, Target};
use dirigent_datapath::kernel::{Direction, Features, Kernel, LoadOptions, SkbContext};
use dirigent_director::records::{LAYOUT_VERSION, Link};
use dirigent_director::verdict::ReasonKind;
use dirigent_director::{Action, Reason, Verdict};

use super::bed::{Bed, Side};
use super::executor::{Does, Executor, Load, Row};
use super::tables::{self, text};
use super::text::Rates;
use crate::decode::{Ip, packet};

/// Which programs a frame meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// XDP, and tc for what it hands over.
    Xdp,
    /// tc only.
    Tc,
}

type Job = Box<dyn FnOnce(&mut World) + Send>;

/// A director in the kernel.
pub struct InKernel {
    path: Path,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has.
struct World {
    path: Path,
    running: Option<Running>,
}

/// Loaded programs in a bed's namespace. Several CPUs may run them at once.
pub struct Programs {
    bed: Bed,
    kernel: Kernel,
}

struct Running {
    programs: Programs,
    control: Control<KernelStore>,
    /// Packets by reason.
    counts: Vec<u64>,
}

impl InKernel {
    /// Starts the thread; needs root.
    pub fn new(path: Path) -> Self {
        let (jobs, orders) = channel::<Job>();
        let thread = std::thread::spawn(move || {
            let mut world = World { path, running: None };
            for job in orders {
                job(&mut world);
            }
        });
        Self { path, jobs: Some(jobs), thread: Some(thread) }
    }

    /// Has the thread do something.
    fn ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut World) -> Result<R, String> + Send + 'static,
    ) -> Result<R, String> {
        let (answer, result) = channel();
        let job: Job = Box::new(move |world| {
            // Nobody listens only if the asker is gone.
            let _ = answer.send(job(world));
        });
        let gone = || "the thread in the namespace ended".to_owned();
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

/// What became of many frames.
pub struct Taken {
    /// What each did.
    pub does: Vec<Does>,
    /// How often each reason was counted.
    pub reasons: Vec<u64>,
    /// The connection table afterwards.
    pub rows: Vec<Row>,
}

impl InKernel {
    /// Many frames, one after the other, without a reason for each. The packet path's clock
    /// is set back meanwhile: for connections no time passes, however busy the machine.
    pub fn run_all(&self, frames: std::sync::Arc<Vec<(Side, Vec<u8>)>>) -> Result<Taken, String> {
        const AT_ONCE: usize = 32;
        self.ask(move |world| {
            let begun = world.running()?.control.store().now();
            let mut does = Vec::with_capacity(frames.len());
            for some in frames.chunks(AT_ONCE) {
                world.running()?.set_clock_back(begun)?;
                for (side, frame) in some {
                    does.push(world.does(*side, frame)?);
                }
            }
            let running = world.running()?;
            running.set_clock_back(begun)?;
            let rows = tables::rows(&running.control)?;
            let counts = running.control.store().reasons().map_err(text)?;
            let before = std::mem::replace(&mut running.counts, counts);
            let reasons = running.counts.iter().zip(before).map(|(now, then)| now - then).collect();
            Ok(Taken { does, reasons, rows })
        })
    }
}

impl Running {
    /// Makes it the time again that it was.
    fn set_clock_back(&mut self, to: u32) -> Result<(), String> {
        let store = self.control.store_mut();
        let passed = store.now().wrapping_sub(to);
        let mut settings = store.settings().map_err(text)?;
        if passed > settings.hz / 8 {
            settings.clock_offset = settings.clock_offset.wrapping_sub(passed);
            store.put_settings(&settings).map_err(text)?;
        }
        Ok(())
    }
}

impl Drop for InKernel {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sh(script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-ec", script]).output().map_err(text)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Number of an interface of the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> Result<u32, String> {
    let name = std::ffi::CString::new(name).map_err(text)?;
    // SAFETY: a live string with its terminator.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(format!("{name:?}: {}", std::io::Error::last_os_error())),
        index => Ok(index),
    }
}

/// The bed's namespace for the calling thread (packet-rules §4.1, §4.4).
pub(crate) fn namespace(bed: &Bed) -> Result<Bed, String> {
    // SAFETY: changes the namespace of this thread, which nothing else of the process uses.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("a network namespace: {}", std::io::Error::last_os_error()));
    }
    let mut script = String::from("ip link set lo up\n");
    let mut add = |line: String| script += &(line + "\n");
    for (name, value) in [
        ("ipv4/ip_forward", 1),
        ("ipv6/conf/all/forwarding", 1),
        ("ipv4/conf/all/rp_filter", 0),
        ("ipv4/conf/default/rp_filter", 0),
        ("ipv6/conf/default/accept_dad", 0),
        ("ipv6/conf/default/accept_ra", 0),
    ] {
        add(format!("echo {value} > /proc/sys/net/{name}"));
    }
    let mac = |bytes: [u8; 6]| bytes.map(|b| format!("{b:02x}")).join(":");
    for (side, name, peer) in [(Side::C, "c0", "cw"), (Side::R, "r0", "rw")] {
        add(format!("ip link add {name} address {} type veth peer name {peer}", mac(side.mac())));
        add(format!("ip link set {name} mtu {} up; ip link set {peer} up", bed.mtu(side)));
        let [four, six] = side.addresses();
        add(format!("ip addr add {four}/{} dev {name}", if side == Side::C { 30 } else { 24 }));
        add(format!("ip addr add {six}/64 dev {name} nodad"));
    }
    add(format!("ip link add p0 address {} type veth peer name pw", mac(Side::P.mac())));
    add("ip link set p0 up; ip link set pw up".into());
    for local in bed.locals.iter().filter(|a| !Side::ALL.iter().any(|side| side.addresses().contains(a))) {
        add(format!("ip addr add {local}/{} dev lo", if local.is_ipv4() { "32" } else { "128 nodad" }));
    }
    for (address, bytes, device) in bed.neighbours() {
        add(format!("ip neigh add {address} lladdr {} dev {device} nud permanent", mac(bytes)));
    }
    add("ip route add default via 10.0.0.2".into());
    add("ip -6 route add default via fd00::2 dev c0".into());
    for route in bed.further_routes() {
        add(format!("ip {}", route.trim().trim_start_matches("ip ")));
    }
    sh(&script)?;
    bed.clone().with_ifindex([ifindex("c0")?, ifindex("r0")?, ifindex("p0")?])
}

impl World {
    /// Loading the programs takes a second or so, emptying the tables does not: a director
    /// that is there is emptied, and moves to another namespace if the bed differs.
    fn set_up(&mut self, bed: &Bed, model: &Model) -> Result<(), String> {
        let (bed, kernel, store) = match self.running.take() {
            Some(Running { programs: Programs { bed: old, kernel }, control, .. }) => {
                let mut store = tables::empty(control)?;
                for side in Side::EVERY {
                    store.put_link(old.ifindex(side), &Link::default()).map_err(text)?;
                }
                (if old.same_as(bed) { old } else { namespace(bed)? }, kernel, store)
            }
            None => {
                let Programs { bed, kernel } = Programs::load(bed)?;
                let store = KernelStore::new(&kernel).map_err(text)?;
                (bed, kernel, store)
            }
        };
        let control = tables::set_up(store, &bed, model)?;
        let counts = control.store().reasons().map_err(text)?;
        self.running = Some(Running { programs: Programs { bed, kernel }, control, counts });
        Ok(())
    }
    fn running(&mut self) -> Result<&mut Running, String> {
        self.running.as_mut().ok_or("no set-up was made".into())
    }
    fn does(&mut self, side: Side, frame: &[u8]) -> Result<Does, String> {
        let path = self.path;
        self.running()?.programs.does(path, side, frame)
    }
    fn run(&mut self, side: Side, frame: &[u8]) -> Result<(Does, Option<Verdict>), String> {
        let does = self.does(side, frame)?;
        let running = self.running()?;
        let reason = running.counted()?;
        let verdict = reason.map(|reason| Verdict { ifindex: 0, action: action(&does, reason), reason });
        Ok((does, verdict))
    }
}

/// The action that this reason had.
fn action(does: &Does, reason: Reason) -> Action {
    match does {
        Does::ToHost(_) if reason.kind() == ReasonKind::Passed => Action::Pass,
        Does::ToHost(_) if reason == Reason::LocalServer => Action::Deliver,
        Does::ToHost(_) => Action::Forward,
        Does::Drop => Action::Drop,
        Does::Out(..) => Action::Transmit,
        Does::Resolve(..) => Action::Resolve,
        Does::Pieces(_) => Action::Transmit,
    }
}

/// What XDP puts before a packet that it has decided about: bpf/src/xdp.rs.
const JUDGED: [u8; 4] = 0x4469_7267u32.to_ne_bytes();

impl Running {
    /// The reason that was counted since the last time.
    fn counted(&mut self) -> Result<Option<Reason>, String> {
        let counts = self.control.store().reasons().map_err(text)?;
        let before = std::mem::replace(&mut self.counts, counts);
        let rose = |reason: &&Reason| self.counts.get(**reason as usize) != before.get(**reason as usize);
        Ok(Reason::ALL.iter().filter(rose).find(|reason| **reason != Reason::HandedToTc).copied())
    }
}

impl Programs {
    /// Loads them with small tables, in a namespace that the calling thread then is in.
    fn load(bed: &Bed) -> Result<Self, String> {
        let bed = namespace(bed)?;
        const SERVERS: u32 = 1 << 14;
        let of_servers = ["SERVERS", "NEXT_HOPS", "COUNTERS", "ORIGINS"].map(|name| (name, SERVERS));
        let others = [("CONNS4", 4096), ("CONNS6", 4096), ("SLOTS", 1 << 18), ("SERVICES", 4096), ("BASES", 4097)];
        let map_sizes = [&of_servers[..], &others].concat();
        let options =
            LoadOptions { instance: None, layout: LAYOUT_VERSION, map_sizes: &map_sizes, features: Features::ALL };
        Ok(Self { bed, kernel: Kernel::load(&options).map_err(text)? })
    }
    /// A director as the Model says, on this bed, for the calling thread and those that it starts.
    pub fn direct(bed: &Bed, model: &Model) -> Result<(Self, Control<KernelStore>), String> {
        let programs = Self::load(bed)?;
        let store = KernelStore::new(&programs.kernel).map_err(text)?;
        let control = tables::set_up(store, &programs.bed, model)?;
        Ok((programs, control))
    }
    /// The bed, with its interfaces' numbers.
    pub fn bed(&self) -> &Bed {
        &self.bed
    }
    /// What they do with a frame.
    pub fn does(&self, path: Path, side: Side, frame: &[u8]) -> Result<Does, String> {
        match path {
            Path::Xdp => self.xdp(side, frame),
            Path::Tc => self.tc(side, frame),
        }
    }
    fn xdp(&self, side: Side, frame: &[u8]) -> Result<Does, String> {
        const DROP: u32 = 1;
        const PASS: u32 = 2;
        const TX: u32 = 3;
        const REDIRECT: u32 = 4;
        let ran = self.kernel.run_xdp(self.bed.ifindex(side), frame).map_err(text)?;
        match ran.action {
            DROP => Ok(Does::Drop),
            PASS if ran.metadata == JUDGED => Ok(Does::ToHost(ran.frame)),
            PASS => self.tc(side, &ran.frame),
            TX => sent(ran.frame, |out| out == side),
            REDIRECT => sent(ran.frame, |out| out != side),
            other => Err(format!("XDP returned {other}")),
        }
    }
    fn tc(&self, side: Side, frame: &[u8]) -> Result<Does, String> {
        const UNSPEC: u32 = u32::MAX;
        const OK: u32 = 0;
        const SHOT: u32 = 2;
        const REDIRECT: u32 = 7;
        let ifindex = self.bed.ifindex(side);
        let context = SkbContext { ifindex, ingress_ifindex: ifindex, ..SkbContext::default() };
        let ran = self.kernel.run_tc(Direction::Ingress, &context, frame).map_err(text)?;
        match ran.action {
            SHOT => Ok(Does::Drop),
            UNSPEC | OK => Ok(Does::ToHost(ran.frame)),
            // The target is not told: the source MAC is, or, where the kernel finds the
            // neighbour, the route.
            REDIRECT if ran.frame.get(..6) == Some(&[0; 6]) && from(&ran.frame).is_some() => {
                let side = from(&ran.frame).ok_or("a redirect to nowhere")?;
                Ok(Does::Resolve(side, ran.frame, None))
            }
            REDIRECT => sent(ran.frame.clone(), |_| true).or_else(|_| {
                let to = packet(&ran.frame).and_then(Ip::read).and_then(|ip| self.bed.routes.find(ip.dst));
                let side = to.and_then(|target| self.bed.side(target.ifindex)).ok_or("a redirect to nowhere")?;
                Ok(Does::Resolve(side, ran.frame, None))
            }),
            other => Err(format!("tc returned {other}")),
        }
    }
}

/// The side of a frame's source MAC.
fn from(frame: &[u8]) -> Option<Side> {
    Side::EVERY.into_iter().find(|side| frame.get(6..12) == Some(&side.mac()[..]))
}

/// A finished frame: the side is that of its source MAC.
fn sent(frame: Vec<u8>, expected: impl Fn(Side) -> bool) -> Result<Does, String> {
    match from(&frame) {
        Some(side) if expected(side) => Ok(Does::Out(side, frame)),
        _ => Err(format!("a frame was sent out of the wrong interface: {}", crate::decode::describe(&frame))),
    }
}

impl Executor for InKernel {
    fn name(&self) -> &'static str {
        if self.path == Path::Xdp { "xdp" } else { "tc" }
    }
    fn shows_pieces(&self) -> bool {
        false
    }
    fn set_up(&mut self, bed: &Bed, model: &Model) -> Result<(), String> {
        let (bed, model) = (bed.clone(), model.clone());
        self.ask(move |world| world.set_up(&bed, &model))
    }
    fn change(&mut self, plan: &Plan) -> Result<(), String> {
        let plan = plan.clone();
        self.ask(move |world| {
            let Running { programs: Programs { bed, .. }, control, .. } = world.running()?;
            tables::change(control, bed, &plan)
        })
    }
    fn probe(&mut self, probes: &[(Flow, Target)]) -> Result<Vec<bool>, String> {
        let probes = probes.to_vec();
        self.ask(move |world| {
            let Running { programs: Programs { bed, .. }, control, .. } = world.running()?;
            tables::probe(control, bed, &probes)
        })
    }
    fn fail(&mut self, servers: &[(ServiceKey, IpAddr, u16)]) -> Result<(u64, u64), String> {
        let servers = servers.to_vec();
        self.ask(move |world| tables::fail(&mut world.running()?.control, &servers))
    }
    fn sweep_after(&mut self, seconds: u32) -> Result<(u64, u64), String> {
        self.ask(move |world| tables::sweep_after(&mut world.running()?.control, seconds))
    }
    fn run(&mut self, side: Side, frame: &[u8]) -> Result<(Does, Option<Verdict>), String> {
        let frame = frame.to_vec();
        self.ask(move |world| world.run(side, &frame))
    }
    fn conns(&mut self) -> Result<Vec<Row>, String> {
        self.ask(|world| tables::rows(&world.running()?.control))
    }
    fn loads(&mut self) -> Result<Vec<Load>, String> {
        self.ask(|world| tables::loads(&world.running()?.control))
    }
    fn tally(&mut self) -> Result<Tally, String> {
        self.ask(|world| tables::tally(&world.running()?.control))
    }
    fn stats(&mut self, rates: Rates) -> Result<Stats, String> {
        self.ask(move |world| tables::stats(&world.running()?.control, &rates))
    }
    fn connections(&mut self) -> Result<Vec<Connection>, String> {
        self.ask(|world| tables::connections_told(&world.running()?.control))
    }
    fn timeouts(&mut self) -> Result<Timeouts, String> {
        self.ask(|world| tables::timeouts(&world.running()?.control))
    }
    fn zero(&mut self, service: Option<ServiceKey>) -> Result<(), String> {
        self.ask(move |world| tables::zero(&mut world.running()?.control, service))
    }
}
