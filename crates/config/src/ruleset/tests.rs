use super::*;
use crate::file::parse;

const SERVICES: &str = "version = 1
[[service]]
protocol = \"tcp\"
address = \"192.0.2.10:80\"
[[service]]
protocol = \"udp\"
address = \"192.0.2.11:53\"
[[service]]
protocol = \"tcp\"
address = \"[2001:db8::10]:443\"
";

fn warnings(ruleset: &Ruleset) -> Vec<(String, String, String)> {
    let model = parse("f", SERVICES).unwrap();
    ruleset.warnings(&model).into_iter().map(|p| (p.place, p.what, p.remedy)).collect()
}

/// Whether one rule is warned of, and what is to be written.
fn of_iptables(rule: &str) -> Option<String> {
    let found = warnings(&iptables("iptables", &format!("*filter\n:INPUT ACCEPT [0:0]\n{rule}\nCOMMIT\n")));
    assert!(found.len() <= 1, "{found:?}");
    found.into_iter().next().map(|(place, what, remedy)| {
        assert_eq!(place, format!("iptables -t filter, chain {}", rule.split(' ').nth(1).unwrap()));
        assert!(what.contains(rule), "{what}");
        remedy
    })
}

#[test]
fn rules_of_iptables() {
    for (rule, remedy) in [
        ("-A INPUT -s 203.0.113.0/24 -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -j DROP", "deny = [\"203.0.113.0/24\"]"),
        ("-A INPUT -s 203.0.113.7 -p tcp --dport 80 -j REJECT --reject-with tcp-reset", "deny = [\"203.0.113.7/32\"]"),
        (
            "-A INPUT -s 198.51.100.0/255.255.255.0 -p tcp -m multiport --dports 22,80,443 -j ACCEPT",
            "allow = [\"198.51.100.0/24\"]",
        ),
        ("-A FORWARD -d 192.0.2.0/24 -j DROP", "remove the service"),
        ("-A INPUT -p udp -m udp --dport 50:60 -j ACCEPT", "reached without it"),
        ("-A INPUT ! -d 192.0.2.99/32 -p tcp -m tcp --dport 80 -j DROP", "remove the service"),
        (
            "-A PREROUTING -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -m limit --limit 25/sec -j ACCEPT",
            "`allow` and `deny`",
        ),
        ("-A mine -p tcp -m tcp --dport 80 -m comment --comment \"the shop, really\" -j LOG", "`allow` and `deny`"),
    ] {
        let said = of_iptables(rule).unwrap_or_else(|| panic!("{rule}: no warning"));
        assert!(said.contains(remedy), "{rule}: {said}");
    }
    for rule in [
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        "-A INPUT -d 198.51.100.1/32 -p tcp -m tcp --dport 80 -j DROP",
        "-A INPUT -p udp -m udp --dport 80 -j DROP",
        "-A INPUT -p tcp -m tcp ! --dport 80 -j DROP -d 192.0.2.10/32",
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -s 203.0.113.0/24 -j DROP",
        "-A INPUT -d 0.0.0.0/0 -j DROP",
        "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT",
    ] {
        assert_eq!(of_iptables(rule), None, "{rule}");
    }
    let dropping =
        iptables("ip6tables", "*filter\n:INPUT DROP [1:60]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\nCOMMIT\n");
    let found = warnings(&dropping);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "ip6tables -t filter, chain INPUT");
    assert!(found[0].1.contains("policy drops") && found[0].2.contains("allow"), "{found:?}");
    // Without services nothing is taken.
    assert!(dropping.warnings(&Model::default()).is_empty());
}

fn ruleset(text: &str) -> Ruleset {
    nft(text, false).unwrap()
}

#[test]
fn rules_of_nft() {
    let text = r#"{"nftables": [
        {"metainfo": {"json_schema_version": 1}},
        {"table": {"family": "inet", "name": "filter", "handle": 1}},
        {"set": {"family": "inet", "name": "web", "table": "filter", "type": "inet_service", "handle": 9, "elem": [80, {"range": [8000, 8080]}]}},
        {"set": {"family": "inet", "name": "bad", "table": "filter", "type": "ipv4_addr", "handle": 8, "flags": ["interval"],
            "elem": [{"prefix": {"addr": "203.0.113.0", "len": 24}}, {"elem": {"val": "198.51.100.7", "timeout": 60}}]}},
        {"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 2, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "public", "handle": 3}},
        {"chain": {"family": "inet", "table": "filter", "name": "unused", "handle": 4}},
        {"chain": {"family": "inet", "table": "filter", "name": "output", "handle": 5, "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 10, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@bad"}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": "@web"}}, {"counter": null}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 11, "expr": [
            {"vmap": {"key": {"payload": {"protocol": "ip6", "field": "daddr"}}, "data": {"set": [["2001:db8::10", {"jump": {"target": "public"}}]]}}}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "public", "handle": 12, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "th", "field": "dport"}}, "right": {"set": [443, 53]}}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "unused", "handle": 13, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 14, "expr": [
            {"match": {"op": "==", "left": {"concat": [{"payload": {"protocol": "ip", "field": "daddr"}}, {"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]},
                "right": {"set": [{"concat": ["192.0.2.11", "udp", 53]}, {"concat": ["192.0.2.10", "udp", 80]}]}}}, {"limit": {"rate": 10, "per": "second"}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 15, "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 16, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"range": [1, 79]}}}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 17, "expr": [
            {"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"range": ["192.0.2.10", "192.0.2.20"]}}}, {"drop": null}]}}
    ]}"#;
    let found = warnings(&ruleset(text));
    let brief: Vec<(&str, &str)> = found.iter().map(|(place, _, remedy)| (place.as_str(), remedy.as_str())).collect();
    let at = |handle: u32, chain: &str| format!("nft chain inet filter {chain}, handle {handle}");
    assert_eq!(brief.len(), 5, "{found:#?}");
    assert_eq!(
        brief[0],
        (at(10, "input").as_str(), "write deny = [\"203.0.113.0/24\", \"198.51.100.7/32\"] in the service")
    );
    assert!(found[0].1.ends_with("ip saddr @bad tcp dport @web counter drop"), "{}", found[0].1);
    assert_eq!(brief[1].0, at(11, "input"));
    assert_eq!(brief[2], (at(12, "public").as_str(), "remove it: the service is reached without it"));
    assert!(found[2].1.contains("of udp 192.0.2.11:53 and 1 more"), "{}", found[2].1);
    assert_eq!(brief[3].0, at(14, "input"));
    assert!(found[3].1.contains("udp 192.0.2.11:53,"), "{}", found[3].1);
    assert_eq!(brief[4].0, "nft chain inet filter input");
}

#[test]
fn what_iptables_has_is_left_to_it() {
    let text = r#"{"nftables": [
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 2, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "192.0.2.10"}}, {"drop": null}]}}]}"#;
    assert_eq!(warnings(&nft(text, false).unwrap()).len(), 2);
    assert_eq!(nft(text, true).unwrap(), Ruleset::default());
}

#[test]
fn many_are_counted() {
    let rules: String = (0..200).map(|n| format!("-A INPUT -s 203.0.113.{n} -p tcp --dport 80 -j DROP\n")).collect();
    let found = warnings(&iptables("iptables", &format!("*filter\n{rules}COMMIT\n")));
    assert_eq!(found.len(), TOLD + 1);
    assert!(found[TOLD].1.starts_with("150 more rules"), "{:?}", found[TOLD]);
}

#[test]
fn what_is_no_ruleset_is_refused_or_ignored() {
    for text in ["", "{}", "[]", "null", "{\"nftables\": 5}", "\u{0}"] {
        assert!(nft(text, false).is_err(), "{text}");
    }
    for text in
        ["{\"nftables\": [5, null, {}, {\"rule\": 7}, {\"chain\": {\"family\": \"ip\"}}]}", "{\"nftables\": []}"]
    {
        assert_eq!(nft(text, false).unwrap(), Ruleset::default());
    }
    for text in
        ["-A", "-A ", "-A INPUT", ":", ": DROP", "-A INPUT --dport", "-A INPUT ! ! -d x -j", "\"", "-A INPUT \"\\"]
    {
        assert_eq!(iptables("iptables", text), Ruleset::default(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = nft(&text, false);
        iptables("iptables", &format!("-A {text}"));
    }

    /// Pieces of rules in any order get deeper than random letters.
    #[test]
    fn no_mixture_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "-A", "INPUT", "-p", "tcp", "!", "-s", "-d", "192.0.2.10/33", "192.0.2.10", "--dport", "80", "80:1", "-m", "multiport",
        "--dports", "1,2,,", "-j", "DROP", "\"", "\\", "-g", "--comment", "255.255.0.255", "/", "::/0",
    ]), 0..20)) {
        iptables("iptables", &format!("-A X {}", words.join(" ")));
    }
}
