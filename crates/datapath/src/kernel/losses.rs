//! Counting frames that XDP loses after the verdict: programs on the kernel's
//! tracepoints, pinned like the attachments, so that they count without a daemon.

use std::{fs, path::PathBuf};

use aya::programs::{TracePoint, links::FdLink, trace_point::TracePointLink};

use super::{error::Error, load::Instance, load::Kernel, sys};

/// Program, and the tracepoint of category `xdp` it sits on.
const LOSSES: [(&str, &str); 4] = [
    ("dirigent_lost_exception", "xdp_exception"),
    ("dirigent_lost_redirect", "xdp_redirect_err"),
    ("dirigent_lost_transmit", "xdp_devmap_xmit"),
    ("dirigent_lost_return", "xdp_bulk_tx"),
];

/// Where tracefs is mounted by convention.
const TRACEFS: &str = "/sys/kernel/tracing";

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
    /// Begins to count lost frames, or goes on with this object's programs. Without
    /// tracefs (it is mounted where it is missing) they stay uncounted: the error says so.
    pub fn count_losses(&mut self) -> Result<(), Error> {
        let instance = self.instance.clone().ok_or(Error::NotPinned)?;
        sys::mount_tracefs(TRACEFS).map_err(|e| Error::path(TRACEFS, e))?;
        LOSSES.into_iter().try_for_each(|(program, event)| self.count_loss(&instance, program, event))
    }

    fn count_loss(&mut self, instance: &Instance, program: &'static str, event: &str) -> Result<(), Error> {
        let fail = |source: Box<dyn std::error::Error + Send + Sync>| Error::Attach {
            program,
            interface: format!("tracepoint xdp:{event}"),
            source,
        };
        let found = self.ebpf.program_mut(program);
        let trace: &mut TracePoint = found
            .ok_or_else(|| Error::Program { program: program.to_owned(), kind: "tracepoint" })?
            .try_into()
            .map_err(|_| Error::Program { program: program.to_owned(), kind: "tracepoint" })?;
        let made = trace.attach("xdp", event).map_err(|e| fail(e.into()))?;
        let link: TracePointLink = trace.take_link(made).map_err(|e| fail(e.into()))?;
        let link = FdLink::try_from(link).map_err(|e| fail(e.into()))?;
        let pin = pin(instance, program);
        // The old one counted until here, the new one counts from here.
        let _ = fs::remove_file(&pin);
        link.pin(pin).map_err(|e| fail(e.into()))?;
        Ok(())
    }
}
