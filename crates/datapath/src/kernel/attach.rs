//! Attaching the programs to interfaces, and replacing those of an earlier daemon.
//!
//! tc ingress is attached everywhere, XDP in front of it where the mode says so, and tc
//! egress on loopback and, once a real server is this host, everywhere. Attachments are
//! bpf links pinned in the instance's `links/`, named after what they are and the
//! interface's number. A kernel without tcx (before 6.6) gets classic tc filters at a
//! priority and handle of ours; since those cannot be pinned, a directory in `links/`
//! remembers that they are ours.
//!
//! Replacing the program of a link or filter is one atomic step in the kernel: each packet
//! is seen by the old or by the new program. XDP hands some packets on to tc, so tc is
//! always renewed first and removed last.

use std::{
    fmt, fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::{
    SchedClassifier, Xdp, XdpMode,
    links::{FdLink, Link as _, LinkError, LinkOrder, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle},
    xdp::XdpLink,
};
use aya::util::KernelVersion;

use super::{
    error::{Error, Source, attaching, errno},
    load::{self, Instance, Kernel},
    losses, netlink,
    select::{Choice, Facts, Mode, PathKind, choose},
    sys,
    testrun::Direction,
};
use crate::names::XDP_PROGRAM;

/// The first kernel with tcx links.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// Loopback's number, the first of every network namespace.
pub const LOOPBACK: u32 = 1;

/// Priority of our classic filters: an unlikely one, and in front of the default 49152.
pub const FILTER_PRIORITY: u16 = 209;
/// Handle of our classic filters.
pub const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0xd1);

/// How tc programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcKind {
    /// tcx where the kernel has it (6.6), else classic.
    #[default]
    Auto,
    /// Classic filters, also where the kernel has tcx: for tests.
    Classic,
}

/// What was attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name at that moment.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// Which program sees packets first.
    pub path: PathKind,
    /// Why.
    pub reason: String,
    /// Why it is tc on a device that XDP is meant for ([`Choice::without_xdp`]).
    pub without_xdp: Option<String>,
    /// Whether tc is attached by tcx links; otherwise by classic filters.
    pub tcx: bool,
    /// Whether programs of an earlier daemon were replaced.
    pub replaced: bool,
}

/// What kind of attachment a pin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// XDP, of either mode.
    Xdp,
    /// tcx ingress.
    TcxIngress,
    /// tcx egress.
    TcxEgress,
    /// Classic filter on ingress.
    ClassicIngress,
    /// Classic filter on egress.
    ClassicEgress,
}

impl Hook {
    const ALL: [Self; 5] = [Self::Xdp, Self::TcxIngress, Self::TcxEgress, Self::ClassicIngress, Self::ClassicEgress];

    fn prefix(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcxIngress => "tcx-ingress",
            Self::TcxEgress => "tcx-egress",
            Self::ClassicIngress => "classic-ingress",
            Self::ClassicEgress => "classic-egress",
        }
    }

    fn pin(self, instance: &Instance, ifindex: u32) -> PathBuf {
        instance.links().join(format!("{}-{ifindex}", self.prefix()))
    }

    fn parse(file: &str) -> Option<(Self, u32)> {
        let (prefix, ifindex) = file.rsplit_once('-')?;
        let hook = Self::ALL.into_iter().find(|hook| hook.prefix() == prefix)?;
        Some((hook, ifindex.parse().ok()?))
    }

    fn classic(self) -> Option<Direction> {
        match self {
            Self::ClassicIngress => Some(Direction::Ingress),
            Self::ClassicEgress => Some(Direction::Egress),
            _ => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

impl Direction {
    fn program(self) -> &'static str {
        match self {
            Self::Ingress => "dirigent_ingress",
            Self::Egress => "dirigent_egress",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn aya(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    fn tcx(self) -> Hook {
        match self {
            Self::Ingress => Hook::TcxIngress,
            Self::Egress => Hook::TcxEgress,
        }
    }

    fn classic(self) -> Hook {
        match self {
            Self::Ingress => Hook::ClassicIngress,
            Self::Egress => Hook::ClassicEgress,
        }
    }
}

/// One attachment as the pins tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// The interface's number.
    pub ifindex: u32,
    /// Where.
    pub hook: Hook,
    /// The kernel's number of the program; classic filters do not tell it.
    pub program: Option<u32>,
    /// The kernel's number of the link: the same as long as it was never detached.
    pub link: Option<u32>,
    /// Whether the interface is still there.
    pub alive: bool,
}

/// What an instance has attached, from its pins; needs no daemon. Classic filters count
/// as alive if they are on an interface of the calling thread's namespace.
pub fn attached(instance: &Instance) -> Result<Vec<Attached>, Error> {
    let mut found = Vec::new();
    for (hook, ifindex, path) in pins(instance)? {
        let (program, link, alive) = if hook.classic().is_some() {
            (None, None, is_here(&path) && netlink::link("", ifindex).is_ok())
        } else {
            let fd = sys::open_pin(&path).map_err(|e| Error::path(&path, e))?;
            let info = sys::link_info(fd.as_fd()).map_err(|e| Error::path(&path, e))?;
            (Some(info.program), Some(info.id), info.ifindex == ifindex)
        };
        found.push(Attached { ifindex, hook, program, link, alive });
    }
    found.sort();
    Ok(found)
}

/// Takes an instance off all its interfaces and removes its maps: connections, counters
/// and all. Says what it detached. XDP goes first and tc last, so that no packet meets
/// half a director.
pub fn detach_all(instance: &Instance) -> Result<Vec<Attached>, Error> {
    let found = attached(instance)?;
    for one in &found {
        remove(instance, one.hook, one.ifindex)?;
    }
    losses::remove(instance);
    load::remove_maps(instance);
    Ok(found)
}

/// Whether the kernel is new enough for tcx (6.6).
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|now| now >= TCX_SINCE)
}

impl Kernel {
    /// Attaches to interfaces of the calling thread's namespace, as their modes say, or
    /// renews the programs where an earlier daemon (or call) attached them. Interfaces
    /// not named here are left as they are. Pins of interfaces that are gone are removed.
    pub fn attach(&mut self, wanted: &[(&str, Mode)], tc: TcKind) -> Result<Vec<Attachment>, Error> {
        let instance = self.instance.clone().ok_or(Error::NotPinned)?;
        sweep(&instance)?;
        let mut facts = Vec::with_capacity(wanted.len());
        for (name, _) in wanted {
            let mut known = Facts::gather(name)?;
            known.foreign_xdp = foreign_xdp(&instance, known.ifindex)?;
            known.beside = beside(&instance, &known)?;
            facts.push(known);
        }
        let choices: Vec<_> = facts.iter().zip(wanted).map(|(here, (_, mode))| choose(*mode, here, &facts)).collect();
        // Before anything is attached: a kernel that refuses them refuses all.
        if choices.iter().any(|choice| choice.path != PathKind::Tc) {
            self.load_xdp()?;
        }
        let mut done = Vec::with_capacity(wanted.len());
        for ((here, (_, mode)), choice) in facts.iter().zip(wanted).zip(choices) {
            let attachment = self.attach_one(&instance, here, *mode, choice, tc)?;
            let Attachment { interface, path, reason, .. } = &attachment;
            tracing::info!(event = "interface_attached", interface, %path, "{reason}");
            done.push(attachment);
        }
        Ok(done)
    }

    /// A real server is this host, and answers by whichever interface leads to the client: what this host sends is seen
    /// on all interfaces from now on, those to come included. (The kernel leads all that is forwarded past a program on
    /// egress, so where no server is here there is none.)
    pub fn see_answers(&mut self, tc: TcKind) -> Result<(), Error> {
        if self.sees_answers {
            return Ok(());
        }
        if let Some(instance) = self.instance.clone() {
            let ingress = |one: &Attached| matches!(one.hook, Hook::TcxIngress | Hook::ClassicIngress) && one.alive;
            for one in attached(&instance)?.into_iter().filter(ingress) {
                let link = match netlink::link("", one.ifindex) {
                    // What is gone a moment later sends nothing.
                    Err(e) if e.raw_os_error() == Some(libc::ENODEV) => continue,
                    asked => asked.map_err(|e| Error::system(format!("asking about interface {}", one.ifindex), e))?,
                };
                self.attach_tc(&instance, (&link.name, one.ifindex), Direction::Egress, tc)?;
            }
        }
        self.sees_answers = true;
        Ok(())
    }

    /// Whether it is.
    pub fn sees_answers(&self) -> bool {
        self.sees_answers
    }

    /// Takes the programs off one interface.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        let instance = self.instance.as_ref().ok_or(Error::NotPinned)?;
        Hook::ALL.into_iter().try_for_each(|hook| remove(instance, hook, ifindex))
    }

    fn attach_one(
        &mut self,
        instance: &Instance,
        here: &Facts,
        mode: Mode,
        mut choice: Choice,
        tc: TcKind,
    ) -> Result<Attachment, Error> {
        if let (true, Some((program, name))) = (choice.path != PathKind::Tc, &here.foreign_xdp) {
            return Err(Error::ForeignXdp { interface: here.interface.clone(), program: *program, name: name.clone() });
        }
        if let (true, Some(other)) = (choice.path != PathKind::Tc, &here.beside) {
            return Err(Error::OtherDirector { interface: here.interface.clone(), other: other.clone(), how: "tc" });
        }
        let place = (here.interface.as_str(), here.ifindex);
        let ingress = self.attach_tc(instance, place, Direction::Ingress, tc)?;
        let mut replaced = ingress.replaced;
        // Clients on this host come by loopback. What an earlier daemon attached is of use to its connections still.
        let [tcx, classic] =
            [Hook::TcxEgress, Hook::ClassicEgress].map(|hook| hook.pin(instance, here.ifindex).exists());
        if self.sees_answers || here.ifindex == LOOPBACK || tcx || classic {
            replaced |= self.attach_tc(instance, place, Direction::Egress, tc)?.replaced;
        }
        match self.attach_xdp(instance, here, choice.path) {
            Ok(renewed) => replaced |= renewed,
            // Drivers have reasons of their own (queues, large receive offload) that no flag tells.
            Err(error) if mode == Mode::Auto => {
                choice = Choice::tc_because(here, format!("the driver refused: {error}"));
            }
            Err(error) => return Err(error),
        }
        let reason = match ingress.tcx {
            true => choice.reason,
            false => format!("{}; tc by classic filters", choice.reason),
        };
        Ok(Attachment {
            interface: here.interface.clone(),
            ifindex: here.ifindex,
            path: choice.path,
            reason,
            without_xdp: choice.without_xdp,
            tcx: ingress.tcx,
            replaced,
        })
    }

    fn attach_tc(
        &mut self,
        instance: &Instance,
        place: (&str, u32),
        direction: Direction,
        kind: TcKind,
    ) -> Result<Tc, Error> {
        let program = self.classifier(direction.program())?;
        if kind == TcKind::Auto && has_tcx() {
            match attach_tcx(program, instance, place, direction) {
                Ok(replaced) => {
                    // Left by a daemon that was told to use classic filters.
                    remove(instance, direction.classic(), place.1)?;
                    return Ok(Tc { tcx: true, replaced });
                }
                // A kernel built without tcx.
                Err(error) if matches!(errno(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
                Err(error) => return Err(error),
            }
        }
        let replaced = attach_classic(program, instance, place, direction)?;
        remove(instance, direction.tcx(), place.1)?;
        Ok(Tc { tcx: false, replaced })
    }

    /// Whether a program was replaced.
    fn attach_xdp(&mut self, instance: &Instance, here: &Facts, path: PathKind) -> Result<bool, Error> {
        let mode = match path {
            PathKind::Xdp => XdpMode::Driver,
            PathKind::XdpGeneric => XdpMode::Skb,
            PathKind::Tc => {
                remove(instance, Hook::Xdp, here.ifindex)?;
                return Ok(false);
            }
        };
        let program = self.xdp(XDP_PROGRAM)?;
        let pin = Hook::Xdp.pin(instance, here.ifindex);
        let fail = attaching(XDP_PROGRAM, &here.interface);
        if pin.exists() {
            let now = netlink::link("", here.ifindex).map_err(|e| fail(e.into()))?.xdp;
            if now.is_some_and(|now| now.generic == (mode == XdpMode::Skb)) {
                let link = PinnedLink::from_pin(&pin).map_err(|e| fail(e.into()))?;
                renew_xdp(program, link.into()).map_err(fail)?;
                return Ok(true);
            }
            // Another mode: tc takes the packets in between.
            remove(instance, Hook::Xdp, here.ifindex)?;
        }
        let made = program.attach_to_if_index(here.ifindex, mode).map_err(|e| match errno(&e) {
            // Someone was faster than our question about it.
            Some(libc::EBUSY | libc::EEXIST) => match foreign_xdp(instance, here.ifindex) {
                Ok(Some((program, name))) => Error::ForeignXdp { interface: here.interface.clone(), program, name },
                _ => fail(e.into()),
            },
            _ => fail(e.into()),
        })?;
        let link = program.take_link(made).map_err(|e| fail(e.into()))?;
        let link: FdLink = link.try_into().map_err(|e: LinkError| fail(e.into()))?;
        link.pin(&pin).map_err(|e| fail(e.into()))?;
        Ok(false)
    }
}

struct Tc {
    tcx: bool,
    replaced: bool,
}

fn renew_xdp(program: &mut Xdp, link: FdLink) -> Result<(), Source> {
    let renewed = program.attach_to_link(XdpLink::try_from(link)?)?;
    // Only the descriptor is closed: the pin holds the link.
    drop(program.take_link(renewed)?);
    Ok(())
}

/// Whether a program was replaced.
fn attach_tcx(
    program: &mut SchedClassifier,
    instance: &Instance,
    (interface, ifindex): (&str, u32),
    direction: Direction,
) -> Result<bool, Error> {
    let fail = attaching(direction.program(), interface);
    let pin = direction.tcx().pin(instance, ifindex);
    if pin.exists() {
        let link: FdLink = PinnedLink::from_pin(&pin).map_err(|e| fail(e.into()))?.into();
        let link = SchedClassifierLink::try_from(link).map_err(|e| fail(e.into()))?;
        let renewed = program.attach_to_link(link).map_err(|e| fail(e.into()))?;
        drop(program.take_link(renewed).map_err(|e| fail(e.into()))?);
        return Ok(true);
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let made = program.attach_with_options(interface, direction.aya(), order).map_err(|e| fail(e.into()))?;
    let link = program.take_link(made).map_err(|e| fail(e.into()))?;
    let link: FdLink = link.try_into().map_err(|e: LinkError| fail(e.into()))?;
    link.pin(&pin).map_err(|e| fail(e.into()))?;
    Ok(false)
}

/// Whether a program was replaced.
fn attach_classic(
    program: &mut SchedClassifier,
    instance: &Instance,
    (interface, ifindex): (&str, u32),
    direction: Direction,
) -> Result<bool, Error> {
    let fail = attaching(direction.program(), interface);
    match tc::qdisc_add_clsact(interface) {
        Err(e) if errno(&e) != Some(libc::EEXIST) => return Err(fail(e.into())),
        _ => {}
    }
    // The mark comes first: a filter without it would look like someone else's.
    let mark = direction.classic().pin(instance, ifindex);
    let marked = is_here(&mark);
    if !marked {
        // What is there is of a namespace that this instance has left.
        remove(instance, direction.classic(), ifindex)?;
        let namespace = mark.join(namespace().map_err(|e| Error::path(&mark, e))?);
        fs::create_dir_all(&namespace).map_err(|e| Error::path(&namespace, e))?;
    }
    let options = NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None };
    let made = program.attach_with_options(interface, direction.aya(), TcAttachOptions::Netlink(options));
    let (made, replaced) = match made {
        Ok(made) => (made, false),
        Err(e) if errno(&e) == Some(libc::EEXIST) && marked => {
            let link = filter(interface, direction).map_err(|e| fail(e.into()))?;
            (program.attach_to_link(link).map_err(|e| fail(e.into()))?, true)
        }
        Err(e) => {
            if !marked {
                unmark(&mark)?;
            }
            return Err(match errno(&e) {
                Some(libc::EEXIST) => Error::ForeignFilter {
                    interface: interface.to_owned(),
                    direction: direction.word(),
                    priority: FILTER_PRIORITY,
                },
                _ => fail(e.into()),
            });
        }
    };
    // aya would remove the filter when the link is dropped.
    std::mem::forget(program.take_link(made).map_err(|e| fail(e.into()))?);
    Ok(replaced)
}

/// The calling thread's network namespace, as a name.
fn namespace() -> io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino().to_string())
}

/// Whether the mark of a classic filter is of the calling thread's namespace: interface
/// numbers mean something only there.
fn is_here(mark: &Path) -> bool {
    namespace().is_ok_and(|namespace| mark.join(namespace).is_dir())
}

fn unmark(mark: &Path) -> Result<(), Error> {
    for namespace in fs::read_dir(mark).map_err(|e| Error::path(mark, e))?.flatten() {
        fs::remove_dir(namespace.path()).map_err(|e| Error::path(namespace.path(), e))?;
    }
    fs::remove_dir(mark).map_err(|e| Error::path(mark, e))
}

fn filter(interface: &str, direction: Direction) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, direction.aya(), FILTER_PRIORITY, FILTER_HANDLE, None)
}

/// The XDP program on an interface, if it is not this instance's.
fn foreign_xdp(instance: &Instance, ifindex: u32) -> Result<Option<(u32, String)>, Error> {
    let link = netlink::link("", ifindex).map_err(|e| Error::system(format!("asking about interface {ifindex}"), e))?;
    let Some(xdp) = link.xdp else { return Ok(None) };
    let ours = sys::open_pin(&Hook::Xdp.pin(instance, ifindex)).and_then(|fd| sys::link_info(fd.as_fd()));
    if ours.is_ok_and(|ours| ours.ifindex == ifindex) {
        return Ok(None);
    }
    let name = aya::programs::loaded_programs()
        .flatten()
        .find(|program| program.id() == xdp.program)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    Ok(Some((xdp.program, name.unwrap_or_else(|| "without a name".to_owned()))))
}

/// Another director that takes this interface's packets by tc, as its pins tell; one with XDP there is an error,
/// whichever way ours would be: its mark tells every tc program of Dirigent that a packet is decided.
fn beside(instance: &Instance, here: &Facts) -> Result<Option<String>, Error> {
    let on_tc = SchedClassifier::query_tcx(&here.interface, TcAttachType::Ingress);
    // A kernel without tcx has none of its links.
    let on_tc: Vec<u32> = on_tc.map(|(_, programs)| programs.iter().map(|p| p.id()).collect()).unwrap_or_default();
    let mut found = None;
    for other in instance.others() {
        // A program's number is the kernel's own, not the namespace's, unlike an interface's.
        let program = |hook: Hook| {
            let fd = sys::open_pin(&hook.pin(&other, here.ifindex)).ok()?;
            sys::link_info(fd.as_fd()).ok().map(|info| info.program)
        };
        if let (Some(theirs), Some((there, _))) = (program(Hook::Xdp), &here.foreign_xdp)
            && theirs == *there
        {
            let (interface, other) = (here.interface.clone(), other.name().to_owned());
            return Err(Error::OtherDirector { interface, other, how: "XDP" });
        }
        let tcx = program(Hook::TcxIngress).is_some_and(|theirs| on_tc.contains(&theirs));
        if tcx || is_here(&Hook::ClassicIngress.pin(&other, here.ifindex)) {
            found = Some(other.name().to_owned());
        }
    }
    Ok(found)
}

/// Removes one attachment, if it is there.
fn remove(instance: &Instance, hook: Hook, ifindex: u32) -> Result<(), Error> {
    let path = hook.pin(instance, ifindex);
    if let Some(direction) = hook.classic() {
        if !path.is_dir() {
            return Ok(());
        }
        let link = netlink::link("", ifindex).ok().filter(|_| is_here(&path));
        let filter = link.and_then(|link| filter(&link.name, direction).ok());
        match filter.map(|filter| filter.detach()) {
            // No such filter, no such qdisc: someone was faster.
            Some(Err(e)) if !matches!(errno(&e), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
                return Err(Error::load(format!("the removal of the tc filter of interface {ifindex}"), e));
            }
            Some(_) => {}
            None => tracing::debug!("{}: the interface is not in this namespace", path.display()),
        }
        return unmark(&path);
    }
    let fd = match sys::open_pin(&path) {
        Ok(fd) => fd,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::path(&path, e)),
    };
    // Removing the pin would detach too, but only some time later.
    if let Err(e) = sys::detach_link(fd.as_fd())
        && !matches!(e.raw_os_error(), Some(libc::ENOLINK | libc::EOPNOTSUPP | libc::EINVAL))
    {
        return Err(Error::path(&path, e));
    }
    fs::remove_file(&path).map_err(|e| Error::path(&path, e))
}

/// Removes the pins of attachments whose interface is gone: its number may come back.
fn sweep(instance: &Instance) -> Result<(), Error> {
    for one in attached(instance)? {
        if !one.alive {
            remove(instance, one.hook, one.ifindex)?;
        }
    }
    Ok(())
}

fn pins(instance: &Instance) -> Result<Vec<(Hook, u32, PathBuf)>, Error> {
    let directory = instance.links();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::path(directory, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::path(&directory, e))?;
        if let Some((hook, ifindex)) = entry.file_name().to_str().and_then(Hook::parse) {
            found.push((hook, ifindex, entry.path()));
        }
    }
    Ok(found)
}
