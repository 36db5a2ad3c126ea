//! Mails about changes, as keepalived sends them. A thread of its own sends them: a slow server holds nothing else up.

use super::events::Events;
use crate::failure::{Failure, Result};
use crate::keepalived::host_name;
use dirigent_api::{Event, Problem};
use dirigent_config::Model;
use dirigent_config::failover::Mail;
use lettre::message::Mailbox;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Changes within this time are one mail.
const GATHER: Duration = Duration::from_secs(1);
/// After each of these a mail that could not be sent is tried again.
const AGAIN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
/// Changes that one mail tells; of more it says how many.
const LINES: usize = 1000;

/// Which changes are mailed, and how.
#[derive(Debug)]
struct Rules {
    mail: Mail,
    /// Virtual routers that say it themselves, or whose group does.
    routers: BTreeMap<String, bool>,
    /// Services that say it themselves.
    services: HashMap<String, bool>,
    /// Servers that say it themselves, after their services.
    servers: HashMap<(String, String), bool>,
}

impl Rules {
    fn of(model: &Model) -> Option<Self> {
        let failover = model.failover();
        let mail = failover.mail.clone()?;
        let groups = failover.groups.iter().filter_map(|g| Some((&g.members, g.mail?)));
        let by_group = groups.flat_map(|(members, mail)| members.iter().map(move |name| (name.clone(), mail)));
        let own = failover.routers.iter().filter_map(|r| Some((r.name.clone(), r.mail?)));
        let services = model.services().iter();
        let servers = services.clone().flat_map(|service| {
            let key = service.key.to_string();
            service.servers.iter().filter_map(move |s| Some(((key.clone(), s.name()), s.health.mail?)))
        });
        Some(Self {
            mail,
            routers: by_group.chain(own).collect(),
            services: services.filter_map(|s| Some((s.key.to_string(), s.health.mail?))).collect(),
            servers: servers.collect(),
        })
    }

    /// What is mailed of an event: subject, and more. The words are keepalived's: mailboxes sort by them.
    fn told(&self, event: &Event) -> Option<(String, String)> {
        let router = |name: &str| self.routers.get(name).copied().or(self.mail.routers).unwrap_or(false);
        let state = |up: bool| if up { "UP" } else { "DOWN" };
        match event {
            Event::Health { service, server, up, why } => {
                let own = self.servers.get(&(service.clone(), server.clone())).copied();
                let wanted = own.or(self.mail.services).unwrap_or(true);
                let subject = format!("Realserver {server} of virtual server {service} - {}", state(*up));
                wanted.then(|| (subject, why.clone()))
            }
            Event::Quorum { service, up } => {
                let wanted = self.services.get(service).copied().or(self.mail.services).unwrap_or(false);
                let what = if *up { "it has its quorum again" } else { "it has lost its quorum" };
                wanted.then(|| (format!("Virtualserver {service} - {}", state(*up)), what.to_owned()))
            }
            Event::Role { role, why } => {
                let (role, name) = role.split_once(' ')?;
                let wanted = role != "stopped" && !(role == "fault" && self.mail.no_faults) && router(name);
                let subject = format!("VRRP Instance {name} - Entering {} state", role.to_uppercase());
                wanted.then(|| (subject, why.clone()))
            }
            Event::Alarm { router: name, what } => {
                router(name).then(|| (format!("VRRP Instance {name} - ALARM"), what.clone()))
            }
            _ => None,
        }
    }
}

/// What the thread goes by, and what it could not do.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rules: Option<Arc<Rules>>,
    trouble: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn rules(&self) -> Option<Arc<Rules>> {
        self.state().rules.clone()
    }
}

/// Mails, on or off.
pub struct Mailer {
    events: Events,
    shared: Shared,
    /// The thread runs, since the first configuration that has a server.
    begun: bool,
}

impl Mailer {
    /// Nothing yet.
    pub fn new(events: Events) -> Self {
        Self { events, shared: Shared::default(), begun: false }
    }

    /// From now on what this Model says is mailed.
    pub fn follow(&mut self, model: &Model) -> Result<()> {
        let rules = Rules::of(model).map(Arc::new);
        let wanted = rules.is_some();
        self.shared.state().rules = rules;
        if wanted && !self.begun {
            let fail = |e| Failure::io("starting to mail", &e);
            let (heard, shared) = (self.events.listen(), self.shared.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
            let work = move || runtime.block_on(run(heard, shared));
            std::thread::Builder::new().name("mail".into()).spawn(work).map_err(fail)?;
            self.begun = true;
        }
        Ok(())
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<Problem> {
        let state = self.shared.state();
        let (mail, what) = (&state.rules.as_ref()?.mail, state.trouble.clone()?);
        let remedy = format!("see to {}:{}; the next change is mailed again", mail.server, mail.port);
        Some(Problem::new("mail", what, remedy))
    }
}

/// Mails until all has ended.
async fn run(mut heard: broadcast::Receiver<Event>, shared: Shared) {
    loop {
        let (first, mut missed) = match heard.recv().await {
            Ok(event) => (Some(event), 0),
            Err(RecvError::Lagged(count)) => (None, count),
            Err(RecvError::Closed) => return,
        };
        // What nobody wants to read need not wait for others.
        let Some(rules) = shared.rules() else { continue };
        if first.as_ref().is_some_and(|event| rules.told(event).is_none()) {
            continue;
        }
        let mut all = Vec::from_iter(first);
        tokio::time::sleep(GATHER).await;
        loop {
            match heard.try_recv() {
                Ok(event) => all.push(event),
                Err(TryRecvError::Lagged(count)) => missed += count,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        // A reload may have come meanwhile.
        let Some(rules) = shared.rules() else { continue };
        let told: Vec<_> = all.iter().filter_map(|event| rules.told(event)).collect();
        let Some((subject, body)) = text(&told, missed) else { continue };
        let sent = send(&rules.mail, &subject, &body).await;
        if let Err(why) = &sent {
            tracing::error!(event = "mail_failed", subject, why, "mail: {subject:?} was not sent: {why}");
        }
        shared.state().trouble = sent.err().map(|why| format!("the last mail was not sent: {why}"));
    }
}

/// Subject and body of one mail about these; none if there is nothing to tell.
fn text(told: &[(String, String)], missed: u64) -> Option<(String, String)> {
    let line = |(subject, why): &(String, String)| match why.as_str() {
        "" => format!("{subject}\n"),
        _ => format!("{subject}\n    {why}\n"),
    };
    let mut body: String = told.iter().take(LINES).map(line).collect();
    let more = told.len().saturating_sub(LINES) as u64 + missed;
    if more > 0 {
        body += &format!("and {more} more: see the log\n");
    }
    let subject = match told {
        [] => (missed > 0).then(|| "Many changes".to_owned())?,
        [(only, _)] => only.clone(),
        [(first, _), rest @ ..] => format!("{first} (and {} more)", rest.len()),
    };
    Some((subject, body))
}

/// Sends one mail, and tries again for a while.
async fn send(mail: &Mail, subject: &str, body: &str) -> std::result::Result<(), String> {
    let host = mail.host.clone().unwrap_or_else(own_name);
    let message = message(mail, &host, subject, body)?;
    let helo = mail.helo.clone().unwrap_or_else(own_name);
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.server)
        .port(mail.port)
        .timeout(Some(mail.timeout))
        .hello_name(ClientId::Domain(helo))
        .build();
    let mut pauses = AGAIN.iter();
    loop {
        // The limit is of the whole conversation: a server that says a word now and then does not hold mails up for ever.
        let result = match tokio::time::timeout(mail.timeout, transport.send(message.clone())).await {
            Ok(sent) => sent.map(drop).map_err(|e| (e.is_permanent(), e.to_string())),
            Err(_) => Err((false, format!("{} does not answer in time", mail.server))),
        };
        match (result, pauses.next()) {
            (Ok(()), _) => return Ok(()),
            (Err((false, why)), Some(pause)) => {
                tracing::warn!("mail: {why}; it is tried again in {} s", pause.as_secs());
                tokio::time::sleep(*pause).await;
            }
            (Err((_, why)), _) => return Err(why),
        }
    }
}

fn message(mail: &Mail, host: &str, subject: &str, body: &str) -> std::result::Result<Message, String> {
    let from = mail.from.clone().unwrap_or_else(|| format!("dirigent@{host}"));
    let mut builder = Message::builder()
        .from(mailbox(&from)?)
        .subject(format!("[{host}] {subject}"))
        .message_id(Some(format!("<{:016x}@{host}>", fastrand::u64(..))));
    for to in &mail.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.body(body.to_owned()).map_err(|e| e.to_string())
}

fn mailbox(text: &str) -> std::result::Result<Mailbox, String> {
    text.parse().map_err(|e| format!("{text:?} is no address: {e}"))
}

/// What of a configuration's addresses no mail can be sent with.
pub fn wrong(mail: &Mail) -> Vec<Problem> {
    let keyed = mail.from.iter().map(|from| ("mail.from", from)).chain(mail.to.iter().map(|to| ("mail.to", to)));
    let judge = |(key, text): (&str, &String)| {
        let what = mailbox(text).err()?;
        Some(Problem::new(key, what, "write it as name@host.example, or Name <name@host.example>"))
    };
    keyed.filter_map(judge).collect()
}

fn own_name() -> String {
    Some(host_name()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        let service = |address: &str, more: &str, server: &str| {
            format!(
                "[[service]]\nprotocol = \"tcp\"\naddress = \"{address}\"\n{more}\n\
                 [[service.server]]\naddress = \"10.0.0.2:80\"\n{server}\n"
            )
        };
        let router = |name: &str, vrid: u8, more: &str| {
            format!(
                "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\naddresses = [\"192.0.2.{vrid}\"]\n{more}\n"
            )
        };
        let all = format!(
            "version = 1\n{}{}{}{}{}[[router_group]]\nname = \"G\"\nmembers = [\"c\"]\nmail = true\n\
             [mail]\nserver = \"127.0.0.1\"\nto = [\"ops@example.com\"]\n{text}\n",
            service("192.0.2.1:80", "", ""),
            service("192.0.2.2:80", "[service.health]\nmail = true", "mail = false"),
            router("a", 11, ""),
            router("b", 12, "mail = true"),
            router("c", 13, ""),
        );
        Rules::of(&dirigent_config::file::parse("test", &all).unwrap_or_else(|e| panic!("{e}"))).unwrap()
    }

    fn subject(rules: &Rules, event: &Event) -> Option<String> {
        rules.told(event).map(|(subject, _)| subject)
    }

    fn server(service: &str) -> Event {
        let (service, server, why) = (service.to_owned(), "10.0.0.2:80".to_owned(), "tcp: refused".to_owned());
        Event::Health { service, server, up: false, why }
    }

    #[test]
    fn what_is_mailed_is_as_configured() {
        let quorum = |service: &str| Event::Quorum { service: service.to_owned(), up: true };
        let role = |role: &str| Event::Role { role: role.to_owned(), why: String::new() };
        let alarm = |router: &str| Event::Alarm { router: router.to_owned(), what: "another master".to_owned() };
        let usual = rules("");
        let down = "Realserver 10.0.0.2:80 of virtual server tcp 192.0.2.1:80 - DOWN";
        assert_eq!(subject(&usual, &server("tcp 192.0.2.1:80")).as_deref(), Some(down));
        assert_eq!(subject(&usual, &server("tcp 192.0.2.2:80")), None);
        assert_eq!(subject(&usual, &quorum("tcp 192.0.2.1:80")), None);
        let up = "Virtualserver tcp 192.0.2.2:80 - UP";
        assert_eq!(subject(&usual, &quorum("tcp 192.0.2.2:80")).as_deref(), Some(up));
        assert_eq!(subject(&usual, &role("master a")), None);
        let entering = "VRRP Instance b - Entering MASTER state";
        assert_eq!(subject(&usual, &role("master b")).as_deref(), Some(entering));
        assert!(subject(&usual, &role("fault c")).is_some(), "by its group");
        assert_eq!(subject(&usual, &role("stopped b")), None);
        assert_eq!(subject(&usual, &role("active")), None);
        assert_eq!((subject(&usual, &alarm("a")), subject(&usual, &alarm("b")).is_some()), (None, true));

        let other = rules("routers = true\nservices = false\nno_faults = true");
        assert_eq!(subject(&other, &server("tcp 192.0.2.1:80")), None);
        assert!(subject(&other, &role("backup a")).is_some());
        assert_eq!(subject(&other, &role("fault b")), None);
    }

    #[test]
    fn many_changes_are_one_mail() {
        let one = |n: usize| (format!("change {n}"), String::new());
        assert_eq!(text(&[], 0), None);
        assert_eq!(text(&[("a".into(), "b".into())], 0), Some(("a".into(), "a\n    b\n".into())));
        let all: Vec<_> = (0..LINES + 5).map(one).collect();
        let (subject, body) = text(&all, 7).unwrap();
        assert_eq!(subject, format!("change 0 (and {} more)", LINES + 4));
        assert_eq!(body.lines().count(), LINES + 1);
        assert!(body.ends_with("and 12 more: see the log\n"), "{body}");
    }

    #[test]
    fn a_mail_has_its_heads() {
        let mail = Mail { to: vec!["Ops <ops@example.com>".into(), "root@localhost".into()], ..Mail::default() };
        let bytes = message(&mail, "lb1", "Virtualserver tcp 192.0.2.2:80 - UP", "ä\n.\n").unwrap().formatted();
        let text = String::from_utf8(bytes).unwrap();
        for line in
            ["From: dirigent@lb1", "Subject: [lb1] Virtualserver tcp 192.0.2.2:80 - UP", "Date: ", "Message-ID: <"]
        {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
        }
        assert!(text.contains("ops@example.com") && text.contains("root@localhost"), "{text}");
        let bad = Mail { from: Some("a b".into()), to: vec!["nobody".into()], ..Mail::default() };
        let places: Vec<_> = wrong(&bad).into_iter().map(|p| p.place).collect();
        assert_eq!(places, ["mail.from", "mail.to"]);
    }
}
