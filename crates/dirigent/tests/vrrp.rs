//! Virtual routers: directors and keepalived on one link, who share addresses. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod link;

use dirigent_net::netns::Namespace;
use link::{BIN, Events, Link, PATIENCE, VIP, VIP6};
use serde_json::Value;
use std::process::Command;
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
    link.sh(
        "d",
        &format!(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
             ip address add {VIP}/32 dev lo; ip address add {VIP6}/128 dev lo"
        ),
    );
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
