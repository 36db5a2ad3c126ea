//! `dirigent trace`: what it tells of packets is what becomes of them. Needs root, tcpdump and tshark.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab, until};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A trace that goes on.
struct Trace {
    command: Child,
    lines: Receiver<String>,
}

impl Trace {
    /// When this returns, packets are told of.
    fn begin(lab: &TestLab, args: &[&str]) -> Self {
        let mut command = Command::new(BIN);
        command.args(["--instance", lab.name(), "trace", "--json"]).args(args);
        let mut command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        // Its end is read when it has ended.
        let mut err = BufReader::new(command.stderr.take().unwrap());
        err.read_line(&mut said).unwrap();
        assert!(said.starts_with("tracing"), "{said}{}", lab.log());
        command.stderr = Some(err.into_inner());
        let (line, lines) = channel();
        let out = BufReader::new(command.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { command, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a packet is told of");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// Until one is as wanted; it and those before it.
    fn until(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut all = Vec::new();
        while !all.last().is_some_and(&wanted) {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("nothing more is told of, after {all:#?}"));
            all.push(serde_json::from_str(&line).unwrap());
        }
        all
    }

    /// Ends it, and says how: what was said at the end.
    fn end(self) -> String {
        let pid = self.command.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let output = self.command.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }
}

fn steps(told: &Value) -> String {
    told["steps"].as_array().unwrap().iter().map(|step| format!("{}\n", step.as_str().unwrap())).collect()
}

fn text<'v>(told: &'v Value, key: &str) -> &'v str {
    told[key].as_str().unwrap_or_else(|| panic!("{key}: {told:#}"))
}

/// Frames that a host sees, in hexadecimal.
struct Seen {
    tcpdump: Child,
    file: PathBuf,
}

impl Seen {
    fn begin(lab: &TestLab, host: &str) -> Self {
        let file = lab.file(&format!("{host}.pcap"));
        let argv = ["tcpdump", "-i", "eth0", "-U", "-w", file.to_str().unwrap(), "tcp port 8080"];
        let tcpdump = lab.start(host, &argv);
        until(lab, "tcpdump listens", PATIENCE, || file.exists());
        Self { tcpdump, file }
    }

    fn frames(&self) -> Vec<String> {
        let output = Command::new("tcpdump").args(["-nn", "-t", "-xx", "-r"]).arg(&self.file).output().unwrap();
        let mut frames = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match line.trim().split_once(":  ").filter(|(at, _)| at.starts_with("0x")) {
                Some((_, words)) => {
                    frames.last_mut().into_iter().for_each(|f: &mut String| f.push_str(&words.replace(' ', "")))
                }
                None => frames.push(String::new()),
            }
        }
        frames
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// A request and its answers, from the first packet to the last, on a path; and the capture of them.
fn a_request_on(path: &str) {
    let lab = TestLab::up(&["--servers", "2", "--path", path, "--no-offloads"]);
    let seen = ["server1", "server2"].map(|host| Seen::begin(&lab, host));
    let file = lab.file("trace.pcapng");
    let trace = Trace::begin(&lab, &["--client", "198.51.100.0/24", "--pcap", file.to_str().unwrap()]);
    lab.curl("http://192.0.2.10/");
    let all = trace.until(|told| steps(told).contains("TIME_WAIT") && told["reason"] == "request");
    let said = trace.end();
    assert!(!said.contains("not told of"), "{said}");

    let first = &all[0];
    assert_eq!((text(first, "reason"), text(first, "kind")), ("request", "forwarded"), "{first:#}");
    assert!(text(first, "path").starts_with(path), "{first:#}");
    assert!(
        text(first, "packet").starts_with("tcp 198.51.100.") && text(first, "packet").ends_with("192.0.2.10:80 [SYN]")
    );
    assert_eq!((text(first, "interface"), text(first, "service")), ("c0", "tcp 192.0.2.10:80"), "{first:#}");
    let (server, story) = (text(first, "server"), steps(first));
    for part in [
        "no connection tcp 198.51.100.",
        "virtual service tcp 192.0.2.10:80, scheduler rr",
        "a server is chosen, from the beginning of the list:",
        "considers 10.0.0.2:8080: weight 1, 0 active and 0 inactive connections",
        "considers 10.0.0.3:8080: weight 1, 0 active and 0 inactive connections",
        &format!("with server {server}: SYN_RECV"),
    ] {
        assert!(story.contains(part), "{part:?} is not in\n{story}");
    }
    let sent = &first["sent"][0];
    assert_eq!(text(sent, "interface"), "r0", "{first:#}");
    assert!(text(sent, "packet").ends_with(&format!(" → {server} [SYN]")), "{first:#}");
    // The answer, and the state that it and the next bring.
    let answer = &all[1];
    assert_eq!((text(answer, "reason"), text(answer, "interface")), ("reply", "r0"), "{answer:#}");
    assert!(text(answer, "packet").starts_with(&format!("tcp {server} → 198.51.100.")), "{answer:#}");
    assert!(text(&answer["sent"][0], "packet").starts_with("tcp 192.0.2.10:80 → 198.51.100."), "{answer:#}");
    assert!(steps(answer).contains(&format!("connection with server {server} of tcp 192.0.2.10:80: ")), "{answer:#}");
    assert!(all.iter().any(|told| steps(told).contains("SYN_RECV, which becomes ESTABLISHED")), "{all:#?}");
    assert!(all.windows(2).all(|two| two[0]["time_us"].as_u64() <= two[1]["time_us"].as_u64()));
    // What left for the server is what the server saw, byte by byte.
    let requests: Vec<_> = all.iter().filter(|told| told["reason"] == "request").collect();
    until(&lab, "the server saw them", PATIENCE, || {
        let frames: Vec<_> = seen.iter().flat_map(Seen::frames).collect();
        requests.iter().all(|told| frames.iter().any(|frame| frame == text(&told["captured"], "left")))
    });

    // The capture: two frames for each packet, with names and why.
    let fields = ["frame.interface_name", "frame.comment", "frame.packet_flags_direction", "ip.dst", "tcp.dstport"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(&file).args("-o ip.check_checksum:TRUE -T fields -E separator=|".split(' '));
    let output = tshark.args(fields.iter().flat_map(|field| ["-e", field])).output().expect("tshark");
    let opened = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Vec<&str>> = opened.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(lines.len(), 2 * all.len(), "{opened}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((lines[0][0], lines[0][3], lines[0][4]), ("c0", "192.0.2.10", "80"), "{opened}");
    assert!(lines[0][1].contains("a server is chosen") && lines[0][1].contains("(request)"), "{opened}");
    assert_eq!((lines[1][0], lines[1][4]), ("r0", "8080"), "{opened}");
    assert!(lines[1][1].contains("out of r0"), "{opened}");
    assert_ne!(lines[0][2], lines[1][2], "in and out: {opened}");
}

#[test]
fn a_request_on_tc() {
    a_request_on("tc");
}

#[test]
fn a_request_on_xdp() {
    a_request_on("xdp");
}

/// Clients, services, servers and reasons are what is asked for, and all at once; the rate is kept to, and said; who is
/// second waits; and who asks for nonsense is told.
#[test]
fn what_is_asked_for_is_told_and_no_more() {
    let lab = TestLab::up(&["--servers", "2"]);
    // Told of one server only.
    let mut trace = Trace::begin(&lab, &["--server", "10.0.0.3", "--service", "tcp:192.0.2.10:80", "--count", "5"]);
    for _ in 0..2 {
        lab.curl("http://192.0.2.10/");
    }
    for _ in 0..5 {
        let told = trace.next();
        assert_eq!((text(&told, "server"), text(&told, "service")), ("10.0.0.3:8080", "tcp 192.0.2.10:80"), "{told:#}");
        assert_eq!(told["captured"], Value::Null);
    }
    assert!(trace.command.wait().unwrap().success());

    // What is refused, with the error that answers it.
    let trace = Trace::begin(&lab, &["--reason", "answered,table_full"]);
    let (code, err) = lab.dirigent_fails(&["trace", "--count", "1"]);
    assert!(code == 8 && err.contains("somebody traces already"), "{code} {err}");
    lab.curl("http://192.0.2.10/");
    for server in ["10.0.0.2:8080", "10.0.0.3:8080"] {
        lab.dirigent(&["server", "edit", "tcp:192.0.2.10:80", server, "--weight", "0"]);
    }
    lab.on("client", &["sh", "-c", "curl -sS --max-time 2 http://192.0.2.10/ || true"]);
    let told = trace.next();
    assert_eq!((text(&told, "reason"), text(&told, "server")), ("no_server", ""), "{told:#}");
    assert!(steps(&told).contains("virtual service tcp 192.0.2.10:80, scheduler rr"), "{told:#}");
    assert!(text(&told["sent"][0], "packet").starts_with("icmp "), "{told:#}");
    trace.end();

    // No more than the rate, and how many more there were.
    let trace = Trace::begin(&lab, &["--rate", "1", "--reason", "answered"]);
    lab.on(
        "client",
        &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do curl -sS --max-time 2 http://192.0.2.10/ || true; done"],
    );
    std::thread::sleep(Duration::from_millis(1500));
    let said = trace.end();
    assert!(said.contains(" packets more not told of: more came than 1 a second (--rate)"), "{said}");

    for (args, code, says) in [
        (["--client", "nobody"], 3, "that is no client"),
        (["--service", "tcp:192.0.2.99:80"], 7, "there is no such service"),
        (["--server", "nobody"], 3, "that is no server"),
        (["--reason", "lost"], 3, "there is no such reason"),
        (["--rate", "0"], 2, "--rate"),
        (["--pcap", "/nowhere/x.pcapng"], 1, "/nowhere/x.pcapng"),
    ] {
        let (exit, err) = lab.dirigent_fails(&[&["trace"], &args[..]].concat());
        assert!(exit == code && err.contains(says), "{args:?}: {exit} {err}");
    }
    lab.signal_daemon("-TERM");
    let (code, err) = lab.dirigent_fails(&["trace"]);
    assert!(code == 1 && err.contains("no daemon listens, which this needs"), "{code} {err}");
}
