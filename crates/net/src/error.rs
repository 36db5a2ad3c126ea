//! The one error type: what was being done, what went wrong, and what helps.

use std::io;

/// What went wrong. Every variant names the place and, where one is known, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{place}: {source}{}", hint(source))]
    System {
        /// What was being done, with the names it was done to.
        place: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("{place}: {source}{}{}", said(message), hint(source))]
    Netlink {
        /// What was asked for, with the names it was asked of.
        place: String,
        /// The error number as an `io::Error`.
        source: io::Error,
        /// The kernel's own words (extended acknowledgement), where it gave any.
        message: Option<String>,
    },
    /// The kernel's answer could not be understood.
    #[error(
        "{place}: the kernel's answer is not understood ({detail}); please report this with the output of `uname -r`"
    )]
    Malformed {
        /// What was asked for.
        place: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// The request makes no sense here, or something is in the way.
    #[error("{what}; {remedy}")]
    Refused {
        /// What is in the way.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error number of the kernel, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { source, .. } | Error::Netlink { source, .. } => source.raw_os_error(),
            Error::Malformed { .. } | Error::Refused { .. } => None,
        }
    }

    pub(crate) fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Refused { what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn malformed(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Malformed { place: place.into(), detail: detail.into() }
    }
}

/// Adds the place to a failed system call.
pub(crate) trait Context<T> {
    /// Names what was being done; called only on failure.
    fn context<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::System { place: place().into(), source })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::System { place: place().into(), source: errno.into() })
    }
}

fn said(message: &Option<String>) -> String {
    message.as_ref().map(|m| format!(" (kernel: {m})")).unwrap_or_default()
}

/// What helps against the errors that operators really meet.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; run it as root (it needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN)",
        Some(libc::ENODEV) => "; see `ip link` for the interfaces of this namespace",
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            "; this kernel or device lacks the feature"
        }
        _ => "",
    }
}

pub(crate) use nix::libc;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_place_cause_and_remedy() {
        let error = Error::Netlink {
            place: "adding 10.0.0.1/24 to r0".into(),
            source: io::Error::from_raw_os_error(libc::EPERM),
            message: Some("no luck".into()),
        };
        let text = error.to_string();
        assert!(text.starts_with("adding 10.0.0.1/24 to r0: "), "{text}");
        assert!(text.contains("(kernel: no luck)"), "{text}");
        assert!(text.contains("run it as root"), "{text}");
        assert_eq!(error.errno(), Some(libc::EPERM));
    }
}
