//! Whether a packet of a connection makes the master send it (ipvs-semantics §9.4), as the
//! kernel decides it. Pure: what is remembered in the connection is [`Remembered`].
//!
//! Asked after each packet of a client, with the count of packets that includes it. (The kernel
//! asks again of the connection's controller, whether or not the connection itself is sent:
//! [`controller_packets`]. Here a controller is sent with its connections.)

use crate::{sctp, tcp};
use dirigent_wire::ip::proto;

/// When the master sends: `sync_threshold`, `sync_refresh_period`, `sync_retries`,
/// `sync_persist_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Send at the packet that leaves this remainder in each period.
    pub threshold: u32,
    /// Packets in a period; 0: once, at the threshold.
    pub period: u32,
    /// Ticks in which a connection that only goes on is sent once; 0: not limited.
    pub refresh_ticks: u32,
    /// How often it is sent again within that time, 0 to 3, an eighth of it apart.
    pub retries: u32,
    /// Connections that belong to a template are not sent.
    pub persist_mode: bool,
    /// Ticks of a second.
    pub ticks_per_second: u32,
}

impl Settings {
    /// IPVS's defaults, with that clock.
    pub const fn new(ticks_per_second: u32) -> Self {
        Self { threshold: 3, period: 50, refresh_ticks: 0, retries: 0, persist_mode: false, ticks_per_second }
    }
    /// Whether the count alone makes it sent.
    #[inline(always)]
    pub(super) const fn counts(&self, packets: u32) -> bool {
        let at = if self.period > 0 { packets % self.period } else { packets };
        at == self.threshold
    }
}

/// What the decision is made on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// A persistence template.
    pub template: bool,
    /// Controlled by a template.
    pub persistent: bool,
    /// Under one-packet scheduling: never sent itself.
    pub one_packet: bool,
    /// Protocol of IP.
    pub protocol: u8,
    /// State after the packet.
    pub state: u8,
    /// Packets of the client, with this one; of a controller [`controller_packets`].
    pub packets: u32,
    /// Ticks that it lives from now on without another packet.
    pub timeout_ticks: u32,
    /// Now, ticks, wrapping.
    pub now_ticks: u32,
}

/// What is kept with the connection between packets; zero of a new one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Remembered {
    /// When it was to end as of the last time it was sent, ticks; how often it was sent again in
    /// the two low bits.
    pub end: u32,
    /// State that was sent last.
    pub state: u8,
}

impl Remembered {
    const RETRIES: u32 = 3;
}

/// Whether to send, and what to remember then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Not now, for the reason of that rule; nothing changes.
    Keep(Rule),
    /// Now, by that rule; what is remembered from now on.
    Send(Rule, Remembered),
}

impl Decision {
    /// Whether the connection is to be sent.
    #[inline(always)]
    #[must_use]
    pub fn send(self) -> Option<Remembered> {
        match self {
            Decision::Send(_, remembered) => Some(remembered),
            Decision::Keep(_) => None,
        }
    }
}

/// The rule that decided (§9.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// One-packet entries are skipped.
    OnePacket,
    /// 1: `sync_persist_mode`.
    Persistent,
    /// 2: a state that is not sent.
    State,
    /// 3: another closing state than the one that was sent.
    Changed,
    /// 4: sent not long ago.
    Refresh,
    /// 5: the count of packets.
    Packets,
}

/// Bit i: a TCP connection in state i is sent.
const TCP_SENT: u32 = 1 << tcp::State::Established as u32
    | 1 << tcp::State::FinWait as u32
    | 1 << tcp::State::TimeWait as u32
    | 1 << tcp::State::Close as u32
    | 1 << tcp::State::CloseWait as u32;
/// The same of SCTP.
const SCTP_SENT: u32 = 1 << sctp::State::Established as u32
    | 1 << sctp::State::ShutdownSent as u32
    | 1 << sctp::State::ShutdownReceived as u32
    | 1 << sctp::State::ShutdownAckSent as u32
    | 1 << sctp::State::Closed as u32;

/// The states in which it is sent, a bit each, and the one that is not sent at once; of other
/// protocols than TCP and SCTP, and of templates, any: none.
#[inline(always)]
fn sent_states(asked: &Asked) -> Option<(u32, u8)> {
    match asked.protocol {
        _ if asked.template => None,
        proto::TCP => Some((TCP_SENT, tcp::State::Established as u8)),
        proto::SCTP => Some((SCTP_SENT, sctp::State::Established as u8)),
        _ => None,
    }
}

/// Whether the connection is to be sent now.
#[inline(always)]
pub fn decide(asked: &Asked, remembered: Remembered, settings: &Settings) -> Decision {
    if asked.one_packet && !asked.template {
        return Decision::Keep(Rule::OnePacket);
    }
    if !asked.template && asked.persistent && settings.persist_mode {
        return Decision::Keep(Rule::Persistent);
    }
    let end = asked.now_ticks.wrapping_add(asked.timeout_ticks) & !Remembered::RETRIES;
    let send = |rule, end| Decision::Send(rule, Remembered { end, state: asked.state });
    if let Some((states, established)) = sent_states(asked) {
        if states >> (asked.state & 31) & 1 == 0 {
            return Decision::Keep(Rule::State);
        }
        if asked.state != remembered.state && asked.state != established {
            return send(Rule::Changed, end);
        }
    }
    let mut retry = 0;
    if settings.refresh_ticks > 0 {
        match refresh(asked, remembered, settings, end) {
            Refresh::Due => {}
            Refresh::Again(number) => retry = number,
            Refresh::No => return Decision::Keep(Rule::Refresh),
        }
    }
    let always = if settings.period > 0 { asked.template } else { settings.refresh_ticks > 0 };
    let counted = always || settings.counts(asked.packets);
    if counted { send(Rule::Packets, end | retry) } else { Decision::Keep(Rule::Packets) }
}

enum Refresh {
    /// Its end has moved far enough.
    Due,
    /// It is sent once more, for the time of that number.
    Again(u32),
    No,
}

#[inline(always)]
fn refresh(asked: &Asked, remembered: Remembered, settings: &Settings, end: u32) -> Refresh {
    let moved = end.wrapping_sub(remembered.end) as i32;
    let shortest = (asked.timeout_ticks / 2).max(settings.ticks_per_second.saturating_mul(10));
    if moved.unsigned_abs() >= settings.refresh_ticks.min(shortest) {
        return Refresh::Due;
    }
    let used = remembered.end & Remembered::RETRIES;
    let earliest = remembered.end.wrapping_sub(asked.timeout_ticks).wrapping_add(settings.refresh_ticks / 8);
    if used >= settings.retries.min(Remembered::RETRIES) || (asked.now_ticks.wrapping_sub(earliest) as i32) < 0 {
        return Refresh::No;
    }
    Refresh::Again(used + 1)
}

/// What controls a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Controller {
    /// A persistence template.
    Template,
    /// A control connection of FTP.
    Connection,
}

/// The count of packets that a controller is asked with when one of its connections had a
/// packet: a template's goes up by one each time, a control connection's is the threshold,
/// which is also what an expired controller is asked with when it is armed again.
#[must_use]
pub fn controller_packets(controller: Controller, counted: u32, settings: &Settings) -> u32 {
    match controller {
        Controller::Template => counted.wrapping_add(1),
        Controller::Connection => settings.threshold,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const HZ: u32 = 100;
    const IPVS: Settings = Settings::new(HZ);
    const TCP: Asked = Asked {
        template: false,
        persistent: false,
        one_packet: false,
        protocol: proto::TCP,
        state: tcp::State::Established as u8,
        packets: 1,
        timeout_ticks: 900 * HZ,
        now_ticks: 5000,
    };
    const SEEN: Remembered = Remembered { end: 0, state: tcp::State::Established as u8 };

    fn rule(asked: Asked, remembered: Remembered, settings: Settings) -> (bool, Rule) {
        match decide(&asked, remembered, &settings) {
            Decision::Keep(rule) => (false, rule),
            Decision::Send(rule, _) => (true, rule),
        }
    }

    #[test]
    fn one_packet_entries_are_never_sent() {
        let udp = Asked { protocol: proto::UDP, one_packet: true, packets: 3, state: 0, ..TCP };
        assert_eq!(rule(udp, SEEN, IPVS), (false, Rule::OnePacket));
        // ... but the template of such a service is.
        let template = Asked { template: true, ..udp };
        assert_eq!(rule(template, SEEN, IPVS), (true, Rule::Packets));
    }

    #[test]
    fn rule_1_persist_mode_spares_what_a_template_controls() {
        let child = Asked { persistent: true, packets: 3, ..TCP };
        assert_eq!(rule(child, SEEN, IPVS), (true, Rule::Packets));
        let mode = Settings { persist_mode: true, ..IPVS };
        assert_eq!(rule(child, SEEN, mode), (false, Rule::Persistent));
        assert_eq!(rule(Asked { persistent: false, ..child }, SEEN, mode), (true, Rule::Packets));
        // It comes before rule 3, so a closing one is not sent either.
        assert_eq!(rule(Asked { state: tcp::State::Close as u8, ..child }, SEEN, mode), (false, Rule::Persistent));
        assert_eq!(rule(Asked { template: true, ..child }, SEEN, mode), (true, Rule::Packets));
    }

    #[test]
    fn rule_2_which_states_are_sent() {
        for (protocol, states, sent) in
            [(proto::TCP, tcp::NAMES.len(), vec![1, 4, 5, 6, 7]), (proto::SCTP, sctp::STATES, vec![8, 9, 10, 11, 13])]
        {
            for state in 0..states as u8 {
                let asked = Asked { protocol, state, packets: 3, ..TCP };
                let remembered = Remembered { state, ..SEEN };
                let expected = if sent.contains(&state) { (true, Rule::Packets) } else { (false, Rule::State) };
                assert_eq!(rule(asked, remembered, IPVS), expected, "{protocol} {state}");
            }
        }
        // No rule about the state of UDP, others, templates.
        for asked in [
            Asked { protocol: proto::UDP, state: 0, packets: 3, ..TCP },
            Asked { protocol: 51, state: 0, packets: 3, ..TCP },
            Asked { template: true, state: 0, ..TCP },
        ] {
            assert_eq!(rule(asked, Remembered::default(), IPVS), (true, Rule::Packets));
        }
    }

    #[test]
    fn rule_3_a_closing_state_is_sent_at_once() {
        let closing = Asked { state: tcp::State::FinWait as u8, packets: 7, ..TCP };
        assert_eq!(rule(closing, SEEN, IPVS), (true, Rule::Changed));
        // Even when it was sent just now, whatever the refresh period.
        let slow = Settings { refresh_ticks: 1000 * HZ, ..IPVS };
        let now = Remembered { end: 5000 + 120 * HZ, ..SEEN };
        assert_eq!(rule(closing, now, slow), (true, Rule::Changed));
        // Once: then the state is the one that was sent.
        let sent = decide(&closing, SEEN, &IPVS).send().unwrap();
        assert_eq!(sent, Remembered { end: (5000 + 900 * HZ) & !3, state: tcp::State::FinWait as u8 });
        assert_eq!(rule(closing, sent, IPVS), (false, Rule::Packets));
        assert_eq!(rule(Asked { state: tcp::State::Close as u8, ..closing }, sent, IPVS), (true, Rule::Changed));
        // Back to established is no such change.
        assert_eq!(rule(Asked { packets: 8, ..TCP }, sent, IPVS), (false, Rule::Packets));
        // SCTP likewise; a template's state is no reason.
        let shut = Asked { protocol: proto::SCTP, state: sctp::State::ShutdownSent as u8, packets: 7, ..TCP };
        assert_eq!(
            rule(shut, Remembered { state: sctp::State::Established as u8, end: 0 }, IPVS),
            (true, Rule::Changed)
        );
        let assured = Asked { template: true, state: 1, ..TCP };
        let sent = Remembered { end: 5000 + 900 * HZ, state: 0 };
        assert_eq!(rule(assured, sent, slow), (false, Rule::Refresh));
    }

    #[test]
    fn rule_4_refresh_and_retries() {
        let r = Settings { threshold: 0, period: 0, refresh_ticks: 80 * HZ, ..IPVS };
        let first = decide(&TCP, Remembered::default(), &r).send().unwrap();
        assert_eq!(first, Remembered { end: (5000 + 900 * HZ) & !3, state: 1 });
        let later = |seconds: u32| Asked { now_ticks: 5000 + seconds * HZ, ..TCP };
        assert_eq!(rule(later(79), first, r), (false, Rule::Refresh));
        assert_eq!(rule(later(80), first, r), (true, Rule::Packets));
        // Retries: an eighth of the period apart, each counted in the low bits.
        let again = Settings { retries: 2, ..r };
        assert_eq!(rule(later(9), first, again), (false, Rule::Refresh));
        let second = decide(&later(10), first, &again).send().unwrap();
        assert_eq!(second.end & 3, 1);
        assert_eq!(rule(later(19), second, again), (false, Rule::Refresh));
        // (The count in the end's low bits is counted as time, as the kernel does.)
        let third = decide(&Asked { now_ticks: later(20).now_ticks + 1, ..TCP }, second, &again).send().unwrap();
        assert_eq!(third.end & 3, 2);
        assert_eq!(rule(later(40), third, again), (false, Rule::Refresh));
        assert_eq!(decide(&later(101), third, &again).send().unwrap().end & 3, 0);
        // Half of a short timeout counts instead of the period, but no less than ten seconds.
        let short = Asked { timeout_ticks: 60 * HZ, ..TCP };
        let sent = decide(&short, Remembered::default(), &r).send().unwrap();
        let at = |s: u32, timeout: u32| Asked { now_ticks: 5000 + s * HZ, timeout_ticks: timeout * HZ, ..TCP };
        assert_eq!(rule(at(29, 60), sent, r), (false, Rule::Refresh));
        assert_eq!(rule(at(30, 60), sent, r), (true, Rule::Packets));
        let tiny = decide(&at(0, 8), Remembered::default(), &r).send().unwrap();
        assert_eq!(rule(at(9, 8), tiny, r), (false, Rule::Refresh));
        assert_eq!(rule(at(10, 8), tiny, r), (true, Rule::Packets));
        // An end that came nearer by as much is news too.
        assert_eq!(rule(at(1, 60), Remembered { end: 5000 + 900 * HZ, state: 1 }, r), (true, Rule::Packets));
    }

    #[test]
    fn rule_4_holds_across_the_wrap_of_the_clock() {
        let r = Settings { threshold: 0, period: 0, refresh_ticks: 80 * HZ, retries: 1, ..IPVS };
        let start = Asked { now_ticks: u32::MAX - 5 * HZ, ..TCP };
        let sent = decide(&start, Remembered::default(), &r).send().unwrap();
        let later = |s: u32| Asked { now_ticks: start.now_ticks.wrapping_add(s * HZ), ..TCP };
        assert_eq!(rule(later(9), sent, r), (false, Rule::Refresh));
        assert_eq!(decide(&later(11), sent, &r).send().unwrap().end & 3, 1);
        assert_eq!(decide(&later(81), sent, &r).send().unwrap().end & 3, 0);
    }

    #[test]
    fn rule_5_the_count_of_packets() {
        let sent: Vec<u32> = (1..=110).filter(|&packets| rule(Asked { packets, ..TCP }, SEEN, IPVS).0).collect();
        assert_eq!(sent, [3, 53, 103], "the default is the third packet and every fiftieth from there");
        let once = Settings { threshold: 2, period: 0, ..IPVS };
        let template = Asked { template: true, ..TCP };
        for asked in [TCP, template] {
            let sent: Vec<u32> = (1..=110).filter(|&packets| rule(Asked { packets, ..asked }, SEEN, once).0).collect();
            assert_eq!(sent, [2], "no period: once, templates too");
        }
        // Templates pass every time if there is a period; a refresh period alone passes all.
        assert!((1..=5).all(|packets| rule(Asked { packets, ..template }, SEEN, IPVS).0));
        let refresh = Settings { refresh_ticks: HZ, ..once };
        assert!((1..=5).all(|packets| rule(Asked { packets, ..TCP }, SEEN, refresh).0));
    }

    #[test]
    fn controllers_are_asked_with_their_own_count() {
        assert_eq!(controller_packets(Controller::Template, 4, &IPVS), 5);
        assert_eq!(controller_packets(Controller::Template, u32::MAX, &IPVS), 0);
        assert_eq!(controller_packets(Controller::Connection, 4, &IPVS), 3);
    }
}
