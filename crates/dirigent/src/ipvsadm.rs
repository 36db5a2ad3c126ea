//! `dirigent ipvsadm`, and the program under the name of `ipvsadm`: what it takes, prints and returns is ipvsadm's.

mod names;
pub mod proc;

use crate::ask::Target;
use crate::failure::{Failure, code};
use crate::print;
use dirigent_api::{Connection, ConnectionsOf, Service, Synchronisation, Timeouts};
use dirigent_config::ipvsadm::console::{self, Absent, Director};
use dirigent_config::{Command, ServiceKey};
pub use names::SystemNames;
use std::io::Read as _;

/// Carries a command line out; the exit code.
pub async fn run(target: &Target, args: &[String]) -> u8 {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = console::run(target, &SystemNames::default(), &words).await;
    eprint!("{}", said.err);
    match print::text(&said.out) {
        Ok(()) => said.code,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code
        }
    }
}

fn absent(failure: Failure) -> Absent {
    let why = failure.to_string();
    if failure.code == code::KERNEL { Absent::Denied(why) } else { Absent::Nobody(why) }
}

impl Director for Target {
    async fn services(&self) -> Result<Vec<Service>, Absent> {
        self.services().await.map_err(absent)
    }
    async fn connections(&self) -> Result<Vec<Connection>, Absent> {
        self.connections(&ConnectionsOf::EVERY).await.map(|all| all.connections).map_err(absent)
    }
    async fn size(&self) -> Result<u64, Absent> {
        self.status().await.map(|status| status.connections.connections).map_err(absent)
    }
    async fn timeouts(&self) -> Result<Timeouts, Absent> {
        self.status().await.map(|status| status.timeouts).map_err(absent)
    }
    async fn synchronisation(&self) -> Result<Option<Synchronisation>, Absent> {
        self.status().await.map(|status| status.synchronisation).map_err(absent)
    }
    async fn rules(&self, commands: &[Command]) -> Result<Vec<(usize, String)>, Absent> {
        let done = self.ipvsadm(commands.iter().map(ToString::to_string).collect()).await.map_err(absent)?;
        Ok(done.refused.into_iter().map(|refused| (refused.line, refused.what)).collect())
    }
    async fn zero(&self, service: Option<ServiceKey>) -> Result<bool, Absent> {
        let services = self.services().await.map_err(absent)?;
        let there = |key: &ServiceKey| services.iter().any(|s| dirigent_config::ipvsadm::list::key(s) == Some(*key));
        if service.is_some_and(|key| !there(&key)) {
            return Ok(false);
        }
        let name = service.map(|key| key.to_string());
        self.zero(name.as_deref()).await.map(|_| true).map_err(absent)
    }
    async fn stdin(&self) -> String {
        let mut text = String::new();
        if let Err(error) = std::io::stdin().read_to_string(&mut text) {
            eprintln!("stdin: {error}");
        }
        text
    }
}
