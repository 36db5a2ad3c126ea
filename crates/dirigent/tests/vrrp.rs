//! Virtual routers: directors and keepalived on one link, who share addresses. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod link;

use dirigent_failover::{Addresses, Advert, Auth, Centis, Format, packet};
use dirigent_net::netns::Namespace;
use dirigent_testkit::failover::answerers::{Own, Prober};
use dirigent_testkit::failover::traffic::{Load, Outcome, Plan, Servers, Target};
use link::{BIN, Events, FLOOD, Link, PATIENCE, VIP, VIP6};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const VIP_AH: &str = "10.9.0.101";

fn routers(priority: u8, more: &str) -> String {
    let router = |name: &str, vrid: u8, address: &str| {
        format!(
            "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\npriority = {priority}\n\
             interval = \"200ms\"\naddresses = [\"{address}\"]\n{more}\n"
        )
    };
    router("web", 51, &format!("{VIP}/24")) + &router("web6", 52, &format!("{VIP6}/64"))
}

/// Exactly one of the two is master of both, and holds the addresses.
fn settled(link: &Link, master: &str, backup: &str) -> bool {
    ["web", "web6"].iter().all(|r| link.state(master, r) == "master" && link.state(backup, r) == "backup")
        && [VIP, VIP6].iter().all(|vip| link.holds(master, vip) && !link.holds(backup, vip))
}

#[test]
fn the_higher_priority_is_master_and_hands_over_when_asked() {
    let link = Link::up();
    link.director("b", &routers(100, ""));
    link.until("b is master alone", || link.state("b", "web") == "master" && link.holds("b", VIP));
    assert!(link.ping(VIP));
    link.director("a", &routers(150, ""));
    link.until("a takes over", || settled(&link, "a", "b"));
    assert!(link.ping(VIP) && link.ping(VIP6), "{}", link.logs());
    let heard = link.router("b", "web");
    assert_eq!((&heard["master"]["address"], &heard["master"]["priority"]), (&"10.9.0.1".into(), &150.into()));
    let status = link.dirigent("a", &["status"]).unwrap();
    assert!(status.contains("virtual router web: master") && status.contains(VIP), "{status}");

    let said = link.dirigent("a", &["failover", "rehearse", "web", "--json"]).unwrap();
    let said: Vec<Value> = serde_json::from_str(&said).unwrap();
    // It took over from b, which it heard.
    assert_eq!((&said[0]["outcome"], &said[0]["by"]), (&"taken over".into(), &"10.9.0.2".into()), "{said:?}");
    assert!(link.dirigent("b", &["failover", "now", "web"]).is_none(), "a backup cannot give way");
    let events = Events::of(&link, "a");
    link.dirigent("a", &["failover", "now"]).unwrap();
    link.until("b takes over", || settled(&link, "b", "a"));
    assert!(link.ping(VIP) && link.ping(VIP6));
    assert_eq!(link.router("a", "web")["gave_way"], true);
    link.until("the events", || events.has("\"backup web\"") && events.has("\"backup web6\""));
    link.dirigent("a", &["failover", "back"]).unwrap();
    link.until("a takes it back", || settled(&link, "a", "b"));

    // What is removed is given up at once, and a reload keeps what is master.
    link.config("a", &routers(150, "[router.announce]\nrepeat = 2\n"));
    link.dirigent("a", &["reload"]).unwrap();
    assert!(settled(&link, "a", "b"), "{}", link.logs());
    let only = routers(150, "[router.announce]\nrepeat = 2\n");
    link.config("a", only.split("[[router]]\nname = \"web6\"").next().unwrap());
    link.dirigent("a", &["reload"]).unwrap();
    link.until("b has the other", || link.holds("b", VIP6) && !link.holds("a", VIP6));
    assert!(link.holds("a", VIP) && !link.holds("b", VIP), "{}", link.logs());
    // The end of the director gives way, too.
    link.dirigent("a", &["stop", "--detach"]).unwrap();
    assert!(!link.holds("a", VIP));
    link.until("b has all", || link.holds("b", VIP));
}

/// The one who is killed takes nobody along: the other takes over, and the guard takes the dead one's addresses away.
#[test]
fn a_killed_master_is_followed_and_its_addresses_are_taken_away() {
    let link = Link::up();
    link.director("a", &routers(150, ""));
    link.director("b", &routers(100, ""));
    link.until("a is master", || settled(&link, "a", "b"));
    link.signal("a", "-9");
    let killed = Instant::now();
    // Without forks, which are slow on a busy machine.
    let holds = |host: &str| {
        let look = || dirigent_net::Snapshot::take().unwrap().addresses.iter().any(|a| a.ip.to_string() == VIP);
        Namespace::open(&link.namespace(host)).unwrap().run(look).unwrap()
    };
    let (mut taken, mut gone) = (None, None);
    while taken.is_none() || gone.is_none() {
        assert!(killed.elapsed() < PATIENCE, "{}", link.logs());
        if gone.is_none() && !holds("a") {
            gone = Some(killed.elapsed());
        }
        if taken.is_none() && holds("b") {
            taken = Some(killed.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let (taken, gone) = (taken.unwrap(), gone.unwrap());
    eprintln!("killed: the addresses were gone after {gone:?}, the backup had them after {taken:?}");
    // 3 intervals and a skew time are 722 ms; the guard's bound is 550 ms after the last advert.
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    assert!(gone < taken + Duration::from_millis(100), "both had them: {gone:?} {taken:?}{}", link.logs());
    link.until("all of them", || !link.holds("a", VIP6) && link.holds("b", VIP6));
    assert!(link.ping(VIP));
    let log = std::fs::read_to_string(link.log("a")).unwrap();
    assert!(log.contains("guard: took 10.9.0.100 off eth0"), "{log}");
    // It comes back as any other.
    link.director("a", &routers(150, ""));
    link.until("a is master again", || settled(&link, "a", "b"));
    // One that hangs is as dead; when it runs again it knows that it is no master.
    link.signal("a", "-STOP");
    link.until("b takes over from who hangs", || holds("b") && !holds("a"));
    link.signal("a", "-CONT");
    link.until("a is master again", || settled(&link, "a", "b"));
    let log = std::fs::read_to_string(link.log("a")).unwrap();
    assert!(log.contains("this daemon did not run, and could not be sure for"), "{log}");
}

/// Who is back before anyone can have taken over goes on.
#[test]
fn a_daemon_that_comes_back_in_time_goes_on_as_master() {
    let link = Link::up();
    // 28 s until a backup takes over.
    let slow = |priority| routers(priority, "").replace("200ms", "10s");
    link.director("a", &slow(150).replace("vrid", "state = \"master\"\nvrid"));
    link.director("b", &slow(100));
    link.until("a is master", || settled(&link, "a", "b"));
    for signal in ["-9", "-TERM"] {
        link.signal("a", signal);
        assert!(link.holds("a", VIP) && link.holds("a", VIP6), "the addresses stay");
        assert!(link.ping(VIP));
        link.director("a", &slow(150));
        link.until("a goes on", || link.state("a", "web") == "master");
        assert!(settled(&link, "a", "b"), "{}", link.logs());
        assert_eq!(link.router("a", "web")["why"], "it goes on as the daemon before it");
    }
    let log = std::fs::read_to_string(link.log("b")).unwrap();
    assert!(!log.contains("is master"), "{log}");
    let guards = link.sh("a", "pgrep -fc '[d]irigent.* guard$' || true");
    assert!(guards.trim().parse::<u32>().unwrap() >= 1, "{guards}");
    // Without the section nobody holds them.
    link.config("a", "");
    link.dirigent("a", &["reload"]).unwrap();
    link.until("b takes over", || link.holds("b", VIP));
    assert!(!link.holds("a", VIP));
}

#[test]
fn a_split_heals_and_a_dead_link_is_a_fault() {
    let link = Link::up();
    link.director("a", &routers(150, ""));
    link.director("b", &routers(100, ""));
    link.until("a is master", || settled(&link, "a", "b"));
    let events = Events::of(&link, "a");
    link.split("a", true);
    link.until("both are master", || link.state("b", "web") == "master" && link.state("a", "web") == "master");
    assert!(link.ping(VIP), "the client's side goes on");
    link.split("a", false);
    link.until("one is master", || settled(&link, "a", "b"));
    link.until("an alarm", || events.has("\"alarm\"") && events.has("is master, too"));
    link.until("the client knows who", || {
        link.ping(VIP) && link.sh("c", &format!("ip neigh show {VIP}")).contains("02:00:00:00:09:01")
    });
    link.until("it is over", || events.has("it is the only master again"));

    link.cut("a", true);
    link.until("b takes over", || {
        link.state("a", "web") == "fault" && link.holds("b", VIP) && !link.holds("a", VIP) && link.holds("b", VIP6)
    });
    assert_eq!(link.router("a", "web")["why"], "interface eth0 is down");
    assert!(link.ping(VIP));
    link.cut("a", false);
    link.until("a is back", || settled(&link, "a", "b"));
}

/// Services behind the addresses go on with whoever is master.
#[test]
fn clients_are_served_through_whoever_is_master() {
    let link = Link::up();
    link.serve_directly();
    let mut server = Command::new("socat");
    link.start("d", server.args(["TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0", "SYSTEM:echo served"]));
    let service = |vip: &str, server: &str| {
        format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n\
             [[service.server]]\naddress = \"{server}:80\"\nmethod = \"dr\"\n"
        )
    };
    let services = service(VIP, "10.9.0.3") + &service(&format!("[{VIP6}]"), "[fd09::3]");
    link.director("a", &(routers(150, "") + &services));
    link.director("b", &(routers(100, "") + &services));
    link.until("a is master", || settled(&link, "a", "b"));
    let served = || {
        let one = |vip: &str| {
            let script = format!("timeout 3 socat -u TCP:{vip}:80,connect-timeout=2 - || true");
            link.sh("c", &script).contains("served")
        };
        one(VIP) && one(&format!("[{VIP6}]"))
    };
    let taken = |host: &str| -> u64 {
        let stats: Value = serde_json::from_str(&link.dirigent(host, &["stats", "--json"]).unwrap()).unwrap();
        stats["total"]["connections"].as_u64().unwrap()
    };
    link.until("a serves", served);
    assert!(taken("a") >= 2 && taken("b") == 0, "{} {}", taken("a"), taken("b"));
    link.signal("a", "-9");
    link.until("b is master", || link.holds("b", VIP) && link.holds("b", VIP6));
    link.until("b serves", served);
    assert!(taken("b") >= 2, "{}", taken("b"));
    link.director("a", &(routers(150, "") + &services));
    link.until("a is master again", || settled(&link, "a", "b"));
    let before = taken("a");
    link.until("a serves again", served);
    assert!(taken("a") >= before + 2);
}

/// What is configured and not done is named, before and while it runs; and what a virtual router lacks.
#[test]
fn what_is_not_done_is_named() {
    let link = Link::up();
    let text = "[[router]]\nname = \"way\"\nvrid = 7\nstate = \"master\"\naddresses = [\"10.9.0.7\"]\n\
                peers = [\"10.9.0.2\"]\nsource = \"10.9.0.1\"\n\
                [[router]]\nname = \"odd\"\ninterface = \"eth0\"\nvrid = 8\nstate = \"master\"\naddresses = [\"10.9.0.8\"]\n\
                [router.announce]\nextra_interval = \"10s\"\n[router.virtual_mac]\nmac = \"02:00:00:00:00:08\"\n\
                [[router]]\nname = \"needs\"\ninterface = \"eth0\"\nvrid = 9\naddresses = [\"10.9.0.9\"]\n\
                [router.track]\nprocesses = [\"q\"]\n\
                [[router]]\nname = \"alone\"\ninterface = \"eth0\"\nvrid = 10\naddresses = [\"10.9.0.10\"]\n\
                fault_without_peer = true\n\
                [[track_process]]\nname = \"q\"\ncommand = [\"nosuchprogram\"]\n";
    let config = link.config("a", text);
    let checked = link.sh("a", &format!("{BIN} check --config {} 2>&1", config.display()));
    for word in ["router odd: not done yet: announce.extra_interval", "router odd: not done yet: virtual_mac.mac"] {
        assert!(checked.contains(word), "{word}: {checked}");
    }
    link.director("a", text);
    link.until("two are masters, one by the route to its peer", || {
        link.holds("a", "10.9.0.8") && link.holds("a", "10.9.0.7")
    });
    assert!(link.sh("a", "ip link show vrrp.8").contains("02:00:00:00:00:08"));
    assert_eq!(link.router("a", "way")["interface"], "eth0");
    let status = link.dirigent("a", &["status"]).unwrap();
    assert!(
        status.contains("not done yet: announce.extra_interval") && status.contains("virtual router odd: master"),
        "{status}"
    );
    for (name, why) in [("needs", "track_process q is down"), ("alone", "it has no peer")] {
        link.until("what it lacks is a fault", || {
            let one = link.router("a", name);
            (&one["state"], &one["why"]) == (&"fault".into(), &why.into())
        });
    }
}

/// Unicast, a sync group, and all that moves priorities; who is told of it.
#[test]
fn what_is_tracked_moves_priorities_and_scripts_are_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let link = Link::up();
    let file = |name: &str| link.directory.join(name);
    for name in ["told", "broken"] {
        std::fs::write(file(name), "").unwrap();
        std::fs::set_permissions(file(name), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    std::fs::set_permissions(&link.directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = |peer: &str, priority: u8| {
        let more = "[router.track]\nscripts = [\"well\"]\nfiles = [\"number\"]\nservices = [\"tcp:192.0.2.1:80\"]\n";
        let all = routers(priority, more);
        let (four, six) = all.split_once("[[router]]\nname = \"web6\"").unwrap();
        let four = four.replacen("vrid", &format!("peers = [\"{peer}\"]\nvrid"), 1);
        format!(
            "{four}[[router]]\nname = \"web6\"{six}\
             [[router_group]]\nname = \"G\"\nmembers = [\"web\", \"web6\"]\ntrack_weights = true\n\
             [router_group.notify]\nall = [\"/bin/sh\", \"-c\", \"echo $0 $1 $2 $3 >> {}\"]\n\
             [[track_script]]\nname = \"well\"\ncommand = [\"/bin/sh\", \"-c\", \"test ! -s {}\"]\ninterval = \"100ms\"\n\
             timeout = \"2s\"\nrise = 2\nfall = 2\nweight = -100\n\
             [[track_file]]\nname = \"number\"\npath = \"{}\"\nweight = 1\ninitial = 0\n\
             [[service]]\naddress = \"192.0.2.1:80\"\nprotocol = \"tcp\"\n[[service.server]]\naddress = \"10.9.0.9:80\"\n",
            file("told").display(),
            file("broken").display(),
            file("number").display()
        )
    };
    let fifo = file("fifo");
    let with_fifo = format!("{}[[fifo]]\npath = \"{}\"\nevents = \"routers\"\n", text("10.9.0.2", 150), fifo.display());
    // Opened for reading and writing, it is read until it is killed.
    link.sh("a", &format!("mkfifo {}", fifo.display()));
    let mut reader = Command::new("sh");
    reader.args(["-c", &format!("exec cat <> {} > {}", fifo.display(), file("read").display())]);
    link.start("c", &mut reader);
    link.director("a", &with_fifo);
    link.director(
        "b",
        &routers(100, "").replacen("vrid", "peers = [\"10.9.0.1\"]\nvrid", 1).replace(
            "[[router]]\nname = \"web6\"",
            "[[router_group]]\nname = \"G\"\nmembers = [\"web\", \"web6\"]\n[[router]]\nname = \"web6\"",
        ),
    );
    link.until("a is master", || settled(&link, "a", "b"));
    assert_eq!(link.router("a", "web")["group"], "G");
    std::fs::write(file("broken"), "x").unwrap();
    link.until("b takes over", || settled(&link, "b", "a"));
    assert_eq!(link.router("a", "web6")["priority"], 50);
    std::fs::write(file("broken"), "").unwrap();
    link.until("a is back", || settled(&link, "a", "b"));
    std::fs::write(file("number"), "-60\n").unwrap();
    link.until("b takes over again", || settled(&link, "b", "a"));
    std::fs::write(file("number"), "0\n").unwrap();
    link.until("a is back again", || settled(&link, "a", "b"));
    // The service that it tracks goes: of weight 0, that is a fault.
    link.dirigent("a", &["service", "remove", "tcp:192.0.2.1:80"]).unwrap();
    link.until("a fails", || link.state("a", "web") == "fault" && link.state("a", "web6") == "fault");
    assert_eq!(link.router("a", "web")["why"], "service tcp:192.0.2.1:80 is down");
    link.until("b has all", || link.holds("b", VIP) && link.holds("b", VIP6) && !link.holds("a", VIP));
    // In whatever order: each is a process of its own.
    let told = || std::fs::read_to_string(file("told")).unwrap();
    link.until("the script is told", || {
        ["BACKUP", "MASTER", "FAULT"]
            .iter()
            .all(|state| told().lines().any(|line| line == format!("GROUP G {state} 0")))
    });
    assert_eq!(told().lines().filter(|line| line.contains("FAULT")).count(), 1, "once for the group: {}", told());
    // What a reload removes is told as that.
    link.config("a", "");
    link.dirigent("a", &["reload"]).unwrap();
    link.until("the end is told", || told().contains("GROUP G DELETED 0"));
    let read = std::fs::read_to_string(file("read")).unwrap();
    for line in [
        "INSTANCE \"web\" MASTER 150",
        "INSTANCE \"web6\" BACKUP 50",
        "GROUP \"G\" MASTER 0",
        "INSTANCE \"web\" FAULT 150",
    ] {
        assert!(read.lines().any(|one| one == line), "{line}: {read}");
    }
}

fn keepalived_config(instances: &str) -> String {
    format!("global_defs {{\n router_id test\n vrrp_garp_master_delay 1\n}}\n{instances}")
}

/// Mastership goes both ways between the director `a` and keepalived on `b`.
fn both_ways(link: &Link, with: &dyn Fn(u8) -> String, keepalived: &str, names: &[&str], vips: &[&str]) {
    let master = |host: &str, other: &str| vips.iter().all(|vip| link.holds(host, vip) && !link.holds(other, vip));
    let are = |state: &str| names.iter().all(|name| link.state("a", name) == state);
    link.director("a", &with(150));
    link.until("the director is master alone", || are("master") && master("a", "b"));
    link.keepalived("b", keepalived);
    std::thread::sleep(Duration::from_secs(2));
    assert!(are("master") && master("a", "b"), "keepalived of priority 120 takes nothing{}", link.logs());
    link.config("a", &with(100));
    link.dirigent("a", &["reload"]).unwrap();
    link.until("keepalived takes over", || are("backup") && master("b", "a"));
    assert!(link.router("a", names[0])["master"]["priority"] == 120);
    assert!(vips.iter().all(|vip| link.ping(vip)), "{}", link.logs());
    link.config("a", &with(150));
    link.dirigent("a", &["reload"]).unwrap();
    link.until("the director takes over", || are("master") && master("a", "b"));
    assert!(vips.iter().all(|vip| link.ping(vip)), "{}", link.logs());
    link.dirigent("a", &["failover", "now"]).unwrap();
    link.until("keepalived takes over what is given", || are("backup") && master("b", "a"));
    // Its end says priority 0.
    link.signal("b", "-TERM");
    link.until("the director has it again", || are("master") && master("a", "b"));
}

/// With a password in the clear; and with AH, from a virtual MAC.
#[test]
fn keepalived_of_version_2_with_a_password_and_with_ah() {
    let link = Link::up();
    let router = |name: &str, vrid: u8, priority: u8, vip: &str, more: &str| {
        format!(
            "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nversion = 2\nvrid = {vrid}\npriority = {priority}\n\
             interval = \"1s\"\naddresses = [\"{vip}/24\"]\n[router.authentication]\npassword = \"secret\"\n{more}"
        )
    };
    let with = |priority: u8| {
        router("web", 51, priority, VIP, "") + &router("ah", 53, priority, VIP_AH, "ah = true\n[router.virtual_mac]\n")
    };
    let instance = |name: &str, vrid: u8, kind: &str, vip: &str| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 2\n virtual_router_id {vrid}\n priority 120\n \
             advert_int 1\n authentication {{\n auth_type {kind}\n auth_pass secret\n }}\n \
             virtual_ipaddress {{\n {vip}/24\n }}\n}}\n"
        )
    };
    let keepalived = keepalived_config(&(instance("VI_1", 51, "PASS", VIP) + &instance("VI_2", 53, "AH", VIP_AH)));
    both_ways(&link, &with, &keepalived, &["web", "ah"], &[VIP, VIP_AH]);
}

#[test]
fn keepalived_of_version_3_with_both_families() {
    let link = Link::up();
    let instance = |name: &str, vrid: u8, address: &str| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 3\n virtual_router_id {vrid}\n priority 120\n \
             advert_int 0.2\n virtual_ipaddress {{\n {address}\n }}\n}}\n"
        )
    };
    let instances = instance("VI_4", 51, &format!("{VIP}/24")) + &instance("VI_6", 52, &format!("{VIP6}/64"));
    both_ways(&link, &|priority| routers(priority, ""), &keepalived_config(&instances), &["web", "web6"], &[VIP, VIP6]);
}

/// Little memory, and a quick start.
const SMALL: &str = "[director]\nconnections = 65536\n";

/// Numbers that a client sends a service by UDP, one each millisecond, and those that came to a server.
struct Numbers {
    ended: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<u64>,
    receiver: std::thread::JoinHandle<std::collections::BTreeSet<u64>>,
}

impl Numbers {
    fn start(link: &Link, to: SocketAddr) -> Self {
        let bound = |host: &str, at: &str| {
            Namespace::open(&link.namespace(host)).unwrap().run(|| UdpSocket::bind(at).unwrap()).unwrap()
        };
        let (from, at) = (bound("c", "0.0.0.0:0"), bound("d", &to.to_string()));
        from.connect(to).unwrap();
        at.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let sender = std::thread::spawn(move || {
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                from.send(&sent.to_be_bytes()).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let receiver = std::thread::spawn(move || {
            let (mut got, mut number) = (std::collections::BTreeSet::new(), [0; 8]);
            // Until nothing comes any more.
            while at.recv(&mut number).is_ok() {
                got.insert(u64::from_be_bytes(number));
            }
            got
        });
        Self { ended, sender, receiver }
    }

    /// How many were sent, and which were lost.
    fn stop(self) -> (u64, Vec<u64>) {
        self.ended.store(true, Ordering::Relaxed);
        let (sent, got) = (self.sender.join().unwrap(), self.receiver.join().unwrap());
        (sent, (0..sent).filter(|number| !got.contains(number)).collect())
    }
}

/// A hand-over loses no packet; and whatever happens to a master's daemon, its clients' transfers go on, and two hosts answer
/// for an address for no longer than the protocol allows.
#[test]
fn transfers_survive_hand_overs_deaths_and_lost_adverts() {
    let link = Link::up();
    link.serve_directly();
    let _servers = Servers::start(&link.namespace("d"), &[80]);
    let service = |protocol: &str, vip: &str, port: u16, server: &str, more: &str| {
        format!(
            "[[service]]\nprotocol = \"{protocol}\"\naddress = \"{vip}:{port}\"\n{more}\
             [[service.server]]\naddress = \"{server}:{port}\"\nmethod = \"dr\"\n"
        )
    };
    // Directors that do not tell each other of connections send them where their hash leads to.
    let stateless = "scheduler = \"mh\"\nstateless = true\n";
    let services = service("tcp", VIP, 80, "10.9.0.3", stateless)
        + &service("tcp", &format!("[{VIP6}]"), 80, "[fd09::3]", stateless)
        + &service("udp", VIP, 81, "10.9.0.3", "")
        + SMALL;
    link.director("a", &(routers(150, "") + &services));
    link.director("b", &(routers(100, "") + &services));
    link.until("a is master", || settled(&link, "a", "b"));
    let vips: Vec<IpAddr> = [VIP, VIP6].iter().map(|vip| vip.parse().unwrap()).collect();
    let targets = || vips.iter().map(|vip| Target { name: vip.to_string(), address: SocketAddr::new(*vip, 80) });
    let plan = Plan { transfers: 4, every: Duration::from_millis(20), patience: Duration::from_millis(900) };
    let own = Own { mac: [2, 0, 0, 0, 9, 8], v4: Ipv4Addr::new(10, 9, 0, 8), v6: "fd09::8".parse().unwrap() };
    let during = |what: &str, happens: &dyn Fn()| {
        let prober = Prober::start(&link.namespace("e"), own, vips.clone());
        let load = Load::start(&link.namespace("c"), targets().collect(), plan);
        std::thread::sleep(Duration::from_millis(300));
        happens();
        // Time for retransmissions, and for announcements that are late.
        std::thread::sleep(Duration::from_millis(500));
        let (outcomes, seen) = (load.stop(), prober.stop());
        let double = vips.iter().map(|vip| seen.longest_double(*vip)).max().unwrap();
        for Outcome { name, survived, broken, .. } in &outcomes {
            assert!(*survived == 4, "{what}, {name}: {broken:?}{}", link.logs());
        }
        let lost: usize = outcomes.iter().map(Outcome::lost).sum();
        eprintln!("{what}: {lost} requests lost, two answered for {double:?}");
        (lost, double)
    };
    // Counted from the last advert: a master is sure for 550 ms, and nobody takes over before 600 ms are over. What is left is
    // for a machine that has other things to do.
    let bound = Duration::from_millis(200);

    let handed_over = |what: &str, word: &str, master: &str, other: &str| {
        let numbers = Numbers::start(&link, SocketAddr::new(vips[0], 81));
        let (lost, double) = during(what, &|| {
            link.dirigent("a", &["failover", word]).unwrap();
            link.until(what, || settled(&link, master, other));
        });
        let (sent, missing) = numbers.stop();
        assert!(sent > 500 && missing.is_empty(), "{what}: of {sent} packets {missing:?} were lost{}", link.logs());
        assert!(lost == 0 && double < bound, "{what}: {lost} requests were lost, two for {double:?}{}", link.logs());
    };
    handed_over("a hand-over", "now", "b", "a");
    handed_over("taking it back", "back", "a", "b");

    let (lost, double) = during("a death", &|| {
        link.signal("a", "-9");
        link.until("b takes over", || settled_alone(&link, "b", "a"));
    });
    assert!(lost == 0 && double < bound, "a death: {lost} requests were lost, two for {double:?}{}", link.logs());
    let (_, double) = during("a return", &|| {
        link.director("a", &(routers(150, "") + &services));
        link.until("a is master again", || settled(&link, "a", "b"));
    });
    assert!(double < bound, "a return: two for {double:?}{}", link.logs());
    let (lost, double) = during("a hang", &|| {
        link.signal("a", "-STOP");
        link.until("b takes over from who hangs", || settled_alone(&link, "b", "a"));
        link.signal("a", "-CONT");
        link.until("a is master again", || settled(&link, "a", "b"));
    });
    assert!(lost == 0 && double < bound, "a hang: {lost} requests were lost, two for {double:?}{}", link.logs());

    // Of ten adverts three are lost: now and then the backup takes over, until it hears one.
    let lossy = "flush ruleset; table netdev lossy { chain in { type filter hook ingress device eth0 priority 0; \
                 ip protocol 112 numgen random mod 10 < 3 drop; ip6 nexthdr 112 numgen random mod 10 < 3 drop; }; }";
    let (_, double) = during("lost adverts", &|| {
        ["a", "b"].iter().for_each(|host| drop(link.sh(host, &format!("nft '{lossy}'"))));
        std::thread::sleep(Duration::from_secs(4));
        ["a", "b"].iter().for_each(|host| drop(link.sh(host, "nft flush ruleset")));
        link.until("a is master", || settled(&link, "a", "b"));
    });
    // Until one of its adverts gets through, or an answer to one of the backup's: eight intervals are one in thousands.
    assert!(double < Duration::from_millis(8 * 200), "lost adverts: two for {double:?}{}", link.logs());
}

/// As [`settled`], of which only one is asked: the other's daemon is dead, or hangs.
fn settled_alone(link: &Link, master: &str, dead: &str) -> bool {
    ["web", "web6"].iter().all(|r| link.state(master, r) == "master")
        && [VIP, VIP6].iter().all(|vip| link.holds(master, vip) && !link.holds(dead, vip))
}

/// Adverts of every version and family, with and without a password, are as tshark knows them.
#[test]
fn tshark_finds_nothing_wrong_with_adverts() {
    let link = Link::up();
    let router = |name: &str, vrid: u8, more: &str| {
        format!(
            "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\nstate = \"master\"\npriority = 200\n{more}\n"
        )
    };
    let text = router("two", 1, "version = 2\naddresses = [\"10.9.0.101\"]")
        + &router(
            "password",
            2,
            "version = 2\naddresses = [\"10.9.0.102\", \"10.9.0.103\"]\n[router.authentication]\npassword = \"secret\"",
        )
        + &router("three", 3, "interval = \"200ms\"\naddresses = [\"10.9.0.104/24\", \"10.9.0.105/24\"]")
        + &router("six", 4, "interval = \"200ms\"\naddresses = [\"fe80::9:100/64\", \"fd09::104/64\"]")
        + &router("unicast", 5, "interval = \"200ms\"\npeers = [\"10.9.0.9\"]\naddresses = [\"10.9.0.106\"]");
    let file = link.directory.join("adverts.pcap");
    let mut capture = Command::new("tcpdump");
    capture.args(["-i", "eth0", "-U", "-w"]).arg(&file).args(["ip proto 112 or ip6 proto 112"]);
    link.start("c", &mut capture);
    link.until("tcpdump listens", || file.exists());
    link.director("a", &text);
    // Two of each second's, and the last ones: they say priority 0.
    std::thread::sleep(Duration::from_millis(1500));
    link.dirigent("a", &["stop", "--detach"]).unwrap();
    let fields = ["vrrp.virt_rtr_id", "vrrp.version", "vrrp.prio", "vrrp.checksum.status", "_ws.expert.message"];
    let read = || {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r"]).arg(&file).args("-o ip.check_checksum:TRUE -T fields -E separator=;".split(' '));
        let output = tshark.args(fields.iter().flat_map(|field| ["-e", field])).output().expect("tshark");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let missing = |said: &str| {
        let all = [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)].into_iter().flat_map(|which| [(which, 200), (which, 0)]);
        let lines = all.map(|((vrid, version), priority)| format!("{vrid};{version};{priority};"));
        lines.filter(|wanted| !said.lines().any(|line| line.starts_with(wanted))).collect::<Vec<_>>()
    };
    // tcpdump is told of packets a moment after they went by.
    let begun = Instant::now();
    while !missing(&read()).is_empty() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    link.signal("c", "-TERM");
    let said = read();
    assert!(missing(&said).is_empty(), "{:?}\n{said}{}", missing(&said), link.logs());
    for line in said.lines() {
        let words: Vec<_> = line.split(';').collect();
        // Status 1: it is right.
        assert!(words[3] == "1" && words[4].is_empty(), "{line}\n{said}");
    }
}

/// A frame with an advert that somebody made, sent to the group by 10.9.0.`last`.
fn forged(last: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0x5e, 0, 0, 18, 2, 0, 0, 0, 9, 9, 8, 0];
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, ttl, 112, 0, 0, 10, 9, 0, last, 224, 0, 0, 18];
    header[2..4].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    let mut sum: u32 = header.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// What somebody on the link can say who does not know the password, and what may not be heeded whoever says it.
fn forgeries() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    // Many senders, of which each complaint would be another one.
    for last in 100..200 {
        let say = |vrid: u8, priority: u8, format: Format| {
            let (vip, second) =
                (if vrid == 60 { "10.9.0.60" } else { VIP }, Centis::new(if vrid == 60 { 100 } else { 20 }));
            let addresses = Addresses::V4(vec![vip.parse().unwrap()]);
            let advert = Advert { version: format.version(), vrid, priority, interval: second.unwrap(), addresses };
            packet::emit(&advert, Ipv4Addr::new(10, 9, 0, last).into(), Ipv4Addr::new(224, 0, 0, 18).into(), format)
        };
        let three = Format::V3Ipv4 { checksum_as_v2: false };
        let wrong_password = Format::V2 { auth: Auth::password(b"guessed").unwrap() };
        let master = say(51, 254, three).unwrap();
        let mut wrong_sum = master.clone();
        wrong_sum[6] ^= 1;
        let mut odd = master.clone();
        odd[3] = 200;
        frames.extend([
            forged(last, 254, &master),
            forged(last, 1, &say(51, 0, three).unwrap()),
            forged(last, 255, &wrong_sum),
            forged(last, 255, &odd),
            forged(last, 255, &master[..usize::from(last) % 8]),
            forged(last, 255, &say(77, 254, three).unwrap()),
            forged(last, 255, &say(60, 254, Format::V2 { auth: Auth::None }).unwrap()),
            forged(last, 255, &say(60, 254, wrong_password).unwrap()),
            forged(last, 255, &say(60, 0, wrong_password).unwrap()),
            forged(last, 255, &say(60, 254, three).unwrap()),
        ]);
    }
    frames
}

/// Whoever is on the link and sends forged adverts as fast as he can, and servers that never end their answers, change
/// nothing, and cost no memory to speak of.
#[test]
fn an_attacker_on_the_link_changes_nothing() {
    let link = Link::up();
    let endless = |port: u16, head: &str, rest: &str| {
        let mut server = Command::new("socat");
        server.arg(format!("TCP-LISTEN:{port},fork,reuseaddr")).arg(format!("SYSTEM:printf '{head}'; {rest}"));
        link.start("d", server.stderr(Stdio::null()));
    };
    endless(9001, r"HTTP/1.1 200 OK\r\n\r\n", "cat /dev/zero");
    endless(9002, r"HTTP/1.1 200 OK\r\n", "yes 'X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'");
    let checked = |port: u16| {
        format!(
            "[[service.server]]\naddress = \"10.9.0.3:{port}\"\n\
             check = [{{ type = \"http\", interval = \"200ms\", timeout = \"1s\", \
             request = [{{ path = \"/\", regex = \"never\" }}] }}]\n"
        )
    };
    let text = |priority: u8| {
        let secret = format!(
            "[[router]]\nname = \"secret\"\ninterface = \"eth0\"\nversion = 2\nvrid = 60\npriority = {priority}\n\
             interval = \"1s\"\naddresses = [\"10.9.0.60\"]\n[router.authentication]\npassword = \"unknown\"\n"
        );
        let service = "[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.1:80\"\n";
        routers(priority, "") + &secret + service + &checked(9001) + &checked(9002) + SMALL
    };
    link.director("a", &text(150));
    link.director("b", &text(100));
    let as_it_should_be =
        || settled(&link, "a", "b") && link.state("a", "secret") == "master" && link.state("b", "secret") == "backup";
    link.until("a is master of all", as_it_should_be);
    let resident = |host| link.resident(host);
    let before = ["a", "b"].map(resident);
    let events = [Events::of(&link, "a"), Events::of(&link, "b")];
    let logged = ["a", "b"].map(|host| std::fs::metadata(link.log(host)).unwrap().len());
    let busy = ["a", "b"].map(|host| link.busy(host));
    let rate = link.flood("c", &forgeries());
    assert!(as_it_should_be(), "after {rate} forged adverts a second{}", link.logs());
    for (host, events) in ["a", "b"].iter().zip(&events) {
        assert!(!events.has("\"role\""), "{host}: {:?}{}", events.lines.lock().unwrap(), link.logs());
    }
    for (n, host) in ["a", "b"].into_iter().enumerate() {
        let grown = resident(host).saturating_sub(before[n]);
        let told = std::fs::metadata(link.log(host)).unwrap().len() - logged[n];
        // One thread hears adverts; the checks of endless answers go on beside it.
        let busy = (link.busy(host) - busy[n]) / FLOOD.as_secs_f64();
        let cost = format!("{host}: {grown} KiB more memory, {told} bytes of log, {busy:.2} of a CPU");
        eprintln!("{rate:.0} forged adverts a second: {cost}");
        assert!(grown < 16 << 10 && told < 16 << 10 && busy < 1.5, "{cost}");
    }
}
