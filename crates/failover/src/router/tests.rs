//! Scripts: what happens when, and what the router then wants. They are in `scripts/`; `BLESS=1` with
//! `cargo nextest run -p dirigent-failover` writes them anew, and the difference is to be read as a
//! change of behaviour.
//!
//! A script begins with `= PARAMETERS`, once or several times for as many routers that all do the same.
//! Each further line is `TIME EVENT → ACTIONS | STATE, next DEADLINE`; times are in milliseconds. Of a backup
//! the deadline is that of its master-down timer; it is called once in an interval besides, but not
//! before a `TIME` with `~`: until then it slept. With priority
//! 100, an advert each second and three of them missed, the skew time is 156/256 s = 609.375 ms,
//! and the master-down interval 3,609.375 ms.

use super::*;
use crate::action::Alarm;
use crate::packet::{Addresses, Auth, Format};
use std::fmt::Write;
use std::net::Ipv4Addr;

const V3: Format = Format::V3Ipv4 { checksum_as_v2: false };
const V2: Format = Format::V2 { auth: Auth::None };

fn parameters(format: Format) -> Parameters {
    let (source, addresses) = match format {
        Format::V3Ipv6 => ("fe80::5".parse().unwrap(), Addresses::V6(vec!["fe80::64".parse().unwrap()])),
        _ => ("192.0.2.5".parse().unwrap(), Addresses::V4(vec![Ipv4Addr::new(192, 0, 2, 100)])),
    };
    Parameters::new(51, format, source, addresses)
}

/// What the words after `=` make.
fn parameters_of(line: &str) -> Parameters {
    let mut words = line.split_whitespace();
    let mut p = parameters(match words.next().unwrap() {
        "v2" => V2,
        "v3" => V3,
        "v6" => Format::V3Ipv6,
        other => panic!("{other}"),
    });
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, "1"));
        let seconds = || Duration::from_secs_f64(value.parse().unwrap());
        match key {
            "priority" => p.priority = value.parse().unwrap(),
            "interval" => p.advert_int = Centis::new(value.parse().unwrap()).unwrap(),
            "down" => p.down_timer_adverts = value.parse().unwrap(),
            "nopreempt" => p.preempt = false,
            "preempt_delay" => p.preempt_delay = seconds(),
            "startup_delay" => p.startup_delay = seconds(),
            "garp_master_delay" => p.garp_master_delay = seconds(),
            "garp_master_refresh" => p.garp_master_refresh = seconds(),
            "garp_lower_prio_delay" => p.garp_lower_prio_delay = Some(seconds()),
            "garp_lower_prio_repeat" => p.garp_lower_prio_repeat = Some(value.parse().unwrap()),
            "master" => p.start_as_master = true,
            "lower_prio_no_advert" => p.lower_prio_no_advert = true,
            "no_higher_prio_send_advert" => p.higher_prio_send_advert = false,
            "strict" => p.strict_mode = true,
            "owner_ignore_adverts" => p.owner_ignore_adverts = true,
            "skip_check_adv_addr" => p.skip_check_adv_addr = true,
            "peer" => {
                p.unicast_peers.push(crate::UnicastPeer::new(value.parse().unwrap()));
                p.check_unicast_src = true;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(p.check(), []);
    p
}

/// Runs the lines of a script. Events:
///
/// `start`, `resume LAST-ADVERT`, `stop`, `fault`, `ok`, `prio P`, `hand over`, `hand back`, `arp MAC`, `poll`,
/// `hear SOURCE PRIORITY [INTERVAL-CS] [other]` (`other`: with another list of addresses), and
/// `until`, which asks for the guard's time.
fn run(parameters: Parameters, script: &str) -> String {
    let mut router = Router::new(parameters);
    let mut text = String::new();
    for line in script.lines() {
        let event = line.split('→').next().unwrap_or(line).trim();
        if event.is_empty() || line.starts_with('#') || line.starts_with('=') {
            writeln!(text, "{line}").unwrap();
            continue;
        }
        let mut out = Vec::new();
        if !event.starts_with('~') {
            keep_awake(&mut router, time(event));
        }
        feed(&mut router, event, &mut out);
        if event.ends_with("until") {
            writeln!(text, "{event:<32}→ {}", router.addresses_valid_until().map_or("never".into(), ms)).unwrap();
            continue;
        }
        let said: Vec<_> = out.iter().map(say).collect();
        let next = router.down_at().or(router.deadline()).map_or("never".into(), ms);
        let said = if said.is_empty() { "-".into() } else { said.join(", ") };
        writeln!(text, "{event:<32}→ {said} | {:?}, next {next}", router.role()).unwrap();
    }
    text
}

/// The calls that a backup wants once in an interval do nothing.
fn keep_awake(router: &mut Router, until: Time) {
    let mut out = Vec::new();
    while let Some(down_at) = router.down_at()
        && let Some(deadline) = router.deadline().filter(|at| *at < until.min(down_at))
    {
        let repeats = matches!(&router.state, State::Backup(Backup { hand_over: Some(_), .. }));
        router.poll(deadline, &mut out);
        assert!(out.is_empty() || repeats);
    }
}

/// The time at the beginning of a line.
fn time(text: &str) -> Time {
    let first = text.split_whitespace().next().unwrap().trim_start_matches('~');
    Time::from_ns((first.parse::<f64>().unwrap() * 1e6).round() as u64)
}

fn feed(router: &mut Router, line: &str, out: &mut Vec<Action>) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let now = time(words[0]);
    let start = |still_holds_addresses, last: &str| {
        Event::Start(Start { still_holds_addresses, last_advert: Some(time(last)) })
    };
    let event = match &words[1..] {
        ["poll"] => return router.poll(now, out),
        ["until"] => return,
        ["start"] => Event::Start(Start::default()),
        ["resume", last] => start(true, last),
        ["stop"] => Event::Stop,
        ["fault"] => Event::Fault,
        ["ok"] => Event::Recovered,
        ["prio", priority] => Event::Priority(priority.parse().unwrap()),
        ["hand", "over"] => Event::HandOver,
        ["hand", "back"] => Event::HandBack,
        ["arp", last] => Event::ForeignAnnouncement {
            address: [192, 0, 2, 100].into(),
            mac: Mac::new([2, 0, 0, 0, 0, last.parse().unwrap()]),
        },
        ["hear", source, priority, rest @ ..] => {
            let mut advert = router.advert(priority.parse().unwrap());
            let source = match advert.addresses {
                Addresses::V4(_) => format!("192.0.2.{source}"),
                Addresses::V6(_) => format!("fe80::{source}"),
            };
            for word in rest {
                match word.parse() {
                    Ok(interval) => advert.interval = Centis::new(interval).unwrap(),
                    Err(_) => advert.addresses = Addresses::V4(vec![Ipv4Addr::LOCALHOST]),
                }
            }
            return router.handle(now, Event::Advert { advert: &advert, source: source.parse().unwrap() }, out);
        }
        other => panic!("{other:?}"),
    };
    router.handle(now, event, out);
}

fn span(duration: Duration) -> String {
    ms(Time::ZERO + duration)
}

fn ms(time: Time) -> String {
    format!("{}", time.as_ns() as f64 / 1e6)
}

fn say(action: &Action) -> String {
    match action {
        Action::SendAdvert { priority, .. } => format!("send {priority}"),
        Action::AddAddresses => "add".into(),
        Action::RemoveAddresses => "remove".into(),
        Action::Announce { repeat, occasion, .. } => format!("announce {repeat} {occasion:?}"),
        Action::StateChanged { from, to, why } => match why {
            Why::BetterMaster { address, priority } => format!("{from:?}→{to:?} Better {address} {priority}"),
            Why::Preempted { address, priority } => format!("{from:?}→{to:?} Preempted {address} {priority}"),
            Why::Late { by } => format!("{from:?}→{to:?} Late {}", span(*by)),
            why => format!("{from:?}→{to:?} {why:?}"),
        },
        Action::Alarm(Alarm::SecondMaster { address, priority }) => format!("ALARM second {address} {priority}"),
        Action::Alarm(Alarm::SecondMasterGone { lasted }) => format!("ALARM gone after {}", span(*lasted)),
        Action::Alarm(alarm) => format!("ALARM {alarm:?}"),
        Action::Discarded { why, .. } => format!("discard {why:?}"),
        Action::Late { by } => format!("late {}", span(*by)),
    }
}

fn check(name: &str, script: &str) {
    let routers: Vec<_> = script.lines().filter_map(|line| line.strip_prefix("= ")).collect();
    assert!(!routers.is_empty());
    for (i, router) in routers.into_iter().enumerate() {
        // Of the family's addresses the last part is all that differs.
        let got = run(parameters_of(router), script).replace("fe80::", "192.0.2.");
        if got != script && i == 0 && std::env::var_os("BLESS").is_some() {
            let path = format!("{}/src/router/scripts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
            return std::fs::write(path, got).unwrap();
        }
        assert!(got == script, "{name}, {router}: it is\n{got}");
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => { $(
        #[test]
        fn $name() {
            check(stringify!($name), include_str!(concat!("scripts/", stringify!($name), ".txt")));
        }
    )* };
}

scripts!(
    backup_becomes_master,
    backup_listens,
    a_lower_master_is_preempted,
    a_lower_master_is_left_alone,
    preempt_delay,
    version_2_keeps_its_interval,
    version_3_learns_the_interval,
    owner_begins_as_master,
    an_owner_that_ignores_others,
    a_better_master_is_given_way,
    no_last_word,
    a_second_master,
    a_second_master_goes_by_itself,
    no_answer_to_a_lower_master,
    a_foreign_announcement,
    priority_zero,
    priority_zero_of_another,
    fault,
    owner_in_fault,
    tracking_changes_the_priority,
    hand_over_is_taken,
    hand_over_is_not_taken,
    late_master,
    late_master_hears_first,
    late_backup,
    a_short_sleep,
    always_late_backup,
    resumed_in_time,
    resumed_too_late,
    startup_delay,
    announcements,
    adverts_of_others,
    unicast,
    strict,
);

/// All of the table, as a table.
#[test]
fn the_table() {
    use Role::{Backup, Fault, Initialize, Master};
    use Signal as S;
    let signals = [
        S::Start,
        S::StartMaster,
        S::Resume,
        S::Stop,
        S::Fault,
        S::Recover,
        S::RecoverMaster,
        S::MasterDown,
        S::WokeLate,
        S::AdvertDue,
        S::Late,
        S::Zero,
        S::Heed,
        S::Defy,
        S::Better,
        S::Worse,
        S::HandOver,
        S::PullMaster,
        S::PullBackup,
    ];
    let mut text = String::from("| State | Signal | Next | Steps |\n|---|---|---|---|\n");
    for role in [Initialize, Backup, Master, Fault] {
        for signal in signals {
            if let Some(row) = table::row(role, signal) {
                let steps: Vec<_> = row.steps.iter().map(|step| format!("{step:?}")).collect();
                writeln!(text, "| {role:?} | {signal:?} | {:?} | {} |", row.next, steps.join(", ")).unwrap();
                // Addresses are held by masters, and by nobody else.
                let (adds, removes) =
                    (row.steps.contains(&Step::AddAddresses), row.steps.contains(&Step::RemoveAddresses));
                assert_eq!(adds, role != Master && row.next == Master, "{role:?} {signal:?}");
                assert_eq!(removes, role == Master && row.next != Master, "{role:?} {signal:?}");
                // Who stops to be one says so before anything else.
                assert!(!removes || row.steps[0] == Step::RemoveAddresses);
                // A backup always has a timer.
                let timer = |step: &Step| format!("{step:?}").starts_with("Set");
                assert!(row.next != Backup || role == Backup || row.steps.iter().any(timer));
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/router/scripts/table.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
}
