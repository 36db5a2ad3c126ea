//! `dirigent server drain`: begins a drain, and watches it.

use crate::ask::Target;
use crate::cli::{DrainArgs, ServerArgs};
use crate::commands::told;
use crate::failure::{Failure, Result, code};
use crate::print;
use dirigent_api::{Drain, ServerName, Service};
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// A packet that was scheduled before the drain may still open its connection.
const GRACE: Duration = Duration::from_secs(1);

/// The server as it was named.
pub fn name(args: &ServerArgs) -> ServerName {
    ServerName { service: args.service.clone(), server: args.server.clone() }
}

/// Begins a drain and waits for its end.
pub async fn run(target: &Target, args: &DrainArgs) -> Result<()> {
    let begun = Instant::now();
    let drained = target.drain(&name(&args.server), true).await?;
    for note in &drained.changed.notes {
        eprintln!("note: {note}");
    }
    let mut progress = Progress::default();
    // It may be drained already; then this waits too.
    if !args.print.json && !drained.changed.operations.is_empty() {
        print::text(&told(&dirigent_api::Changed { notes: Vec::new(), ..drained.changed.clone() }))?;
    }
    loop {
        let drain = look(&target.services().await?, &drained.name, begun.elapsed());
        let late = args.timeout.is_some_and(|timeout| begun.elapsed() >= timeout);
        let over = drain.state != "draining" || args.no_wait || late;
        if !args.print.json {
            progress.tell(&drain, over)?;
        } else if over {
            print::json(&drain)?;
        }
        match drain.state.as_str() {
            "draining" if args.no_wait => return Ok(()),
            "draining" if late => return Err(too_late(&drain)),
            "draining" => tokio::time::sleep(LOOK).await,
            "drained" => return Ok(()),
            // Whoever it was: this is not what was asked for.
            other => {
                let remedy = "begin again if it shall be drained all the same";
                return Err(Failure::new(&drain.name.server, format!("it was {other} meanwhile"), remedy));
            }
        }
    }
}

/// How far it has come, by the lists.
fn look(services: &[Service], name: &ServerName, passed: Duration) -> Drain {
    let mut drain = Drain { name: name.clone(), seconds: passed.as_secs(), ..Drain::default() };
    let servers = services.iter().filter(|s| s.name() == name.service).flat_map(|s| &s.servers);
    let server = servers.into_iter().find(|s| s.address == name.server);
    let found = server.map_or("removed", |server| {
        (drain.active, drain.inactive, drain.templates) = (server.active, server.inactive, server.templates);
        match server.state.as_str() {
            "draining" if (server.active, server.inactive) == (0, 0) && passed >= GRACE => "drained",
            known @ ("draining" | "removed") => known,
            _ => "undrained",
        }
    });
    drain.state = found.to_owned();
    drain
}

fn too_late(drain: &Drain) -> Failure {
    let left = left(drain);
    let remedy = "it stays drained: wait again, or `dirigent server undrain`, or remove the server";
    let what = format!("not drained after {} s: {left} left", drain.seconds);
    Failure { code: code::TIMEOUT, ..Failure::new(&drain.name.server, what, remedy) }
}

fn left(drain: &Drain) -> String {
    let all = u64::from(drain.active) + u64::from(drain.inactive);
    let all = print::count(usize::try_from(all).unwrap_or(usize::MAX), "connection");
    let templates = print::count(usize::try_from(drain.templates).unwrap_or(usize::MAX), "template");
    format!("{all} ({} active, {} inactive), {templates}", drain.active, drain.inactive)
}

/// Tells people: on a terminal in one line that changes, else a line for each change.
#[derive(Default)]
struct Progress {
    last: Option<String>,
}

impl Progress {
    fn tell(&mut self, drain: &Drain, over: bool) -> Result<()> {
        let text = match drain.state.as_str() {
            "drained" => format!("{} of {}: drained, no connection is left", drain.name.server, drain.name.service),
            _ => format!("{} of {}: {} left", drain.name.server, drain.name.service, left(drain)),
        };
        if std::io::stdout().is_terminal() {
            let end = if over { "\n" } else { "" };
            print::text(&format!("\r\x1b[K{text}, {} s{end}", drain.seconds))?;
            return std::io::stdout().flush().map_err(|e| Failure::io("stdout", &e));
        }
        if self.last.as_ref() == Some(&text) {
            return Ok(());
        }
        print::text(&format!("{text}\n"))?;
        self.last = Some(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_over_without_connections() {
        let name = ServerName { service: "tcp 192.0.2.10:80".into(), server: "10.0.0.2:80".into() };
        let of = |state: &str, active, inactive, seconds| {
            let (address, state) = (name.server.clone(), state.to_owned());
            let server = dirigent_api::Server { address, state, active, inactive, templates: 3, ..Default::default() };
            let (protocol, address) = ("tcp".to_owned(), "192.0.2.10:80".to_owned());
            let service = Service { protocol, address, servers: vec![server], ..Default::default() };
            look(&[service], &name, Duration::from_secs(seconds))
        };
        for (state, active, inactive, seconds, expected) in [
            ("draining", 1, 0, 5, "draining"),
            ("draining", 0, 1, 5, "draining"),
            ("draining", 0, 0, 5, "drained"),
            // One that was scheduled before may still come.
            ("draining", 0, 0, 0, "draining"),
            ("available", 0, 0, 5, "undrained"),
            ("removed", 1, 0, 5, "removed"),
        ] {
            let drain = of(state, active, inactive, seconds);
            assert_eq!((drain.state.as_str(), drain.active, drain.inactive), (expected, active, inactive));
        }
        assert_eq!(look(&[], &name, Duration::ZERO).state, "removed");
        let late = too_late(&of("draining", 1, 2, 7));
        assert_eq!(late.code, code::TIMEOUT);
        assert_eq!(
            late.problems[0].what,
            "not drained after 7 s: 3 connections (1 active, 2 inactive), 3 templates left"
        );
    }
}
