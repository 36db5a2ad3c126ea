//! One loaded object, with maps of its own: a director that is set up and has its
//! connections, or floors.

use dirigent_datapath::control::{Control, KernelStore, Store as _, features};
use dirigent_datapath::kernel::{Features, Kernel, LoadOptions, News};
use dirigent_datapath::object;
use dirigent_director::Reason;
use dirigent_director::records::LAYOUT_VERSION;

use std::sync::Barrier;

use super::cases::{Case, Packets, Setup};
use crate::cpu::pin;
use crate::golden::tables::{self, text};
use crate::golden::{Bed, Side};

#[path = "../../../../bpf/src/bench/record.rs"]
mod record;

pub use record::FRAME;
use record::Round;

/// When a CPU sent its first packet and its last, on the kernel's clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub begun: u64,
    pub ended: u64,
}

/// What the wrapper is told.
fn round_of(packets: &Packets, count: u32, counter: u64) -> Round {
    let mut round = Round {
        packets: count.into(),
        counter,
        mask: packets.connections - 1,
        v6: packets.v6.into(),
        reply: packets.reply.into(),
        action: packets.action,
        len: packets.len,
        ..Round::default()
    };
    let words = [0, 6, 14, 22, 30, 38, 46, 54, 62, 70].map(|at| packets.frame.get(at..).and_then(<[u8]>::first_chunk));
    for (to, word) in round.template.iter_mut().zip(words) {
        *to = word.map_or(0, |word| u64::from_ne_bytes(*word));
    }
    round
}

/// A loaded object.
pub struct Instance {
    kernel: Kernel,
    /// Where a director's counters are read.
    store: Option<KernelStore>,
    control: Option<Control<KernelStore>>,
    /// What is told of connections, where synchronisation has it told: somebody must take it.
    news: Option<News>,
}

impl Instance {
    /// Loads it, sets it up, and opens its connections.
    pub fn new(setup: &Setup, bed: &Bed) -> Result<Self, String> {
        let object = object::bench().ok_or(object::MISSING)?;
        let options = LoadOptions {
            instance: None,
            layout: LAYOUT_VERSION,
            map_sizes: &setup.map_sizes,
            // As a daemon does: the verifier takes seconds for what no packet comes to.
            features: setup.model.as_ref().map_or(Features::NONE, features),
        };
        let kernel = Kernel::load_object(object, &options).map_err(text)?;
        let mut control = match &setup.model {
            Some(model) => Some(tables::set_up(KernelStore::new(&kernel).map_err(text)?, bed, model)?),
            None => None,
        };
        let sync = setup.model.as_ref().and_then(|model| model.failover().synchronised());
        if let (Some(control), Some(sync)) = (&mut control, sync) {
            control.set_sync(Some(sync.clone())).map_err(text)?;
        }
        let news = sync.map(|_| News::of(&kernel).map_err(text)).transpose()?;
        for service in &setup.floor_services {
            kernel.table::<u64, u32>("FLOOR_SERVICES").and_then(|t| t.insert(*service, 1)).map_err(text)?;
        }
        let store = control.as_ref().map(|_| KernelStore::new(&kernel).map_err(text)).transpose()?;
        let mut instance = Self { kernel, store, control, news };
        for (program, packets, count) in &setup.before {
            instance.send(program, packets, bed.ifindex(Side::R), *count, 0)?;
        }
        Ok(instance)
    }

    /// The object.
    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// What changes a director's tables; to be had once.
    pub(super) fn take_control(&mut self) -> Result<Control<KernelStore>, String> {
        self.control.take().ok_or_else(|| "nothing to change".to_owned())
    }

    /// Sends `count` packets, which must all end as expected: nanoseconds a packet.
    pub(super) fn send(
        &mut self,
        program: &str,
        packets: &Packets,
        ifindex: u32,
        count: u32,
        counter: u64,
    ) -> Result<f64, String> {
        let [times] = self.send_on([None], program, packets, ifindex, count, [counter])?;
        Ok((times.ended - times.begun) as f64 / f64::from(count))
    }

    /// Sends `count` packets on each of these CPUs at once (`None`: where the calling thread is kept already), of connections from these
    /// on.
    pub(super) fn send_on<const N: usize>(
        &mut self,
        cpus: [Option<usize>; N],
        program: &str,
        packets: &Packets,
        ifindex: u32,
        count: u32,
        counters: [u64; N],
    ) -> Result<[Times; N], String> {
        let table = self.kernel.per_cpu_table::<u32, Round>("ROUND").map_err(text)?;
        let mut rounds = table.get(&0).map_err(text)?.ok_or("the record of the round is gone")?;
        for (at, round) in rounds.iter_mut().enumerate() {
            // Where it is not said who runs there, whoever does is the first.
            let which = cpus.iter().position(|cpu| *cpu == Some(at)).unwrap_or(0);
            let counter = counters.get(which).copied().unwrap_or_default();
            *round = round_of(packets, count, counter);
        }
        table.set(0, &mut rounds).map_err(text)?;
        if let Some(control) = &mut self.control {
            // A daemon does ten times a second.
            control.ways_followed().map_err(text)?;
        }
        let before = self.reasons()?;
        self.news.iter_mut().for_each(|news| news.take(usize::MAX, |_| ()));
        let (kernel, barrier) = (&self.kernel, Barrier::new(N));
        let run = |cpu: Option<usize>| {
            if let Some(cpu) = cpu {
                pin(0, &[cpu])?;
            }
            barrier.wait();
            kernel.run_xdp_program(program, ifindex, &packets.frame, count).map(drop).map_err(text)
        };
        match cpus.as_slice() {
            [cpu] => run(*cpu)?,
            several => std::thread::scope(|scope| {
                let run = &run;
                let threads: Vec<_> = several.iter().map(|cpu| scope.spawn(move || run(*cpu))).collect();
                threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
            })?,
        }
        let rounds = table.get(&0).map_err(text)?.ok_or("the record of the round is gone")?;
        let reasons = self.reasons()?;
        // What a director says that it did must be that too.
        let rose: Vec<(Reason, u64)> = Reason::ALL
            .iter()
            .zip(reasons.iter().zip(&before))
            .filter_map(|(reason, (after, before))| (after > before).then_some((*reason, after - before)))
            .collect();
        let count = u64::from(count);
        let otherwise = match packets.reason {
            Some(reason) if self.store.is_some() => {
                let (as_expected, others): (Vec<_>, Vec<_>) = rose.iter().partition(|(rose, _)| *rose == reason);
                let sum = |counts: &[(Reason, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
                sum(&others).max((count * N as u64).abs_diff(sum(&as_expected)))
            }
            _ => 0,
        };
        let ran: Vec<&Round> = rounds.iter().filter(|round| round.done > 0).collect();
        let astray: u64 = ran.iter().map(|round| round.astray).sum();
        if astray > 0 || otherwise > 0 || ran.len() != N || ran.iter().any(|round| round.done != count) {
            let done: Vec<u64> = ran.iter().map(|round| round.done).collect();
            return Err(format!(
                "{astray} packets left their path, {done:?} of {count} were sent, counted: {rose:?}; these times would mean nothing"
            ));
        }
        let mut times = [Times::default(); N];
        for (to, round) in times.iter_mut().zip(ran) {
            *to = Times { begun: round.begun, ended: round.ended };
        }
        Ok(times)
    }

    /// Packets by reason; none of floors.
    fn reasons(&self) -> Result<Vec<u64>, String> {
        match &self.store {
            Some(store) => store.reasons().map_err(text),
            None => Ok(Vec::new()),
        }
    }

    /// One round of a case.
    pub fn measure(&mut self, case: &Case, ifindex: u32, packets: u32, counter: u64) -> Result<f64, String> {
        self.send(case.program, &case.packets, ifindex, packets, counter)
    }
}
