//! `dirigent ipvsadm`, and the program under the name of `ipvsadm`: what it takes, prints and returns is ipvsadm's.

mod names;
pub mod proc;

use crate::ask::Target;
use crate::failure::{Failure, code};
use crate::print;
use dirigent_config::ipvsadm::names::Names;
use dirigent_config::ipvsadm::{Command, Invocation, List, Shown, list};
use names::SystemNames;
use std::io::Read as _;

/// What ipvsadm says to `-h`, behind its version.
const HELP: &str = include_str!("ipvsadm/help.txt");
/// The listing failed.
const NOT_LISTED: u8 = 1;
/// The command line is wrong, or there is no director.
const WRONG: u8 = 2;
/// The kernel, or here the director, refused.
const REFUSED: u8 = 255;

/// Carries a command line out; the exit code.
pub async fn run(target: &Target, args: &[String]) -> u8 {
    let names = SystemNames::default();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let run = Run { target, names: &names };
    match Invocation::from_args(&words, &names) {
        Ok(Invocation::Restore) => run.restore().await,
        Ok(invocation) => run.one(invocation).await,
        Err(error) => {
            eprintln!("{}", error.message);
            error.exit_code
        }
    }
}

struct Run<'a> {
    target: &'a Target,
    names: &'a dyn Names,
}

impl Run<'_> {
    async fn one(&self, invocation: Invocation) -> u8 {
        match invocation {
            Invocation::Rule(command) => self.rules(&[command]).await,
            Invocation::List(list) => self.list(&list).await,
            Invocation::Save { numeric } => match self.target.services().await {
                Ok(services) => self.print(&list::save(&services, self.named(numeric))),
                Err(failure) => absent(&failure),
            },
            Invocation::Zero(service) => {
                let name = service.map(|key| key.to_string());
                match self.target.zero(name.as_deref()).await {
                    Ok(_) => 0,
                    Err(failure) if name.is_some() && failure.code == code::FAILED && !gone(&failure) => {
                        eprintln!("No such service");
                        REFUSED
                    }
                    Err(failure) => absent(&failure),
                }
            }
            Invocation::Help => self.print(&format!("{}\n{HELP}", list::VERSION)),
            Invocation::Version => self.print(&format!("{}\n", list::VERSION)),
            Invocation::StartDaemon { interface } => {
                // This version does not synchronise connections.
                let here = nix::net::if_::if_nametoindex(interface.as_str()).is_ok();
                eprintln!("{}", if here { INVALID } else { "No such device" });
                REFUSED
            }
            Invocation::StopDaemon => {
                eprintln!("No daemon is running");
                REFUSED
            }
            // Within itself; as what is no command.
            Invocation::Restore => {
                eprintln!("Try `ipvsadm -h' or 'ipvsadm --help' for more information.");
                REFUSED
            }
        }
    }

    /// Rules from stdin. A refused one is named and does not stop the others; one that is none ends it.
    async fn restore(&self) -> u8 {
        let mut text = String::new();
        if let Err(error) = std::io::stdin().read_to_string(&mut text) {
            eprintln!("stdin: {error}");
            return WRONG;
        }
        let (mut waiting, mut last) = (Vec::new(), 0);
        for line in text.lines() {
            let mut words: Vec<_> = line.split_ascii_whitespace().collect();
            if words.first() == Some(&"ipvsadm") {
                words.remove(0);
            }
            if words.is_empty() {
                continue;
            }
            match Invocation::from_args(&words, self.names) {
                Ok(Invocation::Rule(command)) => waiting.push(command),
                other => {
                    self.rules(&std::mem::take(&mut waiting)).await;
                    match other {
                        Ok(invocation) => last = self.one(invocation).await,
                        Err(error) => {
                            eprintln!("{}", error.message);
                            return error.exit_code;
                        }
                    }
                }
            }
        }
        if waiting.is_empty() { last } else { self.rules(&waiting).await }
    }

    /// Has rules done, in order; the exit code of the last.
    async fn rules(&self, commands: &[Command]) -> u8 {
        if commands.is_empty() {
            return 0;
        }
        let done = match self.target.ipvsadm(commands.iter().map(ToString::to_string).collect()).await {
            Ok(done) => done,
            Err(failure) => return absent(&failure),
        };
        done.refused.iter().for_each(|refused| eprintln!("{}", refused.what));
        let last = done.refused.last().is_some_and(|refused| refused.line + 1 == commands.len());
        if last { REFUSED } else { 0 }
    }

    async fn list(&self, List { numeric, shown }: &List) -> u8 {
        let text = match self.listed(*numeric, shown).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                eprintln!("No such service");
                return NOT_LISTED;
            }
            Err(failure) => return absent(&failure),
        };
        self.print(&text)
    }

    async fn listed(&self, numeric: bool, shown: &Shown) -> Result<Option<String>, Failure> {
        let names = self.named(numeric);
        Ok(Some(match shown {
            Shown::Table { service: None, layout, sorted } => {
                let size = self.target.status().await?.connections.connections;
                list::table(&self.target.services().await?, size, *layout, *sorted, names)
            }
            Shown::Table { service: Some(key), layout, sorted } => {
                let services = self.target.services().await?;
                let found = services.iter().find(|service| list::key(service) == Some(*key));
                return Ok(found.map(|service| list::one(service, *layout, *sorted, names)));
            }
            Shown::Connections { engines } => {
                list::connections(&self.target.connections(usize::MAX).await?.connections, *engines, names)
            }
            Shown::Timeouts => list::timeouts(&self.target.status().await?.timeouts),
            // This version does not synchronise connections.
            Shown::Daemons => self.target.status().await.map(|_| String::new())?,
        }))
    }

    fn named(&self, numeric: bool) -> Option<&dyn Names> {
        (!numeric).then_some(self.names)
    }

    fn print(&self, text: &str) -> u8 {
        match print::text(text) {
            Ok(()) => 0,
            Err(failure) => {
                eprintln!("{failure}");
                NOT_LISTED
            }
        }
    }
}

const INVALID: &str = "Invalid operation.  Possibly wrong module version, address not unicast, ...";

/// Whether there is no director, or this user may not ask it.
fn gone(failure: &Failure) -> bool {
    failure.problems.iter().any(|problem| problem.what.contains("no daemon"))
}

/// As ipvsadm says it where there is no ip_vs; and behind that why.
fn absent(failure: &Failure) -> u8 {
    let denied = failure.code == code::KERNEL;
    let why = if denied { "Permission denied (you must be root)" } else { "Protocol not available" };
    eprintln!("Can't initialize ipvs: {why}");
    eprintln!("Are you sure that IP Virtual Server is built in the kernel or as module?");
    eprintln!("dirigent: {failure}");
    WRONG
}
