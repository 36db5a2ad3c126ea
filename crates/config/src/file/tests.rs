use super::{parse, to_toml};
use crate::failover::*;
use crate::health::{
    Check, Http, OnFailure, OnFailureConnections, Probe, Request, Script, ServerHealth, Sorry, Target,
};
use crate::mark::*;
use crate::model::*;
use crate::settings::*;
use crate::testing::model;
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Diagnostics of a text, `line:column: message; remedy`.
fn faults(text: &str) -> Vec<String> {
    match parse("f", text) {
        Ok(_) => vec![],
        Err(found) => found.to_string().lines().map(|l| l.strip_prefix("f:").unwrap().to_owned()).collect(),
    }
}

/// A file with one service and one server around a line; the line is the 8th.
fn around(line: &str) -> String {
    let plain = ["protocol = \"tcp\"", "address = \"192.0.2.10:80\"", "scheduler = \"rr\""];
    let key = |l: &str| l.split('=').next().unwrap_or_default().trim().to_owned();
    let kept = plain.map(|l| if key(l) == key(line) { "" } else { l });
    format!(
        "version = 1\n\n[[service]]\n{}\n\n{line}\n\n[[service.server]]\naddress = \"10.0.0.2:8080\"\n",
        kept.join("\n")
    )
}
/// The same for a line of the server; it is the 8th.
fn server(line: &str) -> String {
    let address = if line.starts_with("address") { "" } else { "address = \"10.0.0.2:80\"" };
    format!(
        "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n[[service.server]]\n\n{address}\n{line}\n"
    )
}
/// The same for a line of the director; it is the 3rd.
fn director(line: &str) -> String {
    format!("version = 1\n[director]\n{line}\n")
}
/// A service by mark; its lines begin with the 3rd.
fn marked(lines: &str) -> String {
    format!("version = 1\n[[service]]\n{lines}\n")
}
/// A mark rule; its lines begin with the 3rd.
fn mark(lines: &str) -> String {
    format!("version = 1\n[[mark]]\n{lines}\n")
}
/// Two services.
fn two(first: &str, second: &str) -> String {
    let service = |a: &str| format!("[[service]]\nprotocol = \"tcp\"\naddress = \"{a}\"\n");
    format!("version = 1\n{}{}", service(first), service(second))
}

#[test]
fn bad_files() {
    const TIMES: &str = "write a number with its unit: \"500ms\", \"300s\", \"15m\", \"2h\", \"1d\"";
    const ADDRESS: &str = "write ADDRESS:PORT in numbers, like \"192.0.2.10:80\" or \"[2001:db8::10]:80\"";
    const SYNTAX: &str = "write KEY = VALUE, text in quotes, one a line";
    let cases: Vec<(String, String)> = vec![
        // The file as a whole.
        ("".into(), "1:1: version is missing; begin the file with version = 1".into()),
        ("version = 2\nnew = 1".into(), "1:11: version 2 is not known; write version = 1, or use a newer dirigent".into()),
        ("version = \"1\"".into(), "1:11: version is a string, not an integer; write version = 1".into()),
        ("version = 1\nverison = 1".into(), "2:1: unknown key \"verison\" at the top of the file; did you mean version?".into()),
        ("version = 1\nmode = \"tc\"".into(), "2:1: unknown key \"mode\" at the top of the file; it belongs to [director]".into()),
        ("version = 1\nfoobar = 1".into(), "2:1: unknown key \"foobar\" at the top of the file; remove it; known are version, director, mark, service, failover, router, router_group, track_script, track_file, track_process, bfd, interface_delay, fifo, mail, sync".into()),
        ("version = 1\ndirector = 1".into(), "2:12: director is an integer, not a table; begin it with a line [director]".into()),
        ("version = 1\nservice = 1".into(), "2:11: service is an integer, not a list of tables; begin each with a line [[service]]".into()),
        ("version = 1\n[service]\nprotocol = \"tcp\"".into(), "2:1: service is a table, not a list of tables; begin each with a line [[service]]".into()),
        ("version = 1\nservice = [1]".into(), "2:12: service holds an integer, not a table; begin each with a line [[service]]".into()),
        ("version =".into(), format!("1:10: not TOML: string values must be quoted, expected literal string; {SYNTAX}")),
        ("version = 1\nversion = 1".into(), "2:1: not TOML: duplicate key; keep one of the two".into()),
        ("version = 1\n[[service]\nprotocol = 1\n".into(), format!("2:11: not TOML: unclosed array table, expected `]`; {SYNTAX}")),
        // The director.
        (director("instance = \"9x\""), "3:12: instance \"9x\" is no name; use a letter, then letters, digits, - and _, at most 32 in all".into()),
        (director("instance = 9"), "3:12: instance is an integer, not a string; put it in quotes: instance = \"…\"".into()),
        (director("interfaces = \"eth0\""), "3:14: interfaces is \"eth0\"; write [\"eth0\"], or \"auto\"".into()),
        (director("interfaces = []"), "3:14: interfaces is an empty list; name interfaces as `ip link` shows them, or write \"auto\"".into()),
        (director("interfaces = [\"a b\"]"), "3:14: interfaces holds \"a b\", which no interface can be called; name interfaces as `ip link` shows them, or write \"auto\"".into()),
        (director("interfaces = [\"a\", \"a\"]"), "3:14: interfaces names \"a\" twice; name it once".into()),
        (director("interfaces = [1]"), "3:15: interfaces holds an integer, not a string; put it in quotes".into()),
        (director("interfaces = 1"), "3:14: interfaces is an integer, not a list; put it in brackets: interfaces = […]".into()),
        (director("mode = \"xpd\""), "3:8: mode is \"xpd\"; did you mean \"xdp\"?".into()),
        (director("mode = \"fast\""), "3:8: mode is \"fast\"; use \"auto\", \"xdp\", \"xdp-generic\", \"tc\"".into()),
        (director("mark_device = \"thirteenchars\""), "3:15: mark_device \"thirteenchars\" cannot be a device beside one called \"thirteenchars-in\"; use at most 12 letters, digits, - and _".into()),
        (director("interfaces = [\"m-in\"]\nmark_device = \"m\""), "4:15: mark_device \"m\" is among the interfaces too; leave it out of interfaces: the director is on it anyway".into()),
        (director("connections = 0"), "3:15: connections is 0; use a whole number from 1 to 16777216, without quotes".into()),
        (director("connections = -1"), "3:15: connections is -1; use a whole number from 1 to 16777216, without quotes".into()),
        (director("connections = 1.5"), "3:15: connections is a fraction, not an integer; use a whole number from 1 to 16777216, without quotes".into()),
        (director("connections = 99999999999999999999"), "3:15: connections is 99999999999999999999; use a whole number from 1 to 16777216, without quotes".into()),
        (director("servers = 16777217"), "3:11: servers is 16777217; use a whole number from 1 to 16777216, without quotes".into()),
        (director("conn_reuse_mode = 4"), "3:19: conn_reuse_mode is 4; use a whole number from 0 to 3, without quotes".into()),
        (director("secure_tcp = -1"), "3:14: secure_tcp is -1; use a whole number from 0 to 3, without quotes".into()),
        (director("amemthresh = 2147483648"), "3:14: amemthresh is 2147483648; use a whole number from 0 to 2147483647, without quotes".into()),
        (director("timeouts.sctp_cookie = \"1ms\""), "3:24: sctp_cookie is 1ms; use 100ms to 2678400s (31 days)".into()),
        (director("schedule_icmp = 1"), "3:17: schedule_icmp is an integer, not true or false; write true or false, without quotes".into()),
        (director("socket = \"run/x\""), "3:10: socket \"run/x\" is no socket path; use an absolute path of at most 107 bytes".into()),
        (director("group = \"\""), "3:9: group \"\" is no name of a group; use a name from /etc/group, or leave it out".into()),
        (director("timeouts = 5"), "3:12: timeouts is an integer, not a table; begin it with a line [director.timeouts]".into()),
        (director("timeouts.udp = 300"), format!("3:16: udp is an integer, not a duration; {TIMES}")),
        (director("timeouts.udp = \"300\""), format!("3:16: udp is \"300\", not a duration; {TIMES}")),
        (director("timeouts.tcp_close = \"1ms\""), "3:22: tcp_close is 1ms; use 100ms to 2678400s (31 days)".into()),
        (director("timeouts.tcp_closed = \"1s\""), "3:10: unknown key \"tcp_closed\" in [director.timeouts]; did you mean tcp_close?".into()),
        (director("errors.burst = 0"), "3:16: burst is 0, so that no error is ever sent; use at least 1".into()),
        (director("errors.rate = -5"), "3:15: rate is -5; use a whole number from 0 to 4294967295, without quotes".into()),
        // Services.
        (around("protocol = \"icmp\""), "8:12: protocol is \"icmp\"; use \"tcp\", \"udp\", \"sctp\"".into()),
        (around("address = \"192.0.2.10\""), "8:11: address \"192.0.2.10\" has no port; write it like \"192.0.2.10:80\"".into()),
        (around("address = \"[2001:db8::1]\""), "8:11: address \"[2001:db8::1]\" has no port; write it like \"[2001:db8::1]:80\"".into()),
        (around("address = \"www.example.org:80\""), format!("8:11: \"www.example.org:80\" is no address and port; {ADDRESS}")),
        (around("address = \"192.0.2.10:99999\""), format!("8:11: \"192.0.2.10:99999\" is no address and port; {ADDRESS}")),
        (around("address = \"[fe80::1%2]:80\""), format!("8:11: \"[fe80::1%2]:80\" is no address and port; {ADDRESS}")),
        (around("address = \"224.0.0.1:80\""), "8:11: 224.0.0.1 cannot be a virtual address; use a unicast address that is routed to the director".into()),
        (around("address = \"192.0.2.10:0\""), "8:11: virtual service tcp 192.0.2.10:0 has port 0 (all ports) but no persistence; name a port, or add a persistence table".into()),
        (around("address = \"[2001:db8::1]:80\""), "11:11: real server 10.0.0.2 has another address family than its virtual service; use an address of the service's family".into()),
        (around("scheduler = \"rrr\""), "8:13: there is no scheduler \"rrr\"; did you mean \"rr\"?".into()),
        (around("scheduler_flags = [\"mh-port\"]"), "8:20: scheduler rr has no flag \"mh-port\"; remove it, or change the scheduler".into()),
        (around("table_size = 65521"), "8:14: table_size 65521 with scheduler rr; remove table_size, or use scheduler mh".into()),
        (around("scheduler = \"mh\"\ntable_size = 65536").replacen("scheduler = \"rr\"\n", "", 1), "9:14: table_size 65536 with scheduler mh; use one of 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071".into()),
        (around("scheduler_flags = [\"mh-prot\"]"), "8:20: scheduler rr has no flag \"mh-prot\"; did you mean \"mh-port\"?".into()),
        (around("scheduler_flags = \"mh-port\""), "8:19: scheduler_flags is a string, not a list; put it in brackets: scheduler_flags = […]".into()),
        (around("one_packet = true"), "8:14: one-packet scheduling of virtual service tcp 192.0.2.10:80, which is not UDP; set protocol = \"udp\", or remove one_packet".into()),
        (around("vip = \"managed\""), "8:7: vip is \"managed\"; did you mean \"manage\"?".into()),
        (around("family = 4"), "8:10: family without fwmark; remove it: the address says it".into()),
        (marked("fwmark = 0"), "3:10: fwmark is 0; use a whole number from 1 to 4294967295, without quotes".into()),
        (marked("fwmark = 7\nfamily = 5"), "4:10: family is 5; use 4 or 6".into()),
        (marked("fwmark = 7\nfamily = \"6\""), "4:10: family is a string, not an integer; use 4 or 6, without quotes".into()),
        (marked("fwmark = 7\nprotocol = \"tcp\""), "4:12: protocol with fwmark; remove one of the two: a mark stands for every protocol".into()),
        (marked("fwmark = 7\naddress = \"192.0.2.1:80\""), "4:11: address with fwmark; remove one of the two: a mark stands for every address".into()),
        (marked("fwmark = 7\nvip = \"manage\""), "4:7: virtual service fwmark 7 has no address that the daemon could hold; remove vip, and see to it that marked packets come to this host".into()),
        (marked("fwmark = 7\n[[service.server]]\naddress = \"fd00::1\""), "5:11: real server fd00::1 has another address family than its virtual service; use an address of the service's family".into()),
        (marked("fwmark = 7\n[[service]]\nfwmark = 7"), "5:10: virtual service fwmark 7 is there twice, first in line 3; put its real servers into one service, or change the address or port".into()),
        (around("[service.persistence]\ntimeout = \"0s\""), "9:11: persistence of 0 s is not within 1 s and 2678400 s; use 1s to 2678400s (31 days)".into()),
        (around("[service.persistence]\ntimeout = \"1500ms\""), "9:11: persistence lasts whole seconds; round it up: \"1s\"".into()),
        (around("[service.persistence]\nmask = \"/64\""), "9:8: the persistence mask /64 does not fit the service's address family; use a mask like \"255.255.255.0\" for IPv4 or a prefix like \"/64\" for IPv6".into()),
        // Mark rules.
        (mark("source = \"10.0.0.0/8\""), "2:1: set is missing; add set = 1, or what the mark shall be".into()),
        (mark("set = -1"), "3:7: set is -1; use a whole number from 0 to 4294967295, without quotes".into()),
        (mark("set = 1\nsource = \"10.0.0.0/33\""), "4:10: source is \"10.0.0.0/33\", which is no address or prefix; write it like \"192.0.2.0/24\" or \"2001:db8::/32\"".into()),
        (mark("set = 1\nsource = \"::/0\"\ndestination = \"10.0.0.1\""), "5:15: destination 10.0.0.1/32 has another address family than the mark rule; use addresses of one family, or set family to theirs".into()),
        (mark("set = 1\nfamily = 6\ndestination = \"10.0.0.1\""), "5:15: destination 10.0.0.1/32 has another address family than the mark rule; use addresses of one family, or set family to theirs".into()),
        (mark("set = 1\ndestination_ports = \"80:90\""), "4:21: destination_ports is \"80:90\", which is no port or range of ports; write it like \"80\" or \"8000-8999\"".into()),
        (mark("set = 1\nprotocol = \"tpc\""), "4:12: protocol is \"tpc\"; use \"icmp\", \"tcp\", \"udp\", \"dccp\", \"gre\", \"esp\", \"ah\", \"icmpv6\", \"sctp\", \"udplite\" or a number from 1 to 255 in quotes".into()),
        (mark("set = 1\ninterface = \"a/b\""), "4:13: interface \"a/b\" is no name of an interface; name an interface as `ip link` shows it".into()),
        (mark("set = 1\nnot = [\"sourc\"]"), "4:8: not holds \"sourc\"; did you mean \"source\"?".into()),
        (mark("set = 1\nnot = [\"source\"]"), "4:8: not holds \"source\", which the rule does not have; remove it, or add it".into()),
        (mark("set = 1\nsource = \"10.0.0.1\"\nnot = [\"source\", \"source\"]"), "5:18: not holds \"source\" twice; name it once".into()),
        (mark("value = 1\nset = 1"), "3:1: unknown key \"value\" in [[mark]]; remove it; known are family, interface, source, destination, protocol, source_ports, destination_ports, not, set, mask".into()),
        (around("wieght = 1"), "8:1: unknown key \"wieght\" in [[service]]; did you mean weight? It belongs to [[service.server]]".into()),
        (two("192.0.2.1:80", "192.0.2.1:80"), "7:11: virtual service tcp 192.0.2.1:80 is there twice, first in line 4; put its real servers into one service, or change the address or port".into()),
        ("version = 1\n[[service]]\nprotocol = \"tcp\"\n".into(), "2:1: address is missing; add address = \"192.0.2.10:80\"".into()),
        ("version = 1\n[[service]]\naddress = \"192.0.2.10:80\"\n".into(), "2:1: protocol is missing; add protocol = \"tcp\"".into()),
        // Beyond IPVS.
        (around("stateless = true"), "8:13: virtual service tcp 192.0.2.10:80 cannot be stateless: scheduler rr does not choose by a hash alone; remove stateless, or use scheduler = \"mh\" with tcp or sctp and no persistence".into()),
        (around("scheduler = \"mh\"\nstateless = true\n[service.persistence]"), "9:13: virtual service tcp 192.0.2.10:80 cannot be stateless: persistence is itself a state that a director loses; remove stateless, or use scheduler = \"mh\" with tcp or sctp and no persistence".into()),
        (around("protocol = \"udp\"\nscheduler = \"sh\"\nstateless = true").replacen("scheduler = \"rr\"\n", "", 1), "9:13: virtual service udp 192.0.2.10:80 cannot be stateless: any packet of UDP opens a connection anyway; remove stateless, or use scheduler = \"mh\" with tcp or sctp and no persistence".into()),
        (around("quic = true"), "8:8: virtual service tcp 192.0.2.10:80 cannot be one of quic: it is not UDP; remove quic, or use protocol = \"udp\" without persistence and one_packet".into()),
        (around("protocol = \"udp\"\nquic = true\none_packet = true"), "9:8: virtual service udp 192.0.2.10:80 cannot be one of quic: one-packet scheduling knows no connections; remove quic, or use protocol = \"udp\" without persistence and one_packet".into()),
        (around("protocol = \"udp\"\nquic = true\n[service.persistence]"), "9:8: virtual service udp 192.0.2.10:80 cannot be one of quic: persistence would send a client that moved by its new address; remove quic, or use protocol = \"udp\" without persistence and one_packet".into()),
        (around("slow_start = \"30s\""), "8:14: virtual service tcp 192.0.2.10:80 cannot start servers slowly by scheduler rr: it does not look at weights; remove slow_start, or use scheduler wrr, wlc, sed, nq or twos".into()),
        (around("scheduler = \"mh\"\nslow_start = \"30s\""), "9:14: virtual service tcp 192.0.2.10:80 cannot start servers slowly by scheduler mh: each step of a weight would send clients of other servers elsewhere; remove slow_start, or use scheduler wrr, wlc, sed, nq or twos".into()),
        (around("scheduler = \"ovf\"\nslow_start = \"30s\""), "9:14: virtual service tcp 192.0.2.10:80 cannot start servers slowly by scheduler ovf: to it a weight is a rank or a limit, not a share; remove slow_start, or use scheduler wrr, wlc, sed, nq or twos".into()),
        (around("scheduler = \"wlc\"\nslow_start = \"100ms\""), "9:14: slow_start of 100ms; use 1s to 1d".into()),
        (around("deny = [\"192.0.2.0/33\"]"), "8:9: deny holds \"192.0.2.0/33\", no address or prefix; write it like \"192.0.2.0/24\" or \"2001:db8::/32\"".into()),
        (around("allow = [\"2001:db8::/32\"]"), "8:9: allow 2001:db8::/32 has another address family than the virtual service; use prefixes of the service's family".into()),
        (around("allow = [\"203.0.113.0/24\"]\ndeny = [\"203.0.113.9/24\"]"), "9:8: deny holds 203.0.113.0/24, which allow or deny holds already; name it once, in allow or in deny".into()),
        (around("slow_start = 30"), "8:14: slow_start is an integer, not a duration; write a number with its unit: \"500ms\", \"300s\", \"15m\", \"2h\", \"1d\"".into()),
        (server("server_id = \"0a000002\""), "8:13: server_id in a virtual service without quic; remove it, or set quic = true".into()),
        (server("server_id = \"0a0002\""), "8:13: server_id is \"0a0002\"; write four bytes as eight hexadecimal digits, like \"0a000002\"".into()),
        // Servers.
        (server("weight = -1"), "8:10: weight is -1; use a whole number from 0 to 2147483647, without quotes".into()),
        (server("weight = 2147483648"), "8:10: weight is 2147483648; use a whole number from 0 to 2147483647, without quotes".into()),
        (server("weight = \"2\""), "8:10: weight is a string, not an integer; use a whole number from 0 to 2147483647, without quotes".into()),
        (server("method = \"masq\""), "8:10: method is \"masq\"; use \"nat\", \"dr\", \"tun\"".into()),
        (server("tunnel = \"gre\""), "8:10: tunnel with method nat; remove it, or set method = \"tun\"".into()),
        (server("lower = 5"), "8:9: the lower threshold 5 is above the upper one, 0; set upper above lower, or remove lower".into()),
        (server("address = \"224.0.0.1:80\""), "8:11: real server 224.0.0.1 is not a unicast address that can be routed; use an address of one host".into()),
        (server("address = \"0.0.0.0:80\""), "8:11: real server 0.0.0.0 is not a unicast address that can be routed; use an address of one host".into()),
        (server("address = 10"), "8:11: address is an integer, not a string; put it in quotes: address = \"…\"".into()),
        (server("address = \"10.0.0.2:81\"\nmethod = \"dr\""), "8:11: method dr does not change ports, but the real server's port 81 differs from the service's, 80; use port 80, or method = \"nat\"".into()),
        (server("[[service.server]]\naddress = \"10.0.0.2:80\""), "9:11: real server 10.0.0.2:80 is twice in virtual service tcp 192.0.2.10:80, first in line 7; remove one, or give it more weight instead".into()),
        (server("method = \"tun\"\ntunnel = \"gue\""), "9:10: a gue tunnel needs a port; set tunnel_port, usually 6080".into()),
        (server("method = \"tun\"\ntunnel_port = 5"), "9:15: tunnel_port with an ipip tunnel; remove it, or set tunnel = \"gue\"".into()),
        (server("method = \"tun\"\ntunnel_checksum = \"full\""), "9:19: an ipip tunnel has no full checksum; remove tunnel_checksum, or choose \"none\"".into()),
        (server("[[service.server]]\n"), "8:1: address is missing; add address = \"10.0.0.2:8080\"".into()),
    ];
    assert!(cases.len() >= 86);
    let wrong: Vec<_> = cases.iter().filter(|(text, fault)| faults(text) != [fault.as_str()]).collect();
    for (text, fault) in &wrong {
        println!("{text}\nexpected: {fault}\nfound:    {}\n", faults(text).join("\n          "));
    }
    assert!(wrong.is_empty());
}

#[test]
fn all_faults_at_once_in_order() {
    let text = "version = 1\nx = \n[director]\nmode = 5\n[[service]]\nscheduler = \"no\"\naddress = 192.0.2.1:80\n[[service.server]]\nweight = true\n";
    let places: Vec<_> = parse("f", text).unwrap_err().0.iter().map(|d| (d.line, d.column)).collect();
    // Of line 7 only that it is not TOML, and nothing about what it may have meant to be.
    assert_eq!(places, [(2, 5), (4, 8), (6, 13), (7, 16), (9, 10)]);
}

#[test]
fn columns_are_characters() {
    assert_eq!(
        faults("version = 1 # ä\ndirector = { group = \"äöü\", mode = 5 }"),
        ["2:36: mode is an integer, not a string; put it in quotes: mode = \"…\""]
    );
}

#[test]
fn everything_set() {
    let text = r#"
version = 1
[director]
instance = "edge-1"
interfaces = ["eth0", "eth1.5"]
mode = "xdp"
vip_default = "reject"
mark_device = "dirigent-mk"
connections = 2_000_000
services = 20_000
servers = 2_000_000
slots = 9_000_000
schedule_icmp = true
nat_icmp_send = true
snat_reroute = false
pmtu_disc = false
expire_nodest_conn = true
expire_quiescent_template = true
sloppy_tcp = true
sloppy_sctp = true
cache_bypass = true
conn_reuse_mode = 2
drop_entry = 1
drop_packet = 2
secure_tcp = 3
amemthresh = 4096
am_droprate = 7
socket = "/run/x.sock"
group = "ops"
operators = "admins"
timeouts = { tcp_established = "2h", udp = "500ms", sctp_established = "1h", sctp_closed = "5s" }
errors = { rate = 0, burst = 1, destination_rate = 2, destination_burst = 3 }
[[service]]
protocol = "udp"
address = "[2001:db8::10]:53"
scheduler = "mh"
scheduler_flags = ["mh-port", "mh-fallback"]
table_size = 65521
one_packet = true
vip = "manage"
[[service.server]]
address = "fd00::2"
method = "dr"
weight = 0x10
[[service.server]]
address = "[fd00::3]:5353"
"#;
    let model = parse("f", text).unwrap();
    let s = model.settings();
    assert_eq!(s.instance, "edge-1");
    assert_eq!(s.interfaces.as_deref().unwrap(), ["eth0", "eth1.5"]);
    assert_eq!((s.mode, s.vip_default, s.connections), (Mode::Xdp, VipDefault::Reject, Some(2_000_000)));
    assert_eq!((s.services, s.servers, s.slots), (Some(20_000), Some(2_000_000), Some(9_000_000)));
    assert_eq!(
        (s.mark_device.as_deref(), s.mark_device_inside().as_deref()),
        (Some("dirigent-mk"), Some("dirigent-mk-in"))
    );
    assert_eq!((s.schedule_icmp, s.nat_icmp_send, s.snat_reroute), (true, true, false));
    let groups = (s.group.as_deref(), s.operators.as_deref());
    assert_eq!((s.socket_path().as_str(), groups), ("/run/x.sock", (Some("ops"), Some("admins"))));
    assert_eq!(s.timeouts.tcp.established, Duration::from_secs(7200));
    assert_eq!(s.timeouts.udp, Duration::from_millis(500));
    assert_eq!(s.timeouts.tcp.fin_wait, Duration::from_secs(120));
    assert_eq!((s.timeouts.sctp.0[8], s.timeouts.sctp.0[13]), (Duration::from_secs(3600), Duration::from_secs(5)));
    assert_eq!(s.timeouts.sctp.0[12], Duration::from_secs(4));
    assert_eq!((s.pmtu_disc, s.expire_nodest_conn, s.expire_quiescent_template), (false, true, true));
    assert_eq!((s.sloppy_tcp, s.sloppy_sctp, s.cache_bypass, s.conn_reuse_mode), (true, true, true, 2));
    let defence = Defence { drop_entry: 1, drop_packet: 2, secure_tcp: 3, amemthresh: 4096, am_droprate: 7 };
    assert_eq!(s.defence, defence);
    assert_eq!(s.errors, ErrorLimits { rate: 0, burst: 1, destination_rate: 2, destination_burst: 3 });

    let [service] = model.services() else { panic!() };
    assert_eq!(
        service.key,
        ServiceKey::Address { protocol: Protocol::Udp, address: "2001:db8::10".parse().unwrap(), port: 53 }
    );
    assert_eq!((service.scheduler, service.one_packet, service.vip), (Scheduler::Mh, true, VipPolicy::Manage));
    assert_eq!(service.scheduler_flags, SchedulerFlags { fallback: true, port: true, third: false });
    assert_eq!((service.table_size, service.table_slots()), (Some(65521), 65521));
    let first = Server { weight: 16, ..Server::new("fd00::2".parse().unwrap(), 53, Method::Dr) };
    let second = Server::new("fd00::3".parse().unwrap(), 5353, Method::Nat);
    assert_eq!(service.servers, [first.clone(), second.clone()]);
    assert_eq!(service.servers_in_list_order().collect::<Vec<_>>(), [&second, &first]);
}

#[test]
fn quic_servers_have_ids() {
    let text = |ids: [&str; 2]| {
        let server = |n: u8, id: &str| format!("[[service.server]]\naddress = \"10.0.0.{n}:443\"\n{id}\n");
        let service = "version = 1\n[[service]]\nprotocol = \"udp\"\naddress = \"192.0.2.10:443\"\nquic = true\n";
        format!("{service}{}{}", server(2, ids[0]), server(3, ids[1]))
    };
    let model = parse("f", &text(["", "server_id = \"C0ffee00\""])).unwrap();
    let ids: Vec<_> = model.services()[0].servers.iter().map(|s| s.quic_id().to_string()).collect();
    assert_eq!(ids, ["0a000002", "c0ffee00"]);
    let v6 = Server::new("2001:db8::a:1".parse().unwrap(), 443, Method::Nat);
    assert_eq!(v6.quic_id().to_string(), "000a0001");
    assert_eq!(
        faults(&text(["", "server_id = \"0a000002\""])),
        [
            "11:13: real server 10.0.0.3:443 has the server_id of another one, 0a000002; give one of them another server_id"
        ]
    );
}

const HEALTH: &str = r#"version = 1
[[service]]
protocol = "tcp"
address = "192.0.2.10:80"
[service.health]
on_failure = "quiesce"
quorum = 3
hysteresis = 1
quorum_up = ["/usr/bin/up", "a b"]
quorum_down = { command = ["/usr/bin/down"], user = "lb" }
notify_at_stop = true
[service.health.sorry]
address = "10.0.0.9"
[[service.server]]
address = "10.0.0.2"
mail = true
[[service.server.check]]
type = "https"
interval = "1s"
start = "down"
port = 8443
sni = "example.com"
request = [{ path = "/a", status = ["200", "300-302"], regex = "ok$", regex_options = ["caseless"] }]
[[service.server.check]]
type = "file"
path = "/run/weight"
weight = -2
"#;

#[test]
fn health_of_servers() {
    let model = parse("f", HEALTH).unwrap();
    let [service] = model.services() else { panic!() };
    let health = &service.health;
    assert_eq!((health.on_failure, health.quorum, health.hysteresis), (OnFailure::Quiesce, 3, 1));
    assert_eq!(health.on_failure_connections, OnFailureConnections::Keep);
    let resets = HEALTH.replace("quorum = 3", "quorum = 3\non_failure_connections = \"reset\"");
    let resets = parse("f", &resets).unwrap();
    assert_eq!(resets.services()[0].health.on_failure_connections, OnFailureConnections::Reset);
    assert_eq!(health.quorum_up.as_ref().unwrap().command, ["/usr/bin/up", "a b"]);
    assert_eq!(health.quorum_down.as_ref().unwrap().user.as_deref(), Some("lb"));
    let sorry = health.sorry.as_ref().unwrap();
    assert_eq!((sorry.address, sorry.port), ([10, 0, 0, 9].into(), 80));
    let [https, file] = &service.servers[0].health.checks[..] else { panic!() };
    assert_eq!((https.pace.interval, https.start_down, https.target.port), (Duration::from_secs(1), true, Some(8443)));
    let Probe::Http(http) = &https.probe else { panic!() };
    assert_eq!(http.tls.as_ref().unwrap().sni.as_deref(), Some("example.com"));
    assert_eq!(http.requests[0].status, [(200, 200), (300, 302)]);
    assert_eq!(file.probe, Probe::File { path: "/run/weight".into(), weight: -2, reverse: false });
    assert_eq!(parse("f", &to_toml(&model)).unwrap(), model);
}

#[test]
fn faults_of_health() {
    for (old, new, fault) in [
        (
            "quorum = 3",
            "quorum = 1",
            "8:14: hysteresis 1 is not below the quorum, 1; lower hysteresis, or raise quorum",
        ),
        (
            "[\"/usr/bin/up\", \"a b\"]",
            "[]",
            "9:13: quorum_up names no program; write [\"/path/to/program\", \"argument\"]",
        ),
        (
            "10.0.0.9",
            "224.0.0.1",
            "13:11: real server 224.0.0.1 is not a unicast address that can be routed; use an address of one host",
        ),
        ("\"https\"", "\"htps\"", "18:8: type is \"htps\"; did you mean \"https\"?"),
        ("\"https\"", "\"http\"", "22:7: sni in a http check; remove it, or set type = \"https\""),
        ("\"1s\"", "\"0s\"", "19:12: interval is 0s; use \"1ms\" to \"31d\""),
        ("8443", "0", "21:8: port is 0; use a whole number from 1 to 65535, without quotes"),
        ("\"/a\"", "\"a\"", "23:21: path is \"a\"; begin it with /, without blanks"),
        ("300-302", "302-300", "23:36: status 302-300; use 100 to 599, the lower first"),
        (
            "caseless",
            "caselessly",
            "23:87: there is no option \"caselessly\"; use names like \"caseless\", \"dotall\", \"multiline\", \"extended\"",
        ),
        ("\"/run/weight\"", "\"run\"", "26:8: path is \"run\"; write the whole path: \"/run/…\""),
        ("weight = -2", "port = 5", "27:8: port in a file check; remove it, or set type = \"tcp\""),
        ("type = \"file\"", "", "24:1: type is missing; add type = \"tcp\", or what the check shall be"),
    ] {
        assert_eq!(faults(&HEALTH.replacen(old, new, 1)), [fault], "{new}");
    }
}

#[test]
fn mark_rules_and_services() {
    let text = r#"
version = 1
[[mark]]
interface = "eth0"
source = "10.1.2.3/8"
destination = "198.51.100.7"
protocol = "tcp"
source_ports = "1024-65535"
destination_ports = "80"
not = ["interface", "source_ports"]
set = 0x10
mask = 0xf0
[[mark]]
destination = "2001:db8::/32"
protocol = "112"
set = 7
[[mark]]
family = 6
set = 8
[[service]]
fwmark = 16
[[service.server]]
address = "10.0.0.2"
[[service.server]]
address = "10.0.0.2:8080"
method = "dr"
[[service]]
fwmark = 7
family = 6
[[service]]
protocol = "tcp"
address = "[2001:db8::10]:80"
"#;
    let model = parse("f", text).unwrap();
    let mark = |mark| NonZeroU32::new(mark).unwrap();
    let keys: Vec<_> = model.services().iter().map(|s| s.key).collect();
    // As ipvsadm lists them: addresses first, then marks by their number.
    assert_eq!(
        keys,
        [
            ServiceKey::Address { protocol: Protocol::Tcp, address: "2001:db8::10".parse().unwrap(), port: 80 },
            ServiceKey::Mark { mark: mark(7), ipv6: true },
            ServiceKey::Mark { mark: mark(16), ipv6: false },
        ]
    );
    let servers =
        [Server::new([10, 0, 0, 2].into(), 0, Method::Nat), Server::new([10, 0, 0, 2].into(), 8080, Method::Dr)];
    assert_eq!(model.services()[2].servers, servers);
    let [first, second, third] = model.marks() else { panic!() };
    assert_eq!(
        first.to_string(),
        "IPv4 interface not eth0 source 10.0.0.0/8 destination 198.51.100.7/32 protocol tcp \
         source ports not 1024-65535 destination ports 80 mark 0x10/0xf0"
    );
    assert_eq!(second.to_string(), "IPv6 destination 2001:db8::/32 protocol 112 mark 7");
    assert_eq!(third, &MarkRule::all(true, 8));
}

#[test]
fn too_many_mark_rules() {
    let rules = |n| format!("version = 1\n{}", "[[mark]]\nset = 1\n".repeat(n));
    assert_eq!(parse("f", &rules(4096)).unwrap().marks().len(), 4096);
    let found = faults(&rules(4097));
    assert_eq!(found, ["2:1: 4097 mark rules are over 4096; use wider prefixes and port ranges, or fewer rules"]);
}

#[test]
fn defaults() {
    let model =
        parse("f", "version = 1\n[director]\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n").unwrap();
    assert_eq!(model.settings(), &Settings::default());
    let key = ServiceKey::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 10].into(), port: 80 };
    assert_eq!(model.services(), [Service::new(key)]);
    assert_eq!(model.settings().socket_path(), "/run/dirigent/main.sock");
    assert_eq!(parse("f", "version = 1").unwrap(), Model::default());
}

#[test]
fn the_example() {
    let model = parse("dirigent.toml", include_str!("../../../../examples/dirigent.toml")).unwrap();
    let [four, six] = model.services() else { panic!() };
    assert_eq!((four.key.to_string().as_str(), four.scheduler), ("tcp 192.0.2.10:80", Scheduler::Wrr));
    assert_eq!((six.key.to_string().as_str(), six.scheduler), ("tcp [2001:db8::10]:80", Scheduler::Rr));
    let names: Vec<_> = four.servers.iter().chain(&six.servers).map(Server::name).collect();
    assert_eq!(
        names,
        ["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.4:8080", "[fd00::2]:8080", "[fd00::3]:8080", "[fd00::4]:8080"]
    );
    assert!(four.servers.iter().chain(&six.servers).all(|s| s.method == Method::Nat));
}

/// docs/config.md describes each key of `keys`, with its type and default, and no other.
#[test]
fn documentation_is_complete() {
    let mut documented = Vec::new();
    let mut header = "";
    for line in include_str!("../../../../docs/config.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            header = if title == "Top of the file" { "" } else { title.trim_matches('`') };
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<_> = row.split(" | ").map(|c| c.trim_matches('`')).collect();
            assert!(cells[3].len() > 3, "{line}");
            documented.push((header, cells[0], cells[1], cells[2]));
        }
    }
    let known: Vec<_> =
        super::keys::TABLES.iter().flat_map(|t| t.keys.iter().map(|k| (t.header, k.name, k.kind, k.default))).collect();
    assert_eq!(documented, known);
}

/// The defaults in `keys`, and so those documented, are the Model's.
#[test]
fn documented_defaults_are_true() {
    let mut text = String::from("version = 1\n");
    for table in super::keys::TABLES[1..].iter().filter(|t| t.header.starts_with('[')) {
        text += &format!("{}\n", table.header);
        if table.header == "[[mark]]" {
            text += "set = 1\n";
        }
        text += match table.header {
            "[director.api]" => "listen = \"[::1]:1\"\ncertificate = \"/c\"\nkey = \"/k\"\nclients = \"/r\"\n",
            "[[service]]" => "protocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n",
            "[[service.server]]" | "[service.health.sorry]" => "address = \"10.0.0.2\"\nmethod = \"tun\"\n",
            "[[service.server.check]]" => "type = \"http\"\n",
            "[[router]]" => "name = \"r\"\ninterface = \"eth0\"\nvrid = 1\n",
            "[router.authentication]" => "password = \"x\"\n",
            "[[router_group]]" => "name = \"g\"\nmembers = [\"r\"]\n",
            "[[track_script]]" | "[[track_process]]" => "name = \"t\"\ncommand = [\"/x\"]\n",
            "[[track_file]]" => "name = \"t\"\npath = \"/x\"\ninitial = 1\n",
            "[[bfd]]" => "name = \"t\"\naddress = \"10.0.0.2\"\n",
            "[[interface_delay]]" => "interface = \"eth0\"\n",
            "[[fifo]]" => "path = \"/x\"\n",
            "[mail]" => "server = \"m\"\nto = [\"x\"]\n",
            "[sync]" => "interface = \"eth1\"\n",
            _ => "",
        };
        for key in table.keys.iter().filter(|k| !["required", "none"].contains(&k.default) && k.name != "method") {
            text += &format!("{} = {}\n", key.name, key.default);
        }
    }
    // Of version 2 only.
    text = text.replacen("version = 3", "version = 2", 1);
    let model = parse("f", &text).unwrap();
    let failover = plain_failover();
    assert_eq!(model.failover(), &failover);
    // What is at its default is not printed: each table is its header and what it must have.
    let mut printed = String::new();
    super::failover::print(&failover, &mut printed);
    assert_eq!(printed.lines().filter(|line| line.contains(" = ")).count(), 21, "{printed}");
    let api = model.settings().api.clone().unwrap();
    assert_eq!(api.operators, Vec::<String>::new());
    // An empty table says that there is a page.
    let page = Some(crate::Page::default());
    assert_eq!(model.settings(), &Settings { api: Some(api), page, ..Settings::default() });
    assert_eq!(model.marks(), [MarkRule::all(false, 1)]);
    let [service] = model.services() else { panic!() };
    let mut plain = Service::new(service.key);
    plain.persistence = Some(Persistence { timeout_s: DEFAULT_PERSISTENCE_S, mask: Netmask::whole(false) });
    plain.servers = vec![Server::new([10, 0, 0, 2].into(), 80, Method::Tun(Tunnel::default()))];
    let tun = Method::Tun(Tunnel::default());
    let sorry = Sorry { address: [10, 0, 0, 2].into(), port: 80, method: tun, on_failure: OnFailure::Remove };
    plain.health.sorry = Some(Box::new(sorry));
    let http = Http { requests: vec![Request::default()], ..Http::default() };
    plain.servers[0].health =
        Arc::new(ServerHealth { checks: vec![Check::new(Probe::Http(http))], ..ServerHealth::default() });
    assert_eq!(service, &plain);
    assert!(super::keys::SERVER.keys.iter().any(|k| (k.name, k.default) == ("method", "\"nat\"")));
}

const ROUTER: &str = r#"version = 1
[[router]]
name = "web"
interface = "eth0"
vrid = 51
addresses = [
  "192.0.2.10/24",
  { address = "192.0.2.11/24", device = "eth1" },
]
"#;

#[test]
fn faults_of_failover_have_their_places() {
    assert_eq!(faults(ROUTER), [""; 0]);
    let add = |lines: &str| format!("{ROUTER}{lines}\n");
    let cases = [
        (
            ROUTER.replace("vrid = 51", "vird = 51"),
            vec!["2:1: vrid is missing; add vrid = 51", "5:1: unknown key \"vird\" in [[router]]; did you mean vrid?"],
        ),
        (
            ROUTER.replace("\"192.0.2.10/24\"", "\"192.0.2.10/40\""),
            vec![
                "7:3: addresses holds \"192.0.2.10/40\", no address; write it like \"192.0.2.10/24\" or { address = \"2001:db8::10/64\", device = \"eth1\" }",
            ],
        ),
        (
            ROUTER.replace("192.0.2.11/24\", device", "2001:db8::1\", device"),
            vec![
                "8:3: 2001:db8::1 is of another family than the virtual router; use addresses of one family, and put others into excluded",
            ],
        ),
        (
            ROUTER.replace("device = \"eth1\"", "devise = \"eth1\""),
            vec!["8:32: unknown key \"devise\" in an address; did you mean device?"],
        ),
        (
            add("version = 2\ninterval = \"1500ms\""),
            vec!["11:12: interval is 1500ms in version 2; use whole seconds, 1s to 255s, or version = 3"],
        ),
        (
            add("state = \"master\"\npreempt = false"),
            vec![
                "11:11: state master without preempt would take over at each start; set state = \"backup\", or remove preempt",
            ],
        ),
        (
            add("[router.authentication]\npassword = \"s3cret\""),
            vec!["11:12: version 3 has no authentication; remove it, or use version = 2"],
        ),
        (
            add("[router.track]\nscripts = [\"a\",\n\"b\"]\nservices = [\"tcp:192.0.2.10:80\"]"),
            vec![
                "11:12: \"a\" is no track_script; add a table [[track_script]], or correct the name",
                "12:1: \"b\" is no track_script; add a table [[track_script]], or correct the name",
                "13:13: there is no service tcp 192.0.2.10:80; add it, or correct the name",
            ],
        ),
        (
            add("[router.anounce]\ndelay = \"1s\""),
            vec!["10:9: unknown key \"anounce\" in [[router]]; did you mean announce?"],
        ),
        (
            add("[[router]]\nname = \"other\"\ninterface = \"eth0\"\nvrid = 51"),
            vec!["13:8: vrid 51 on this interface is that of web too; give one of them another vrid"],
        ),
        (
            add(
                "[router.virtual_mac]\n[[router]]\nname = \"other\"\ninterface = \"eth1\"\nvrid = 51\n[router.virtual_mac]",
            ),
            vec![
                "15:1: the device vrrp.51 with the virtual MAC is another virtual router's, too; give one of the two another name",
            ],
        ),
        (
            add("[[router_group]]\nname = \"g\"\nmembers = [\"web\", \"wob\"]"),
            vec!["12:19: there is no virtual router \"wob\"; add a table [[router]], or correct the name"],
        ),
        (
            add("[sync]\nrouter = \"web\""),
            vec!["10:1: synchronisation has no interface; add interface = \"eth1\", or peers"],
        ),
        (
            add("[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.11:80\"\nvip = \"manage\""),
            vec![
                "13:7: vip of virtual service tcp 192.0.2.11:80 is \"manage\", but virtual router web has its address; \
             remove vip: the master of the virtual router has the address; or take it out of the router",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(faults(&text), expected, "{text}");
    }
}

#[test]
fn a_virtual_address_is_held_once() {
    let service = "[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n";
    let mut model = parse("f", &format!("{ROUTER}{service}")).unwrap();
    let managed = Service { vip: VipPolicy::Manage, ..model.services()[0].clone() };
    let refused = model.put_service(managed.clone()).unwrap_err().to_string();
    assert!(refused.starts_with("Invalid operation"), "{refused}");
    let found =
        Model::whole(model.settings().clone(), vec![managed.clone()], vec![], model.failover().clone()).unwrap_err();
    assert_eq!(found.len(), 1);
    // What was managed at runtime yields to a router that the file gets.
    let file = parse("f", &format!("version = 1\n{service}")).unwrap();
    let mut changed = file.clone();
    changed.put_service(managed).unwrap();
    let (new, lost) = crate::Overlay::between(&file, &changed).apply(&model);
    assert_eq!(new, model);
    assert_eq!(lost[0].to_string(), "changes of service tcp 192.0.2.10:80, which do not fit what the file says of it");
}

#[test]
fn secrets_are_told_by_the_file_alone() {
    let text = format!(
        "{ROUTER}version = 2\nauthentication = {{ password = \"s3cret\" }}\n[sync]\ninterface = \"eth1\"\nkey = \"0123456789abcdef\"\n"
    );
    let model = parse("f", &text).unwrap();
    let plan = crate::Plan::between(&Model::default(), &model).to_string();
    assert_eq!(
        plan,
        "set failover to\n  virtual router web vrid 51 on eth0 version 2 priority 100 begins as backup advert 1s addresses \
         192.0.2.10,192.0.2.11 authenticated\n  synchronisation both on eth1 id 0 port 8848 signed\n"
    );
    let shown = format!("{model:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("0123456789abcdef"), "{shown}");
    assert!(to_toml(&model).contains("s3cret"));
}

fn plain_failover() -> Failover {
    let name = || "t".to_owned();
    let authentication = Authentication { ah: false, password: Secret("x".into()) };
    let router = VirtualRouter {
        name: "r".into(),
        interface: Some("eth0".into()),
        vrid: 1,
        version: Version::V2,
        authentication: Some(authentication),
        virtual_mac: Some(VirtualMac::default()),
        ..VirtualRouter::default()
    };
    let command = Script { command: vec!["/x".into()], user: None, group: None };
    let target = Target { address: Some([10, 0, 0, 2].into()), ..Target::default() };
    Failover {
        routers: vec![router],
        groups: vec![SyncGroup { name: "g".into(), members: vec!["r".into()], ..SyncGroup::default() }],
        scripts: vec![TrackScript { name: name(), command, ..TrackScript::default() }],
        files: vec![TrackFile { name: name(), path: "/x".into(), initial: Some(1), ..TrackFile::default() }],
        processes: vec![TrackProcess { name: name(), command: vec!["/x".into()], ..TrackProcess::default() }],
        bfd: vec![BfdSession { name: name(), target, ..BfdSession::default() }],
        interface_delays: vec![InterfaceDelay { interface: "eth0".into(), ..InterfaceDelay::default() }],
        fifos: vec![Fifo { path: "/x".into(), ..Fifo::default() }],
        mail: Some(Mail { server: "m".into(), to: vec!["x".into()], ..Mail::default() }),
        sync: Some(Sync { interface: Some("eth1".into()), ..Sync::default() }),
        ..Failover::default()
    }
}

proptest! {
    #[test]
    fn round_trip(model in model()) {
        prop_assert_eq!(parse("f", &to_toml(&model)), Ok(model));
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse("f", &text);
    }

    /// Text made of a file's pieces gets deeper than random characters.
    #[test]
    fn no_mixture_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        if let Err(found) = parse("f", &pieces.concat()) {
            prop_assert!(!found.0.is_empty());
            prop_assert!(found.0.iter().all(|d| d.line > 0 && d.column > 0 && !d.remedy.is_empty()));
        }
    }

    #[test]
    fn no_cut_panics(model in model(), cut in any::<prop::sample::Index>(), byte in any::<char>()) {
        let mut text = to_toml(&model);
        let at = cut.index(text.len() + 1);
        if text.is_char_boundary(at) {
            text.insert(at, byte);
            let _ = parse("f", &text);
            text.truncate(at);
            let _ = parse("f", &text);
        }
    }
}

const PIECES: &[&str] = &[
    "version",
    "director",
    "service",
    "server",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    " ",
    "\"",
    "'",
    "1",
    "-1",
    "0x",
    "\"5m\"",
    "\"192.0.2.10:80\"",
    "\"[::1]:80\"",
    "address",
    "weight",
    "timeouts",
    "udp",
    "persistence",
    "version = 1\n",
    "\n[[service]]\n",
    "\n[[service.server]]\n",
    "protocol = \"tcp\"\n",
    "address = \"192.0.2.10:80\"\n",
    "true",
    "method = \"tun\"\n",
    "tunnel = \"gue\"\n",
    "mask = \"/64\"\n",
    "\n[service.persistence]\n",
    "#",
    "ä",
    "\"\"\"",
];
