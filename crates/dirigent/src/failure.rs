//! How commands fail: what to say, and the exit code.

use dirigent_api::{Problem, Refusal};
use dirigent_config::Diagnostics;
use dirigent_datapath::kernel;
use std::fmt;
use std::io;

/// Exit codes beyond 0 and clap's 2.
pub mod code {
    /// It failed.
    pub const FAILED: u8 = 1;
    /// The configuration is invalid.
    pub const INVALID: u8 = 3;
    /// The kernel lacks a feature, or this user the rights.
    pub const KERNEL: u8 = 4;
    /// What was waited for did not come in time.
    pub const TIMEOUT: u8 = 5;
    /// The configuration is not the one any more that the change was meant for.
    pub const STALE: u8 = 6;
    /// There is no service or server of that name.
    pub const ABSENT: u8 = 7;
    /// The service or server that was to be added is there already.
    pub const EXISTS: u8 = 8;
    /// The doctor found warnings, and no errors.
    pub const WARNINGS: u8 = 9;
}

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

/// What commands return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// One problem, exit code 1.
    pub fn new(place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: code::FAILED, problems: vec![Problem::new(place, what, remedy)] }
    }
    /// A failed input or output; a lack of rights has exit code 4.
    pub fn io(place: impl Into<String>, error: &io::Error) -> Self {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let remedy = if denied { "run it as root" } else { "" };
        let code = if denied { code::KERNEL } else { code::FAILED };
        Self { code, ..Self::new(place, error.to_string(), remedy) }
    }
    /// The same as the body of an answer.
    pub fn refusal(&self) -> Refusal {
        let is = |code| self.code == code;
        let problems = self.problems.clone();
        Refusal {
            invalid: is(code::INVALID),
            stale: is(code::STALE),
            denied: is(code::KERNEL),
            absent: is(code::ABSENT),
            exists: is(code::EXISTS),
            problems,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal { invalid: true, .. } => code::INVALID,
            Refusal { stale: true, .. } => code::STALE,
            Refusal { denied: true, .. } => code::KERNEL,
            Refusal { absent: true, .. } => code::ABSENT,
            Refusal { exists: true, .. } => code::EXISTS,
            _ => code::FAILED,
        };
        Self { code, problems: refusal.problems }
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        let problem = |d: dirigent_config::Diagnostic| {
            Problem::new(format!("{}:{}:{}", d.file, d.line, d.column), d.message, d.remedy)
        };
        Self { code: code::INVALID, problems: diagnostics.0.into_iter().map(problem).collect() }
    }
}

/// EPERM, EACCES, ENOSYS and EOPNOTSUPP speak of the kernel and of rights.
fn code_of(errno: Option<i32>) -> u8 {
    match errno {
        Some(1 | 13 | 38 | 95) => code::KERNEL,
        _ => code::FAILED,
    }
}

impl From<dirigent_net::Error> for Failure {
    fn from(error: dirigent_net::Error) -> Self {
        Self { code: code_of(error.errno()), ..Self::new("", error.to_string(), "") }
    }
}

impl From<kernel::Error> for Failure {
    fn from(error: kernel::Error) -> Self {
        let code = match &error {
            kernel::Error::Load { .. } | kernel::Error::Bpffs { .. } | kernel::Error::NoObject => code::KERNEL,
            kernel::Error::Path { source, .. } | kernel::Error::System { source, .. } => code_of(source.raw_os_error()),
            _ => code::FAILED,
        };
        let root = nix::unistd::geteuid().is_root();
        let remedy = if code == code::KERNEL && !root { "run it as root" } else { "" };
        Self { code, ..Self::new("", error.to_string(), remedy) }
    }
}
