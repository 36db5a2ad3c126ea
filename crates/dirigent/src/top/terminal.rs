//! The terminal: what it can show, taken and given back as it was.

use super::view::Skin;
use crate::failure::{Failure, Result};
use nix::sys::signal::{Signal, raise};
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use std::io::{self, IsTerminal as _};

impl Skin {
    /// What variables of the environment say (a function from their names to their values).
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let terminal = set("TERM").unwrap_or_default();
        // The VT terminals had none, and what takes itself for one may not.
        let colour = set("NO_COLOR").is_none() && terminal != "dumb" && !terminal.starts_with("vt");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        Self { colour, unicode: locale.contains("utf-8") || locale.contains("utf8") }
    }
}

/// The terminal, taken for a screen of its own. It is given back when this is dropped, and by a panic.
pub struct Seat(DefaultTerminal);

fn failed(error: &io::Error) -> Failure {
    Failure::io("the terminal", error)
}

impl Seat {
    /// Takes it.
    pub fn take() -> Result<Self> {
        let once = "print one look as text: `dirigent top --once`";
        if !io::stdout().is_terminal() {
            let what = "it is not a terminal, and this command shows a screen that changes";
            return Err(Failure::new("stdout", what, format!("over SSH ask for one, `ssh -t`; or {once}")));
        }
        if std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb") {
            return Err(Failure::new("TERM=dumb", "text cannot be placed on such a terminal", once));
        }
        Ok(Self(taken()?))
    }
    /// Its height, rows.
    pub fn height(&self) -> Result<u16> {
        self.0.size().map(|size| size.height).map_err(|e| failed(&e))
    }
    /// Draws what has changed.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer)) -> Result<()> {
        self.0.draw(|frame| draw(frame.buffer_mut())).map(|_| ()).map_err(|e| failed(&e))
    }
    /// Has all be drawn anew.
    pub fn clear(&mut self) -> Result<()> {
        self.0.clear().map_err(|e| failed(&e))
    }
    /// Gives it to the shell, until that lets this process go on.
    pub fn suspend(&mut self) -> Result<()> {
        self.0.show_cursor().map_err(|e| failed(&e))?;
        ratatui::restore();
        raise(Signal::SIGTSTP).map_err(|e| failed(&e.into()))?;
        self.0 = taken()?;
        self.clear()
    }
}

fn taken() -> Result<DefaultTerminal> {
    ratatui::try_init().map_err(|e| {
        ratatui::restore();
        failed(&e)
    })
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The cursor comes back with the terminal's own end.
        ratatui::restore();
    }
}

/// How wide a text may be: as COLUMNS says, or the terminal that it goes to is; none: as wide as it wants.
pub fn width() -> Option<u16> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    let terminal = || io::stdout().is_terminal().then(crossterm::terminal::size)?.ok();
    said.or_else(|| terminal().map(|(columns, _)| columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skin(variables: &[(&str, &str)]) -> (bool, bool) {
        let found = |name: &str| variables.iter().find(|(is, _)| *is == name).map(|(_, value)| (*value).to_owned());
        let Skin { colour, unicode } = Skin::of(found);
        (colour, unicode)
    }

    #[test]
    fn the_environment_says_what_can_be_shown() {
        for (variables, wanted) in [
            (&[("TERM", "xterm-256color"), ("LANG", "de_DE.UTF-8")][..], (true, true)),
            (&[("TERM", "screen"), ("LANG", "C")], (true, false)),
            (&[("TERM", "vt100"), ("LC_ALL", "C.utf8")], (false, true)),
            (&[("TERM", "dumb")], (false, false)),
            (&[("TERM", "xterm"), ("NO_COLOR", "1"), ("LANG", "C.UTF-8")], (false, true)),
            (&[("TERM", "xterm"), ("NO_COLOR", "")], (true, false)),
            (&[("TERM", "xterm"), ("LC_ALL", "C"), ("LANG", "C.UTF-8")], (true, false)),
            (&[("TERM", "xterm"), ("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")], (true, true)),
        ] {
            assert_eq!(skin(variables), wanted, "{variables:?}");
        }
    }
}
