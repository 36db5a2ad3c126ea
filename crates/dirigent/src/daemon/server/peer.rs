//! Who asks, and what he may.

use super::Shared;
use crate::failure::{Failure, code};
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;
use tokio::net::UnixStream;

/// A process at the other end of the socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<Uid>,
    gid: Option<Gid>,
    pid: Option<i32>,
}

impl Peer {
    /// Whom the kernel names.
    pub fn of(stream: &UnixStream) -> Self {
        let cred = stream.peer_cred().ok();
        Self {
            uid: cred.map(|c| Uid::from_raw(c.uid())),
            gid: cred.map(|c| Gid::from_raw(c.gid())),
            pid: cred.and_then(|c| c.pid()),
        }
    }

    /// What connections are counted by.
    pub fn user(self) -> Option<u32> {
        self.uid.map(Uid::as_raw)
    }

    fn account(self) -> Option<User> {
        self.uid.and_then(|uid| User::from_uid(uid).ok().flatten())
    }

    /// For the history.
    pub fn name(self) -> String {
        let name = match (self.account(), self.uid) {
            (Some(user), _) => user.name,
            (None, Some(uid)) => format!("user {uid}"),
            (None, None) => "nobody known".to_owned(),
        };
        self.pid.map_or_else(|| name.clone(), |pid| format!("{name}, process {pid}"))
    }

    /// Whether he may change the director: root, the daemon's own user, and the members of the operators' group.
    pub fn operates(self, operators: Option<Gid>) -> bool {
        if self.uid.is_some_and(|uid| uid.is_root() || uid == geteuid()) {
            return true;
        }
        let Some(operators) = operators else { return false };
        let member = |user: User| {
            let name = CString::new(user.name).ok()?;
            getgrouplist(&name, user.gid).ok().map(|groups| groups.contains(&operators))
        };
        self.gid == Some(operators) || self.account().and_then(member).unwrap_or(false)
    }
}

/// Who may use the socket may read; only operators change anything. Nobody else's body is read.
pub async fn operators_only(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) || peer.operates(shared.operators) {
        return next.run(request).await;
    }
    let what = "only root and members of the group `operators` may change a director";
    let remedy = "run it as root, or set `operators` in the configuration and join that group";
    Failure { code: code::KERNEL, ..Failure::new("the control socket", what, remedy) }.into_response()
}
