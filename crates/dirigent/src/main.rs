//! The director: daemon, command line and lab in one program.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod ask;
mod changes;
mod cli;
mod client;
mod commands;
mod configure;
mod daemon;
mod doctor;
mod drain;
mod edit;
mod events;
mod explain;
mod failover;
mod failure;
mod frame;
mod imagine;
mod import;
mod ipvsadm;
mod keepalived;
mod lab;
mod log;
mod manual;
mod netfilter;
mod print;
mod privileges;
mod realserver;
mod report;
mod top;
mod trace;
mod walk;
mod watch;
mod why;

use ask::Target;
use clap::Parser;
use cli::{Cli, Command, RunArgs};
use dirigent_net::probe::Room;
use failure::{Failure, Result};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().and_then(|path| Path::new(&path).file_name().map(ToOwned::to_owned));
    let cli = if name.is_some_and(|name| name == "ipvsadm") {
        let args = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
        Cli { command: Command::Ipvsadm { args }, ..Cli::of_environment() }
    } else {
        Cli::parse()
    };
    if let Err(failure) = log::begin(matches!(cli.command, Command::Run(_) | Command::Guard)) {
        print::problems(&failure.problems);
        return ExitCode::from(failure.code);
    }
    // Before there are threads.
    let room = match give_up_rights(&cli) {
        Ok(room) => room,
        Err(failure) => {
            print::problems(&failure.problems);
            return ExitCode::from(failure.code);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli, room)),
        Err(e) => Err(Failure::io("starting", &e)),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            print::problems(&failure.problems);
            ExitCode::from(failure.code)
        }
    }
}

/// A daemon that shall not be root's prepares as root, and is root's no more; one that never was keeps what it goes on
/// needing. What takes more than that is made before.
fn give_up_rights(cli: &Cli) -> Result<Option<Room>> {
    let Command::Run(RunArgs { user, config, .. }) = &cli.command else { return Ok(None) };
    let Some(user) = user else {
        if nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let room = privileges::room();
        privileges::give_up_admin(room.as_ref())?;
        return Ok(room);
    };
    let (model, _) = daemon::config::load(config.as_deref(), cli.instance.clone())?;
    for done in privileges::prepare(&model.settings().instance, user)? {
        tracing::info!("{done}");
    }
    let room = privileges::room();
    privileges::become_user(user, room.as_ref())?;
    Ok(room)
}

async fn dispatch(cli: Cli, room: Option<Room>) -> Result<ExitCode> {
    let Cli { instance, socket, command } = cli;
    match command {
        Command::Run(config) => daemon::run(config.config.as_deref(), instance, socket, room).await?,
        Command::Guard => daemon::failover::guard::run(&Target::new(instance, socket).instance)?,
        Command::Lab(command) => return lab::run(command).await,
        Command::Realserver(command) => return realserver::run(command),
        Command::Import(command) => return import::run(&command),
        Command::Doctor(args) => return doctor::run(&Target::new(instance, socket), &args).await,
        Command::Ipvsadm { args } => return Ok(ipvsadm::run(&Target::new(instance, socket), &args).await.into()),
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Openapi => print::json(&daemon::openapi())?,
        Command::Prepare { user, config } => {
            let (model, _) = daemon::config::load(config.as_deref(), instance)?;
            let done = privileges::prepare(&model.settings().instance, &user)?;
            print::text(&done.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        }
        Command::Man { directory } => manual::pages(directory.as_deref())?,
        Command::Proc { name } => ipvsadm::proc::show(&Target::new(instance, socket), &name).await?,
        Command::Sysctl { name, print } => {
            ipvsadm::proc::sysctl(&Target::new(instance, socket), name.as_deref(), print.json).await?;
        }
        other => commands::run(other, instance, socket).await?,
    }
    Ok(ExitCode::SUCCESS)
}
