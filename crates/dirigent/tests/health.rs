//! Health checks of real servers, and what follows from them. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{TestLab, until, with_checks};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn servers(lab: &TestLab) -> Vec<Value> {
    lab.json(&["server", "list", "--json"]).as_array().unwrap().clone()
}

fn server(lab: &TestLab, service: &str, address: &str) -> Value {
    let all = servers(lab);
    all.into_iter().find(|s| s["service"] == service && s["address"] == address).unwrap_or(Value::Null)
}

const WEB: &str = "tcp 192.0.2.10:80";

const QUICK: &str = "interval = \"100ms\"\ntimeout = \"300ms\"\nretry_interval = \"50ms\"\nwarmup = \"0ms\"";

/// The real server refuses connections to its web server, or takes them again.
fn refuse(lab: &TestLab, host: &str, refuse: bool) {
    let script = match refuse {
        true => {
            "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                 add rule inet gone input tcp dport { 80, 8080 } reject with tcp reset'"
        }
        false => "nft delete table inet gone",
    };
    lab.sh(host, script);
}

fn ipvsadm(lab: &TestLab) -> String {
    lab.dirigent(&["ipvsadm", "-Ln"]).0
}

fn a_failed_server_is_left_out(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3"], path].concat());
    let told = lab.file("told");
    std::fs::write(&told, "").unwrap();
    std::fs::set_permissions(&told, std::fs::Permissions::from_mode(0o666)).unwrap();
    let note = |word: &str| format!("[\"/bin/sh\", \"-c\", \"echo {word} $(id -u) >> {}\"]", told.display());
    let check = format!("type = \"tcp\"\n{QUICK}");
    let text = with_checks(&lab, "", &check).replacen(
        "[[service.server.check]]",
        &format!("notify_down = {}\nnotify_up = {}\n[[service.server.check]]", note("down"), note("up")),
        1,
    );
    lab.write_config(&text);
    let mut events = Command::new(common::BIN)
        .args(["--instance", lab.name(), "events", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Until it listens.
    std::thread::sleep(SECOND / 2);
    lab.dirigent(&["reload"]);
    until(&lab, "all are up", SECOND * 5, || {
        servers(&lab).iter().filter(|s| s["health"]["state"] == "up").count() >= 6
    });
    let first = "10.0.0.2:8080";
    assert!(ipvsadm(&lab).contains(first));

    refuse(&lab, "server1", true);
    until(&lab, "server1 is down", SECOND * 2, || server(&lab, WEB, first)["state"] == "down");
    let down = server(&lab, WEB, first);
    assert_eq!(down["health"]["why"], "tcp 10.0.0.2:8080: connection refused");
    assert!(!ipvsadm(&lab).contains(first), "{}", ipvsadm(&lab));
    for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
        for _ in 0..6 {
            assert_ne!(lab.curl(url), "server1");
        }
    }
    let status = lab.dirigent(&["status"]).0;
    assert!(status.contains("it is down: tcp 10.0.0.2:8080: connection refused"), "{status}");
    let event = lines.by_ref().find(|line| line.contains("\"health\"")).unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["up"], &event["server"]), (&Value::from(false), &Value::from(first)));

    // A daemon that is killed, and the next one, send nobody there either.
    lab.kill_daemon();
    assert_ne!(lab.curl("http://192.0.2.10/"), "server1");
    lab.start_daemon();
    assert!(!ipvsadm(&lab).contains(first), "{}", ipvsadm(&lab));
    assert_eq!(server(&lab, WEB, first)["state"], "down");
    // Nor does an edit of the check, nor one of the service.
    lab.write_config(&text.replace("300ms", "400ms"));
    lab.dirigent(&["reload"]);
    assert_eq!(server(&lab, WEB, first)["state"], "down");
    lab.dirigent(&["ipvsadm", "-e", "-t", "192.0.2.10:80", "-r", first, "-m", "-w", "7"]);
    let edited = server(&lab, WEB, first);
    assert_eq!((&edited["state"], &edited["weight"]), (&Value::from("down"), &Value::from(7)));
    assert!(!ipvsadm(&lab).contains(first));

    refuse(&lab, "server1", false);
    until(&lab, "server1 is back", SECOND * 2, || server(&lab, WEB, first)["state"] == "available");
    assert_eq!(server(&lab, WEB, first)["weight"], 7);
    // As the newest, which IPVS lists first.
    let listed = ipvsadm(&lab);
    let at = |name: &str| listed.find(name).unwrap_or_else(|| panic!("{name}: {listed}"));
    assert!(at(first) < at("10.0.0.3:8080"), "{listed}");
    until(&lab, "all serve", SECOND * 3, || lab.curl("http://192.0.2.10/") == "server1");
    until_told(&told, 2);
    let nobody = lab.sh("director", "id -u nobody");
    assert_eq!(std::fs::read_to_string(&told).unwrap(), format!("down {nobody}\nup {nobody}\n"));
    events.kill().unwrap();
    events.wait().unwrap();
}

#[test]
fn a_failed_server_is_left_out_until_it_is_back_on_tc() {
    a_failed_server_is_left_out(&["--path", "tc"]);
}

#[test]
fn a_failed_server_is_left_out_until_it_is_back_on_xdp() {
    a_failed_server_is_left_out(&["--path", "xdp-generic"]);
}

/// Without their quorum servers leave their clients to the sorry server; those that are quiesced keep what they have.
#[test]
fn quorum_and_sorry_server() {
    let lab = TestLab::up(&["--servers", "3"]);
    let service = "quorum = 2\non_failure = \"quiesce\"\n[service.health.sorry]\naddress = \"10.0.0.4:8080\"";
    let text = with_checks(&lab, service, &format!("type = \"http\"\nrequest = [{{ path = \"/\" }}]\n{QUICK}"));
    // The third server apologizes, and serves nothing else.
    let (before, third) = text.split_once("[[service.server]]\naddress = \"10.0.0.4:8080\"").unwrap();
    let rest = third.find("\n[[service]]").map_or("", |at| &third[at..]);
    // It would be of the other family.
    let rest = rest.replace("10.0.0.4:8080", "[fd00::4]:8080");
    lab.write_config(&format!("{before}{rest}"));
    lab.dirigent(&["reload"]);
    until(&lab, "both are up", SECOND * 5, || {
        ["10.0.0.2:8080", "10.0.0.3:8080"].iter().all(|name| server(&lab, WEB, name)["health"]["state"] == "up")
    });
    let weights = || -> Vec<(String, u64)> {
        let all = servers(&lab).into_iter().filter(|s| s["service"] == WEB && s["state"] != "removed");
        all.map(|s| (s["address"].as_str().unwrap().to_owned(), s["weight"].as_u64().unwrap())).collect()
    };
    refuse(&lab, "server1", true);
    // Those that are not known to be down yet refuse.
    let answer = || lab.sh("client", "curl -sS --max-time 5 http://192.0.2.10/ || true");
    until(&lab, "the sorry server serves", SECOND * 3, || answer() == "server3");
    let named = |name: &str, weight| (name.to_owned(), weight);
    assert_eq!(weights(), [named("10.0.0.2:8080", 0), named("10.0.0.3:8080", 0), named("10.0.0.4:8080", 1)]);
    assert_eq!(server(&lab, WEB, "10.0.0.2:8080")["health"]["why"], "http 10.0.0.2:8080: connection refused");
    assert_eq!(server(&lab, WEB, "10.0.0.3:8080")["health"]["state"], "up");
    refuse(&lab, "server1", false);
    until(&lab, "the quorum is back", SECOND * 3, || {
        weights() == [named("10.0.0.2:8080", 1), named("10.0.0.3:8080", 1)]
    });
    for _ in 0..6 {
        assert_ne!(lab.curl("http://192.0.2.10/"), "server3");
    }
}

/// Fake servers, which do well or badly.
struct Fakes {
    bad: Arc<AtomicBool>,
}

impl Fakes {
    /// Serves each connection to a port by `serve`, which is told whether to do badly.
    fn tcp(&self, lab: &TestLab, port: u16, serve: impl Fn(std::net::TcpStream, bool) + Send + Sync + 'static) {
        let listener = lab.run("server1", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        let (bad, serve) = (self.bad.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (bad, serve) = (bad.load(Ordering::Relaxed), serve.clone());
                stream.set_read_timeout(Some(SECOND)).unwrap();
                std::thread::spawn(move || serve(stream, bad));
            }
        });
    }

    fn udp(&self, lab: &TestLab, port: u16, answer: impl Fn(&[u8], bool) -> Vec<u8> + Send + 'static) {
        let socket = lab.run("server1", || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        let bad = self.bad.clone();
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&answer(&datagram[..length], bad.load(Ordering::Relaxed)), from);
            }
        });
    }
}

/// Accepts connections, and no more of them when it is dropped.
struct Accepting {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Accepting {
    fn begin(lab: &TestLab, port: u16) -> Self {
        let listener = lab.run("server1", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads a request's header.
fn header(stream: &mut impl std::io::Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn answer(stream: &mut impl Write, status: &str, body: &str) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
}

/// TLS with a certificate of its own, which must be shown one of the same authority.
fn tls(lab: &TestLab) -> Arc<rustls::ServerConfig> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::from_params(&params, &key);
    let signed = |name: &str| {
        let own = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        (certificate, own)
    };
    let (client, client_key) = signed("checker.example");
    std::fs::write(lab.file("ca.pem"), ca.pem()).unwrap();
    std::fs::write(lab.file("check.pem"), client.pem()).unwrap();
    std::fs::write(lab.file("check.key"), client_key.serialize_pem()).unwrap();
    let (server, server_key) = signed("web.example");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(clients.build().unwrap());
    let private = rustls_pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    Arc::new(config.with_single_cert(vec![server.der().clone()], private).unwrap())
}

/// Each kind of check, of IPv4 and IPv6 servers: up while they do well, down with the reason while not, and up again.
#[test]
fn every_kind_of_check() {
    let lab = TestLab::up(&["--servers", "1"]);
    let fakes = Fakes { bad: Arc::default() };
    let (file, number, rights) = (lab.file("well"), lab.file("number"), lab.file("rights"));
    std::fs::write(&file, "").unwrap();
    std::fs::write(&number, "0\n").unwrap();
    std::fs::write(&rights, "").unwrap();
    std::fs::set_permissions(&rights, std::fs::Permissions::from_mode(0o666)).unwrap();

    fakes.tcp(&lab, 9002, |mut stream, bad| {
        let header = header(&mut stream);
        let well = header.starts_with("GET /well HTTP/1.1\r\n") && header.contains("host: www.example\r\n") && !bad;
        answer(&mut stream, if well { "204 No Content" } else { "503 Service Unavailable" }, "");
    });
    fakes.tcp(&lab, 9003, |mut stream, bad| {
        assert!(header(&mut stream).starts_with("GET / HTTP/1.0\r\n"));
        answer(&mut stream, "200 OK", if bad { "sorry" } else { "all Systems go" });
    });
    fakes.tcp(&lab, 9004, |mut stream, bad| {
        header(&mut stream);
        answer(&mut stream, "200 OK", if bad { "abd" } else { "abc" });
    });
    let config = tls(&lab);
    fakes.tcp(&lab, 9005, move |stream, bad| {
        let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream);
        if header(&mut tls).is_empty() {
            return;
        }
        assert_eq!(tls.conn.server_name(), Some("web.example"));
        answer(&mut tls, "200 OK", "");
        if !bad {
            tls.conn.send_close_notify();
        }
        let _ = tls.flush();
    });
    fakes.tcp(&lab, 9006, |mut stream, bad| {
        let _ = stream.write_all(if bad { b"554 no service\r\n" } else { b"220 mail\r\n" });
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while matches!(reader.read_line(&mut line), Ok(1..)) {
            let reply = if line.starts_with("HELO ") { "250 mail\r\n" } else { "221 bye\r\n" };
            let _ = stream.write_all(reply.as_bytes());
            line.clear();
        }
    });
    // QR and the question's own bytes; SERVFAIL if badly.
    fakes.udp(&lab, 9007, |question, bad| {
        let mut answer = question.to_vec();
        (answer[2], answer[3]) = (0x84, if bad { 2 } else { 0 });
        answer
    });
    fakes.udp(&lab, 9008, |datagram, bad| if bad { b"what".to_vec() } else { [datagram, b"!"].concat() });
    let h2 = lab.run("server1", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 9012)).unwrap());
    let bad = fakes.bad.clone();
    std::thread::spawn(move || http2(h2, bad));

    let show = |path: &std::path::Path| path.display().to_string();
    let script = format!(
        "(grep -E '^(Cap|NoNew)' /proc/self/status; id -u; id -G) >> {}; exec test -e {}",
        show(&rights),
        show(&file)
    );
    let checks = [
        (9001, "type = \"tcp\"".to_owned(), "connection refused"),
        (
            9002,
            "type = \"http\"\nhttp_version = \"1.1\"\nvirtual_host = \"www.example\"\n\
             request = [{ path = \"/well\", status = [\"200\", \"204-206\"] }]"
                .to_owned(),
            "status 503",
        ),
        (
            9003,
            "type = \"http\"\nrequest = [{ path = \"/\", regex = \"all systems\", regex_options = [\"caseless\"] }]"
                .to_owned(),
            "the body does not match the regex",
        ),
        (
            9004,
            "type = \"http\"\nrequest = [{ path = \"/\", digest = \"900150983cd24fb0d6963f7d28e17f72\" }]".to_owned(),
            "the body has another digest",
        ),
        (
            9005,
            format!(
                "type = \"https\"\nsni = \"web.example\"\nclose_notify = true\nrequest = [{{ path = \"/\" }}]\nca = \"{}\"\n\
                 certificate = \"{}\"\nkey = \"{}\"",
                show(&lab.file("ca.pem")),
                show(&lab.file("check.pem")),
                show(&lab.file("check.key"))
            ),
            "closed without close_notify",
        ),
        (9006, "type = \"smtp\"\nhelo = \"lb.example\"".to_owned(), "the greeting is \"554 no service\""),
        (9007, "type = \"dns\"\nname = \"www.example.\"\nrecord = \"A\"".to_owned(), ""),
        (9008, "type = \"udp\"\npayload = \"70696e67\"\nreply = \"7069xex7\"".to_owned(), "the reply is \"what\""),
        (9009, "type = \"ping\"".to_owned(), "timeout"),
        (9010, format!("type = \"script\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]"), "exit code 1"),
        (9011, format!("type = \"file\"\npath = \"{}\"", show(&number)), ""),
        (
            9012,
            "type = \"http\"\nhttp_version = \"2\"\nrequest = [{ path = \"/\", regex = \"^two$\" }]".to_owned(),
            "status 500",
        ),
    ];
    let mut text = lab.config();
    for (vip, host) in [("192.0.2.77", "10.0.0.2"), ("[2001:db8::77]", "[fd00::2]")] {
        text += &format!("\n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:77\"\nvip = \"manage\"\n");
        for (port, check, _) in &checks {
            // Programs take longer to start than packets to come.
            let quick = QUICK.replace("300ms", "1s");
            text += &format!(
                "[[service.server]]\naddress = \"{host}:{port}\"\n[[service.server.check]]\n{check}\n{quick}\n"
            );
        }
    }
    let v6 = lab.sh("server1", "ip -6 -o address show scope global | sed 's/.*inet6 \\([^/]*\\).*/\\1/'");
    lab.write_config(&text.replace("fd00::2", v6.trim()));
    let all = |state: &str| {
        let those: Vec<_> =
            servers(&lab).into_iter().filter(|s| s["service"].as_str().unwrap().ends_with(":77")).collect();
        those.len() == 2 * checks.len() && those.iter().all(|s| s["health"]["state"] == state)
    };
    let mut listener = Some(Accepting::begin(&lab, 9001));
    lab.dirigent(&["reload"]);
    for round in 0..2 {
        until(&lab, &format!("all are up, round {round}"), SECOND * 10, || all("up"));
        // What a script may do: nothing that its user may not.
        let read = std::fs::read_to_string(&rights).unwrap();
        let nobody = lab.sh("director", "id -u nobody; id -G nobody");
        assert!(read.contains("CapEff:\t0000000000000000\n") && read.contains("CapPrm:\t0000000000000000\n"), "{read}");
        let ends = format!("CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n{}\n", nobody.trim());
        assert!(read.contains(&ends), "{read} {nobody}");
        // All do badly.
        drop(listener.take());
        fakes.bad.store(true, Ordering::Relaxed);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&number, "3\n").unwrap();
        lab.sh("server1", "sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1");
        until(&lab, &format!("all are down, round {round}"), SECOND * 15, || all("down"));
        for server in servers(&lab).iter().filter(|s| s["service"].as_str().unwrap().ends_with(":77")) {
            let why = server["health"]["why"].as_str().unwrap();
            let address = server["address"].as_str().unwrap();
            let (_, _, expected) = checks.iter().find(|(port, ..)| address.ends_with(&format!(":{port}"))).unwrap();
            assert!(why.ends_with(expected), "{address}: {why}");
        }
        listener = Some(Accepting::begin(&lab, 9001));
        fakes.bad.store(false, Ordering::Relaxed);
        std::fs::write(&file, "").unwrap();
        std::fs::write(&number, "0\n").unwrap();
        lab.sh("server1", "sysctl -qw net.ipv4.icmp_echo_ignore_all=0 net.ipv6.icmp.echo_ignore_all=0");
    }
    until(&lab, "all are up at the end", SECOND * 10, || all("up"));
    let down = lab.dirigent(&["server", "list"]).0;
    assert!(!down.contains("down"), "{down}");
}

/// A server of HTTP/2 that is known to be one.
fn http2(listener: TcpListener, bad: Arc<AtomicBool>) {
    use http_body_util::Full;
    use hyper::body::Bytes;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let bad = bad.clone();
            tokio::spawn(async move {
                let serve = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let status = if bad.load(Ordering::Relaxed) { 500 } else { 200 };
                    assert_eq!(request.version(), hyper::Version::HTTP_2);
                    async move {
                        let answer = hyper::Response::builder().status(status);
                        Ok::<_, std::convert::Infallible>(answer.body(Full::new(Bytes::from("two"))).unwrap())
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let executor = hyper_util::rt::TokioExecutor::new();
                let _ = hyper::server::conn::http2::Builder::new(executor).serve_connection(io, serve).await;
            });
        }
    });
}

/// A script's exit code and a file's number set weights.
#[test]
fn weights_follow_checks() {
    let lab = TestLab::up(&["--servers", "2"]);
    let (exit, number) = (lab.file("exit"), lab.file("number"));
    let (script, file) = (exit.display(), number.display());
    std::fs::write(&exit, "0").unwrap();
    std::fs::write(&number, "0").unwrap();
    let check = format!(
        "type = \"script\"\nweight_from_exit = true\ncommand = [\"/bin/sh\", \"-c\", \"exit $(cat {script})\"]\n{QUICK}\n\
         [[service.server.check]]\ntype = \"file\"\nweight = 10\npath = \"{file}\"\n{QUICK}",
    )
    .replace("300ms", "1s");
    lab.write_config(&with_checks(&lab, "", &check));
    lab.dirigent(&["reload"]);
    let weight = |weight: u64| move |lab: &TestLab| server(lab, WEB, "10.0.0.3:8080")["weight"] == weight;
    for (code, read, expected) in
        [("0", "0", 1), ("9", "0", 7), ("9", "2", 27), ("2", "0", 0), ("0", "-1", 0), ("0", "0", 1)]
    {
        std::fs::write(&exit, code).unwrap();
        std::fs::write(&number, read).unwrap();
        until(&lab, &format!("{code} {read}: {expected}"), SECOND * 5, || weight(expected)(&lab));
        assert_eq!(server(&lab, WEB, "10.0.0.3:8080")["health"]["why"], Value::Null);
    }
    // What is configured stays what it is.
    assert!(lab.dirigent(&["config", "diff"]).0.contains("nothing"), "{}", lab.dirigent(&["config", "diff"]).0);
}

/// Another's BFD (BIRD's) as the neighbour, over IPv4 and IPv6.
#[test]
fn bfd_sessions_say_who_is_there() {
    let lab = TestLab::up(&["--servers", "1"]);
    let conf = lab.file("bird.conf");
    let text = "router id 10.0.0.2;\nprotocol device { }\nprotocol bfd {\n  interface \"*\" {\n    min rx interval 100 ms;\n    \
                min tx interval 100 ms;\n    multiplier 5;\n  };\n  neighbor 10.0.0.1;\n  neighbor fd00::1;\n}\n";
    std::fs::write(&conf, text).unwrap();
    let (socket, pid) = (lab.file("bird.ctl"), lab.file("bird.pid"));
    let begin = || {
        let argv =
            ["bird", "-f", "-c", conf.to_str().unwrap(), "-s", socket.to_str().unwrap(), "-P", pid.to_str().unwrap()];
        lab.start("server1", &argv)
    };
    let end = |mut bird: std::process::Child| {
        lab.sh("server1", &format!("kill -9 $(cat {})", pid.display()));
        bird.wait().unwrap();
    };
    let bfd = |address: &str| {
        format!("type = \"bfd\"\naddress = \"{address}\"\nmin_rx = \"100ms\"\nmin_tx = \"100ms\"\nmultiplier = 5\n")
    };
    let mut text = with_checks(&lab, "", "HERE");
    for (address, service) in [("10.0.0.2", "10.0.0.2:8080"), ("fd00::2", "[fd00::2]:8080")] {
        let at = text.find(&format!("address = \"{service}\"")).unwrap();
        let (before, after) = text.split_at(at);
        text = format!("{before}{}", after.replacen("HERE", &bfd(address), 1));
    }
    let bird = begin();
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let all = |state: &str| {
        let all = servers(&lab).into_iter().filter(|s| !s["health"].is_null());
        let states: Vec<_> = all.map(|s| s["health"]["state"].clone()).collect();
        states.len() == 2 && states.iter().all(|s| s == state)
    };
    until(&lab, "both are up", SECOND * 15, || all("up"));
    end(bird);
    until(&lab, "both are down", SECOND * 5, || all("down"));
    let why = server(&lab, WEB, "10.0.0.2:8080")["health"]["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("bfd 10.0.0.2: "), "{why}");
    let bird = begin();
    until(&lab, "both are up again", SECOND * 15, || all("up"));
    end(bird);
}

/// A NAT server that answers no connection is checked at once, however long it would be until the next check.
#[test]
fn servers_that_do_not_answer_are_checked_at_once() {
    let lab = TestLab::up(&["--servers", "2"]);
    let told = lab.file("told");
    let check = "type = \"tcp\"\ninterval = \"1h\"\nwarmup = \"0ms\"\ntimeout = \"500ms\"\nretries = 1\nretry_interval = \"100ms\"";
    let notice =
        format!("notify_at_stop = true\nquorum_down = [\"/bin/sh\", \"-c\", \"echo down >> {}\"]", told.display());
    std::fs::write(&told, "").unwrap();
    std::fs::set_permissions(&told, std::fs::Permissions::from_mode(0o666)).unwrap();
    lab.write_config(&with_checks(&lab, &notice, check));
    lab.dirigent(&["reload"]);
    until(&lab, "all are up", SECOND * 5, || {
        servers(&lab).iter().filter(|s| s["health"]["state"] == "up").count() == 4
    });
    lab.sh(
        "server1",
        "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                       add rule inet gone input tcp dport 8080 drop'",
    );
    let mut clients: Vec<_> =
        (0..8).map(|_| lab.start("client", &["curl", "-sS", "--max-time", "10", "http://192.0.2.10/"])).collect();
    until(&lab, "server1 is down", SECOND * 10, || server(&lab, WEB, "10.0.0.2:8080")["state"] == "down");
    clients.iter_mut().for_each(|client| _ = client.kill());
    clients.iter_mut().for_each(|client| _ = client.wait());
    assert_eq!(server(&lab, WEB, "10.0.0.3:8080")["state"], "available");
    // And when the director goes, whom it concerns is told: of both services.
    lab.dirigent(&["stop", "--detach"]);
    until_told(&told, 2);
}

fn until_told(file: &std::path::Path, lines: usize) {
    let begun = Instant::now();
    while std::fs::read_to_string(file).unwrap().lines().count() != lines {
        assert!(begun.elapsed() < SECOND * 10, "{:?}", std::fs::read_to_string(file));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Checks that go where clients' packets go find what an ordinary check does not.
fn the_real_path(mode: &[&str], breaks: &[(&str, &str, &str)]) {
    let lab = TestLab::up(&[&["--servers", "2"], mode].concat());
    let check = format!("type = \"tcp\"\nreal_path = true\n{}", QUICK.replace("300ms", "500ms"));
    lab.write_config(&with_checks(&lab, "", &check));
    lab.dirigent(&["reload"]);
    let web = || -> Vec<Value> { servers(&lab).into_iter().filter(|s| !s["health"].is_null()).collect() };
    let known = |state: &str| web().iter().filter(|s| s["health"]["state"] == state).count();
    until(&lab, "all are up", SECOND * 10, || known("up") == 4);
    for (breaks, mends, cause) in breaks {
        let state = lab.file("server1-realserver.json");
        let on_server = |script: &str| {
            let with = format!("BIN={} STATE={}; {script}", common::BIN, state.display());
            lab.sh("server1", &with);
        };
        on_server(breaks);
        // By an ordinary connection it is well.
        until(&lab, &format!("server1 is down after {breaks}"), SECOND * 10, || known("down") == 2);
        for server in web() {
            let is_first = ["10.0.0.2", "fd00::2"].iter().any(|a| server["address"].as_str().unwrap().contains(a));
            assert_eq!(server["health"]["state"] == "down", is_first, "{server}");
            if is_first {
                let why = server["health"]["why"].as_str().unwrap();
                assert!(why.starts_with("tcp ") && why.contains(":80 on "), "{why}");
                let (four, six) = cause.split_once('|').unwrap_or((cause, cause));
                let expected = if why.contains("fd00::2") { six } else { four };
                assert!(why.contains(expected), "{why}");
            }
        }
        for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
            for _ in 0..4 {
                assert_eq!(lab.curl(url), "server2");
            }
        }
        on_server(mends);
        until(&lab, &format!("all are up after {mends}"), SECOND * 10, || known("up") == 4);
    }
    // A daemon that is killed leaves them to the next.
    lab.kill_daemon();
    lab.start_daemon();
    until(&lab, "all are up with the next daemon", SECOND * 10, || known("up") == 4);
    assert_eq!(lab.count("unpinned"), 0);
}

const VIPS_GONE: &str = "ip address del 192.0.2.10/32 dev lo; ip address del 2001:db8::10/128 dev lo";
const VIPS_BACK: &str = "ip address add 192.0.2.10/32 dev lo; ip address add 2001:db8::10/128 dev lo nodad";

#[test]
fn the_real_path_of_nat() {
    let away = "ip route replace unreachable default; ip -6 route replace unreachable default metric 1";
    let back = "ip route replace default via 10.0.0.1; ip -6 route del unreachable default metric 1";
    let why = "timeout: it takes connections by its own address, but its answers go around the director";
    the_real_path(&["--path", "tc"], &[(away, back, why)]);
}

#[test]
fn the_real_path_of_direct_routing() {
    let why = "timeout: it takes connections by its own address, but it lacks the virtual address";
    // The program is bound to another address.
    let unbound = "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                   add rule inet gone input ip daddr 192.0.2.10 tcp dport 80 reject with tcp reset; \
                   add rule inet gone input ip6 daddr 2001:db8::10 tcp dport 80 reject with tcp reset'";
    let nobody = "connection refused: it takes connections by its own address, but it has the virtual address, and nothing listens";
    let breaks = [(VIPS_GONE, VIPS_BACK, why), (unbound, "nft delete table inet gone", nobody)];
    the_real_path(&["--mode", "dr", "--path", "xdp-generic"], &breaks);
}

#[test]
fn the_real_path_of_tunnels() {
    let gone = "timeout: it takes connections by its own address, but it does not take packets out of the tunnel, lacks the \
                virtual address";
    // What takes packets out of the tunnel is not there any more: the kernel itself knows no such protocol.
    let left = format!("$BIN realserver undo --yes --state $STATE; {VIPS_BACK}");
    let back =
        "$BIN realserver setup --mode tun --yes --state $STATE --vip 192.0.2.10 --vip 2001:db8::10 --tunnel ipip";
    // Of IPv6 it says so by a parameter problem, which is not among the errors that the director relates (nor IPVS).
    let whole = "protocol unreachable: it takes connections by its own address, but the server does not take packets out|\
                 timeout: it takes connections by its own address, but it does not take packets out of the tunnel";
    let breaks = [(VIPS_GONE, VIPS_BACK, gone), (&left, back, whole)];
    the_real_path(&["--mode", "tun", "--path", "tc"], &breaks);
}

/// Clients that wait for an answer, each with what its read came to.
struct Waiting(Vec<std::thread::JoinHandle<Result<usize, std::io::ErrorKind>>>);

impl Waiting {
    /// So many on each virtual address, which have asked half a question.
    fn begin(lab: &TestLab, each: usize) -> Self {
        let open = |vip: &&str| {
            let mut stream = std::net::TcpStream::connect(vip).unwrap();
            stream.write_all(b"GET / HT").unwrap();
            stream
        };
        let vips = ["192.0.2.10:80", "[2001:db8::10]:80"];
        let vips: Vec<_> = vips.iter().flat_map(|vip| std::iter::repeat_n(*vip, each)).collect();
        let streams: Vec<_> = lab.run("client", || vips.iter().map(open).collect());
        // Until the last packet of each is through.
        std::thread::sleep(SECOND / 10);
        let wait = |mut stream: std::net::TcpStream| {
            stream.set_read_timeout(Some(SECOND * 3)).unwrap();
            std::thread::spawn(move || std::io::Read::read(&mut stream, &mut [0; 64]).map_err(|e| e.kind()))
        };
        Self(streams.into_iter().map(wait).collect())
    }
    /// How many have ended.
    fn ended(&self) -> usize {
        self.0.iter().filter(|client| client.is_finished()).count()
    }
    /// How many were reset; the others waited in vain.
    fn reset(self) -> usize {
        let ends: Vec<_> = self.0.into_iter().map(|client| client.join().unwrap()).collect();
        let reset = ends.iter().filter(|end| **end == Err(std::io::ErrorKind::ConnectionReset)).count();
        let waited = ends.iter().filter(|end| **end == Err(std::io::ErrorKind::WouldBlock)).count();
        assert_eq!(reset + waited, ends.len(), "{ends:?}");
        reset
    }
}

/// The live connections of a server that fails are reset, and nobody else's: of clients that are in the midst of a
/// transfer, and of those that wait for an answer; whether the server is there or not. With `keep` they stay.
fn live_connections_are_reset(mode: &[&str], nat: bool) {
    let lab = TestLab::up(&[&["--servers", "2"], mode].concat());
    lab.publish("long", 16 << 20);
    // What is received already is read before the reset is told.
    lab.sh("client", "sysctl -qw 'net.ipv4.tcp_rmem=4096 65536 131072'");
    let check = format!("type = \"tcp\"\n{QUICK}");
    let text = with_checks(&lab, "on_failure_connections = \"reset\"", &check);
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let web = || -> Vec<Value> { servers(&lab).into_iter().filter(|s| !s["health"].is_null()).collect() };
    let known = |state: &str| web().iter().filter(|s| s["health"]["state"] == state).count();
    let all_up = || until(&lab, "all are up", SECOND * 10, || known("up") == 4);
    let break_it = |rule: &str| {
        let chain = |hook| {
            format!("add chain inet gone {hook} {{ type filter hook {hook} priority 0; }}; add rule inet gone {hook}")
        };
        let rules = format!("add table inet gone; {} {rule}; {} {rule}", chain("input"), chain("output"));
        lab.sh("server1", &format!("nft '{rules}'"));
        Instant::now()
    };
    let mend = || _ = lab.sh("server1", "nft delete table inet gone");
    let active = |address: &str| -> u64 {
        let of_it = web().into_iter().filter(|s| s["address"].as_str().unwrap().starts_with(address));
        of_it.map(|s| s["active"].as_u64().unwrap_or(0)).sum()
    };
    // It takes no new connections, and those that it has go on; or it is as if it were switched off.
    for (rule, is_there) in [("tcp flags & (syn | ack) == syn reject with tcp reset", true), ("drop", false)] {
        all_up();
        let transfers = ["http://192.0.2.10/long", "http://192.0.2.10/long"];
        let mut transfers = transfers.map(|url| {
            lab.start("client", &["curl", "-sS", "--limit-rate", "4M", "--max-time", "20", "-o", "/dev/null", url])
        });
        // One on each server, before the others come.
        until(&lab, "both transfers go on", SECOND * 3, || active("10.0.0.2") == 1 && active("10.0.0.3") == 1);
        let waiting = Waiting::begin(&lab, 4);
        let begun = break_it(rule);
        let mut ended = || transfers.iter_mut().filter_map(|t| t.try_wait().unwrap()?.code()).collect::<Vec<_>>();
        until(&lab, &format!("who waits hears of it: {rule}"), SECOND * 3, || waiting.ended() == 4);
        // curl: failure in receiving.
        until(&lab, &format!("and whose transfer goes on: {rule}"), SECOND * 3, || ended().contains(&56));
        println!("{mode:?}, {rule}: all clients knew after {} ms", begun.elapsed().as_millis());
        let own = ["10.0.0.2", "fd00::2"];
        let of_it =
            || lab.dirigent(&["connection", "list"]).0.lines().filter(|l| own.iter().any(|a| l.contains(a))).count();
        until(&lab, "they are gone", SECOND * 4, || of_it() == 0);
        if nat && is_there {
            let open = "ss -Htn state established '( sport = :8080 )' | grep -c -e 198.51.100 -e 2001:db8 || true";
            until(&lab, "the server knows, too", SECOND * 3, || lab.sh("server1", open) == "0");
        }
        assert!(lab.count("reset") >= if is_there { 5 } else { 10 }, "{}", lab.count("reset"));
        // They try again, and are served.
        assert_eq!(lab.curl("http://192.0.2.10/"), "server2");
        assert_eq!(waiting.reset(), 4);
        // The transfer by the other server is whole.
        let codes = transfers.iter_mut().map(|transfer| transfer.wait().unwrap().code()).collect::<BTreeSet<_>>();
        assert_eq!(codes, BTreeSet::from([Some(0), Some(56)]));
        mend();
    }
    if !nat {
        return;
    }
    lab.write_config(&text.replace("= \"reset\"", "= \"keep\"\non_failure = \"quiesce\""));
    lab.dirigent(&["reload"]);
    all_up();
    let before = lab.count("reset");
    let waiting = Waiting::begin(&lab, 2);
    break_it("tcp flags & (syn | ack) == syn reject with tcp reset");
    until(&lab, "server1 is down", SECOND * 3, || known("down") == 2);
    assert_eq!((waiting.reset(), lab.count("reset")), (0, before));
}

#[test]
fn live_connections_of_a_failed_server_are_reset_with_nat() {
    live_connections_are_reset(&["--path", "tc"], true);
}

#[test]
fn live_connections_of_a_failed_server_are_reset_with_direct_routing() {
    live_connections_are_reset(&["--mode", "dr", "--path", "xdp-generic"], false);
}
