//! What virtual routers may have beside addresses: MACs of their own, authentication, routes; and what they do about others
//! on the link who claim their addresses. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod link;

use dirigent_net::netns::Namespace;
use dirigent_net::vip;
use link::{Events, Link, VIP, VIP6};
use serde_json::Value;
use std::process::Command;

const VIRTUAL_MAC: &str = "00:00:5e:00:01:33";
const VIRTUAL_MAC6: &str = "00:00:5e:00:02:34";

/// Two virtual routers, of each family one, with these keys and tables.
fn routers(priority: u8, keys: &str, tables: &str) -> String {
    let router = |name: &str, vrid: u8, address: &str| {
        format!(
            "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\npriority = {priority}\n\
             interval = \"200ms\"\naddresses = [\"{address}\"]\n{keys}{tables}\n"
        )
    };
    router("web", 51, &format!("{VIP}/24")) + &router("web6", 52, &format!("{VIP6}/64"))
}

fn has(link: &Link, host: &str, command: &str, word: &str) -> bool {
    link.sh(host, command).contains(word)
}

fn neighbour(link: &Link, address: &str) -> String {
    link.sh("c", &format!("ip neigh show {address}"))
}

/// A program that serves `served` at port 80 of a host.
fn serve(link: &Link, host: &str) {
    let mut server = Command::new("socat");
    link.start_as("server", host, server.args(["TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0", "SYSTEM:echo served"]));
}

fn served(link: &Link, vip: &str) -> bool {
    let script = format!("timeout 3 socat -u TCP:{vip}:80,connect-timeout=2 - || true");
    link.sh("c", &script).contains("served")
}

/// Packets to the virtual MAC are taken by XDP and by tc, the neighbours have nobody else's, and another host's mastership
/// changes nothing of it. keepalived on the other host does the same.
#[test]
fn a_virtual_mac_moves_with_its_master() {
    let link = Link::up();
    link.serve_directly();
    serve(&link, "d");
    let service = |vip: &str, server: &str| {
        format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n\
             [[service.server]]\naddress = \"{server}:80\"\nmethod = \"dr\"\n"
        )
    };
    let services = service(VIP, "10.9.0.3") + &service(&format!("[{VIP6}]"), "[fd09::3]");
    // Each has a session of BFD with the other, which is worth a little.
    let config = |priority: u8, mode: &str, peer: &str| {
        format!(
            "[director]\nmode = \"{mode}\"\n{}{services}[[bfd]]\nname = \"p\"\naddress = \"{peer}\"\nweight = -10\n\
             min_rx = \"100ms\"\nmin_tx = \"100ms\"\n",
            routers(priority, "", "[router.virtual_mac]\n[router.track]\nbfd = [\"p\"]\n")
        )
    };
    let priority = |host: &str| link.router(host, "web")["priority"].as_u64().unwrap_or_default();
    let is_master = |host: &str| {
        [("vrrp.51", VIP), ("vrrp6.52", VIP6)].iter().all(|(device, vip)| {
            has(&link, host, &format!("ip -o address show dev {device} 2>&1 || true"), &format!(" {vip}/"))
        })
    };
    let no_device = |host: &str| !has(&link, host, "ip -o link", "vrrp");
    link.director("a", &config(150, "xdp-generic", "10.9.0.2"));
    link.until("a is master", || is_master("a"));
    let own = link.sh("a", "ip -o address show dev eth0");
    assert!(!own.contains(VIP) && !own.contains(VIP6), "the interface itself has neither: {own}");
    assert!(has(&link, "a", "ip -d link show vrrp.51", "mode vepa"));
    let arp = || link.sh("a", "cd /proc/sys/net/ipv4/conf/eth0; cat arp_ignore arp_announce").replace('\n', " ");
    assert_eq!(arp(), "1 2 ");
    link.until("a's host answers", || link.ping(VIP) && link.ping(VIP6));
    let learned = || {
        assert!(neighbour(&link, VIP).contains(VIRTUAL_MAC), "{}", neighbour(&link, VIP));
        assert!(neighbour(&link, VIP6).contains(VIRTUAL_MAC6), "{}", neighbour(&link, VIP6));
    };
    learned();
    link.until("a serves by XDP", || served(&link, VIP) && served(&link, &format!("[{VIP6}]")));
    let taken = |host: &str| -> u64 {
        let stats: Value = serde_json::from_str(&link.dirigent(host, &["stats", "--json"]).unwrap()).unwrap();
        stats["total"]["connections"].as_u64().unwrap()
    };
    assert!(taken("a") >= 2, "the packet path took them, not the host");
    link.sh("a", "ip link delete vrrp.51");
    link.until("what somebody took away is made again", || is_master("a") && link.ping(VIP));
    // The switch has learned it from the adverts.
    assert!(
        has(&link, "s", "bridge fdb show br br0", VIRTUAL_MAC)
            && has(&link, "s", "bridge fdb show br br0", VIRTUAL_MAC6)
    );

    link.director("b", &config(100, "tc", "10.9.0.1"));
    link.until("b hears a, also by BFD", || {
        link.router("b", "web")["master"]["priority"] == 150 && priority("a") == 150 && priority("b") == 100
    });
    assert!(no_device("b"));
    // The daemon dies: its guard takes the devices along, and the neighbours need learn nothing.
    link.signal("a", "-9");
    link.until("b takes over", || is_master("b") && no_device("a") && priority("b") == 90);
    assert_eq!(arp(), "0 0 ", "{}", link.logs());
    link.until("b serves by tc", || served(&link, VIP) && served(&link, &format!("[{VIP6}]")));
    learned();
    assert!(taken("b") >= 2);
    // Two masters with one MAC hear each other all the same, and one stops in order.
    link.director("a", &config(150, "xdp-generic", "10.9.0.2"));
    link.until("a takes over", || is_master("a") && no_device("b") && link.state("b", "web") == "backup");
    link.until("a serves", || served(&link, VIP));
    link.dirigent("a", &["stop", "--detach"]).unwrap();
    link.until("a gave all back", || no_device("a") && is_master("b"));
    assert_eq!(arp(), "0 0 ");
}

/// All that goes with a master's addresses comes and goes with them; packets for these are not the host's, but services'
/// are served.
#[test]
fn what_a_master_has_beside_addresses_comes_and_goes_with_them() {
    let link = Link::up();
    link.sh(
        "d",
        &format!(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; ip address add {VIP}/32 dev lo"
        ),
    );
    serve(&link, "d");
    // Also at the port of the service, which must not be reached.
    serve(&link, "a");
    let config = format!(
        "[[router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\nstate = \"master\"\ninterval = \"200ms\"\n\
         accept = false\npromote_secondaries = true\naddresses = [\"{VIP}/24\"]\n\
         excluded = [\"{VIP6}/64\",\n\
         {{ address = \"10.9.7.1/24\", label = \"eth0:seven\", scope = \"site\", broadcast = \"10.9.7.255\" }},\n\
         {{ address = \"10.9.8.1\", peer = \"10.9.8.2/32\" }},\n\
         {{ address = \"fd07::1/64\", preferred = \"0s\", flags = [\"noprefixroute\"] }}]\n\
         routes = [\"10.77.0.0/16 via 10.9.0.9 src {VIP}\", \"fd77::/64 via fd09::9\"]\n\
         rules = [\"from {VIP} lookup 777\", \"from {VIP6} lookup 777\"]\n\
         [[service]]\nprotocol = \"tcp\"\naddress = \"{VIP}:80\"\n\
         [[service.server]]\naddress = \"10.9.0.3:80\"\nmethod = \"dr\"\n"
    );
    let found = || {
        link.sh(
            "a",
            "ip -o address show dev eth0; ip route; ip -6 route; ip rule; ip -6 rule; nft list tables;
             echo promoted $(cat /proc/sys/net/ipv4/conf/eth0/promote_secondaries)",
        )
    };
    let none = found();
    link.director("a", &config);
    link.until("a has all", || found().contains("fd09::100 lookup 777"));
    let all = found();
    for word in [
        "10.9.7.1/24 brd 10.9.7.255 scope site eth0:seven",
        "10.9.8.1 peer 10.9.8.2/32",
        "inet6 fd07::1/64 scope global nodad deprecated noprefixroute",
        "10.77.0.0/16 via 10.9.0.9 dev eth0 src 10.9.0.100",
        "fd77::/64 via fd09::9 dev eth0",
        "from 10.9.0.100 lookup 777",
        "table inet dirigent_",
        "promoted 1",
    ] {
        assert!(all.contains(word), "{word}: {all}{}", link.logs());
    }
    assert!(!link.sh("a", "ip -6 route").contains("fd07::/64"), "noprefixroute");
    link.until("services are served", || served(&link, VIP));
    assert!(!served(&link, &format!("[{VIP6}]")), "but the host's own programs are not");
    assert!(!link.ping(VIP) && !link.ping(VIP6));
    assert!(neighbour(&link, VIP6).contains("02:00:00:00:09:01"), "though it answers where it is");
    // Whatever ends it.
    link.signal("a", "-9");
    link.until("the guard takes all away", || found() == none);
    link.director("a", &config);
    link.until("a has all again", || found() == all);
    link.config("a", "");
    link.dirigent("a", &["reload"]).unwrap();
    link.until("the reload takes all away", || found() == none);
}

/// Another host that says that a virtual address is its own is named, and answered; who reads the FIFO hears the rest.
#[test]
fn who_claims_a_virtual_address_is_named_and_answered() {
    use std::os::unix::fs::PermissionsExt as _;
    let link = Link::up();
    let read = link.directory.join("read");
    std::fs::write(&read, "").unwrap();
    std::fs::set_permissions(&read, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(&link.directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = routers(
        150,
        "state = \"master\"\n",
        "[router.track]\nfiles = [\"n\"]\n[router.notify]\npriority_changes = true\n",
    ) + &format!(
        "[[track_file]]\nname = \"n\"\npath = \"{0}/number\"\ninitial = 1\n\
             [[fifo]]\npath = \"{0}/fifo\"\nuser = \"nobody\"\nstates_on_reload = true\n\
             script = [\"/bin/sh\", \"-c\", \"exec cat $0 >> {0}/read\"]\n\
             [[service]]\naddress = \"10.9.0.50:80\"\nprotocol = \"tcp\"\n[[service.server]]\naddress = \"10.9.0.9:81\"\n\
             [[service.server.check]]\ntype = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"300ms\"\nwarmup = \"0ms\"\n",
        link.directory.display()
    );
    link.director("a", &config);
    link.until("a is master", || link.holds("a", VIP) && link.holds("a", VIP6));
    let events = Events::of(&link, "a");
    link.sh("d", &format!("ping -nc1 -W5 {VIP} && ping -nc1 -W5 {VIP6}"));
    let claim = |ip: &str| {
        let ip = ip.parse().unwrap();
        Namespace::open(&link.namespace("c")).unwrap().run(move || vip::announce("eth0", ip).unwrap()).unwrap();
    };
    for (name, address) in [("web", VIP), ("web6", VIP6)] {
        claim(address);
        link.until("it is named", || events.has(&format!("{address} is its own: 02:00:00:00:09:09")));
        assert_eq!(link.router("a", name)["claimed"], format!("{address} by 02:00:00:00:09:09"));
        let known = || link.sh("d", &format!("ip neigh show {address}"));
        link.until("who heard it hears better", || known().contains("02:00:00:00:09:01"));
        assert_eq!(link.state("a", name), "master", "it goes on");
    }
    assert!(link.dirigent("a", &["status"]).unwrap().contains("02:00:00:00:09:09"));
    let lines = |word: &str| std::fs::read_to_string(&read).unwrap().lines().filter(|line| *line == word).count();
    link.until("services are told of, too", || {
        lines("RS [10.9.0.9]:tcp:81 [10.9.0.50]:tcp:80 DOWN") == 1 && lines("VS [10.9.0.50]:tcp:80 DOWN") == 1
    });
    // FIFO: with a reader that the director keeps, and lines about priorities and reloads.
    std::fs::write(link.directory.join("number"), "-5\n").unwrap();
    link.until("its change of priority is told", || lines("INSTANCE \"web\" MASTER_PRIORITY 145") == 1);
    assert_eq!(lines("INSTANCE \"web\" MASTER 150"), 1, "{}", std::fs::read_to_string(&read).unwrap());
    link.config("a", &config.replace("initial = 1", "initial = 2"));
    link.dirigent("a", &["reload"]).unwrap();
    // With another file, of whose number nothing is known yet.
    link.until("and its state after a reload", || lines("INSTANCE \"web\" MASTER 150") == 2);
}
