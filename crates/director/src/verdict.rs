//! What becomes of a packet, and why. Each reason is a counter, a line of
//! `dirigent stats --drops` and a row of docs/drops.md.

/// What the executor does with the packet. One match in each adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Action {
    /// Unchanged, to the host's stack.
    Pass,
    /// XDP only: unchanged, to the tc program, which decides.
    HandOver,
    /// Unchanged, to a later stage; `ifindex` is its number.
    Continue,
    /// Rewritten, to the host's stack as a packet for this host.
    Deliver,
    /// Rewritten, to the host's stack to be forwarded (and cut).
    Forward,
    /// Gone.
    Drop,
    /// A finished frame, out of `ifindex`.
    Transmit,
    /// A finished IP packet, out of `ifindex`; the kernel finds the neighbour
    /// and holds the packet meanwhile.
    Resolve,
}

impl Action {
    /// All actions, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Pass,
        Self::HandOver,
        Self::Continue,
        Self::Deliver,
        Self::Forward,
        Self::Drop,
        Self::Transmit,
        Self::Resolve,
    ];
}

/// The outcome of the packet path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
#[repr(C)]
pub struct Verdict {
    /// Outgoing interface, where the action has one.
    pub ifindex: u32,
    /// What to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    /// Unchanged to the host's stack.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self { ifindex: 0, action: Action::Pass, reason }
    }
    /// Gone.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self { ifindex: 0, action: Action::Drop, reason }
    }
    /// An action without an interface.
    #[inline(always)]
    pub const fn of(action: Action, reason: Reason) -> Self {
        Self { ifindex: 0, action, reason }
    }
    /// An action with an interface.
    #[inline(always)]
    pub const fn out(action: Action, reason: Reason, ifindex: u32) -> Self {
        Self { ifindex, action, reason }
    }
}

/// A step of the packet path: its result, or the verdict that ends it.
pub type Decision<T> = Result<T, Verdict>;

/// What kind of reason it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReasonKind {
    /// The packet went where it should.
    Forwarded,
    /// Not the director's business.
    Passed,
    /// Answered with an ICMP error or a reset.
    Answered,
    /// Lost.
    Dropped,
}

macro_rules! reasons {
    ($($variant:ident $name:literal $kind:ident $text:literal;)*) => {
        /// Why a packet got its verdict.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $text] $variant,)* }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];
            /// The name of the counter.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }
            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }
            /// What kind of reason it is.
            pub const fn kind(self) -> ReasonKind {
                match self { $(Reason::$variant => ReasonKind::$kind,)* }
            }
        }
    };
}

reasons! {
    Request "request" Forwarded "A client's packet went to its real server.";
    Reply "reply" Forwarded "A real server's answer went to its client.";
    IcmpRequest "icmp_request" Forwarded "An ICMP error about an answer went to the real server.";
    TunnelError "tunnel_error" Forwarded "An ICMP error about a tunnel went to the client whose packet was in it.";
    IcmpReply "icmp_reply" Forwarded "An ICMP error about a request went to the client.";
    LocalServer "local_server" Forwarded "The real server is this host.";
    LocalReply "local_reply" Forwarded "An answer of a real server on this host left as the virtual service.";
    OnePacketReply "one_packet_reply" Forwarded "An answer to a one-packet service was translated without a connection.";
    ProbeReply "probe_reply" Forwarded "A real server's answer, or an ICMP error, went to the health check that it is for.";
    LaterStage "later_stage" Forwarded "Not an easy case: a later stage decides and counts.";
    HandedToTc "handed_to_tc" Forwarded "XDP could not finish the packet and left it, unchanged, to tc.";

    NotConfigured "not_configured" Passed "The director has no settings yet.";
    UnusedLink "unused_link" Passed "The interface is not one of the director's.";
    OtherMac "other_mac" Passed "The frame is for another MAC address.";
    OtherEthertype "other_ethertype" Passed "Neither IPv4 nor IPv6.";
    Vlan "vlan" Passed "Tagged for a VLAN: the VLAN's own device gets it.";
    Malformed "malformed" Passed "The IP header is wrong; the host's stack drops and counts it.";
    OtherProtocol "other_protocol" Passed "Neither TCP, UDP, SCTP nor an ICMP error.";
    NoService "no_service" Passed "No connection, and no virtual service at this address and port.";
    NotHeld "not_held" Passed "The virtual address is not on this host.";
    NotSyn "not_syn" Passed "A TCP or SCTP packet of no connection that cannot open one (no SYN, no INIT): the host answers it.";
    FtpData "ftp_data" Passed "A new flow from port 20, which IPVS leaves to the host.";
    Bypassed "bypassed" Passed "A firewall mark's service has no server for it (cache_bypass): the host routes it.";
    LaterFragment "later_fragment" Passed "A piece of a datagram that is none of ours.";
    IcmpPiece "icmp_piece" Passed "A piece of an ICMP message: the host puts it together.";
    IcmpUnrelated "icmp_unrelated" Passed "An ICMP message about no connection.";
    ReplyExpires "reply_expires" Passed "A server's answer with TTL 1: the host tells the server.";
    ReplyTooBig "reply_too_big" Passed "A server's answer too long for the client's route: the host tells the server.";

    TtlExpired "ttl_expired" Answered "TTL 1 towards a server: time exceeded was sent.";
    TooBig "too_big" Answered "Too long for the server's route: the sender was told the MTU.";
    NoRoute "no_route" Answered "No route to the real server: host unreachable was sent.";
    NoServer "no_server" Answered "No real server can take the connection: port unreachable was sent.";
    Refused "refused" Answered "A client asked for a port of a virtual address that no service has (vip_default): refused, as a closed port is.";
    Reset "reset" Answered "A packet of a connection whose server failed (on_failure_connections): its sender got a reset.";
    Stray "stray" Answered "A server's packet of no connection (nat_icmp_send): port unreachable was sent.";

    ErrorWithheld "error_withheld" Dropped "An ICMP error was due but over its rate limit.";
    ErrorUnsent "error_unsent" Dropped "An ICMP error was due but could not be built.";
    NoErrorAboutIcmp "no_error_about_icmp" Dropped "An ICMP error, or a later piece of a datagram, that cannot go on: no error is sent about it (RFC 1122 §3.2.2).";
    FragNoFirst "frag_no_first" Dropped "A piece of a datagram whose first piece has not come yet.";
    NoChecksum "no_checksum" Dropped "Pieces of a UDP datagram over IPv6 without a checksum, which RFC 8200 forbids.";
    ShortTransport "short_transport" Dropped "The TCP, UDP or SCTP header is cut short.";
    SctpPiece "sctp_piece" Dropped "A piece of an SCTP packet whose port would change: its checksum covers all pieces.";
    SctpOffload "sctp_offload" Dropped "An SCTP packet that an offload has yet to finish, where its checksum or segments matter.";
    TunnelTold "tunnel_told" Dropped "An ICMP error about a tunnel: noted, and nobody to be told.";
    IcmpChecksum "icmp_checksum" Dropped "A related ICMP error with a wrong checksum.";
    Martian "martian" Dropped "A source address that cannot be: own, loopback, multicast or unspecified.";
    ServerRemoved "server_removed" Dropped "The connection's real server was removed.";
    ResetOver "reset_over" Dropped "A reset, or a later piece of a packet, of a connection whose server failed (on_failure_connections): nothing answers it.";
    ServerIsClient "server_is_client" Dropped "A real server was picked as its own client.";
    ClientOnDirector "client_on_director" Dropped "A client on the director itself asked the virtual service.";
    Unpinned "unpinned" Dropped "A packet from the probes' namespace that no health check of a server has announced.";
    Denied "denied" Dropped "A packet that would open a connection, of a client that allow and deny keep out.";
    DropPacket "drop_packet" Dropped "A packet that would open a connection, of which drop_packet drops one in so many.";
    TableFull "table_full" Dropped "The connection table is full; known connections go on.";
    ReplyKeyTaken "reply_key_taken" Dropped "Every server has a connection of this client port already.";
    Raced "raced" Dropped "Lost a race for the connection; the sender tries again.";
    ReplyUnroutable "reply_unroutable" Dropped "No route to the client.";
    Uncut "uncut" Dropped "Too long for its route, and not to be cut: an offload has yet to finish it.";
    FtpNoRoom "ftp_no_room" Dropped "An FTP server's answer to PASV without room for the virtual address.";
    OnePacketAmbiguous "one_packet_ambiguous" Dropped "An answer that several one-packet services may own.";
    RewriteFailed "rewrite_failed" Dropped "The packet changed under way and could not be rewritten.";
    StageMissing "stage_missing" Dropped "A later stage of the packet path is not loaded.";
    TransmitFailed "transmit_failed" Dropped "The kernel lost the frame after the verdict (redirect error).";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_register() {
        assert_eq!(size_of::<Verdict>(), 8);
    }

    #[test]
    fn actions_are_in_their_places() {
        assert!(Action::ALL.iter().enumerate().all(|(i, action)| *action as usize == i));
    }

    #[test]
    fn names_are_unique() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert_eq!(*a as usize, i);
            assert!(Reason::ALL.iter().skip(i + 1).all(|b| b.name() != a.name()));
        }
    }
}
