//! Who is at the other end of a connection within this host.

use nix::unistd::Uid;
use procfs::net::{TcpNetEntry, TcpState};
use std::net::SocketAddr;

/// The user whose socket is connected from `peer` to `own`, both of this host and network namespace. None: nobody has it any
/// more, or it cannot be read.
pub fn of(peer: SocketAddr, own: SocketAddr) -> Option<Uid> {
    let all = if own.is_ipv4() { procfs::net::tcp() } else { procfs::net::tcp6() };
    let ends = |entry: &TcpNetEntry| (entry.local_address, entry.remote_address) == (peer, own);
    let entry = all.ok()?.into_iter().find(ends)?;
    is_somebodys(&entry.state, entry.inode).then(|| Uid::from_raw(entry.uid))
}

/// A socket that was closed has no inode, and of those the kernel says that they are root's.
fn is_somebodys(state: &TcpState, inode: u64) -> bool {
    *state == TcpState::Established && inode != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn a_connection_is_its_users_until_he_closes_it() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(local).unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (theirs, peer) = listener.accept().unwrap();
            let own = theirs.local_addr().unwrap();
            assert_eq!(of(peer, own), Some(nix::unistd::getuid()), "{local}");
            assert_eq!(of(own, (peer.ip(), 1).into()), None);
            ours.shutdown(Shutdown::Write).unwrap();
            drop(ours);
            assert_eq!(of(peer, own), None, "{local}");
        }
    }

    #[test]
    fn what_the_kernel_calls_roots_without_a_socket_is_nobodys() {
        assert!(is_somebodys(&TcpState::Established, 7));
        assert!(!is_somebodys(&TcpState::FinWait2, 0));
        assert!(!is_somebodys(&TcpState::Established, 0));
        assert!(!is_somebodys(&TcpState::CloseWait, 7));
    }
}
