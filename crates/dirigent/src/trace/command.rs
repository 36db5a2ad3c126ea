//! The command: what it asks, and what it prints.

use super::capture::Capture;
use crate::ask::Target;
use crate::cli::TraceArgs;
use crate::explain;
use crate::failure::{Failure, Result};
use crate::print;
use dirigent_api::{TraceEvent, TraceOf, Traced};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};

/// Tells of packets until enough were told of, the daemon ends, or a signal comes.
pub async fn run(target: &Target, args: &TraceArgs) -> Result<()> {
    let of = TraceOf {
        client: args.client.clone(),
        service: args.service.clone(),
        server: args.server.clone(),
        reasons: (!args.reason.is_empty()).then(|| args.reason.join(",")),
        rate: Some(args.rate),
        bytes: Some(args.pcap.is_some()),
    };
    let mut capture = args.pcap.as_deref().map(Capture::create).transpose()?;
    let (mut told, mut withheld, mut failure) = (0, 0, None);
    let on = |kind| signal(kind).map_err(|e| Failure::io("signals", &e));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let heard = target.trace(&of, |event| {
        let done = match event {
            TraceEvent::Begun => {
                eprintln!("tracing: packets are told of as they go through; Ctrl-C ends it");
                Ok(())
            }
            TraceEvent::Withheld { packets } => {
                withheld = packets;
                Ok(())
            }
            TraceEvent::Packet(packet) => {
                told += 1;
                show(&packet, args.print.json)
                    .and_then(|()| capture.as_mut().map_or(Ok(()), |file| file.write(&packet)))
            }
        };
        failure = done.err();
        failure.is_none() && args.count.is_none_or(|count| told < count)
    });
    let ended = tokio::select! {
        ended = heard => ended.map(|()| args.count.is_some_and(|count| told >= count)),
        _ = interrupt.recv() => Ok(true),
        _ = terminate.recv() => Ok(true),
    }?;
    if withheld > 0 {
        eprintln!(
            "{} more not told of: more came than {} a second (--rate), or than there was time for",
            print::count(usize::try_from(withheld).unwrap_or(usize::MAX), "packet"),
            args.rate
        );
    }
    match failure {
        Some(failure) => Err(failure),
        None if ended => Ok(()),
        None => Err(Failure::new("", "the daemon ended the stream", "see its log, and ask again")),
    }
}

fn show(packet: &Traced, json: bool) -> Result<()> {
    if json { print::json_line(packet) } else { print::text(&text(packet)) }
}

/// For people.
pub fn text(packet: &Traced) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(packet.time_us);
    format!("{} {}\n", humantime::format_rfc3339_micros(time), explain::text(&packet.life))
}
