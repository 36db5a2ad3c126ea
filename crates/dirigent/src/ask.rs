//! Questions to a director: to its daemon, or, when none runs, to its pinned maps.

use crate::client;
use crate::explain::Question;
use crate::failure::{Failure, Result};
use crate::report::Reader;
use crate::walk;
use dirigent_api::{
    Changed, Configuration, Connections, ConnectionsOf, Drained, Event, Explanation, Guard, IpvsadmDone, IpvsadmLines,
    Past, ServerName, Service, Stats, StatsOf, Status, TraceEvent, TraceOf, Walk, path,
};
use dirigent_datapath::kernel::Instance;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Where the daemon tells these connections.
pub fn connections_path(of: &ConnectionsOf) -> String {
    let limit = of.limit.map(|limit| limit.to_string());
    let parameters = [("limit", &limit), ("service", &of.service), ("server", &of.server)];
    path_with(path::CONNECTIONS, parameters)
}

/// Where the daemon tells these counters.
pub fn stats_path(of: &StatsOf) -> String {
    let services = of.services.map(|wanted| wanted.to_string());
    path_with(path::STATS, [("services", &services), ("service", &of.service)])
}

/// With the parameters that have a value.
fn path_with<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a Option<String>)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        value.iter().for_each(|value| _ = query.append_pair(name, value));
    }
    format!("{path}?{}", query.finish())
}

/// Which director.
pub struct Target {
    /// Its name.
    pub instance: String,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Target {
    /// The director of that name; `main` when none is given.
    pub fn new(instance: Option<String>, socket: Option<PathBuf>) -> Self {
        let instance = instance.unwrap_or_else(|| dirigent_config::Settings::default().instance);
        let socket = socket.unwrap_or_else(|| {
            let settings = dirigent_config::Settings { instance: instance.clone(), ..Default::default() };
            settings.socket_path().into()
        });
        Self { instance, socket }
    }

    /// How it is doing.
    pub async fn status(&self) -> Result<Status> {
        self.read(path::STATUS, |reader| reader.status()).await
    }
    /// Its services.
    pub async fn services(&self) -> Result<Vec<Service>> {
        self.read(path::SERVICES, |reader| reader.services()).await
    }
    /// Its connections, or some of them.
    pub async fn connections(&self, of: &ConnectionsOf) -> Result<Connections> {
        self.read(&connections_path(of), |reader| reader.connections(of)).await
    }
    /// What would become of a packet.
    pub async fn explain(&self, question: &Question) -> Result<Explanation> {
        self.read(&question.path(), |reader| reader.explain(question)).await
    }
    /// The way of a service's requests and answers.
    pub async fn walk(&self, question: &walk::Question) -> Result<Walk> {
        self.read(&question.path(), |reader| reader.walk(question)).await
    }
    /// Its counters.
    pub async fn stats(&self) -> Result<Stats> {
        self.read(path::STATS, |reader| reader.stats(&StatsOf::default())).await
    }
    /// Zeroes its counters, or those of one service.
    pub async fn zero(&self, service: Option<&str>) -> Result<Changed> {
        let query = service
            .map(|service| form_urlencoded::Serializer::new(String::new()).append_pair("service", service).finish());
        let path = query.map_or_else(|| path::ZERO.to_owned(), |query| format!("{}?{query}", path::ZERO));
        self.change(&path).await?.ok_or_else(|| self.absent())
    }
    /// What only the daemon knows.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        client::call(&self.socket, Method::GET, path).await?.ok_or_else(|| self.no_daemon())
    }
    /// Has the daemon do something, which nobody else can.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        client::call(&self.socket, Method::POST, path).await?.ok_or_else(|| self.no_daemon())
    }
    /// Has the daemon do something.
    pub async fn change(&self, path: &str) -> Result<Option<Changed>> {
        client::call(&self.socket, Method::POST, path).await
    }
    /// What is configured, or only what the file says. The daemon knows it, and nobody else.
    pub async fn configuration(&self, file: bool) -> Result<Configuration> {
        let path = if file { format!("{}?layer=file", path::CONFIG) } else { path::CONFIG.to_owned() };
        client::call(&self.socket, Method::GET, &path).await?.ok_or_else(|| self.no_daemon())
    }
    /// The latest changes.
    pub async fn history(&self, limit: usize) -> Result<Vec<Past>> {
        let path = format!("{}?limit={limit}", path::HISTORY);
        client::call(&self.socket, Method::GET, &path).await?.ok_or_else(|| self.no_daemon())
    }
    /// Has the daemon change what is configured.
    pub async fn reconfigure(
        &self,
        path: &str,
        parameters: &[(&str, Option<String>)],
        guard: Guard,
        body: &impl Serialize,
    ) -> Result<Changed> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("dry_run", &guard.dry_run.to_string());
        let generation = ("generation", guard.generation.map(|n| n.to_string()));
        for (name, value) in parameters.iter().chain([&generation]) {
            value.iter().for_each(|value| _ = query.append_pair(name, value));
        }
        let path = format!("{path}?{}", query.finish());
        client::tell(&self.socket, Method::POST, &path, body).await?.ok_or_else(|| self.no_daemon())
    }
    /// Has the daemon change one service or server.
    pub async fn edit(&self, method: Method, path: &str, guard: Guard, body: &impl Serialize) -> Result<Changed> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("dry_run", &guard.dry_run.to_string());
        if let Some(generation) = guard.generation {
            query.append_pair("generation", &generation.to_string());
        }
        let path = format!("{path}?{}", query.finish());
        client::tell(&self.socket, method, &path, body).await?.ok_or_else(|| self.no_daemon())
    }
    /// Hears what happens, until the daemon ends or the listener has heard enough (false).
    pub async fn events(&self, drops: u64, heard: impl FnMut(Event) -> bool) -> Result<()> {
        let path = format!("{}?drops={drops}", path::EVENTS);
        client::listen(&self.socket, Method::GET, &path, heard).await?.ok_or_else(|| self.no_daemon())
    }
    /// Hears of packets as they go through, as long as with events.
    pub async fn trace(&self, of: &TraceOf, heard: impl FnMut(TraceEvent) -> bool) -> Result<()> {
        let rate = of.rate.map(|rate| rate.to_string());
        let bytes = of.bytes.map(|bytes| bytes.to_string());
        let named =
            [("client", &of.client), ("service", &of.service), ("server", &of.server), ("reasons", &of.reasons)];
        let path = path_with(path::TRACE, named.into_iter().chain([("rate", &rate), ("bytes", &bytes)]));
        client::listen(&self.socket, Method::POST, &path, heard).await?.ok_or_else(|| self.no_daemon())
    }
    /// Has the daemon do rules of ipvsadm.
    pub async fn ipvsadm(&self, lines: Vec<String>) -> Result<IpvsadmDone> {
        let rules = IpvsadmLines { lines, generation: None };
        client::tell(&self.socket, Method::POST, path::IPVSADM, &rules).await?.ok_or_else(|| self.no_daemon())
    }
    fn no_daemon(&self) -> Failure {
        if !Instance::new(&self.instance).is_ok_and(|instance| instance.exists()) {
            return self.absent();
        }
        let remedy = "start it with `dirigent run`, or name another with --instance or --socket";
        Failure::new(self.socket.display().to_string(), "no daemon listens, which this needs", remedy)
    }
    /// Has the daemon begin or end the drain of a server.
    pub async fn drain(&self, name: &ServerName, drain: bool) -> Result<Drained> {
        let path = if drain { path::DRAIN } else { path::UNDRAIN };
        let remedy = "start it with `dirigent run --config FILE`; what is drained it keeps so";
        let absent =
            || Failure::new(self.socket.display().to_string(), "no daemon listens, which a drain needs", remedy);
        client::tell(&self.socket, Method::POST, path, name).await?.ok_or_else(absent)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, pinned: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        if let Some(answer) = client::call(&self.socket, Method::GET, path).await? {
            return Ok(answer);
        }
        let instance = Instance::new(&self.instance)?;
        if !instance.exists() {
            return Err(self.absent());
        }
        eprintln!("no daemon of {} runs; this is read from its pinned maps, which forward without it", self.instance);
        pinned(&Reader::open(&instance)?)
    }

    /// Nothing of that name is here; or this user cannot see it.
    pub fn absent(&self) -> Failure {
        let what = format!("there is no director {}: no daemon listens and no maps are pinned", self.instance);
        let remedy = "start it with `dirigent run --config FILE`, or name another with --instance";
        let failure = Failure::new(self.socket.display().to_string(), what, remedy);
        if nix::unistd::geteuid().is_root() {
            return failure;
        }
        let remedy = "run it as root: without a daemon only root sees the pinned maps";
        let what = format!("no daemon of {} listens", self.instance);
        Failure { code: crate::failure::code::KERNEL, ..Failure::new(self.socket.display().to_string(), what, remedy) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_that_are_given_and_names_are_written_as_urls_want_them() {
        let of = ConnectionsOf { limit: Some(5), service: Some("tcp [2001:db8::10]:80".into()), server: None };
        assert_eq!(connections_path(&of), "/v1/connections?limit=5&service=tcp+%5B2001%3Adb8%3A%3A10%5D%3A80");
        assert_eq!(stats_path(&StatsOf::default()), "/v1/stats?");
        let of = StatsOf { services: Some(false), service: Some("FWM  7".into()), ..StatsOf::default() };
        assert_eq!(stats_path(&of), "/v1/stats?services=false&service=FWM++7");
    }
}
