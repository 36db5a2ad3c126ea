//! The kernel side, seen from user space: loading the object and pinning its maps
//! ([`load`]), attaching it to interfaces ([`attach`]), the tables ([`table`]), and
//! running a program on a frame of one's own ([`testrun`]).
//!
//! Everything of one director lies below `/sys/fs/bpf/dirigent/<instance>/`: `maps/`
//! holds the maps, `links/` the attachments. They forward packets whether or not a
//! daemon runs; a new daemon takes them over.

pub mod attach;
pub mod endpoint;
pub mod error;
mod fields;
pub mod load;
mod losses;
mod netlink;
pub mod news;
pub mod select;
pub mod shape;
pub mod stages;
pub(crate) mod sys;
pub mod table;
pub mod testrun;
pub mod trace;

pub use attach::{Attached, Attachment, Hook, LOOPBACK, TcKind, attached, detach_all, has_tcx};
pub use endpoint::{Endpoint, endpoint_counts};
pub use error::Error;
pub use load::{Instance, Kernel, LoadOptions, Verified, pin_pass, verify};
pub use news::News;
pub use select::{Choice, Facts, Mode, PathKind, choose};
pub use shape::{STACK_LIMIT, Shape};
pub use stages::Features;
pub use table::{Mapped, PerCpuTable, Table};
pub use testrun::{Direction, Ran, Runner, SkbContext, Step};
pub use trace::Tracer;
