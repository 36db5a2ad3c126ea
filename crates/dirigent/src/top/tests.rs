//! The screen, letter by letter, of a director that is made up.

use super::look::{Known, Look, Want};
use super::rows::{self, Kind};
use super::state::State;
use super::view::{self, Screen, Skin};
use crossterm::event::{KeyCode, KeyEvent};
use dirigent_api::{
    Connection, Connections, Counters, Daemon, Event, Health, Interface, NextHop, Problem, Reason, Room, Server,
    Service, Stats, Status, VirtualRouter,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use std::time::{Duration, Instant};

/// How long the daemon takes to answer.
const TOOK: Duration = Duration::from_millis(3);
const UTF8: Skin = Skin { colour: true, unicode: true };

fn counters(connections: u64, packets: u64) -> Counters {
    Counters {
        connections,
        in_packets: packets,
        in_bytes: packets * 80,
        out_packets: packets * 2,
        out_bytes: packets * 2400,
    }
}

fn server(service: &str, address: &str, state: &str, connections: u64) -> Server {
    Server {
        service: service.into(),
        address: address.into(),
        method: "nat".into(),
        weight: 2,
        effective_weight: 2.0,
        active: connections as u32,
        inactive: 3,
        state: state.into(),
        next_hop: NextHop { state: "resolved".into(), mac: "02:00:00:00:03:01".into(), ..NextHop::default() },
        counters: counters(connections, connections * 10),
        rates: Some(counters(1, 10)),
        ..Server::default()
    }
}

fn service(protocol: &str, address: &str, servers: &[(&str, &str, u64)]) -> Service {
    let name = format!("{protocol} {address}");
    let servers: Vec<_> = servers.iter().map(|(at, state, count)| server(&name, at, state, *count)).collect();
    let mut sum = Counters::default();
    servers.iter().for_each(|server| sum += server.counters);
    let scheduler = "wrr".into();
    Service {
        protocol: protocol.into(),
        address: address.into(),
        family: if address.starts_with('[') { 6 } else { 4 },
        scheduler,
        servers,
        counters: sum,
        rates: Some(Counters::default()),
        ..Service::default()
    }
}

/// After `seconds` of traffic.
fn look(seconds: u64) -> Look {
    let mut web = service(
        "tcp",
        "192.0.2.10:80",
        &[("10.0.0.2:8080", "available", 40 * seconds), ("10.0.0.3:8080", "down", 2 * seconds)],
    );
    web.servers[0].health =
        Some(Health { state: "up".into(), for_s: 11_520, checks: vec!["tcp".into()], ..Health::default() });
    let why = Some("http: GET /healthy: 503 is not 200".into());
    web.servers[1].health =
        Some(Health { state: "down".into(), for_s: 35, why, checks: vec!["http".into()], ..Health::default() });
    let six = service("tcp", "[2001:db8:1:2:3:4:5:10]:443", &[("[fd00::2]:8443", "draining", 9000 * seconds)]);
    let dns = service("udp", "192.0.2.10:53", &[]);
    let reason = |name: &str, kind: &str, text: &str, count| Reason {
        name: name.into(),
        kind: kind.into(),
        text: text.into(),
        count,
    };
    let daemon = Daemon { uptime_s: 11_520 + seconds, generation: 4, ..Daemon::default() };
    let interface = |name: &str, path: &str| Interface { name: name.into(), path: path.into(), ..Interface::default() };
    let router =
        |name: &str, state: &str| VirtualRouter { name: name.into(), state: state.into(), ..VirtualRouter::default() };
    let status = Status {
        instance: "main".into(),
        daemon: Some(daemon),
        interfaces: vec![interface("eth0", "xdp"), interface("eth1", "tc")],
        connections: Room { connections: 1_048_576, used: 123_456, ..Room::default() },
        virtual_routers: vec![router("web", "master"), router("db", "backup")],
        problems: vec![Problem::new("192.0.2.99", "nobody here holds it", "add it")],
        ..Status::default()
    };
    let connection = |client: &str, state: &str, expires_s, in_packets| Connection {
        protocol: "tcp".into(),
        client: client.into(),
        virtual_address: "192.0.2.10:80".into(),
        server: "10.0.0.2:8080".into(),
        state: state.into(),
        expires_s,
        in_packets,
        out_packets: 7,
    };
    let connections = vec![
        connection("198.51.100.7:40000", "ESTABLISHED", 900, 1_234_567),
        connection("198.51.100.9:51234", "TIME_WAIT", 12, 6),
    ];
    let reasons = vec![
        reason("request", "forwarded", "A client's packet went to its real server.", 1000 * seconds),
        reason("no_server", "answered", "The service has no server that takes new connections.", 3),
        reason("bad_checksum", "dropped", "A checksum is wrong.", 5 * seconds),
        reason("too_short", "dropped", "A header is cut off.", 0),
    ];
    let total = counters(9042 * seconds, 90_420 * seconds);
    let stats =
        Stats { total, rates: Some(Counters::default()), services: vec![web, six, dns], reasons, ..Stats::default() };
    Look { status, stats, connections: Some(Connections { connections, more: true }) }
}

/// A director after two looks, a person in front of it, and the time.
struct Desk {
    state: State,
    known: Known,
    now: Instant,
    skin: Skin,
}

impl Desk {
    fn new() -> Self {
        let (mut known, begun) = (Known::default(), Instant::now());
        known.seen(begun, TOOK, &Want::default(), look(1));
        known.heard(begun, &Event::Quorum { service: "tcp 192.0.2.10:80".into(), up: true });
        let why = "http: GET /healthy: 503 is not 200".into();
        let (service, server) = ("tcp 192.0.2.10:80".into(), "10.0.0.3:8080".into());
        known.heard(begun + Duration::from_secs(1), &Event::Health { service, server, up: false, why });
        known.seen(begun + Duration::from_secs(2), TOOK, &Want::default(), look(3));
        let now = begun + Duration::from_secs(36);
        Self { state: State::new(Duration::from_secs(2), None), known, now, skin: UTF8 }
    }
    fn buffer(&mut self, width: u16, height: u16) -> Buffer {
        let table = rows::table(&self.state.level().place, &self.known, self.now);
        let filter = self.state.level().filter.clone();
        let rows = table.arranged(self.state.sort(), &filter);
        self.state.settle(&rows, view::page(&self.state, &self.known, self.now, height));
        let Self { state, known, now, skin } = self;
        let screen = Screen { state, known, table: &table, rows: &rows, now: *now, skin: *skin };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame.buffer_mut())).unwrap();
        terminal.backend().buffer().clone()
    }
    fn screen(&mut self, width: u16, height: u16) -> String {
        let buffer = self.buffer(width, height);
        let lines = buffer.content.chunks(width.into());
        let text = |line: &[ratatui::buffer::Cell]| line.iter().map(|cell| cell.symbol()).collect::<String>();
        lines.map(|line| text(line).trim_end().to_owned() + "\n").collect()
    }
    fn press(&mut self, keys: &[KeyCode]) {
        for key in keys {
            let table = rows::table(&self.state.level().place, &self.known, self.now);
            let filter = self.state.level().filter.clone();
            let rows = table.arranged(self.state.sort(), &filter);
            self.state.settle(&rows, 10);
            self.state.press(KeyEvent::from(*key), &rows, 10);
        }
    }
    fn letters(&mut self, letters: &str) {
        letters.chars().for_each(|letter| self.press(&[KeyCode::Char(letter)]));
    }
}

/// The screen that a literal below shows; its first line break is not a part of it.
fn shows(screen: &str, wanted: &str) {
    assert!(screen == wanted.trim_start_matches('\n'), "the screen is\n{screen}");
}

#[test]
fn services_on_80_columns() {
    shows(&Desk::new().screen(80, 24), SERVICES_80);
}

#[test]
fn services_on_120_columns() {
    shows(&Desk::new().screen(120, 40), SERVICES_120);
}

#[test]
fn servers_with_health_and_its_reason() {
    let mut desk = Desk::new();
    desk.press(&[KeyCode::Enter, KeyCode::Down]);
    shows(&desk.screen(80, 24), SERVERS_80);
    shows(&desk.screen(120, 40), SERVERS_120);
}

#[test]
fn connections_of_a_server() {
    let mut desk = Desk::new();
    desk.press(&[KeyCode::Enter, KeyCode::Enter]);
    shows(&desk.screen(80, 24), CONNECTIONS_80);
}

#[test]
fn drops_the_fastest_first() {
    let mut desk = Desk::new();
    desk.letters("d");
    shows(&desk.screen(80, 24), DROPS_80);
}

#[test]
fn events_the_latest_first() {
    let mut desk = Desk::new();
    desk.letters("e");
    shows(&desk.screen(80, 24), EVENTS_80);
}

#[test]
fn help_fits_the_least_screen() {
    let mut desk = Desk::new();
    desk.letters("?");
    let help = desk.screen(40, 14);
    assert!(help.starts_with("Keys\n") && help.contains("q Ctrl-C          quit; Ctrl-L draws"), "{help}");
    assert_eq!(help.lines().count(), 14);
}

#[test]
fn what_is_too_small_says_so() {
    let mut desk = Desk::new();
    for (width, height) in [(39, 24), (80, 13), (10, 3), (1, 1)] {
        let screen = desk.screen(width, height);
        let said = format!("{width}x{height} is too small; 40x14 will do");
        assert_eq!(screen.lines().next(), Some(said[..said.len().min(width.into())].trim_end()));
        assert!(screen.lines().skip(1).all(str::is_empty), "{screen}");
    }
}

/// Whatever the size, nothing is drawn over the edge or over something else, and the row under the cursor is there.
#[test]
fn all_sizes_are_drawn() {
    for kind in Kind::ALL {
        let mut desk = Desk::new();
        desk.press(match kind {
            Kind::Services => &[],
            Kind::Servers => &[KeyCode::Enter],
            Kind::Connections => &[KeyCode::Enter, KeyCode::Enter],
            Kind::Drops => &[KeyCode::Char('d')],
            Kind::Events => &[KeyCode::Char('e')],
        });
        for (width, height) in (40..200).step_by(13).flat_map(|width| (14..50).step_by(11).map(move |h| (width, h))) {
            let buffer = desk.buffer(width, height);
            let cursor = buffer.content.chunks(width.into());
            let cursor = cursor.filter(|line| line.iter().all(|cell| cell.modifier.contains(Modifier::REVERSED)));
            assert_eq!(cursor.count(), 1, "{kind:?} on {width}x{height}\n{}", desk.screen(width, height));
        }
    }
}

#[test]
fn a_filter_shows_what_is_typed() {
    let mut desk = Desk::new();
    desk.letters("/2001");
    let screen = desk.screen(80, 24);
    assert!(screen.contains("services  (1 of 3)  filter: 2001_  by SERVICE ↑"), "{screen}");
    assert!(screen.contains("Enter keep the filter  Esc drop it"), "{screen}");
    desk.letters("x");
    assert!(desk.screen(80, 24).contains("no row has the filter's text"));
    desk.press(&[KeyCode::Esc]);
    assert!(desk.screen(80, 24).contains("services  (3)  by SERVICE ↑"));
}

#[test]
fn a_director_that_is_away_and_a_pause_are_told_above_all() {
    let mut desk = Desk::new();
    desk.letters("p");
    assert!(desk.screen(80, 24).starts_with("dirigent main  forwarding, up 3 h 12 min, generation 4  PAUSED\n"));
    desk.letters("p");
    desk.known.took = Duration::from_millis(2500);
    assert!(desk.screen(80, 24).contains("generation 4  every 7.5 s: it is slow\n"));
    desk.known.failed(desk.now - Duration::from_secs(12), "no daemon listens, which this needs".into());
    let screen = desk.screen(80, 24);
    let said = "dirigent main  not answering for 12 s: no daemon listens, which this needs\n";
    assert!(screen.starts_with(said) && screen.contains("tcp 192.0.2.10:80"), "{screen}");
    desk.state.gone("tcp 192.0.2.10:80: there is no such service".into());
    assert!(desk.screen(80, 24).contains("\ntcp 192.0.2.10:80: there is no such service\n"));
}

#[test]
fn colours_are_there_where_they_are_wanted() {
    let colours = |desk: &mut Desk| {
        let buffer = desk.buffer(80, 24);
        let used = buffer.content.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        used.map(|cell| cell.fg).collect::<Vec<_>>()
    };
    let mut desk = Desk::new();
    let all = colours(&mut desk);
    for colour in [Color::Red, Color::Green, Color::Yellow] {
        assert!(all.contains(&colour), "{colour}");
    }
    desk.skin.colour = false;
    assert!(colours(&mut desk).is_empty());
}

#[test]
fn ascii_is_enough() {
    let mut desk = Desk::new();
    desk.skin.unicode = false;
    let screen = desk.screen(60, 24);
    assert!(
        screen.is_ascii() && screen.contains("by SERVICE ^") && screen.contains("tcp [2001:db8:1:2:3:4"),
        "{screen}"
    );
}

#[test]
fn one_look_as_text_is_as_wide_as_it_needs_or_may_be() {
    let desk = Desk::new();
    let Desk { state, known, now, skin } = &desk;
    let table = rows::table(&state.level().place, known, *now);
    let rows = table.arranged(state.sort(), "");
    let screen = Screen { state, known, table: &table, rows: &rows, now: *now, skin: *skin };
    shows(&screen.text(None), ONCE);
    let narrow = screen.text(Some(50));
    assert!(narrow.lines().all(|line| line.chars().count() <= 50), "{narrow}");
    assert_eq!(narrow.lines().count(), ONCE.trim_start_matches('\n').lines().count());
}

const SERVICES_80: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services  (3)  by SERVICE ↑
SERVICE                           UP  ACTIVE  INACT  CONN/S    IN B/S   OUT B/S
tcp 192.0.2.10:80                1/2     126      6      42   33.6 kB    1.0 MB
tcp [2001:db8:1:2:3:4:5:10]:443  1/1   27000      3    9000    7.2 MB  216.0 MB
udp 192.0.2.10:53                0/0       0      0       0       0 B       0 B










tcp 192.0.2.10:80: scheduler wrr, 126 connections so far; not up: 10.0.0.3:8080

35 s ago  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /heal…
Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const SERVICES_120: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services  (3)  by SERVICE ↑
SERVICE                           UP  ACTIVE  INACT  CONN/S  IN P/S  OUT P/S    IN B/S   OUT B/S  SCHEDULER
tcp 192.0.2.10:80                1/2     126      6      42     420      840   33.6 kB    1.0 MB  wrr
tcp [2001:db8:1:2:3:4:5:10]:443  1/1   27000      3    9000   90000  180.0 k    7.2 MB  216.0 MB  wrr
udp 192.0.2.10:53                0/0       0      0       0       0        0       0 B       0 B  wrr


























tcp 192.0.2.10:80: scheduler wrr, 126 connections so far; not up: 10.0.0.3:8080

35 s ago  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /healthy: 503 is not 200
Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const SERVERS_80: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services > tcp 192.0.2.10:80  (2)  by SERVER ↑
SERVER         WEIGHT STATE     HEALTH    ACTIVE INACT CONN/S   IN B/S  OUT B/S
10.0.0.2:8080       2 available up 3 h       120     3     40  32.0 kB 960.0 kB
10.0.0.3:8080       2 down      down 35 s      6     3    2.0   1.6 kB  48.0 kB











10.0.0.3:8080: nat, down; next hop resolved 02:00:00:00:03:01; checks (http)
down for 35 s: http: GET /healthy: 503 is not 200; 6 connections so far
35 s ago  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /heal…
Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const SERVERS_120: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services > tcp 192.0.2.10:80  (2)  by SERVER ↑
SERVER          WEIGHT  STATE      HEALTH     ACTIVE  INACT  CONN/S  IN P/S  OUT P/S    IN B/S   OUT B/S  METHOD
10.0.0.2:8080        2  available  up 3 h        120      3      40     400      800   32.0 kB  960.0 kB  nat
10.0.0.3:8080        2  down       down 35 s       6      3     2.0      20       40    1.6 kB   48.0 kB  nat



























10.0.0.3:8080: nat, down; next hop resolved 02:00:00:00:03:01; checks (http) down for 35 s: http: GET /healthy: 503 is
not 200; 6 connections so far
35 s ago  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /healthy: 503 is not 200
Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const CONNECTIONS_80: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services > tcp 192.0.2.10:80 > 10.0.0.2:8080  (2 or more)  by CLIENT ↑
CLIENT               STATE       EXPIRES IN PACKETS OUT PACKETS VIRTUAL
198.51.100.7:40000   ESTABLISHED   900 s      1.2 M           7 192.0.2.10:80
198.51.100.9:51234   TIME_WAIT      12 s          6           7 192.0.2.10:80











tcp 198.51.100.7:40000 to 192.0.2.10:80, by 10.0.0.2:8080: ESTABLISHED, gone in
900 s without a packet
35 s ago  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /heal…
Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const DROPS_80: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services > drops  (2)  by PACKETS/S ↓
REASON              VERDICT   PACKETS/S   PACKETS  MEANING
bad_checksum        dropped         5.0        15  A checksum is wrong.
no_server           answered          0         3  The service has no server th…











bad_checksum: A checksum is wrong. What to do: docs/drops.md.

35 s ago  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /heal…
Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const EVENTS_80: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services > events  (2)  by AGO ↑
     AGO  EVENT
    35 s  health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /heal…
    36 s  quorum    tcp 192.0.2.10:80 has its quorum again











health    10.0.0.3:8080 of tcp 192.0.2.10:80 is down: http: GET /healthy: 503 is
not 200

Enter open  Esc back  / filter  s sort  d drops  e events  ? help  q quit
";

const ONCE: &str = "
dirigent main  forwarding, up 3 h 12 min, generation 4  every 2 s
interfaces eth0 xdp, eth1 tc  connections 123.5 k of 1.0 M
9042 conn/s  in 90420 p/s 7.2 MB/s  out 180.8 k p/s 217.0 MB/s  drops 5.0/s
routers  web master  db backup
problem: 192.0.2.99: nobody here holds it; add it
services  (3)  by SERVICE ↑
SERVICE                           UP  ACTIVE  INACT  CONN/S  IN P/S  OUT P/S    IN B/S   OUT B/S  SCHEDULER
tcp 192.0.2.10:80                1/2     126      6      42     420      840   33.6 kB    1.0 MB  wrr
tcp [2001:db8:1:2:3:4:5:10]:443  1/1   27000      3    9000   90000  180.0 k    7.2 MB  216.0 MB  wrr
udp 192.0.2.10:53                0/0       0      0       0       0        0       0 B       0 B  wrr
";
