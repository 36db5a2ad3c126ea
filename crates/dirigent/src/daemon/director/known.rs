//! What is wrong, as far as the daemon knows without looking for it.

use super::Director;
use crate::daemon::suspicion::Suspicion;
use crate::daemon::{config, snapshot};
use crate::failure::Result;
use dirigent_api::Problem;
use dirigent_net::NextHopState;

/// All of that, by where it is known from.
#[derive(Default)]
pub struct Known {
    /// Virtual addresses that nobody here holds.
    pub unheld: Vec<Problem>,
    /// What else does not fit this host.
    pub misfits: Vec<Problem>,
    /// Rules of netfilter's that see nothing any more, as of the start or the last reload.
    pub unseen: Vec<Problem>,
    /// Servers that no route leads to.
    pub unreached: Vec<Problem>,
    /// Servers whose checks fail: the service, the server, and why.
    pub down: Vec<(String, String, String)>,
    /// What is suspected.
    pub suspected: Vec<Suspicion>,
    /// The rest.
    pub others: Vec<Problem>,
}

impl Known {
    /// For lists.
    pub fn problems(self) -> Vec<Problem> {
        let down = self.down.into_iter().map(|(service, server, why)| {
            let remedy = "see to the server; it gets connections again when its checks pass";
            Problem::new(format!("server {server} of {service}"), format!("it is down: {why}"), remedy)
        });
        let mut all = self.unheld;
        all.extend(self.misfits);
        all.extend(self.unseen);
        all.extend(self.unreached);
        all.extend(down);
        all.extend(self.suspected.iter().map(Suspicion::problem));
        all.extend(self.others);
        all
    }
}

impl Director {
    /// What the daemon knows to be wrong.
    pub fn known(&mut self) -> Result<Known> {
        let snapshot = snapshot(self.network.watcher())?;
        let unreached = self.network.hops().filter(|(_, hop)| hop.state == NextHopState::NoRoute).map(|(ip, _)| {
            let remedy = "add a route to it, or remove it from the configuration";
            Problem::new(format!("server {ip}"), "no route leads to it", remedy)
        });
        let mut others: Vec<Problem> = self.failover.problem().into_iter().collect();
        others.extend(self.sync.problem());
        others.extend(self.mailer.problem());
        others.extend(self.problem.clone());
        if !self.refused.is_empty() {
            let what = "the last reload was refused, and the configuration before it stays in force";
            let remedy = "correct what follows, and reload again";
            others.push(Problem::new(self.place(), what, remedy));
            others.extend(self.refused.iter().cloned());
        }
        Ok(Known {
            unheld: config::unheld(&self.model, &snapshot),
            misfits: config::misfits(&self.model, &snapshot),
            unseen: self.netfilter.warnings(&self.model),
            unreached: unreached.collect(),
            down: self.health.view().down(),
            suspected: self.suspicions.now().cloned().collect(),
            others,
        })
    }

    pub(super) fn problems(&mut self) -> Result<Vec<Problem>> {
        Ok(self.known()?.problems())
    }
}
