//! `dirigent top` on a real terminal (tmux), in a lab with real traffic: what the screen says is what the API says. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab};
use dirigent_api::{Connections, Server, Service};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Three services, of which one has a server that is not there.
const CONFIG: &str = r#"version = 1

[director]
mode = "tc"
connections = 4096

[[service]]
protocol = "tcp"
address = "192.0.2.10:80"
scheduler = "wrr"
vip = "manage"

[[service.server]]
address = "10.0.0.2:8080"
weight = 3

[[service.server]]
address = "10.0.0.3:8080"

[[service]]
protocol = "udp"
address = "192.0.2.10:7"
scheduler = "rr"
vip = "manage"

[[service.server]]
address = "10.0.0.2:7"

[[service]]
protocol = "tcp"
address = "192.0.2.10:81"
vip = "manage"

[[service.server]]
address = "10.0.0.2:8080"

[[service.server]]
address = "10.0.0.3:4444"

[[service.server.check]]
type = "tcp"
interval = "500ms"
"#;

fn lab() -> TestLab {
    let file = std::env::temp_dir().join(format!("dirigent-top-{}.toml", std::process::id()));
    std::fs::write(&file, CONFIG).unwrap();
    let lab = TestLab::up(&["--servers", "2", "--config", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    lab
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A terminal with a shell in it, which ends with the test.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn new(columns: u16, rows: u16, environment: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("dirigent-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { socket };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let shell = [&["env", "-u", "NO_COLOR", "LC_ALL=C.UTF-8", "PS1=shell> "], environment, &["sh", "-i"]].concat();
        terminal.tmux(&[&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows], &shell[..]].concat());
        terminal.until("the shell", |screen| screen.contains("shell>"));
        terminal
    }
    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-u", "-L", &self.socket]).args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }
    /// Named keys, or single letters.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }
    /// Text, as it is.
    fn type_(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }
    fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }
    /// The screen, once it is as it should be.
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    fn until_it_says(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }
    /// Begins top with these options, at twice a second.
    fn top(&self, lab: &TestLab, options: &str) {
        self.type_(&format!("{BIN} --instance {} top --interval 500ms {options}", lab.name()));
        self.press(&["Enter"]);
        self.until_it_says("interfaces c0 tc, r0 tc");
    }
    /// Top has ended with this code, and the terminal is as it was before: the shell's screen, a cursor, lines.
    fn is_clean(&self, code: u8) {
        let flags = || self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        // No screen of its own, and a cursor.
        self.until("the shell again", |screen| flags().trim() == "0 1" && !screen.contains("interfaces c0 tc"));
        self.type_("echo code $?; stty -a");
        self.press(&["Enter"]);
        let screen = self.until("stty", |screen| screen.contains("echoke"));
        assert!(screen.contains(&format!("\ncode {code}\n")), "{screen}");
        assert!(screen.contains(" icanon ") && screen.contains(" echo ") && screen.contains("isig"), "{screen}");
        self.type_("printf '\\033[H\\033[2J'");
        self.press(&["Enter"]);
        self.until("an empty screen", |screen| !screen.contains("code"));
    }
    /// The process of top.
    fn process(&self) -> String {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let all =
            std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let child = |pid: &String| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.starts_with("Name:\tdirigent\n") && status.contains(&format!("\nPPid:\t{}\n", shell.trim()))
        };
        all.filter(|name| name.parse::<u32>().is_ok()).find(child).expect("top runs")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}

/// The rows of the table on a screen, below its headings: cells that two blanks part, or one before a number.
fn rows(screen: &str) -> Vec<Vec<&str>> {
    let lines = screen.lines().skip_while(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        !["SERVICE", "SERVER", "CLIENT", "REASON", "AGO"].contains(&first)
    });
    let rows = lines.skip(1).take_while(|line| !line.trim().is_empty());
    rows.map(|line| line.split_whitespace().collect()).collect()
}

/// Waits until what the screen says is what `wanted` says, which is asked anew each time: counts change in between.
fn agree(terminal: &Terminal, what: &str, wanted: impl Fn() -> Vec<Vec<String>>, cells: &[usize]) {
    let begun = Instant::now();
    loop {
        let before = wanted();
        let screen = terminal.screen();
        let shown: Vec<Vec<String>> = rows(&screen)
            .iter()
            .map(|row| cells.iter().filter_map(|cell| row.get(*cell)).map(|text| (*text).to_owned()).collect())
            .collect();
        if shown == before {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {before:#?} is not on\n{screen}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn services(lab: &TestLab) -> Vec<Service> {
    serde_json::from_value(lab.json(&["service", "list", "--json"])).unwrap()
}

fn sum(service: &Service, of: fn(&Server) -> u32) -> String {
    service.servers.iter().map(of).sum::<u32>().to_string()
}

/// Name, servers that are up, active and inactive connections of each service.
fn service_rows(lab: &TestLab) -> Vec<Vec<String>> {
    let row = |s: &Service| {
        let up = s.servers.iter().filter(|server| server.state != "down").count();
        let up = format!("{up}/{}", s.servers.len());
        vec![s.protocol.clone(), s.address.clone(), up, sum(s, |s| s.active), sum(s, |s| s.inactive)]
    };
    services(lab).iter().map(row).collect()
}

/// All requests of a loop go through the director until it is dropped: about ten a second.
fn requests(lab: &TestLab) -> Ended {
    let all = "while :; do curl -s -o /dev/null http://192.0.2.10/ || true; sleep 0.1; done";
    Ended(lab.start("client", &["sh", "-c", all]))
}

#[test]
fn the_screen_says_what_the_director_says() {
    let lab = lab();
    for _ in 0..7 {
        lab.curl("http://192.0.2.10/");
    }
    lab.sh("client", "echo hello | socat -t1 - UDP4:192.0.2.10:7");
    // Open, and silent.
    let _open = Ended(lab.start("client", &["socat", "-T", "300", "PIPE", "TCP4:192.0.2.10:80"]));
    let terminal = Terminal::new(80, 24, &[]);
    terminal.top(&lab, "");
    let screen = terminal.until_it_says("1/2");
    assert!(screen.contains(&format!("dirigent {}  forwarding, up ", lab.name())), "{screen}");
    assert!(screen.contains("services  (3)  by SERVICE ↑") && screen.contains("connections 9 of 4096"), "{screen}");
    assert_eq!(screen.lines().count(), 24, "{screen}");
    agree(&terminal, "services", || service_rows(&lab), &[0, 1, 2, 3, 4]);
    // About the one under the cursor.
    terminal.press(&["Down"]);
    terminal.until_it_says("not up: 10.0.0.3:4444");
    terminal.press(&["Home", "Enter"]);
    let screen = terminal.until_it_says("services > tcp 192.0.2.10:80  (2)");
    assert!(screen.contains("WEIGHT"), "{screen}");
    let servers = || -> Vec<Vec<String>> {
        let services = services(&lab);
        let row = |s: &Server| {
            let (active, inactive) = (s.active.to_string(), s.inactive.to_string());
            vec![s.address.clone(), s.weight.to_string(), s.state.clone(), "-".into(), active, inactive]
        };
        services[0].servers.iter().map(row).collect()
    };
    agree(&terminal, "servers", servers, &[0, 1, 2, 3, 4, 5]);
    terminal.press(&["Enter"]);
    terminal.until_it_says("services > tcp 192.0.2.10:80 > 10.0.0.2:8080  (");
    let of_server = || -> Connections {
        let command = ["connection", "list", "--service", "192.0.2.10:80", "--server", "10.0.0.2:8080", "--json"];
        serde_json::from_value(lab.json(&command)).unwrap()
    };
    let connections = || {
        let all = of_server().connections;
        all.iter().map(|c| vec![c.client.clone(), c.state.clone(), c.in_packets.to_string()]).collect::<Vec<_>>()
    };
    agree(&terminal, "connections", connections, &[0, 1, 4]);
    assert!(of_server().connections.iter().any(|c| c.state == "ESTABLISHED" || c.state == "TIME_WAIT"));
    // And back, twice, to where one came from.
    terminal.press(&["Escape"]);
    terminal.until_it_says("services > tcp 192.0.2.10:80  (2)");
    terminal.press(&["BSpace"]);
    terminal.until_it_says("services  (3)");
    // A server whose checks fail is told with the reason.
    terminal.press(&["Home", "Down", "Enter", "End"]);
    let screen = terminal.until_it_says("checks (tcp) down for");
    let bad = rows(&screen).into_iter().find(|row| row[0] == "10.0.0.3:4444").unwrap();
    assert_eq!(bad[2..4], ["down", "down"], "{screen}");
    terminal.press(&["q"]);
    terminal.is_clean(0);
}

/// Rates, order and filter, with traffic.
#[test]
fn rates_are_those_of_the_traffic_and_rows_are_sorted_and_filtered() {
    let lab = lab();
    let _traffic = requests(&lab);
    let terminal = Terminal::new(120, 40, &[]);
    terminal.top(&lab, "");
    // Over some seconds, by the counters; each rate on the screen is that of the time before it.
    let shown =
        |screen: &str| rows(screen).iter().find(|row| row[1] == "192.0.2.10:80").unwrap()[5].parse::<f64>().unwrap();
    terminal.until("traffic", |screen| shown(screen) > 1.0);
    let counted = || services(&lab)[0].counters.connections;
    let (begun, before, mut all) = (Instant::now(), counted(), Vec::new());
    while begun.elapsed() < Duration::from_secs(10) {
        all.push(shown(&terminal.screen()));
        std::thread::sleep(Duration::from_millis(250));
    }
    let rate = (counted() - before) as f64 / begun.elapsed().as_secs_f64();
    let average = all.iter().sum::<f64>() / all.len() as f64;
    assert!(rate > 1.0, "{rate} requests a second: {}", lab.log());
    assert!(average > rate * 0.6 && average < rate * 1.6, "{average} is shown, {rate} is counted: {all:?}");

    // By connections a second: the only service with traffic is first, or last.
    terminal.press(&["s", "s", "s", "s"]);
    let first = |screen: &str| rows(screen).first().map(|row| row[1].to_owned());
    terminal.until("the order", |s| s.contains("by CONN/S ↓") && first(s).as_deref() == Some("192.0.2.10:80"));
    terminal.press(&["r"]);
    terminal.until("the other order", |s| s.contains("by CONN/S ↑") && first(s).as_deref() != Some("192.0.2.10:80"));
    terminal.press(&["<", ">", ">"]);
    terminal.until_it_says("by IN P/S ↓");
    // A filter: while it is typed, kept, and gone.
    terminal.press(&["/"]);
    terminal.type_("UDP");
    let screen = terminal.until_it_says("services  (1 of 3)  filter: UDP_");
    assert_eq!(rows(&screen).len(), 1, "{screen}");
    terminal.press(&["Enter"]);
    terminal.until("the filter", |s| s.contains("filter: UDP  by") && rows(s).len() == 1);
    terminal.press(&["Escape"]);
    terminal.until("all", |s| s.contains("services  (3)") && rows(s).len() == 3);

    // Lost packets have a table; a service that is told of is an event.
    lab.sh("client", "for i in 1 2 3; do curl -s --max-time 0.3 http://192.0.2.10:9/ || true; done");
    lab.dirigent(&["server", "edit", "udp:192.0.2.10:7", "10.0.0.2:7", "--weight", "0"]);
    lab.sh("client", "for i in 1 2 3; do echo x | socat -t0.1 - UDP4:192.0.2.10:7 2>/dev/null || true; done");
    terminal.press(&["d"]);
    let screen = terminal.until_it_says("What to do: docs/drops.md.");
    let shown = rows(&screen)[0].iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    assert!(lab.count(&shown[0]) > 0, "{screen}");
    assert!(screen.contains("services > drops  ("), "{screen}");
    terminal.press(&["e"]);
    let screen = terminal.until_it_says("applied   generation");
    assert!(screen.contains("> events  ("), "{screen}");
    terminal.press(&["?"]);
    terminal.until_it_says("quit; Ctrl-L draws all anew");
    terminal.press(&["x", "Escape"]);
    terminal.until_it_says("services  (3)");
    // It stands still while it is paused, and goes on.
    terminal.press(&["p"]);
    terminal.until_it_says("PAUSED");
    let still = terminal.screen();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(terminal.screen(), still);
    terminal.press(&["p", "+"]);
    terminal.until("another interval", |s| s.contains("every 1 s") && *s != still);
    terminal.press(&["C-c"]);
    terminal.is_clean(0);
}

/// Sizes, a daemon that goes and comes, what ends it, and what it costs.
#[test]
fn it_outlives_its_daemon_and_leaves_the_terminal_as_it_was() {
    let lab = lab();
    let terminal = Terminal::new(80, 24, &["TERM=xterm"]);
    terminal.top(&lab, "--service 192.0.2.10:80");
    terminal.until_it_says("services > tcp 192.0.2.10:80  (2)");
    terminal.press(&["Escape"]);
    terminal.until_it_says("services  (3)");
    // What is too small says so; a larger one has more columns.
    terminal.resize(30, 10);
    terminal.until_it_says("30x10 is too small");
    terminal.resize(140, 40);
    let screen = terminal.until_it_says("SCHEDULER");
    assert_eq!(rows(&screen)[0].last(), Some(&"wrr"), "{screen}");
    terminal.resize(80, 24);
    terminal.until("the first size", |s| s.contains("OUT B/S") && !s.contains("SCHEDULER"));

    lab.kill_daemon();
    // What was asked when it died fails in another way first.
    let screen = terminal.until("its end", |s| s.contains("not answering for") && s.contains("no daemon listens"));
    assert_eq!(rows(&screen).len(), 3, "what was known stays:\n{screen}");
    lab.start_daemon();
    terminal.until_it_says("  forwarding, up ");
    // A service that goes while one looks at it.
    terminal.press(&["Home", "Down", "Enter"]);
    terminal.until_it_says("services > tcp 192.0.2.10:81  (2)");
    lab.dirigent(&["service", "remove", "tcp:192.0.2.10:81"]);
    terminal.until("the services", |s| s.contains("services  (2)") && s.contains("there is no such service"));

    // It waits, most of the time.
    let process = terminal.process();
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(4));
    let spent = ticks() - before;
    assert!(spent < 40, "{spent} hundredths of a second in four seconds");

    // To the shell and back.
    terminal.press(&["C-z"]);
    terminal.until_it_says("Stopped");
    terminal.type_("fg");
    terminal.press(&["Enter"]);
    terminal.until_it_says("services  (2)");
    for signal in ["-TERM", "-INT"] {
        let process = terminal.process();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
        terminal.is_clean(0);
        terminal.top(&lab, "");
    }
    terminal.press(&["q"]);
    terminal.is_clean(0);
}

/// Without colours where they are not wanted, and without a letter beyond ASCII where there is none.
#[test]
fn plain_terminals_are_enough() {
    let lab = lab();
    let colours = |environment: &[&str]| {
        let terminal = Terminal::new(80, 24, environment);
        terminal.top(&lab, "");
        let screen = terminal.until_it_says("services  (3)");
        let raw = terminal.tmux(&["capture-pane", "-pe"]);
        // 39 and 49 are what a terminal has by itself.
        let colour = |code: &str| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107));
        let codes = raw.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m'));
        let coloured = codes.into_iter().any(|(codes, _)| codes.split(';').any(colour));
        terminal.press(&["q"]);
        terminal.is_clean(0);
        (screen, coloured)
    };
    let (screen, coloured) = colours(&[]);
    assert!(coloured && screen.contains("by SERVICE ↑"), "{screen}");
    let (_, coloured) = colours(&["NO_COLOR=1"]);
    assert!(!coloured);
    let (screen, coloured) = colours(&["TERM=vt100", "LC_ALL=C"]);
    assert!(!coloured && screen.is_ascii() && screen.contains("by SERVICE ^"), "{screen}");
}

/// One look as text; and what cannot be shown is told with a way out.
#[test]
fn one_look_is_text() {
    let lab = lab();
    for _ in 0..4 {
        lab.curl("http://192.0.2.10/");
    }
    let begun = Instant::now();
    while service_rows(&lab)[1][2] != "1/2" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", lab.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (text, said) = lab.dirigent(&["top", "--once"]);
    assert!(said.is_empty() && !text.contains('\x1b'), "{said}{text}");
    assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
    let shown: Vec<Vec<String>> =
        rows(&text).iter().map(|row| row[..5].iter().map(|c| (*c).to_owned()).collect()).collect();
    assert_eq!(shown, service_rows(&lab), "{text}");
    assert!(text.contains("SCHEDULER") && text.contains("wrr"), "nothing is cut:\n{text}");
    let narrow =
        Command::new(BIN).args(["--instance", lab.name(), "top", "--once"]).env("COLUMNS", "60").output().unwrap();
    let narrow = String::from_utf8_lossy(&narrow.stdout).into_owned();
    assert!(narrow.lines().count() > 5 && narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    let (one, _) = lab.dirigent(&["top", "--once", "--service", "tcp:192.0.2.10:80"]);
    assert_eq!(rows(&one).iter().map(|row| row[0]).collect::<Vec<_>>(), ["10.0.0.2:8080", "10.0.0.3:8080"], "{one}");

    let (code, said) = lab.dirigent_fails(&["top", "--service", "192.0.2.99:80", "--once"]);
    assert!(code == 7 && said.contains("there is no such service"), "{code} {said}");
    let (code, said) = lab.dirigent_fails(&["top"]);
    assert!(code == 1 && said.contains("--once") && said.contains("ssh -t"), "{code} {said}");
    let absent =
        Command::new(BIN).args(["--instance", "nosuch", "top", "--once"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert!(absent.status.code() == Some(1) && said.contains("nosuch"), "{said}");
}

/// Connections and counters of a part, by the command line and the API.
#[test]
fn a_part_can_be_asked_for() {
    let lab = lab();
    for _ in 0..8 {
        lab.curl("http://192.0.2.10/");
    }
    lab.sh("client", "echo hello | socat -t1 - UDP4:192.0.2.10:7");
    let listed = |args: &[&str]| -> Vec<(String, String)> {
        let all = lab.json(&[&["connection", "list", "--json"], args].concat());
        let all: Connections = serde_json::from_value(all).unwrap();
        all.connections.into_iter().map(|c| (c.virtual_address, c.server)).collect()
    };
    let all = listed(&[]);
    assert_eq!(all.len(), 9);
    let only =
        |wanted: &dyn Fn(&(String, String)) -> bool| all.iter().filter(|one| wanted(one)).cloned().collect::<Vec<_>>();
    let web = only(&|(vip, _)| vip == "192.0.2.10:80");
    assert_eq!((listed(&["--service", "tcp:192.0.2.10:80"]), web.len()), (web, 8));
    assert_eq!(listed(&["--server", "10.0.0.2"]), only(&|(_, server)| server.starts_with("10.0.0.2:")));
    let second = only(&|(_, server)| server == "10.0.0.3:8080");
    assert!(!second.is_empty());
    assert_eq!(listed(&["--service", "192.0.2.10:80", "--server", "10.0.0.3:8080"]), second);
    assert!(listed(&["--service", "192.0.2.10:7", "--server", "10.0.0.3:8080"]).is_empty());
    assert_eq!(listed(&["--service", "tcp:192.0.2.10:80", "--limit", "3"]).len(), 3);
    let (code, said) = lab.dirigent_fails(&["connection", "list", "--service", "tcp:192.0.2.10:9999"]);
    assert!(code == 7 && said.contains("there is no such service"), "{said}");
    let (code, said) = lab.dirigent_fails(&["connection", "list", "--server", "web1"]);
    assert!(code == 3 && said.contains("write it like 10.0.0.2:8080"), "{said}");

    let socket = common::http::socket(lab.name());
    let stats = |query: &str| common::http::ask(&socket, "GET", &format!("/v1/stats{query}"), &serde_json::Value::Null);
    let names = |query: &str| -> Vec<String> {
        let services = stats(query).body["services"].clone();
        services.as_array().unwrap().iter().map(|s| s["address"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names("").len(), names("?services=true").len(), names("?services=false").len()), (3, 3, 0));
    assert_eq!(names("?service=udp:192.0.2.10:7"), ["192.0.2.10:7"]);
    assert_eq!(stats("?services=false").body["total"], stats("").body["total"]);
    assert!(!stats("?services=false").body["reasons"].as_array().unwrap().is_empty());
    assert_eq!(stats("?service=udp:192.0.2.10:9").status, 404);
}
