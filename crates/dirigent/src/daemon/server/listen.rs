//! The control socket itself: who may open it; and ports.

use crate::failure::{Failure, Result};
use nix::unistd::{Gid, Group};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

/// The group of that name; `key` is where it stands.
pub fn group(key: &str, name: &str) -> Result<Gid> {
    let unknown = || Failure::new(key, format!("there is no group {name}"), format!("create it, or change `{key}`"));
    let found = Group::from_name(name).map_err(|e| Failure::io(key, &e.into()))?;
    found.map(|group| group.gid).ok_or_else(unknown)
}

/// Opens a port; `table` is where it stands.
pub async fn port(table: &str, listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|e| Failure::io(format!("{table} listen {listen}"), &e))
}

/// Opens the socket in place of a dead daemon's. Its group may use it; the caller holds the lock.
pub fn listen(socket: &Path, group: Option<Gid>) -> Result<UnixListener> {
    let fail = |e: std::io::Error| Failure::io(socket.display().to_string(), &e);
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).map_err(fail)?;
    }
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    // Closed to all until its group is right.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    nix::sys::stat::umask(before);
    let listener = listener.map_err(fail)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(socket, None, Some(group.as_raw())).map_err(fail)?;
    }
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(listener)
}
