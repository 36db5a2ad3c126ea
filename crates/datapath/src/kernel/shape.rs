//! What programs are made of, read from an object without loading it: so it is the same on every kernel.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::generated::bpf_insn;

use super::error::Error;

/// The kernel's limit for the stack of a program with all that it calls.
pub const STACK_LIMIT: u32 = 512;

/// A program, with the functions that are linked into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Instructions, of 8 bytes each.
    pub instructions: u32,
    /// Bytes of stack that the deepest chain of calls takes, of [`STACK_LIMIT`].
    pub stack: u32,
}

/// All programs of an object, by name.
pub fn shapes(object: &[u8]) -> Result<BTreeMap<String, Shape>, Error> {
    let fail = |e: &dyn std::fmt::Display| Error::load("the BPF object", std::io::Error::other(e.to_string()));
    let mut object = aya_obj::Object::parse(object).map_err(|e| fail(&e))?;
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).map_err(|e| fail(&e))?;
    let linked = object.programs.iter().filter_map(|(name, program)| {
        let function = object.functions.get(&program.function_key())?;
        Some((name.clone(), shape(&function.instructions)))
    });
    Ok(linked.collect())
}

const LOAD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const ADD_IMM: u8 = 0x07;
const MOV: u8 = 0xbf;
/// The register that points to the end of a function's stack.
const FRAME: u8 = 10;
/// In the source register of a call and of a load: a function of the program's own.
const OWN_CALL: u8 = 1;
const OWN_FUNCTION: u8 = 4;

/// Classes of instructions that load and store by a register and an offset.
fn accesses(code: u8) -> (bool, bool) {
    const LDX: u8 = 1;
    const ST: u8 = 2;
    const STX: u8 = 3;
    (code & 7 == LDX, matches!(code & 7, ST | STX))
}

fn shape(program: &[bpf_insn]) -> Shape {
    // Each function as what it stores below its frame's end, and the functions that it calls, by where they begin.
    let called = |(at, insn): (usize, &bpf_insn)| {
        let own = (insn.code == CALL && insn.src_reg() == OWN_CALL)
            || (insn.code == LOAD_IMM64 && insn.src_reg() == OWN_FUNCTION);
        own.then(|| at.wrapping_add_signed(insn.imm as isize + 1))
    };
    let starts: BTreeSet<usize> = program.iter().enumerate().filter_map(called).chain([0]).collect();
    let functions: BTreeMap<usize, (u32, BTreeSet<usize>)> = starts
        .iter()
        .map(|start| {
            let end = starts.range(start + 1..).next().copied().unwrap_or(program.len());
            let body = program.get(*start..end).unwrap_or_default();
            let calls = body.iter().enumerate().filter_map(|(n, insn)| called((start + n, insn))).collect();
            (*start, (frame(body), calls))
        })
        .collect();
    Shape { instructions: u32::try_from(program.len()).unwrap_or(u32::MAX), stack: deepest(&functions, 0) }
}

/// Bytes of a function's own stack, rounded as the kernel's verifier does without a compiler.
fn frame(body: &[bpf_insn]) -> u32 {
    let mut lowest = 0;
    for (n, insn) in body.iter().enumerate() {
        let (loads, stores) = accesses(insn.code);
        if (loads && insn.src_reg() == FRAME) || (stores && insn.dst_reg() == FRAME) {
            lowest = lowest.min(i32::from(insn.off));
        }
        // The address of something there: `rX = r10`, and the next that changes rX says how far below.
        if insn.code == MOV && insn.src_reg() == FRAME {
            let added = body.iter().skip(n + 1).find(|next| next.code == ADD_IMM && next.dst_reg() == insn.dst_reg());
            lowest = lowest.min(added.map_or(0, |next| next.imm));
        }
    }
    lowest.unsigned_abs().max(1).next_multiple_of(32)
}

/// Programs do not call themselves: the kernel refuses that.
fn deepest(functions: &BTreeMap<usize, (u32, BTreeSet<usize>)>, start: usize) -> u32 {
    let Some((own, calls)) = functions.get(&start) else { return 0 };
    own + calls.iter().map(|callee| deepest(functions, *callee)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(dst, src), off, imm }
    }

    #[test]
    fn the_deepest_chain_of_frames_counts() {
        const EXIT: u8 = 0x95;
        const STORE: u8 = 0x7b;
        const LOAD: u8 = 0x79;
        let program = [
            insn(STORE, FRAME, 1, -8, 0),            // 0: a word on the stack: 32 bytes
            insn(CALL, 0, OWN_CALL, 0, 3),           // 1: the function at 5
            insn(LOAD_IMM64, 2, OWN_FUNCTION, 0, 5), // 2: the function at 8, to be called back
            insn(0, 0, 0, 0, 0),                     // 3
            insn(EXIT, 0, 0, 0, 0),                  // 4
            insn(MOV, 1, FRAME, 0, 0),               // 5: the address of 100 bytes: 128
            insn(ADD_IMM, 1, 0, 0, -100),            // 6
            insn(EXIT, 0, 0, 0, 0),                  // 7
            insn(LOAD, 3, FRAME, -40, 0),            // 8: 64 bytes
            insn(CALL, 0, 0, 0, 7),                  // 9: a helper of the kernel's
            insn(EXIT, 0, 0, 0, 0),                  // 10
        ];
        assert_eq!(shape(&program), Shape { instructions: 11, stack: 32 + 128 });
        assert_eq!(shape(&program[8..]), Shape { instructions: 3, stack: 64 });
    }
}
