//! Why something that was received is dropped, and how much of it.

/// How much goes with a [`Reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The whole datagram, before any record of it.
    Datagram,
    /// The record and all behind it in its datagram; those before it count.
    Rest,
    /// The record alone.
    Record,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $scope:ident;)*) => {
        /// Why something that was received is not used.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)* }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];
            /// How much is dropped.
            pub const fn scope(self) -> Scope {
                match self { $(Reason::$name => Scope::$scope,)* }
            }
            /// The name of its counter.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than the shortest header (4 bytes).
    Short = "short", Datagram;
    /// Its length is not the one that it says.
    Size = "size", Datagram;
    /// Another sync id than the one this backup listens to.
    SyncId = "sync_id", Datagram;
    /// From an address that is not among those allowed.
    Source = "source", Datagram;
    /// More than the source may send.
    Limit = "limit", Datagram;
    /// More sources than are kept apart.
    Sources = "sources", Datagram;
    /// No tag, or a wrong one, where one is required.
    Unauthentic = "unauthentic", Datagram;
    /// Our own, looped back.
    Own = "own", Datagram;
    /// A number that was seen before, or an old start of that node.
    Old = "old", Datagram;
    /// A message of the extension that cannot be read.
    Malformed = "malformed", Datagram;
    /// A kind or revision of the extension that this program does not know.
    Unknown = "unknown", Datagram;
    /// A numbered message of a node that has not said hello yet.
    Stranger = "stranger", Datagram;
    /// Waiting for what is missing before it, and there is no more room.
    Room = "room", Datagram;

    /// No room for the shortest record.
    RecordShort = "record_short", Rest;
    /// A record that ends behind the datagram.
    RecordOverruns = "record_overruns", Rest;
    /// A record version other than 0.
    RecordVersion = "record_version", Rest;
    /// A record type that is neither IPv4 nor IPv6.
    RecordType = "record_type", Rest;
    /// A record length below that of its type.
    RecordLength = "record_length", Rest;
    /// An option without room for type and length.
    OptionShort = "option_short", Rest;
    /// An option of length 0, or one that ends behind its record.
    OptionLength = "option_length", Rest;
    /// Sequence data of another length than 24, or twice.
    OptionSequence = "option_sequence", Rest;
    /// Persistence-engine data twice.
    OptionPeData = "option_pe_data", Rest;
    /// The name of a persistence engine that is longer than 16, or twice.
    OptionPeName = "option_pe_name", Rest;
    /// Version 0: no room for the record or its sequence data.
    OldRecordShort = "old_record_short", Rest;

    /// A mandatory option that is not known.
    OptionUnknown = "option_unknown", Record;
    /// Of one packet, so there is nothing to keep.
    OnePacket = "one_packet", Record;
    /// A protocol that IPVS does not balance.
    Protocol = "protocol", Record;
    /// A state that the protocol does not have.
    State = "state", Record;
    /// Persistence-engine data, but no name of an engine.
    PeUnnamed = "pe_unnamed", Record;
    /// A persistence engine that this backup does not have.
    PeUnknown = "pe_unknown", Record;
    /// About a connection that has another server by now, and is live (§9.5).
    Replaced = "replaced", Record;
    /// About a connection whose packets this node has seen more recently.
    Staler = "staler", Record;
    /// To a server that the configuration here does not have.
    NoServer = "no_server", Record;
}

/// A counter for each [`Reason`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts([u64; Reason::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Reason::ALL.len()])
    }
}

impl Counts {
    /// One more.
    pub fn add(&mut self, reason: Reason) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n = n.saturating_add(1);
        }
    }
    /// How many.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }
    /// All, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().copied().zip(self.0.iter().copied())
    }
}
