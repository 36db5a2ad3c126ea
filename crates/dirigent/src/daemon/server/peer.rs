//! Who asks, and what he may.

use super::{Shared, browser};
use crate::failure::{Failure, code};
use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;
use std::net::IpAddr;
use tokio::net::UnixStream;

/// Whoever asks.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process of this host, by the socket.
    Local { uid: Option<Uid>, gid: Option<Gid>, pid: Option<i32> },
    /// Somebody with a certificate, over TCP.
    Remote {
        /// The names in it.
        names: Vec<String>,
        address: IpAddr,
    },
    /// A process of this host, by the page's port; it is not known whose if he has gone.
    Browser { uid: Option<Uid> },
    /// Whoever reaches the port of metrics.
    Anybody { address: IpAddr },
}

/// Who may read and change the director, beside root and the daemon's own user.
#[derive(Clone, Debug, Default)]
pub struct Operators {
    /// Members of this group.
    pub group: Option<Gid>,
    /// Owners of certificates with one of these names.
    pub names: Vec<String>,
    /// Members of this group may only read, if it is another one: whose group the control socket is.
    pub readers: Option<Gid>,
    /// From a browser, too.
    pub browse: bool,
}

/// Whom connections are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    User(Option<u32>),
    Named(Vec<String>),
    At(IpAddr),
}

impl Peer {
    /// Whom the kernel names.
    pub fn of(stream: &UnixStream) -> Self {
        let cred = stream.peer_cred().ok();
        Self::Local {
            uid: cred.map(|c| Uid::from_raw(c.uid())),
            gid: cred.map(|c| Gid::from_raw(c.gid())),
            pid: cred.and_then(|c| c.pid()),
        }
    }

    /// What connections are counted by.
    pub fn who(&self) -> Who {
        match self {
            Self::Local { uid, .. } | Self::Browser { uid } => Who::User(uid.map(Uid::as_raw)),
            Self::Remote { names, .. } => Who::Named(names.clone()),
            Self::Anybody { address } => Who::At(*address),
        }
    }

    /// For the history.
    pub fn name(&self) -> String {
        let (uid, pid) = match self {
            Self::Local { uid, pid, .. } => (*uid, *pid),
            Self::Browser { uid } => (*uid, None),
            Self::Remote { names, address } => return format!("{}, from {address}", names.join(" ")),
            Self::Anybody { address } => return format!("somebody, from {address}"),
        };
        let name = match (uid.and_then(account), uid) {
            (Some(user), _) => user.name,
            (None, Some(uid)) => format!("user {uid}"),
            (None, None) => "nobody known".to_owned(),
        };
        pid.map_or_else(|| name.clone(), |pid| format!("{name}, process {pid}"))
    }

    /// Whether he may change the director.
    pub fn operates(&self, operators: &Operators) -> bool {
        let (uid, gid) = match self {
            Self::Local { uid, gid, .. } => (*uid, *gid),
            Self::Browser { uid } => (*uid, None),
            Self::Remote { names, .. } => return names.iter().any(|name| operators.names.contains(name)),
            Self::Anybody { .. } => return false,
        };
        belongs(uid, gid, operators.group)
    }

    /// Whether he may read. Most have proved it by being here: only the page's port is open to every user of this host.
    pub fn reads(&self, operators: &Operators) -> bool {
        match self {
            Self::Browser { uid } => belongs(*uid, None, operators.readers) || self.operates(operators),
            _ => true,
        }
    }
}

/// Whether a user is root, the daemon's own, or one of this group.
fn belongs(uid: Option<Uid>, gid: Option<Gid>, group: Option<Gid>) -> bool {
    if uid.is_some_and(|uid| uid.is_root() || uid == geteuid()) {
        return true;
    }
    let Some(group) = group else { return false };
    let member = |user: User| {
        let name = CString::new(user.name).ok()?;
        getgrouplist(&name, user.gid).ok().map(|groups| groups.contains(&group))
    };
    gid == Some(group) || uid.and_then(account).and_then(member).unwrap_or(false)
}

fn account(uid: Uid) -> Option<User> {
    User::from_uid(uid).ok().flatten()
}

/// Who may use the socket may read; only operators change anything. Nobody else's body is read.
pub async fn operators_only(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if browser::is_safe(request.method()) || peer.operates(&shared.operators) {
        return next.run(request).await;
    }
    let (place, what, remedy) = match peer {
        Peer::Local { .. } | Peer::Browser { .. } => (
            "the control socket",
            "only root and members of the group `operators` may change a director",
            "run it as root, or set `operators` in the configuration and join that group",
        ),
        Peer::Remote { .. } => (
            "[director.api]",
            "only certificates with one of `operator_names` may change a director",
            "use such a certificate, or add a name of this one to `operator_names`",
        ),
        Peer::Anybody { .. } => {
            ("[director.metrics]", "nothing but metrics is to be had by this port", "use the control API")
        }
    };
    Failure { code: code::KERNEL, ..Failure::new(place, what, remedy) }.into_response()
}
