//! What can go wrong with the kernel side, each with its remedy.

use std::{io, path::PathBuf};

use crate::object;

/// What the kernel or aya said.
pub(super) type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Built without the BPF toolchain.
    #[error("{}", object::MISSING)]
    NoObject,

    /// Not a name that can be a directory below bpffs.
    #[error(
        "instance name {0:?} is not usable: 1 to 32 of the characters a-z, A-Z, 0-9, '-' and '_' (bpffs allows no dots)"
    )]
    InstanceName(String),

    /// bpffs is absent and could not be mounted.
    #[error("{path} is no BPF file system and none could be mounted there: {source}; as root: mount -t bpf bpf {path}")]
    Bpffs {
        /// Where it should be.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },

    /// The pinned maps were made by another version.
    #[error(
        "the maps of instance {instance} have layout {found}, and this dirigent has layout {expected}: they are left as \
         they are and go on forwarding. Run the dirigent that made them, or give up its connections with `dirigent stop \
         --detach` and start again"
    )]
    Layout {
        /// The instance.
        instance: String,
        /// What lies in the pinned maps.
        found: u32,
        /// What this program has.
        expected: u32,
    },

    /// A pinned map is not the one that the object declares.
    #[error(
        "the pinned map {map} has {found}, and this dirigent expects {expected}: it is left as it is. Run the dirigent \
         that made it, or give up its connections with `dirigent stop --detach` and start again"
    )]
    MapShape {
        /// The map.
        map: String,
        /// Its shape.
        found: String,
        /// The shape in the object.
        expected: String,
    },

    /// A map is missing, or is of another type than the caller thinks.
    #[error("map {map}: {reason}")]
    Map {
        /// The map.
        map: String,
        /// What is wrong.
        reason: String,
    },

    /// A program is missing, or is of another type than the caller thinks.
    #[error("the BPF object has no {kind} program {program}")]
    Program {
        /// The program.
        program: String,
        /// The type that was looked for.
        kind: &'static str,
    },

    /// The kernel refused a map or program.
    #[error("the kernel does not take {what}: {}", chain(source.as_ref()))]
    Load {
        /// What was being loaded.
        what: String,
        /// Why not.
        source: Source,
    },

    /// No such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),

    /// The interface carries a foreign XDP program.
    #[error(
        "interface {interface} carries XDP program {program} ({name}), which is not Dirigent's and is left alone. Remove it \
         (`ip link set dev {interface} xdp off`, or stop what put it there), or choose mode tc for this interface"
    )]
    ForeignXdp {
        /// The interface.
        interface: String,
        /// The kernel's number of the program.
        program: u32,
        /// The program's name.
        name: String,
    },

    /// Another director is on the interface, and one of the two uses XDP.
    #[error(
        "interface {interface} is used by the director {other} ({how}): two directors share an interface only by tc, since XDP \
         would keep its packets from the other. Set mode = \"tc\" for both, or name other `interfaces` for one"
    )]
    OtherDirector {
        /// The interface.
        interface: String,
        /// The other's instance name.
        other: String,
        /// How its packets are taken: `XDP` or `tc`.
        how: &'static str,
    },

    /// A foreign tc filter has our place.
    #[error(
        "interface {interface} has a foreign tc {direction} filter at priority {priority}, the one that Dirigent uses. See \
         `tc filter show dev {interface} {direction}`; if it was left by a dirigent that is gone: `tc filter del dev \
         {interface} {direction} prio {priority}`"
    )]
    ForeignFilter {
        /// The interface.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The priority.
        priority: u16,
    },

    /// The kernel refused an attachment.
    #[error("cannot attach {program} to interface {interface}: {}", chain(source.as_ref()))]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why not.
        source: Source,
    },

    /// Attachments are pinned below an instance, and there is none.
    #[error("programs that were loaded without an instance can only be run on frames, not attached")]
    NotPinned,

    /// A path below bpffs could not be read or changed.
    #[error("{path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// Another system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Self::System { what: what.into(), source }
    }

    pub(crate) fn path(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Path { path: path.into(), source }
    }

    pub(crate) fn load(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Load { what: what.into(), source: source.into() }
    }
}

/// Makes errors about a program on an interface of what the kernel or aya said.
pub(super) fn attaching(program: &'static str, interface: &str) -> impl Fn(Source) -> Error {
    move |source| Error::Attach { program, interface: interface.to_owned(), source }
}

/// An error and what caused it, down to the system call's own word.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors already print their cause.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The error number at the bottom of an error, if a system call is there.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        if let Some(netlink) = error.downcast_ref::<aya::sys::NetlinkError>() {
            return netlink.raw_os_error();
        }
        next = error.source();
    }
    None
}
