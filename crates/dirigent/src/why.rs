//! Why packets must go as they do, by forwarding method, in words: for whoever draws their way.

/// Who they are about.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The client, with its port where there is one.
    pub client: &'a str,
    /// What it asks: the virtual address.
    pub asked: &'a str,
    /// The server that answers.
    pub server: &'a str,
}

/// How packets come to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// NAT.
    Nat,
    /// Direct routing.
    Direct,
    /// Tunnelling.
    Tunnel,
    /// The director itself is the server, of whatever method.
    Local,
}

impl Method {
    /// As the method's name has it in lists; `local`: the server is the director.
    pub fn of(name: &str, local: bool) -> Self {
        match name {
            _ if local => Self::Local,
            "nat" => Self::Nat,
            "tun" => Self::Tunnel,
            _ => Self::Direct,
        }
    }

    /// Its name at the beginning of a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::Direct => "Direct routing",
            Self::Tunnel => "Tunnelling",
            Self::Local => "Local server",
        }
    }

    /// Whether the director carries answers too.
    pub fn carries_answers(self) -> bool {
        matches!(self, Self::Nat | Self::Local)
    }

    /// Which half the director carries.
    pub fn carries(self) -> &'static str {
        match self {
            Self::Nat => "the director carries both directions of every connection",
            Self::Direct | Self::Tunnel => "the director carries the inbound half only",
            Self::Local => "the director is the server, and carries both directions as any server does",
        }
    }
}

/// NAT: why the answer comes back through the director.
pub fn nat_answer(Names { asked, server, .. }: Names<'_>) -> String {
    format!(
        "The server answers as {server}, and only the director can make that {asked}'s again, so every answer must come back \
         through the director: that is why it is the servers' default route, and why no client is in the servers' subnet."
    )
}

/// NAT: what becomes of an answer that goes another way.
pub fn nat_around(Names { client, asked, server }: Names<'_>, tcp: bool) -> String {
    let refuses = if tcp { "refuses that with a reset (RST)" } else { "has no use for that" };
    format!(
        "Otherwise: {client} asked {asked}, so what comes from {server} belongs to no connection that its kernel has, and \
         it {refuses}; and a firewall on the way, which saw the request go to {asked}, does not know the answer from {server} \
         either, and drops it."
    )
}

/// Direct routing and tunnelling: the server answers by itself.
pub fn own_answer(Names { client, asked, .. }: Names<'_>) -> String {
    format!(
        "The server holds {asked} itself and answers {client} straight, by its own default route. The director sees \
         nothing of that."
    )
}
