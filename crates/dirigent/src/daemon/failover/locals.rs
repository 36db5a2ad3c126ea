//! Which virtual addresses the packet path takes for this host's: a little earlier than the kernel, and a little longer.
//!
//! * **Before an address is put on** the packet path knows of it. If it only learned of it from the kernel, the host itself
//!   would answer clients in between: a reset for each connection that goes on here.
//! * **After it was taken off** this host no longer answers for it, but neighbours send it packets until the next master has
//!   announced it. Those go on to servers for as long as a hand-over may take.

use dirigent_config::failover::Failover as Config;
use dirigent_datapath::control::{KernelStore, Store as _};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The packet path's table, once there is one.
#[derive(Clone, Default)]
pub struct Locals(Arc<Mutex<Option<KernelStore>>>);

impl Locals {
    /// From now on this one is told.
    pub fn open(&self, store: KernelStore) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    /// An address is about to be this host's, or is not after all.
    pub fn set(&self, address: IpAddr, local: bool) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the director has its table it forwards with what an earlier one left, and learns of addresses when it has.
        if let Some(Err(error)) = store.as_mut().map(|store| store.set_local(address, local)) {
            tracing::error!("the packet path does not know in time whose {address} is: {error}");
        }
    }
}

/// Addresses that were given up a moment ago.
#[derive(Default)]
pub struct Left {
    held: BTreeSet<IpAddr>,
    until: BTreeMap<IpAddr, Instant>,
}

impl Left {
    /// Which are this host's for the packet path though not for the kernel, whose are `held`.
    pub fn look(&mut self, config: &Config, held: &BTreeSet<IpAddr>, now: Instant) -> Vec<IpAddr> {
        let mut before = std::mem::take(&mut self.held);
        let mut until = std::mem::take(&mut self.until);
        for router in &config.routers {
            // By then somebody has taken over, or this host did again, even if the first word of it was lost.
            let bound = router.interval * (u32::from(router.down_timer_adverts) + 2);
            for address in router.all_addresses().map(|a| a.address) {
                if held.contains(&address) {
                    self.held.insert(address);
                } else if before.remove(&address) {
                    self.until.insert(address, now + bound);
                } else if let Some(end) = until.remove(&address).filter(|end| *end > now) {
                    self.until.insert(address, end);
                }
            }
        }
        self.until.keys().copied().collect()
    }

    /// When the first of them is not any more.
    pub fn deadline(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_given_up_stays_for_the_time_of_a_hand_over() {
        let text = "version = 1\n[[router]]\nname = \"r\"\ninterface = \"eth0\"\nvrid = 1\ninterval = \"100ms\"\n\
                    addresses = [\"192.0.2.1\", \"192.0.2.2\"]\n";
        let model = dirigent_config::file::parse("test", text).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, two, other) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("198.51.100.1"));
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let mut left = Left::default();
        let mut look = |held: &[IpAddr], ms| {
            let left_now = left.look(model.failover(), &held.iter().copied().collect(), after(ms));
            (left_now, left.deadline())
        };
        assert_eq!(look(&[other], 0), (vec![], None), "what was never held is not left");
        assert_eq!(look(&[one, two, other], 10), (vec![], None));
        assert_eq!(look(&[two], 100), (vec![one], Some(after(600))), "and not those of others");
        assert_eq!(look(&[], 200), (vec![one, two], Some(after(600))));
        assert_eq!(look(&[], 600), (vec![two], Some(after(700))));
        // It comes back, and goes again.
        assert_eq!(look(&[two], 650), (vec![], None));
        assert_eq!(look(&[], 660), (vec![two], Some(after(1160))));
        assert_eq!(look(&[], 2000), (vec![], None));
    }
}
