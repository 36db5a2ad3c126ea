//! Who is measured, and what each needs to do the same work: to bring clients of one virtual address to servers.

use dirigent_config::Mode as Path;
use dirigent_net::lab::{Mode as Method, spec};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Web servers, which requests go to by turns.
pub const SERVERS: u8 = 2;
/// The port of the web.
pub const WEB: u16 = 80;
/// That of iperf3. All of its connections must go to one server: there is one.
pub const BULK: u16 = 5201;
/// That of small datagrams; one server, too.
pub const DATAGRAMS: u16 = 9000;
/// Room for connections: more than a client has ports.
const CONNECTIONS: u32 = 131_072;

/// Room for connections of a proxy, whose two sockets each must be within the usual limit of open files.
const ROOM: u32 = 4096;

/// How links are in a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Frames of at most 1,500 bytes with their checksums, as on a wire: all offloads are off, everywhere.
    Frames,
    /// Segments of up to 64 kB and unfinished checksums, as network cards let the kernel have them.
    Offloads,
}

impl Setting {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Frames, Self::Offloads];

    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Offloads => "offloads",
        }
    }
}

/// What runs on the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Nothing: it is a router, and one server has the virtual address.
    Routing,
    /// Dirigent.
    Dirigent(Path, Method),
    /// Rules of nftables with connection tracking.
    Nftables,
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
}

/// One of those that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// For tables.
    pub name: &'static str,
    /// What it is.
    pub program: Program,
}

/// The limit: whatever balances cannot be faster than what only routes.
pub const LIMIT: Contestant = Contestant { name: "routing", program: Program::Routing };

/// All, in the order of tables.
pub const ALL: [Contestant; 10] = [
    LIMIT,
    ours("xdp nat", Path::Xdp, Method::Nat),
    ours("xdp dr", Path::Xdp, Method::Dr),
    ours("xdp tun", Path::Xdp, Method::Tun),
    ours("tc nat", Path::Tc, Method::Nat),
    ours("tc dr", Path::Tc, Method::Dr),
    ours("tc tun", Path::Tc, Method::Tun),
    Contestant { name: "nftables", program: Program::Nftables },
    Contestant { name: "haproxy", program: Program::Haproxy },
    Contestant { name: "nginx", program: Program::Nginx },
];

const fn ours(name: &'static str, path: Path, method: Method) -> Contestant {
    Contestant { name, program: Program::Dirigent(path, method) }
}

impl Contestant {
    /// Whether it can work with links as they are in this setting: native XDP on virtual links wants offloads off.
    pub fn fits(self, setting: Setting) -> bool {
        setting == Setting::Frames || !matches!(self.program, Program::Dirigent(Path::Xdp, _))
    }

    /// Whether it carries datagrams.
    pub fn carries_datagrams(self) -> bool {
        self.program != Program::Haproxy
    }

    /// How servers answer.
    pub fn method(self) -> Method {
        match self.program {
            Program::Dirigent(_, method) => method,
            _ => Method::Nat,
        }
    }

    /// Whether it is one of Dirigent's.
    pub fn is_ours(self) -> bool {
        matches!(self.program, Program::Dirigent(..))
    }
}

/// The virtual address.
pub fn vip() -> Ipv4Addr {
    spec::VIP.v4.0
}

/// A server's address, counted from 1.
pub fn server(k: u8) -> Ipv4Addr {
    spec::server(k).v4.0
}

/// What is balanced: protocol, port, how many servers.
const SERVICES: [(&str, u16, u8); 3] = [("tcp", WEB, SERVERS), ("tcp", BULK, 1), ("udp", DATAGRAMS, 1)];

/// dirigent.toml.
pub fn dirigent(path: Path, method: Method) -> String {
    let mut text = format!("version = 1\n[director]\nmode = \"{}\"\nconnections = {CONNECTIONS}\n", path.name());
    let method = match method {
        Method::Dr => "dr",
        Method::Tun => "tun",
        _ => "nat",
    };
    for (protocol, port, servers) in SERVICES {
        let _ = write!(
            text,
            "[[service]]\nprotocol = \"{protocol}\"\naddress = \"{}:{port}\"\nscheduler = \"rr\"\nvip = \"manage\"\n",
            vip()
        );
        for k in 1..=servers {
            let _ = write!(text, "[[service.server]]\naddress = \"{}:{port}\"\nmethod = \"{method}\"\n", server(k));
        }
    }
    text
}

/// A script for `nft -f`.
pub fn nftables() -> String {
    let mut rules = String::new();
    for (protocol, port, servers) in SERVICES {
        let map: Vec<_> = (1..=servers).map(|k| format!("{} : {}", k - 1, server(k))).collect();
        let to = match servers {
            1 => server(1).to_string(),
            _ => format!("numgen inc mod {servers} map {{ {} }}", map.join(", ")),
        };
        let _ = writeln!(rules, "    ip daddr {} {protocol} dport {port} dnat to {to}", vip());
    }
    format!(
        "table ip balance {{\n  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n{rules}  }}\n}}\n"
    )
}

/// haproxy.cfg.
pub fn haproxy() -> String {
    let mut text = format!(
        "global\n  nbthread 2\n  maxconn {ROOM}\ndefaults\n  mode tcp\n  balance roundrobin\n  option splice-auto\n  \
                    timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
    );
    for (_, port, servers) in SERVICES.iter().filter(|(protocol, ..)| *protocol == "tcp") {
        let _ = write!(text, "listen port{port}\n  bind {}:{port} backlog 4096\n", vip());
        for k in 1..=*servers {
            let _ = writeln!(text, "  server s{k} {}:{port}", server(k));
        }
    }
    text
}

/// nginx.conf, for Debian's nginx, whose stream module is a file of its own.
pub fn nginx(module: &str, pid: &str) -> String {
    let mut text = format!(
        "load_module {module};\ndaemon off;\npid {pid};\nerror_log stderr warn;\nworker_processes 2;\n\
         events {{ worker_connections {ROOM}; }}\nstream {{\n  proxy_buffer_size 64k;\n"
    );
    for (protocol, port, servers) in SERVICES {
        let all: String = (1..=servers).map(|k| format!(" server {}:{port};", server(k))).collect();
        let how = if protocol == "udp" { "udp reuseport" } else { "reuseport backlog=4096" };
        let _ = write!(
            text,
            "  upstream port{port} {{{all} }}\n  server {{ listen {}:{port} {how}; proxy_pass port{port}; }}\n",
            vip()
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configuration_names_all_services_and_servers() {
        let texts = [dirigent(Path::Tc, Method::Nat), nftables(), haproxy(), nginx("x.so", "pid")];
        for text in texts {
            let udp = text.contains("udp");
            assert!(udp || text.contains("mode tcp"), "{text}");
            for (_, port, _) in SERVICES.iter().filter(|(protocol, ..)| *protocol == "tcp" || udp) {
                assert!(text.contains(&port.to_string()), "{port}: {text}");
            }
            for k in 1..=SERVERS {
                assert!(text.contains(&server(k).to_string()), "{text}");
            }
        }
    }

    #[test]
    fn ours_is_a_valid_file_of_each_method() {
        for contestant in ALL {
            let Program::Dirigent(path, method) = contestant.program else { continue };
            let model = dirigent_config::file::parse("made", &dirigent(path, method)).unwrap();
            assert_eq!(model.settings().mode, path);
            assert_eq!(model.services().iter().map(|s| s.servers.len()).collect::<Vec<_>>(), [2, 1, 1]);
        }
    }

    #[test]
    fn there_is_one_limit_in_every_setting() {
        assert!(Setting::ALL.iter().all(|setting| LIMIT.fits(*setting)));
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(ALL.iter().filter(|c| c.fits(Setting::Offloads)).count(), 7);
    }
}
