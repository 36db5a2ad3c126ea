//! Repairs the type information (BTF) of the object, in place.
//!
//! The kernel requires BTF for programs with callbacks (`bpf_loop`), and refuses all of it
//! if one type is odd. rustc describes an enum with data as a union of its variants *and*
//! its discriminant, which need not be at offset 0; members of a C union always are. Such
//! types are in the object as soon as a function that is not inlined takes or returns one.
//! Only a debugger would look at the offset, so it is set to 0.
//! (The loader's log of the kernel then reads "UNION (anon) ... Invalid member bits_offset".)

use std::ops::Range;

const UNION: u32 = 5;

/// Sets the offset of every union member to 0; returns how many were not.
pub fn repair(btf: &mut [u8]) -> Result<usize, String> {
    let short = || "its .BTF section is cut off".to_owned();
    let word = |btf: &[u8], at: usize| {
        let bytes = btf.get(at..).and_then(<[u8]>::first_chunk::<4>).ok_or_else(short)?;
        Ok::<_, String>(u32::from_le_bytes(*bytes))
    };
    // struct btf_header: magic, version, flags; hdr_len; type_off; type_len; ...
    let header = word(btf, 4)? as usize;
    let types = header + word(btf, 8)? as usize;
    let types = Range { start: types, end: types + word(btf, 12)? as usize };
    let mut repaired = 0;
    let mut at = types.start;
    while at < types.end {
        // struct btf_type: name_off; info (vlen, kind, kind_flag); size or type
        let info = word(btf, at + 4)?;
        let (count, kind, bit_fields) = ((info & 0xffff) as usize, info >> 24 & 0x1f, info >> 31 == 1);
        at += 12;
        let each = match kind {
            1 | 14 | 17 => 4,                  // INT, VAR, DECL_TAG: one word
            3 => 12,                           // ARRAY: three
            4 | UNION | 15 | 19 => 12 * count, // STRUCT, UNION, DATASEC, ENUM64
            6 | 13 => 8 * count,               // ENUM, FUNC_PROTO
            2 | 7..=12 | 16 | 18 => 0,         // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            _ => return Err(format!("its .BTF section holds a type of unknown kind {kind}")),
        };
        if kind == UNION {
            for member in 0..count {
                // struct btf_member: name_off; type; offset (with bit fields: their size in the top byte)
                let place = at + 12 * member + 8;
                let offset = word(btf, place)?;
                let fixed = if bit_fields { offset & 0xff00_0000 } else { 0 };
                if fixed != offset {
                    btf.get_mut(place..place + 4).ok_or_else(short)?.copy_from_slice(&fixed.to_le_bytes());
                    repaired += 1;
                }
            }
        }
        at += each;
    }
    Ok(repaired)
}
