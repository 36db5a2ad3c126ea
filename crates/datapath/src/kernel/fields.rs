//! Where the running kernel keeps a field of one of its structures: from its own type
//! information (BTF), the little of that format which this takes.

/// `struct btf_type`: where its name is, its kind and count, and its size or the type it refers to.
#[derive(Clone, Copy)]
struct Type {
    name: usize,
    kind: u32,
    count: usize,
    flag: bool,
    refers: usize,
    /// Where what follows it begins.
    body: usize,
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;

/// A kernel's type information.
pub(super) struct Types {
    bytes: Vec<u8>,
    types: Vec<Type>,
    strings: usize,
}

impl Types {
    /// Reads the content of `/sys/kernel/btf/vmlinux`.
    pub(super) fn read(bytes: Vec<u8>) -> Option<Self> {
        // magic, version and flags, length of the header; then where the types and strings are.
        let header = word(&bytes, 4)?;
        if word(&bytes, 0)? & 0xffff != 0xeb9f {
            return None;
        }
        let begin = header + word(&bytes, 8)?;
        let end = begin + word(&bytes, 12)?;
        let mut found = Self { strings: header + word(&bytes, 16)?, bytes, types: Vec::new() };
        let mut at = begin;
        while at < end {
            let one = found.type_at(at)?;
            // Bytes of each of its members, or of what follows it once.
            let (each, once) = match one.kind {
                1 | 14 | 17 => (0, 4),
                3 => (0, 12),
                STRUCT | UNION | 15 | 19 => (12, 0),
                6 | 13 => (8, 0),
                2 | 7..=12 | 16 | 18 => (0, 0),
                _ => return None,
            };
            at = one.body + each * one.count + once;
            found.types.push(one);
        }
        Some(found)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(&self.bytes, at + 4)?;
        Some(Type {
            name: word(&self.bytes, at)?,
            kind: (info as u32) >> 24 & 0x1f,
            count: info & 0xffff,
            flag: info >> 31 != 0,
            refers: word(&self.bytes, at + 8)?,
            body: at + 12,
        })
    }

    fn named(&self, at: usize, name: &str) -> bool {
        let text = self.bytes.get(self.strings + at..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Type number `id`, behind its typedefs. Number 0 is `void`.
    fn get(&self, id: usize) -> Option<Type> {
        let mut one = *self.types.get(id.checked_sub(1)?)?;
        // A chain longer than this is none.
        for _ in 0..8 {
            if one.kind != TYPEDEF {
                break;
            }
            one = *self.types.get(one.refers.checked_sub(1)?)?;
        }
        Some(one)
    }

    /// How many bytes into `structure` the field at the end of `path` is.
    pub(super) fn offset(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let all = self.types.iter().filter(|t| t.kind == STRUCT && t.count > 0 && self.named(t.name, structure));
        let bits = all.into_iter().find_map(|t| self.bits(*t, path, 8))?;
        u32::try_from(bits / 8).ok()
    }

    fn bits(&self, of: Type, path: &[&str], depth: usize) -> Option<usize> {
        let (Some((first, rest)), STRUCT | UNION) = (path.split_first(), of.kind) else {
            return path.is_empty().then_some(0);
        };
        (0..of.count).find_map(|i| {
            let member = of.body + 12 * i;
            let (name, id) = (word(&self.bytes, member)?, word(&self.bytes, member + 4)?);
            let offset = word(&self.bytes, member + 8)?;
            // With the flag the upper byte is the width of a bit field.
            let offset = if of.flag { offset & 0xff_ffff } else { offset };
            let rest = if self.named(name, first) {
                rest
            } else if name == 0 || self.named(name, "") {
                // Fields of one without a name are its structure's own.
                path
            } else {
                return None;
            };
            let inner = if rest.is_empty() { 0 } else { self.bits(self.get(id)?, rest, depth.checked_sub(1)?)? };
            Some(offset + inner)
        })
    }
}

/// The 32-bit word at a place.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_ne_bytes(*word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        assert!(Types::read(Vec::new()).is_none());
        assert!(Types::read(vec![0; 64]).is_none());
    }

    /// Against the compiler's own idea of it, where the kernel has told us its types.
    #[test]
    fn fields_are_where_the_kernel_says() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let types = Types::read(bytes).unwrap();
        // A structure of the kernel's interface, which cannot change: struct bpf_fib_lookup.
        assert_eq!(types.offset("bpf_fib_lookup", &["family"]), Some(0));
        assert_eq!(types.offset("bpf_fib_lookup", &["ifindex"]), Some(8));
        assert_eq!(types.offset("bpf_fib_lookup", &["ipv4_dst"]), Some(32), "in a union without a name");
        assert_eq!(types.offset("bpf_fib_lookup", &["nothing"]), None);
        assert_eq!(types.offset("no_such_structure", &["family"]), None);
        for (structure, path) in super::super::losses::FIELDS {
            assert!(types.offset(structure, path).is_some(), "{structure} {path:?}");
        }
    }
}
