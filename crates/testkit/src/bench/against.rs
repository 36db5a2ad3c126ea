//! Another revision beside ours, in the same rounds.
//!
//! Records and tables of revisions differ, and so do the frames that measure them: so the other one is measured by its own program,
//! which is driven from here. It says which cases it has; then it is told a case's number, a line each, and says the nanoseconds a
//! packet of a round. Whoever changes these words breaks comparisons with older revisions. One that is older than this is run as a
//! whole, in turn with ours.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;

use super::{Bench, NOISE, Options, Report, fastest, median, spread};

/// What a program is called with to be driven.
pub const DRIVEN: &str = "--driven";

/// Measures what it is told to, until nobody tells more.
pub fn serve(bench: &mut Bench, input: impl BufRead, mut output: impl Write) -> Result<(), String> {
    let names: Vec<&str> = bench.cases().iter().map(|case| &*case.name).collect();
    let names = serde_json::to_string(&names).map_err(|e| e.to_string())?;
    let mut say = |line: &str| writeln!(output, "{line}").and_then(|()| output.flush()).map_err(|e| e.to_string());
    say(&names)?;
    for line in input.lines() {
        let line = line.map_err(|e| e.to_string())?;
        let number = line.parse().map_err(|_| format!("{line:?} is no case's number"))?;
        say(&bench.round(number)?.to_string())?;
    }
    Ok(())
}

/// A bench with these options; each revision knows them.
fn command(program: &Path, options: &Options, only: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--packets", &options.packets.to_string(), "--rounds", &options.rounds.to_string()])
        .args(["--connections", &options.connections.to_string(), "--cpu", &options.cpu.to_string()])
        .args(["--only", only]);
    command
}

/// Another revision's program, at work.
struct Rival {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
    names: Vec<String>,
}

impl Rival {
    /// Starts it; it sets itself up meanwhile.
    fn start(program: &Path, options: &Options, only: &str) -> Result<Self, String> {
        let fail = |e: &dyn fmt::Display| format!("{}: {e}", program.display());
        let mut child = command(program, options, only)
            .arg(DRIVEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An older one does not know the word; any other error it says again when it is run as a whole.
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| fail(&e))?;
        let (tell, told) = (child.stdin.take(), child.stdout.take());
        let (Some(tell), Some(told)) = (tell, told) else { return Err(fail(&"no pipes")) };
        Ok(Self { child, tell, told: BufReader::new(told), names: Vec::new() })
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.told.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.ends_with('\n') { Ok(line) } else { Err("the other revision's program ended".into()) }
    }

    /// Waits until it is set up: false if it cannot be driven.
    fn ready(&mut self) -> bool {
        let names = self.line().ok().and_then(|line| serde_json::from_str(&line).ok());
        self.names = names.unwrap_or_default();
        !self.names.is_empty()
    }

    fn round(&mut self, name: &str) -> Option<Result<f64, String>> {
        let number = self.names.iter().position(|known| known == name)?;
        let told = writeln!(self.tell, "{number}").map_err(|e| e.to_string()).and_then(|()| self.line());
        Some(told.and_then(|line| line.trim().parse().map_err(|_| format!("the other revision says {line:?}"))))
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A case of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The case.
    pub name: String,
    /// Our fastest round, nanoseconds a packet, the wrapper included.
    pub ours_ns: f64,
    /// Theirs.
    pub theirs_ns: f64,
    /// The one over the other.
    pub ratio: f64,
    /// The same of each round's two times, the middle one.
    pub median_ratio: f64,
    /// Up to which part of it a difference is chance.
    pub noise: f64,
}

impl Row {
    fn new(name: &str, ours: &[f64], theirs: &[f64]) -> Self {
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (ours_ns, theirs_ns) = (fastest(ours), fastest(theirs));
        let noise = NOISE.max(spread(ours) + spread(theirs));
        let ratio = ours_ns / theirs_ns;
        Self { name: name.to_owned(), ours_ns, theirs_ns, ratio, median_ratio: median(ratios), noise }
    }

    /// What is not chance: both ways of comparing must say so.
    #[must_use]
    pub fn judged(&self) -> &'static str {
        let (least, most) = (self.ratio.min(self.median_ratio), self.ratio.max(self.median_ratio));
        match () {
            () if least > 1.0 + self.noise => "slower",
            () if most < 1.0 - self.noise => "faster",
            () => "",
        }
    }
}

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Against {
    /// Cases of both.
    pub rows: Vec<Row>,
    /// Cases that only one has.
    pub only_ours: Vec<String>,
    /// Likewise.
    pub only_theirs: Vec<String>,
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>8}  {:>8}  {:>6}  {:>6}", "ns/packet", "ours", "theirs", "ratio", "median")?;
        for row in &self.rows {
            let (ours, theirs, ratio, median) = (row.ours_ns, row.theirs_ns, row.ratio, row.median_ratio);
            let line =
                format!("{:width$}  {ours:8.1}  {theirs:8.1}  {ratio:6.3}  {median:6.3}  {}", row.name, row.judged());
            writeln!(f, "{}", line.trim_end())?;
        }
        for (whose, names) in [("ours", &self.only_ours), ("theirs", &self.only_theirs)] {
            names.iter().try_for_each(|name| writeln!(f, "only {whose}: {name}"))?;
        }
        let count = |what| self.rows.iter().filter(|row| row.judged() == what).count();
        let (slower, faster) = (count("slower"), count("faster"));
        writeln!(f, "{slower} of {} cases slower than by chance, {faster} faster", self.rows.len())
    }
}

/// Runs of either as a whole.
const TURNS: usize = 3;

/// Runs both as a whole, some times by turns.
fn in_turns(
    program: &Path,
    options: &Options,
    only: &str,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Against, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let each = Options { rounds: options.rounds.div_ceil(TURNS), ..*options };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        progress("the other revision cannot be driven: run as a whole, turns", turn, TURNS);
        theirs.push(whole(program, &each, only)?);
        ours.push(whole(&own, &each, only)?);
    }
    let (Some(own), Some(other)) = (ours.first(), theirs.first()) else { return Err("no turns".into()) };
    let times = |of: &[Report], name: &str| of.iter().filter_map(|report| report.fastest(name)).collect::<Vec<_>>();
    let ([own, other], mut report) = ([own, other].map(Report::names), Against::default());
    for name in &own {
        match other.contains(name) {
            true => report.rows.push(Row::new(name, &times(&ours, name), &times(&theirs, name))),
            false => report.only_ours.push((*name).to_owned()),
        }
    }
    report.only_theirs = other.iter().filter(|name| !own.contains(name)).map(|name| (*name).to_owned()).collect();
    Ok(report)
}

/// One run of a program as a whole.
fn whole(program: &Path, options: &Options, only: &str) -> Result<Report, String> {
    let fail = |e: &dyn fmt::Display| format!("{}: {e}", program.display());
    let json = std::env::temp_dir().join(format!("dirigent-bench-{}.json", std::process::id()));
    // Whether it calls its run sound does not matter here, but what it says is shown.
    let ran = command(program, options, only).arg("--json").arg(&json).stdout(Stdio::null()).status();
    let text = std::fs::read_to_string(&json);
    let _ = std::fs::remove_file(&json);
    let status = ran.map_err(|e| fail(&e))?;
    let text = text.map_err(|_| fail(&format!("it has measured nothing, and ended with {status}")))?;
    serde_json::from_str(&text).map_err(|e| fail(&e))
}

/// Runs all cases whose name holds `only` here and by that program, in turn in each round.
pub fn run(
    program: &Path,
    options: &Options,
    only: &str,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Against, String> {
    let mut rival = Rival::start(program, options, only)?;
    // One after the other, for setting up takes memory and both CPUs.
    progress("the other revision sets up", 0, 1);
    if !rival.ready() {
        return in_turns(program, options, only, progress);
    }
    let mut bench = Bench::new(options, only, progress)?;
    let names: Vec<String> = bench.cases().iter().map(|case| case.name.clone()).collect();
    let (both, only_ours): (Vec<_>, Vec<_>) =
        names.iter().cloned().enumerate().partition(|(_, name)| rival.names.contains(name));
    let mut times = vec![(Vec::new(), Vec::new()); both.len()];
    for round in 0..options.rounds {
        progress("measure", round, options.rounds);
        for ((number, name), (ours, theirs)) in both.iter().zip(&mut times) {
            // Who is second finds the machine as the first has left it: so each is in turn.
            let own_first = round % 2 == 0;
            if own_first {
                ours.push(bench.round(*number)?);
            }
            theirs.extend(rival.round(name).transpose()?);
            if !own_first {
                ours.push(bench.round(*number)?);
            }
        }
    }
    let rows = both.iter().zip(&times).map(|((_, name), (ours, theirs))| Row::new(name, ours, theirs));
    let only_theirs = rival.names.iter().filter(|name| !names.contains(name)).cloned().collect();
    let only_ours = only_ours.into_iter().map(|(_, name)| name).collect();
    Ok(Against { rows: rows.collect(), only_ours, only_theirs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_ways_of_comparing_say_beyond_chance_is_told() {
        let row = |ours: &[f64], theirs: &[f64]| Row::new("nat", ours, theirs);
        assert_eq!(row(&[110.0, 112.0, 111.0], &[100.0, 101.0, 102.0]).judged(), "slower");
        assert_eq!(row(&[90.0, 91.0, 92.0], &[100.0, 101.0, 100.0]).judged(), "faster");
        assert_eq!(row(&[104.0, 104.0], &[100.0, 100.0]).judged(), "");
        // The fastest round was one of a kind.
        assert_eq!(row(&[100.0, 140.0, 100.0, 140.0], &[60.0, 140.0, 140.0, 140.0]).judged(), "");
        let one = Against { rows: vec![row(&[110.0; 4], &[100.0; 4])], ..Against::default() };
        assert!(one.to_string().contains("\nnat     110.0     100.0   1.100   1.100  slower\n"), "{one}");
        assert!(one.to_string().ends_with("1 of 1 cases slower than by chance, 0 faster\n"), "{one}");
    }

    #[test]
    fn a_program_that_measures_nothing_is_told_of() {
        let error = run(Path::new("/bin/true"), &Options::default(), "", &mut |_, _, _| ()).unwrap_err();
        assert!(error.starts_with("/bin/true: it has measured nothing"), "{error}");
        let error = run(Path::new("/nowhere"), &Options::default(), "", &mut |_, _, _| ()).unwrap_err();
        assert!(error.starts_with("/nowhere: "), "{error}");
    }
}
