//! Manual pages and completions, out of the command line's one definition.

use crate::cli::Cli;
use crate::failure::{Failure, Result};
use crate::print;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// The section of commands for operators.
const SECTION: &str = "8";

/// Prints what a shell needs.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dirigent", &mut text);
    print::text(&String::from_utf8_lossy(&text))
}

/// Prints the program's page, or writes those of all commands.
pub fn pages(directory: Option<&Path>) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let Some(directory) = directory else {
        return print::text(&String::from_utf8_lossy(&page(command, "dirigent")?));
    };
    std::fs::create_dir_all(directory).map_err(|e| Failure::io(directory.display().to_string(), &e))?;
    write(&command, "dirigent", directory)
}

/// A command's page, and those of its own commands.
fn write(command: &clap::Command, name: &str, directory: &Path) -> Result<()> {
    let path = directory.join(format!("{name}.{SECTION}"));
    let text = page(command.clone(), name)?;
    std::fs::write(&path, text).map_err(|e| Failure::io(path.display().to_string(), &e))?;
    let own = command.get_subcommands().filter(|c| c.get_name() != "help");
    own.into_iter().try_for_each(|c| write(c, &format!("{name}-{}", c.get_name()), directory))
}

fn page(command: clap::Command, name: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command).title(name).section(SECTION).manual("Dirigent");
    man.render(&mut text).map_err(|e| Failure::io(name, &e))?;
    Ok(text)
}
