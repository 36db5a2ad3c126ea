//! What happens to a master, and what that cost its clients.

use super::answerers::{Own, Prober, Seen};
use super::lab::{Lab, METHODS, PAIRS, PLAIN, PORT, Pair, VIPS, Who, ip};
use super::report::{Fast, Row};
use super::traffic::{Load, Outcome, Plan, Servers, Target};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Long transfers to each service.
const TRANSFERS: usize = 4;
/// The clients' first moments, before anything happens.
const WARM: Duration = Duration::from_millis(800);

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// An operator has the master give way (keepalived: SIGTERM).
    Planned,
    /// Its links are cut.
    PowerOff,
    /// Its daemon is killed; its kernel goes on.
    Kill,
    /// Its daemon hangs for 1.5 s.
    Hang,
    /// Nobody hears it for 1.5 s, then all do again.
    Split,
    /// Its daemon runs for a quarter of the time.
    Slow,
    /// Of the adverts 30 % are lost.
    Lost,
}

impl Scenario {
    /// All, in their order.
    pub const ALL: [Self; 7] =
        [Self::Planned, Self::PowerOff, Self::Kill, Self::Hang, Self::Split, Self::Slow, Self::Lost];

    /// For the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::PowerOff => "power-off",
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Split => "split",
            Self::Slow => "slow",
            Self::Lost => "lost-adverts",
        }
    }

    /// Does it to both pairs; when it began for each.
    fn happen(self, lab: &mut Lab) -> [Instant; 2] {
        let ms = Duration::from_millis;
        let wait = |time| std::thread::sleep(time);
        match self {
            Self::Planned => {
                let begun = PAIRS.map(|pair| {
                    let begun = Instant::now();
                    match pair.who {
                        Who::Dirigent => lab.dirigent(pair.master, &["failover", "now"]),
                        Who::Keepalived => drop(lab.signal(pair.master, "-TERM")),
                    }
                    begun
                });
                wait(ms(2000));
                begun
            }
            Self::PowerOff => {
                let begun = PAIRS.map(|pair| lab.cut(pair.master, true));
                wait(ms(3000));
                begun
            }
            Self::Kill => {
                let begun = PAIRS.map(|pair| lab.signal(pair.master, "-9"));
                wait(ms(3000));
                begun
            }
            Self::Hang => {
                let begun = PAIRS.map(|pair| lab.signal(pair.master, "-STOP"));
                wait(ms(1500));
                PAIRS.iter().for_each(|pair| {
                    lab.signal(pair.master, "-CONT");
                });
                wait(ms(2500));
                begun
            }
            Self::Split => {
                let begun = PAIRS.map(|pair| {
                    lab.split(pair.master, true);
                    Instant::now()
                });
                wait(ms(1500));
                PAIRS.iter().for_each(|pair| lab.split(pair.master, false));
                wait(ms(3000));
                begun
            }
            Self::Slow => {
                let begun = Instant::now();
                while begun.elapsed() < ms(4000) {
                    PAIRS.iter().for_each(|pair| {
                        lab.signal(pair.master, "-STOP");
                    });
                    wait(ms(150));
                    PAIRS.iter().for_each(|pair| {
                        lab.signal(pair.master, "-CONT");
                    });
                    wait(ms(50));
                }
                wait(ms(1000));
                [begun; 2]
            }
            Self::Lost => {
                let begun = Instant::now();
                PAIRS.iter().flat_map(|pair| [pair.master, pair.backup]).for_each(|host| lab.lose_adverts(host, 30));
                wait(ms(8000));
                [begun; 2]
            }
        }
    }

    /// Has the pairs as they were.
    fn mend(self, lab: &mut Lab) {
        for pair in PAIRS {
            match (self, pair.who) {
                (Self::Planned, Who::Dirigent) => lab.dirigent(pair.master, &["failover", "back"]),
                (Self::Planned | Self::Kill, _) => lab.start(pair.master),
                (Self::PowerOff, _) => drop(lab.cut(pair.master, false)),
                (Self::Lost, _) => {
                    for host in [pair.master, pair.backup] {
                        lab.lose_adverts(host, 0);
                    }
                }
                (Self::Hang | Self::Split | Self::Slow, _) => {}
            }
        }
        for pair in PAIRS {
            lab.settle(pair);
        }
    }
}

/// The servers of a lab.
pub fn servers(lab: &Lab) -> Vec<Servers> {
    let ports = |is_nat: bool| METHODS.iter().filter(move |(m, _)| (*m == "nat") == is_nat).map(|(_, port)| *port);
    let [nat, others]: [Vec<u16>; 2] = [true, false].map(|is_nat| ports(is_nat).collect());
    let of = |host: &str, ports: &[u16]| Servers::start(&lab.namespace(host), ports);
    vec![of("d", &nat), of("e1", &others), of("e2", &others), of("k1", &[PORT]), of("k2", &[PORT])]
}

/// Both pairs' services; the target's name is its mode and its family.
fn targets(pair: Pair) -> Vec<Target> {
    let target = |mode: &str, vip: &str, port| {
        let address = SocketAddr::new(ip(vip), port);
        Target { name: format!("{mode} {}", if address.is_ipv4() { "v4" } else { "v6" }), address }
    };
    match pair.who {
        Who::Dirigent => METHODS.iter().flat_map(|(mode, port)| VIPS.map(|vip| target(mode, vip, *port))).collect(),
        Who::Keepalived => PLAIN.iter().map(|vip| target("plain", vip, PORT)).collect(),
    }
}

fn prober(lab: &Lab) -> Prober {
    let own = Own { mac: Lab::mac("p"), v4: Ipv4Addr::new(10, 9, 0, 8), v6: "fd09::8".parse().expect("an address") };
    Prober::start(&lab.namespace("p"), own, VIPS.into_iter().chain(PLAIN).map(ip).collect())
}

/// One scenario, with both pairs at once.
pub fn run(lab: &mut Lab, scenario: Scenario) -> Vec<Row> {
    let plan = Plan { transfers: TRANSFERS, every: Duration::from_millis(20), patience: Duration::from_secs(1) };
    let prober = prober(lab);
    let loads = PAIRS.map(|pair| Load::start(&lab.namespace("c"), targets(pair), plan));
    std::thread::sleep(WARM);
    let begun = scenario.happen(lab);
    let outcomes = loads.map(Load::stop);
    let seen = prober.stop();
    scenario.mend(lab);
    let rows = PAIRS.into_iter().zip(begun).zip(outcomes);
    rows.flat_map(|((pair, begun), outcomes)| outcomes.into_iter().map(move |o| (pair, begun, o)))
        .map(|(pair, begun, outcome)| row(scenario, pair, begun, &outcome, &seen))
        .collect()
}

fn row(scenario: Scenario, pair: Pair, begun: Instant, outcome: &Outcome, seen: &Seen) -> Row {
    let vip = ip(pair.vips[usize::from(outcome.name.ends_with("v6"))]);
    Row {
        scenario: scenario.name().to_owned(),
        who: pair.who.name().to_owned(),
        mode: outcome.name.clone(),
        survived: outcome.survived,
        transfers: outcome.transfers(),
        requests: outcome.requests.len(),
        lost: outcome.lost(),
        pause_ms: ms(outcome.longest_pause()),
        announced_ms: seen.announced_after(vip, begun, Lab::mac(pair.master)).map(ms),
        two_answerers_ms: ms(seen.longest_double(vip)),
        broken: outcome.broken.first().cloned(),
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The master's links are cut, so often, one pair after the other: how long its clients waited.
pub fn fast(lab: &mut Lab, runs: usize) -> Vec<Fast> {
    PAIRS
        .iter()
        .map(|pair| {
            let mut fast = Fast { who: pair.who.name().to_owned(), pauses_ms: Vec::new(), announced_ms: Vec::new() };
            let one = targets(*pair).into_iter().filter(|t| ["dr v4", "plain v4"].contains(&t.name.as_str()));
            let one: Vec<_> = one.collect();
            lab.start_pairs(&[*pair]);
            // What comes a moment after a start: announcements, and neighbours who are looked for.
            std::thread::sleep(Duration::from_secs(1));
            for _ in 0..runs {
                let plan = Plan { transfers: 0, every: Duration::from_millis(1), patience: Duration::from_millis(900) };
                let prober = prober(lab);
                let load = Load::start(&lab.namespace("c"), one.clone(), plan);
                std::thread::sleep(Duration::from_millis(200));
                let begun = lab.cut(pair.master, true);
                std::thread::sleep(Duration::from_millis(400));
                let outcomes = load.stop();
                let seen = prober.stop();
                lab.cut(pair.master, false);
                fast.pauses_ms.extend(outcomes.iter().map(|o| ms(o.longest_pause())));
                let announced = seen.announced_after(ip(pair.vips[0]), begun, Lab::mac(pair.master));
                fast.announced_ms.extend(announced.map(ms));
                if !lab.settles(*pair, Duration::from_secs(10)) {
                    eprintln!("{}: the master does not come to rest any more", pair.who.name());
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            lab.end(*pair);
            fast
        })
        .collect()
}
