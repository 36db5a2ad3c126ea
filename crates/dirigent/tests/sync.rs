//! Connections that directors tell each other of, and those that kernels tell. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod link;

use dirigent_net::netns::Namespace;
use dirigent_testkit::packet::{self, IpOptions};
use link::{FLOOD, Link, PATIENCE};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A client's connection, which says a line and waits for it to come back.
struct Echo {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Echo {
    fn to(link: &Link, at: &str) -> Self {
        let mut command = Command::new("socat");
        command.args(["-t30", "-", at]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Namespace::open(&link.namespace("c")).unwrap().spawn(&mut command).unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }
    /// Whether it came back. (What is lost on the way TCP sends again.)
    fn says(&mut self, line: &str) -> bool {
        let to = self.process.stdin.as_mut().unwrap();
        if writeln!(to, "{line}").is_err() {
            return false;
        }
        let mut back = String::new();
        self.lines.read_line(&mut back).is_ok() && back.trim_end() == line
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a director's status says of it.
fn synchronisation(link: &Link, host: &str) -> Value {
    let status = link.dirigent(host, &["status", "--json"]).unwrap();
    serde_json::from_str::<Value>(&status).unwrap()["synchronisation"].clone()
}

/// Two directors who tell each other of connections; what a client has begun goes on by whichever is master, and
/// `stop --detach` leaves nothing of it.
#[test]
fn connections_go_on_by_the_other_director() {
    let link = Link::up();
    for (host, number) in [("a", 1), ("b", 2), ("c", 9)] {
        link.sh(
            host,
            &format!("ip address add 10.8.0.{number}/24 dev eth0; ip address add fd08::{number}/64 dev eth0"),
        );
    }
    for host in ["a", "b"] {
        link.sh(host, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }
    link.sh("d", "ip route add default via 10.9.0.100; ip -6 route add default via fd09::100");
    for listen in ["TCP4-LISTEN:8080", "TCP6-LISTEN:8080,ipv6only=1"] {
        let mut command = Command::new("socat");
        command.args([&format!("{listen},fork,reuseaddr"), "EXEC:cat"]);
        link.start("d", &mut command);
    }
    let routers = |priority: u8| {
        let router = |name: &str, vrid: u8, addresses: &str| {
            format!(
                "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\npriority = {priority}\n\
                 interval = \"200ms\"\naddresses = [{addresses}]\n"
            )
        };
        let service = |vip: &str, server: &str, persistence: &str| {
            format!(
                "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n{persistence}\n\
                 server = [{{ address = \"{server}:8080\" }}]\n"
            )
        };
        router("web", 51, "\"10.8.0.100/24\", \"10.9.0.100/24\"")
            + &router("web6", 52, "\"fd08::100/64\", \"fd09::100/64\"")
            + &service("10.8.0.100", "10.9.0.3", "persistence = {}")
            + &service("[fd08::100]", "[fd09::3]", "")
            + "[director]\nconnections = 4096\n[sync]\ninterface = \"eth0\"\nid = 7\nkey = \"a shared secret that nobody knows\"\n"
    };
    link.director("a", &routers(150));
    link.director("b", &routers(100));
    let sync = |host: &str| synchronisation(&link, host);
    let masters = |host: &str| ["web", "web6"].iter().all(|router| link.state(host, router) == "master");
    link.until("a is master", || masters("a") && link.ping("10.8.0.100"));
    link.until("each knows all of the other", || ["a", "b"].iter().all(|host| sync(host)["peers"][0]["whole"] == true));
    let mut echoes = [Echo::to(&link, "TCP4:10.8.0.100:80"), Echo::to(&link, "TCP6:[fd08::100]:80")];
    for n in 0..4 {
        assert!(echoes.iter_mut().all(|echo| echo.says(&format!("by a: {n}"))), "{}", link.logs());
    }
    // Two connections and the template of one of them.
    link.until("b has learned them", || sync("b")["peers"][0]["known"] == 3);
    let list = link.dirigent("b", &["connection", "list"]).unwrap();
    assert_eq!(list.matches("ESTABLISHED").count(), 2, "{list}");
    assert_eq!(sync("a")["own"], 3, "{}", sync("a"));

    link.cut("a", true);
    link.until("b is master", || masters("b"));
    assert!(echoes.iter_mut().all(|echo| echo.says("by b")), "{}", link.logs());
    link.until("they are b's own", || sync("b")["own"] == 2);
    link.cut("a", false);
    link.until("a is master again", || masters("a"));
    assert!(echoes.iter_mut().all(|echo| echo.says("by a again")), "{}{}", sync("a"), link.logs());
    let status = link.dirigent("b", &["status"]).unwrap();
    assert!(status.contains("node 10.9.0.1") && status.contains("whole"), "{status}");

    // A daemon that is killed leaves its connections to the next one, who knows whose they are.
    link.signal("b", "-9");
    link.director("b", &routers(100));
    link.until("b knows all again", || sync("b")["peers"][0]["whole"] == true);
    drop(echoes);
    // The client's FIN is told at once.
    link.until("b hears of their end", || {
        !link.dirigent("b", &["connection", "list"]).unwrap().contains("ESTABLISHED")
    });
    let peer = sync("b")["peers"][0].clone();
    assert_eq!((&peer["whole"], &peer["lost"]), (&true.into(), &0.into()), "{peer}");
}

/// What was told before it came it asks for, though it tells nothing itself.
#[test]
fn who_is_only_a_backup_learns_all_when_it_joins() {
    let link = Link::up();
    for (host, number) in [("a", 1), ("c", 9)] {
        link.sh(host, &format!("ip address add 10.8.0.{number}/24 dev eth0"));
    }
    link.sh("a", "sysctl -qw net.ipv4.ip_forward=1");
    link.sh("d", "ip route add default via 10.9.0.1");
    let mut command = Command::new("socat");
    command.args(["TCP4-LISTEN:8080,fork,reuseaddr", "EXEC:cat"]);
    link.start("d", &mut command);
    let director = |role: &str, vip: &str| {
        format!(
            "[director]\nconnections = 4096\n[sync]\ninterface = \"eth0\"\nrole = \"{role}\"\n[[service]]\n\
             protocol = \"tcp\"\naddress = \"10.8.0.100:80\"\n{vip}server = [{{ address = \"10.9.0.3:8080\" }}]\n"
        )
    };
    link.director("a", &director("master", "vip = \"manage\"\n"));
    let mut echo = Echo::to(&link, "TCP4:10.8.0.100:80");
    assert!((0..4).all(|n| echo.says(&format!("by a: {n}"))), "{}", link.logs());

    link.director("b", &director("backup", ""));
    let sync = || synchronisation(&link, "b");
    link.until("b knows the connection", || {
        let peer = &sync()["peers"][0];
        (&peer["whole"], &peer["known"]) == (&true.into(), &1.into())
    });
    assert!(link.dirigent("b", &["connection", "list"]).unwrap().contains("ESTABLISHED"));
    assert_eq!(sync()["sent"], 0);
}

/// What kernel 6.1's master sent (crates/sync/recordings) is known here as its own table had it. Then somebody sends as
/// much as he can, of all that is wrong: nothing changes, and what is right is heard again when he stops.
#[test]
fn a_kernels_connections_are_learned_and_forged_ones_are_not() {
    let link = Link::up();
    link.director("a", "[director]\nconnections = 4096\n[sync]\ninterface = \"eth0\"\nid = 7\n");
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../sync/recordings/master.json");
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(recording).unwrap()).unwrap();
    let bytes = |hex: &Value| -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let send = |host: &str, datagram: &[u8]| {
        let namespace = Namespace::open(&link.namespace(host)).unwrap();
        let sent = namespace.run(|| {
            let socket = std::net::UdpSocket::bind("10.9.0.2:0").unwrap();
            socket.send_to(datagram, "10.9.0.1:8848").unwrap();
        });
        sent.unwrap();
    };
    let ipvsadm = |args: &str| {
        let args: Vec<_> = std::iter::once("ipvsadm").chain(args.split(' ')).collect();
        link.dirigent("a", &args).unwrap_or_else(|| panic!("{args:?}{}", link.logs()))
    };
    let daemon =
        |role| format!("{role} sync daemon (mcast=eth0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n");
    assert_eq!(ipvsadm("-L --daemon"), daemon("master") + &daemon("backup"));
    ipvsadm("--stop-daemon master");
    assert_eq!(ipvsadm("-L --daemon"), daemon("backup"));
    ipvsadm("--start-daemon master --mcast-interface eth0 --syncid 7");
    assert_eq!(ipvsadm("-L --daemon"), daemon("master") + &daemon("backup"));

    /// Protocol, state and ends; the time that is left a second later is another.
    fn plain(line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            [protocol, state, _, rest @ ..] => format!("{protocol} {state} {}", rest.join(" ")),
            _ => panic!("{line}"),
        }
    }
    let known = || {
        let list = ipvsadm("-L -n -c");
        let swapped = list.lines().skip(2).filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [protocol, _, state, client, service, server, ..] = words.as_slice() else { return None };
            Some(format!("{protocol} {state} {client} {service} {server}"))
        });
        let mut known: Vec<_> = swapped.collect();
        known.sort();
        known
    };
    let mut compared = 0;
    for scenario in all.iter().filter(|s| ["states-4", "states-6"].contains(&s["name"].as_str().unwrap())) {
        ipvsadm("-C");
        for line in scenario["setup"].as_array().unwrap() {
            ipvsadm(line.as_str().unwrap());
        }
        for step in scenario["steps"].as_array().unwrap() {
            for datagram in step["datagrams"].as_array().unwrap() {
                send("b", &bytes(datagram));
            }
            let Some(table) = step["table"]["ipvsadm"].as_array() else { continue };
            let mut expected: Vec<_> = table.iter().map(|line| plain(line.as_str().unwrap())).collect();
            expected.sort();
            if expected.is_empty() {
                continue;
            }
            let begun = Instant::now();
            // Those of the scenario before have not gone with their services.
            let v6 = expected[0].contains('[');
            let known = || known().into_iter().filter(|line| line.contains('[') == v6).collect::<Vec<_>>();
            while known() != expected {
                assert!(begun.elapsed() < PATIENCE, "{}: {:#?}\n{expected:#?}{}", step["what"], known(), link.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
            compared += 1;
        }
    }
    assert!(compared > 2, "{compared}");

    // (Those that are closing go by themselves.)
    let established = || known().into_iter().filter(|line| line.contains("ESTABLISHED")).collect::<Vec<_>>();
    let before = (established(), link.resident("a"));
    let right = bytes(&all[0]["steps"][0]["datagrams"][0]);
    let busy = link.busy("a");
    let mut bad = Vec::new();
    let mut wrong = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut datagram = right.clone();
        change(&mut datagram);
        bad.push(datagram);
    };
    wrong(&|d| d[1] = 8); // another id
    wrong(&|d| d[3] += 1); // another length
    wrong(&|d| d.truncate(30));
    wrong(&|d| d[8] = 0x40); // a record of no family
    wrong(&|d| d[11] = 0xff); // longer than the datagram
    wrong(&|d| d[0] = 1);
    bad.push(Vec::new());
    bad.push(vec![0xff; 1400]);
    let (from, to) = (IpAddr::from([10, 9, 0, 9]), IpAddr::from([10, 9, 0, 1]));
    let frame = |datagram: &Vec<u8>| {
        let udp = packet::udp(from, to, 8848, 8848, datagram);
        packet::eth(
            [2, 0, 0, 0, 9, 1],
            [2, 0, 0, 0, 9, 9],
            &packet::ip(from, to, packet::proto::UDP, &udp, &IpOptions::default()),
        )
    };
    let frames: Vec<Vec<u8>> = bad.iter().cycle().take(256).map(frame).collect();
    let rate = link.flood("c", &frames);
    assert!(rate > 10_000.0, "{rate}");
    link.until("the director answers", || link.dirigent("a", &["status"]).is_some());
    assert_eq!(established(), before.0);
    let grown = link.resident("a").saturating_sub(before.1);
    let busy = (link.busy("a") - busy) / FLOOD.as_secs_f64();
    eprintln!("{rate:.0} datagrams a second: {grown} KiB more memory, {busy:.2} of a CPU");
    assert!(grown < 32 << 10 && busy < 1.5, "{rate} datagrams a second cost {grown} KiB and {busy} of a CPU");
    let status = synchronisation(&link, "a");
    let dropped = &status["dropped"];
    assert!(["sync_id", "size", "limit"].iter().any(|reason| dropped[reason].as_u64() > Some(100)), "{dropped}");
    // To a server that nobody has here.
    let received = status["received"].as_u64().unwrap();
    ipvsadm("-C");
    let mut another = right.clone();
    another[18] ^= 0x10; // the client's port in the first record
    send("b", &another);
    link.until("it is heard", || {
        let sync = synchronisation(&link, "a");
        sync["received"].as_u64() > Some(received) && sync["dropped"]["no_server"].as_u64() > Some(0)
    });
}
