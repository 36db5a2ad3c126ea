use super::*;
use crate::error::Violation;
use crate::mark::*;
use crate::model::*;
use crate::settings::Settings;
use proptest::prelude::*;
use std::num::NonZeroU32;

fn run(model: &mut Model, lines: &str) {
    for line in lines.lines() {
        match Command::parse(line) {
            Ok(Some(command)) => command.apply(model).unwrap_or_else(|e| panic!("{line}: {e}")),
            Ok(None) => {}
            Err(e) => panic!("{line}: {e}"),
        }
    }
}

/// The services, as a person would write them.
fn listing(model: &Model) -> String {
    let mut out = String::new();
    for s in model.services() {
        out += &format!("{} {}{}", s.key, s.scheduler, if s.one_packet { " ops" } else { "" });
        out += &s
            .servers_in_list_order()
            .map(|r| format!(" | {} {} {}", r.name(), r.method.name(), r.weight))
            .collect::<String>();
        out += "\n";
    }
    out
}

const BASE: &str = "-A -t 192.0.2.10:80 -s rr
-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m
-A -t [2001:db8::10]:80";

fn base() -> Model {
    let mut model = Model::default();
    run(&mut model, BASE);
    model
}

#[test]
fn set_up_of_a_recording() {
    let mut model = Model::default();
    run(
        &mut model,
        "ipvsadm -A -t 192.0.2.10:80 -s rr\n\
         ipvsadm -a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m \n\
         ipvsadm -A -u 192.0.2.10:53 -s rr  -o\n\
         ipvsadm -a -u 192.0.2.10:53 -r 10.1.0.11:5353 -m -w 3\n\
         \n\
         \x20 ipvsadm  -A -t [2001:db8::10]:80\n\
         ipvsadm -a -t [2001:db8::10]:80 -r [fd00:1::11]:80 -g\n\
         ipvsadm -A --sctp-service 192.0.2.10:80 -s rr\n\
         ipvsadm -a --sctp-service 192.0.2.10:80 -r 10.1.0.11:81 -m",
    );
    assert_eq!(
        listing(&model),
        "tcp 192.0.2.10:80 rr | 10.1.0.11:8080 nat 1\n\
         udp 192.0.2.10:53 rr ops | 10.1.0.11:5353 nat 3\n\
         sctp 192.0.2.10:80 rr | 10.1.0.11:81 nat 1\n\
         tcp [2001:db8::10]:80 wlc | [fd00:1::11]:80 dr 1\n"
    );
}

#[test]
fn newest_first_and_edits_replace() {
    let mut model = base();
    run(&mut model, "-a -t 192.0.2.10:80 -r 10.1.0.12 -m -w 5\n-a -t 192.0.2.10:80 -r 10.1.0.13:99 -w 7");
    let line = |rest| format!("tcp 192.0.2.10:80 {rest}\ntcp [2001:db8::10]:80 wlc\n");
    // No port, or a method that changes none: the service's.
    assert_eq!(listing(&model), line("rr | 10.1.0.13:80 dr 7 | 10.1.0.12:80 nat 5 | 10.1.0.11:80 nat 1"));
    // An edit keeps the place and resets what it does not repeat.
    run(&mut model, "-e -t 192.0.2.10:80 -r 10.1.0.12:80\n-E -t 192.0.2.10:80");
    assert_eq!(listing(&model), line("wlc | 10.1.0.13:80 dr 7 | 10.1.0.12:80 dr 1 | 10.1.0.11:80 nat 1"));
    // Removed and added again it is the newest.
    run(&mut model, "-d -t 192.0.2.10:80 -r 10.1.0.11\n-a -t 192.0.2.10:80 -r 10.1.0.11 -w0");
    assert_eq!(listing(&model), line("wlc | 10.1.0.11:80 dr 0 | 10.1.0.13:80 dr 7 | 10.1.0.12:80 dr 1"));
    run(&mut model, "-D -t 192.0.2.10:80");
    assert_eq!(listing(&model), "tcp [2001:db8::10]:80 wlc\n");
    run(&mut model, "--clear");
    assert_eq!(listing(&model), "");
}

#[test]
fn edits_keep_who_holds_the_address() {
    let mut service = Service::new(base().services()[0].key);
    service.vip = VipPolicy::Manage;
    let mut model = Model::new(Settings::default(), vec![service], vec![]).unwrap();
    run(&mut model, "-E -t 192.0.2.10:80 -s rr");
    assert_eq!(model.services()[0].vip, VipPolicy::Manage);
}

#[test]
fn edits_keep_what_ipvs_does_not_have() {
    let text = "version = 1\n[[service]]\nprotocol = \"udp\"\naddress = \"192.0.2.10:443\"\nquic = true\n\
                [[service.server]]\naddress = \"10.0.0.2:443\"\nserver_id = \"00000007\"\n\
                [[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:443\"\nscheduler = \"mh\"\nstateless = true\n\
                table_size = 65521\n\
                [[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:444\"\nslow_start = \"30s\"\n";
    let mut model = crate::file::parse("f", text).unwrap();
    let key = model.services().iter().find(|s| s.quic).unwrap().key;
    let server = model.service(&key).unwrap().servers[0].clone();
    model.edit_server(&key, crate::Server { draining: true, ..server }).unwrap();
    let plan = Command::parse("-e -u 192.0.2.10:443 -r 10.0.0.2:443 -m -w 5").unwrap().unwrap().plan(&model).unwrap();
    plan.apply(&mut model).unwrap();
    run(&mut model, "-E -u 192.0.2.10:443 -s wrr");
    run(&mut model, "-E -t 192.0.2.10:443 -s mh -b mh-port");
    run(&mut model, "-E -t 192.0.2.10:444 -s wrr");
    let [tcp, slow, udp] = model.services() else { panic!() };
    assert_eq!(tcp.table_size, Some(65521));
    assert!(tcp.stateless && udp.quic && slow.slow_start.is_some() && udp.servers[0].draining);
    assert_eq!((udp.servers[0].weight, udp.servers[0].quic_id()), (5, crate::ServerId(7)));
    // What that leaves no room for is refused.
    let rr = Command::parse("-E -t 192.0.2.10:443 -s rr").unwrap().unwrap();
    assert!(matches!(rr.apply(&mut model), Err(IpvsError::Invalid(Violation::Stateless { .. }))));
}

#[test]
fn spellings_of_one_command() {
    let expected = Command::parse("-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m -w 5 -x 9 -y 3").unwrap();
    for line in [
        "ipvsadm -a -t 192.0.2.10:80 -r 10.1.0.11:80 -m -w 5 -x 9 -y 3 ",
        "-at 192.0.2.10:80 -mr 10.1.0.11:80 -w5 -x=9 -y3",
        "--add-server --tcp-service 192.0.2.10:80 --real-server 10.1.0.11:80 --masquerading --weight 5 --u-threshold 9 --l-threshold 3",
        "--add-server --tcp-service=192.0.2.10:80 --real-server=10.1.0.11:80 --masquerading --weight=5 --u-threshold=9 --l-threshold=3",
        "\t-a\t-y 3 -x 9 -w 5 -m -t 192.0.2.10:80   -r 10.1.0.11",
    ] {
        assert_eq!(Command::parse(line).unwrap(), expected, "{line}");
    }
}

/// The whole grammar is read, whatever this version does of it.
#[test]
fn everything_is_read() {
    let service = |line: &str| match Command::parse(line).unwrap().unwrap() {
        Command::AddService(rule) | Command::EditService(rule) => rule,
        other => panic!("{other:?}"),
    };
    let persistence = |line| service(line).persistence.map(|p| (p.timeout_s, p.mask.to_string()));
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p"), Some((360, "255.255.255.255".into())));
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p -s rr"), Some((360, "255.255.255.255".into())));
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p 10 -M 255.255.0.0"), Some((10, "255.255.0.0".into())));
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p 10 -M 24"), Some((10, "0.0.0.24".into())));
    assert_eq!(persistence("-A -t [2001:db8::1]:80 -p 10 -M 64"), Some((10, "/64".into())));
    assert_eq!(persistence("-E -f 3 -6 -p 10"), Some((10, "/128".into())));
    assert_eq!(service("-A -f 3").service, ServiceKey::Mark { mark: NonZeroU32::new(3).unwrap(), ipv6: false });
    assert_eq!(service("-A -u 192.0.2.1:5060 --pe sip -s nosuch").engine.as_deref(), Some("sip"));
    assert_eq!(service("-A --sctp-service 192.0.2.1:80 -s nosuch").scheduler, "nosuch");
    let flags = service("-A -t 192.0.2.1:80 -s sh -b sh-port,flag-3").scheduler_flags;
    assert_eq!(flags, SchedulerFlags { fallback: false, port: true, third: true });

    let server = |line: &str| match Command::parse(line).unwrap().unwrap() {
        Command::AddServer(rule) | Command::EditServer(rule) => rule.server,
        other => panic!("{other:?}"),
    };
    let tunnel = |line: &str| match server(&format!("-a -t 192.0.2.1:80 -r [fd00::1]:99 -i {line}")) {
        Server { method: Method::Tun(tunnel), port: 80, .. } => (tunnel.kind, tunnel.checksum),
        other => panic!("{other:?}"),
    };
    assert_eq!(tunnel(""), (TunnelKind::Ipip, TunnelChecksum::None));
    assert_eq!(tunnel("--tun-type gre --tun-csum"), (TunnelKind::Gre, TunnelChecksum::Full));
    assert_eq!(
        tunnel("--tun-type gue --tun-port 6080 --tun-remcsum"),
        (TunnelKind::Gue { port: 6080 }, TunnelChecksum::Remote)
    );
    assert_eq!(
        tunnel("--tun-type gue --tun-port 6080 --tun-nocsum"),
        (TunnelKind::Gue { port: 6080 }, TunnelChecksum::None)
    );
    // With a mark there is no port to force.
    assert_eq!(server("-a -f 1 -r 10.1.0.11:7 -g").port, 7);

    let mut model = base();
    run(&mut model, "--set 20 0 10");
    let t = model.settings().timeouts;
    assert_eq!([t.tcp.established, t.tcp.fin_wait, t.udp], [20, 120, 10].map(std::time::Duration::from_secs));
}

/// Lines that ipvsadm refuses itself: recorded (oracle/golden/text/text-errors.json).
#[test]
fn option_errors() {
    const HELP: &str = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.";
    const VIRTUAL: &str = "illegal virtual server address[:port] specified";
    const REAL: &str = "illegal real server address[:port] specified";
    const FAMILY: &str = "Different address family is allowed only for tunneling servers";
    for (line, exit_code, message) in [
        ("-A", 2, "You need to supply the 'service-address' option for the 'add-service' command"),
        ("-A -t 192.0.2.10", 2, "Zero port specified for non-persistent service"),
        ("-A -t 192.0.2.11:80 -s rr -p -5", 255, "-5: unknown option"),
        ("-A -t 192.0.2.11:80 -s rr -p abc", 2, "invalid timeout value `abc' specified"),
        ("-A -t 192.0.2.11:80 -s rr -p 0", 2, "invalid timeout value `0' specified"),
        ("-A -t [2001:db8::11]:81 -s rr -p 10 -M 0", 2, "illegal ipv6 netmask specified"),
        ("-A -t 192.0.2.11:70000 -s rr", 2, VIRTUAL),
        ("-A -t 192.0.2.11:-1 -s rr", 2, VIRTUAL),
        ("-A -t 300.0.2.11:80 -s rr", 2, VIRTUAL),
        ("-A -t nosuchhost:80 -s rr", 2, VIRTUAL),
        ("-A -t 80", 2, VIRTUAL),
        ("-A -t 2001:db8::11:80 -s rr", 2, "Zero port specified for non-persistent service"),
        ("-A -t [zz::11]:80 -s rr", 2, VIRTUAL),
        ("-A -t '192.0.2.20:80' -s \"rr\"", 2, VIRTUAL),
        ("-A -t 192.0.2.11:84 -s rr -b sh-port", 2, "incompatible scheduler flag `sh-port'"),
        ("-A -t 192.0.2.11:85 -s sh -b nosuchflag", 2, "invalid scheduler flag `nosuchflag'"),
        ("-A -t 192.0.2.11:88 -s rr -o", 2, "One-Packet Scheduling is only for UDP virtual services"),
        ("-A -t 192.0.2.11:89 -u 192.0.2.11:90 -s rr", 2, "multiple 'service-address' options specified"),
        ("-A -f -1 -s rr", 2, "invalid fwmark value `-1' specified"),
        ("-A -f 0 -s rr", 2, "invalid fwmark value `0' specified"),
        ("-A -f 4294967296 -s rr", 2, "invalid fwmark value `4294967296' specified"),
        ("-A -6 -f 1", 2, "-6 used before -f\n"),
        ("-A -t 192.0.2.11:91 -s rr -w 5", 2, "Illegal 'weight' option with the 'add-service' command"),
        ("-A -t 192.0.2.11:92 -r 10.1.0.11 -s rr", 2, "Illegal 'real-server' option with the 'add-service' command"),
        ("-A -t 192.0.2.11:95 -s rr extra", 2, "unexpected argument extra"),
        ("-A -t 192.0.2.11:97 -s rr -n", 2, "Illegal 'numeric' option with the 'add-service' command"),
        ("-D -t 192.0.2.10:80 -s rr", 2, "Illegal 'scheduler' option with the 'delete-service' command"),
        ("-a -t 192.0.2.10:80", 2, "You need to supply the 'real-server' option for the 'add-server' command"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.13:80 -m -w abc", 2, "illegal weight specified"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.13:80 -m -w 2147483648", 2, "illegal weight specified"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.19:80 -m -g", 2, "multiple 'forwarding-method' options specified"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.21:80 -m -x abc", 2, "illegal u_threshold specified"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.21:80 -m -y -1", 2, "illegal l_threshold specified"),
        ("-a -t 192.0.2.10:80 -r [fd00:1::11]:80 -m", 2, FAMILY),
        ("-a -t [2001:db8::10]:80 -r 10.1.0.11:80 -g", 2, FAMILY),
        ("-a -f 5 -r fd00:1::11 -g", 2, FAMILY),
        ("-a -f 5 -r [fd00:1::11] -g", 2, REAL),
        ("-a -t 192.0.2.10:80 -r nosuchhost:80 -m", 2, REAL),
        (
            "-a -t 192.0.2.10:80 -r 10.1.0.30:80 -i --tun-type gue",
            2,
            "You need to supply the 'tun-port' option for the 'gue' tunnel type",
        ),
        ("-a -t 192.0.2.10:80 -r 10.1.0.30:80 -i --tun-type gue --tun-port 0", 2, "illegal tunnel port specified"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.30:80 -i --tun-type vxlan", 2, "illegal tunnel type specified"),
        (
            "-a -t 192.0.2.10:80 -r 10.1.0.32:80 -m --tun-type gue --tun-port 6080",
            2,
            "Tunnel options conflict with forward method",
        ),
        (
            "-a -t 192.0.2.10:80 -r 10.1.0.33:80 -i --tun-type ipip --tun-port 6080",
            2,
            "Illegal 'tun-port' option with the 'ipip' tunnel type",
        ),
        (
            "-a -t 192.0.2.10:80 -r 10.1.0.34:80 -i --tun-type gre --tun-remcsum",
            2,
            "Illegal 'tun-remcsum' option with the 'gre' tunnel type",
        ),
        (
            "-d -t 192.0.2.10:80 -r 10.1.0.11:80 -m",
            2,
            "Illegal 'forwarding-method' option with the 'delete-server' command",
        ),
        ("-C -n", 2, "Illegal 'numeric' option with the 'flush' command"),
        ("-C -t 192.0.2.10:80", 2, "Illegal 'service-address' option with the 'flush' command"),
        ("-A -D -t 192.0.2.10:80", 2, "invalid option `-D'"),
        ("-AD -t 192.0.2.10:80", 2, "invalid option `-AD'"),
        ("--set 10 20", 2, "--set option requires 3 timeout values"),
        ("--set -1 0 0", 255, "-1: unknown option"),
        ("--set abc 0 0", 2, "invalid timeout value `abc' specified"),
        ("--set 1 2 3 4", 2, "unexpected argument 4"),
        ("-A -t", 255, "-t: missing argument"),
        ("-A --bogus", 255, "--bogus: unknown option"),
        ("-A --ops=yes", 255, "--ops=yes: option does not take an argument"),
        ("--bogus", 255, HELP),
        ("foo", 255, HELP),
        ("# comment", 255, HELP),
        ("-t 192.0.2.10:80 -A", 255, HELP),
        ("-L -n", 2, "this command changes nothing"),
    ] {
        assert_eq!(Command::parse(line), Err(OptionError { exit_code, message: message.into() }), "{line}");
    }
    assert_eq!(Command::parse("  "), Ok(None));
    assert_eq!(Command::parse("ipvsadm "), Ok(None));
}

/// Sound lines that the kernel refuses, recorded likewise.
#[test]
fn kernel_errors() {
    for (line, errno, message) in [
        ("-A -t 192.0.2.10:80 -s rr", 17, "Service already exists"),
        ("-A -t 192.0.2.11:80 -s nosuch", 2, "Scheduler or persistence engine not found"),
        ("-A -t 192.0.2.11:94 -s rr --pe nosuch", 2, "Scheduler or persistence engine not found"),
        ("-E -t 192.0.2.10:80 -s nosuch", 2, "Scheduler or persistence engine not found"),
        ("-E -t 192.0.2.99:80", 3, "No such service"),
        ("-D -t 192.0.2.99:80", 3, "No such service"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m", 17, "Destination already exists"),
        ("-a -t 192.0.2.99:80 -r 10.1.0.11:80 -m", 3, "Service not defined"),
        ("-e -t 192.0.2.99:80 -r 10.1.0.11:80 -m", 3, "Service not defined"),
        ("-d -t 192.0.2.99:80 -r 10.1.0.11:80", 3, "Service not defined"),
        ("-e -t 192.0.2.10:80 -r 10.1.0.99:80 -m -w 2", 2, "No such destination"),
        ("-d -t 192.0.2.10:80 -r 10.1.0.99:80", 2, "No such destination"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.22:80 -m -y 5", 34, "Numerical result out of range"),
        ("-a -t 192.0.2.10:80 -r 10.1.0.22:80 -m -x 10 -y 20", 34, "Numerical result out of range"),
        (
            "-a -t 192.0.2.10:80 -r 224.0.0.1:80 -m",
            22,
            "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        ),
        (
            "-a -t 192.0.2.10:80 -r 255.255.255.255:80 -m",
            22,
            "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        ),
        (
            "-a -t 192.0.2.10:80 -r 0.0.0.0:80 -m",
            22,
            "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        ),
        (
            "-a -t [2001:db8::10]:80 -r [fe80::1]:80 -m",
            22,
            "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        ),
        // Ours.
        (
            "-A -u 192.0.2.11:80 --pe sip",
            95,
            "persistence engine sip is refused: it would read the text of every datagram; persistence without --pe, or \
             scheduler sh or mh, keeps a proxy's calls on one server by its address",
        ),
    ] {
        let mut model = base();
        let error = Command::parse(line).unwrap().unwrap().apply(&mut model).unwrap_err();
        assert_eq!((error.errno(), error.to_string().as_str()), (errno, message), "{line}");
        assert_eq!(model, base(), "{line}");
    }
    for line in [
        "-a -t 192.0.2.10:80 -r 127.0.0.1:80 -m",
        "-A -t 224.0.0.1:80",
        "-A -t 0.0.0.0:80",
        "-a -t 192.0.2.10:80 -r 10.1.0.12:0 -m",
    ] {
        run(&mut base(), line);
    }
}

#[test]
fn a_model_says_all_that_is_wrong() {
    let key = base().services()[0].key;
    let bad = Server { weight: MAX_WEIGHT + 1, lower: 1, ..Server::new([224, 0, 0, 1].into(), 81, Method::Dr) };
    let gue = Tunnel { kind: TunnelKind::Gue { port: 0 }, checksum: TunnelChecksum::None };
    let service = Service {
        one_packet: true,
        persistence: Some(Persistence { timeout_s: 0, mask: Netmask::V6(64) }),
        servers: vec![
            bad.clone(),
            bad,
            Server::new("fd00::1".parse().unwrap(), 80, Method::Nat),
            Server::new([10, 0, 0, 1].into(), 80, Method::Tun(gue)),
        ],
        ..Service::new(key)
    };
    let settings = Settings { instance: String::new(), ..Settings::default() };
    let all_ports = ServiceKey::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 10].into(), port: 0 };
    let by_mark = ServiceKey::Mark { mark: NonZeroU32::MIN, ipv6: true };
    let managed = Service { vip: VipPolicy::Manage, ..Service::new(by_mark) };
    let services = vec![service, Service::new(key), Service::new(all_ports), managed];
    let prefix = Test::is(Prefix::parse("2001:db8::/32").unwrap());
    let mark = MarkRule {
        interface: Some(Test::is("a b".into())),
        source: Some(prefix),
        protocol: Some(Test::is(0)),
        ..MarkRule::all(false, 1)
    };
    let found = Model::new(settings, services, vec![mark]).unwrap_err();
    let texts: Vec<_> = found.iter().map(Violation::to_string).collect();
    assert_eq!(
        texts,
        [
            "instance \"\" is no name",
            "interface \"a b\" is no name of an interface",
            "source 2001:db8::/32 has another address family than the mark rule",
            "protocol is \"0\"",
            "one-packet scheduling of virtual service tcp 192.0.2.10:80, which is not UDP",
            "persistence of 0 s is not within 1 s and 2678400 s",
            "the persistence mask /64 does not fit the service's address family",
            "weight 2147483648 is over 2147483647",
            "the lower threshold 1 is above the upper one, 0",
            "real server 224.0.0.1 is not a unicast address that can be routed",
            "method dr does not change ports, but the real server's port 81 differs from the service's, 80",
            "weight 2147483648 is over 2147483647",
            "the lower threshold 1 is above the upper one, 0",
            "real server 224.0.0.1 is not a unicast address that can be routed",
            "method dr does not change ports, but the real server's port 81 differs from the service's, 80",
            "real server 224.0.0.1:81 is twice in virtual service tcp 192.0.2.10:80",
            "real server fd00::1 has another address family than its virtual service",
            "a gue tunnel needs a port",
            "virtual service tcp 192.0.2.10:80 is there twice",
            "virtual service tcp 192.0.2.10:0 has port 0 (all ports) but no persistence",
            "virtual service fwmark 1 IPv6 has no address that the daemon could hold",
        ]
    );
}

proptest! {
    #[test]
    fn no_line_panics(line in any::<String>()) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn no_mixture_panics(lines in prop::collection::vec(prop::collection::vec(prop::sample::select(WORDS), 1..9), 1..9)) {
        let mut model = base();
        for words in lines {
            let before = model.clone();
            match Command::from_args(&words).map(|c| c.apply(&mut model)) {
                Ok(Ok(())) => {}
                _ => prop_assert_eq!(&model, &before),
            }
        }
        prop_assert!(Model::new(model.settings().clone(), model.services().to_vec(), vec![]).is_ok());
    }
}

const WORDS: &[&str] = &[
    "-A",
    "-E",
    "-D",
    "-a",
    "-e",
    "-d",
    "-C",
    "--set",
    "-t",
    "-u",
    "-f",
    "-6",
    "-s",
    "-p",
    "-M",
    "-r",
    "-m",
    "-i",
    "-g",
    "-w",
    "-x",
    "-y",
    "-o",
    "-b",
    "--pe",
    "--tun-type",
    "--tun-port",
    "--tun-csum",
    "192.0.2.10:80",
    "10.0.0.1:80",
    "10.0.0.2",
    "rr",
    "[fd00::1]:80",
    "gue",
    "5",
    "0",
    "",
    "-",
    "--",
    "-=",
    "=",
    "-w=",
    "24",
    "mh-port",
    "-At",
    "ä",
    "-ä",
];

/// What the tables are told is what stands between the Models; but an edit that changes
/// nothing is an edit: wrr's round begins anew (recording change-wrr-position).
#[test]
fn commands_as_plans() {
    let plan = |line: &str| {
        let command = Command::parse(line).unwrap().unwrap();
        command.plan(&base()).map(|plan| plan.to_string()).map_err(|e| e.to_string())
    };
    for (line, ops) in [
        (
            "-e -t 192.0.2.10:80 -r 10.1.0.11:80 -m",
            "edit server 10.1.0.11:80 method nat weight 1 of tcp 192.0.2.10:80\n",
        ),
        (
            "-a -t 192.0.2.10:80 -r 10.1.0.12:80 -m -w 0",
            "add server 10.1.0.12:80 method nat weight 0 to tcp 192.0.2.10:80\n",
        ),
        ("-d -t 192.0.2.10:80 -r 10.1.0.11:80", "remove server 10.1.0.11:80 from tcp 192.0.2.10:80\n"),
        ("-E -t 192.0.2.10:80 -s wrr", "edit service tcp 192.0.2.10:80 scheduler wrr\n"),
        ("-E -t 192.0.2.10:80 -s rr", ""),
        ("-D -t 192.0.2.10:80", "remove service tcp 192.0.2.10:80\n"),
    ] {
        assert_eq!(plan(line).as_deref(), Ok(ops), "{line}");
    }
    for line in ["-e -t 192.0.2.10:80 -r 10.1.0.99:80 -m", "-D -t 192.0.2.99:80", "-E -t 192.0.2.10:80 -s nosuch"] {
        let mut model = base();
        let refused = Command::parse(line).unwrap().unwrap().apply(&mut model).unwrap_err().to_string();
        assert_eq!(plan(line), Err(refused), "{line}");
    }
}

proptest::proptest! {
    #[test]
    fn rules_are_read_as_they_were_written(model in crate::testing::model()) {
        for service in model.services() {
            let rule = ServiceRule {
                service: service.key,
                scheduler: service.scheduler.name().into(),
                scheduler_flags: service.scheduler_flags,
                one_packet: service.one_packet,
                persistence: service.persistence,
                engine: None,
            };
            let key = service.key;
            let mut commands = vec![
                Command::AddService(rule.clone()), Command::EditService(rule), Command::DeleteService(key), Command::Clear,
                Command::SetTimeouts { tcp: 1, tcp_fin: 0, udp: 2_678_400 },
            ];
            for server in &service.servers {
                let server = Server { server_id: None, health: Default::default(), ..server.clone() };
                let (address, port) = server.identity();
                let rule = ServerRule { service: key, server };
                commands.extend([Command::AddServer(rule.clone()), Command::EditServer(rule)]);
                commands.push(Command::DeleteServer { service: key, address, port });
            }
            for command in commands {
                let text = command.to_string();
                proptest::prop_assert_eq!(Command::parse(&text), Ok(Some(command)), "{}", text);
            }
        }
    }
}
