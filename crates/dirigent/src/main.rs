//! The director: daemon, command line and lab in one program.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod ask;
mod cli;
mod client;
mod commands;
mod configure;
mod daemon;
mod drain;
mod failure;
mod import;
mod ipvsadm;
mod lab;
mod manual;
mod print;
mod realserver;
mod report;

use ask::Target;
use clap::Parser;
use cli::{Cli, Command};
use failure::{Failure, Result};
use std::io::IsTerminal;
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
    log(matches!(cli.command, Command::Run(_)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
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

/// Logs go to stderr: the daemon tells what it does, commands only what is wrong. RUST_LOG says otherwise.
fn log(daemon: bool) {
    use tracing_subscriber::EnvFilter;
    let default = if daemon { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_target(false);
    // Its manager (systemd) adds the time where that is wanted.
    builder.without_time().with_ansi(std::io::stderr().is_terminal()).init();
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let Cli { instance, socket, command } = cli;
    match command {
        Command::Run(config) => daemon::run(config.config.as_deref(), instance, socket).await?,
        Command::Lab(command) => return lab::run(command).await,
        Command::Realserver(command) => return realserver::run(command),
        Command::Import(command) => return import::run(&command),
        Command::Ipvsadm { args } => return Ok(ipvsadm::run(&Target::new(instance, socket), &args).await.into()),
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Man { directory } => manual::pages(directory.as_deref())?,
        Command::Proc { name } => ipvsadm::proc::show(&Target::new(instance, socket), &name).await?,
        Command::Sysctl { name, print } => {
            ipvsadm::proc::sysctl(&Target::new(instance, socket), name.as_deref(), print.json).await?;
        }
        other => commands::run(other, instance, socket).await?,
    }
    Ok(ExitCode::SUCCESS)
}
