//! A question by DNS over UDP (RFC 1035).
//!
//! A reply with response code 0 is well, as keepalived has it, whether or not there are records in it: that a name
//! has none of a type is an answer. Only the header and the question are read, so no kind of record can be unknown,
//! and one that did not fit (RFC 2181 section 9) is as good as any.

use crate::check::Record;
use crate::machine::{Outcome, Weight};
use crate::why::Why;
use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question(Query);

impl Question {
    /// The error says what is wrong with the name.
    pub fn new(name: &str, record: Record) -> Result<Self, Why> {
        let mut name = Name::from_str_relaxed(name).map_err(|error| Why::new(error.to_string()))?;
        name.set_fqdn(true);
        let record = match record {
            Record::A => RecordType::A,
            Record::Ns => RecordType::NS,
            Record::Cname => RecordType::CNAME,
            Record::Soa => RecordType::SOA,
            Record::Mx => RecordType::MX,
            Record::Txt => RecordType::TXT,
            Record::Aaaa => RecordType::AAAA,
        };
        Ok(Self(Query::query(name, record)))
    }

    /// The query. `id` is random for each attempt. Recursion is asked for, as keepalived does: a resolver should
    /// answer, and a server of a zone does not mind.
    pub fn query(&self, id: u16) -> Result<Vec<u8>, Why> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.0.clone());
        message.to_vec().map_err(|error| Why::new(error.to_string()))
    }

    /// A datagram came in. None: it answers another query, a late or a forged one; wait on.
    pub fn judge(&self, id: u16, datagram: &[u8]) -> Option<Outcome> {
        let mut decoder = BinDecoder::new(datagram);
        let Ok(Header { metadata, counts }) = Header::read(&mut decoder) else {
            return Some(Err(Why::of("the reply is no DNS")));
        };
        if metadata.id != id || metadata.message_type != MessageType::Response {
            return None;
        }
        // A server that refuses need not repeat the question.
        if metadata.response_code != ResponseCode::NoError {
            return Some(Err(Why::new(format!("response code {}", metadata.response_code.low()))));
        }
        let queries = Message::read_queries(&mut decoder, counts.queries.min(2).into());
        Some(match queries.as_deref() {
            Ok([question]) if counts.queries == 1 && *question == self.0 => Ok(Weight::Keep),
            Ok(_) => Err(Why::of("the reply is about another question")),
            Err(_) => Err(Why::of("the reply is no DNS")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// example.com. A, id 0x1234, recursion desired.
    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

    fn question() -> Question {
        Question::new("example.com.", Record::A).unwrap()
    }

    /// The query turned into a reply with these flags.
    fn reply(flags: [u8; 2]) -> Vec<u8> {
        [&QUERY[..2], &flags, &QUERY[4..]].concat()
    }

    #[test]
    fn queries() {
        assert_eq!(question().query(0x1234).unwrap(), QUERY);
        let root = Question::new(".", Record::Soa).unwrap().query(7).unwrap();
        assert_eq!(root, b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01");
        for record in Record::ALL {
            let query = Question::new("_dmarc.example", record).unwrap().query(7).unwrap();
            let number = u16::from_be_bytes([query[query.len() - 4], query[query.len() - 3]]);
            let expected = [1, 2, 5, 6, 15, 16, 28][Record::ALL.iter().position(|r| *r == record).unwrap()];
            assert_eq!(number, expected, "{}", record.name());
        }
        assert!(Question::new("a..b", Record::A).is_err());
        assert!(Question::new(&"a".repeat(64), Record::A).is_err());
    }

    #[test]
    fn replies() {
        let judge = |bytes: &[u8]| {
            let found = question().judge(0x1234, bytes);
            found.map_or("…".into(), |o| o.map_or_else(|why| why.to_string(), |_| "well".into()))
        };
        // RFC 1035 section 4.1.1: QR, RD, RA; code 0.
        assert_eq!(judge(&reply([0x81, 0x80])), "well");
        assert_eq!(judge(&reply([0x83, 0x80])), "well", "truncated");
        let answered = [&reply([0x85, 0x80])[..], b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc0\x00\x02\x01"];
        let mut answered = answered.concat();
        answered[7] = 1;
        assert_eq!(judge(&answered), "well");
        for (code, name) in [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5"), (9, "9"), (15, "15")] {
            assert_eq!(judge(&reply([0x81, 0x80 | code])), format!("response code {name}"));
        }
        // Refused, with nothing but the header.
        assert_eq!(judge(b"\x12\x34\x81\x05\0\0\0\0\0\0\0\0"), "response code 5");
        assert_eq!(judge(b"\x12\x34\x81\x80\0\0\0\0\0\0\0\0"), "the reply is about another question");
        // Names are the same in whatever case.
        let shouted: Vec<u8> = reply([0x81, 0x80]).iter().map(u8::to_ascii_uppercase).collect();
        assert_eq!(judge(&shouted), "well");
        let mut other = reply([0x81, 0x80]);
        other[13] = b'f';
        assert_eq!(judge(&other), "the reply is about another question");
        let mut record = reply([0x81, 0x80]);
        record[26] = 2;
        assert_eq!(judge(&record), "the reply is about another question");
        let mut two = reply([0x81, 0x80]);
        two[5] = 2;
        two.extend_from_slice(&QUERY[12..]);
        assert_eq!(judge(&two), "the reply is about another question");
        // Another's.
        let mut late = reply([0x81, 0x80]);
        late[1] = 0;
        assert_eq!(judge(&late), "…");
        assert_eq!(judge(QUERY), "…", "a query");
        for length in 0..QUERY.len() {
            assert_eq!(judge(&reply([0x81, 0x80])[..length]), "the reply is no DNS", "{length}");
        }
        // A name that points to itself.
        assert_eq!(judge(b"\x12\x34\x81\x80\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"), "the reply is no DNS");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80), ours in any::<bool>()) {
            let bytes = if ours { [b"\x12\x34\x81\x80\x00\x01", &bytes[..]].concat() } else { bytes };
            let _ = question().judge(0x1234, &bytes);
        }

        #[test]
        fn any_name(name in "\\PC{0,40}", record in prop::sample::select(&Record::ALL[..])) {
            if let Ok(question) = Question::new(&name, record) {
                let mut query = question.query(9).unwrap();
                query[2] |= 0x80;
                prop_assert_eq!(question.judge(9, &query), Some(Ok(Weight::Keep)), "{}", name);
            }
        }
    }
}
