//! `dirigent walk`: the way of a service's request to a server and of its answer, hop by hop. The director's part is decided by
//! the packet path itself, on a copy of the tables; of the others it is told what can be known here.

mod ask;
mod draw;
mod way;

use crate::cli::WalkArgs;
use crate::daemon::naming;
use crate::failure::{Failure, Result, code};
use crate::imagine::Imagination;
use crate::why::Method;
use ask::Asker;
use dirigent_api::{Server, Service, Walk, path};
use dirigent_datapath::control::{KernelStore, Store as _, server_address};
pub use draw::text;
use std::collections::BTreeSet;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The service.
    pub service: String,
    /// One of its servers; none: one of each forwarding method.
    pub server: Option<String>,
    /// The client, with or without its port; none: an example.
    pub client: Option<String>,
    /// What it asks, with protocol and port, where the service does not say: of a firewall mark, or of all ports.
    pub to: Option<String>,
}

impl From<WalkArgs> for Question {
    fn from(WalkArgs { service, server, client, to, .. }: WalkArgs) -> Self {
        Self { service, server, client, to }
    }
}

impl Question {
    /// Where the daemon answers it.
    pub fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("service", &self.service);
        for (key, value) in [("server", &self.server), ("client", &self.client), ("to", &self.to)] {
            value.iter().for_each(|value| _ = query.append_pair(key, value));
        }
        format!("{}?{}", path::WALK, query.finish())
    }
}

/// The answer, for services as lists have them. `xdp`: the interfaces that have it.
pub fn walk(services: &[Service], store: &KernelStore, xdp: &BTreeSet<u32>, question: &Question) -> Result<Walk> {
    let service = naming::listed_service(services, &question.service)?;
    let key = naming::listed_key(service).ok_or_else(|| absent(&question.service))?;
    let index = store.places()?.into_iter().find(|(spot, _)| spot.key() == Some(key)).map(|(_, index)| index);
    let index = index.ok_or_else(|| absent(&question.service))?;
    let (servers, left_out) = match &question.server {
        Some(name) => (vec![named(services, service, name)?], Vec::new()),
        None => one_of_each(service)?,
    };
    let mut now = Imagination::new(store, xdp)?;
    let mut asker = Asker::new(&mut now, key, index, service, question)?;
    let ways = servers.into_iter().map(|server| {
        let record = place(store, index, server)?;
        way::of(&mut asker, service, server, record)
    });
    Ok(Walk { service: service.name(), ways: ways.collect::<Result<_>>()?, left_out })
}

fn absent(name: &str) -> Failure {
    let failure = Failure::new(name, "there is no such service", "`dirigent service list` names them");
    Failure { code: code::ABSENT, ..failure }
}

/// The index of a server that is in its service's list.
fn place(store: &KernelStore, service: u32, server: &Server) -> Result<u32> {
    let list = store.service(service)?.list.load();
    let wanted = naming::listed_identity(server);
    for index in store.slots((list >> 32) as u32, list as u32)? {
        let record = store.server(index)?;
        if wanted == Some((server_address(&record), record.port.get())) {
            return Ok(index);
        }
    }
    Err(no_connections(server))
}

/// Connections go there now.
fn takes(server: &Server) -> bool {
    let reached = ["resolved", "no neighbour", "local"].contains(&server.next_hop.state.as_str());
    reached && ["available", "starting"].contains(&server.state.as_str())
}

fn is_local(server: &Server) -> bool {
    server.next_hop.state == "local"
}

/// Why no connection goes there.
fn reason(server: &Server) -> String {
    let health = server.health.as_ref().and_then(|health| health.why.as_ref());
    match (health, server.next_hop.state.as_str()) {
        (Some(why), _) => format!("{} ({why})", server.state),
        (None, "no route") => "without a route to it".to_owned(),
        _ => server.state.clone(),
    }
}

fn no_connections(server: &Server) -> Failure {
    let what = format!("no packet goes to this server of {}: it is {}", server.service, reason(server));
    Failure::new(&server.address, what, "`dirigent server list` shows those that can be walked to")
}

/// The server that is named; of whose service it is, if not of this one.
fn named<'s>(services: &'s [Service], service: &'s Service, name: &str) -> Result<&'s Server> {
    let server = naming::listed_server(service, name).map_err(|mut failure| {
        let others = services.iter().filter(|other| naming::listed_server(other, name).is_ok());
        let others: Vec<_> = others.map(Service::name).collect();
        if let (code::ABSENT, false, Some(problem)) = (failure.code, others.is_empty(), failure.problems.first_mut()) {
            problem.remedy = format!("it is one of {}; or {}", others.join(", "), problem.remedy);
        }
        failure
    })?;
    // Those without new connections have old ones, which go on.
    let leads = server.next_hop.state != "no route";
    if leads && ["available", "starting", "draining", "quiesced", "overloaded"].contains(&server.state.as_str()) {
        return Ok(server);
    }
    Err(no_connections(server))
}

/// Servers that are reached in the same way.
fn alike(one: &Server, other: &Server) -> bool {
    let kind = |server: &Server| server.tunnel.as_ref().map(|tunnel| tunnel.kind.clone());
    (is_local(one), &one.method, kind(one)) == (is_local(other), &other.method, kind(other))
}

/// The first server of each method that takes connections, and the methods of which none does.
fn one_of_each(service: &Service) -> Result<(Vec<&Server>, Vec<String>)> {
    let mut servers: Vec<&Server> = Vec::new();
    for server in service.servers.iter().filter(|server| takes(server)) {
        if !servers.iter().any(|other| alike(server, other)) {
            servers.push(server);
        }
    }
    let mut missing: Vec<&Server> = Vec::new();
    for server in &service.servers {
        if !servers.iter().chain(&missing).any(|other| alike(server, other)) {
            missing.push(server);
        }
    }
    if servers.is_empty() {
        let what = match missing.as_slice() {
            [] => "it has no server".to_owned(),
            _ => {
                let all: Vec<_> = service.servers.iter().map(|s| format!("{} is {}", s.address, reason(s))).collect();
                format!("none of its servers takes connections: {}", all.join(", "))
            }
        };
        let remedy = "`dirigent server list` says how they are; `dirigent server add` adds one";
        return Err(Failure::new(service.name(), what, remedy));
    }
    let left_out = missing.into_iter().map(|server| {
        let method = Method::of(&server.method, is_local(server)).name();
        format!("{method}: no server that is reached so takes connections; {} is {}", server.address, reason(server))
    });
    Ok((servers, left_out.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::{NextHop, Tunnel};

    fn server(address: &str, method: &str, state: &str, hop: &str) -> Server {
        let tunnel = (method == "tun").then(|| Tunnel { kind: "gre".into(), ..Tunnel::default() });
        let next_hop = NextHop { state: hop.into(), ..NextHop::default() };
        let (address, method, state) = (address.to_owned(), method.to_owned(), state.to_owned());
        Server { service: "tcp 192.0.2.10:80".into(), address, method, state, tunnel, next_hop, ..Server::default() }
    }

    fn service(address: &str, servers: Vec<Server>) -> Service {
        Service { protocol: "tcp".into(), address: address.into(), family: 4, servers, ..Service::default() }
    }

    #[test]
    fn one_server_of_each_method_is_walked_to() {
        let all = service(
            "192.0.2.10:80",
            vec![
                server("10.0.0.2:80", "nat", "down", "resolved"),
                server("10.0.0.3:80", "nat", "available", "resolved"),
                server("10.0.0.4:80", "nat", "available", "local"),
                server("10.0.0.5:80", "dr", "available", "no route"),
                server("10.0.0.6:80", "tun", "starting", "no neighbour"),
                server("10.0.0.7:80", "nat", "available", "resolved"),
            ],
        );
        let (servers, left_out) = one_of_each(&all).unwrap();
        let names: Vec<_> = servers.iter().map(|server| server.address.as_str()).collect();
        assert_eq!(names, ["10.0.0.3:80", "10.0.0.4:80", "10.0.0.6:80"]);
        let dr = "Direct routing: no server that is reached so takes connections; 10.0.0.5:80 is without a route to it";
        assert_eq!(left_out, [dr]);
    }

    #[test]
    fn mistakes_are_told_with_a_way_out() {
        let down = server("10.0.0.2:80", "nat", "down", "resolved");
        let quiet = server("10.0.0.3:80", "nat", "quiesced", "resolved");
        let all = [
            service("192.0.2.10:80", vec![down, quiet]),
            service("192.0.2.10:443", vec![server("10.0.0.9:443", "nat", "available", "resolved")]),
            service("192.0.2.10:25", Vec::new()),
        ];
        let none = one_of_each(&all[0]).unwrap_err();
        let said =
            "tcp 192.0.2.10:80: none of its servers takes connections: 10.0.0.2:80 is down, 10.0.0.3:80 is quiesced";
        assert!(none.to_string().starts_with(said), "{none}");
        assert!(one_of_each(&all[2]).unwrap_err().to_string().contains("it has no server"));
        let of = |name: &str| named(&all, &all[0], name);
        assert_eq!(of("10.0.0.3").unwrap().address, "10.0.0.3:80");
        assert!(of("10.0.0.2").unwrap_err().to_string().contains("it is down"));
        let other = of("10.0.0.9").unwrap_err();
        assert_eq!(other.code, code::ABSENT);
        assert!(other.to_string().contains("it is one of tcp 192.0.2.10:443"), "{other}");
    }

    #[test]
    fn the_question_is_asked_by_its_path() {
        let question =
            Question { service: "tcp:[2001:db8::10]:80".into(), to: Some("udp:x:1".into()), ..Question::default() };
        assert_eq!(question.path(), "/v1/walk?service=tcp%3A%5B2001%3Adb8%3A%3A10%5D%3A80&to=udp%3Ax%3A1");
    }
}
