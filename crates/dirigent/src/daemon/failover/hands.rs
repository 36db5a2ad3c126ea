//! Who puts addresses on devices, takes them off and announces them: a thread of its own, which does one after the other.
//!
//! All that takes the kernel's lock on network configuration (RTNL), and while somebody else on the host makes and removes
//! devices that can be taken for a second. A master that waited so long would miss its own adverts. So putting on and
//! announcing is only asked for here. Taking off is waited for: before that nobody else may be told to take over.

use super::kept::{Held, take_away};
use super::locals::Locals;
use crate::failure::{Failure, Result};
use dirigent_net::vip::Announcer;
use dirigent_net::{Netlink, vrrp};
use std::sync::mpsc;

enum Task {
    Add {
        router: String,
        addresses: Vec<Held>,
    },
    /// Put on what somebody took off, and announce what was.
    Restore(Vec<Held>),
    Announce(Vec<Held>, u16),
    Remove(Vec<Held>, mpsc::Sender<Vec<Held>>),
}

/// The thread, as the virtual routers have it. It ends with this.
pub struct Hands(mpsc::Sender<Task>);

impl Hands {
    /// Starts it, in the namespace of the calling thread.
    pub fn start(locals: Locals) -> Result<Self> {
        let (mut netlink, announcer) = (Netlink::route()?, Announcer::open()?);
        let (to, tasks) = mpsc::channel();
        let work = move || {
            // Said by the virtual routers' own thread.
            let _ = vrrp::run_in_real_time();
            while let Ok(task) = tasks.recv() {
                carry_out(task, &mut netlink, &announcer, &locals);
            }
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

    /// Puts addresses on, soon.
    pub fn add(&self, router: &str, addresses: Vec<Held>) {
        self.ask(Task::Add { router: router.to_owned(), addresses });
    }

    /// Puts on again what somebody took off, soon.
    pub fn restore(&self, addresses: Vec<Held>) {
        self.ask(Task::Restore(addresses));
    }

    /// Announces addresses, so often, soon.
    pub fn announce(&self, addresses: Vec<Held>, repeat: u16) {
        self.ask(Task::Announce(addresses, repeat));
    }

    /// Takes addresses off. When this returns they are: those that were there.
    pub fn remove(&self, addresses: Vec<Held>) -> Vec<Held> {
        let (to, done) = mpsc::channel();
        self.ask(Task::Remove(addresses, to));
        done.recv().unwrap_or_default()
    }
}

/// Puts an address on, of which the packet path knows then. Whether it was not there.
fn put_on(held: &Held, netlink: &mut Netlink, locals: &Locals) -> dirigent_net::Result<bool> {
    locals.set(held.address, true);
    let added = netlink.add_address(&held.device, held.address, held.length);
    if added.is_err() {
        locals.set(held.address, false);
    }
    added
}

fn carry_out(task: Task, netlink: &mut Netlink, announcer: &Announcer, locals: &Locals) {
    match task {
        Task::Add { router, addresses } => {
            for held in addresses {
                if let Err(error) = put_on(&held, netlink, locals) {
                    tracing::error!("virtual router {router}: {error}");
                }
            }
        }
        Task::Restore(addresses) => {
            for held in addresses {
                match put_on(&held, netlink, locals) {
                    Ok(true) => {
                        tracing::warn!("somebody took {} off {}: put on again", held.address, held.device);
                        announce(announcer, &held, 1);
                    }
                    Ok(false) => {}
                    Err(error) => tracing::error!("{error}"),
                }
            }
        }
        Task::Announce(addresses, repeat) => addresses.iter().for_each(|held| announce(announcer, held, repeat)),
        Task::Remove(addresses, to) => {
            // Who waits has not gone.
            let _ = to.send(take_away(&addresses));
        }
    }
}

fn announce(by: &Announcer, held: &Held, repeat: u16) {
    for _ in 0..repeat {
        if let Err(error) = by.announce(&held.device, held.address) {
            return tracing::warn!("announcing {}: {error}", held.address);
        }
    }
}
