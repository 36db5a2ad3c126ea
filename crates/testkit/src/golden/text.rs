//! Recordings of text (`oracle/golden/text`), in three formats: what ipvsadm prints of one rich
//! configuration with some traffic; how it answers wrong and doubtful command lines; how counters
//! and rates grow. The traffic is that of the oracle's gold_text.py.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use dirigent_api::{Connection, Service, Stats, Synchronisation, Timeouts};
use dirigent_config::ipvsadm::console::{self, Absent, Director, Said};
use dirigent_config::ipvsadm::daemon::NO_DEVICE;
use dirigent_config::ipvsadm::names::Names;
use dirigent_config::ipvsadm::{list, proc};
use dirigent_config::{Command, Model, Protocol, ServiceKey};
use dirigent_datapath::control::report::Growth;
use dirigent_datapath::control::tally::{Estimator, Tally};
use dirigent_director::records::Counters;
use serde::Deserialize;

use super::bed::{Bed, GATEWAY, Side, address, server_mac};
use super::executor::Executor;
use super::host::outcome;
use super::report::{Mismatch, Ran};
use crate::packet::{IpOptions, Tcp, eth, flag, ip, proto, tcp, udp};

/// The size of the recorded kernel's table of connections.
const SIZE: u64 = 4096;

/// A file of text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// One configuration, and what was printed of it.
    Config {
        /// Its name.
        name: String,
        /// Rules.
        config: Vec<String>,
        /// Command lines, one after the other.
        outputs: Vec<Output>,
        /// Files of /proc/net in the end.
        proc: BTreeMap<String, String>,
        /// Kernel parameters.
        sysctl: BTreeMap<String, String>,
    },
    /// Wrong and doubtful command lines.
    Errors {
        /// Its name.
        name: String,
        /// The rules before each.
        base: Vec<String>,
        /// Command lines.
        cases: Vec<Case>,
    },
    /// Counters second by second.
    Rates {
        /// Its name.
        name: String,
        /// One a second.
        steps: Vec<Second>,
    },
}

/// A command line with what came of it.
#[derive(Debug, Deserialize)]
pub struct Output {
    args: String,
    rc: u8,
    stdout: String,
    stderr: String,
    stdin: Option<String>,
}

/// One with what changed.
#[derive(Debug, Deserialize)]
pub struct Case {
    #[serde(flatten)]
    output: Output,
    changed: Vec<String>,
}

/// What was shown in a second.
#[derive(Debug, Deserialize)]
pub struct Second {
    second: u32,
    stats: String,
    rate: String,
    proc: String,
}

impl Text {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Config { name, .. } | Self::Errors { name, .. } | Self::Rates { name, .. } => name,
        }
    }
}

/// How fast counters grow, as of the last look.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    total: Estimator,
    services: BTreeMap<u32, Estimator>,
    servers: BTreeMap<u32, Estimator>,
}

impl Rates {
    fn look(&mut self, tally: &Tally) {
        self.total.tick(tally.total);
        for (index, counters) in &tally.services {
            self.services.entry(*index).or_default().tick(*counters);
        }
        for (index, counters) in &tally.servers {
            self.servers.entry(*index).or_default().tick(*counters);
        }
    }
}

impl Growth for Rates {
    fn total(&self) -> Counters {
        self.total.rates()
    }
    fn service(&self, index: u32) -> Counters {
        self.services.get(&index).map(Estimator::rates).unwrap_or_default()
    }
    fn server(&self, index: u32) -> Counters {
        self.servers.get(&index).map(Estimator::rates).unwrap_or_default()
    }
}

/// Runs one file.
pub fn run_text(executor: &mut dyn Executor, text: &Text) -> Ran {
    let ran = Ran { recording: text.name().to_owned(), executor: executor.name(), ..Ran::default() };
    let console = match Console::open(executor) {
        Ok(console) => console,
        Err(why) => return Ran { failed: 1, not_run: Some(why), ..ran },
    };
    let mut run = Run { console, ran, number: 0 };
    let done = match text {
        Text::Config { config, outputs, proc, sysctl, .. } => run.config(config, outputs, proc, sysctl),
        Text::Errors { base, cases, .. } => run.errors(base, cases),
        Text::Rates { steps, .. } => run.rates(steps),
    };
    if let Err(why) = done {
        run.ran.failed += 1;
        run.ran.not_run = Some(why);
    }
    run.ran
}

/// The director that command lines are about.
struct Console<'e> {
    executor: RefCell<&'e mut dyn Executor>,
    bed: Bed,
    model: RefCell<Model>,
    rates: RefCell<Rates>,
    /// Counters as of the last look, which is what IPVS shows.
    looked: RefCell<Option<Stats>>,
    /// Whether to show those.
    lags: RefCell<bool>,
    stdin: RefCell<String>,
}

fn failed(why: String) -> Absent {
    Absent::Nobody(why)
}

impl<'e> Console<'e> {
    fn open(executor: &'e mut dyn Executor) -> Result<Self, String> {
        let bed = Bed::with_servers(8, &[])?;
        let model = Model::default();
        executor.set_up(&bed, &model)?;
        Ok(Self {
            executor: RefCell::new(executor),
            bed,
            model: RefCell::new(model),
            rates: RefCell::default(),
            looked: RefCell::default(),
            lags: RefCell::default(),
            stdin: RefCell::default(),
        })
    }

    fn say(&self, args: &str, stdin: &str) -> Said {
        stdin.clone_into(&mut self.stdin.borrow_mut());
        let words: Vec<&str> = shell_words(args);
        now(console::run(self, &KnownNames, &words))
    }

    /// Two seconds have passed.
    fn look(&self) -> Result<(), String> {
        let tally = self.executor.borrow_mut().tally()?;
        self.rates.borrow_mut().look(&tally);
        *self.looked.borrow_mut() = Some(self.now()?);
        Ok(())
    }

    fn now(&self) -> Result<Stats, String> {
        self.executor.borrow_mut().stats(self.rates.borrow().clone())
    }

    /// What is shown: of now, or of the last look.
    fn stats(&self) -> Result<Stats, String> {
        let mut stats = self.now()?;
        if !*self.lags.borrow() {
            return Ok(stats);
        }
        let looked = self.looked.borrow();
        stats.total = looked.as_ref().map(|looked| looked.total).unwrap_or_default();
        for service in &mut stats.services {
            let looked = looked.iter().flat_map(|stats| &stats.services);
            let was = looked.into_iter().find(|was| list::key(was) == list::key(service));
            service.counters = was.map(|was| was.counters).unwrap_or_default();
            for server in &mut service.servers {
                let was = was.and_then(|was| was.servers.iter().find(|was| was.address == server.address));
                server.counters = was.map(|was| was.counters).unwrap_or_default();
            }
        }
        Ok(stats)
    }

    /// A packet from the clients or from a server; whether server 1 got it.
    fn send(&self, from: Option<u8>, packet: &[u8]) -> Result<bool, String> {
        let side = if from.is_some() { Side::R } else { Side::C };
        let frame = eth(side.mac(), from.map_or(GATEWAY, server_mac), packet);
        let (does, _) = self.executor.borrow_mut().run(side, &frame)?;
        let out = outcome(&self.bed, side, &does);
        Ok(out.iter().any(|(side, frame)| *side == Side::R && frame.get(..6) == Some(&server_mac(1)[..])))
    }
}

/// Nothing here waits for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

/// As the shell of the recordings read them: quotes are only in what stdin brings.
fn shell_words(args: &str) -> Vec<&str> {
    args.split_ascii_whitespace().collect()
}

impl Director for Console<'_> {
    async fn services(&self) -> Result<Vec<Service>, Absent> {
        self.stats().map(|stats| stats.services).map_err(failed)
    }
    async fn connections(&self) -> Result<Vec<Connection>, Absent> {
        self.executor.borrow_mut().connections().map_err(failed)
    }
    async fn size(&self) -> Result<u64, Absent> {
        Ok(SIZE)
    }
    async fn timeouts(&self) -> Result<Timeouts, Absent> {
        self.executor.borrow_mut().timeouts().map_err(failed)
    }
    async fn synchronisation(&self) -> Result<Option<Synchronisation>, Absent> {
        Ok(None)
    }
    async fn rules(&self, commands: &[Command]) -> Result<Vec<(usize, String)>, Absent> {
        let mut refused = Vec::new();
        for (place, command) in commands.iter().enumerate() {
            // By their text, as they go to a daemon.
            let command = Command::parse(&command.to_string()).ok().flatten().unwrap_or_else(|| command.clone());
            if command.interface().is_some_and(|name| !["lo", "c0", "r0"].contains(&name)) {
                refused.push((place, NO_DEVICE.to_owned()));
                continue;
            }
            let plan = command.plan(&self.model.borrow());
            match plan {
                Ok(plan) => {
                    self.executor.borrow_mut().change(&plan).map_err(failed)?;
                    command.apply(&mut self.model.borrow_mut()).map_err(|e| failed(e.to_string()))?;
                }
                Err(error) => refused.push((place, error.to_string())),
            }
        }
        Ok(refused)
    }
    async fn zero(&self, service: Option<ServiceKey>) -> Result<bool, Absent> {
        if service.is_some_and(|key| self.model.borrow().service(&key).is_none()) {
            return Ok(false);
        }
        self.executor.borrow_mut().zero(service).map_err(failed)?;
        // All rates, though only one service's are meant: those of the others have been looked at.
        *self.rates.borrow_mut() = Rates::default();
        *self.looked.borrow_mut() = Some(self.now().map_err(failed)?);
        Ok(true)
    }
    async fn stdin(&self) -> String {
        self.stdin.borrow().clone()
    }
}

/// What the guest's /etc/services says of the ports in the recordings; it had no DNS.
struct KnownNames;

const PORTS: [(&str, u16); 6] =
    [("ftp", 21), ("domain", 53), ("http", 80), ("https", 443), ("http-alt", 8080), ("tproxy", 8081)];

impl Names for KnownNames {
    fn host(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn port(&self, name: &str, _: Protocol) -> Option<u16> {
        PORTS.iter().find(|(known, _)| *known == name).map(|(_, port)| *port)
    }
    fn of_host(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn of_port(&self, port: u16, _: Protocol) -> Option<String> {
        PORTS.iter().find(|(_, known)| *known == port).map(|(name, _)| (*name).to_owned())
    }
}

struct Run<'e> {
    console: Console<'e>,
    ran: Ran,
    number: usize,
}

/// Blocks of a table that stand in another order: a service with its servers, or a line.
fn in_any_order(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with("  -> ") => *block += &format!("\n{line}"),
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks.sort();
    blocks
}

/// A row of connections without the time left: in the kernel the clock goes on.
fn without_time(line: &str) -> String {
    let is_time = |word: &str| {
        word.len() >= 5 && word.split(':').all(|part| part.len() >= 2 && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut words: Vec<_> = line.split(' ').collect();
    if words.get(1).is_some_and(|word| is_time(word)) {
        words[1] = "..:..";
    }
    words.join(" ")
}

impl Run<'_> {
    /// Counts a step, which a rule may excuse.
    fn count(&mut self, note: &str, verdict: Result<Option<&'static str>, String>) {
        match verdict {
            Ok(None) => self.ran.passed += 1,
            Ok(Some(rule)) => self.ran.excused.entry(rule).or_default().push(self.number),
            Err(difference) => {
                self.ran.failed += 1;
                self.ran.mismatches.push(Mismatch { step: self.number, note: note.to_owned(), difference });
            }
        }
        self.number += 1;
    }

    /// A command line that changes nothing but what it prints: as recorded, but for the order of what the kernel has
    /// in none, or for counters that IPVS only looks at every two seconds.
    fn shown(
        &self,
        args: &str,
        is: &dyn Fn() -> Result<Said, String>,
        was: &Said,
    ) -> Result<Option<&'static str>, String> {
        let first = is()?;
        if first == *was {
            return Ok(None);
        }
        let rest = |said: &Said| (said.code, said.err.clone());
        let untimed = |text: &str| text.lines().map(without_time).collect::<Vec<_>>().join("\n");
        let timed = self.ran.executor == "memory";
        let rows = |said: &Said| in_any_order(&if timed { said.out.clone() } else { untimed(&said.out) });
        let unordered =
            ["-c", "--nosort", "ip_vs", "ip_vs_conn"].iter().any(|word| args.split(' ').any(|arg| arg == *word))
                || args.starts_with("-lnc");
        if unordered && rest(&first) == rest(was) && rows(&first) == rows(was) {
            return Ok(Some("order"));
        }
        // Timeouts that were set meanwhile hold for connections that are there, too.
        let row = |line: &str| line.rsplit_once(' ').map_or(line, |(row, _)| row.trim_end()).to_owned();
        let without_end = |said: &Said| in_any_order(&said.out).iter().map(|line| row(line)).collect::<Vec<_>>();
        if args == "ip_vs_conn" && without_end(&first) == without_end(was) {
            return Ok(Some("set"));
        }
        *self.console.lags.borrow_mut() = true;
        let late = is();
        *self.console.lags.borrow_mut() = false;
        if late? == *was {
            return Ok(Some("lag"));
        }
        Err(format!("    recorded: {was:?}\n    is:       {first:?}"))
    }

    fn output(&mut self, output: &Output) -> Result<(), String> {
        let was = Said { code: output.rc, out: output.stdout.clone(), err: output.stderr.clone() };
        let stdin = output.stdin.clone().unwrap_or_default();
        let lists = ["-L", "-l", "-S", "-n"].iter().any(|word| output.args.starts_with(word)) || output.args.is_empty();
        let verdict = if lists {
            self.shown(&output.args, &|| Ok(self.console.say(&output.args, &stdin)), &was)
        } else {
            let is = self.console.say(&output.args, &stdin);
            if is == was { Ok(None) } else { Err(format!("    recorded: {was:?}\n    is:       {is:?}")) }
        };
        self.count(&format!("ipvsadm {}", output.args), verdict);
        Ok(())
    }

    fn config(
        &mut self,
        config: &[String],
        outputs: &[Output],
        proc: &BTreeMap<String, String>,
        sysctl: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        for line in config {
            let said = self.console.say(line, "");
            if said != Said::default() {
                return Err(format!("{line}: {said:?}"));
            }
        }
        self.traffic()?;
        // The files of /proc and the parameters were read before the last three command lines.
        let (before, after) = outputs.split_at(outputs.len().saturating_sub(3));
        for (at, output) in before.iter().enumerate() {
            if at == 1 {
                // It slept four seconds here.
                self.console.look()?;
                self.console.look()?;
                self.console.executor.borrow_mut().sweep_after(4)?;
                // A packet of nobody's: in memory that is what moves the clock.
                self.console.executor.borrow_mut().run(Side::C, &[0; 60])?;
            }
            self.output(output)?;
        }
        for (file, text) in proc {
            let was = Said { code: 0, out: text.clone(), err: String::new() };
            let is = || {
                let stats = self.console.stats()?;
                let out = match file.as_str() {
                    "ip_vs" => proc::table(&stats.services, SIZE),
                    "ip_vs_conn" => proc::connections(&self.console.executor.borrow_mut().connections()?),
                    "ip_vs_stats" => proc::stats(&stats),
                    "ip_vs_app" => {
                        let connections = self.console.executor.borrow_mut().connections()?;
                        proc::apps(&stats.services, &connections)
                    }
                    _ => proc::stats_by_cpu(&stats),
                };
                Ok(Said { code: 0, out, err: String::new() })
            };
            let verdict = if file == "ip_vs_stats_percpu" {
                // One row for all CPUs: the headings, and the row of the sum, which is zeroed.
                let kept =
                    |text: &str| text.lines().filter(|l| !l.starts_with("  0 ")).map(str::to_owned).collect::<Vec<_>>();
                let out = is()?.out;
                if kept(&out) == kept(text) {
                    Ok(Some("percpu"))
                } else {
                    Err(format!("    recorded: {text}\n    is: {out}"))
                }
            } else {
                self.shown(file, &is, &was)
            };
            self.count(file, verdict);
        }
        let shown = self.console.model.borrow().settings().ipvs_sysctls();
        for (name, was) in sysctl {
            let verdict = match shown.get(name) {
                Some(is) if is == was => Ok(None),
                None if name == "sync_qlen_max" => Ok(Some("qlen")),
                other => Err(format!("    recorded: {was}\n    is:       {other:?}")),
            };
            self.count(name, verdict);
        }
        after.iter().try_for_each(|output| self.output(output))
    }

    /// The traffic of text-config.
    fn traffic(&self) -> Result<(), String> {
        let packet = |src: &str, dst: &str, sport, dport, flags| {
            let (src, dst) = (address(src), address(dst));
            let of = Tcp { sport, dport, flags, ..Tcp::default() };
            ip(src, dst, proto::TCP, &tcp(src, dst, &of), &IpOptions::default())
        };
        let client = |packet: Vec<u8>| self.console.send(None, &packet);
        let (vip, ack) = ("192.0.2.10", flag::ACK);
        for k in 1..=5u16 {
            let from = format!("203.0.113.{k}");
            let one = |flags| packet(&from, vip, 4000 + k, 80, flags);
            client(one(flag::SYN))?;
            if k > 1 {
                self.console.send(Some(3), &packet("10.1.0.13", &from, 8081, 4000 + k, flag::SYN | ack))?;
                client(one(ack))?;
            }
            if k == 4 {
                client(one(flag::FIN | ack))?;
            }
            if k == 5 {
                client(one(flag::RST))?;
            }
        }
        for k in 0..3u16 {
            client(packet("203.0.113.9", vip, 5000 + k, 443, flag::SYN))?;
            let (src, dst) = (address("203.0.113.9"), address("192.0.2.11"));
            let datagram = udp(src, dst, 5000 + k, 53, &[b'q'; 40]);
            client(ip(src, dst, proto::UDP, &datagram, &IpOptions::default()))?;
            client(packet("2001:db8:9::1", "2001:db8::10", 5000 + k, 80, flag::SYN))?;
            client(packet("203.0.113.8", "192.0.2.12", 6000 + k, 80 + k, flag::SYN))?;
        }
        client(packet("2001:db8:9::1", "2001:db8::11", 5000, 80, flag::SYN)).map(|_| ())
    }

    fn errors(&mut self, base: &[String], cases: &[Case]) -> Result<(), String> {
        for Case { output, changed } in cases {
            let with_base = output.stdin.is_none();
            self.console.executor.borrow_mut().set_up(&self.console.bed, &Model::default())?;
            *self.console.model.borrow_mut() = Model::default();
            if with_base {
                self.console.say("-R", &base.join("\n"));
            }
            let lines = |said: Said| said.out.lines().map(str::to_owned).collect::<Vec<_>>();
            let before = lines(self.console.say("-S -n", ""));
            let is = self.console.say(&output.args, output.stdin.as_deref().unwrap_or_default());
            let after = lines(self.console.say("-S -n", ""));
            let new = after.iter().filter(|line| !before.contains(line)).cloned();
            let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("gone: {line}"));
            let did: Vec<_> = new.chain(gone).collect();
            let was = Said { code: output.rc, out: output.stdout.clone(), err: output.stderr.clone() };
            let verdict = if is == was && did == *changed {
                Ok(None)
            } else if output.args.contains("-s twos") && is == Said::default() {
                Ok(Some("twos"))
            } else if output.args.contains("--pe sip") && is.err.starts_with("persistence engine sip") {
                Ok(Some("sip"))
            } else {
                Err(format!("    recorded: {was:?} {changed:?}\n    is:       {is:?} {did:?}"))
            };
            self.count(&format!("ipvsadm {} {:?}", output.args, output.stdin), verdict);
        }
        Ok(())
    }

    fn rates(&mut self, steps: &[Second]) -> Result<(), String> {
        let rules = [
            "-A -t 192.0.2.10:80 -s rr",
            "-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m",
            "-a -t 192.0.2.10:80 -r 10.1.0.12:80 -g",
        ];
        rules.iter().for_each(|rule| _ = self.console.say(rule, ""));
        let mut number = 0u16;
        for step in steps {
            // The recorded kernel looked between the second and the third, and every two seconds from then on.
            if step.second > 0 && step.second % 2 == 0 {
                self.console.look()?;
            }
            for _ in 0..if step.second < 8 { 10 } else { 0 } {
                number += 1;
                let (from, vip) = (address(&format!("203.0.113.{}", 1 + number % 200)), address("192.0.2.10"));
                let of =
                    Tcp { sport: 7000 + number, dport: 80, flags: flag::SYN, payload: &[b'p'; 60], ..Tcp::default() };
                let packet = ip(from, vip, proto::TCP, &tcp(from, vip, &of), &IpOptions::default());
                if self.console.send(None, &packet)? {
                    let server = address("10.1.0.11");
                    let (flags, payload) = (flag::SYN | flag::ACK, &[b'q'; 100]);
                    let of = Tcp { sport: 80, dport: 7000 + number, flags, payload, ..Tcp::default() };
                    let answer = ip(server, from, proto::TCP, &tcp(server, from, &of), &IpOptions::default());
                    self.console.send(Some(1), &answer)?;
                }
            }
            let said = |out: &str| Said { code: 0, out: out.to_owned(), err: String::new() };
            for (args, was) in [("-L -n --stats --exact", &step.stats), ("-L -n --rate", &step.rate)] {
                let verdict = self.shown(args, &|| Ok(self.console.say(args, "")), &said(was));
                self.count(&format!("second {}: {args}", step.second), verdict);
            }
            let file = || Ok(said(&proc::stats(&self.console.stats()?)));
            let verdict = self.shown("ip_vs_stats", &file, &said(&step.proc));
            self.count(&format!("second {}: ip_vs_stats", step.second), verdict);
        }
        Ok(())
    }
}
