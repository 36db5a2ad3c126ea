//! `--watch`: the same again and again, until it is interrupted.

use crate::failure::Result;
use crate::print;
use std::io::IsTerminal;
use std::time::Duration;

/// Asks and prints, once or every so often. Once it has begun, a daemon that is away for a moment does not end it.
pub async fn run(every: Option<Duration>, mut once: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let Some(every) = every else { return once().await };
    let terminal = std::io::stdout().is_terminal();
    let mut begun = false;
    loop {
        if terminal {
            print::text("\x1b[H\x1b[2J")?;
        }
        match once().await {
            Err(failure) if begun => print::problems(&failure.problems),
            outcome => outcome?,
        }
        begun = true;
        tokio::time::sleep(every).await;
    }
}
