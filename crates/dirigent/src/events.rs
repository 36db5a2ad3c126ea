//! `dirigent events`: what happens, as it happens.

use crate::ask::Target;
use crate::failure::{Failure, Result};
use crate::print;
use dirigent_api::Event;

/// Prints events until the daemon ends.
pub async fn run(target: &Target, drops: u64, json: bool) -> Result<()> {
    let mut ended = false;
    let mut failure = None;
    target
        .events(drops, |event| {
            ended |= matches!(&event, Event::Role { role, .. } if role == "ended");
            let printed = match json {
                true => print::json_line(&event),
                false => print::text(&format!("{}\n", line(&event))),
            };
            failure = printed.err();
            failure.is_none()
        })
        .await?;
    match (failure, ended) {
        (Some(failure), _) => Err(failure),
        (None, true) => Ok(()),
        (None, false) => Err(Failure::new("", "the daemon ended the stream", "see its log, and ask again")),
    }
}

/// One event, for people.
pub fn line(event: &Event) -> String {
    match event {
        Event::Applied { generation, by, what, operations } => {
            format!("applied   generation {generation}: {what} ({}), by {by}", print::count(*operations, "operation"))
        }
        Event::Server { address, up: true, why } => format!("server    {address} is up: {why}"),
        Event::Server { address, up: false, why } => format!("server    {address} is down: {why}"),
        Event::Health { service, server, up: true, .. } => format!("health    {server} of {service} is up"),
        Event::Health { service, server, up: false, why } => format!("health    {server} of {service} is down: {why}"),
        Event::Quorum { service, up } => {
            format!("quorum    {service} {}", if *up { "has its quorum again" } else { "has lost its quorum" })
        }
        Event::Role { role, why } => format!("role      {role}: {why}"),
        Event::Alarm { router, what } => format!("alarm     virtual router {router}: {what}"),
        Event::Suspected { service, server, cause, what, over } => {
            let about = if server.is_empty() { service.clone() } else { format!("{server} of {service}") };
            match over {
                true => format!("suspected {about}: no longer {}", cause.replace('_', " ")),
                false => format!("suspected {about}: {what}"),
            }
        }
        Event::Drops { reason, text, per_second } => format!("drops     {per_second}/s {reason}: {text}"),
        Event::Missed { events } => {
            format!("missed    {}: this command was too slow", print::count(*events as usize, "event"))
        }
    }
}
