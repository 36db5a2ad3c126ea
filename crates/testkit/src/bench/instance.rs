//! One loaded object, with maps of its own: a director that is set up and has its
//! connections, or floors.

use dirigent_datapath::control::{Control, KernelStore, Store as _, features};
use dirigent_datapath::kernel::{Features, Kernel, LoadOptions, News};
use dirigent_datapath::object;
use dirigent_director::Reason;
use dirigent_director::records::LAYOUT_VERSION;

use super::cases::{Case, Packets, Setup};
use crate::golden::tables::{self, text};
use crate::golden::{Bed, Side};

#[path = "../../../../bpf/src/bench/record.rs"]
mod record;

pub use record::FRAME;
use record::Round;

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
        let words = packets.frame.chunks_exact(8).filter_map(|bytes| bytes.first_chunk().copied());
        for (to, word) in round.template.iter_mut().zip(words) {
            *to = u64::from_ne_bytes(word);
        }
        let table = self.kernel.table::<u32, Round>("ROUND").map_err(text)?;
        table.insert(0, round).map_err(text)?;
        let before = self.reasons()?;
        self.news.iter_mut().for_each(|news| news.take(usize::MAX, |_| ()));
        self.kernel.run_xdp_program(program, ifindex, &packets.frame, count).map_err(text)?;
        let round = table.get(&0).map_err(text)?.ok_or("the record of the round is gone")?;
        let reasons = self.reasons()?;
        // What a director says that it did must be that too.
        let rose: Vec<(Reason, u64)> = Reason::ALL
            .iter()
            .zip(reasons.iter().zip(&before))
            .filter_map(|(reason, (after, before))| (after > before).then_some((*reason, after - before)))
            .collect();
        let expected = match packets.reason {
            Some(reason) if self.store.is_some() => rose == [(reason, u64::from(count))],
            _ => true,
        };
        if round.astray > 0 || round.done != u64::from(count) || !expected {
            return Err(format!(
                "{} of {count} packets left their path, {} were sent, counted: {rose:?}; these times would mean nothing",
                round.astray, round.done
            ));
        }
        Ok((round.ended - round.begun) as f64 / f64::from(count))
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
