//! One daemon of a name at a time: a lock that ends with its holder, however that ends.

use crate::failure::{Failure, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Where locks and sockets are.
pub const DIRECTORY: &str = "/run/dirigent";

/// The lock file of an instance; it holds the daemon's process number.
pub fn lock_path(instance: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{instance}.lock"))
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "its drop unlocks")] Flock<File>);

impl Lock {
    /// Takes it, or says who has it.
    pub fn take(instance: &str) -> Result<Self> {
        let path = lock_path(instance);
        let place = || path.display().to_string();
        fs::create_dir_all(DIRECTORY).map_err(|e| Failure::io(DIRECTORY, &e))?;
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(|e| Failure::io(place(), &e))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut pid);
                let what = format!("a daemon of {instance} runs already (process {})", pid.trim());
                return Err(Failure::new(place(), what, "end that one first, or choose another --instance"));
            }
            Err((_, errno)) => return Err(Failure::io(place(), &errno.into())),
        };
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|e| Failure::io(place(), &e))?;
        Ok(Self(lock))
    }
}
