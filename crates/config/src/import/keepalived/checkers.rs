//! Checkers: what keepalived looks at, with its defaults.

use super::syntax::{Node, Place, unescaped};
use super::values::{address, boolean, integer, integer32, port, rights, script, seconds, timer, word};
use super::{Globals, Said};
use crate::health::{
    Bfd, Check, Http, HttpVersion, Pace, Probe, REGEX_OPTIONS, REGEX_OPTIONS_UNAVAILABLE, Record, Regex, Request,
    Target, Tls, Udp,
};
use std::time::Duration;

/// What virtual servers and real servers say for their checkers.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub delay_loop: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    pub retry: Option<u32>,
    pub delay_before_retry: Option<Duration>,
    pub warmup: Option<Duration>,
    pub alpha: Option<bool>,
    pub log_all_failures: Option<bool>,
    pub virtualhost: Option<String>,
}

impl Defaults {
    /// Takes one of its keywords; `least` tries at least.
    pub fn take(&mut self, node: &Node, least: u32, said: &mut Said) -> bool {
        match node.keyword.as_str() {
            "delay_loop" => self.delay_loop = timer(node, false, said).or(self.delay_loop),
            "connect_timeout" => self.connect_timeout = timer(node, false, said).or(self.connect_timeout),
            "retry" | "nb_get_retry" => self.retry = integer32(node, least, u32::MAX, said).or(self.retry),
            "delay_before_retry" => self.delay_before_retry = timer(node, true, said).or(self.delay_before_retry),
            "warmup" => self.warmup = timer(node, true, said).or(self.warmup),
            "alpha" => self.alpha = boolean(node, said).or(self.alpha),
            "log_all_failures" => self.log_all_failures = boolean(node, said).or(self.log_all_failures),
            "virtualhost" => self.virtualhost = word(node, said).map(str::to_owned).or(self.virtualhost.take()),
            _ => return false,
        }
        true
    }
    /// These, and where they say nothing, others.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            delay_loop: self.delay_loop.or(other.delay_loop),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            retry: self.retry.or(other.retry),
            delay_before_retry: self.delay_before_retry.or(other.delay_before_retry),
            warmup: self.warmup.or(other.warmup),
            alpha: self.alpha.or(other.alpha),
            log_all_failures: self.log_all_failures.or(other.log_all_failures),
            virtualhost: self.virtualhost.clone().or_else(|| other.virtualhost.clone()),
        }
    }
    fn pace(&self, checker: &str) -> Pace {
        let interval = self.delay_loop.unwrap_or(Duration::from_secs(60));
        let (retries, pause) = match checker {
            "DNS_CHECK" => (3, interval),
            "MISC_CHECK" => (0, Duration::from_secs(1)),
            "HTTP_GET" | "SSL_GET" => (1, Duration::from_secs(3)),
            _ => (1, Duration::from_secs(1)),
        };
        Pace {
            interval,
            jitter: Duration::ZERO,
            timeout: self.connect_timeout.unwrap_or(Duration::from_secs(5)),
            retries: self.retry.unwrap_or(retries),
            retry_interval: self.delay_before_retry.unwrap_or(pause),
            warmup: self.warmup,
            rise: 1,
        }
    }
}

const TIMING: &[&str] = &["retry", "delay_before_retry", "warmup", "delay_loop", "alpha", "log_all_failures"];
const CONNECTION: &[&str] =
    &["connect_ip", "connect_port", "bindto", "bind_port", "bind_if", "connect_timeout", "fwmark"];
const HTTP: &[&str] = &[
    "http_protocol",
    "virtualhost",
    "fast_recovery",
    "enable_sni",
    "sni_name",
    "tls_compliant",
    "nb_get_retry",
    "url",
];

/// The keywords of a checker, beside [`TIMING`] and [`CONNECTION`].
fn own(checker: &str) -> &'static [&'static str] {
    match checker {
        "HTTP_GET" | "SSL_GET" => HTTP,
        // Of old versions: nb_get_retry is the same as retry everywhere.
        "TCP_CHECK" => &["nb_get_retry"],
        "SMTP_CHECK" => &["helo_name", "host", "nb_get_retry"],
        "DNS_CHECK" => &["type", "name", "nb_get_retry"],
        "MISC_CHECK" => &["misc_path", "misc_timeout", "misc_dynamic", "user"],
        "UDP_CHECK" => &["payload", "require_reply", "min_reply_length", "max_reply_length"],
        "BFD_CHECK" => &["name", "alpha"],
        "FILE_CHECK" => &["track_file", "weight"],
        _ => &[],
    }
}

fn known(checker: &str) -> Vec<&'static str> {
    let mut all = own(checker).to_vec();
    if !["BFD_CHECK", "FILE_CHECK"].contains(&checker) {
        all.extend(TIMING);
        if checker != "MISC_CHECK" {
            all.extend(CONNECTION);
        }
    }
    all
}

/// A checker.
pub fn check(node: &Node, defaults: &Defaults, globals: &Globals, said: &mut Said) -> Option<Check> {
    let checker = node.keyword.as_str();
    let known = known(checker);
    let mut own = Defaults::default();
    let mut target = Target::default();
    let mut inside = Vec::new();
    for child in node.inside() {
        if !known.contains(&child.keyword.as_str()) {
            said.unknown(child, checker, &known);
        } else if child.keyword == "host" {
            inside.extend(child.inside().iter().filter(|grandchild| {
                let known = CONNECTION.contains(&grandchild.keyword.as_str());
                if !known {
                    said.unknown(grandchild, "host", CONNECTION);
                }
                known
            }));
        } else {
            inside.push(child);
        }
    }
    let mut rest = Vec::new();
    for child in inside {
        if !connection(child, &mut target, said) && !own.take(child, 0, said) {
            rest.push(child);
        }
    }
    let all = own.or(defaults);
    let mut pace = all.pace(checker);
    let probe = match checker {
        "TCP_CHECK" => Probe::Tcp,
        "PING_CHECK" => Probe::Ping,
        "HTTP_GET" | "SSL_GET" => http(node, &rest, all.virtualhost.clone(), said)?,
        "SMTP_CHECK" => {
            let named = last(&rest, "helo_name").and_then(|n| word(n, said));
            Probe::Smtp { helo: named.unwrap_or("smtpchecker.keepalived.org").to_owned() }
        }
        "DNS_CHECK" => dns(&rest, said),
        "MISC_CHECK" => {
            // A program has as long as until the next check.
            let timeout = last(&rest, "misc_timeout").and_then(|n| integer32(n, 0, 2_678_400, said));
            pace.timeout = timeout.filter(|s| *s != 0).map_or(pace.interval, |s| Duration::from_secs(s.into()));
            misc(node, &rest, globals, said)?
        }
        "UDP_CHECK" => udp(&rest, said),
        "FILE_CHECK" => {
            pace = Pace::default();
            file(node, &rest, globals, said)?
        }
        _ => {
            pace = Pace::default();
            let name = needed(node, &rest, "name", said).and_then(|n| word(n, said))?;
            let Some((_, found, bfd)) = globals.bfd.iter().find(|(known, ..)| known == name) else {
                said.fault(&node.place, format!("there is no bfd_instance {name:?}"), "add it, or correct the name");
                return None;
            };
            target = found.clone();
            Probe::Bfd(bfd.clone())
        }
    };
    let check = Check {
        probe,
        pace,
        target,
        start_down: all.alpha.unwrap_or(false),
        log_failures: all.log_all_failures.or(globals.log_all_failures).unwrap_or(false),
    };
    let requests = match &check.probe {
        Probe::Http(http) => http.requests.iter().flat_map(Request::faults).collect(),
        _ => Vec::new(),
    };
    for (_, what, remedy) in check.faults().into_iter().chain(requests) {
        said.fault(&node.place, format!("{checker}: {what}"), remedy);
    }
    Some(check)
}

fn last<'n>(nodes: &[&'n Node], keyword: &str) -> Option<&'n Node> {
    nodes.iter().rev().find(|n| n.keyword == keyword).copied()
}

fn needed<'n>(node: &Node, nodes: &[&'n Node], keyword: &str, said: &mut Said) -> Option<&'n Node> {
    let found = last(nodes, keyword);
    if found.is_none() {
        said.fault(&node.place, format!("{} without {keyword}", node.keyword), format!("add {keyword}"));
    }
    found
}

fn connection(node: &Node, target: &mut Target, said: &mut Said) -> bool {
    match node.keyword.as_str() {
        "connect_ip" => target.address = word(node, said).and_then(|text| address(node, text, said)),
        "connect_port" => target.port = port(node, said),
        "bindto" => target.source = word(node, said).and_then(|text| address(node, text, said)),
        "bind_port" => target.source_port = port(node, said),
        "bind_if" => target.interface = word(node, said).map(str::to_owned),
        "fwmark" => target.mark = integer32(node, 0, u32::MAX, said).unwrap_or(0),
        _ => return false,
    }
    true
}

fn http(node: &Node, rest: &[&Node], virtual_host: Option<String>, said: &mut Said) -> Option<Probe> {
    let tls = node.keyword == "SSL_GET";
    let version = last(rest, "http_protocol").and_then(|n| Some((n, word(n, said)?)));
    let version = version.map_or(HttpVersion::V10, |(n, text)| match text {
        "1.0" => HttpVersion::V10,
        "1.0c" | "1.0C" => HttpVersion::V10Close,
        "1.1" => HttpVersion::V11,
        _ => {
            said.fault(&n.place, format!("http_protocol is {text:?}"), "use 1.0, 1.0C or 1.1");
            HttpVersion::V10
        }
    });
    let urls = rest.iter().filter(|n| n.keyword == "url");
    let requests: Vec<Request> = urls.map(|n| url(n, tls, said)).collect();
    if requests.is_empty() {
        said.fault(&node.place, format!("{} without url", node.keyword), "add url { path / }");
        return None;
    }
    let mut switch = |key| last(rest, key).and_then(|n| boolean(n, said)).unwrap_or(false);
    let (fast_recovery, sni, close_notify) = (switch("fast_recovery"), switch("enable_sni"), switch("tls_compliant"));
    let named = last(rest, "sni_name").and_then(|n| word(n, said)).map(str::to_owned);
    for (key, set) in [("enable_sni", sni), ("sni_name", named.is_some()), ("tls_compliant", close_notify)] {
        if let Some(n) = last(rest, key).filter(|_| set && !tls) {
            said.fault(&n.place, format!("{key} in HTTP_GET, which has no TLS"), "remove it, or use SSL_GET");
        }
    }
    let of_url = || requests.iter().find_map(|r| r.virtual_host.clone());
    let sni = named.or_else(|| if sni { virtual_host.clone().or_else(of_url) } else { None });
    let tls = tls.then(|| Tls { sni, close_notify, ..Tls::default() });
    Some(Probe::Http(Http { version, virtual_host, requests, fast_recovery, tls }))
}

const URL: &[&str] = &[
    "path",
    "digest",
    "status_code",
    "virtualhost",
    "regex",
    "regex_no_match",
    "regex_options",
    "regex_stack",
    "regex_min_offset",
    "regex_max_offset",
    "tls_compliant",
];

fn url(node: &Node, tls: bool, said: &mut Said) -> Request {
    let mut request = Request::default();
    let mut regex = Regex::default();
    let mut path = false;
    for n in node.inside() {
        match n.keyword.as_str() {
            "path" => {
                path = true;
                word(n, said).into_iter().for_each(|text| request.path = text.to_owned());
            }
            "digest" => request.digest = request.digest.take().or_else(|| word(n, said).map(str::to_owned)),
            "virtualhost" => request.virtual_host = word(n, said).map(str::to_owned),
            "status_code" => {
                for text in &n.values {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    match first.parse().ok().zip(last.parse().ok()) {
                        Some(range) => request.status.push(range),
                        None => {
                            let remedy = "use codes like 200 or 200-299";
                            said.fault(&n.place, format!("status_code is {text:?}"), remedy);
                        }
                    }
                }
                if n.values.is_empty() {
                    said.fault(&n.place, "status_code has no value", "use codes like 200 or 200-299");
                }
            }
            "regex" => regex.pattern = word(n, said).map(unescaped).unwrap_or_default(),
            "regex_no_match" => regex.invert = true,
            "regex_options" => {
                for option in &n.values {
                    // Those that are not available are among the request's faults.
                    if REGEX_OPTIONS.iter().chain(&REGEX_OPTIONS_UNAVAILABLE).any(|known| known == option) {
                        regex.options.push(option.clone());
                    } else {
                        let remedy = "use names like caseless, dotall, multiline, extended";
                        said.fault(&n.place, format!("there is no option {option:?}"), remedy);
                    }
                }
            }
            "regex_stack" => said.note(n, "matching here has no stack whose size could be set"),
            "regex_min_offset" => regex.min_offset = integer32(n, 0, u32::MAX, said),
            "regex_max_offset" => regex.max_offset = integer32(n, 0, u32::MAX, said),
            "tls_compliant" if tls => request.close_notify = boolean(n, said),
            "tls_compliant" => {
                said.fault(&n.place, "tls_compliant in HTTP_GET, which has no TLS", "remove it, or use SSL_GET");
            }
            _ => said.unknown(n, "url", URL),
        }
    }
    if !path {
        said.fault(&node.place, "url without path", "add path /");
    }
    if !regex.pattern.is_empty() {
        request.regex = Some(regex);
    } else if regex != Regex::default() {
        said.fault(&node.place, "keywords of regex without regex", "remove them, or add regex \"…\"");
    }
    request
}

fn dns(rest: &[&Node], said: &mut Said) -> Probe {
    let record = last(rest, "type").and_then(|n| {
        let text = word(n, said)?;
        let found = Record::ALL.into_iter().find(|r| r.name() == text);
        if found.is_none() {
            said.fault(&n.place, format!("type is {text:?}"), "use A, NS, CNAME, SOA, MX, TXT or AAAA");
        }
        found
    });
    let name = last(rest, "name").and_then(|n| word(n, said)).unwrap_or(".");
    Probe::Dns { name: name.to_owned(), record: record.unwrap_or_default() }
}

fn misc(node: &Node, rest: &[&Node], globals: &Globals, said: &mut Said) -> Option<Probe> {
    let user = last(rest, "user").map_or_else(|| globals.user.clone(), |n| rights(&n.values));
    let script = needed(node, rest, "misc_path", said).and_then(|n| script(n, &user, said))?;
    Some(Probe::Script { script, weight_from_exit: last(rest, "misc_dynamic").is_some() })
}

fn udp(rest: &[&Node], said: &mut Said) -> Probe {
    let hex = |key| last(rest, key).map(|n| n.values.concat().to_ascii_lowercase());
    let mut length = |key| last(rest, key).and_then(|n| integer(n, 0, 65535, said)).and_then(|n| u16::try_from(n).ok());
    let default = Udp::default();
    Probe::Udp(Udp {
        payload: hex("payload"),
        reply: hex("require_reply"),
        min_reply: length("min_reply_length").unwrap_or(default.min_reply),
        max_reply: length("max_reply_length").unwrap_or(default.max_reply),
    })
}

fn file(node: &Node, rest: &[&Node], globals: &Globals, said: &mut Said) -> Option<Probe> {
    let name = needed(node, rest, "track_file", said).and_then(|n| word(n, said))?;
    let Some(file) = globals.files.iter().find(|file| file.name == name) else {
        said.fault(&node.place, format!("there is no track_file {name:?}"), "add it, or correct the name");
        return None;
    };
    let (weight, reverse) =
        last(rest, "weight").and_then(|n| self::weight(n, said)).or(file.weight).unwrap_or((0, false));
    Some(Probe::File { path: file.path.clone(), weight, reverse })
}

fn weight(node: &Node, said: &mut Said) -> Option<(i32, bool)> {
    let most = i64::from(i32::MAX);
    let weight = integer(node, -most, most, said).and_then(|n| i32::try_from(n).ok())?;
    match node.value(1) {
        None | Some("noreverse") => Some((weight, false)),
        Some("reverse") => Some((weight, true)),
        Some(other) => {
            said.fault(&node.place, format!("weight has {other:?}"), "use reverse, noreverse or nothing");
            None
        }
    }
}

/// A `track_file`.
#[derive(Clone, Debug)]
pub struct FileOf {
    pub name: String,
    pub path: String,
    /// Weight, and whether it is reversed.
    pub weight: Option<(i32, bool)>,
    /// `init_file`.
    pub initial: Option<Node>,
    pub place: Place,
}

/// `track_file`.
pub fn track_file(node: &Node, said: &mut Said) -> Option<FileOf> {
    let name = word(node, said)?.to_owned();
    let (mut path, mut number, mut initial) = (None, None, None);
    for n in node.inside() {
        match n.keyword.as_str() {
            "file" => path = word(n, said).map(unescaped),
            "weight" => number = weight(n, said).or(number),
            "init_file" => initial = Some(n.clone()),
            _ => said.unknown(n, "track_file", &["file", "weight", "init_file"]),
        }
    }
    if path.is_none() {
        said.fault(&node.place, format!("track_file {name} without file"), "add file \"/path\"");
    }
    Some(FileOf { name, path: path?, weight: number, initial, place: node.place.clone() })
}

const BFD: &[&str] = &[
    "neighbor_ip",
    "neighbour_ip",
    "source_ip",
    "min_rx",
    "min_tx",
    "idle_tx",
    "multiplier",
    "passive",
    "ttl",
    "hoplimit",
    "max_hops",
    "multihop",
    "weight",
    "vrrp",
    "checker",
];

/// `bfd_instance`.
pub fn bfd_instance(node: &Node, said: &mut Said) -> Option<(String, Target, Bfd)> {
    let name = word(node, said)?.to_owned();
    let (mut target, mut bfd) = (Target::default(), Bfd::default());
    for n in node.inside() {
        let mut time = |least: i64| {
            let ms = integer(n, least, 4_294_967, said)?;
            Some(Duration::from_millis(ms.unsigned_abs()))
        };
        match n.keyword.as_str() {
            "neighbor_ip" | "neighbour_ip" => target.address = word(n, said).and_then(|text| address(n, text, said)),
            "source_ip" => target.source = word(n, said).and_then(|text| address(n, text, said)),
            "min_rx" => bfd.min_rx = time(1).unwrap_or(bfd.min_rx),
            "min_tx" => bfd.min_tx = time(1).unwrap_or(bfd.min_tx),
            "idle_tx" => bfd.idle_tx = time(1000).unwrap_or(bfd.idle_tx),
            "multiplier" => bfd.multiplier = byte(n, 1, said).unwrap_or(bfd.multiplier),
            "passive" => bfd.passive = true,
            "ttl" | "hoplimit" => bfd.ttl = byte(n, 1, said),
            // keepalived's -1 and 255 both ask nothing.
            "max_hops" => {
                let hops = integer(n, -1, 255, said).unwrap_or(0);
                bfd.max_hops = u8::try_from(hops).ok().filter(|hops| *hops < 255);
            }
            "multihop" => bfd.multihop = boolean(n, said).unwrap_or(false),
            // For virtual routers: see there.
            "weight" | "vrrp" | "checker" => {}
            _ => said.unknown(n, "bfd_instance", BFD),
        }
    }
    if target.address.is_none() {
        said.fault(&node.place, format!("bfd_instance {name} without neighbor_ip"), "add neighbor_ip ADDRESS");
        return None;
    }
    Some((name, target, bfd))
}

fn byte(node: &Node, least: i64, said: &mut Said) -> Option<u8> {
    integer(node, least, 255, said).and_then(|n| u8::try_from(n).ok())
}

/// `lvs_timeouts [tcp S] [tcpfin S] [udp S]`.
pub fn lvs_timeouts(node: &Node, settings: &mut crate::Settings, said: &mut Said) {
    let mut words = node.values.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let t = &mut settings.timeouts;
        let slot = match word {
            "tcp" => &mut t.tcp.established,
            "tcpfin" => &mut t.tcp.fin_wait,
            "udp" => &mut t.udp,
            _ => return said.fault(&node.place, format!("lvs_timeouts has {word:?}"), "use tcp, tcpfin and udp"),
        };
        let time = words.next().and_then(seconds).filter(|time| *time <= crate::health::MAX_TIME);
        let Some(time) = time else {
            let remedy = "write whole seconds, up to 2678400, after it";
            return said.fault(&node.place, format!("lvs_timeouts: {word} has no time"), remedy);
        };
        // 0 leaves what it was, as with ipvsadm --set.
        if !time.is_zero() {
            *slot = time;
        }
    }
}
