//! Which functions the director's instructions are of: from the emulator's trace of single steps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::counted::{Path, cases};

/// The kernel begins here to send what the sender's socket was given: one call a packet.
const SEND: &str = "packet_sendmsg";

/// The guest's functions by their addresses: those of `/proc/kallsyms`.
#[derive(Clone, Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// From the file's text.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let function = |line: &str| {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
            let address = u64::from_str_radix(address, 16).ok()?;
            // What is lower is an offset in the CPU's own memory.
            (matches!(kind, "t" | "T" | "w" | "W") && address >> 63 == 1).then(|| (address, name.to_owned()))
        };
        Self(text.lines().filter_map(function).collect())
    }

    /// The function that an instruction is of, and whether it is its first.
    fn function(&self, at: u64) -> Option<(&str, bool)> {
        self.0.range(..=at).next_back().map(|(begin, name)| (&**name, *begin == at))
    }
}

/// What one function of many did for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Instructions of its own.
    pub insns: u64,
    /// How often it was called; of BPF's the kernel's jumps past their first instruction count too.
    pub calls: u64,
}

/// What a packet went through from the first instruction of the director's programs to their last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// The path.
    pub path: Path,
    /// The case.
    pub case: String,
    /// Each function's.
    pub functions: BTreeMap<String, Share>,
}

/// Whether it is a program of the director's, or a function of one: those of the scenario have no names.
fn is_director(function: &str) -> bool {
    function.strip_prefix("bpf_prog_").is_some_and(|rest| rest.contains('_'))
}

/// Kinds of functions, each with a column; whatever is of none of them is the rest.
const KINDS: [(&str, &[&str]); 4] = [
    ("programs", &["bpf_prog_"]),
    ("hash tables", &["htab", "elem_raw", "jhash", "memcmp", "freelist", "copy_map_value"]),
    ("per-CPU tables", &["percpu_array"]),
    (
        "routes",
        &["fib", "rt6", "_mtu_from", "map_id_range", "make_kuid", "find_exception", "find_rr_leaf", "ipv6_addr_type"],
    ),
];

/// Called once for each look-up in a hash table, and for each entry that is put into one.
const LOOK_UP: &str = "__htab_map_lookup_elem";
const INSERT: &str = "htab_map_update_elem";

impl Profile {
    /// Of the middle one of the packets in a trace, by instructions.
    pub fn read(path: Path, case: &str, trace: &str, symbols: &Symbols) -> Result<Self, String> {
        let none = || format!("{path}: {case}: no packet was traced; is the machine too busy? Run it again");
        let steps: Vec<(&str, bool)> =
            trace.lines().filter_map(address).filter_map(|at| symbols.function(at)).collect();
        let begins = steps.iter().enumerate().filter(|(_, (name, first))| *first && *name == SEND).map(|(at, _)| at);
        let begins: Vec<usize> = begins.collect();
        let mut packets: Vec<&[(&str, bool)]> = Vec::new();
        for (from, to) in begins.iter().zip(begins.iter().skip(1)) {
            let packet = steps.get(*from..*to).unwrap_or_default();
            let inside = |(name, _): &(&str, bool)| is_director(name);
            let (first, last) = (packet.iter().position(inside), packet.iter().rposition(inside));
            let (Some(first), Some(last)) = (first, last) else { return Err(none()) };
            packets.push(packet.get(first..=last).unwrap_or_default());
        }
        packets.sort_by_key(|packet| packet.len());
        let middle = packets.get(packets.len() / 2).ok_or_else(none)?;
        let mut functions = BTreeMap::<String, Share>::new();
        for (name, first) in *middle {
            let share = functions.entry((*name).to_owned()).or_default();
            share.insns += 1;
            share.calls += u64::from(*first);
        }
        Ok(Self { path, case: case.to_owned(), functions })
    }

    /// All instructions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.functions.values().map(|share| share.insns).sum()
    }

    fn of(&self, parts: &[&str]) -> u64 {
        let of_these = |name: &str| parts.iter().any(|part| name.contains(part));
        self.functions.iter().filter(|(name, _)| of_these(name)).map(|(_, share)| share.insns).sum()
    }

    fn calls(&self, function: &str) -> u64 {
        self.functions.get(function).map_or(0, |share| share.calls)
    }
}

/// The address in a line of the trace: `Trace 0: HOST [CS/ADDRESS/FLAGS/FLAGS] NAME`.
fn address(line: &str) -> Option<u64> {
    u64::from_str_radix(line.split_once('[')?.1.split('/').nth(1)?, 16).ok()
}

/// The cases that are traced: of either protocol one.
pub fn traced() -> impl Iterator<Item = (Path, String)> {
    let cases = || cases().into_iter().filter(|case| case.contains(" tcp "));
    Path::OURS.into_iter().flat_map(move |path| cases().map(move |case| (path, case)))
}

/// The table, as Markdown.
#[must_use]
pub fn table(profiles: &[Profile]) -> String {
    let kinds = KINDS.map(|(name, _)| name).join(" | ");
    let mut text = format!(
        "| inside the director | all | {kinds} | rest | look-ups, inserts |\n|{}\n",
        "---|".repeat(KINDS.len() + 4)
    );
    for profile in profiles {
        let shares = KINDS.map(|(_, parts)| profile.of(parts));
        let rest = profile.total() - shares.iter().sum::<u64>();
        let [programs, hash, per_cpu, routes] = shares;
        let (looked, put) = (profile.calls(LOOK_UP), profile.calls(INSERT));
        let _ = writeln!(
            text,
            "| {}: {} | {} | {programs} | {hash} | {per_cpu} | {routes} | {rest} | {looked}, {put} |",
            profile.path,
            profile.case,
            profile.total()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "0000000000000100 A packet_sendmsg\n\
        ffffffff81000000 t packet_sendmsg\n\
        ffffffff81000100 T jhash\n\
        ffffffff81000200 t __htab_map_lookup_elem\n\
        ffffffff81000300 T bpf_ipv4_fib_lookup\n\
        ffffffff81000400 T memcpy\n\
        ffffffff81000500 D data\n\
        ffffffffc0000000 t bpf_prog_00112233445566ff_dirigent_xdp\t[bpf]\n\
        ffffffffc0001000 t bpf_prog_ff112233445566ff\t[bpf]\n";

    /// A trace of these addresses, as the emulator writes it.
    fn trace(addresses: &[u64]) -> String {
        let line = |at: &u64| format!("Trace 0: 0x7f17c816d540 [0000000000000000/{at:016x}/18c0c2b3/ff020201] \n");
        addresses.iter().map(line).collect()
    }

    /// A packet whose program takes so many instructions beside its helpers'.
    fn packet(program: u64) -> Vec<u64> {
        let mut all = vec![0x7fff_0000_1000, 0xffff_ffff_8100_0000, 0xffff_ffff_8100_0004, 0xffff_ffff_8100_0400];
        all.extend((0..program).map(|n| 0xffff_ffff_c000_0000 + n));
        all.extend([0xffff_ffff_8100_0200, 0xffff_ffff_8100_0100, 0xffff_ffff_8100_0108, 0xffff_ffff_8100_0300]);
        // Back in the program; the receiving end's is not the director's.
        all.extend([0xffff_ffff_c000_0abc, 0xffff_ffff_8100_0404, 0xffff_ffff_c000_1000]);
        all
    }

    #[test]
    fn the_middle_packet_is_taken_apart_from_its_first_instruction_to_its_last() {
        let steps: Vec<u64> = [packet(3), packet(700), packet(5), packet(1)].concat();
        // The last one may be cut off.
        let symbols = Symbols::read(SYMBOLS);
        let profile = Profile::read(Path::Xdp, "nat v4 tcp reply", &trace(&steps), &symbols).unwrap();
        let share = |insns, calls| Share { insns, calls };
        let expected = [
            ("__htab_map_lookup_elem", share(1, 1)),
            ("bpf_ipv4_fib_lookup", share(1, 1)),
            ("bpf_prog_00112233445566ff_dirigent_xdp", share(6, 1)),
            ("jhash", share(2, 1)),
        ];
        assert_eq!(profile.functions, expected.map(|(name, share)| (name.to_owned(), share)).into());
        assert_eq!(
            table(&[profile]).lines().collect::<Vec<_>>(),
            [
                "| inside the director | all | programs | hash tables | per-CPU tables | routes | rest | look-ups, inserts |",
                "|---|---|---|---|---|---|---|---|",
                "| xdp: nat v4 tcp reply | 10 | 6 | 3 | 0 | 1 | 0 | 1, 0 |",
            ]
        );
    }

    #[test]
    fn a_trace_without_a_whole_packet_is_refused() {
        for steps in [vec![], packet(9)] {
            let error = Profile::read(Path::Tc, "dr v4 tcp new", &trace(&steps), &Symbols::read(SYMBOLS)).unwrap_err();
            assert!(error.starts_with("tc: dr v4 tcp new: no packet was traced"), "{error}");
        }
        assert_eq!(traced().count(), 2 * 2 * 7);
    }
}
