//! What goes to stderr: the daemon's log, and warnings of commands.

use crate::failure::{Failure, Result};
use std::fmt;
use std::io::IsTerminal as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Says how the daemon's log is written.
const FORMAT: &str = "DIRIGENT_LOG_FORMAT";

/// The daemon tells what it does, commands only what is wrong; RUST_LOG says otherwise.
pub fn begin(daemon: bool) -> Result<()> {
    let default = if daemon { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // Its manager (systemd) adds the time where that is wanted.
    let text = format::format().with_target(false).without_time();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match (json(daemon)?, journal) {
        (true, journal) => {
            let json = format::json().with_target(false).flatten_event(true);
            let json = json.with_current_span(false).with_span_list(false);
            let builder = builder.fmt_fields(format::JsonFields::new());
            match journal {
                true => builder.event_format(Prioritised(json)).init(),
                false => builder.event_format(json).init(),
            }
        }
        (false, true) => {
            let builder = builder.fmt_fields(Sentences).with_ansi(false);
            builder.event_format(Prioritised(text.with_level(false))).init();
        }
        (false, false) => {
            let builder = builder.fmt_fields(Sentences).with_ansi(std::io::stderr().is_terminal());
            builder.event_format(text).init();
        }
    }
    Ok(())
}

/// Whether the log is one of objects; commands speak to people.
fn json(daemon: bool) -> Result<bool> {
    let Some(format) = std::env::var_os(FORMAT).filter(|_| daemon) else { return Ok(false) };
    match format.to_str() {
        Some("json") => Ok(true),
        Some("text" | "") => Ok(false),
        _ => Err(Failure::new(FORMAT, format!("{format:?} is no format of logs"), "use text or json")),
    }
}

/// Lines for people: the sentence, and behind it the name of what it tells, `event=health`. Such a sentence says what the
/// other fields say; those of lines without a name are written out.
struct Sentences;

impl<'w> FormatFields<'w> for Sentences {
    fn format_fields<R: RecordFields>(&self, mut to: Writer<'w>, fields: R) -> fmt::Result {
        let mut seen = Seen::default();
        fields.record(&mut seen);
        to.write_str(&seen.sentence)?;
        match seen.event {
            Some(event) => write!(to, " event={event}"),
            None => to.write_str(&seen.others),
        }
    }
}

/// The fields of one line.
#[derive(Default)]
struct Seen {
    sentence: String,
    event: Option<String>,
    others: String,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => self.event = Some(value.to_owned()),
            _ => self.record_debug(field, &value),
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.sentence = format!("{value:?}"),
            name => self.others += &format!(" {name}={value:?}"),
        }
    }
}

/// With the priority in front by which the journal files a line (sd-daemon(3)).
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    F: FormatEvent<S, N>,
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, all: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(to, "<{priority}>")?;
        self.0.format_event(all, to, event)
    }
}
