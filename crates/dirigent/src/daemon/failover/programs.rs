//! What of a master's belongings other programs put on: routes and rules `ip`, whose words they are; and the rule by which
//! packets for its addresses are not the host's `nft`.

use crate::failure::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Where programs are looked for if the environment does not say: the guard's is the daemon's.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A route, or a rule that leads to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// A rule, not a route.
    pub rule: bool,
    /// Of IPv6.
    pub ipv6: bool,
    /// `ip route add`'s words, or `ip rule add`'s.
    pub words: Vec<String>,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", if self.rule { "rule" } else { "route" }, self.words.join(" "))
    }
}

impl Route {
    /// As it is configured. What names no address is of the router's family.
    pub fn new(rule: bool, text: &str, router_ipv6: bool) -> Self {
        // `no_track`: whether it is there is looked at by nobody.
        let words = text.split_whitespace().filter(|word| !["no_track", "no-track"].contains(word));
        let words: Vec<String> = words.map(str::to_owned).collect();
        let address = |word: &String| word.split_once('/').map_or(word.as_str(), |(ip, _)| ip).parse::<IpAddr>().ok();
        let ipv6 = words.iter().find_map(address).map_or(router_ipv6, |ip| ip.is_ipv6());
        Self { rule, ipv6, words }
    }

    fn arguments<'a>(&'a self, verb: &'a str) -> impl Iterator<Item = &'a str> {
        let family = if self.ipv6 { "-6" } else { "-4" };
        let object = if self.rule { "rule" } else { "route" };
        [family, object, verb].into_iter().chain(self.words.iter().map(String::as_str))
    }

    /// Adds it; one that is there stays.
    pub fn add(&self) -> Result<()> {
        match run("ip", self.arguments(if self.rule { "add" } else { "replace" }), "") {
            Err(said) if !said.contains("File exists") => {
                let remedy = "write it as `ip route add` and `ip rule add` take it; `ip` is of the package iproute2";
                Err(Failure::new(self.to_string(), said, remedy))
            }
            _ => Ok(()),
        }
    }

    /// Removes it. False when it was not there: the kernel removes a route with its address.
    pub fn delete(&self) -> bool {
        run("ip", self.arguments("del"), "").is_ok()
    }
}

/// `accept = false` (RFC 9568 §6.1, Accept_Mode): a table of nftables that drops packets for the addresses, but for
/// neighbour discovery, on their way to this host's own programs. The packet path has taken those of services before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The table's name.
    pub table: String,
    pub addresses: Vec<IpAddr>,
}

impl Closed {
    /// Of a virtual router of a director.
    pub fn new(instance: &str, router: &str, vrid: u8, ipv6: bool, addresses: Vec<IpAddr>) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = format!("{instance}_{router}").chars().map(plain).collect();
        Self { table: format!("dirigent_{name}_{vrid}_{}", if ipv6 { 6 } else { 4 }), addresses }
    }

    /// For `nft -f`: in one step, whatever was there before.
    fn text(&self) -> String {
        let Self { table, addresses } = self;
        let mut text = format!(
            "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n chain input {{\n  \
             type filter hook input priority filter; policy accept;\n  \
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n"
        );
        for (key, ipv6) in [("ip", false), ("ip6", true)] {
            let of: Vec<_> = addresses.iter().filter(|a| a.is_ipv6() == ipv6).map(IpAddr::to_string).collect();
            if !of.is_empty() {
                // A string takes what is written to it.
                let _ = writeln!(text, "  {key} daddr {{ {} }} drop", of.join(", "));
            }
        }
        text + " }\n}\n"
    }

    /// From now on.
    pub fn close(&self) -> Result<()> {
        run("nft", ["-f", "-"].into_iter(), &self.text()).map_err(|said| {
            let what = format!("this host takes packets for the virtual addresses though accept is false: {said}");
            Failure::new("nft", what, "install the package nftables, or set accept = true")
        })
    }

    /// No more. False when it was not there.
    pub fn open(&self) -> bool {
        run("nft", ["delete", "table", "inet", &self.table].into_iter(), "").is_ok()
    }
}

/// Runs a program to its end; what it said, if that was not well.
fn run<'a>(program: &str, arguments: impl Iterator<Item = &'a str>, input: &str) -> std::result::Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{program} cannot be run: {e}"))?;
    if let Some(mut to) = child.stdin.take() {
        to.write_all(input.as_bytes()).map_err(|e| format!("{program} does not read: {e}"))?;
    }
    let output = child.wait_with_output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} says: {}", said.lines().next().unwrap_or("nothing").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_drops_all_but_neighbour_discovery() {
        let addresses = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
        let closed = Closed::new("main", "web \"x\"", 51, false, addresses);
        assert_eq!(closed.table, "dirigent_main_web__x__51_4");
        let text = closed.text();
        assert!(
            text.contains("  ip daddr { 10.0.0.1, 10.0.0.2 } drop\n  ip6 daddr { fd00::1 } drop\n }\n}\n"),
            "{text}"
        );
        assert!(text.find("nd-neighbor-solicit").unwrap() < text.find("drop").unwrap());
        let four = Closed::new("main", "x", 1, false, vec![[10, 0, 0, 1].into()]).text();
        assert!(!four.contains("ip6 daddr"), "{four}");
    }

    #[test]
    fn a_route_is_of_the_family_of_its_addresses() {
        for (text, router, want) in [
            ("10.1.0.0/16 via 10.9.0.9 no_track", true, false),
            ("default via fe80::1 dev eth0", false, true),
            ("default dev eth0", true, true),
            ("default dev eth0", false, false),
        ] {
            let route = Route::new(false, text, router);
            assert_eq!(route.ipv6, want, "{text}");
            assert!(!route.words.contains(&"no_track".to_owned()));
        }
        let rule = Route::new(true, "from 10.0.0.0/8 lookup 100", false);
        let arguments: Vec<_> = rule.arguments("add").collect();
        assert_eq!(arguments.join(" "), "-4 rule add from 10.0.0.0/8 lookup 100");
    }
}
