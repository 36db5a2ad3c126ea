//! ipvsadm as a whole: a command line in, text and exit code out. What it asks a director and has
//! it do goes through [`Director`], so that this is the same over a socket and in a test.

use super::names::Names;
use super::{Command, Invocation, List, Shown, daemon, list};
use crate::model::ServiceKey;
use dirigent_api::{Connection, Service, Synchronisation, Timeouts};

/// What ipvsadm says to `-h`, behind its version.
const HELP: &str = include_str!("help.txt");

/// Exit codes.
mod code {
    /// The listing failed.
    pub const NOT_LISTED: u8 = 1;
    /// There is no director.
    pub const ABSENT: u8 = 2;
    /// The director refused.
    pub const REFUSED: u8 = 255;
}

/// Why nothing comes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There is no director.
    Nobody(String),
    /// This user may not ask it.
    Denied(String),
}

/// Who is asked.
#[expect(async_fn_in_trait, reason = "its users need no threads")]
pub trait Director {
    /// All services.
    async fn services(&self) -> Result<Vec<Service>, Absent>;
    /// All connections.
    async fn connections(&self) -> Result<Vec<Connection>, Absent>;
    /// How many connections there is room for.
    async fn size(&self) -> Result<u64, Absent>;
    /// Timeouts.
    async fn timeouts(&self) -> Result<Timeouts, Absent>;
    /// Synchronisation with other directors, if there is any.
    async fn synchronisation(&self) -> Result<Option<Synchronisation>, Absent>;
    /// Does rules, in order; those refused, each by its place and with the kernel's words.
    async fn rules(&self, commands: &[Command]) -> Result<Vec<(usize, String)>, Absent>;
    /// Zeroes the counters of a service and its servers, or all; false: there is no such service.
    async fn zero(&self, service: Option<ServiceKey>) -> Result<bool, Absent>;
    /// What stands on stdin.
    async fn stdin(&self) -> String;
}

/// What came of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The exit code.
    pub code: u8,
    /// For stdout.
    pub out: String,
    /// For stderr.
    pub err: String,
}

/// Carries a command line out.
pub async fn run(director: &impl Director, names: &dyn Names, args: &[&str]) -> Said {
    let mut console = Console { director, names, said: Said::default() };
    console.said.code = match Invocation::from_args(args, names) {
        Ok(Invocation::Restore) => console.restore().await,
        Ok(invocation) => console.one(invocation).await,
        Err(error) => console.tell(error.exit_code, &error.message),
    };
    console.said
}

struct Console<'a, D> {
    director: &'a D,
    names: &'a dyn Names,
    said: Said,
}

impl<D: Director> Console<'_, D> {
    async fn one(&mut self, invocation: Invocation) -> u8 {
        match invocation {
            Invocation::Rule(command) => self.rules(&[command]).await,
            Invocation::List(List { numeric, shown }) => match self.listed(numeric, &shown).await {
                Ok(Some(text)) => self.print(&text),
                Ok(None) => self.tell(code::NOT_LISTED, "No such service"),
                Err(why) => self.absent(&why),
            },
            Invocation::Save { numeric } => match self.director.services().await {
                Ok(services) => self.print(&list::save(&services, self.named(numeric))),
                Err(why) => self.absent(&why),
            },
            Invocation::Zero(service) => match self.director.zero(service).await {
                Ok(true) => 0,
                Ok(false) => self.tell(code::REFUSED, "No such service"),
                Err(why) => self.absent(&why),
            },
            Invocation::Help => self.print(&format!("{}\n{HELP}", list::VERSION)),
            Invocation::Version => self.print(&format!("{}\n", list::VERSION)),
            // Within itself; as what is no command.
            Invocation::Restore => {
                self.tell(code::REFUSED, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.")
            }
        }
    }

    /// Rules from stdin. A refused one is named and does not stop the others; one that is none ends it.
    async fn restore(&mut self) -> u8 {
        let text = self.director.stdin().await;
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
                        Err(error) => return self.tell(error.exit_code, &error.message),
                    }
                }
            }
        }
        if waiting.is_empty() { last } else { self.rules(&waiting).await }
    }

    /// Has rules done, in order; the exit code of the last.
    async fn rules(&mut self, commands: &[Command]) -> u8 {
        if commands.is_empty() {
            return 0;
        }
        let refused = match self.director.rules(commands).await {
            Ok(refused) => refused,
            Err(why) => return self.absent(&why),
        };
        let last = refused.last().is_some_and(|(place, _)| place + 1 == commands.len());
        for (_, what) in &refused {
            self.tell(code::REFUSED, what);
        }
        if last { code::REFUSED } else { 0 }
    }

    async fn listed(&self, numeric: bool, shown: &Shown) -> Result<Option<String>, Absent> {
        let (names, director) = (self.named(numeric), self.director);
        Ok(Some(match shown {
            Shown::Table { service: None, layout, sorted } => {
                list::table(&director.services().await?, director.size().await?, *layout, *sorted, names)
            }
            Shown::Table { service: Some(key), layout, sorted } => {
                let services = director.services().await?;
                let found = services.iter().find(|service| list::key(service) == Some(*key));
                return Ok(found.map(|service| list::one(service, *layout, *sorted, names)));
            }
            Shown::Connections { engines } => list::connections(&director.connections().await?, *engines, names),
            Shown::Timeouts => list::timeouts(&director.timeouts().await?),
            Shown::Daemons => daemon::list(director.synchronisation().await?.as_ref()),
        }))
    }

    fn named(&self, numeric: bool) -> Option<&dyn Names> {
        (!numeric).then_some(self.names)
    }

    fn print(&mut self, text: &str) -> u8 {
        self.said.out += text;
        0
    }

    fn tell(&mut self, code: u8, what: &str) -> u8 {
        self.said.err += what;
        self.said.err.push('\n');
        code
    }

    /// As ipvsadm says it where there is no ip_vs; and behind that why.
    fn absent(&mut self, why: &Absent) -> u8 {
        let (known, why) = match why {
            Absent::Nobody(why) => ("Protocol not available", why),
            Absent::Denied(why) => ("Permission denied (you must be root)", why),
        };
        self.tell(code::ABSENT, &format!("Can't initialize ipvs: {known}"));
        self.tell(code::ABSENT, "Are you sure that IP Virtual Server is built in the kernel or as module?");
        self.tell(code::ABSENT, &format!("dirigent: {why}"))
    }
}
