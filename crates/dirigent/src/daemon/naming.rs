//! Services and servers as people name them.

use crate::failure::{Failure, Result, code};
use dirigent_api::ServerName;
use dirigent_config::{Model, Server, Service, ServiceKey};
use std::net::{IpAddr, SocketAddr};

/// How many names a message has: there may be thousands.
const NAMED: usize = 20;

/// The service that is meant.
pub fn service<'m>(model: &'m Model, name: &str) -> Result<&'m Service> {
    one_service(model.services(), |service| Some(service.key), name)
}

/// The service of a list that is meant.
pub fn listed_service<'l>(list: &'l [dirigent_api::Service], name: &str) -> Result<&'l dirigent_api::Service> {
    one_service(list, listed_key, name)
}

fn one_service<'s, T>(services: &'s [T], key: impl Fn(&T) -> Option<ServiceKey>, name: &str) -> Result<&'s T> {
    let all = |services: &[&T]| some(services.iter().filter_map(|s| key(s)).map(|key| key.to_string()).collect());
    let found: Vec<_> = services.iter().filter(|s| key(s).is_some_and(|key| key.is_called(name))).collect();
    match found.as_slice() {
        [service] => Ok(*service),
        [] => {
            let there: Vec<_> = services.iter().collect();
            let remedy = format!("`dirigent service list` names them: {}", all(&there));
            Err(absent(Failure::new(name, "there is no such service", remedy)))
        }
        several => {
            let remedy = "put its protocol in front, like tcp:192.0.2.10:80";
            Err(Failure::new(name, format!("that may be any of {}", all(several)), remedy))
        }
    }
}

fn absent(failure: Failure) -> Failure {
    Failure { code: code::ABSENT, ..failure }
}

/// Names for a message: a few of them.
fn some(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let text = names.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// The server that is meant.
pub fn find(model: &Model, name: &ServerName) -> Result<(ServiceKey, Server)> {
    let service = service(model, &name.service)?;
    let server = one_server(&service.servers, |s| Some(s.identity()), &service.key.to_string(), &name.server)?;
    Ok((service.key, server.clone()))
}

/// The server of a service in a list that is meant.
pub fn listed_server<'l>(service: &'l dirigent_api::Service, name: &str) -> Result<&'l dirigent_api::Server> {
    one_server(&service.servers, listed_identity, &service.name(), name)
}

/// Address and port of a server in a list.
pub fn listed_identity(server: &dirigent_api::Server) -> Option<(IpAddr, u16)> {
    server.address.parse().ok().map(|at: SocketAddr| (at.ip(), at.port()))
}

fn one_server<'s, T>(
    servers: &'s [T],
    identity: impl Fn(&T) -> Option<(IpAddr, u16)>,
    service: &str,
    name: &str,
) -> Result<&'s T> {
    let word = name.trim();
    // What is no address is nobody's.
    let at = server_at(word).ok();
    let is = |of: (IpAddr, u16)| at.is_some_and(|(ip, port)| ip == of.0 && port.is_none_or(|port| port == of.1));
    let meant = |s: &&T| identity(s).is_some_and(is);
    let found: Vec<_> = servers.iter().filter(meant).collect();
    let at = |s: &&T| identity(s).map(|(ip, port)| SocketAddr::new(ip, port).to_string());
    let names = |servers: &[&T]| some(servers.iter().filter_map(at).collect());
    match found.as_slice() {
        [server] => Ok(*server),
        [] => {
            let there: Vec<_> = servers.iter().collect();
            let remedy = format!("name one of these: {}", names(&there));
            Err(absent(Failure::new(word, format!("{service} has no such real server"), remedy)))
        }
        several => Err(Failure::new(word, format!("that may be any of {}", names(several)), "name its port too")),
    }
}

/// The one of the services in a list, whatever each is listed as, that is called so.
pub fn one_of<T: Clone>(listed: impl Iterator<Item = (ServiceKey, T)>, name: &str) -> Result<T> {
    let all: Vec<_> = listed.collect();
    one_service(&all, |(key, _)| Some(*key), name).map(|(_, one)| one.clone())
}

/// A server's address, and its port if it is said.
pub fn server_at(name: &str) -> Result<(IpAddr, Option<u16>)> {
    let word = name.trim();
    let whole = word.parse().ok().map(|at: SocketAddr| (at.ip(), Some(at.port())));
    let bare = || word.trim_start_matches('[').trim_end_matches(']').parse().ok().map(|ip| (ip, None));
    whole.or_else(bare).ok_or_else(|| {
        let failure = Failure::new(name, "that is no server", "write it like 10.0.0.2:8080, or without its port");
        Failure { code: code::INVALID, ..failure }
    })
}

/// The names of a server and its service in lists.
pub fn listed(key: &ServiceKey, server: &Server) -> ServerName {
    let service = match *key {
        ServiceKey::Address { .. } => key.to_string(),
        ServiceKey::Mark { mark, ipv6 } => {
            let family = if ipv6 { 6 } else { 4 };
            dirigent_api::Service { fwmark: Some(mark.get()), family, ..Default::default() }.name()
        }
    };
    ServerName { service, server: server.name() }
}

/// The key of a service in a list.
pub fn listed_key(service: &dirigent_api::Service) -> Option<ServiceKey> {
    ServiceKey::parse(&match service.fwmark {
        Some(mark) => format!("fwmark:{mark}:{}", service.family),
        None => format!("{}:{}", service.protocol, service.address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version = 1
[[service]]
protocol = \"tcp\"
address = \"192.0.2.10:53\"
[[service.server]]
address = \"10.0.0.2:53\"
[[service.server]]
address = \"10.0.0.3:53\"
[[service.server]]
address = \"10.0.0.3:5353\"
[[service]]
protocol = \"udp\"
address = \"192.0.2.10:53\"
[[service]]
protocol = \"tcp\"
address = \"[2001:db8::10]:80\"
[[service.server]]
address = \"[fd00::2]:80\"
[[service]]
fwmark = 7
[[service.server]]
address = \"10.0.0.9\"
[[service]]
fwmark = 7
family = 6
[[service.server]]
address = \"fd00::9\"
";

    #[test]
    fn servers_are_found_by_any_name() {
        let model = dirigent_config::file::parse("f", FILE).unwrap();
        let find = |service: &str, server: &str| {
            let name = ServerName { service: service.into(), server: server.into() };
            super::find(&model, &name).map(|(key, server)| listed(&key, &server))
        };
        let tcp = ServerName { service: "tcp 192.0.2.10:53".into(), server: "10.0.0.2:53".into() };
        for name in ["tcp:192.0.2.10:53", "TCP 192.0.2.10:53", "tcp/192.0.2.10:53"] {
            for server in ["10.0.0.2", "10.0.0.2:53"] {
                assert_eq!(find(name, server).unwrap(), tcp);
            }
        }
        let six = ServerName { service: "tcp [2001:db8::10]:80".into(), server: "[fd00::2]:80".into() };
        for name in ["[2001:db8::10]:80", "tcp:[2001:db8:0::10]:80"] {
            for server in ["fd00::2", "[fd00::2]", "[fd00:0::2]:80"] {
                assert_eq!(find(name, server).unwrap(), six);
            }
        }
        for (name, server, listed) in [
            ("fwmark:7", "10.0.0.9", "FWM  7"),
            ("fwmark 7", "10.0.0.9:0", "FWM  7"),
            ("FWM  7 IPv6", "fd00::9", "FWM  7 IPv6"),
            ("fwmark:7:6", "fd00::9", "FWM  7 IPv6"),
            ("fwmark/7:IPv4", "10.0.0.9", "FWM  7"),
        ] {
            assert_eq!(find(name, server).unwrap().service, listed);
        }
        for (name, server, said) in [
            ("192.0.2.10:53", "10.0.0.2", "that may be any of tcp 192.0.2.10:53, udp 192.0.2.10:53"),
            ("192.0.2.11:53", "10.0.0.2", "there is no such service"),
            ("sctp:192.0.2.10:53", "10.0.0.2", "there is no such service"),
            ("fwmark:8", "10.0.0.9", "there is no such service"),
            ("tcp:192.0.2.10:53", "10.0.0.3", "that may be any of 10.0.0.3:53, 10.0.0.3:5353"),
            ("tcp:192.0.2.10:53", "10.0.0.4", "tcp 192.0.2.10:53 has no such real server"),
        ] {
            assert_eq!(find(name, server).unwrap_err().problems[0].what, said);
        }
    }
}
