//! The one path for change. Whoever wants one (the file, the command line, ipvsadm, the API) brings a new Model; it
//! becomes a Plan, which is carried out as one transaction, counted as a generation, and remembered so that it can be
//! taken back.

use super::Director;
use super::edit::{self, Edit};
use crate::daemon::kept::{self, Kept};
use crate::daemon::{config, naming, remove};
use crate::failure::{Failure, Result, code};
use crate::netfilter::Netfilter;
use crate::print::count;
use dirigent_api::{
    Changed, Configuration, Document, Drained, Event, Guard, IpvsadmDone, IpvsadmRefused, Past, ServerName, ServiceSpec,
};
use dirigent_config::file::json;
use dirigent_config::ipvsadm::daemon::NO_DEVICE;
use dirigent_config::layers::Drift;
use dirigent_config::{Command, Metrics, Model, Op, Overlay, Plan, ServiceKey, Settings};
use dirigent_datapath::control::features;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

/// Who wants something, what, and on which terms.
#[derive(Clone, Debug)]
pub struct Asked {
    /// A user and process, or a signal.
    pub by: String,
    /// On which terms.
    pub guard: Guard,
}

/// Where a director begins: at what an earlier daemon left, or was saved, and the file.
pub struct Begun {
    pub model: Model,
    pub generation: u64,
    /// Runtime changes that came to nothing.
    lost: Vec<Drift>,
    /// The Model that is found in force, if that is known.
    found: Option<Model>,
}

impl Begun {
    /// What was changed at runtime belongs to the maps: with new ones only what was saved holds.
    pub fn from(kept: &Kept, file: &Model, took_over: bool) -> Result<Self> {
        let (found, runtime) = match kept.runtime()?.filter(|_| took_over) {
            Some((found, runtime)) => (Some(found), Some(runtime)),
            None if took_over => (None, None),
            None => (None, kept.saved()?),
        };
        let Some(runtime) = runtime else {
            return Ok(Self { model: file.clone(), generation: 0, lost: Vec::new(), found });
        };
        let (mut model, lost) = runtime.overlay.apply(file);
        // A name is not changed at runtime.
        let settings = Settings { instance: file.settings().instance.clone(), ..model.settings().clone() };
        model.set_settings(settings).map_err(dirigent_datapath::control::Error::from)?;
        Ok(Self { model, generation: runtime.generation, lost, found })
    }
}

/// A Model that is wanted, and why.
struct Wanted {
    /// What was asked for, for the history.
    what: String,
    model: Model,
    /// What the file says, if it was read again.
    file: Option<Model>,
    /// What is to be told beside what is done.
    notes: Vec<String>,
    /// Servers that were edited, whether or not that changed anything about them.
    edited: BTreeSet<(ServiceKey, IpAddr, u16)>,
}

impl Wanted {
    fn new(what: impl Into<String>, model: Model) -> Self {
        Self { what: what.into(), model, file: None, notes: Vec::new(), edited: BTreeSet::new() }
    }
}

impl Director {
    /// What is left to do when the first Model is in force: to remember it.
    pub(super) fn settle_in(&mut self, begun: Begun) -> Result<()> {
        let Begun { model, lost, found, .. } = begun;
        self.generation = self.generation.max(self.kept.open_history()?);
        for drift in lost {
            tracing::warn!("what was changed at runtime has nothing to change any more: {drift}");
        }
        self.kept.put_file(&self.file)?;
        let before = found.as_ref();
        if before == Some(&model) {
            self.show();
            return self.kept.stage(self.generation, Overlay::between(&self.file, &model))?.commit();
        }
        self.generation += 1;
        self.kept.stage(self.generation, Overlay::between(&self.file, &model))?.commit()?;
        self.show();
        let plan = before.map(|before| Plan::between(before, &model)).unwrap_or_default();
        let what = match &self.path {
            Some(path) => format!("started with {}", path.display()),
            None => "started without a file".to_owned(),
        };
        let told = plan.ops.iter().map(ToString::to_string).collect();
        self.remember("start", &what, told, before.map(|before| Overlay::between(&model, before)));
        Ok(())
    }

    /// The configuration file's name; empty: there is none.
    pub(super) fn place(&self) -> String {
        self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// What was changed at runtime, each with what the file says.
    pub(super) fn drift(&self) -> Vec<String> {
        let overlay = Overlay::between(&self.file, &self.model);
        overlay.describe(&self.file).iter().map(ToString::to_string).collect()
    }

    /// What is configured.
    pub fn configuration(&self, file: bool) -> Configuration {
        let model = if file { &self.file } else { &self.model };
        Configuration {
            generation: self.generation,
            file: self.path.as_ref().map(|path| path.display().to_string()),
            drift: self.drift(),
            text: dirigent_config::file::to_toml(model),
            sysctl: model.settings().ipvs_sysctls(),
        }
    }

    /// The changes that were made, the latest first.
    pub fn history(&self, limit: usize) -> Result<Vec<Past>> {
        self.kept.history(limit)
    }

    /// Reads the file again. What was changed at runtime stays, or is dropped (`replace`).
    pub fn reload(&mut self, asked: &Asked, replace: bool) -> Result<Changed> {
        let outcome = self.load_again(asked, replace);
        self.look_at_netfilter();
        self.refused = outcome.as_ref().err().map_or_else(Vec::new, |failure| failure.problems.clone());
        let taken = outcome.is_ok();
        self.shown.change(|shown| {
            shown.taken = taken;
            if taken && !asked.guard.dry_run {
                shown.taken_at = SystemTime::now();
            }
        });
        outcome
    }

    /// Its rules may be others now; what is new about them is told.
    fn look_at_netfilter(&mut self) {
        let before = self.netfilter.warnings(&self.model);
        self.netfilter = Netfilter::read();
        for problem in self.netfilter.warnings(&self.model).iter().filter(|now| !before.contains(now)) {
            tracing::warn!("{problem}");
        }
    }

    fn load_again(&mut self, asked: &Asked, replace: bool) -> Result<Changed> {
        let path = self.path.clone();
        let file = config::layer(path.as_deref(), self.named.clone())?;
        let mut wanted = Wanted::new(format!("reload{}", if replace { " --replace" } else { "" }), file.clone());
        if !replace {
            let (model, lost) = Overlay::between(&self.file, &self.model).apply(&file);
            wanted.model = model;
            wanted.notes.extend(
                lost.iter().map(|drift| format!("this runtime change has nothing to change any more: {drift}")),
            );
            let left = Overlay::between(&file, &wanted.model).describe(&file);
            wanted.notes.extend(left.iter().map(|drift| format!("kept from runtime: {drift}")));
        } else if !asked.guard.dry_run && self.kept.unsave()? {
            wanted.notes.push("what was saved for the next boot is dropped, too".to_owned());
        }
        wanted.file = Some(file);
        self.transact(asked, wanted)
    }

    /// Services, mark rules and settings become what a document says.
    pub fn apply_document(&mut self, asked: &Asked, document: &Document) -> Result<Changed> {
        let mut model = config::parse(&document.name, &document.text)?;
        let now = self.model.settings();
        // What only a start can change comes from the file.
        let (instance, connections) = (now.instance.clone(), now.connections);
        let settings = Settings { instance, connections, ..model.settings().clone() };
        let (socket, group, operators) = (now.socket.clone(), now.group.clone(), now.operators.clone());
        let metrics = Metrics { listen: now.metrics.listen, ..settings.metrics };
        let (api, page) = (now.api.clone(), now.page.clone());
        let settings = Settings { socket, group, operators, api, metrics, page, ..settings };
        model.set_settings(settings).map_err(dirigent_datapath::control::Error::from)?;
        self.transact(asked, Wanted::new(format!("apply {}", document.name), model))
    }

    /// Back to a generation, or to before the last change.
    pub fn roll_back(&mut self, asked: &Asked, to: Option<u64>) -> Result<Changed> {
        self.check(asked)?;
        let (model, to) = self.kept.back(to, &self.model)?;
        self.transact(asked, Wanted::new(format!("rollback to generation {to}"), model))
    }

    /// Keeps what was changed at runtime over a reboot.
    pub fn save(&mut self, asked: &Asked) -> Result<Changed> {
        self.check(asked)?;
        let overlay = Overlay::between(&self.file, &self.model);
        let changes = count(overlay.describe(&self.file).len(), "runtime change");
        let operations = match asked.guard.dry_run {
            true => vec![format!("save {changes}")],
            false => vec![format!("saved {changes} to {}", self.kept.save(self.generation, overlay)?)],
        };
        Ok(Changed { generation: self.generation, operations, notes: Vec::new() })
    }

    /// One service or server is added, changed or removed.
    pub fn edit(&mut self, asked: &Asked, edit: &Edit) -> Result<Changed> {
        self.check(asked)?;
        let model = edit::edited(&self.model, edit)?;
        self.transact(asked, Wanted::new(edit.to_string(), model))
    }

    /// What a service is configured with.
    pub fn spec(&self, service: &str) -> Result<ServiceSpec> {
        let spec = json::write(naming::service(&self.model, service)?);
        serde_json::from_value(spec.into()).map_err(|e| Failure::new(service, e.to_string(), "please report this"))
    }

    /// What lists call a server.
    pub fn name(&self, name: &ServerName) -> Result<ServerName> {
        let (key, server) = naming::find(&self.model, name)?;
        Ok(naming::listed(&key, &server))
    }

    /// Begins or ends the drain of a server.
    pub fn drain(&mut self, asked: &Asked, name: &ServerName, drain: bool) -> Result<Drained> {
        let mut model = self.model.clone();
        let (key, server) = naming::find(&model, name)?;
        model
            .edit_server(&key, dirigent_config::Server { draining: drain, ..server.clone() })
            .map_err(dirigent_datapath::control::Error::from)?;
        let what = format!("{} {} of {key}", if drain { "drain" } else { "undrain" }, server.name());
        let mut wanted = Wanted::new(what, model);
        let alone = |s: &dirigent_config::Service| !s.servers.iter().any(dirigent_config::Server::takes);
        if drain && wanted.model.service(&key).is_some_and(alone) {
            wanted.notes.push(format!("no server of {key} takes new connections now: its clients are refused"));
        }
        Ok(Drained { name: naming::listed(&key, &server), changed: self.transact(asked, wanted)? })
    }

    /// Does what rules of ipvsadm say, one after the other; those that are refused do not stop the others.
    pub fn ipvsadm(&mut self, asked: &Asked, lines: &[String]) -> Result<IpvsadmDone> {
        self.check(asked)?;
        let mut commands = Vec::new();
        for (line, text) in lines.iter().enumerate() {
            let wrong =
                |what: String| Failure::new(format!("line {}", line + 1), what, "send a rule as ipvsadm takes it");
            let command = Command::parse(text).map_err(|e| wrong(e.message))?;
            commands.push((line, command.ok_or_else(|| wrong("it is empty".into()))?));
        }
        let what = match lines {
            [one] => format!("ipvsadm {one}"),
            many => format!("ipvsadm, {}", count(many.len(), "line")),
        };
        let mut refused = Vec::new();
        for part in commands.chunk_by(|(_, before), (_, after)| !(before.removes() && after.adds())) {
            // All at once if that can be; else one by one, to know which cannot.
            if self.rules(asked, &what, part, &mut refused).is_err() {
                for one in part {
                    if let Err(failure) = self.rules(asked, &what, std::slice::from_ref(one), &mut refused) {
                        tracing::warn!("{what}: {failure}");
                        refused.push(IpvsadmRefused { line: one.0, what: "Memory allocation problem".into() });
                    }
                }
            }
        }
        refused.sort_by_key(|refused| refused.line);
        Ok(IpvsadmDone { generation: self.generation, refused })
    }

    /// Rules in one transaction. Those that the Model refuses are named, and left out.
    fn rules(
        &mut self,
        asked: &Asked,
        what: &str,
        commands: &[(usize, Command)],
        refused: &mut Vec<IpvsadmRefused>,
    ) -> Result<()> {
        let mut wanted = Wanted::new(what, self.model.clone());
        let mut not = Vec::new();
        for (line, command) in commands {
            if command.interface().is_some_and(|name| nix::net::if_::if_nametoindex(name).is_err()) {
                not.push(IpvsadmRefused { line: *line, what: NO_DEVICE.into() });
                continue;
            }
            match command.apply(&mut wanted.model) {
                Ok(()) => wanted.edited.extend(command.edits()),
                Err(error) => not.push(IpvsadmRefused { line: *line, what: error.to_string() }),
            }
        }
        let terms = Asked { guard: Guard { generation: None, ..asked.guard }, ..asked.clone() };
        self.transact(&terms, wanted)?;
        refused.append(&mut not);
        Ok(())
    }

    /// Whether the generation is the one that is meant.
    fn check(&self, asked: &Asked) -> Result<()> {
        match asked.guard.generation {
            Some(meant) if meant != self.generation => {
                let what =
                    format!("the configuration has changed meanwhile: generation {} is in force", self.generation);
                let remedy = "look at it again (`dirigent config show`) and repeat the change";
                let failure = Failure::new(format!("generation {meant}"), what, remedy);
                Err(Failure { code: code::STALE, ..failure })
            }
            _ => Ok(()),
        }
    }

    /// From the Model in force to the one that is wanted. If anything fails, all is as before.
    fn transact(&mut self, asked: &Asked, wanted: Wanted) -> Result<Changed> {
        self.check(asked)?;
        let Wanted { what, model: new, file, mut notes, edited } = wanted;
        let old = self.model.clone();
        let told: Vec<_> = Plan::between(&old, &new).ops.iter().map(ToString::to_string).collect();
        let base = file.as_ref().unwrap_or(&self.file);
        notes.extend(fixed(&self.began_with, base.settings()));
        let generation = if told.is_empty() { self.generation } else { self.generation + 1 };
        if asked.guard.dry_run {
            return Ok(Changed { generation, operations: told, notes });
        }
        // What may fail for want of room fails before anything is changed.
        let staged = self.kept.stage(generation, Overlay::between(base, &new))?;
        let by = |model: &Model| {
            let Settings { interfaces, mode, mark_device, .. } = model.settings().clone();
            (interfaces, mode, mark_device)
        };
        let interfaces_differ = by(&old) != by(&new);
        // Before a packet comes to one.
        self.kernel.need(features(&new))?;
        // What health says lies over what is configured.
        let (was, layered) = (self.tables.model().clone(), self.health.over(&new));
        let mut plan = Plan::between(&was, &layered.model);
        plan.ops.extend(unchanged(&layered.model, edited, &plan));
        self.model = new;
        let gone = self.probe(&self.model.clone()).and_then(|()| self.go(&plan, interfaces_differ));
        if let Err(mut failure) = gone {
            self.model = old;
            // What was made for new checks is taken back with them.
            failure.problems.extend(self.probe(&self.model.clone()).err().into_iter().flat_map(|f| f.problems));
            let back = Plan::between(self.tables.model(), &was);
            if let Err(second) = self.go(&back, interfaces_differ) {
                failure.problems.extend(second.problems);
            }
            return Err(failure);
        }
        self.health.enforce(&self.model, layered, &self.events);
        self.reset_connections();
        self.tell_tracked();
        if let Some(file) = file {
            self.kept.put_file(&file)?;
            self.file = file;
        }
        staged.commit()?;
        self.generation = generation;
        self.show();
        self.announce();
        if !told.is_empty() {
            let (by, operations) = (asked.by.clone(), told.len());
            let counted = count(operations, "operation");
            tracing::info!(
                event = "applied",
                generation,
                by,
                what,
                operations,
                "generation {generation}: {what} ({counted}), by {by}"
            );
            self.events.tell(Event::Applied { generation, by, what: what.clone(), operations });
            self.remember(&asked.by, &what, told.clone(), Some(Overlay::between(&self.model, &old)));
        }
        Ok(Changed { generation, operations: told, notes })
    }

    /// Metrics tell what is configured now.
    fn show(&self) {
        let (generation, runtime_changes) = (self.generation, self.drift().len());
        let ipvs_names = self.model.settings().metrics.ipvs_names;
        self.shown.change(|shown| {
            (shown.generation, shown.runtime_changes, shown.ipvs_names) = (generation, runtime_changes, ipvs_names);
        });
    }

    /// Writes a change down that has been made.
    fn remember(&mut self, by: &str, what: &str, operations: Vec<String>, undo: Option<Overlay>) {
        let past = kept::past(self.generation, by, what, operations, undo.is_some());
        if let Err(failure) = self.kept.remember(past, undo) {
            tracing::error!("the history lacks generation {}: {failure}", self.generation);
        }
    }

    /// Removes all from the kernel, and what is remembered of it.
    pub fn detach(&mut self) -> Result<Changed> {
        self.sweeper = None;
        self.resetter = None;
        self.watch = None;
        // Others take over before this host has nothing to forward with.
        self.failover.end();
        remove(&self.instance)
    }
}

/// Edits that change nothing, which have to be done all the same.
fn unchanged(model: &Model, mut edited: BTreeSet<(ServiceKey, IpAddr, u16)>, plan: &Plan) -> Vec<Op> {
    for op in &plan.ops {
        if let Op::AddServer { service, server } | Op::EditServer { service, server } = op {
            edited.remove(&(*service, server.address, server.port));
        }
    }
    let op = |(service, address, port): (ServiceKey, IpAddr, u16)| {
        let server = model.service(&service)?.server(address, port)?.clone();
        Some(Op::EditServer { service, server })
    };
    edited.into_iter().filter_map(op).collect()
}

/// Settings that only a new start brings about, and what it needs. A daemon that is ended by SIGTERM and started again
/// takes its own tables over: only their size, and their name, stay as they are.
fn fixed(old: &Settings, new: &Settings) -> Vec<String> {
    let restart = "takes effect when the daemon is ended (SIGTERM) and started again; forwarding goes on meanwhile";
    let other = format!(
        "takes effect when the daemon is started again: as a new director, beside which {0} goes on forwarding until \
         `dirigent --instance {0} stop --detach`",
        old.instance
    );
    let resize = "takes effect with `dirigent stop --detach`, which ends all connections, and a new start";
    let differs = [
        (old.instance != new.instance, "instance", other.as_str()),
        (old.connections != new.connections, "connections", resize),
        (old.services != new.services, "services", resize),
        (old.servers != new.servers, "servers", resize),
        (old.slots != new.slots, "slots", resize),
        (old.socket != new.socket, "socket", restart),
        (old.group != new.group, "group", restart),
        (old.operators != new.operators, "operators", restart),
        (old.api != new.api, "api", restart),
        (old.metrics.listen != new.metrics.listen, "metrics.listen", restart),
        (old.page != new.page, "page", restart),
    ];
    let changed = differs.into_iter().filter(|(differs, ..)| *differs);
    changed.map(|(_, key, how)| format!("{key} {how}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_size_of_the_tables_needs_a_detach() {
        let old = Settings::default();
        assert!(fixed(&old, &old).is_empty());
        let note = |new: Settings| {
            let [note] = fixed(&old, &new).try_into().unwrap();
            note
        };
        let size = note(Settings { connections: Some(5), ..old.clone() });
        assert!(size.starts_with("connections ") && size.contains("`dirigent stop --detach`"), "{size}");
        for restart in [
            note(Settings { socket: Some("/run/x.sock".into()), ..old.clone() }),
            note(Settings { group: Some("wheel".into()), ..old.clone() }),
        ] {
            assert!(restart.contains("SIGTERM") && !restart.contains("detach"), "{restart}");
        }
        // The tables of the old name are not those of the new one.
        let name = note(Settings { instance: "other".into(), ..old.clone() });
        assert!(name.contains("`dirigent --instance main stop --detach`"), "{name}");
    }
}
