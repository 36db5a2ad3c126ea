//! What changes something: all of it through the daemon's own task, one change after the other.

use super::peer::Peer;
use super::refused::{Body, Named, Parameters, Refused};
use super::{Answer, Ask, Change, Shared};
use crate::daemon::director::{Asked, Do, Edit};
use crate::daemon::doctor::{Learned, examine};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use dirigent_api::{
    Changed, Diagnosis, Document, Drained, Guard, IpvsadmDone, IpvsadmLines, ServerName, ServerSpec, ServiceSpec, path,
};
use dirigent_config::file::json::Object;
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::IntoParams;

/// Who asks for a change, and on which terms.
fn asked(peer: Peer, guard: Guard) -> Asked {
    Asked { by: peer.name(), guard }
}

type From = Extension<Peer>;

impl Shared {
    async fn change(&self, guard: Guard, peer: Peer, change: Change) -> Answer<Changed> {
        let asked = asked(peer, guard);
        self.ask(|to| Ask::Change(asked, change, to)).await.map(Json)
    }
    async fn edit(&self, guard: Guard, peer: Peer, edit: Edit) -> Answer<Changed> {
        self.change(guard, peer, Change::Edit(edit)).await
    }
}

/// Adds a virtual service, which must not be there yet.
#[utoipa::path(
    post, path = path::SERVICES, tag = "services", params(Guard), request_body = ServiceSpec,
    responses((status = 201, body = Changed), Refused)
)]
pub async fn add_service(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(body): Body<Object>,
) -> Result<(StatusCode, Json<Changed>), crate::failure::Failure> {
    let edit = Edit { service: None, server: None, what: Do::Add(body) };
    shared.edit(guard, peer, edit).await.map(|changed| (StatusCode::CREATED, changed))
}

/// Adds a virtual service, or makes the one there is what the body says, servers too.
#[utoipa::path(
    put, path = path::SERVICE, tag = "services", request_body = ServiceSpec,
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."), Guard),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn put_service(
    State(shared): State<Shared>,
    Named(service): Named<String>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(body): Body<Object>,
) -> Answer<Changed> {
    shared.edit(guard, peer, Edit { service: Some(service), server: None, what: Do::Put(body) }).await
}

/// Changes keys of a virtual service: those that are given, null for the default (RFC 7396).
#[utoipa::path(
    patch, path = path::SERVICE, tag = "services", request_body = ServiceSpec,
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."), Guard),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn patch_service(
    State(shared): State<Shared>,
    Named(service): Named<String>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(body): Body<Object>,
) -> Answer<Changed> {
    shared.edit(guard, peer, Edit { service: Some(service), server: None, what: Do::Patch(body) }).await
}

/// Removes a virtual service with its servers.
#[utoipa::path(
    delete, path = path::SERVICE, tag = "services",
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."), Guard),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn remove_service(
    State(shared): State<Shared>,
    Named(service): Named<String>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
) -> Answer<Changed> {
    shared.edit(guard, peer, Edit { service: Some(service), server: None, what: Do::Remove }).await
}

/// Adds a real server, which must not be there yet.
#[utoipa::path(
    post, path = path::SERVERS, tag = "servers", request_body = ServerSpec,
    params(("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."), Guard),
    responses((status = 201, body = Changed), Refused)
)]
pub async fn add_server(
    State(shared): State<Shared>,
    Named(service): Named<String>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(body): Body<Object>,
) -> Result<(StatusCode, Json<Changed>), crate::failure::Failure> {
    let edit = Edit { service: Some(service), server: Some(None), what: Do::Add(body) };
    shared.edit(guard, peer, edit).await.map(|changed| (StatusCode::CREATED, changed))
}

/// Adds a real server, or makes the one there is what the body says.
#[utoipa::path(
    put, path = path::SERVER, tag = "servers", request_body = ServerSpec,
    params(
        ("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."),
        ("server" = String, Path, description = "Like `10.0.0.2:8080`."),
        Guard
    ),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn put_server(
    State(shared): State<Shared>,
    Named((service, server)): Named<(String, String)>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(body): Body<Object>,
) -> Answer<Changed> {
    shared.edit(guard, peer, Edit { service: Some(service), server: Some(Some(server)), what: Do::Put(body) }).await
}

/// Changes keys of a real server: those that are given, null for the default (RFC 7396).
#[utoipa::path(
    patch, path = path::SERVER, tag = "servers", request_body = ServerSpec,
    params(
        ("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."),
        ("server" = String, Path, description = "Like `10.0.0.2:8080`."),
        Guard
    ),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn patch_server(
    State(shared): State<Shared>,
    Named((service, server)): Named<(String, String)>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(body): Body<Object>,
) -> Answer<Changed> {
    shared.edit(guard, peer, Edit { service: Some(service), server: Some(Some(server)), what: Do::Patch(body) }).await
}

/// Removes a real server. Connections that it has end as in IPVS; drain it before, to keep them.
#[utoipa::path(
    delete, path = path::SERVER, tag = "servers",
    params(
        ("service" = String, Path, description = "Like `tcp:192.0.2.10:80` or `fwmark:7`."),
        ("server" = String, Path, description = "Like `10.0.0.2:8080`."),
        Guard
    ),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn remove_server(
    State(shared): State<Shared>,
    Named((service, server)): Named<(String, String)>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
) -> Answer<Changed> {
    shared.edit(guard, peer, Edit { service: Some(service), server: Some(Some(server)), what: Do::Remove }).await
}

/// Which counters.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Those of this service and its servers; without it all.
    service: Option<String>,
}

/// Whom the doctor looks at.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct About {
    /// The service or server of this name; without it everything.
    about: Option<String>,
}

/// Tries every way to a server as clients' packets go, and looks at what it needs: what is wrong, why, and what helps.
/// Nothing is changed.
#[utoipa::path(
    post, path = path::DOCTOR, tag = "director", params(About), responses((status = 200, body = Diagnosis), Refused)
)]
pub async fn doctor(State(shared): State<Shared>, Parameters(About { about }): Parameters<About>) -> Answer<Diagnosis> {
    let _turn = shared.doctor.lock().await;
    let subject = shared.ask(|to| Ask::Examine(about, to)).await?;
    // Whether the asker waits for the end or not.
    let mut over = Over(shared.asks.clone(), Learned::default());
    let (diagnosis, learned) = examine(&subject).await;
    over.1 = learned;
    Ok(Json(diagnosis))
}

/// Takes the doctor's way back.
struct Over(mpsc::Sender<Ask>, Learned);

impl Drop for Over {
    fn drop(&mut self) {
        let (asks, learned) = (self.0.clone(), std::mem::take(&mut self.1));
        // If the daemon is ending, it takes it back by itself.
        tokio::spawn(async move { _ = asks.send(Ask::Examined(learned)).await });
    }
}

/// Zeroes counters.
#[utoipa::path(
    post, path = path::ZERO, tag = "stats", params(Which), responses((status = 200, body = Changed), Refused)
)]
pub async fn zero(State(shared): State<Shared>, Parameters(which): Parameters<Which>) -> Answer<Changed> {
    shared.ask(|to| Ask::Zero(which.service, to)).await.map(Json)
}

/// How to read the file again.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Reload {
    /// Drop what was changed at runtime.
    #[serde(default)]
    replace: bool,
}

/// Reads the file again; what was changed at runtime stays.
#[utoipa::path(
    post, path = path::RELOAD, tag = "config", params(Reload, Guard),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn reload(
    State(shared): State<Shared>,
    Parameters(Reload { replace }): Parameters<Reload>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::Reload { replace }).await
}

/// Services, mark rules and settings become what a document says.
#[utoipa::path(
    post, path = path::APPLY, tag = "config", params(Guard), request_body = Document,
    responses((status = 200, body = Changed), Refused)
)]
pub async fn apply(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(document): Body<Document>,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::Apply(document)).await
}

/// Where to.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RollBack {
    /// The generation; without it to before the last change.
    to: Option<u64>,
}

/// Takes changes back.
#[utoipa::path(
    post, path = path::ROLLBACK, tag = "config", params(RollBack, Guard),
    responses((status = 200, body = Changed), Refused)
)]
pub async fn roll_back(
    State(shared): State<Shared>,
    Parameters(RollBack { to }): Parameters<RollBack>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::RollBack { to }).await
}

/// Keeps what was changed at runtime over a reboot, too.
#[utoipa::path(
    post, path = path::SAVE, tag = "config", params(Guard), responses((status = 200, body = Changed), Refused)
)]
pub async fn save(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::Save).await
}

/// Does what rules of ipvsadm say, one after the other.
#[utoipa::path(
    post, path = path::IPVSADM, tag = "config", request_body = IpvsadmLines,
    responses((status = 200, body = IpvsadmDone), Refused)
)]
pub async fn ipvsadm(
    State(shared): State<Shared>,
    Extension(peer): From,
    Body(IpvsadmLines { lines, generation }): Body<IpvsadmLines>,
) -> Answer<IpvsadmDone> {
    let asked = asked(peer, Guard { generation, dry_run: false });
    shared.ask(|to| Ask::Ipvsadm(asked, lines, to)).await.map(Json)
}

/// No new connections for a real server; those that it has go on.
#[utoipa::path(
    post, path = path::DRAIN, tag = "servers", params(Guard), request_body = ServerName,
    responses((status = 200, body = Drained), Refused)
)]
pub async fn drain(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(name): Body<ServerName>,
) -> Answer<Drained> {
    let asked = asked(peer, guard);
    shared.ask(|to| Ask::Drain(asked, name, true, to)).await.map(Json)
}

/// New connections again.
#[utoipa::path(
    post, path = path::UNDRAIN, tag = "servers", params(Guard), request_body = ServerName,
    responses((status = 200, body = Drained), Refused)
)]
pub async fn undrain(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    Extension(peer): From,
    Body(name): Body<ServerName>,
) -> Answer<Drained> {
    let asked = asked(peer, guard);
    shared.ask(|to| Ask::Drain(asked, name, false, to)).await.map(Json)
}

/// Which virtual routers.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HandOver {
    /// This one with its group, or this group; without it all.
    router: Option<String>,
    /// Not to give way, but to take over again when the priority says so.
    #[serde(default)]
    back: bool,
}

/// Virtual routers that are master here give way to another host.
#[utoipa::path(
    post, path = path::HAND_OVER, tag = "failover", params(HandOver), responses((status = 200, body = Changed), Refused)
)]
pub async fn hand_over(
    State(shared): State<Shared>,
    Parameters(HandOver { router, back }): Parameters<HandOver>,
) -> Answer<Changed> {
    shared.ask(|to| Ask::HandOver { router, back, to }).await.map(Json)
}

/// Removes the director, and ends the daemon.
#[utoipa::path(post, path = path::DETACH, tag = "director", responses((status = 200, body = Changed), Refused))]
pub async fn detach(State(shared): State<Shared>) -> Answer<Changed> {
    shared.ask(Ask::Detach).await.map(Json)
}
