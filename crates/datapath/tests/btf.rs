//! The build script's repair of type information, on types made by hand.

#[path = "../btf.rs"]
mod btf;

const INT: u32 = 1 << 24;
const STRUCT: u32 = 4 << 24;
const UNION: u32 = 5 << 24;
const FUNC: u32 = 12 << 24;
const BIT_FIELDS: u32 = 1 << 31;

fn section(types: &[u32]) -> Vec<u8> {
    let length = u32::try_from(types.len() * 4).unwrap();
    // magic and version; hdr_len; type_off; type_len; str_off; str_len
    let header = [0x0001_eb9f, 24, 0, length, length, 1];
    header.iter().chain(types).flat_map(|word| word.to_le_bytes()).chain([0]).collect()
}

#[test]
fn only_offsets_of_union_members_change() {
    let types = |discriminant: u32, bits: u32| {
        [
            &[0, INT, 4, 0x20][..],
            &[0, STRUCT | 2, 8, /**/ 0, 1, 0, /**/ 0, 1, 32],
            &[0, FUNC, 3],
            &[0, UNION | 2, 8, /**/ 0, 1, discriminant, /**/ 0, 2, 0],
            &[0, UNION | BIT_FIELDS | 1, 8, /**/ 0, 1, 4 << 24 | bits],
        ]
        .concat()
    };
    let mut odd = section(&types(32, 16));
    assert_eq!(btf::repair(&mut odd), Ok(2));
    assert_eq!(odd, section(&types(0, 0)));
    assert_eq!(btf::repair(&mut odd), Ok(0));
}

#[test]
fn what_is_not_understood_is_an_error() {
    assert!(btf::repair(&mut section(&[0, 31 << 24, 0])).is_err());
    let mut cut = section(&[0, UNION | 2, 8, 0, 1, 0, 0, 2, 0]);
    cut.truncate(40);
    assert!(btf::repair(&mut cut).is_err());
    assert!(btf::repair(&mut []).is_err());
}
