//! Who wins: what the file says, and over it what was changed at runtime.
//!
//! A director's Model has layers. The lowest is the file. What operators change while the
//! director runs (ipvsadm, the API, the command line) is kept as an [`Overlay`]: its difference
//! from the file, value by value, so that a reload of the file brings all that nobody touched.
//! Health and role come above both, and never change what is configured.

pub mod health;

use crate::error::Violation;
use crate::failover::Failover;
use crate::mark::MarkRule;
use crate::model::{Model, Server, Service, ServiceKey};
use crate::settings::Settings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

/// Values of one object that differ, by their path: `timeouts.udp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Patch(BTreeMap<String, Value>);

/// What became of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServiceChange {
    /// It is gone.
    Removed,
    /// It is not the file's.
    Added(Box<Service>),
    /// It differs.
    Changed {
        /// All but the servers.
        rules: Patch,
        /// Servers of the file that are gone, or stand elsewhere.
        removed: Vec<(IpAddr, u16)>,
        /// Servers of the file that differ.
        edited: Vec<((IpAddr, u16), Patch)>,
        /// Servers behind those of the file, in order.
        added: Vec<Server>,
    },
}

/// What was changed at runtime: what stands between the file's Model and the configured one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    settings: Patch,
    marks: Option<Vec<MarkRule>>,
    #[serde(default)]
    failover: Option<Patch>,
    services: Vec<(ServiceKey, ServiceChange)>,
}

/// All of a Model, to be written down. Read again, it is checked as a file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Base {
    settings: Settings,
    services: Vec<Service>,
    marks: Vec<MarkRule>,
    #[serde(default)]
    failover: Failover,
}

impl Base {
    /// Of a Model.
    pub fn of(model: &Model) -> Self {
        let (settings, services, marks) = (model.settings(), model.services(), model.marks());
        let failover = model.failover().clone();
        Self { settings: settings.clone(), services: services.to_vec(), marks: marks.to_vec(), failover }
    }
    /// The Model, or all that is wrong with it.
    pub fn into_model(self) -> Result<Model, Vec<Violation>> {
        Model::whole(self.settings, self.services, self.marks, self.failover)
    }
}

/// A sentence about a runtime change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift(pub String);

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Overlay {
    /// What makes `model` of `file`.
    pub fn between(file: &Model, model: &Model) -> Self {
        let mut services = Vec::new();
        for service in model.services() {
            match file.service(&service.key) {
                None => services.push((service.key, ServiceChange::Added(Box::new(service.clone())))),
                Some(old) if old != service => services.push((service.key, ServiceChange::between(old, service))),
                Some(_) => {}
            }
        }
        let gone = file.services().iter().filter(|s| model.service(&s.key).is_none());
        services.extend(gone.map(|s| (s.key, ServiceChange::Removed)));
        Self {
            settings: Patch::between(file.settings(), model.settings()),
            marks: (file.marks() != model.marks()).then(|| model.marks().to_vec()),
            failover: Some(Patch::between(file.failover(), model.failover())).filter(|patch| !patch.0.is_empty()),
            services,
        }
    }

    /// Nothing was changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The file's Model with these changes, and which of them have nothing to change any more or
    /// would make what may not be: those are left out.
    pub fn apply(&self, file: &Model) -> (Model, Vec<Drift>) {
        let (mut model, mut lost) = (file.clone(), Vec::new());
        let mut lose = |what: String| lost.push(Drift(what));
        if !self.settings.0.is_empty() {
            let settings: Option<Settings> = self.settings.apply(file.settings(), &mut |path| {
                lose(format!("the setting {path} is none any more"));
            });
            if settings.is_none_or(|settings| model.set_settings(settings).is_err()) {
                lose("the settings changed at runtime do not fit the file's".into());
            }
        }
        if let Some(marks) = &self.marks
            && model.set_marks(marks.clone()).is_err()
        {
            lose("the mark rules set at runtime".into());
        }
        if let Some(patch) = &self.failover {
            let failover: Option<Failover> = patch.apply(file.failover(), &mut |path| {
                lose(format!("failover: {path} is none any more"));
            });
            if failover.is_none_or(|failover| model.set_failover(failover).is_err()) {
                lose("failover as set at runtime".into());
            }
        }
        for (key, change) in &self.services {
            change.apply(key, file, &mut model, &mut lose);
        }
        if !model.held_twice().is_empty() && model.failover() != file.failover() {
            // The file's was accepted with it.
            let _ = model.set_failover(file.failover().clone());
            lose("failover as set at runtime, which has an address that a service holds".into());
        }
        for violation in model.held_twice() {
            let Violation::HeldTwice { service: key, .. } = violation else { continue };
            let _ = match file.service(&key) {
                Some(service) => model.put_service(service.clone()),
                None => model.remove_service(&key),
            };
            lose(format!("changes of service {key}, whose address a virtual router has"));
        }
        (model, lost)
    }

    /// Each change in a sentence, with what the file says.
    pub fn describe(&self, file: &Model) -> Vec<Drift> {
        let mut all = Vec::new();
        let settings = value(file.settings());
        all.extend(self.settings.describe(&settings).map(|text| Drift(format!("setting {text}"))));
        if let Some(marks) = &self.marks {
            all.push(Drift(format!("mark rules: {} at runtime, {} in the file", marks.len(), file.marks().len())));
        }
        // Their values are long, and some are secret.
        for path in self.failover.iter().flat_map(|patch| patch.0.keys()) {
            all.push(Drift(format!("failover: {path} set at runtime")));
        }
        for (key, change) in &self.services {
            change.describe(key, file, &mut all);
        }
        all
    }
}

impl ServiceChange {
    fn between(old: &Service, new: &Service) -> Self {
        let places: HashMap<_, _> = old.servers.iter().enumerate().map(|(at, s)| (s.identity(), at)).collect();
        // Servers can only be added at the end: those from the first one on that is not in the file's order are.
        let mut next = 0;
        let kept = new.servers.iter().take_while(|s| match places.get(&s.identity()) {
            Some(at) if *at >= next => {
                next = at + 1;
                true
            }
            _ => false,
        });
        let kept: HashMap<_, _> = kept.map(|s| (s.identity(), s)).collect();
        let edited = old.servers.iter().filter_map(|was| {
            let patch = Patch::between(was, *kept.get(&was.identity())?);
            (!patch.0.is_empty()).then(|| (was.identity(), patch))
        });
        Self::Changed {
            rules: Patch::between(&old.without_servers(), &new.without_servers()),
            removed: old.servers.iter().map(Server::identity).filter(|id| !kept.contains_key(id)).collect(),
            edited: edited.collect(),
            added: new.servers.get(kept.len()..).unwrap_or_default().to_vec(),
        }
    }

    fn apply(&self, key: &ServiceKey, file: &Model, model: &mut Model, lose: &mut dyn FnMut(String)) {
        let Some(old) = file.service(key) else {
            match self {
                Self::Added(service) => {
                    if model.put_service((**service).clone()).is_err() {
                        lose(format!("service {key}, added at runtime"));
                    }
                }
                Self::Changed { .. } => {
                    lose(format!("changes of service {key}, which the file does not have any more"))
                }
                Self::Removed => {}
            }
            return;
        };
        match self {
            Self::Removed => {
                // It is there.
                let _ = model.remove_service(key);
            }
            Self::Added(service) => {
                if model.put_service((**service).clone()).is_err() {
                    lose(format!("service {key}, added at runtime"));
                }
            }
            Self::Changed { rules, removed, edited, added } => {
                let mut unknown = |path: &str| lose(format!("{path} of service {key}"));
                let mut new =
                    rules.apply(&old.without_servers(), &mut unknown).unwrap_or_else(|| old.without_servers());
                let stay = old.servers.iter().filter(|s| !removed.contains(&s.identity()));
                new.servers = stay.cloned().collect();
                for (identity, patch) in edited {
                    let Some(server) = new.servers.iter_mut().find(|s| s.identity() == *identity) else {
                        let name = crate::model::join(identity.0, identity.1);
                        lose(format!("changes of server {name} of {key}, which the file does not have any more"));
                        continue;
                    };
                    let name = server.name();
                    let mut unknown = |path: &str| lose(format!("{path} of server {name} of {key}"));
                    if let Some(edited) = patch.apply(server, &mut unknown) {
                        *server = edited;
                    }
                }
                for server in added {
                    new.servers.retain(|s| s.identity() != server.identity());
                    new.servers.push(server.clone());
                }
                if model.put_service(new).is_err() {
                    lose(format!("changes of service {key}, which do not fit what the file says of it"));
                }
            }
        }
    }

    fn describe(&self, key: &ServiceKey, file: &Model, all: &mut Vec<Drift>) {
        let mut tell = |text: String| all.push(Drift(text));
        match (self, file.service(key)) {
            (Self::Removed, _) => tell(format!("service {key} is removed, the file has it")),
            (Self::Added(_), _) | (_, None) => tell(format!("service {key} is there, the file does not have it")),
            (Self::Changed { rules, removed, edited, added }, Some(old)) => {
                rules.describe(&value(&old.without_servers())).for_each(|text| tell(format!("service {key}: {text}")));
                for (identity, patch) in edited {
                    let Some(server) = old.server(identity.0, identity.1) else { continue };
                    let name = server.name();
                    patch.describe(&value(server)).for_each(|text| tell(format!("server {name} of {key}: {text}")));
                }
                for (address, port) in removed {
                    let name = crate::model::join(*address, *port);
                    if !added.iter().any(|s| s.identity() == (*address, *port)) {
                        tell(format!("server {name} of {key} is removed, the file has it"));
                    }
                }
                for server in added {
                    let what = match removed.contains(&server.identity()) {
                        true => "was removed and added again",
                        false => "is there, the file does not have it",
                    };
                    tell(format!("server {} of {key} {what}", server.name()));
                }
            }
        }
    }
}

fn value(of: &impl Serialize) -> Value {
    // Nothing of a Model fails to be written: its maps, if any, have keys of text.
    serde_json::to_value(of).unwrap_or_default()
}

impl Patch {
    fn between(old: &impl Serialize, new: &impl Serialize) -> Self {
        let mut patch = Self::default();
        patch.compare(String::new(), &value(old), value(new));
        patch
    }

    fn compare(&mut self, path: String, old: &Value, new: Value) {
        match (old, new) {
            (Value::Object(was), Value::Object(is)) if !is_time(was) && was.keys().eq(is.keys()) => {
                for (key, value) in is {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.compare(below, was.get(&key).unwrap_or(&Value::Null), value);
                }
            }
            (old, new) if *old != new => _ = self.0.insert(path, new),
            _ => {}
        }
    }

    /// The object with the values that differ; `unknown` hears of those that it does not have.
    /// None: it cannot be one.
    fn apply<T: Serialize + DeserializeOwned>(&self, to: &T, unknown: &mut dyn FnMut(&str)) -> Option<T> {
        let mut object = value(to);
        for (path, new) in &self.0 {
            match path.split('.').try_fold(&mut object, |at, key| at.get_mut(key)) {
                Some(place) => *place = new.clone(),
                None => unknown(path),
            }
        }
        serde_json::from_value(object).ok()
    }

    /// `weight is 5, the file says 3`.
    fn describe<'p>(&'p self, file: &'p Value) -> impl Iterator<Item = String> + 'p {
        self.0.iter().map(move |(path, new)| {
            let old = path.split('.').try_fold(file, |at, key| at.get(key)).unwrap_or(&Value::Null);
            format!("{path} is {}, the file says {}", plain(new), plain(old))
        })
    }
}

/// A time is one value, though serde writes it as two.
fn is_time(object: &serde_json::Map<String, Value>) -> bool {
    object.len() == 2 && object.contains_key("secs") && object.contains_key("nanos")
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Object(object) if is_time(object) => {
            let time = serde_json::from_value(value.clone()).unwrap_or_default();
            crate::file::duration::format(time)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::file::parse;
    use crate::testing::model;
    use proptest::prelude::*;

    const FILE: &str = r#"version = 1
[[service]]
protocol = "tcp"
address = "192.0.2.10:80"
scheduler = "wrr"
[[service.server]]
address = "10.0.0.2:80"
weight = 3
[[service.server]]
address = "10.0.0.3:80"
weight = 3
[[service]]
protocol = "udp"
address = "192.0.2.10:53"
"#;

    fn after(model: &Model, lines: &[&str]) -> Model {
        let mut model = model.clone();
        lines.iter().for_each(|line| Command::parse(line).unwrap().unwrap().apply(&mut model).unwrap());
        model
    }

    fn described(overlay: &Overlay, file: &Model) -> Vec<String> {
        overlay.describe(file).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_reload_brings_what_nobody_touched_and_keeps_what_somebody_did() {
        let file = parse("f", FILE).unwrap();
        let model = after(
            &file,
            &[
                "-e -t 192.0.2.10:80 -r 10.0.0.2:80 -m -w 5",
                "-a -t 192.0.2.10:80 -r 10.0.0.4:80 -m",
                "-D -u 192.0.2.10:53",
                "-A -t 192.0.2.11:80 -s rr",
                "--set 100 0 0",
            ],
        );
        let overlay = Overlay::between(&file, &model);
        assert_eq!(
            described(&overlay, &file),
            [
                "setting timeouts.tcp.established is 100s, the file says 15m",
                "server 10.0.0.2:80 of tcp 192.0.2.10:80: weight is 5, the file says 3",
                "server 10.0.0.4:80 of tcp 192.0.2.10:80 is there, the file does not have it",
                "service tcp 192.0.2.11:80 is there, the file does not have it",
                "service udp 192.0.2.10:53 is removed, the file has it",
            ]
        );
        // The file gets another scheduler, a threshold for the edited server, and one server more.
        let text = FILE.replace("wrr", "wlc").replacen("weight = 3", "weight = 4\nupper = 9", 1);
        let text = text.replace(
            "[[service]]\nprotocol = \"udp\"",
            "[[service.server]]\naddress = \"10.0.0.9:80\"\n[[service]]\nprotocol = \"udp\"",
        );
        let (new, lost) = overlay.apply(&parse("f", &text).unwrap());
        assert_eq!(lost, []);
        let [service, other] = new.services() else { panic!("{:?}", new.services()) };
        assert_eq!((service.scheduler.name(), other.key.to_string().as_str()), ("wlc", "tcp 192.0.2.11:80"));
        let servers: Vec<_> = service.servers.iter().map(|s| (s.name(), s.weight, s.upper)).collect();
        assert_eq!(
            servers,
            [
                ("10.0.0.2:80".to_owned(), 5, 9),
                ("10.0.0.3:80".to_owned(), 3, 0),
                ("10.0.0.9:80".to_owned(), 1, 0),
                ("10.0.0.4:80".to_owned(), 1, 0),
            ]
        );
    }

    #[test]
    fn changes_of_what_the_file_lost_are_named() {
        let file = parse("f", FILE).unwrap();
        let model = after(&file, &["-e -t 192.0.2.10:80 -r 10.0.0.2:80 -m -w 5", "-E -u 192.0.2.10:53 -s rr"]);
        let overlay = Overlay::between(&file, &model);
        let (new, lost) = overlay.apply(&parse("f", "version = 1").unwrap());
        assert!(new.services().is_empty());
        let lost: Vec<_> = lost.iter().map(ToString::to_string).collect();
        assert_eq!(
            lost,
            [
                "changes of service tcp 192.0.2.10:80, which the file does not have any more",
                "changes of service udp 192.0.2.10:53, which the file does not have any more",
            ]
        );
    }

    #[test]
    fn the_file_wins_again_when_it_says_the_same() {
        let file = parse("f", FILE).unwrap();
        let model = after(&file, &["-e -t 192.0.2.10:80 -r 10.0.0.2:80 -m -w 5"]);
        let same = parse("f", &FILE.replacen("weight = 3", "weight = 5", 1)).unwrap();
        let (new, _) = Overlay::between(&file, &model).apply(&same);
        assert!(Overlay::between(&same, &new).is_empty());
    }

    /// A daemon of synchronisation that was started at runtime keeps nothing out that the file says of virtual routers.
    #[test]
    fn what_a_file_says_of_failover_counts_beside_what_was_set_at_runtime() {
        let file = parse("f", FILE).unwrap();
        let model = after(&file, &["--start-daemon backup --mcast-interface eth1 --syncid 7"]);
        let overlay = Overlay::between(&file, &model);
        let router = "[[router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 1\naddresses = [\"192.0.2.99/24\"]\n";
        let later = parse("f", &format!("{FILE}{router}")).unwrap();
        let (new, lost) = overlay.apply(&later);
        assert_eq!((new.failover().routers.len(), lost), (1, vec![]));
        assert_eq!(new.failover().sync.as_ref().map(|sync| sync.id), Some(7));
        let drift = overlay.describe(&later).into_iter().map(|drift| drift.0).collect::<Vec<_>>();
        assert_eq!(drift, ["failover: sync set at runtime"]);
    }

    proptest! {
        #[test]
        fn what_stands_between_makes_one_of_the_other(a in model(), b in model()) {
            let overlay = Overlay::between(&a, &b);
            let text = serde_json::to_string(&overlay).unwrap();
            let overlay: Overlay = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(overlay.apply(&a), (b.clone(), vec![]));
            prop_assert_eq!(overlay.is_empty(), a == b);
            prop_assert_eq!(overlay.describe(&a).is_empty(), a == b);
        }

        #[test]
        fn any_changes_fit_any_file(a in model(), b in model(), file in model()) {
            // Whatever comes of it may be: its own methods made it.
            let (new, _) = Overlay::between(&a, &b).apply(&file);
            prop_assert!(Base::of(&new).into_model().is_ok());
        }
    }
}
