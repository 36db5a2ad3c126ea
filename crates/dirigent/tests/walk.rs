//! `dirigent walk`: what it says of every hop is what is captured there, by all methods and in both families. Needs root.

mod common;

use common::{BIN, TestLab};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVICES: [(&str, &str); 2] = [("4", "tcp:192.0.2.10:80"), ("6", "tcp:[2001:db8::10]:80")];
/// SYN, and SYN with ACK.
const REQUEST: u64 = 2;
const ANSWER: u64 = 18;

fn walked(lab: &TestLab, args: &[&str]) -> Value {
    lab.json(&[&["walk"], args, &["--json"]].concat())
}

/// The one way of a walk.
fn way(walk: &Value) -> &Value {
    let ways = walk["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 1, "{walk:#}");
    &ways[0]
}

/// Where a frame from one to the other can be captured.
fn places(lab: &TestLab, hop: &Value) -> Vec<(&'static str, &'static str)> {
    let one_arm = lab.sh("router", "ls /sys/class/net").contains("outside0");
    let towards_director = ("router", if one_arm { "outside0" } else { "servers0" });
    match (hop["from"].as_str().unwrap(), hop["to"].as_str().unwrap()) {
        ("client", "router") | ("router", "client") => vec![("client", "eth0"), ("router", "client0")],
        ("router", "director") | ("director", "router") => vec![towards_director],
        ("director", "server") | ("server", "director") => vec![("server1", "eth0")],
        // Between the host's stack and the director.
        ("director", "director") => Vec::new(),
        ("server", "router") => vec![("server1", "eth0"), ("router", "servers0")],
        other => panic!("{other:?} is no hop of the lab"),
    }
}

/// The first packet with these flags at a place.
fn captured<'s>(seen: &'s Value, (host, interface): (&str, &str), flags: u64) -> &'s Value {
    let places = seen.as_array().unwrap();
    let place = places.iter().find(|p| p["host"] == host && p["interface"] == interface).unwrap();
    let packets = place["packets"].as_array().unwrap();
    let found = packets.iter().find(|p| p["flags"] == flags);
    found.unwrap_or_else(|| panic!("no packet with flags {flags} on {host} {interface}: {seen:#}"))
}

/// The same end of a connection. The client takes the first of its ports that is free: the last walk's may not be yet.
fn same_end(said: &Value, was: &Value) -> bool {
    let end = |value: &Value| value.as_str().unwrap().parse::<SocketAddr>().unwrap();
    let (said, was) = (end(said), end(was));
    let clients = |port: u16| (40_000..40_200).contains(&port);
    said == was || said.ip() == was.ip() && clients(said.port()) && clients(was.port())
}

/// A hop is as captured: addresses, ports, TTL, what it is inside of, and those MACs that are known.
fn compare(hop: &Value, packet: &Value) {
    let both = format!("{hop:#}\n{packet:#}");
    for (said, was) in [("source", "from"), ("destination", "to")] {
        assert!(same_end(&hop[said], &packet[was]), "{said}: {both}");
    }
    assert_eq!(hop["ttl"], packet["ttl"], "{both}");
    for (said, was) in [("source_mac", "from_mac"), ("destination_mac", "to_mac")] {
        match &hop[said]["address"] {
            Value::Null => assert_ne!(hop[said]["unknown"], "", "{said}: {both}"),
            address => assert_eq!(address, &packet[was], "{said}: {both}"),
        }
    }
    assert_eq!(hop["outer"].is_null(), packet["outer"].is_null(), "{both}");
    if !hop["outer"].is_null() {
        for (said, was) in [("kind", "kind"), ("source", "from"), ("destination", "to"), ("ttl", "ttl")] {
            assert_eq!(hop["outer"][said], packet["outer"][was], "outer {said}: {both}");
        }
    }
}

/// Both MACs are known of all that the director sends or gets.
fn knows_all_neighbours(way: &Value) -> bool {
    let hops = ["request", "answer"].into_iter().flat_map(|key| way[key].as_array().unwrap());
    let knows = |hop: &Value| ["source_mac", "destination_mac"].iter().all(|mac| hop[mac]["address"].is_string());
    hops.filter(|hop| hop["interface"] != "").all(knows)
}

/// The walk, once the kernel has found all neighbours of the director that are on the way.
fn walked_by_known_ways(lab: &TestLab, args: &[&str]) -> Value {
    let begun = Instant::now();
    loop {
        let walk = walked(lab, args);
        if knows_all_neighbours(way(&walk)) {
            return walk;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{walk:#}");
        // It asks for them as they are needed.
        lab.sh("director", "ping -c 1 -W 1 198.51.100.7; ping -c 1 -W 1 2001:db8:51::7");
    }
}

/// Walks, sends a real request, and compares each hop. The walk.
fn comes_true(lab: &TestLab, family: &str, args: &[&str]) -> Value {
    let walk = walked_by_known_ways(lab, args);
    let way = way(&walk);
    assert!(way["broken"].is_null(), "{walk:#}");
    let seen: Value = serde_json::from_str(&lab.dirigent_lab("walk", &["--family", family, "--json"]).0).unwrap();
    let mut compared = 0;
    for (key, flags) in [("request", REQUEST), ("answer", ANSWER)] {
        for hop in way[key].as_array().unwrap() {
            let within = way["local"] == true
                && hop["interface"] == ""
                && [&hop["from"], &hop["to"]].contains(&&"director".into());
            if within {
                continue;
            }
            for place in places(lab, hop) {
                compare(hop, captured(&seen, place, flags));
                compared += 1;
            }
        }
    }
    assert!(compared >= 6, "{compared} hops: {walk:#}");
    walk
}

/// Both families of a lab with one server, with what traffic it says there was.
fn all_comes_true(method: &str, args: &str) {
    let args: Vec<_> = ["--servers", "1"].into_iter().chain(args.split_whitespace()).collect();
    let lab = TestLab::up(&args);
    for (family, service) in SERVICES {
        let walk = comes_true(&lab, family, &[service]);
        let first = way(&walk);
        assert_eq!(first["method"], method, "{walk:#}");
        assert!(first["traffic"]["text"].as_str().unwrap().ends_with("no traffic yet."), "{walk:#}");
        let (text, _) = lab.dirigent(&["walk", service]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\x1b'), "colour only on a terminal");
        // What was carried, as the tables have it.
        let after = walked(&lab, &[service]);
        let counters = &way(&after)["traffic"]["counters"];
        let stats = lab.json(&["stats", "--json"]);
        let address = service.trim_start_matches("tcp:");
        let mut services = stats["services"].as_array().unwrap().iter();
        let listed = services.find(|s| s["protocol"] == "tcp" && s["address"] == address);
        let listed = &listed.unwrap()["counters"];
        assert_eq!((&counters["in_bytes"], &counters["out_bytes"]), (&listed["in_bytes"], &listed["out_bytes"]));
        assert!(counters["in_bytes"].as_u64().unwrap() > 0, "{after:#}");
        assert_eq!(counters["out_bytes"].as_u64().unwrap() > 0, method == "nat", "{after:#}");
        assert!(way(&after)["traffic"]["rates"].is_object(), "{after:#}");
    }
}

#[test]
fn nat_with_two_arms_on_tc() {
    all_comes_true("nat", "--path tc");
}

#[test]
fn nat_with_one_arm_on_xdp() {
    all_comes_true("nat", "--one-arm --path xdp --no-offloads");
}

#[test]
fn direct_routing_with_two_arms_on_xdp() {
    all_comes_true("dr", "--mode dr --path xdp --no-offloads");
}

#[test]
fn direct_routing_with_one_arm_on_tc() {
    all_comes_true("dr", "--mode dr --one-arm --path tc");
}

#[test]
fn ipip_in_each_family_on_tc() {
    all_comes_true("tun", "--mode tun --path tc");
}

#[test]
fn gre_over_ipv6_on_xdp() {
    all_comes_true("tun", "--mode tun --tunnel gre --tunnel-family 6 --path xdp --no-offloads");
}

#[test]
fn gue_over_ipv4_with_one_arm_on_tc() {
    all_comes_true("tun", "--mode tun --tunnel gue --tunnel-family 4 --one-arm --path tc");
}

/// What fits into a tunnel does, and no byte more.
#[test]
fn what_fits_into_a_tunnel_is_true() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "tun", "--tunnel", "gre"]);
    for (_, service) in SERVICES {
        let walk = walked(&lab, &[service]);
        let way = way(&walk);
        let fits = &way["fits"];
        let number = |key: &str| fits[key].as_u64().unwrap();
        assert_eq!(number("mtu") - number("overhead"), number("packet"), "{walk:#}");
        let headers = if service.contains('[') { 60 } else { 40 };
        assert_eq!(number("packet") - headers, number("segment"), "{walk:#}");
        let (client, asked) = (way["client"].as_str().unwrap(), way["asked"].as_str().unwrap());
        for (more, kind) in [(0, "forwarded"), (1, "answered")] {
            let length = (number("segment") + more).to_string();
            let told = lab.json(&["explain", "tcp", client, asked, "--length", &length, "--json"]);
            assert_eq!(told["kind"], kind, "{length}: {told:#}");
        }
    }
}

/// The director is the server: what its stack gets, and how its answer leaves.
#[test]
fn a_server_on_the_director() {
    let lab = TestLab::up(&["--servers", "1"]);
    let text = lab
        .config()
        .replace("\"10.0.0.2:8080\"", "\"10.0.0.1:8080\"")
        .replace("\"[fd00::2]:8080\"", "\"[fd00::1]:8080\"");
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let file = lab.file("answer");
    std::fs::write(&file, "read request; printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhere'\n").unwrap();
    let answer = format!("SYSTEM:sh {}", file.display());
    let mut server = lab.start("director", &["socat", "TCP6-LISTEN:8080,fork,reuseaddr,ipv6only=0", &answer]);
    let listens = "for i in $(seq 100); do ss -Hltn 'sport = 8080' | grep -q . && exit; sleep 0.1; done; exit 1";
    lab.sh("director", listens);
    for ((family, service), inside) in SERVICES.into_iter().zip(["10.0.0.1:8080", "[fd00::1]:8080"]) {
        let walk = comes_true(&lab, family, &[service]);
        let way = way(&walk);
        let last = way["request"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["to"], &last["destination"]), (&"server".into(), &inside.into()), "{walk:#}");
        assert_eq!(way["answer"][0]["source"], inside, "{walk:#}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Services of a mark, by the director's rules or netfilter's.
#[test]
fn services_of_a_mark() {
    let lab = TestLab::up(&["--servers", "1"]);
    let (head, web) = lab.config().split_once("[[service]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (_, rest) = web.split_once("[[service]]").unwrap();
    let marked = format!(
        "{head}[[mark]]\ndestination = \"192.0.2.10/32\"\nprotocol = \"tcp\"\ndestination_ports = \"80-90\"\nset = 7\n\n\
         [[service]]\nfwmark = 7\n\n[[service.server]]\naddress = \"10.0.0.2\"\n\n\
         [[service]]\nfwmark = 8\n\n[[service.server]]\naddress = \"10.0.0.2\"\n\n[[service]]{rest}"
    );
    lab.write_config(&marked);
    lab.dirigent(&["reload"]);
    let walk = comes_true(&lab, "4", &["fwmark:7"]);
    assert_eq!(way(&walk)["asked"], "192.0.2.10:80", "{walk:#}");
    let other = walked(&lab, &["fwmark:7", "--to", "tcp:192.0.2.10:88"]);
    assert_eq!(way(&other)["request"][2]["destination"], "10.0.0.2:88", "{other:#}");
    // No rule of the director's: netfilter marks, and only the operator knows what.
    let (code, said) = lab.dirigent_fails(&["walk", "fwmark:8"]);
    assert!(code == 1 && said.contains("which packets these are") && said.contains("--to tcp:"), "{code} {said}");
    let (code, said) = lab.dirigent_fails(&["walk", "fwmark:8", "--to", "tcp:192.0.2.10:99"]);
    assert!(code == 1 && said.contains("is no packet of fwmark 8"), "{code} {said}");
    let with_device = marked.replacen("[director]\n", "[director]\nmark_device = \"td-walk\"\n", 1);
    lab.write_config(&with_device);
    lab.dirigent(&["reload"]);
    let by_netfilter = walked(&lab, &["fwmark:8", "--to", "tcp:192.0.2.10:99"]);
    assert!(way(&by_netfilter)["notes"].to_string().contains("with 8"), "{by_netfilter:#}");
}

/// What netfilter has marked goes by the device that is there for it.
#[test]
fn a_mark_of_netfilters_comes_true() {
    let lab = TestLab::up(&["--servers", "1"]);
    let (head, web) = lab.config().split_once("[[service]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (_, rest) = web.split_once("[[service]]").unwrap();
    let head = head.replacen("[director]\n", "[director]\nmark_device = \"td-walk\"\n", 1);
    let service = "[[service]]\nfwmark = 8\n\n[[service.server]]\naddress = \"10.0.0.2\"\n";
    lab.write_config(&format!("{head}{service}\n[[service]]{rest}"));
    lab.dirigent(&["reload"]);
    let rules = "nft add table ip marks
                 nft 'add chain ip marks prerouting { type filter hook prerouting priority mangle; }'
                 nft add rule ip marks prerouting iifname c0 ip daddr 192.0.2.10 tcp dport 80 meta mark set 8
                 ip rule add pref 5 lookup local; ip rule del pref 0
                 ip rule add pref 1 fwmark 8 iif c0 lookup 107; ip route add default dev td-walk table 107";
    lab.sh("director", rules);
    let walk = comes_true(&lab, "4", &["fwmark:8", "--to", "tcp:192.0.2.10:80"]);
    let hops = way(&walk)["request"].as_array().unwrap();
    assert_eq!((&hops[2]["interface"], hops.len()), (&"td-walk-in".into(), 4), "{walk:#}");
}

/// A service of all ports is asked by one that no other service has.
#[test]
fn a_service_of_all_ports() {
    let lab = TestLab::up(&["--servers", "1"]);
    let (head, _) = lab.config().split_once("[[service]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let all = format!(
        "{head}[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:0\"\nvip = \"manage\"\n\n[service.persistence]\n\
         timeout = \"5m\"\n\n[[service.server]]\naddress = \"10.0.0.2\"\n\n[[service]]\nprotocol = \"tcp\"\naddress = \
         \"192.0.2.10:81\"\n\n[[service.server]]\naddress = \"10.0.0.2:81\"\n"
    );
    lab.write_config(&all);
    lab.dirigent(&["reload"]);
    let walk = comes_true(&lab, "4", &["tcp:192.0.2.10:0"]);
    assert_eq!(way(&walk)["asked"], "192.0.2.10:80", "{walk:#}");
    let other = walked(&lab, &["192.0.2.10:0", "--to", "tcp:192.0.2.10:443"]);
    assert_eq!(way(&other)["request"][2]["destination"], "10.0.0.2:443", "{other:#}");
    let (code, said) = lab.dirigent_fails(&["walk", "192.0.2.10:0", "--to", "tcp:192.0.2.10:81"]);
    assert!(code == 1 && said.contains("is no packet of tcp 192.0.2.10:0"), "{code} {said}");
}

/// A picture for each method that the servers use; of UDP and SCTP too.
#[test]
fn each_method_and_protocol_has_a_picture() {
    let lab = TestLab::up(&["--servers", "3"]);
    let mut text = "version = 1\n".to_owned();
    for protocol in ["tcp", "udp", "sctp"] {
        text += &format!("[[service]]\nprotocol = \"{protocol}\"\naddress = \"192.0.2.10:80\"\nvip = \"manage\"\n");
        for (server, keys) in [
            ("10.0.0.2:8080", ""),
            ("10.0.0.3:80", "method = \"dr\""),
            ("10.0.0.4:80", "method = \"tun\"\ntunnel = \"gue\"\ntunnel_port = 7777"),
            ("[fd00::4]:80", "method = \"tun\""),
            ("10.0.0.1:80", ""),
            ("10.99.0.1:80", "method = \"tun\"\ntunnel = \"gre\"\nweight = 0"),
        ] {
            text += &format!("[[service.server]]\naddress = \"{server}\"\n{keys}\n");
        }
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    for protocol in ["tcp", "udp", "sctp"] {
        let walk = walked(&lab, &[&format!("{protocol}:192.0.2.10:80")]);
        let ways = walk["ways"].as_array().unwrap();
        let drawn: Vec<_> = ways.iter().map(|way| way["server"].as_str().unwrap()).collect();
        assert_eq!(drawn, ["10.0.0.2:8080", "10.0.0.3:80", "10.0.0.4:80", "[fd00::4]:80", "10.0.0.1:80"], "{walk:#}");
        assert!(ways.iter().all(|way| way["broken"].is_null() && way["protocol"] == protocol), "{walk:#}");
        let left_out = walk["left_out"].to_string();
        assert!(left_out.contains("10.99.0.1:80 is quiesced"), "{left_out}");
        assert_eq!(ways[2]["request"][2]["outer"]["kind"], "gue", "{walk:#}");
        assert_eq!(ways[3]["request"][2]["outer"]["destination"], "fd00::4", "{walk:#}");
        // Back they all are answers of the service.
        for way in ways {
            assert_eq!(way["answer"].as_array().unwrap().last().unwrap()["source"], "192.0.2.10:80", "{way:#}");
        }
    }
    let (text, _) = lab.dirigent(&["walk", "tcp:192.0.2.10:80"]);
    for title in ["NAT", "Direct routing", "Tunnelling (GUE)", "Tunnelling (IPIP)", "Local server"] {
        assert!(text.lines().any(|line| line == format!("tcp 192.0.2.10:80: {title}")), "{title} is not in\n{text}");
    }
    // Colours are for people.
    let file = lab.file("walk");
    std::fs::write(&file, "dirigent walk tcp:192.0.2.10:80").unwrap();
    let seen = lab.sh("director", &format!("socat -u EXEC:'sh {}',pty STDOUT", file.display()));
    assert!(seen.contains("\x1b[33m10.0.0.2:8080\x1b[0m*"), "{seen}");
    // With a name it is that one, whatever its weight.
    let one = walked(&lab, &["tcp:192.0.2.10:80", "--server", "10.99.0.1"]);
    assert!(way(&one)["notes"].to_string().contains("it gets no new connections"), "{one:#}");
}

/// The founding case: a client in the servers' subnet gets an answer that it did not ask for.
#[test]
fn a_client_in_the_servers_subnet_is_warned_of() {
    let lab = TestLab::up(&["--servers", "2"]);
    let walk = walked(&lab, &["tcp:192.0.2.10:80", "--server", "10.0.0.2", "--client", "10.0.0.3:40000"]);
    let way = way(&walk);
    assert!(way["broken"].as_str().unwrap().contains("has no connection with 10.0.0.2:8080"), "{walk:#}");
    let hops = way["answer"].as_array().unwrap();
    assert_eq!(hops.len(), 1, "{walk:#}");
    lab.write_config(&lab.config().replace("address = \"10.0.0.3:8080\"", "address = \"10.0.0.3:8080\"\nweight = 0"));
    lab.dirigent(&["reload"]);
    let script = "timeout 10 tcpdump -i eth0 -nnt -e -c 1 'tcp[13] = 18' 2>/dev/null & sleep 1
                  curl -sS --max-time 2 --local-port 40000 http://192.0.2.10/ >/dev/null 2>&1 && echo answered; wait";
    let seen = lab.sh("server2", script);
    for part in [
        hops[0]["source_mac"]["address"].as_str().unwrap(),
        hops[0]["destination_mac"]["address"].as_str().unwrap(),
        "10.0.0.2.8080 > 10.0.0.3.40000",
    ] {
        assert!(seen.contains(part) && !seen.contains("answered"), "{part:?} is not in {seen}");
    }
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.dirigent(&["service", "add", "tcp:192.0.2.10:443"]);
    lab.dirigent(&["server", "add", "tcp:192.0.2.10:443", "10.0.0.9:443"]);
    lab.dirigent(&["service", "add", "tcp:192.0.2.10:25"]);
    let web = "tcp:192.0.2.10:80";
    for (args, code, says, remedy) in [
        (&["192.0.2.99:80"][..], 7, "there is no such service", "`dirigent service list`"),
        (&[web, "--server", "10.0.0.9"], 7, "has no such real server", "it is one of tcp 192.0.2.10:443"),
        (
            &[web, "--server", "10.0.0.77"],
            7,
            "has no such real server",
            "name one of these: 10.0.0.2:8080, 10.0.0.3:8080",
        ),
        (&["tcp:192.0.2.10:25"], 1, "it has no server", "`dirigent server add`"),
        (&[web, "--client", "2001:db8:51::7"], 3, "is not of the family", "name an address of IPv4"),
        (&[web, "--client", "somebody"], 3, "is no address", "write it like"),
        (&[web, "--to", "tcp:192.0.2.10:443"], 3, "is not tcp 192.0.2.10:80's", "leave it out"),
        (&["fwmark:7"], 7, "there is no such service", "`dirigent service list`"),
    ] {
        let (got, said) = lab.dirigent_fails(&[&["walk"], args].concat());
        assert!(got == code && said.contains(says) && said.contains(remedy), "{args:?}: {got}, {said}");
    }
    for server in ["10.0.0.2", "10.0.0.3"] {
        lab.dirigent(&["server", "edit", web, server, "--weight", "0"]);
    }
    let (got, said) = lab.dirigent_fails(&["walk", web]);
    assert!(got == 1 && said.contains("10.0.0.2:8080 is quiesced") && said.contains("server list"), "{got}, {said}");
}

/// Without a daemon it is read from the pinned maps, but for rates.
#[test]
fn it_needs_no_daemon() {
    let lab = TestLab::up(&["--servers", "1"]);
    let args = ["walk", "192.0.2.10:80", "--client", "198.51.100.7:41000", "--json"];
    let with = walked_by_known_ways(&lab, &["192.0.2.10:80", "--client", "198.51.100.7:41000"]);
    lab.kill_daemon();
    let argv = [&[BIN, "--instance", lab.name()][..], &args].concat();
    let told = lab.on("director", &argv);
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
    for key in ["request", "answer", "needs"] {
        assert_eq!(way(&told)[key], way(&with)[key]);
    }
    assert!(way(&told)["traffic"]["rates"].is_null(), "{told:#}");
}
