//! Running a loaded program once on a frame (`BPF_PROG_TEST_RUN`): the same program,
//! maps and helpers as in service, with nothing sent.
//!
//! The interface of a run must exist in the network namespace of the calling thread.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::{TestRun as _, TestRunOptions, programs::Program};

use super::{error::Error, load::Kernel, sys};

/// Which tc program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// For packets that arrive.
    Ingress,
    /// For packets that leave.
    Egress,
}

/// What goes with a packet in the kernel (`struct __sk_buff`), as far as a run can set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkbContext {
    /// The interface that the program is attached to; 0 is the namespace's loopback.
    pub ifindex: u32,
    /// The interface that the packet came by.
    pub ingress_ifindex: u32,
    /// The packet's mark.
    pub mark: u32,
    /// The packet's priority.
    pub priority: u32,
    /// Words that programs leave for each other.
    pub cb: [u32; 5],
    /// Of a packet that stands for several: bytes of each.
    pub gso_size: u32,
    /// Of a packet that stands for several: how many.
    pub gso_segs: u32,
    /// Bytes on the wire, if more than the frame's.
    pub wire_len: u32,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The program's return value: `XDP_*` or `TC_ACT_*`.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What an XDP program put before the frame for tc.
    pub metadata: Vec<u8>,
    /// The context afterwards; of XDP only zeros.
    pub context: SkbContext,
    /// Time per run, as the kernel measured it.
    pub time: std::time::Duration,
}

/// Room for what a program may add at the front.
const GROWTH: usize = 256;

const XDP_PASS: u32 = 2;
/// struct xdp_md
const XDP_CONTEXT: usize = 24;
/// struct __sk_buff
const SKB_CONTEXT: usize = 192;

/// Offsets in struct __sk_buff.
mod skb {
    pub const MARK: usize = 8;
    pub const PRIORITY: usize = 32;
    pub const INGRESS_IFINDEX: usize = 36;
    pub const IFINDEX: usize = 40;
    pub const CB: usize = 48;
    pub const WIRE_LEN: usize = 160;
    pub const GSO_SEGS: usize = 164;
    pub const GSO_SIZE: usize = 176;
}

impl SkbContext {
    fn words(&self) -> [(usize, u32); 12] {
        let [a, b, c, d, e] = self.cb;
        [
            (skb::MARK, self.mark),
            (skb::PRIORITY, self.priority),
            (skb::INGRESS_IFINDEX, self.ingress_ifindex),
            (skb::IFINDEX, self.ifindex),
            (skb::CB, a),
            (skb::CB + 4, b),
            (skb::CB + 8, c),
            (skb::CB + 12, d),
            (skb::CB + 16, e),
            (skb::WIRE_LEN, self.wire_len),
            (skb::GSO_SEGS, self.gso_segs),
            (skb::GSO_SIZE, self.gso_size),
        ]
    }

    fn to_bytes(self) -> [u8; SKB_CONTEXT] {
        let mut bytes = [0; SKB_CONTEXT];
        for (at, word) in self.words() {
            put(&mut bytes, at, word);
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            ifindex: get(bytes, skb::IFINDEX),
            ingress_ifindex: get(bytes, skb::INGRESS_IFINDEX),
            mark: get(bytes, skb::MARK),
            priority: get(bytes, skb::PRIORITY),
            cb: std::array::from_fn(|i| get(bytes, skb::CB + 4 * i)),
            gso_size: get(bytes, skb::GSO_SIZE),
            gso_segs: get(bytes, skb::GSO_SEGS),
            wire_len: get(bytes, skb::WIRE_LEN),
        }
    }
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

fn get(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_ne_bytes(*word))
}

/// A step by itself, for a thread that has no [`Kernel`]: `dirigent_expire`, or `dirigent_learn`.
#[derive(Debug)]
pub struct Step {
    fd: OwnedFd,
    name: &'static str,
    turn: Arc<Mutex<()>>,
}

impl Step {
    /// To be held from the first write into its table to the last look: all threads share it.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Runs it on the first `count` entries of `CANDIDATES`, or `LESSONS`.
    pub fn run(&self, count: u32) -> Result<(), Error> {
        let mut frame = [0; 64];
        put(&mut frame, 0, count);
        let fail = |e| Error::system(self.name, e);
        match sys::run_once(self.fd.as_fd(), &frame).map_err(fail)? {
            XDP_PASS => Ok(()),
            other => Err(fail(std::io::Error::other(format!("it returned {other}")))),
        }
    }
}

impl Kernel {
    /// A step, to be run from wherever.
    pub fn step(&self, name: &'static str) -> Result<Step, Error> {
        let missing = || Error::Program { program: name.to_owned(), kind: "XDP" };
        let program = self.ebpf.program(name).ok_or_else(missing)?;
        let fd = program.fd().map_err(|e| Error::load(format!("the descriptor of {name}"), e))?;
        let fd = fd.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| Error::system(format!("duplicating the descriptor of {name}"), e))?;
        Ok(Step { fd, name, turn: self.turn.clone() })
    }

    /// Runs the XDP program on a frame that arrives by an interface.
    pub fn run_xdp(&self, ifindex: u32, frame: &[u8]) -> Result<Ran, Error> {
        self.run_xdp_program("dirigent_xdp", ifindex, frame, 1)
    }

    /// Runs the expire step on the first `count` entries of `CANDIDATES`.
    pub fn run_expire(&self, count: u32) -> Result<(), Error> {
        // The kernel wants an Ethernet header's length at least; the step reads the number.
        let mut frame = [0; 64];
        put(&mut frame, 0, count);
        let ran = self.run_xdp_program("dirigent_expire", 0, &frame, 1)?;
        if ran.action == XDP_PASS {
            return Ok(());
        }
        Err(Error::system("the expire step", std::io::Error::other(format!("it returned {}", ran.action))))
    }

    /// Runs any XDP program of the object, `repeat` times on the same buffer.
    pub fn run_xdp_program(&self, program: &str, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Ran, Error> {
        self.runner(program)?.run_xdp(ifindex, frame, repeat)
    }

    /// A program of the object, to be run again and again: what it takes to find one depends on its name.
    pub fn runner<'k>(&'k self, name: &'k str) -> Result<Runner<'k>, Error> {
        let missing = || Error::Program { program: name.to_owned(), kind: "XDP or tc" };
        Ok(Runner { program: self.ebpf.program(name).ok_or_else(missing)?, name })
    }

    /// Runs a tc program on a frame.
    pub fn run_tc(&self, direction: Direction, context: &SkbContext, frame: &[u8]) -> Result<Ran, Error> {
        let program = match direction {
            Direction::Ingress => "dirigent_ingress",
            Direction::Egress => "dirigent_egress",
        };
        self.run_tc_program(program, context, frame, 1)
    }

    /// Runs any tc program of the object, `repeat` times on the same buffer.
    pub fn run_tc_program(&self, program: &str, context: &SkbContext, frame: &[u8], repeat: u32) -> Result<Ran, Error> {
        let mut ran = self.runner(program)?.run(frame, &context.to_bytes(), repeat)?;
        // The kernel reports the device only through the context that it was given.
        if ran.context.ifindex == 0 {
            ran.context.ifindex = context.ifindex;
        }
        Ok(ran)
    }
}

/// A program that is found.
pub struct Runner<'k> {
    program: &'k Program,
    name: &'k str,
}

impl Runner<'_> {
    /// Runs an XDP program on a frame that arrives by an interface, `repeat` times on the same buffer.
    pub fn run_xdp(&self, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Ran, Error> {
        let mut context = [0; XDP_CONTEXT];
        let length = u32::try_from(frame.len()).map_err(|e| Error::system("frame length", std::io::Error::other(e)))?;
        put(&mut context, 4, length); // data_end; data is 0
        put(&mut context, 12, ifindex);
        self.run(frame, &context, repeat)
    }

    fn run(&self, frame: &[u8], context: &[u8], repeat: u32) -> Result<Ran, Error> {
        let mut out = vec![0; frame.len() + GROWTH];
        let mut context_out = vec![0; context.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(context),
            ctx_out: Some(&mut context_out),
            repeat,
            ..TestRunOptions::default()
        };
        let name = self.name;
        let result = match self.program {
            Program::Xdp(xdp) => xdp.test_run(options),
            Program::SchedClassifier(tc) => tc.test_run(options),
            _ => return Err(Error::Program { program: name.to_owned(), kind: "XDP or tc" }),
        };
        let result = result.map_err(|e| Error::load(format!("a run of {name} on {} bytes", frame.len()), e))?;
        out.truncate(result.data_size_out as usize);
        let mut metadata = Vec::new();
        let context = match context.len() {
            SKB_CONTEXT => SkbContext::from_bytes(&context_out),
            _ => {
                // The output starts with the metadata; xdp_md.data tells how much that is.
                let frame = out.split_off((get(&context_out, 0) as usize).min(out.len()));
                metadata = std::mem::replace(&mut out, frame);
                SkbContext::default()
            }
        };
        Ok(Ran { action: result.return_value, frame: out, metadata, context, time: result.duration })
    }
}
