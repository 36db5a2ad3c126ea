//! Every key of dirigent.toml. The reader knows no other, and docs/config.md
//! describes each: a test compares the two.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is: a type of TOML, or `duration`.
    pub kind: &'static str,
    /// Its value when absent, as written in the file; `required`; `none`.
    pub default: &'static str,
}

/// A table and its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its header, like `[[service.server]]`; empty for the top of the file.
    pub header: &'static str,
    /// The keys, in the order they are printed and described.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, kind: &'static str, default: &'static str) -> Key {
    Key { name, kind, default }
}

/// The top of the file.
pub const ROOT: Table = Table {
    header: "",
    keys: &[
        key("version", "integer", "required"),
        key("director", "table", "none"),
        key("mark", "list of tables", "none"),
        key("service", "list of tables", "none"),
        key("failover", "table", "none"),
        key("router", "list of tables", "none"),
        key("router_group", "list of tables", "none"),
        key("track_script", "list of tables", "none"),
        key("track_file", "list of tables", "none"),
        key("track_process", "list of tables", "none"),
        key("bfd", "list of tables", "none"),
        key("interface_delay", "list of tables", "none"),
        key("fifo", "list of tables", "none"),
        key("mail", "table", "none"),
        key("sync", "table", "none"),
    ],
};

/// `[director]`.
pub const DIRECTOR: Table = Table {
    header: "[director]",
    keys: &[
        key("instance", "string", "\"main\""),
        key("interfaces", "string or list of strings", "\"auto\""),
        key("mode", "string", "\"auto\""),
        key("vip_default", "string", "\"pass\""),
        key("mark_device", "string", "none"),
        key("connections", "integer", "none"),
        key("services", "integer", "none"),
        key("servers", "integer", "none"),
        key("slots", "integer", "none"),
        key("schedule_icmp", "boolean", "false"),
        key("nat_icmp_send", "boolean", "false"),
        key("snat_reroute", "boolean", "true"),
        key("pmtu_disc", "boolean", "true"),
        key("expire_nodest_conn", "boolean", "false"),
        key("expire_quiescent_template", "boolean", "false"),
        key("sloppy_tcp", "boolean", "false"),
        key("sloppy_sctp", "boolean", "false"),
        key("cache_bypass", "boolean", "false"),
        key("conn_reuse_mode", "integer", "1"),
        key("drop_entry", "integer", "0"),
        key("drop_packet", "integer", "0"),
        key("secure_tcp", "integer", "0"),
        key("amemthresh", "integer", "1024"),
        key("am_droprate", "integer", "10"),
        key("socket", "string", "none"),
        key("group", "string", "none"),
        key("operators", "string", "none"),
        key("timeouts", "table", "none"),
        key("errors", "table", "none"),
        key("api", "table", "none"),
        key("metrics", "table", "none"),
        key("page", "table", "none"),
    ],
};

/// `[director.timeouts]`.
pub const TIMEOUTS: Table = Table {
    header: "[director.timeouts]",
    keys: &[
        key("tcp_none", "duration", "\"3s\""),
        key("tcp_established", "duration", "\"15m\""),
        key("tcp_syn_sent", "duration", "\"2m\""),
        key("tcp_syn_recv", "duration", "\"1m\""),
        key("tcp_fin_wait", "duration", "\"2m\""),
        key("tcp_time_wait", "duration", "\"2m\""),
        key("tcp_close", "duration", "\"10s\""),
        key("tcp_close_wait", "duration", "\"1m\""),
        key("tcp_last_ack", "duration", "\"30s\""),
        key("tcp_listen", "duration", "\"2m\""),
        key("tcp_synack", "duration", "\"2m\""),
        key("udp", "duration", "\"5m\""),
        key("sctp_none", "duration", "\"3s\""),
        key("sctp_init1", "duration", "\"4s\""),
        key("sctp_init", "duration", "\"61s\""),
        key("sctp_cookie_sent", "duration", "\"61s\""),
        key("sctp_cookie_replied", "duration", "\"61s\""),
        key("sctp_cookie_wait", "duration", "\"61s\""),
        key("sctp_cookie", "duration", "\"61s\""),
        key("sctp_cookie_echoed", "duration", "\"61s\""),
        key("sctp_established", "duration", "\"15m\""),
        key("sctp_shutdown_sent", "duration", "\"61s\""),
        key("sctp_shutdown_received", "duration", "\"61s\""),
        key("sctp_shutdown_ack_sent", "duration", "\"61s\""),
        key("sctp_rejected", "duration", "\"4s\""),
        key("sctp_closed", "duration", "\"61s\""),
        key("lblc_expiration", "duration", "\"1d\""),
        key("lblcr_expiration", "duration", "\"1d\""),
    ],
};

/// `[director.errors]`.
pub const ERRORS: Table = Table {
    header: "[director.errors]",
    keys: &[
        key("rate", "integer", "1000"),
        key("burst", "integer", "50"),
        key("destination_rate", "integer", "10"),
        key("destination_burst", "integer", "20"),
    ],
};

/// `[director.api]`.
pub const API: Table = Table {
    header: "[director.api]",
    keys: &[
        key("listen", "string", "required"),
        key("certificate", "string", "required"),
        key("key", "string", "required"),
        key("clients", "string", "required"),
        key("operator_names", "list of strings", "[]"),
    ],
};

/// `[director.metrics]`.
pub const METRICS: Table = Table {
    header: "[director.metrics]",
    keys: &[key("listen", "string", "none"), key("ipvs_names", "boolean", "false")],
};

/// `[director.page]`.
pub const PAGE: Table =
    Table { header: "[director.page]", keys: &[key("listen", "string", "none"), key("operate", "boolean", "false")] };

/// `[[mark]]`.
pub const MARK: Table = Table {
    header: "[[mark]]",
    keys: &[
        key("family", "integer", "none"),
        key("interface", "string", "none"),
        key("source", "string", "none"),
        key("destination", "string", "none"),
        key("protocol", "string", "none"),
        key("source_ports", "string", "none"),
        key("destination_ports", "string", "none"),
        key("not", "list of strings", "[]"),
        key("set", "integer", "required"),
        key("mask", "integer", "0xffffffff"),
    ],
};

/// `[[service]]`.
pub const SERVICE: Table = Table {
    header: "[[service]]",
    keys: &[
        key("protocol", "string", "required"),
        key("address", "string", "required"),
        key("fwmark", "integer", "none"),
        key("family", "integer", "none"),
        key("scheduler", "string", "\"wlc\""),
        key("scheduler_flags", "list of strings", "[]"),
        key("table_size", "integer", "none"),
        key("one_packet", "boolean", "false"),
        key("stateless", "boolean", "false"),
        key("quic", "boolean", "false"),
        key("slow_start", "duration", "none"),
        key("allow", "list of strings", "[]"),
        key("deny", "list of strings", "[]"),
        key("vip", "string", "\"operator\""),
        key("persistence", "table", "none"),
        key("health", "table", "none"),
        key("server", "list of tables", "none"),
    ],
};

/// `[service.persistence]`.
pub const PERSISTENCE: Table = Table {
    header: "[service.persistence]",
    keys: &[key("timeout", "duration", "\"6m\""), key("mask", "string", "none")],
};

/// `[[service.server]]`.
pub const SERVER: Table = Table {
    header: "[[service.server]]",
    keys: &[
        key("address", "string", "required"),
        key("method", "string", "\"nat\""),
        key("weight", "integer", "1"),
        key("upper", "integer", "0"),
        key("lower", "integer", "0"),
        key("tunnel", "string", "\"ipip\""),
        key("tunnel_port", "integer", "none"),
        key("tunnel_checksum", "string", "\"none\""),
        key("server_id", "string", "none"),
        key("on_failure", "string", "none"),
        key("notify_up", "script", "none"),
        key("notify_down", "script", "none"),
        key("mail", "boolean", "none"),
        key("check", "list of tables", "none"),
    ],
};

/// `[service.health]`.
pub const HEALTH: Table = Table {
    header: "[service.health]",
    keys: &[
        key("on_failure", "string", "\"remove\""),
        key("on_failure_connections", "string", "\"keep\""),
        key("quorum", "integer", "1"),
        key("hysteresis", "integer", "0"),
        key("quorum_up", "script", "none"),
        key("quorum_down", "script", "none"),
        key("notify_at_stop", "boolean", "false"),
        key("only_with_address", "boolean", "false"),
        key("mail", "boolean", "none"),
        key("sorry", "table", "none"),
    ],
};

/// `[service.health.sorry]`.
pub const SORRY: Table = Table {
    header: "[service.health.sorry]",
    keys: &[
        key("address", "string", "required"),
        key("method", "string", "\"nat\""),
        key("tunnel", "string", "\"ipip\""),
        key("tunnel_port", "integer", "none"),
        key("tunnel_checksum", "string", "\"none\""),
        key("on_failure", "string", "\"remove\""),
    ],
};

/// `[[service.server.check]]`.
pub const CHECK: Table = Table {
    header: "[[service.server.check]]",
    keys: &[
        key("type", "string", "required"),
        key("interval", "duration", "\"5s\""),
        key("jitter", "duration", "\"0s\""),
        key("timeout", "duration", "\"3s\""),
        key("retries", "integer", "1"),
        key("retry_interval", "duration", "\"1s\""),
        key("warmup", "duration", "none"),
        key("rise", "integer", "1"),
        key("start", "string", "\"up\""),
        key("log_failures", "boolean", "false"),
        key("address", "string", "none"),
        key("port", "integer", "none"),
        key("source", "string", "none"),
        key("source_port", "integer", "none"),
        key("interface", "string", "none"),
        key("mark", "integer", "0"),
        key("real_path", "boolean", "false"),
        key("http_version", "string", "none"),
        key("virtual_host", "string", "none"),
        key("fast_recovery", "boolean", "none"),
        key("request", "list of tables", "none"),
        key("sni", "string", "none"),
        key("close_notify", "boolean", "none"),
        key("ca", "string", "none"),
        key("certificate", "string", "none"),
        key("key", "string", "none"),
        key("helo", "string", "none"),
        key("name", "string", "none"),
        key("record", "string", "none"),
        key("payload", "string", "none"),
        key("reply", "string", "none"),
        key("min_reply", "integer", "none"),
        key("max_reply", "integer", "none"),
        key("command", "script", "none"),
        key("weight_from_exit", "boolean", "none"),
        key("path", "string", "none"),
        key("weight", "integer", "none"),
        key("reverse", "boolean", "none"),
        key("min_rx", "duration", "none"),
        key("min_tx", "duration", "none"),
        key("idle_tx", "duration", "none"),
        key("multiplier", "integer", "none"),
        key("passive", "boolean", "none"),
        key("ttl", "integer", "none"),
        key("max_hops", "integer", "none"),
        key("multihop", "boolean", "none"),
    ],
};

/// `[[service.server.check.request]]`.
pub const REQUEST: Table = Table {
    header: "[[service.server.check.request]]",
    keys: &[
        key("path", "string", "\"/\""),
        key("virtual_host", "string", "none"),
        key("status", "list of strings", "[]"),
        key("digest", "string", "none"),
        key("close_notify", "boolean", "none"),
        key("regex", "string", "none"),
        key("regex_invert", "boolean", "none"),
        key("regex_options", "list of strings", "none"),
        key("regex_min_offset", "integer", "none"),
        key("regex_max_offset", "integer", "none"),
    ],
};

/// A program with whose rights it has: what a key of the kind `script` may be, instead of a list.
pub const SCRIPT: Table = Table {
    header: "a script",
    keys: &[
        key("command", "list of strings", "required"),
        key("user", "string", "none"),
        key("group", "string", "none"),
    ],
};

/// `[failover]`.
pub const FAILOVER: Table = Table {
    header: "[failover]",
    keys: &[
        key("startup_delay", "duration", "\"0s\""),
        key("boot_delay", "duration", "\"0s\""),
        key("log_unknown_vrids", "boolean", "false"),
    ],
};

/// `[[router]]`.
pub const ROUTER: Table = Table {
    header: "[[router]]",
    keys: &[
        key("name", "string", "required"),
        key("interface", "string", "none"),
        key("vrf", "string", "none"),
        key("version", "integer", "3"),
        key("family", "integer", "none"),
        key("vrid", "integer", "required"),
        key("priority", "integer", "100"),
        key("interval", "duration", "\"1s\""),
        key("state", "string", "\"backup\""),
        key("preempt", "boolean", "true"),
        key("preempt_delay", "duration", "\"0s\""),
        key("down_timer_adverts", "integer", "3"),
        key("addresses", "list of addresses", "[]"),
        key("excluded", "list of addresses", "[]"),
        key("routes", "list of strings", "[]"),
        key("rules", "list of strings", "[]"),
        key("promote_secondaries", "boolean", "false"),
        key("source", "string", "none"),
        key("track_source", "boolean", "false"),
        key("multicast", "string", "none"),
        key("peers", "list of peers", "[]"),
        key("check_unicast_src", "boolean", "false"),
        key("unicast_ttl", "integer", "none"),
        key("fault_without_peer", "boolean", "false"),
        key("v3_checksum_as_v2", "boolean", "false"),
        key("accept", "boolean", "true"),
        key("lower_prio_no_advert", "boolean", "false"),
        key("higher_prio_send_advert", "boolean", "true"),
        key("owner_ignore_adverts", "boolean", "false"),
        key("skip_check_adv_addr", "boolean", "false"),
        key("strict", "boolean", "false"),
        key("track_interface", "boolean", "true"),
        key("mail", "boolean", "none"),
        key("authentication", "table", "none"),
        key("virtual_mac", "table", "none"),
        key("announce", "table", "none"),
        key("track", "table", "none"),
        key("notify", "table", "none"),
    ],
};

/// One of the addresses of a router, where a string does not say enough.
pub const ADDRESS: Table = Table {
    header: "an address",
    keys: &[
        key("address", "string", "required"),
        key("device", "string", "none"),
        key("label", "string", "none"),
        key("scope", "string", "none"),
        key("broadcast", "string", "none"),
        key("peer", "string", "none"),
        key("virtual_mac", "boolean", "false"),
        key("track", "boolean", "true"),
        key("preferred", "duration", "none"),
        key("flags", "list of strings", "[]"),
    ],
};

/// One of the peers of a router, where a string does not say enough.
pub const PEER: Table = Table {
    header: "a peer",
    keys: &[key("address", "string", "required"), key("min_ttl", "integer", "none"), key("max_ttl", "integer", "none")],
};

/// `[router.authentication]`.
pub const AUTHENTICATION: Table = Table {
    header: "[router.authentication]",
    keys: &[key("password", "string", "required"), key("ah", "boolean", "false")],
};

/// `[router.virtual_mac]`.
pub const VIRTUAL_MAC: Table = Table {
    header: "[router.virtual_mac]",
    keys: &[
        key("name", "string", "none"),
        key("mac", "string", "none"),
        key("transmit_base", "boolean", "false"),
        key("addresses", "boolean", "false"),
        key("group", "integer", "0"),
    ],
};

/// `[router.announce]`.
pub const ANNOUNCE: Table = Table {
    header: "[router.announce]",
    keys: &[
        key("delay", "duration", "\"5s\""),
        key("repeat", "integer", "5"),
        key("lower_prio_delay", "duration", "none"),
        key("lower_prio_repeat", "integer", "none"),
        key("refresh", "duration", "\"0s\""),
        key("refresh_repeat", "integer", "1"),
        key("arp_interval", "duration", "\"0s\""),
        key("nd_interval", "duration", "\"0s\""),
        key("extra_interval", "duration", "\"0s\""),
        key("extra_all", "boolean", "false"),
    ],
};

const TRACKING: &[Key] = &[
    key("interfaces", "list of tracked", "[]"),
    key("scripts", "list of tracked", "[]"),
    key("files", "list of tracked", "[]"),
    key("processes", "list of tracked", "[]"),
    key("bfd", "list of tracked", "[]"),
    key("services", "list of tracked", "[]"),
];

/// `[router.track]`.
pub const ROUTER_TRACK: Table = Table { header: "[router.track]", keys: TRACKING };

/// One of what is tracked, where a string does not say enough.
pub const TRACKED: Table = Table {
    header: "a tracked",
    keys: &[key("name", "string", "required"), key("weight", "integer", "none"), key("reverse", "boolean", "false")],
};

const NOTIFICATIONS: &[Key] = &[
    key("master", "script", "none"),
    key("backup", "script", "none"),
    key("fault", "script", "none"),
    key("stop", "script", "none"),
    key("deleted", "script", "none"),
    key("lower_prio", "script", "none"),
    key("all", "script", "none"),
    key("priority_changes", "boolean", "false"),
];

/// `[router.notify]`.
pub const ROUTER_NOTIFY: Table = Table { header: "[router.notify]", keys: NOTIFICATIONS };

/// `[[router_group]]`.
pub const ROUTER_GROUP: Table = Table {
    header: "[[router_group]]",
    keys: &[
        key("name", "string", "required"),
        key("members", "list of strings", "required"),
        key("track_weights", "boolean", "false"),
        key("mail", "boolean", "none"),
        key("track", "table", "none"),
        key("notify", "table", "none"),
    ],
};

/// `[router_group.track]`.
pub const GROUP_TRACK: Table = Table { header: "[router_group.track]", keys: TRACKING };

/// `[router_group.notify]`.
pub const GROUP_NOTIFY: Table = Table { header: "[router_group.notify]", keys: NOTIFICATIONS };

/// `[[track_script]]`.
pub const TRACK_SCRIPT: Table = Table {
    header: "[[track_script]]",
    keys: &[
        key("name", "string", "required"),
        key("command", "script", "required"),
        key("interval", "duration", "\"1s\""),
        key("timeout", "duration", "none"),
        key("weight", "integer", "0"),
        key("reverse", "boolean", "false"),
        key("rise", "integer", "1"),
        key("fall", "integer", "1"),
        key("start", "string", "\"up\""),
    ],
};

/// `[[track_file]]`.
pub const TRACK_FILE: Table = Table {
    header: "[[track_file]]",
    keys: &[
        key("name", "string", "required"),
        key("path", "string", "required"),
        key("weight", "integer", "1"),
        key("reverse", "boolean", "false"),
        key("initial", "integer", "none"),
        key("overwrite", "boolean", "false"),
    ],
};

/// `[[track_process]]`.
pub const TRACK_PROCESS: Table = Table {
    header: "[[track_process]]",
    keys: &[
        key("name", "string", "required"),
        key("command", "list of strings", "required"),
        key("arguments", "string", "\"exact\""),
        key("full_command", "boolean", "false"),
        key("weight", "integer", "0"),
        key("reverse", "boolean", "false"),
        key("quorum", "integer", "1"),
        key("quorum_max", "integer", "none"),
        key("start_delay", "duration", "\"0s\""),
        key("stop_delay", "duration", "\"0s\""),
    ],
};

/// `[[bfd]]`.
pub const BFD: Table = Table {
    header: "[[bfd]]",
    keys: &[
        key("name", "string", "required"),
        key("address", "string", "required"),
        key("source", "string", "none"),
        key("min_rx", "duration", "\"10ms\""),
        key("min_tx", "duration", "\"10ms\""),
        key("idle_tx", "duration", "\"1s\""),
        key("multiplier", "integer", "5"),
        key("passive", "boolean", "false"),
        key("ttl", "integer", "none"),
        key("max_hops", "integer", "0"),
        key("multihop", "boolean", "false"),
        key("weight", "integer", "0"),
        key("reverse", "boolean", "false"),
    ],
};

/// `[[interface_delay]]`.
pub const INTERFACE_DELAY: Table = Table {
    header: "[[interface_delay]]",
    keys: &[key("interface", "string", "required"), key("down", "duration", "\"0s\""), key("up", "duration", "\"0s\"")],
};

/// `[[fifo]]`.
pub const FIFO: Table = Table {
    header: "[[fifo]]",
    keys: &[
        key("path", "string", "required"),
        key("events", "string", "\"all\""),
        key("user", "string", "none"),
        key("group", "string", "none"),
        key("script", "script", "none"),
        key("states_on_reload", "boolean", "false"),
    ],
};

/// `[mail]`.
pub const MAIL: Table = Table {
    header: "[mail]",
    keys: &[
        key("server", "string", "required"),
        key("port", "integer", "25"),
        key("to", "list of strings", "required"),
        key("from", "string", "none"),
        key("helo", "string", "none"),
        key("host", "string", "none"),
        key("timeout", "duration", "\"30s\""),
        key("routers", "boolean", "none"),
        key("services", "boolean", "none"),
        key("no_faults", "boolean", "false"),
    ],
};

/// `[sync]`.
pub const SYNC: Table = Table {
    header: "[sync]",
    keys: &[
        key("role", "string", "\"both\""),
        key("router", "string", "none"),
        key("interface", "string", "none"),
        key("id", "integer", "0"),
        key("group", "string", "\"224.0.0.81\""),
        key("port", "integer", "8848"),
        key("ttl", "integer", "1"),
        key("maxlen", "integer", "none"),
        key("threshold", "integer", "3"),
        key("period", "integer", "50"),
        key("refresh_period", "duration", "\"0s\""),
        key("retries", "integer", "0"),
        key("peers", "list of strings", "[]"),
        key("key", "string", "none"),
        key("persist_mode", "boolean", "false"),
        key("backup_only", "boolean", "false"),
    ],
};

/// All tables.
pub const TABLES: [Table; 37] = [
    ROOT,
    DIRECTOR,
    TIMEOUTS,
    ERRORS,
    API,
    METRICS,
    PAGE,
    MARK,
    SERVICE,
    PERSISTENCE,
    HEALTH,
    SORRY,
    SERVER,
    CHECK,
    REQUEST,
    SCRIPT,
    FAILOVER,
    ROUTER,
    ADDRESS,
    PEER,
    AUTHENTICATION,
    VIRTUAL_MAC,
    ANNOUNCE,
    ROUTER_TRACK,
    TRACKED,
    ROUTER_NOTIFY,
    ROUTER_GROUP,
    GROUP_TRACK,
    GROUP_NOTIFY,
    TRACK_SCRIPT,
    TRACK_FILE,
    TRACK_PROCESS,
    BFD,
    INTERFACE_DELAY,
    FIFO,
    MAIL,
    SYNC,
];

/// What somebody may have meant by a word that is none of `known`: one with one
/// edit, or two in long words.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let longest = if word.chars().count() < 6 { 1 } else { 2 };
    known.into_iter().map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= longest).min().map(|(_, k)| k)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words;
/// large for words too long to be mistaken for a key.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.chars().collect();
    // Rows of the table of distances between beginnings of a and b.
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], i: usize| row.get(i).copied().unwrap_or(usize::MAX / 2);
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best = (at(&row, j) + usize::from(ca != cb)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    at(&row, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in
            [("", "abc", 3), ("abc", "abc", 0), ("wieght", "weight", 1), ("adress", "address", 1), ("x", "yz", 2)]
        {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
        assert_eq!(nearest("shceduler", ["scheduler", "server"]), Some("scheduler"));
        assert_eq!(nearest("colour", ["scheduler", "server"]), None);
    }
}
