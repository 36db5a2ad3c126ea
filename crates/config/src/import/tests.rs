use super::*;
use crate::file::{marks_to_toml, parse};
use proptest::prelude::*;

/// The rules as text, and what was refused.
fn of(imported: &Imported) -> (Vec<String>, Vec<String>) {
    let toml = format!("version = 1\n{}", marks_to_toml(&imported.rules));
    assert_eq!(parse("f", &toml).unwrap().marks(), imported.rules);
    let texts = |rule: &MarkRule| rule.to_string();
    let refused = |one: &Refused| format!("{}: {}", one.place, one.reason);
    (imported.rules.iter().map(texts).collect(), imported.refused.iter().map(refused).collect())
}

/// A rule alone, as `iptables -t mangle` takes it.
fn one(rule: &str) -> Result<Vec<String>, String> {
    let imported = iptables(&format!("iptables -t mangle -A PREROUTING {rule}"), Family::V4);
    match of(&imported) {
        (rules, refused) if refused.is_empty() => Ok(rules),
        (_, refused) => Err(refused[0].strip_prefix("line 1: ").unwrap().into()),
    }
}

#[test]
fn iptables_rules() {
    for (rule, marks) in [
        ("-j MARK --set-mark 1", &["IPv4 mark 1"][..]),
        (
            "-i c0 -d 198.51.100.0/24 -j MARK --set-mark 0x10",
            &["IPv4 interface c0 destination 198.51.100.0/24 mark 16"],
        ),
        (
            "-s 10.0.0.1 ! -d 10.0.0.0/255.255.0.0 -j MARK --set-xmark 0x1/0xffffffff",
            &["IPv4 source 10.0.0.1/32 destination not 10.0.0.0/16 mark 1"],
        ),
        ("-s ! 10.0.0.1 -j MARK --set-mark 1", &["IPv4 source not 10.0.0.1/32 mark 1"]),
        (
            "! -i eth0 -p tcp -m tcp --sport 1024: ! --dport :80 -j MARK --set-mark 1",
            &["IPv4 interface not eth0 protocol tcp source ports 1024-65535 destination ports not 0-80 mark 1"],
        ),
        ("-p 112 -j MARK --set-mark 1", &["IPv4 protocol 112 mark 1"]),
        ("-p all -j MARK --set-mark 1", &["IPv4 mark 1"]),
        (
            "-s 10.0.0.0/8,172.16.0.0/12 -j MARK --set-mark 1",
            &["IPv4 source 10.0.0.0/8 mark 1", "IPv4 source 172.16.0.0/12 mark 1"],
        ),
        (
            "-p tcp -m multiport --dports 443,80,81:90,85 -j MARK --set-mark 1",
            &["IPv4 protocol tcp destination ports 80-90 mark 1", "IPv4 protocol tcp destination ports 443 mark 1"],
        ),
        (
            "-p tcp -m multiport ! --dports 80,443 -j MARK --set-mark 1",
            &[
                "IPv4 protocol tcp destination ports 0-79 mark 1",
                "IPv4 protocol tcp destination ports 81-442 mark 1",
                "IPv4 protocol tcp destination ports 444-65535 mark 1",
            ],
        ),
        (
            "-p udp -m multiport --ports 53 -j MARK --set-mark 1",
            &["IPv4 protocol udp source ports 53 mark 1", "IPv4 protocol udp destination ports 53 mark 1"],
        ),
        (
            "-m iprange --dst-range 10.0.0.1-10.0.0.4 -j MARK --set-mark 1",
            &[
                "IPv4 destination 10.0.0.1/32 mark 1",
                "IPv4 destination 10.0.0.2/31 mark 1",
                "IPv4 destination 10.0.0.4/32 mark 1",
            ],
        ),
        (
            "-m comment --comment \"for -j DROP it's\" -m addrtype --dst-type LOCAL -j MARK --set-mark 1",
            &["IPv4 mark 1"],
        ),
        // As iptables itself makes --set-xmark of them.
        ("-j MARK --set-mark 0x3/0x1", &["IPv4 mark 0x3/0x3"]),
        ("-j MARK --set-xmark 0x3/0x1", &["IPv4 mark 0x3/0x1"]),
        ("-j MARK --and-mark 0xff", &["IPv4 mark 0x0/0xffffff00"]),
        ("-j MARK --or-mark 0x10", &["IPv4 mark 0x10/0x10"]),
        ("-j MARK --xor-mark 0x10", &["IPv4 mark 0x10/0x0"]),
        // They leave the mark alone, whatever they match.
        ("-m limit --limit 5/min -j LOG --log-prefix x", &[]),
        ("-m conntrack --ctstate NEW -j CONNMARK --save-mark", &[]),
        ("-p tcp", &[]),
        ("-j ACCEPT", &[]),
    ] {
        assert_eq!(one(rule), Ok(marks.iter().map(ToString::to_string).collect()), "{rule}");
    }
    for (rule, reason) in [
        ("-m conntrack --ctstate NEW -j MARK --set-mark 1", "only netfilter knows what match conntrack looks at"),
        ("-m mark --mark 1 -j MARK --set-mark 2", "it looks at the mark, which the director's rules cannot"),
        ("-i eth+ -j MARK --set-mark 1", "eth+ stands for several interfaces: name each"),
        ("-p tcp --dport http -j MARK --set-mark 1", "http is no port in numbers"),
        ("-s example.org -j MARK --set-mark 1", "example.org is no address or prefix in numbers"),
        ("-s 10.0.0.1/255.0.255.0 -j MARK --set-mark 1", "10.0.0.1/255.0.255.0: a mask with holes is no prefix"),
        ("! -s 10.0.0.1,10.0.0.2 -j MARK --set-mark 1", "not one of several prefixes"),
        ("-s fd00::1 -j MARK --set-mark 1", "source fd00::1/128 has another address family than the mark rule"),
        ("-p tcp --syn -j MARK --set-mark 1", "the director's rules do not have --syn"),
        ("-p foo -j MARK --set-mark 1", "protocol foo is not known here: write its number"),
        ("-j MARK --set-mark 4294967296", "4294967296 is no mark"),
        ("-j MARK", "it does not say which mark"),
        (
            "-m multiport --ports 1,2 -p udp -j MARK --xor-mark 1",
            "it flips bits by either port, which a rule for each would do twice",
        ),
        ("-j CONNMARK --restore-mark", "only netfilter knows the marks of its connections"),
        ("-j DROP", "the director sees packets before netfilter drops them"),
        ("-j vips", "it goes on in chain vips, whose rules must stand here"),
        ("-g vips", "it goes on in chain vips, whose rules must stand here"),
        ("-s 10.0.0.1 -s 10.0.0.2 -j MARK --set-mark 1", "it asks for the source more than once"),
        ("-m comment --comment \"x -j MARK --set-mark 1", "a quote is not closed"),
    ] {
        assert_eq!(one(rule), Err(reason.into()), "{rule}");
    }
}

#[test]
fn iptables_save_and_scripts() {
    let save = "\
# Generated by ip6tables-save v1.8.9 on Mon Nov 23 10:00:00 2026
*raw
-A PREROUTING -d 2001:db8::/32 -j MARK --set-xmark 0x9/0xffffffff
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:web - [0:0]
[3:120] -A INPUT -d 2001:db8::3/128 -j MARK --set-xmark 0x3/0xffffffff
[3:120] -A PREROUTING -d 2001:db8::1/128 -p ipv6-icmp -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -i lo -j ACCEPT
-A PREROUTING -d 2001:db8::2/128 -j MARK --set-xmark 0x2/0xffffffff
-A PREROUTING -j RETURN
-A web -j MARK --set-xmark 0x4/0xffffffff
-A POSTROUTING -j TOS --set-tos 0x10/0x3f
COMMIT
";
    let (rules, refused) = of(&iptables(save, Family::V4));
    let expected = [
        "IPv6 destination 2001:db8::1/128 protocol icmpv6 mark 1",
        "IPv6 destination 2001:db8::2/128 mark 2",
        "IPv6 destination 2001:db8::3/128 mark 3",
    ];
    assert_eq!(rules, expected);
    const ELSEWHERE: &str = "only the chains PREROUTING and INPUT of table mangle are gone through before IPVS";
    let expected = [
        format!("line 3: {ELSEWHERE}"),
        "line 10: it ends the chain for its packets, while the director goes through all rules".into(),
        format!("line 13: {ELSEWHERE}"),
    ];
    assert_eq!(refused, expected);

    let script = "\
#!/bin/sh
iptables -t mangle -A PREROUTING -j MARK --set-mark 9
iptables -t mangle -F PREROUTING   # from the beginning
iptables -t mangle -P PREROUTING ACCEPT
/sbin/iptables -w 5 -t mangle -A PREROUTING -d 192.0.2.2 -j MARK --set-mark 2
iptables-nft -t mangle -I PREROUTING -d 192.0.2.1 -j MARK --set-mark 1
sudo ip6tables -t mangle -A PREROUTING -d 2001:db8::1 -j MARK --set-mark 3
iptables -A INPUT -p tcp --dport 80 -j ACCEPT
iptables -t mangle -D PREROUTING 1
ip rule add fwmark 1 lookup 100
";
    let (rules, refused) = of(&iptables(script, Family::V4));
    let expected = [
        "IPv4 destination 192.0.2.1/32 mark 1",
        "IPv4 destination 192.0.2.2/32 mark 2",
        "IPv6 destination 2001:db8::1/128 mark 3",
    ];
    assert_eq!(rules, expected);
    let expected = [
        "line 9: -D changes rules that stand; give the rules as `iptables-save` prints them",
        "line 10: it is no rule of iptables",
    ];
    assert_eq!(refused, expected);
    // Without a word about it, the family is the caller's.
    assert_eq!(of(&iptables("-A PREROUTING -j MARK --set-mark 1", Family::V6)).0, ["IPv6 mark 1"]);
}

/// A ruleset of one chain with these rules.
fn ruleset(family: &str, rules: &[&str]) -> String {
    let rules: Vec<_> = (5..)
        .zip(rules)
        .map(|(handle, expr)| {
            format!(
                r#"{{"rule": {{"family": "{family}", "table": "t", "chain": "c", "handle": {handle}, "expr": [{expr}]}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"nftables": [{{"metainfo": {{"json_schema_version": 1}}}},
            {{"chain": {{"family": "{family}", "table": "t", "name": "c", "type": "filter", "hook": "prerouting", "prio": -150, "policy": "accept"}}}},
            {}]}}"#,
        rules.join(",\n")
    )
}

/// A match as nft prints it.
fn test(left: &str, op: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}}"#)
}
fn payload(protocol: &str, field: &str) -> String {
    format!(r#"{{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}"#)
}
fn meta(key: &str) -> String {
    format!(r#"{{"meta": {{"key": "{key}"}}}}"#)
}
const MARK: &str = r#"{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}"#;

#[test]
fn nft_rules() {
    let set = |value: &str| format!(r#"{{"mangle": {{"key": {{"meta": {{"key": "mark"}}}}, "value": {value}}}}}"#);
    let own = meta("mark");
    for (family, expr, marks) in [
        ("ip", MARK.to_owned(), &["IPv4 mark 7"][..]),
        ("inet", MARK.to_owned(), &["IPv4 mark 7", "IPv6 mark 7"]),
        ("inet", [test(&meta("nfproto"), "==", "\"ipv6\""), MARK.into()].join(","), &["IPv6 mark 7"]),
        (
            "inet",
            [
                test(&payload("ip", "daddr"), "==", r#"{"prefix": {"addr": "198.51.100.0", "len": 24}}"#),
                r#"{"counter": {"packets": 0, "bytes": 0}}"#.into(),
                MARK.into(),
            ]
            .join(","),
            &["IPv4 destination 198.51.100.0/24 mark 7"],
        ),
        (
            "ip",
            [test(&payload("ip", "saddr"), "!=", "\"10.0.0.1\""), test(&meta("iifname"), "==", "\"c0\""), MARK.into()]
                .join(","),
            &["IPv4 interface c0 source not 10.0.0.1/32 mark 7"],
        ),
        (
            "ip",
            [test(&payload("tcp", "dport"), "==", r#"{"set": [80, 443, {"range": [8000, 8010]}]}"#), MARK.into()]
                .join(","),
            &[
                "IPv4 protocol tcp destination ports 80 mark 7",
                "IPv4 protocol tcp destination ports 443 mark 7",
                "IPv4 protocol tcp destination ports 8000-8010 mark 7",
            ],
        ),
        (
            "ip",
            [test(&payload("udp", "sport"), "!=", "53"), MARK.into()].join(","),
            &["IPv4 protocol udp source ports not 53 mark 7"],
        ),
        (
            "ip",
            [
                test(&meta("l4proto"), "==", r#"{"set": ["tcp", "udp"]}"#),
                test(&payload("th", "dport"), "<", "1024"),
                MARK.into(),
            ]
            .join(","),
            &["IPv4 protocol tcp destination ports 0-1023 mark 7", "IPv4 protocol udp destination ports 0-1023 mark 7"],
        ),
        (
            "ip6",
            [test(&payload("ip6", "saddr"), "==", r#"{"range": ["fd00::2", "fd00::5"]}"#), MARK.into()].join(","),
            &["IPv6 source fd00::2/127 mark 7", "IPv6 source fd00::4/127 mark 7"],
        ),
        (
            "ip",
            [test(r#"{"fib": {"result": "type", "flags": ["daddr"]}}"#, "==", "\"local\""), MARK.into()].join(","),
            &["IPv4 mark 7"],
        ),
        ("ip", set(&format!(r#"{{"|": [{{"&": [{own}, 4294967040]}}, 1]}}"#)), &["IPv4 mark 0x1/0xff"]),
        ("ip", set(&format!(r#"{{"^": [{own}, 16]}}"#)), &["IPv4 mark 0x10/0x0"]),
        ("ip", set(&format!(r#"{{"&": [15, {own}]}}"#)), &["IPv4 mark 0x0/0xfffffff0"]),
        // A mark and the end of the chain; what only counts is nothing.
        ("ip", [MARK.into(), r#"{"accept": null}"#.to_owned()].join(","), &["IPv4 mark 7"]),
        ("ip", [test(r#"{"ct": {"key": "state"}}"#, "in", "\"new\""), r#"{"counter": null}"#.into()].join(","), &[]),
    ] {
        let found = nft(&ruleset(family, &[&expr])).unwrap();
        assert_eq!(of(&found), (marks.iter().map(ToString::to_string).collect(), vec![]), "{expr}");
    }
    for (expr, reason) in [
        ([test(r#"{"ct": {"key": "state"}}"#, "in", "\"new\""), MARK.into()].join(","), "only netfilter knows ct"),
        (
            [test(&meta("mark"), "==", "1"), MARK.into()].join(","),
            "it looks at the mark, which the director's rules cannot",
        ),
        (
            [test(&payload("ip", "saddr"), "==", "\"@blocked\""), MARK.into()].join(","),
            "the elements of set blocked change: write them into the rule",
        ),
        ([test(&payload("ip", "ttl"), "==", "1"), MARK.into()].join(","), "the director's rules do not look at ip ttl"),
        (
            [test(&meta("iifname"), "==", "\"eth*\""), MARK.into()].join(","),
            "eth* stands for several interfaces: name each",
        ),
        (
            [r#"{"limit": {"rate": 5, "per": "second"}}"#.into(), MARK.to_owned()].join(","),
            "only netfilter keeps its limit",
        ),
        (set(r#"{"ct": {"key": "mark"}}"#), "only netfilter knows the marks of its connections"),
        (set(r#"{"numgen": {"mode": "inc", "mod": 2}}"#), "the director's rules cannot make a mark by numgen"),
        (r#"{"jump": {"target": "vips"}}"#.into(), "it goes on in chain vips, whose rules must stand here"),
        (r#"{"drop": null}"#.into(), "the director sees packets before netfilter drops them"),
    ] {
        let found = nft(&ruleset("ip", &[&expr])).unwrap();
        assert_eq!(of(&found), (vec![], vec![format!("ip t c handle 5: {reason}")]), "{expr}");
    }
    // An accept in front of a mark.
    let found = nft(&ruleset("ip", &[r#"{"accept": null}"#, MARK])).unwrap();
    let reason = "ip t c handle 5: it ends the chain for its packets, while the director goes through all rules";
    assert_eq!(of(&found), (vec!["IPv4 mark 7".into()], vec![reason.into()]));
    for bad in ["", "[]", "{}", "{\"nftables\": 1}"] {
        assert!(nft(bad).is_err(), "{bad}");
    }
}

/// Chains are gone through by hook and priority; others do not count.
#[test]
fn nft_chains() {
    let chain = |name: &str, hook: &str, prio: i32| {
        format!(r#"{{"chain": {{"family": "ip", "table": "t", "name": "{name}", "hook": "{hook}", "prio": {prio}}}}}"#)
    };
    let rule = |chain: &str, mark: u32| {
        let set = MARK.replace('7', &mark.to_string());
        format!(r#"{{"rule": {{"family": "ip", "table": "t", "chain": "{chain}", "handle": 1, "expr": [{set}]}}}}"#)
    };
    let chains = [
        chain("late", "input", -150),
        chain("second", "prerouting", 0),
        chain("first", "prerouting", -150),
        chain("after", "input", 200),
        chain("out", "output", 0),
    ];
    let rules = [rule("late", 3), rule("second", 2), rule("first", 1), rule("after", 4), rule("out", 5)];
    let text = format!(r#"{{"nftables": [{}]}}"#, chains.into_iter().chain(rules).collect::<Vec<_>>().join(","));
    let (marks, refused) = of(&nft(&text).unwrap());
    assert_eq!(marks, ["IPv4 mark 1", "IPv4 mark 2", "IPv4 mark 3"]);
    let reason = |chain| format!("ip t {chain} handle 1: packets do not go through this chain before IPVS");
    assert_eq!(refused, ["after", "out"].map(reason));
}

const WORDS: &[&str] = &[
    "iptables",
    "ip6tables",
    "-t",
    "mangle",
    "-A",
    "-I",
    "PREROUTING",
    "INPUT",
    "1",
    "!",
    "-s",
    "-d",
    "10.0.0.0/8",
    "::/0",
    "-i",
    "eth0",
    "-p",
    "tcp",
    "-m",
    "multiport",
    "--dports",
    "--sports",
    "--ports",
    "1,2,9:20",
    ":",
    "-j",
    "MARK",
    "--set-mark",
    "--set-xmark",
    "0x1/0xff",
    "--xor-mark",
    "--src-range",
    "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "10.0.0.1-10.255.255.254",
    "\n",
    "*mangle\n",
    "\"",
    "#",
    "-F",
    "ACCEPT",
];

proptest! {
    #[test]
    fn no_mixture_panics(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let imported = iptables(&words.join(" "), Family::V4);
        prop_assert!(imported.refused.iter().all(|refused| !refused.reason.is_empty()));
        of(&imported);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        of(&iptables(&text, Family::V6));
        let _ = nft(&text);
    }

    /// A range's prefixes hold its addresses, each once, and no other.
    #[test]
    fn ranges_are_prefixes(a in any::<u16>(), b in any::<u16>()) {
        let (first, last) = (a.min(b), a.max(b));
        let at = |n: u16| std::net::IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        let prefixes = draft::range(at(first), at(last)).unwrap();
        let size: u64 = prefixes.iter().map(|p| 1u64 << (32 - p.length())).sum();
        prop_assert_eq!(size, u64::from(last - first) + 1);
        prop_assert_eq!(prefixes[0].address(), at(first));
        prop_assert!(prefixes.len() <= 32);
    }

    #[test]
    fn gaps_are_what_is_left(ranges in prop::collection::vec(any::<(u16, u16)>(), 0..5)) {
        let ranges: Vec<_> = ranges.iter().map(|(a, b)| crate::mark::Ports::new(*a.min(b), *a.max(b)).unwrap()).collect();
        let size = |all: &[crate::mark::Ports]| all.iter().map(|r| u32::from(r.last() - r.first()) + 1).sum::<u32>();
        prop_assert_eq!(size(&draft::merged(&ranges)) + size(&draft::gaps(&ranges)), 65536);
    }
}
