//! tcpdump at several places of a lab at once.

use super::packet::{Tcp, read_pcap};
use crate::failure::{Failure, Result};
use dirigent_net::lab::{DIRECTORY, Lab};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Captures that run.
pub struct Capture<'a> {
    lab: &'a Lab,
    places: Vec<Place>,
}

struct Place {
    host: String,
    interface: String,
    label: String,
    file: PathBuf,
}

impl<'a> Capture<'a> {
    /// Starts tcpdump on each host's interface, and waits until all listen.
    pub fn start(lab: &'a Lab, places: &[(String, String)], filter: &str) -> Result<Self> {
        let mut capture = Capture { lab, places: Vec::new() };
        for (host, interface) in places {
            capture.listen(host, interface, filter)?;
        }
        for place in &capture.places {
            let log = Path::new(DIRECTORY).join(lab.name()).join(format!("{}-{}.log", place.host, place.label));
            super::wait_for(lab, &place.host, &place.label, "its capture", || {
                fs::read_to_string(&log).is_ok_and(|text| text.contains("listening on"))
            })?;
        }
        Ok(capture)
    }

    fn listen(&mut self, host: &str, interface: &str, filter: &str) -> Result<()> {
        let label = format!("tcpdump-{interface}");
        let base = Path::new(DIRECTORY).join(self.lab.name());
        let file = base.join(format!("{host}-{interface}.pcap"));
        let log = base.join(format!("{host}-{label}.log"));
        for old in [&file, &log] {
            if let Err(e) = fs::remove_file(old)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                return Err(Failure::io(old.display().to_string(), &e));
            }
        }
        let path = file.to_string_lossy().into_owned();
        // As root throughout (-Z): it may not write here after giving root up.
        // The beginnings of packets: whole ones would not all find room while this waits for a processor.
        let argv = [
            "tcpdump",
            "-s",
            "400",
            "-i",
            interface,
            "-nn",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-w",
            &path,
            filter,
        ];
        self.lab.start(host, &label, &argv)?;
        self.places.push(Place { host: host.to_owned(), interface: interface.to_owned(), label, file });
        Ok(())
    }

    /// Ends all, and returns what each place saw.
    pub fn finish(mut self) -> Result<Vec<Seen>> {
        // The last packets are still on their way to tcpdump.
        std::thread::sleep(Duration::from_millis(300));
        std::mem::take(&mut self.places)
            .into_iter()
            .map(|place| {
                self.lab.end(&place.host, &place.label)?;
                let bytes = fs::read(&place.file).map_err(|e| Failure::io(place.file.display().to_string(), &e))?;
                Ok(Seen { host: place.host, interface: place.interface, packets: read_pcap(&bytes) })
            })
            .collect()
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        for place in &self.places {
            if let Err(error) = self.lab.end(&place.host, &place.label) {
                tracing::warn!("{error}");
            }
        }
    }
}

/// What was seen at one place.
#[derive(Serialize)]
pub struct Seen {
    /// The host.
    pub host: String,
    /// Its interface.
    pub interface: String,
    /// The TCP packets, in order.
    pub packets: Vec<Tcp>,
}

impl Seen {
    /// `director c0`.
    pub fn place(&self) -> String {
        format!("{} {}", self.host, self.interface)
    }
}
