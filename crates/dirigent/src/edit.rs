//! `dirigent service|server add|edit|remove`: one service or server, as the API has it.

use crate::ask::Target;
use crate::cli::{ChangeArgs, ServerArgs, ServerCommand, ServiceCommand};
use crate::commands;
use crate::failure::{Failure, Result, code};
use crate::print;
use dirigent_api::{Guard, path};
use dirigent_config::ServiceKey;
use dirigent_config::file::json;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

/// Carries a command on a service out; false if it changes none.
pub async fn service(target: &Target, command: &ServiceCommand) -> Result<bool> {
    let at = |name: &str| path::SERVICE.replace("{service}", &encoded(name));
    match command {
        ServiceCommand::List(_) => return Ok(false),
        ServiceCommand::Add(add) => {
            let name = &add.name.service;
            let key = ServiceKey::parse(name).ok_or_else(|| {
                let remedy = "write PROTOCOL:ADDRESS:PORT, like tcp:192.0.2.10:80, or fwmark:MARK[:6]";
                Failure { code: code::INVALID, ..Failure::new(name, "that is no virtual service", remedy) }
            })?;
            let mut body = add.options.keys();
            let of_key = json::write(&dirigent_config::Service::new(key));
            body.extend(of_key.into_iter().filter(|(key, _)| key != "scheduler"));
            change(target, Method::POST, path::SERVICES, body, &add.change).await?;
        }
        ServiceCommand::Edit(edit) => {
            let body = something(edit.options.keys())?;
            change(target, Method::PATCH, &at(&edit.name.service), body, &edit.change).await?;
        }
        ServiceCommand::Remove(remove) => {
            change(target, Method::DELETE, &at(&remove.name.service), Map::new(), &remove.change).await?;
        }
    }
    Ok(true)
}

/// The same for servers.
pub async fn server(target: &Target, command: &ServerCommand) -> Result<bool> {
    let of = |service: &str| path::SERVERS.replace("{service}", &encoded(service));
    let at = |name: &ServerArgs| format!("{}/{}", of(&name.service), encoded(&name.server));
    match command {
        ServerCommand::Add(add) => {
            let mut body = add.options.keys();
            body.insert("address".to_owned(), add.server.server.clone().into());
            change(target, Method::POST, &of(&add.server.service), body, &add.change).await?;
        }
        ServerCommand::Edit(edit) => {
            let body = something(edit.options.keys())?;
            change(target, Method::PATCH, &at(&edit.server), body, &edit.change).await?;
        }
        ServerCommand::Remove(remove) => {
            change(target, Method::DELETE, &at(&remove.server), Map::new(), &remove.change).await?;
        }
        ServerCommand::List(_) | ServerCommand::Drain(_) | ServerCommand::Undrain { .. } => return Ok(false),
    }
    Ok(true)
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// An edit that says nothing is a mistake.
fn something(keys: Map<String, Value>) -> Result<Map<String, Value>> {
    if keys.is_empty() {
        return Err(Failure::new(
            "",
            "nothing is to be changed",
            "name an option and its new value; --help lists them",
        ));
    }
    Ok(keys)
}

async fn change(target: &Target, method: Method, at: &str, body: Map<String, Value>, args: &ChangeArgs) -> Result<()> {
    let guard = Guard { dry_run: args.dry_run, generation: args.generation };
    let changed = target.edit(method, at, guard, &body).await?;
    if args.print.json { print::json(&changed) } else { print::text(&commands::told(&changed)) }
}
