use super::*;
use crate::file::{parse, to_toml};
use crate::health::{Check, Probe};
use std::collections::HashMap;
use std::time::Duration;

struct Map(HashMap<&'static str, &'static str>);

impl Loader for Map {
    fn load(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        let found = self.0.get(pattern).ok_or("there is no such file")?;
        Ok(vec![(pattern.to_owned(), (*found).to_owned())])
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| (*text).to_owned())
    }
}

fn read(text: &str) -> Keepalived {
    keepalived(
        "k.conf",
        text,
        "lb1",
        &Map(HashMap::from([("vs.conf", VS), ("SIX", "6"), ("loop.conf", "include loop.conf")])),
    )
}

const VS: &str = "virtual_server 192.0.2.10 80 {\n protocol TCP\n real_server 10.0.0.2 80 { }\n}\n";

/// The Model of a text in which all is well, which prints and reads as the same.
fn model(text: &str) -> Model {
    let found = read(text);
    assert_eq!((&found.refused[..], &found.faults[..]), (&[][..], &[][..]), "{text}");
    assert_eq!(parse("f", &to_toml(&found.model)).unwrap(), found.model);
    found.model
}

fn faults(text: &str) -> Vec<String> {
    read(text).faults.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_keepaliveds() {
    let text = "virtual_server 192.0.2.10 80 {\n real_server 10.0.0.2 { TCP_CHECK { } DNS_CHECK { } MISC_CHECK { \n misc_path /x\n } HTTP_GET { url { \n path /\n } } }\n}\n";
    let model = model(text);
    let [service] = model.services() else { panic!() };
    assert_eq!(service.key.to_string(), "udp 192.0.2.10:80");
    assert_eq!((service.scheduler.name(), service.persistence), ("wlc", None));
    let server = &service.servers[0];
    assert_eq!((server.name().as_str(), server.method.name(), server.weight), ("10.0.0.2:80", "nat", 1));
    let pace = |c: &Check| {
        let p = &c.pace;
        (p.interval.as_secs(), p.timeout.as_secs(), p.retries, p.retry_interval.as_secs())
    };
    let found: Vec<_> = server.health.checks.iter().map(|c| (c.probe.name(), pace(c))).collect();
    let expected =
        [("tcp", (60, 5, 1, 1)), ("dns", (60, 5, 3, 60)), ("script", (60, 60, 0, 1)), ("http", (60, 5, 1, 3))];
    assert_eq!(found, expected);
    assert!(server.health.checks.iter().all(|c| c.pace.warmup.is_none() && !c.start_down));
}

#[test]
fn a_whole_configuration() {
    let text = r#"! a comment
$NET=10.0.0
$CHECK=TCP_CHECK { \
 connect_port 8080 \
}
global_defs {
    lvs_timeouts tcp 100 udp 20
    script_user lb adm
}
virtual_server_group G {
    192.0.2.20-22 443   # three
    192.0.2.32/31 443
}
track_file load { file "/run/load" ; }
bfd_instance b { 
  neighbor_ip 10.0.0.2
  max_hops 255
}
@lb1 virtual_server 192.0.2.10 80
{
    delay_loop 2.5
    lb_algo sh
    sh-port
    lb_kind TUN type gue port 6080 csum
    protocol tcp
    persistence_timeout
    persistence_granularity 255.255.255.0
    quorum 2
    hysteresis 1
    quorum_up "/bin/up 'a b' c" ops
    inhibit_on_failure
    alpha
    virtualhost example.com
    sorry_server 10.0.0.99
    sorry_server_lvs_method DR
    real_server ${NET}.9 80 { }
    real_server ${NET}.2 80 {
        weight 3
        uthreshold 10
        lthreshold 5
        inhibit_on_failure off
        lvs_method NAT
        notify_down "/bin/down"
        $CHECK
        SSL_GET {
            enable_sni
            retry 0
            url {
                path "/a"
                status_code 200 300-302
                regex "^o\\.k"
                regex_no_match
            }
        }
    }
}
@^lb1 virtual_server nonsense { }
virtual_server group G {
    protocol TCP
    real_server 10.0.1.1 443 {
        UDP_CHECK {
            payload 00 ff
            require_reply 0x
        }
        BFD_CHECK { 
            name b
        }
    }
}
virtual_server fwmark 7 {
    lvs_method DR
    ip_family inet
    real_server fd00::1 { }
}
~SEQ(x, 1, 3) virtual_server 192.0.2.1$x 53 { 
"#;
    // The last line is three blocks without an end.
    let body = text.rsplit_once("~SEQ").unwrap().0.replace(" ; }", "\n}");
    let text = format!("{body}~SEQ(x, 1, 3) virtual_server 192.0.2.1${{x}}0 53 {{ real_server 10.0.0.1 {{ }} }}\n");
    let model = model(&text);
    let keys: Vec<_> = model.services().iter().map(|s| s.key.to_string()).collect();
    assert_eq!(
        keys,
        [
            "tcp 192.0.2.10:80",
            "tcp 192.0.2.20:443",
            "tcp 192.0.2.21:443",
            "tcp 192.0.2.22:443",
            "tcp 192.0.2.32:443",
            "tcp 192.0.2.33:443",
            "udp 192.0.2.110:53",
            "udp 192.0.2.120:53",
            "udp 192.0.2.130:53",
            "fwmark 7 IPv6",
        ]
    );
    let timeouts = &model.settings().timeouts;
    assert_eq!((timeouts.tcp.established, timeouts.udp), (Duration::from_secs(100), Duration::from_secs(20)));
    let printed = to_toml(&model);
    let first = printed.split("[[service]]").nth(1).unwrap();
    assert_eq!(
        first.trim(),
        r#"protocol = "tcp"
address = "192.0.2.10:80"
scheduler = "sh"
scheduler_flags = ["sh-port"]

[service.persistence]
timeout = "360s"
mask = "255.255.255.0"

[service.health]
on_failure = "quiesce"
quorum = 2
hysteresis = 1
quorum_up = { command = ["/bin/up", "a b", "c"], user = "ops" }

[service.health.sorry]
address = "10.0.0.99:80"
method = "dr"

[[service.server]]
address = "10.0.0.9:80"
method = "tun"
tunnel = "gue"
tunnel_port = 6080
tunnel_checksum = "full"
weight = 1

[[service.server]]
address = "10.0.0.2:80"
method = "nat"
weight = 3
upper = 10
lower = 5
on_failure = "remove"
notify_down = { command = ["/bin/down"], user = "lb", group = "adm" }

[[service.server.check]]
type = "tcp"
interval = "2500ms"
timeout = "5s"
start = "down"
port = 8080

[[service.server.check]]
type = "https"
interval = "2500ms"
timeout = "5s"
retries = 0
retry_interval = "3s"
start = "down"
virtual_host = "example.com"
sni = "example.com"

[[service.server.check.request]]
path = "/a"
status = ["200", "300-302"]
regex = "^o\\.k"
regex_invert = true"#
    );
    let [udp, bfd] = &model.services()[1].servers[0].health.checks[..] else { panic!() };
    let Probe::Udp(udp) = &udp.probe else { panic!() };
    assert_eq!((udp.payload.as_deref(), udp.reply.as_deref()), (Some("00ff"), Some("0x")));
    assert_eq!((bfd.probe.name(), bfd.target.address), ("bfd", Some([10, 0, 0, 2].into())));
}

#[test]
fn what_keepalived_would_pass_over_is_told() {
    let vs = |inside: &str| {
        format!("virtual_server 192.0.2.10 80 {{\nprotocol TCP\n{inside}\nreal_server 10.0.0.2 80 {{ }}\n}}\n")
    };
    for (text, fault) in [
        (vs("lb_alog rr"), "k.conf:3:1: unknown keyword \"lb_alog\" in virtual_server; did you mean lb_algo?"),
        (vs("lb_algo best"), "k.conf:3:1: there is no scheduler \"best\"; use one of "),
        (vs("lb_kind FOO"), "k.conf:3:1: lb_kind is \"FOO\"; use NAT, DR or TUN"),
        (vs("persistence_timeout 0"), "k.conf:3:1: persistence_timeout is \"0\"; use a whole number from 1 to 2678400"),
        (vs("delay_loop -1"), "k.conf:3:1: delay_loop is \"-1\"; use seconds, up to 2678400, like 3 or 2.5"),
        (vs("sh-port"), "k.conf:3:1: sh-port without lvs_sched sh before it; put lvs_sched sh in front, or remove it"),
        (
            vs("real_server 10.0.0.300 80 { }"),
            "k.conf:3:1: real_server: \"10.0.0.300\" is no address; write it in numbers",
        ),
        (
            vs("real_server 10.0.0.3 80 {\nweight x\n}"),
            "k.conf:4:1: weight is \"x\"; use a whole number from 0 to 2147483647",
        ),
        (
            vs("real_server 10.0.0.3 80 {\nTCP_CHEK { }\n}"),
            "k.conf:4:1: unknown keyword \"TCP_CHEK\" in real_server; did you mean TCP_CHECK?",
        ),
        (vs("real_server 10.0.0.3 80 {\nHTTP_GET { }\n}"), "k.conf:4:1: HTTP_GET without url; add url { path / }"),
        (
            vs("real_server fd00::1 80 { }"),
            "k.conf:1:1: virtual_server: real server fd00::1 has another address family than its virtual service; ",
        ),
        (vs("quorum_up \"/x"), "k.conf:3:1: a quote has no end; add the other quote"),
        (vs("sorry_server 224.0.0.1"), "k.conf:1:1: virtual_server: real server 224.0.0.1 is not a unicast address"),
        (
            "virtual_sever 1.2.3.4 80 { }".into(),
            "k.conf:1:1: unknown keyword \"virtual_sever\" at the top of the file; did you mean virtual_server?",
        ),
        (
            "virtual_server group X { }".into(),
            "k.conf:1:1: there is no virtual_server_group \"X\" with addresses; add it, or correct the name",
        ),
        (
            format!("{VS}{VS}"),
            "k.conf:5:1: virtual server tcp 192.0.2.10:80 is there twice, first in line 1; join the two",
        ),
        (
            "virtual_server 192.0.2.10 80 {\n".into(),
            "k.conf:1:1: the block that begins here has no end; add a line with }",
        ),
        ("}\n".into(), "k.conf:1:1: } without a { before; remove it, or add the { that it ends"),
        (
            "include nowhere.conf".into(),
            "k.conf:1:1: cannot include \"nowhere.conf\": there is no such file; correct the name",
        ),
        ("$A=$A x\n$A".into(), "k.conf:2:1: variables make this line endless; define none of them by itself"),
        ("~SEQ(x) foo".into(), "k.conf:1:1: this generator cannot be understood; "),
    ] {
        let found = faults(&text);
        assert!(found.first().is_some_and(|f| f.starts_with(fault)), "{text}\nexpected {fault}\nfound    {found:?}");
    }
    assert!(faults("include loop.conf").iter().any(|f| f.contains("include each other")));
    assert_eq!(read("include vs.conf").model.services().len(), 1);
    assert_eq!(read(&VS.replace("80", "8${_ENV SIX}")).model.services()[0].key.port(), 86);
}

#[test]
fn what_is_keepaliveds_is_known() {
    for text in
        [VS, "! Configuration File\nglobal_defs {\n}\n", "$X=1\nvirtual_server 1.2.3.4 80 {", "include a.conf\n"]
    {
        assert!(is_keepalived("x", text), "{text}");
    }
    for text in ["", "version = 1\n", "# x\n[director]\nmode = \"xdp\"", "virtual_server = 1", "-A -t 1.2.3.4:80"] {
        assert!(!is_keepalived("x", text), "{text}");
    }
    assert!(is_keepalived("/etc/keepalived/keepalived.conf", ""));
}

/// Each keyword changes the Model, or its reason is told; none is unknown.
#[test]
fn every_keyword_is_translated_or_has_a_reason() {
    let blocks = [
        "top",
        "global_defs",
        "group",
        "virtual_server",
        "real_server",
        "HTTP_GET",
        "SSL_GET",
        "url",
        "bfd_instance",
        "track_file",
        "vrrp_instance",
        "vrrp_script",
        "vrrp_track_process",
        "vrrp_sync_group",
        "garp_group",
    ];
    let text = |of: &str, lines: &str, udp: bool| {
        let here = |block| if of == block { lines } else { "" };
        let [top, global, group, service, server, http, ssl, url, bfd, track, router, script, process, sync, garp] =
            blocks.map(here);
        let protocol = if udp { "" } else { "protocol TCP" };
        format!(
            "vrrp_script s {{\nscript /bin/s\n{script}\n}}\nvrrp_track_process p {{\nprocess nginx\n{process}\n}}\n\
             vrrp_instance v {{\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {{\n192.0.2.110\n}}\n\
             track_bfd {{\nb\n}}\ntrack_file {{\nf\n}}\n{router}\n}}\n\
             vrrp_instance v6 {{\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {{\n2001:db8::10\n}}\nuse_vmac\n}}\n\
             vrrp_instance w {{\ninterface eth2\nvirtual_router_id 52\nvirtual_ipaddress {{\n192.0.2.112\n}}\n}}\n\
             vrrp_sync_group g {{\ngroup {{\nv6\n}}\n{sync}\n}}\n\
             garp_group {{\ngarp_interval 1\ninterface eth0\n{garp}\n}}\n\
             global_defs {{\nnotification_email {{\na@b.c\n}}\n{global}\n}}\n{top}\ntrack_file f {{\nfile /f\n{track}\n}}\n\
             bfd_instance b {{\nneighbor_ip 10.0.0.2\n{bfd}\n}}\n\
             virtual_server_group one {{\n192.0.2.40 80\n{group}\n}}\nvirtual_server_group two {{\n192.0.2.41 80\n}}\n\
             virtual_server group one {{\nlvs_method NAT\nprotocol TCP\nreal_server 10.0.0.7 80 {{\nnotify_up /bin/z\n}}\n}}\n\
             virtual_server 192.0.2.10 80 {{\n{protocol}\n{service}\nreal_server 10.0.0.2 80 {{\n{server}\n\
             TCP_CHECK {{\n}}\nFILE_CHECK {{\ntrack_file f\n}}\nBFD_CHECK {{\nname b\n}}\n\
             HTTP_GET {{\n{http}\nurl {{\npath /\n}}\n}}\nSSL_GET {{\n{ssl}\nurl {{\npath /\n{url}\n}}\n}}\n}}\n}}\n"
        )
    };
    let (mut walked, mut wrong) = (0, Vec::new());
    for line in include_str!("keywords.txt").lines().filter(|line| !line.starts_with('#')) {
        let (block, line) = line.split_once(": ").unwrap();
        assert!(blocks.contains(&block), "{block}");
        let keywords = line.replace(" ; ", "\n");
        let udp = line == "ops" || line.starts_with("protocol");
        let with = read(&text(block, &keywords, udp));
        // All but the last keyword are there for the last one's sake, which must say something itself.
        let before = keywords.rsplit_once('\n').filter(|_| !line.contains('{')).map_or("", |(before, _)| before);
        let without = read(&text(block, before, udp));
        let faults: Vec<_> = with.faults.iter().map(ToString::to_string).collect();
        if !faults.is_empty() {
            wrong.push(format!("{block}: {line}: {faults:?}"));
        }
        let keyword = keywords.rsplit('\n').next().unwrap().split(' ').next().unwrap();
        let told = with.refused.iter().any(|one| one.rule.starts_with(keyword) && !one.reason.is_empty());
        let plain_tunnel = line.ends_with("nocsum");
        if !(told || plain_tunnel || with.model != without.model) {
            wrong.push(format!("{block}: {line} changes nothing"));
        }
        assert_eq!(parse("f", &to_toml(&with.model)).as_ref(), Ok(&with.model), "{block}: {line}");
        // The same word with a letter too many is unknown, and the right one is suggested.
        if !["group", "virtual_server"].contains(&block) && !line.contains(';') {
            let misspelt = read(&text(block, &format!("{keyword}q x"), udp));
            assert!(misspelt.faults.iter().any(|f| f.message.starts_with("unknown keyword")), "{block}: {keyword}q");
        }
        walked += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(walked > 310, "{walked}");
}

#[test]
fn options_of_patterns_that_are_not_available() {
    let with = |option: &str| {
        faults(&format!(
            "virtual_server 192.0.2.1 80 {{\nprotocol TCP\nreal_server 10.0.0.2 80 {{\nHTTP_GET {{\nurl {{\npath /\n\
             regex a\nregex_options {option}\n}}\n}}\n}}\n}}\n"
        ))
    };
    assert_eq!(with("caseless dupnames"), [""; 0]);
    for (option, message) in [
        ("firstline", "PCRE2's option \"firstline\" is not available here"),
        ("nothing", "there is no option \"nothing\""),
    ] {
        let found = with(option);
        assert!(found.len() == 1 && found[0].contains(message), "{found:?}");
    }
}
