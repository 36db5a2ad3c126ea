//! FIFOs that are told of virtual routers, services and servers, and the programs that read them.

use crate::daemon::health::scripts::Scripts;
use dirigent_api::Event;
use dirigent_config::failover::{Events, Fifo};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Group, User, chown, mkfifo};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::time::Duration;
use tokio::task::AbortHandle;

/// A reader that has ended is started again so much later.
const AGAIN: Duration = Duration::from_secs(1);
/// For ever, as clocks go.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 86_400);

/// All of them.
#[derive(Default)]
pub struct Fifos(Vec<One>);

struct One {
    fifo: Fifo,
    /// Open while a program of ours reads it: for that it has no end.
    open: Option<File>,
    reader: Option<AbortHandle>,
}

impl Fifos {
    /// They are these now.
    pub fn follow(&mut self, fifos: &[Fifo], scripts: &Scripts) {
        let mut before = std::mem::take(&mut self.0);
        for fifo in fifos {
            let one = before.iter().position(|one| one.fifo == *fifo).map(|at| before.swap_remove(at));
            self.0.push(one.unwrap_or_else(|| One::begin(fifo.clone(), scripts)));
        }
    }

    /// keepalived's line about a virtual router or group.
    pub fn tell(&self, kind: &str, name: &str, state: &str, priority: u8) {
        self.0.iter().for_each(|one| one.tell(kind, name, state, priority));
    }

    /// keepalived's line about a service or server.
    pub fn hear(&self, event: &Event) {
        if let Some(line) = line_of(event) {
            self.0.iter().filter(|one| one.fifo.events != Events::Routers).for_each(|one| one.write(&line));
        }
    }

    /// Whether some are told of services.
    pub fn of_services(fifos: &[Fifo]) -> bool {
        fifos.iter().any(|fifo| fifo.events != Events::Routers)
    }

    /// The same to those that are to know all states after a reload.
    pub fn tell_state(&self, kind: &str, name: &str, state: &str, priority: u8) {
        self.0.iter().filter(|one| one.fifo.states_on_reload).for_each(|one| one.tell(kind, name, state, priority));
    }
}

impl One {
    fn begin(fifo: Fifo, scripts: &Scripts) -> Self {
        if let Err(error) = make(&fifo) {
            tracing::warn!("the FIFO {} cannot be made: {error}", fifo.path);
        }
        let Some(script) = &fifo.script else { return Self { fifo, open: None, reader: None } };
        let open = File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&fifo.path);
        if let Err(error) = &open {
            tracing::warn!("the FIFO {} cannot be opened: {error}", fifo.path);
        }
        let (scripts, mut script, path) = (scripts.clone(), (**script).clone(), fifo.path.clone());
        script.command.push(path.clone());
        let reader = tokio::spawn(async move {
            loop {
                let ended = scripts.run(script.clone(), NO_LIMIT).await;
                tracing::warn!("the program that reads the FIFO {path} has ended ({ended:?}), and is started again");
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { fifo, open: open.ok(), reader: Some(reader.abort_handle()) }
    }

    fn tell(&self, kind: &str, name: &str, state: &str, priority: u8) {
        if self.fifo.events != Events::Services {
            self.write(&format!("{kind} \"{name}\" {state} {priority}\n"));
        }
    }

    fn write(&self, line: &str) {
        let told = match &self.open {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => write(&self.fifo.path, line),
        };
        if let Err(error) = told {
            tracing::warn!("the FIFO {} is not told {:?}: {error}", self.fifo.path, line.trim_end());
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        // The program itself reads the end of the FIFO.
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// `VS [192.0.2.10]:tcp:80 UP`, `RS [10.0.0.2]:tcp:80 [192.0.2.10]:tcp:80 DOWN`; services by mark are `FWM 7`.
fn line_of(event: &Event) -> Option<String> {
    let at = |protocol: &str, socket: &str| {
        let socket: SocketAddr = socket.parse().ok()?;
        Some(format!("[{}]:{protocol}:{}", socket.ip(), socket.port()))
    };
    let service = |text: &str| {
        let (protocol, rest) = text.split_once(' ')?;
        match protocol {
            "fwmark" => Some((format!("FWM {}", rest.split(' ').next()?), "tcp".to_owned())),
            _ => Some((at(protocol, rest)?, protocol.to_owned())),
        }
    };
    let word = |up: &bool| if *up { "UP" } else { "DOWN" };
    match event {
        Event::Quorum { service: name, up } => Some(format!("VS {} {}\n", service(name)?.0, word(up))),
        Event::Health { service: name, server, up, .. } => {
            let (name, protocol) = service(name)?;
            // A server of a port of its own, or of the service's.
            let server = at(&protocol, server).unwrap_or_else(|| format!("[{server}]:{protocol}:0"));
            Some(format!("RS {server} {name} {}\n", word(up)))
        }
        _ => None,
    }
}

/// Makes it if it is not there, and gives it to whom it is to be.
fn make(fifo: &Fifo) -> io::Result<()> {
    match mkfifo(fifo.path.as_str(), Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let unknown = |what: &str, name: &str| io::Error::other(format!("there is no {what} {name}"));
    let user = fifo.user.as_ref().map(|name| User::from_name(name)?.ok_or_else(|| unknown("user", name)));
    let group = fifo.group.as_ref().map(|name| Group::from_name(name)?.ok_or_else(|| unknown("group", name)));
    let (user, group) = (user.transpose()?, group.transpose()?);
    let gid = group.map(|group| group.gid).or_else(|| user.as_ref().map(|user| user.gid));
    Ok(chown(fifo.path.as_str(), user.map(|user| user.uid), gid)?)
}

/// Whoever reads has the line; with nobody there it is nobody's.
fn write(path: &str, line: &str) -> io::Result<()> {
    match File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(mut file) if file.metadata()?.file_type().is_fifo() => file.write_all(line.as_bytes()),
        Ok(_) => Err(io::Error::other("it is no FIFO")),
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keepaliveds() {
        let quorum = |service: &str, up| line_of(&Event::Quorum { service: service.into(), up });
        let health = |service: &str, server: &str, up| {
            line_of(&Event::Health { service: service.into(), server: server.into(), up, why: String::new() })
        };
        for (line, want) in [
            (quorum("tcp 192.0.2.10:80", true), "VS [192.0.2.10]:tcp:80 UP\n"),
            (quorum("udp [2001:db8::10]:53", false), "VS [2001:db8::10]:udp:53 DOWN\n"),
            (quorum("fwmark 7 IPv6", false), "VS FWM 7 DOWN\n"),
            (health("tcp 192.0.2.10:80", "10.0.0.2:8080", false), "RS [10.0.0.2]:tcp:8080 [192.0.2.10]:tcp:80 DOWN\n"),
            (health("fwmark 7", "10.0.0.2", true), "RS [10.0.0.2]:tcp:0 FWM 7 UP\n"),
        ] {
            assert_eq!(line.as_deref(), Some(want));
        }
        assert_eq!(line_of(&Event::Alarm { router: "web".into(), what: String::new() }), None);
    }
}
