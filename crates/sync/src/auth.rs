//! A shared key for the messages of the extension: HMAC-SHA256 (RFC 2104) over the whole datagram
//! but the tag itself. Off unless a key is configured, since kernels do not have it.

use hmac::{Hmac, KeyInit as _, Mac};
use sha2::Sha256;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 32;

/// A key that both nodes have.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Fewest bytes that a key is made of.
    pub const MIN_BYTES: usize = 16;

    /// From a shared secret of at least 16 bytes; else nothing.
    pub fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < Self::MIN_BYTES {
            return None;
        }
        Hmac::new_from_slice(secret).ok().map(Self)
    }

    /// The tag of these bytes.
    pub fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// Whether the tag is of these bytes; takes as long whatever the tag is.
    pub fn verify(&self, bytes: &[u8], tag: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac.verify_slice(tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4231_test_case_1() {
        let key = Key::new(&[0x0b; 20]).unwrap();
        let tag = key.tag(b"Hi There");
        assert_eq!(tag[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
        assert!(key.verify(b"Hi There", &tag));
        assert!(!key.verify(b"Hi there", &tag));
        assert!(!key.verify(b"Hi There", &tag[..31]));
        assert!(Key::new(&[0; 15]).is_none());
    }
}
