//! What changes nothing.

use super::peer::Peer;
use super::refused::{Named, Parameters, Refused};
use super::{Answer, Ask, Shared, browser};
use crate::daemon::naming;
use crate::explain::{Flag, Question};
use crate::failure::{Failure, code};
use crate::walk;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use clap::ValueEnum as _;
use dirigent_api::{
    Configuration, Connections, ConnectionsOf, Explanation, Me, Past, Rehearsal, Server, ServerName, Service,
    ServiceSpec, Stats, StatsOf, Status, VirtualRouter, Walk, path,
};
use dirigent_config::Protocol;
use dirigent_failover::WhatIf;
use serde::Deserialize;
use utoipa::IntoParams;

/// Connections that are told unless more are asked for.
const CONNECTIONS: usize = 10_000;
/// And the most that are told at once: some 300 MB of JSON.
const MOST_CONNECTIONS: usize = 1_000_000;
/// Changes that the history tells unless more are asked for.
const HISTORY: usize = 100;

/// How the director is doing.
#[utoipa::path(get, path = path::STATUS, tag = "director", responses((status = 200, body = Status), Refused))]
pub async fn status(State(shared): State<Shared>) -> Answer<Status> {
    shared.ask(Ask::Status).await.map(Json)
}

/// Who asks, and what he may.
#[utoipa::path(get, path = path::ME, tag = "director", responses((status = 200, body = Me), Refused))]
pub async fn me(State(shared): State<Shared>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Json<Me> {
    let browses = matches!(peer, Peer::Browser { .. }) || browser::sends(&headers);
    let operates = peer.operates(&shared.operators) && (shared.operators.browse || !browses);
    Json(Me { name: peer.name(), operates })
}

/// All virtual services with their servers.
#[utoipa::path(get, path = path::SERVICES, tag = "services", responses((status = 200, body = Vec<Service>), Refused))]
pub async fn services(State(shared): State<Shared>) -> Answer<Vec<Service>> {
    shared.read(|reader| reader.services()).await.map(Json)
}

/// One virtual service with its servers.
#[utoipa::path(
    get, path = path::SERVICE, tag = "services",
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`.")),
    responses((status = 200, body = Service), Refused)
)]
pub async fn service(State(shared): State<Shared>, Named(service): Named<String>) -> Answer<Service> {
    shared.read(move |reader| find(reader.services()?, &service)).await.map(Json)
}

/// What a virtual service is configured with.
#[utoipa::path(
    get, path = path::SERVICE_SPEC, tag = "services",
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`.")),
    responses((status = 200, body = ServiceSpec), Refused)
)]
pub async fn spec(State(shared): State<Shared>, Named(service): Named<String>) -> Answer<ServiceSpec> {
    shared.ask(|to| Ask::Spec(service, to)).await.map(Json)
}

/// The real servers of a virtual service.
#[utoipa::path(
    get, path = path::SERVERS, tag = "servers",
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`.")),
    responses((status = 200, body = Vec<Server>), Refused)
)]
pub async fn servers(State(shared): State<Shared>, Named(service): Named<String>) -> Answer<Vec<Server>> {
    shared.read(move |reader| Ok(find(reader.services()?, &service)?.servers)).await.map(Json)
}

/// One real server of a virtual service.
#[utoipa::path(
    get, path = path::SERVER, tag = "servers",
    params(
        ("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."),
        ("server" = String, Path, description = "Like `10.0.0.2:8080`."),
    ),
    responses((status = 200, body = Server), Refused)
)]
pub async fn server(State(shared): State<Shared>, Named((service, server)): Named<(String, String)>) -> Answer<Server> {
    let name = shared.ask(|to| Ask::Name(ServerName { service, server }, to)).await?;
    let read = move |reader: &crate::report::Reader| {
        let servers = reader.services()?.into_iter().flat_map(|service| service.servers);
        let mut servers = servers.filter(|server| server.service == name.service && server.address == name.server);
        let gone = || Failure::new(&name.server, "there is no such real server", "`dirigent server list` names them");
        servers.next().ok_or_else(|| Failure { code: code::ABSENT, ..gone() })
    };
    shared.read(read).await.map(Json)
}

/// The one that is called so.
fn find(services: Vec<Service>, name: &str) -> Result<Service, Failure> {
    naming::listed_service(&services, name).cloned()
}

/// How much is told.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Limit {
    /// No more than this many.
    pub limit: Option<usize>,
}

/// Connections: the first 10,000, or as many as are asked for, up to a million.
#[utoipa::path(
    get, path = path::CONNECTIONS, tag = "connections", params(ConnectionsOf),
    responses((status = 200, body = Connections), Refused)
)]
pub async fn connections(
    State(shared): State<Shared>,
    Parameters(of): Parameters<ConnectionsOf>,
) -> Answer<Connections> {
    let of = ConnectionsOf { limit: Some(of.limit.unwrap_or(CONNECTIONS).min(MOST_CONNECTIONS)), ..of };
    shared.read(move |reader| reader.connections(&of)).await.map(Json)
}

/// The packet that is asked about.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Imaginary {
    /// `tcp`, `udp` or `sctp`.
    #[param(example = "tcp")]
    protocol: String,
    /// Its source.
    #[param(example = "198.51.100.7:40000")]
    from: String,
    /// Its destination, of the same family.
    #[param(example = "192.0.2.10:80")]
    to: String,
    /// The interface it comes in by; without it the one by which its source is reached.
    interface: Option<String>,
    /// Flags of TCP, like `syn,ack`; without it `syn`.
    flags: Option<String>,
    /// What netfilter has marked it with.
    mark: Option<u32>,
    /// Bytes of its payload.
    length: Option<u16>,
}

/// What would become of a packet now, step by step. Nothing is sent.
#[utoipa::path(
    get, path = path::EXPLAIN, tag = "director", params(Imaginary),
    responses((status = 200, body = Explanation), Refused)
)]
pub async fn explain(State(shared): State<Shared>, Parameters(query): Parameters<Imaginary>) -> Answer<Explanation> {
    let question = query.question()?;
    shared.read(move |reader| reader.explain(&question)).await.map(Json)
}

impl Imaginary {
    fn question(self) -> Result<Question, Failure> {
        let refuse = |place: String, remedy: &str| {
            let failure = Failure::new(place, "no packet can be made of that", remedy);
            Failure { code: code::INVALID, ..failure }
        };
        let protocol = Protocol::of_name(&self.protocol);
        let protocol =
            protocol.ok_or_else(|| refuse(format!("protocol {}", self.protocol), "it is tcp, udp or sctp"))?;
        let end = |key: &str, text: &str| {
            text.parse().map_err(|_| refuse(format!("{key} {text}"), "write it like 192.0.2.10:80"))
        };
        let flag = |name: &str| {
            Flag::from_str(name, false).map_err(|_| refuse(format!("flag {name}"), "it is syn, ack, fin, rst or psh"))
        };
        let flags = self.flags.as_deref().unwrap_or("syn").split(',').filter(|name| !name.is_empty()).map(flag);
        Ok(Question {
            protocol,
            from: end("from", &self.from)?,
            to: end("to", &self.to)?,
            flags: flags.collect::<Result<_, _>>()?,
            interface: self.interface,
            mark: self.mark.unwrap_or(0),
            length: self.length.unwrap_or(0),
        })
    }
}

/// Whose way is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Walked {
    /// The service, like `tcp:192.0.2.10:80` or `fwmark:7`.
    #[param(example = "tcp:192.0.2.10:80")]
    service: String,
    /// One of its servers, like `10.0.0.2:8080`; without it one of each forwarding method.
    server: Option<String>,
    /// The client, like `198.51.100.7` or `198.51.100.7:40000`; without it an example that the default route leads to.
    client: Option<String>,
    /// What is asked, where the service does not say it, like `tcp:192.0.2.200:8080`.
    to: Option<String>,
}

/// The way of a service's request and its answer, hop by hop. Nothing is sent.
#[utoipa::path(
    get, path = path::WALK, tag = "director", params(Walked),
    responses((status = 200, body = Walk), Refused)
)]
pub async fn walk(State(shared): State<Shared>, Parameters(query): Parameters<Walked>) -> Answer<Walk> {
    let Walked { service, server, client, to } = query;
    let question = walk::Question { service, server, client, to };
    shared.read(move |reader| reader.walk(&question)).await.map(Json)
}

/// All counters, or only those of one service, or of none, beside those of everything.
#[utoipa::path(
    get, path = path::STATS, tag = "stats", params(StatsOf), responses((status = 200, body = Stats), Refused)
)]
pub async fn stats(State(shared): State<Shared>, Parameters(of): Parameters<StatsOf>) -> Answer<Stats> {
    shared.read(move |reader| reader.stats(&of)).await.map(Json)
}

/// Which part of the configuration.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Layer {
    /// `file`: what the file says; `all` (default): with what was changed at runtime.
    layer: Option<String>,
}

/// What is configured.
#[utoipa::path(
    get, path = path::CONFIG, tag = "config", params(Layer),
    responses((status = 200, body = Configuration), Refused)
)]
pub async fn configuration(
    State(shared): State<Shared>,
    Parameters(query): Parameters<Layer>,
) -> Answer<Configuration> {
    let file = match query.layer.as_deref() {
        None | Some("all") => false,
        Some("file") => true,
        Some(other) => {
            let failure = Failure::new(format!("layer {other}"), "there is no such layer", "it is file or all");
            return Err(Failure { code: code::INVALID, ..failure });
        }
    };
    shared.ask(|to| Ask::Configuration { file, to }).await.map(Json)
}

/// The changes that were made, the latest first.
#[utoipa::path(
    get, path = path::HISTORY, tag = "config", params(Limit),
    responses((status = 200, body = Vec<Past>), Refused)
)]
pub async fn history(State(shared): State<Shared>, Parameters(query): Parameters<Limit>) -> Answer<Vec<Past>> {
    shared.ask(|to| Ask::History(query.limit.unwrap_or(HISTORY), to)).await.map(Json)
}

/// The virtual routers, and what they are now.
#[utoipa::path(
    get, path = path::FAILOVER, tag = "failover", responses((status = 200, body = Vec<VirtualRouter>), Refused)
)]
pub async fn failover(State(shared): State<Shared>) -> Answer<Vec<VirtualRouter>> {
    shared.ask(Ask::Failover).await.map(Json)
}

/// What is imagined.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Imagined {
    /// Of this virtual router or group; without it of all.
    router: Option<String>,
    /// `hand-over` (default), `stop`: the director is removed, or `link`: this host is gone without a word.
    what: Option<String>,
}

/// What would happen to virtual routers: who takes over, and when.
#[utoipa::path(
    get, path = path::REHEARSE, tag = "failover", params(Imagined),
    responses((status = 200, body = Vec<Rehearsal>), Refused)
)]
pub async fn rehearse(
    State(shared): State<Shared>,
    Parameters(Imagined { router, what }): Parameters<Imagined>,
) -> Answer<Vec<Rehearsal>> {
    let what_if = match what.as_deref() {
        None | Some("hand-over") => WhatIf::HandsOver,
        Some("stop") => WhatIf::Stops,
        Some("link") => WhatIf::LosesLink,
        Some(other) => {
            let failure =
                Failure::new(format!("what {other}"), "that cannot be imagined", "it is hand-over, stop or link");
            return Err(Failure { code: code::INVALID, ..failure });
        }
    };
    shared.ask(|to| Ask::Rehearse { router, what_if, to }).await.map(Json)
}
