//! Changes of one service or server, as the API asks for them: each makes a new Model of the one in force.

use crate::daemon::naming;
use crate::failure::{Failure, Result, code};
use dirigent_api::{Problem, ServerName};
use dirigent_config::file::json::{self, Object};
use dirigent_config::{Model, Server, Service, ServiceKey};
use serde_json::Value;
use std::fmt;

/// What is to become of a service or server.
#[derive(Clone, Debug)]
pub enum Do {
    /// It comes, and must not be there yet. Which one its keys say.
    Add(Object),
    /// It becomes this, whatever it was.
    Put(Object),
    /// Keys become these; null is the default (RFC 7396).
    Patch(Object),
    /// It goes.
    Remove,
}

/// A change of one service, or of one server of one.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The service's name; none only where its keys name it.
    pub service: Option<String>,
    /// Whether it is about a server of it; its name, unless its keys name it.
    pub server: Option<Option<String>>,
    /// What.
    pub what: Do,
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, body) = match &self.what {
            Do::Add(body) => ("add", Some(body)),
            Do::Put(body) => ("put", Some(body)),
            Do::Patch(body) => ("edit", Some(body)),
            Do::Remove => ("remove", None),
        };
        let word = |key| body.and_then(|body| body.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned();
        let service = || match body.and_then(|body| body.get("fwmark")) {
            Some(mark) => format!("fwmark {mark}"),
            None => format!("{} {}", word("protocol"), word("address")),
        };
        match &self.server {
            Some(server) => {
                let server = server.clone().unwrap_or_else(|| word("address"));
                write!(f, "{verb} server {server} of {}", self.service.as_deref().unwrap_or_default())
            }
            None => write!(f, "{verb} service {}", self.service.clone().unwrap_or_else(service)),
        }
    }
}

/// The Model that an edit makes.
pub fn edited(model: &Model, edit: &Edit) -> Result<Model> {
    let mut model = model.clone();
    match &edit.server {
        Some(server) => {
            let service = naming::service(&model, edit.service.as_deref().unwrap_or_default())?.clone();
            let server = server.as_deref();
            let changed = with_server(&model, &service, server, &edit.what)?;
            put(&mut model, changed)?;
        }
        None => edit_service(&mut model, edit.service.as_deref(), &edit.what)?,
    }
    Ok(model)
}

fn edit_service(model: &mut Model, name: Option<&str>, what: &Do) -> Result<()> {
    let found = name.map(|name| naming::service(model, name).cloned());
    let new = match (what, name, found) {
        (Do::Add(body), ..) => {
            let new = read(body)?;
            if model.service(&new.key).is_some() {
                return Err(exists(&new.key.to_string(), "service"));
            }
            new
        }
        (Do::Put(body), Some(name), Some(found)) => {
            let key = match found {
                Ok(service) => service.key,
                Err(failure) => ServiceKey::parse(name).ok_or(failure)?,
            };
            read(&named(body, &identity(&json::write(&Service::new(key))))?)?
        }
        (Do::Patch(patch), Some(_), Some(found)) => {
            let found = found?;
            let now = json::write(&found);
            read(&merged(&now, &named(patch, &identity(&now))?))?
        }
        (Do::Remove, _, Some(found)) => {
            let key = found?.key;
            return model.remove_service(&key).map_err(|e| dirigent_datapath::control::Error::from(e).into());
        }
        (Do::Put(_) | Do::Patch(_) | Do::Remove, ..) => {
            return Err(Failure::new("the address", "it names no service", "name one, like tcp:192.0.2.10:80"));
        }
    };
    put(model, new)
}

/// The service with its server changed.
fn with_server(model: &Model, service: &Service, name: Option<&str>, what: &Do) -> Result<Service> {
    let find = |name: &str| {
        let name = ServerName { service: service.key.to_string(), server: name.to_owned() };
        naming::find(model, &name).map(|(_, server)| server)
    };
    let mut all = json::write(service);
    let servers = all.entry("server").or_insert_with(|| Value::Array(Vec::new()));
    let Some(servers) = servers.as_array_mut() else { return Ok(service.clone()) };
    let at = |server: &Server| service.servers.iter().position(|s| s.identity() == server.identity());
    let (at, new) = match (what, name) {
        (Do::Add(body), _) => {
            let address = body.get("address").and_then(Value::as_str).unwrap_or_default();
            if let Ok(server) = find(address) {
                // Another port of the same address is another server.
                let whole =
                    address.parse().is_ok_and(|a: std::net::SocketAddr| (a.ip(), a.port()) == server.identity());
                if whole || server.port == service.key.port() {
                    return Err(exists(&server.name(), "real server"));
                }
            }
            (None, Some(body.clone()))
        }
        (Do::Put(body), Some(name)) => {
            let (at, name) = match find(name) {
                Ok(server) => (at(&server), server.name()),
                Err(_) => (None, name.to_owned()),
            };
            let address = Object::from_iter([("address".to_owned(), name.into())]);
            (at, Some(named(body, &address)?))
        }
        (Do::Patch(patch), Some(name)) => {
            let at = at(&find(name)?);
            let now = at.and_then(|at| servers.get(at)).and_then(Value::as_object).cloned().unwrap_or_default();
            let address = now.iter().filter(|(key, _)| *key == "address");
            let address = address.map(|(key, value)| (key.clone(), value.clone())).collect();
            (at, Some(merged(&now, &named(patch, &address)?)))
        }
        (Do::Remove, Some(name)) => (at(&find(name)?), None),
        (Do::Put(_) | Do::Patch(_) | Do::Remove, None) => {
            return Err(Failure::new("the address", "it names no real server", "name one, like 10.0.0.2:8080"));
        }
    };
    match (at, new) {
        (Some(at), Some(new)) => servers.iter_mut().skip(at).take(1).for_each(|old| *old = Value::Object(new.clone())),
        (Some(at), None) => _ = servers.remove(at),
        (None, Some(new)) => servers.push(Value::Object(new)),
        (None, None) => {}
    }
    let at = at.unwrap_or(service.servers.len());
    read(&all).map_err(|mut failure| {
        // Who sent one server knows nothing of a list.
        let of_it = format!("server[{at}]");
        for problem in &mut failure.problems {
            if let Some(key) = problem.place.strip_prefix(&of_it) {
                problem.place = key.trim_start_matches('.').to_owned();
            }
        }
        failure
    })
}

fn read(service: &Object) -> Result<Service> {
    json::read(service).map_err(|problems| Failure { code: code::INVALID, problems })
}

/// In place of what has its key. Its servers' drains go on.
fn put(model: &mut Model, mut service: Service) -> Result<()> {
    let drains = |server: &Server| {
        let old = model.service(&service.key).and_then(|old| old.server(server.address, server.port));
        old.is_some_and(|old| old.draining)
    };
    let drained: Vec<bool> = service.servers.iter().map(drains).collect();
    service.servers.iter_mut().zip(drained).for_each(|(server, draining)| server.draining = draining);
    model.put_service(service).map_err(|e| dirigent_datapath::control::Error::from(e).into())
}

fn exists(name: &str, what: &str) -> Failure {
    let failure = Failure::new(name, format!("the {what} is there already"), "edit it, or remove it first");
    Failure { code: code::EXISTS, ..failure }
}

/// The keys that a service is known by.
fn identity(service: &Object) -> Object {
    let known = ["protocol", "address", "fwmark", "family"];
    service.iter().filter(|(key, _)| known.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A body with the keys that its address says already. Where it has them it must say the same.
fn named(body: &Object, identity: &Object) -> Result<Object> {
    let mut whole = body.clone();
    for (key, value) in identity {
        match whole.insert(key.clone(), value.clone()) {
            Some(other) if other != *value && !other.is_null() => {
                let what = format!("{key} is {other}, but the request is for {value}");
                let problem = Problem::new(key, what, "leave it out: what a thing is known by cannot be changed");
                return Err(Failure { code: code::INVALID, problems: vec![problem] });
            }
            _ => {}
        }
    }
    Ok(whole)
}

/// RFC 7396, JSON Merge Patch.
fn merged(now: &Object, patch: &Object) -> Object {
    let mut all = now.clone();
    for (key, value) in patch {
        let value = match (value, all.get(key)) {
            (Value::Null, _) => {
                all.remove(key);
                continue;
            }
            (Value::Object(inner), Some(Value::Object(old))) => Value::Object(merged(old, inner)),
            (Value::Object(inner), _) => Value::Object(merged(&Object::new(), inner)),
            (value, _) => value.clone(),
        };
        all.insert(key.clone(), value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "version = 1
[[service]]
protocol = \"tcp\"
address = \"192.0.2.10:80\"
scheduler = \"wrr\"
[service.persistence]
timeout = \"5m\"
mask = \"255.255.255.0\"
[[service.server]]
address = \"10.0.0.2:8080\"
weight = 3
[[service.server]]
address = \"10.0.0.3:8080\"
";

    /// The API's description has the keys that dirigent.toml has.
    #[test]
    fn what_is_described_is_what_is_read() {
        use dirigent_config::file::keys;
        let api = serde_json::to_value(crate::daemon::openapi()).unwrap();
        for (schema, table) in
            [("ServiceSpec", keys::SERVICE), ("PersistenceSpec", keys::PERSISTENCE), ("ServerSpec", keys::SERVER)]
        {
            let described = api["components"]["schemas"][schema]["properties"].as_object().unwrap();
            let mut described: Vec<&str> = described.keys().map(String::as_str).collect();
            let mut read: Vec<&str> = table.keys.iter().map(|key| key.name).collect();
            described.sort_unstable();
            read.sort_unstable();
            assert_eq!(described, read, "{schema}");
        }
    }

    fn object(value: Value) -> Object {
        value.as_object().cloned().unwrap()
    }

    fn edit(model: &Model, service: &str, server: Option<&str>, what: Do) -> Result<Model> {
        let word = |word: &str| Some(word.to_owned()).filter(|word| !word.is_empty());
        edited(model, &Edit { service: word(service), server: server.map(word), what })
    }

    /// The only service, as JSON.
    fn spec(model: &Model) -> Value {
        let [service] = model.services() else { panic!("{model:?}") };
        Value::Object(json::write(service))
    }

    #[test]
    fn services_are_added_changed_and_removed() {
        let model = dirigent_config::file::parse("f", FILE).unwrap();
        let name = "tcp:192.0.2.10:80";
        let patched = edit(&model, name, None, Do::Patch(object(json!({ "scheduler": "rr" })))).unwrap();
        let wanted = json!({ "scheduler": "rr", "persistence": { "timeout": "300s", "mask": "255.255.255.0" } });
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&spec(&patched)[key], value);
        }
        assert_eq!(spec(&patched)["server"], spec(&model)["server"]);
        let patch = json!({ "persistence": { "mask": null, "timeout": "60s" } });
        let patched = edit(&model, name, None, Do::Patch(object(patch))).unwrap();
        assert_eq!(spec(&patched)["persistence"], json!({ "timeout": "60s" }));
        let patched = edit(&model, name, None, Do::Patch(object(json!({ "persistence": null })))).unwrap();
        assert_eq!(spec(&patched)["persistence"], Value::Null);

        let put = edit(&model, name, None, Do::Put(object(json!({ "scheduler": "lc" })))).unwrap();
        assert_eq!(spec(&put), json!({ "protocol": "tcp", "address": "192.0.2.10:80", "scheduler": "lc" }));
        let two = edit(&model, "fwmark:7:6", None, Do::Put(object(json!({})))).unwrap();
        assert_eq!(two.services().len(), 2);
        let added = json!({ "protocol": "udp", "address": "[2001:db8::1]:53", "one_packet": true });
        let two = edit(&model, "", None, Do::Add(object(added.clone()))).unwrap();
        assert_eq!(two.services().len(), 2);
        assert_eq!(edit(&two, "", None, Do::Add(object(added))).unwrap_err().code, code::EXISTS);
        assert_eq!(edit(&two, "udp:[2001:db8::1]:53", None, Do::Remove).unwrap(), model);
        assert_eq!(edit(&model, "udp:[2001:db8::1]:53", None, Do::Remove).unwrap_err().code, code::ABSENT);
        let another = Do::Patch(object(json!({ "address": "192.0.2.11:80" })));
        let failure = edit(&model, name, None, another).unwrap_err();
        assert_eq!((failure.code, failure.problems[0].place.as_str()), (code::INVALID, "address"));
    }

    #[test]
    fn servers_are_added_changed_and_removed_and_drains_go_on() {
        let mut model = dirigent_config::file::parse("f", FILE).unwrap();
        let key = model.services()[0].key;
        let drained = Server { draining: true, ..model.services()[0].servers[0].clone() };
        model.edit_server(&key, drained).unwrap();
        let name = "tcp:192.0.2.10:80";
        let weights = |model: &Model| -> Vec<(String, u32, bool)> {
            model.services()[0].servers.iter().map(|s| (s.name(), s.weight, s.draining)).collect()
        };
        let (one, two) = ("10.0.0.2:8080".to_owned(), "10.0.0.3:8080".to_owned());
        let patch = |weight: u32| Do::Patch(object(json!({ "weight": weight })));
        let patched = edit(&model, name, Some("10.0.0.2"), patch(9)).unwrap();
        assert_eq!(weights(&patched), [(one.clone(), 9, true), (two.clone(), 1, false)]);
        let added = Do::Add(object(json!({ "address": "10.0.0.4", "weight": 2 })));
        let added = edit(&model, name, Some(""), added).unwrap();
        assert_eq!(weights(&added)[2], ("10.0.0.4:80".to_owned(), 2, false));
        let again = Do::Add(object(json!({ "address": "10.0.0.4" })));
        assert_eq!(edit(&added, name, Some(""), again).unwrap_err().code, code::EXISTS);
        let other_port = Do::Add(object(json!({ "address": "10.0.0.2:81" })));
        assert_eq!(weights(&edit(&model, name, Some(""), other_port).unwrap()).len(), 3);
        let put = edit(&model, name, Some(&one), Do::Put(object(json!({ "upper": 10 })))).unwrap();
        assert_eq!(weights(&put), [(one.clone(), 1, true), (two.clone(), 1, false)]);
        let put = edit(&model, name, Some("10.0.0.9:80"), Do::Put(object(json!({})))).unwrap();
        assert_eq!(weights(&put).len(), 3);
        assert_eq!(weights(&edit(&model, name, Some(&one), Do::Remove).unwrap()), [(two.clone(), 1, false)]);
        assert_eq!(edit(&model, name, Some("10.0.0.9"), Do::Remove).unwrap_err().code, code::ABSENT);
        let failure = edit(&model, name, Some(&one), patch(u32::MAX)).unwrap_err();
        assert_eq!((failure.code, failure.problems[0].place.as_str()), (code::INVALID, "weight"));
        let failure = edit(&model, "tcp:192.0.2.99:80", Some(&one), patch(1)).unwrap_err();
        assert_eq!(failure.code, code::ABSENT);
    }
}
