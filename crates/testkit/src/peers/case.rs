//! What is measured, and how one measurement is made.

use super::contestant::{self, BULK, Contestant, DATAGRAMS, Setting, WEB};
use super::open_loop::{self, Plan};
use super::site::Site;
use super::{CLIENT_CPU, datagrams, programs};
use crate::cpu;
use std::net::SocketAddr;
use std::time::Duration;

/// Streams or connections, where there are many.
const STREAMS: &str = "8";
const CONNECTIONS: usize = 64;
/// Rare requests need some time to be seen: times to answer are measured for so many times as long as the rest.
const LONGER: u32 = 2;
/// More failed requests than one in so many make a measurement worth nothing.
const FAILED: f64 = 100.0;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// One stream of TCP to a server.
    OneStream,
    /// Several.
    Streams,
    /// Several from a server to the client.
    Down,
    /// Requests one after the other, by many connections.
    Requests,
    /// A connection for each request.
    Connections,
    /// Small datagrams to a server.
    Datagrams,
    /// How long answers take, at a fixed rate of requests.
    Latency,
}

impl Case {
    /// All, in the order of a round.
    pub const ALL: [Self; 7] =
        [Self::OneStream, Self::Streams, Self::Down, Self::Requests, Self::Connections, Self::Datagrams, Self::Latency];

    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneStream => "stream",
            Self::Streams => "streams",
            Self::Down => "down",
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Datagrams => "datagrams",
            Self::Latency => "latency",
        }
    }

    /// Segments larger than frames are what offloads are for; the rest sends small packets.
    pub fn is_measured_in(self, setting: Setting) -> bool {
        setting == Setting::Frames || matches!(self, Self::OneStream | Self::Streams | Self::Down)
    }

    /// Whether a contestant can do it.
    pub fn is_for(self, contestant: Contestant) -> bool {
        self != Self::Datagrams || contestant.carries_datagrams()
    }
}

/// A column of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// How much of a case goes through.
    Rate(Case),
    /// What that takes of the CPUs.
    Cpu(Case),
    /// Within which time so many of 1,000 requests were answered.
    Answer(u16),
}

/// Of 1,000.
const ANSWERS: [u16; 3] = [500, 990, 999];

impl Column {
    /// All that a run without `--only` gives.
    pub fn all() -> impl Iterator<Item = Self> {
        let cases = || Case::ALL.into_iter().filter(|case| *case != Case::Latency);
        let rates = cases().map(Self::Rate);
        rates.chain(cases().map(Self::Cpu)).chain(ANSWERS.map(Self::Answer))
    }

    /// The case that it comes from.
    pub fn case(self) -> Case {
        match self {
            Self::Rate(case) | Self::Cpu(case) => case,
            Self::Answer(_) => Case::Latency,
        }
    }

    /// For people.
    pub fn title(self) -> String {
        let of = |case| match case {
            Case::OneStream => "TCP, one stream to the server",
            Case::Streams => "TCP, 8 streams to the server",
            Case::Down => "TCP, 8 streams from the server",
            Case::Requests => "HTTP requests, 64 connections",
            Case::Connections => "new connections, a request each",
            Case::Datagrams => "UDP of 18 bytes to the server",
            Case::Latency => "time to answer",
        };
        match self {
            Self::Rate(case) => of(case).to_owned(),
            Self::Cpu(case) => format!("CPU: {}", of(case)),
            Self::Answer(of) => format!("time to answer, p{}", f64::from(of) / 10.0),
        }
    }

    /// What its numbers are.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rate(Case::OneStream | Case::Streams | Case::Down) => "Gbit/s",
            Self::Rate(_) => "thousand/s",
            Self::Cpu(Case::OneStream | Case::Streams | Case::Down) => "CPU s/GB",
            Self::Cpu(Case::Datagrams) => "CPU s/million packets",
            Self::Cpu(_) => "CPU µs each",
            Self::Answer(_) => "µs",
        }
    }

    /// Whether more is better; otherwise less is.
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Rate(_))
    }
}

/// What one measurement gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Column and value.
    pub values: Vec<(Column, f64)>,
    /// Requests that failed.
    pub errors: u64,
}

/// How measurements are made.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// How long one is.
    pub time: Duration,
    /// Requests a second where time to answer is measured.
    pub rate: f64,
}

impl Measure {
    /// One measurement.
    pub fn run(&self, case: Case, site: &Site) -> Result<Outcome, String> {
        let before = site.cpu();
        let (done, errors) = match case {
            Case::OneStream => (self.transfer(site, &["-P", "1"])?, 0),
            Case::Streams => (self.transfer(site, &["-P", STREAMS])?, 0),
            Case::Down => (self.transfer(site, &["-P", STREAMS, "-R"])?, 0),
            Case::Requests => self.requests(site, &[])?,
            Case::Connections => self.requests(site, &["-H", "Connection: close"])?,
            Case::Datagrams => {
                let to = SocketAddr::from((contestant::vip(), DATAGRAMS));
                let arrived = datagrams::run(&site.namespace("client")?, &site.namespace("server1")?, to, self.time)?;
                if arrived.received == 0 {
                    return Err(format!("none of {} datagrams arrived", arrived.sent));
                }
                let count = arrived.received as f64;
                (Done { units: count / 1e6, rate: count / 1e3 / arrived.time.as_secs_f64() }, 0)
            }
            Case::Latency => return self.latency(site),
        };
        let taken = site.cpu().saturating_sub(before).as_secs_f64();
        let each = match case {
            Case::Requests | Case::Connections => taken * 1e6 / done.units,
            _ => taken / done.units,
        };
        Ok(Outcome { values: vec![(Column::Rate(case), done.rate), (Column::Cpu(case), each)], errors })
    }

    fn transfer(&self, site: &Site, how: &[&str]) -> Result<Done, String> {
        let (cpu, port) = (CLIENT_CPU.to_string(), BULK.to_string());
        let (vip, seconds) = (contestant::vip().to_string(), self.time.as_secs().to_string());
        let mut argv = vec!["taskset", "-c", &cpu, "iperf3", "-c", &vip, "-p", &port, "-t", &seconds, "--json"];
        argv.extend(how);
        let transfer = programs::iperf3(&site.output("client", &argv)?)?;
        Ok(Done { units: transfer.bytes / 1e9, rate: transfer.bytes * 8.0 / 1e9 / transfer.seconds })
    }

    fn requests(&self, site: &Site, how: &[&str]) -> Result<(Done, u64), String> {
        let (cpu, connections) = (CLIENT_CPU.to_string(), CONNECTIONS.to_string());
        let (time, url) = (format!("{}s", self.time.as_secs()), format!("http://{}:{WEB}/", contestant::vip()));
        let mut argv = vec!["taskset", "-c", &cpu, "wrk", "-t1", "-c", &connections, "-d", &time];
        argv.extend(how);
        argv.push(&url);
        let requests = programs::wrk(&site.output("client", &argv)?)?;
        if requests.errors as f64 * FAILED > requests.answered {
            return Err(format!("{} requests failed, {} were answered", requests.errors, requests.answered));
        }
        Ok((Done { units: requests.answered, rate: requests.rate / 1e3 }, requests.errors))
    }

    fn latency(&self, site: &Site) -> Result<Outcome, String> {
        let to = SocketAddr::from((contestant::vip(), WEB));
        let plan = Plan { to, rate: self.rate, connections: CONNECTIONS, time: self.time * LONGER };
        let asked = || cpu::pin(0, &[CLIENT_CPU]).and_then(|()| open_loop::run(&plan).map_err(|e| e.to_string()));
        let latencies = site.namespace("client")?.run(asked).map_err(|e| e.to_string())??;
        let value = |of| (Column::Answer(of), latencies.percentile_us(f64::from(of) / 10.0));
        Ok(Outcome { values: ANSWERS.map(value).to_vec(), errors: latencies.lost })
    }
}

struct Done {
    /// What the CPUs' time is told by: gigabytes, requests, million packets.
    units: f64,
    /// In the column's unit.
    rate: f64,
}

/// How many requests a second a site answers at most.
pub fn rate(site: &Site, measure: Measure) -> Result<f64, String> {
    Ok(measure.requests(site, &[])?.0.rate * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn columns_have_names_of_their_own_and_each_case_has_some() {
        let all: Vec<_> = Column::all().collect();
        let titles: BTreeSet<_> = all.iter().map(|column| column.title()).collect();
        assert_eq!(titles.len(), all.len());
        assert!(titles.contains("time to answer, p99.9") && titles.contains("time to answer, p50"));
        assert!(Case::ALL.iter().all(|case| all.iter().any(|column| column.case() == *case)));
    }
}
