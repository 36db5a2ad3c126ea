//! Who puts addresses and all that goes with them on, takes them off and announces them: a thread of its own, which does
//! one after the other.
//!
//! All that takes the kernel's lock on network configuration (RTNL), and while somebody else on the host makes and removes
//! devices that can be taken for a second. A master that waited so long would miss its own adverts. So putting on and
//! announcing is only asked for here. Taking addresses off is waited for: before that nobody else may be told to take over.

use super::PacketPath;
use super::kept::{Belongings, Held};
use crate::failure::{Failure, Result};
use dirigent_net::vip::Announcer;
use dirigent_net::{Netlink, vrrp};
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

enum Task {
    Add {
        router: String,
        belongings: Belongings,
    },
    /// Put on what somebody took off, and announce what was.
    Restore(Belongings),
    Announce(Vec<Held>, Times),
    Remove(Belongings, mpsc::Sender<Vec<Held>>),
}

/// How often each address is announced, and how long after one announcement the next is.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub repeat: u16,
    /// Of gratuitous ARP, and of neighbour advertisements.
    pub gaps: (Duration, Duration),
}

/// The thread, as the virtual routers have it. It ends with this.
pub struct Hands(mpsc::Sender<Task>);

impl Hands {
    /// Starts it, in the namespace of the calling thread.
    pub fn start(path: PacketPath) -> Result<Self> {
        let (netlink, announcer) = (Netlink::route()?, Announcer::open()?);
        let mut work = Work { netlink, announcer, path, waiting: BTreeMap::new(), number: 0 };
        let (to, tasks) = mpsc::channel();
        let work = move || {
            // Said by the virtual routers' own thread.
            let _ = vrrp::run_in_real_time();
            work.run(&tasks);
        };
        let thread = std::thread::Builder::new().name("addresses".into()).spawn(work);
        thread.map_err(|e| Failure::io("starting virtual routers", &e))?;
        Ok(Self(to))
    }

    fn ask(&self, task: Task) {
        if self.0.send(task).is_err() {
            tracing::error!("virtual addresses are neither put on nor taken off any more: their thread has ended");
        }
    }

    /// Puts all on, soon.
    pub fn add(&self, router: &str, belongings: Belongings) {
        self.ask(Task::Add { router: router.to_owned(), belongings });
    }

    /// Puts on again what somebody took off, soon.
    pub fn restore(&self, belongings: Belongings) {
        self.ask(Task::Restore(belongings));
    }

    /// Announces addresses, soon.
    pub fn announce(&self, addresses: Vec<Held>, times: Times) {
        self.ask(Task::Announce(addresses, times));
    }

    /// Takes all off. When this returns the addresses are, and the rest soon will be: the addresses that were there.
    pub fn remove(&self, belongings: Belongings) -> Vec<Held> {
        let (to, done) = mpsc::channel();
        self.ask(Task::Remove(belongings, to));
        done.recv().unwrap_or_default()
    }
}

/// What the thread has.
struct Work {
    netlink: Netlink,
    announcer: Announcer,
    path: PacketPath,
    /// Announcements and when they are due; numbers tell those of one time apart.
    waiting: BTreeMap<(Instant, u64), Held>,
    number: u64,
}

impl Work {
    /// Until nobody asks any more.
    fn run(&mut self, tasks: &mpsc::Receiver<Task>) {
        loop {
            let task = match self.waiting.keys().next() {
                None => tasks.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some((due, _)) => tasks.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match task {
                Ok(task) => self.carry_out(task),
                Err(mpsc::RecvTimeoutError::Timeout) => self.announce_next(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn carry_out(&mut self, task: Task) {
        match task {
            Task::Add { router, belongings } => belongings.put_on(&mut self.netlink, &router, &self.path),
            Task::Restore(belongings) => {
                belongings.put_on_devices(&mut self.netlink, &self.path, &|error| tracing::error!("{error}"));
                for held in belongings.addresses {
                    match held.put_on(&mut self.netlink, &self.path) {
                        Ok(true) => {
                            let (address, device) = (&held.address, &held.device);
                            tracing::warn!(
                                event = "address_added", %address, device,
                                "somebody took {address} off {device}: put on again"
                            );
                            announce(&self.announcer, &held);
                        }
                        Ok(false) => {}
                        Err(error) => tracing::error!("{error}"),
                    }
                }
            }
            Task::Announce(addresses, times) => {
                let now = Instant::now();
                for held in addresses {
                    let gap = if held.address.is_ipv6() { times.gaps.1 } else { times.gaps.0 };
                    for n in 0..times.repeat {
                        self.number += 1;
                        self.waiting.insert((now + gap * n.into(), self.number), held.clone());
                    }
                }
            }
            Task::Remove(belongings, to) => {
                self.waiting.retain(|_, held| !belongings.addresses.contains(held));
                // Who waits has not gone.
                let _ = to.send(belongings.take_addresses(&mut self.netlink));
                for what in belongings.take_rest(&mut self.netlink) {
                    tracing::debug!("{what}");
                }
            }
        }
    }

    fn announce_next(&mut self) {
        if let Some((_, held)) = self.waiting.pop_first()
            && !announce(&self.announcer, &held)
        {
            self.waiting.retain(|_, other| *other != held);
        }
    }
}

fn announce(by: &Announcer, held: &Held) -> bool {
    let done = by.announce(&held.device, held.address);
    if let Err(error) = &done {
        tracing::warn!("announcing {}: {error}", held.address);
    }
    done.is_ok()
}
