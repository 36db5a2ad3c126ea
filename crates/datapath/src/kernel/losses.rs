//! Counting frames that XDP loses after the verdict: programs on the kernel's
//! tracepoints, pinned like the attachments, so that they count without a daemon.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use aya::programs::{RawTracePoint, links::FdLink};

use super::{
    error::{Error, attaching},
    fields::Types,
    load::{Instance, Kernel},
};

/// The kernel's own type information.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The network namespace that the interfaces are in.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The fields that tell of a device which one it is and whose. The programs have their
/// places as the constant [`CONSTANT`].
pub(super) const FIELDS: [(&str, &[&str]); 3] =
    [("net_device", &["ifindex"]), ("net_device", &["nd_net", "net"]), ("net", &["ns", "inum"])];

/// The programs' constant: the places of [`FIELDS`], and the number of the namespace.
pub(super) const CONSTANT: &str = "LOSSES";

/// What [`CONSTANT`] is to be on this kernel, in this namespace. All zero: nothing is counted.
pub(super) fn constant() -> Result<[u32; 4], Error> {
    let types = fs::read(BTF).map_err(|e| Error::path(BTF, e))?;
    let missing = |what: String| Error::path(BTF, io::Error::new(io::ErrorKind::InvalidData, what));
    let types = Types::read(types).ok_or_else(|| missing("no type information that this version can read".into()))?;
    let mut all = [0; 4];
    for (place, (structure, path)) in all.iter_mut().zip(FIELDS) {
        let found = types.offset(structure, path);
        *place = found.ok_or_else(|| missing(format!("no {structure}.{}", path.join("."))))?;
    }
    let number = fs::metadata(NAMESPACE).map_err(|e| Error::path(NAMESPACE, e))?.ino();
    all[3] = u32::try_from(number).map_err(|_| missing(format!("{number} is no namespace's number")))?;
    Ok(all)
}

/// Program, and the tracepoint it sits on.
const LOSSES: [(&str, &str); 4] = [
    ("dirigent_lost_exception", "xdp_exception"),
    ("dirigent_lost_redirect", "xdp_redirect_err"),
    ("dirigent_lost_transmit", "xdp_devmap_xmit"),
    ("dirigent_lost_return", "xdp_bulk_tx"),
];

fn pin(instance: &Instance, program: &str) -> PathBuf {
    instance.links().join(program)
}

/// Takes the counting programs of an instance off.
pub(super) fn remove(instance: &Instance) {
    for (program, _) in LOSSES {
        // Absent where the kernel has no tracepoints.
        let _ = fs::remove_file(pin(instance, program));
    }
}

impl Kernel {
    /// Begins to count lost frames, or goes on with this object's programs. Where the kernel
    /// does not tell what it takes they stay uncounted: the error says so.
    pub fn count_losses(&mut self) -> Result<(), Error> {
        let instance = self.instance.clone().ok_or(Error::NotPinned)?;
        // What an earlier daemon's programs count is not this one's promise.
        if let Some(error) = self.uncounted.take() {
            remove(&instance);
            return Err(error);
        }
        LOSSES.into_iter().try_for_each(|(program, event)| self.count_loss(&instance, program, event))
    }

    fn count_loss(&mut self, instance: &Instance, program: &'static str, event: &str) -> Result<(), Error> {
        let place = format!("tracepoint {event}");
        let fail = attaching(program, &place);
        let missing = || Error::Program { program: program.to_owned(), kind: "raw tracepoint" };
        let found = self.ebpf.program_mut(program).ok_or_else(missing)?;
        let trace: &mut RawTracePoint = found.try_into().map_err(|_| missing())?;
        let made = trace.attach(event).map_err(|e| fail(e.into()))?;
        let link: FdLink = trace.take_link(made).map_err(|e| fail(e.into()))?.into();
        let pin = pin(instance, program);
        // The old one counted until here, the new one counts from here.
        let _ = fs::remove_file(&pin);
        link.pin(pin).map_err(|e| fail(e.into()))?;
        Ok(())
    }
}
