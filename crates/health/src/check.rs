//! What a check is: its settings, and what is wrong with them.

use crate::duration;
use crate::judge::dns::Question;
use crate::judge::pattern::Pattern;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Longest time of a check: 31 days.
pub const MAX_TIME: Duration = Duration::from_secs(31 * 24 * 3600);

/// A key of dirigent.toml that cannot have its value, why, and what to write.
pub type Fault = (&'static str, String, &'static str);

/// A program to run: its path and arguments, without a shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Script {
    /// Path and arguments; at least the path.
    pub command: Vec<String>,
    /// Whose rights it has; none: those of nobody in particular.
    pub user: Option<String>,
    /// The group, if not the user's.
    pub group: Option<String>,
}

/// When a check is made, and how often it must say the same to be believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pace {
    /// From one check to the next.
    pub interval: Duration,
    /// At random up to this is added to each interval.
    pub jitter: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Further tries before a server that was up is called down: after one failure more than this in a row, which
    /// others call `fall`.
    pub retries: u32,
    /// Between tries.
    pub retry_interval: Duration,
    /// The first check is made at random within this; none: the interval.
    pub warmup: Option<Duration>,
    /// Successes in a row before a server that was down is called up.
    pub rise: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            jitter: Duration::ZERO,
            timeout: Duration::from_secs(3),
            retries: 1,
            retry_interval: Duration::from_secs(1),
            warmup: None,
            rise: 1,
        }
    }
}

/// Where a check's packets go and come from, if not by the server's address and the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Instead of the server's; for BFD the neighbour.
    pub address: Option<IpAddr>,
    /// Instead of the server's.
    pub port: Option<u16>,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Source port.
    pub source_port: Option<u16>,
    /// The interface to go out by.
    pub interface: Option<String>,
    /// Firewall mark of the check's packets; 0: none.
    pub mark: u32,
    /// The check goes to the virtual address, the way of clients' packets, and to this server alone.
    #[serde(default)]
    pub real_path: bool,
}

/// What a server must answer to one GET.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Path, with a query if any.
    pub path: String,
    /// Host header; none: the check's.
    pub virtual_host: Option<String>,
    /// Codes that are well, as ranges; none: 200 to 299.
    pub status: Vec<(u16, u16)>,
    /// MD5 of the body, 32 hexadecimal digits.
    pub digest: Option<String>,
    /// The body must match it.
    pub regex: Option<Regex>,
    /// Instead of the check's.
    pub close_notify: Option<bool>,
}

impl Default for Request {
    fn default() -> Self {
        Self { path: "/".into(), virtual_host: None, status: Vec::new(), digest: None, regex: None, close_notify: None }
    }
}

/// A pattern for bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Regex {
    /// The pattern, in PCRE2's syntax.
    pub pattern: String,
    /// A match is a failure.
    pub invert: bool,
    /// PCRE2's options by keepalived's names: [`REGEX_OPTIONS`].
    pub options: Vec<String>,
    /// First byte of the body that a match may begin at.
    pub min_offset: Option<u32>,
    /// Last byte that it may begin at.
    pub max_offset: Option<u32>,
}

impl Regex {
    fn fault(&self) -> Option<Fault> {
        if self.pattern.is_empty() {
            return Some(("regex", "regex is empty".into(), "remove it, or write a pattern"));
        }
        if let Some(option) = self.options.iter().find(|o| !REGEX_OPTIONS.contains(&o.as_str())) {
            let (what, remedy) = if REGEX_OPTIONS_UNAVAILABLE.contains(&option.as_str()) {
                (
                    format!("PCRE2's option {option:?} is not available here"),
                    "remove it, and write the pattern without it",
                )
            } else {
                let remedy = "use names like \"caseless\", \"dotall\", \"multiline\", \"extended\"";
                (format!("there is no option {option:?}"), remedy)
            };
            return Some(("regex_options", what, remedy));
        }
        None
    }

    /// What PCRE2 does not like about the pattern, which [`Request::faults`] does not look at: compiling takes longer
    /// than all else there is to a configuration.
    pub fn syntax_fault(&self) -> Option<Fault> {
        let why = Pattern::new(self).err()?;
        Some(("regex", format!("regex {:?}: {why}", self.pattern), "write a pattern in PCRE2's syntax"))
    }
}

/// Names of [`Regex::options`]: those of keepalived's that can be had here ([`crate::judge::pattern`]).
pub const REGEX_OPTIONS: [&str; 14] = [
    "auto_callout",
    "caseless",
    "dotall",
    "dupnames",
    "extended",
    "multiline",
    "no_auto_capture",
    "no_auto_possess",
    "no_dotstar_anchor",
    "no_start_optimize",
    "ucp",
    "ungreedy",
    "use_offset_limit",
    "utf",
];

/// keepalived's other options of PCRE2: the library's bindings have no way to set them.
pub const REGEX_OPTIONS_UNAVAILABLE: [&str; 10] = [
    "allow_empty_class",
    "alt_bsux",
    "alt_circumflex",
    "alt_verbnames",
    "dollar_endonly",
    "firstline",
    "match_unset_backref",
    "never_backslash_c",
    "never_ucp",
    "never_utf",
];

/// HTTP's version, and whether the connection is to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HttpVersion {
    /// 1.0.
    #[default]
    V10,
    /// 1.0 with `Connection: close`.
    V10Close,
    /// 1.1.
    V11,
    /// 2: negotiated by TLS (ALPN), or known beforehand without.
    V2,
}

impl HttpVersion {
    /// All.
    pub const ALL: [Self; 4] = [Self::V10, Self::V10Close, Self::V11, Self::V2];
    /// As dirigent.toml has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V10Close => "1.0-close",
            Self::V11 => "1.1",
            Self::V2 => "2",
        }
    }
}

/// A check by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Http {
    /// Version.
    pub version: HttpVersion,
    /// Host header; none: the server's address.
    pub virtual_host: Option<String>,
    /// All must be answered well; at least one.
    pub requests: Vec<Request>,
    /// A server that was down is asked all of them at once, not one each interval.
    pub fast_recovery: bool,
    /// TLS, if it is https.
    pub tls: Option<Tls>,
}

/// TLS of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tls {
    /// The name asked for; none: no name.
    pub sni: Option<String>,
    /// The server must end the connection as TLS wants it.
    pub close_notify: bool,
    /// File with the authorities (PEM) of which one must have signed the server's certificate, which must name what
    /// is asked for. None: its certificate may be any.
    #[serde(default)]
    pub ca: Option<String>,
    /// File with the certificate that the check shows, and those that lead to its authority (PEM).
    #[serde(default)]
    pub certificate: Option<String>,
    /// File with its key (PEM).
    #[serde(default)]
    pub key: Option<String>,
}

impl Tls {
    fn faults(&self) -> Vec<Fault> {
        let mut out: Vec<Fault> = self.sni.iter().filter_map(|name| word("sni", name)).collect();
        for (key, path) in [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)] {
            if let Some(path) = path.as_ref().filter(|path| !path.starts_with('/')) {
                out.push((key, format!("{key} is {path:?}"), "write the whole path: \"/etc/…\""));
            }
        }
        if self.certificate.is_some() != self.key.is_some() {
            let (has, lacks) = if self.key.is_some() { ("key", "certificate") } else { ("certificate", "key") };
            out.push((has, format!("there is a {has} and no {lacks}"), "give both, or neither"));
        }
        out
    }
}

/// What is asked for by DNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are DNS's names")]
pub enum Record {
    A,
    Ns,
    Cname,
    #[default]
    Soa,
    Mx,
    Txt,
    Aaaa,
}

impl Record {
    /// All.
    pub const ALL: [Self; 7] = [Self::A, Self::Ns, Self::Cname, Self::Soa, Self::Mx, Self::Txt, Self::Aaaa];
    /// DNS's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Ns => "NS",
            Self::Cname => "CNAME",
            Self::Soa => "SOA",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Aaaa => "AAAA",
        }
    }
}

/// A datagram and what must come back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Udp {
    /// What is sent, in hexadecimal; none: random bytes.
    pub payload: Option<String>,
    /// What must come, in hexadecimal with `x` for digits that may be any; empty: something.
    /// None: no ICMP error is enough.
    pub reply: Option<String>,
    /// Shortest reply, bytes.
    pub min_reply: u16,
    /// Longest reply, bytes.
    pub max_reply: u16,
}

impl Default for Udp {
    fn default() -> Self {
        Self { payload: None, reply: None, min_reply: 0, max_reply: 255 }
    }
}

/// A BFD session (RFC 5880) with the neighbour that [`Target::address`] names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bfd {
    /// Least time between packets that it can take.
    pub min_rx: Duration,
    /// Least time between its own.
    pub min_tx: Duration,
    /// Between its own while the session is down.
    pub idle_tx: Duration,
    /// Packets missed before the session is down.
    pub multiplier: u8,
    /// It waits for the neighbour to begin.
    pub passive: bool,
    /// Of its packets; none: 255, without which a neighbour one hop away refuses them (RFC 5881 section 5).
    pub ttl: Option<u8>,
    /// Hops away at most; none: any.
    pub max_hops: Option<u8>,
    /// RFC 5883's port.
    pub multihop: bool,
}

impl Default for Bfd {
    fn default() -> Self {
        Self {
            min_rx: Duration::from_millis(10),
            min_tx: Duration::from_millis(10),
            idle_tx: Duration::from_secs(1),
            multiplier: 5,
            passive: false,
            ttl: None,
            max_hops: Some(0),
            multihop: false,
        }
    }
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// A connection is made.
    Tcp,
    /// ICMP echo.
    Ping,
    /// GETs.
    Http(Http),
    /// A greeting.
    Smtp {
        /// The name given.
        helo: String,
    },
    /// A question by UDP.
    Dns {
        /// The name asked for.
        name: String,
        /// What of it.
        record: Record,
    },
    /// A datagram.
    Udp(Udp),
    /// A program: exit code 0 is well.
    Script {
        /// The program.
        script: Script,
        /// Exit codes 2 to 255 are well too, and set the weight, less 2.
        weight_from_exit: bool,
    },
    /// A file with a number in it.
    File {
        /// The file.
        path: String,
        /// The number times this is added to the weight; 0: a number that is not 0 is a failure.
        weight: i32,
        /// The other way around.
        reverse: bool,
    },
    /// BFD.
    Bfd(Bfd),
}

/// The default name of a greeting.
pub const DEFAULT_HELO: &str = "dirigent.invalid";

impl Probe {
    /// Whether it asks what a server serves to clients, so that it can go their way.
    pub fn asks_a_service(&self) -> bool {
        matches!(self, Self::Tcp | Self::Http(_) | Self::Smtp { .. } | Self::Dns { .. } | Self::Udp(_))
    }
    /// As dirigent.toml's `type` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ping => "ping",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Smtp { .. } => "smtp",
            Self::Dns { .. } => "dns",
            Self::Udp(_) => "udp",
            Self::Script { .. } => "script",
            Self::File { .. } => "file",
            Self::Bfd(_) => "bfd",
        }
    }
}

/// One check of a server. All of a server's must pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Check {
    /// What is looked at.
    pub probe: Probe,
    /// When.
    pub pace: Pace,
    /// Where.
    pub target: Target,
    /// The server is down until the first success.
    pub start_down: bool,
    /// Each failure is told, not only the last.
    pub log_failures: bool,
}

impl Check {
    /// With defaults.
    pub fn new(probe: Probe) -> Self {
        Self { probe, pace: Pace::default(), target: Target::default(), start_down: false, log_failures: false }
    }

    /// What is wrong with it, requests apart.
    pub fn faults(&self) -> Vec<Fault> {
        const TIME: &str = "use \"1ms\" to \"31d\"";
        let mut out: Vec<Fault> = Vec::new();
        let Pace { interval, jitter, timeout, retry_interval, warmup, rise, .. } = &self.pace;
        let mut time = |key, time: &Duration, may_be_none: bool| {
            if *time > MAX_TIME || (time.is_zero() && !may_be_none) {
                out.push((key, format!("{key} is {}", duration::format(*time)), TIME));
            }
        };
        time("interval", interval, false);
        time("jitter", jitter, true);
        time("timeout", timeout, false);
        time("retry_interval", retry_interval, true);
        if let Some(warmup) = warmup {
            time("warmup", warmup, true);
        }
        if let Probe::Bfd(bfd) = &self.probe {
            time("min_rx", &bfd.min_rx, false);
            time("min_tx", &bfd.min_tx, false);
            time("idle_tx", &bfd.idle_tx, false);
        }
        if *rise == 0 {
            out.push(("rise", "rise is 0".into(), "use 1 or more"));
        }
        out.extend(self.target.faults());
        out.extend(self.probe.faults());
        if matches!(self.probe, Probe::Bfd(_)) && self.target.address.is_none() {
            out.push(("address", "a bfd check has no address".into(), "add the neighbour's: address = \"10.0.0.2\""));
        }
        out
    }
}

impl Target {
    fn faults(&self) -> Vec<Fault> {
        let mut out: Vec<Fault> = Vec::new();
        for (key, port) in [("port", self.port), ("source_port", self.source_port)] {
            if port == Some(0) {
                out.push((key, format!("{key} is 0"), "use 1 to 65535"));
            }
        }
        let own = [
            ("address", self.address.is_some()),
            ("port", self.port.is_some()),
            ("source", self.source.is_some()),
            ("source_port", self.source_port.is_some()),
            ("interface", self.interface.is_some()),
            ("mark", self.mark != 0),
        ];
        for (key, _) in own.into_iter().filter(|(_, there)| *there && self.real_path) {
            let what = format!("{key} beside real_path: the check goes where clients' packets go");
            out.push((key, what, "remove one of the two"));
        }
        if let (Some(to), Some(from)) = (self.address, self.source)
            && to.is_ipv4() != from.is_ipv4()
        {
            let remedy = "use two addresses of one family";
            out.push(("source", format!("source {from} is of another family than address {to}"), remedy));
        }
        if let Some(name) = &self.interface
            && !(1..=15).contains(&name.len())
                | name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
        {
            out.push(("interface", format!("{name:?} is no name of an interface"), "name one as `ip link` shows it"));
        }
        out
    }
}

/// Text that goes into a line of a protocol.
fn word(key: &'static str, text: &str) -> Option<Fault> {
    let bad = text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control());
    bad.then(|| (key, format!("{key} is {text:?}"), "write a name without blanks"))
}

impl Probe {
    fn faults(&self) -> Vec<Fault> {
        let mut out = Vec::new();
        match self {
            Self::Tcp | Self::Ping => {}
            Self::Http(http) => {
                if http.requests.is_empty() {
                    let remedy = "add one: request = [{ path = \"/\" }]";
                    out.push(("request", format!("an {} check asks for nothing", self.name()), remedy));
                }
                out.extend(http.virtual_host.as_ref().and_then(|host| word("virtual_host", host)));
                out.extend(http.tls.iter().flat_map(Tls::faults));
            }
            Self::Smtp { helo } => out.extend(word("helo", helo)),
            Self::Dns { name, .. } => {
                let bare = name.strip_suffix('.').unwrap_or(name);
                let label = |l: &str| (1..=63).contains(&l.len()) && !l.contains(|c: char| c.is_whitespace());
                // The second is the same, and what labels of other scripts become.
                let bad = bare.len() > 253 || !bare.split('.').all(label) || Question::new(name, Record::A).is_err();
                if name != "." && bad {
                    let remedy = "write a name like \"example.com.\", or \".\" for the root";
                    out.push(("name", format!("name is {name:?}"), remedy));
                }
            }
            Self::Udp(udp) => {
                let hex = |text: &str, any: bool| text.bytes().all(|b| b.is_ascii_hexdigit() || (any && b == b'x'));
                let remedy = "write an even number of hexadecimal digits";
                for (key, text, any) in [("payload", &udp.payload, false), ("reply", &udp.reply, true)] {
                    if let Some(text) = text.as_ref().filter(|t| t.len() % 2 != 0 || !hex(t, any)) {
                        out.push((key, format!("{key} is {text:?}"), remedy));
                    }
                }
                if udp.min_reply > udp.max_reply {
                    let what = format!("min_reply {} is over max_reply {}", udp.min_reply, udp.max_reply);
                    out.push(("min_reply", what, "set max_reply above min_reply"));
                }
            }
            Self::Script { script, .. } => out.extend(script.faults("command")),
            Self::File { path, .. } => {
                if !path.starts_with('/') {
                    out.push(("path", format!("path is {path:?}"), "write the whole path: \"/run/…\""));
                }
            }
            Self::Bfd(bfd) => {
                for (key, zero) in [("multiplier", bfd.multiplier == 0), ("ttl", bfd.ttl == Some(0))] {
                    if zero {
                        out.push((key, format!("{key} is 0"), "use 1 to 255"));
                    }
                }
            }
        }
        out
    }
}

impl Script {
    /// What is wrong with it as the value of `key`.
    pub fn faults(&self, key: &'static str) -> Option<Fault> {
        if self.command.first().is_none_or(String::is_empty) {
            return Some((key, format!("{key} names no program"), "write [\"/path/to/program\", \"argument\"]"));
        }
        let root = self.user.as_deref().is_some_and(|user| user == "root" || user.parse() == Ok(0u32));
        root.then(|| {
            let remedy = "name another user; what needs root: run it by a timer of systemd's, let it write a number into a \
                          file, and look at that by a check of type = \"file\"";
            (key, format!("{key} would run as root, and no script does"), remedy)
        })
    }
}

impl Request {
    /// What is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let mut out: Vec<Fault> = Vec::new();
        if !self.path.starts_with('/') || self.path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            out.push(("path", format!("path is {:?}", self.path), "begin it with /, without blanks"));
        }
        out.extend(self.virtual_host.as_ref().and_then(|host| word("virtual_host", host)));
        for (first, last) in &self.status {
            if !(100..=599).contains(first) || !(*first..=599).contains(last) {
                out.push(("status", format!("status {first}-{last}"), "use 100 to 599, the lower first"));
            }
        }
        if let Some(digest) = &self.digest
            && (digest.len() != 32 || !digest.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            out.push(("digest", format!("digest is {digest:?}"), "write MD5 as 32 hexadecimal digits"));
        }
        if let Some(regex) = &self.regex {
            out.extend(regex.fault());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(pattern: &str, options: &[&str]) -> Vec<String> {
        let options = options.iter().map(|o| o.to_string()).collect();
        let regex = Some(Regex { pattern: pattern.into(), options, ..Regex::default() });
        Request { regex, ..Request::default() }.faults().into_iter().map(|(_, what, _)| what).collect()
    }

    #[test]
    fn a_script_of_roots_is_refused() {
        let of = |user: Option<&str>| {
            let script = Script { command: vec!["/x".into()], user: user.map(str::to_owned), group: None };
            script.faults("command").map(|(_, what, remedy)| (what, remedy))
        };
        assert_eq!((of(None), of(Some("nobody")), of(Some("1000"))), (None, None, None));
        for root in ["root", "0", "00"] {
            let (what, remedy) = of(Some(root)).unwrap();
            assert_eq!(what, "command would run as root, and no script does");
            assert!(remedy.contains("timer") && remedy.contains("type = \"file\""), "{remedy}");
        }
    }

    #[test]
    fn options_of_patterns() {
        assert_eq!(faults("a", &REGEX_OPTIONS), [""; 0]);
        assert_eq!(faults("a", &["firstline"]), ["PCRE2's option \"firstline\" is not available here"]);
        assert_eq!(faults("a", &["caselessly"]), ["there is no option \"caselessly\""]);
        let known: std::collections::BTreeSet<_> = REGEX_OPTIONS.iter().chain(&REGEX_OPTIONS_UNAVAILABLE).collect();
        assert_eq!(known.len(), 24);
    }

    #[test]
    fn syntax_of_patterns() {
        let fault = |pattern: &str| Regex { pattern: pattern.into(), ..Regex::default() }.syntax_fault();
        assert_eq!(fault("^a"), None);
        let (key, what, _) = fault("a(").unwrap();
        assert_eq!((key, what.as_str()), ("regex", "regex \"a(\": missing closing parenthesis at byte 2"));
    }

    #[test]
    fn names_that_no_query_can_have() {
        let faults = |name: &str| Check::new(Probe::Dns { name: name.into(), record: Record::A }).faults().len();
        for (name, expected) in [(".", 0), ("example.com.", 0), ("_dmarc.a", 0), ("a..b", 1), ("ä.example", 0)] {
            assert_eq!(faults(name), expected, "{name}");
        }
        assert_eq!(faults(&"ä".repeat(60)), 1, "too long, once it is written for DNS");
    }

    /// What is kept between runs and told by the API.
    #[test]
    fn the_form_in_json() {
        let check = Check::new(Probe::Dns { name: ".".into(), record: Record::Soa });
        let json = serde_json::to_string(&check).unwrap();
        assert_eq!(
            json,
            r#"{"probe":{"Dns":{"name":".","record":"Soa"}},"pace":{"interval":{"secs":5,"nanos":0},"jitter":{"secs":0,"nanos":0},"timeout":{"secs":3,"nanos":0},"retries":1,"retry_interval":{"secs":1,"nanos":0},"warmup":null,"rise":1},"target":{"address":null,"port":null,"source":null,"source_port":null,"interface":null,"mark":0,"real_path":false},"start_down":false,"log_failures":false}"#
        );
        assert_eq!(serde_json::from_str::<Check>(&json).unwrap(), check);
    }
}
