//! A daemon with very many services, in a lab: its start, reloads, listing and successor, and its memory.

use super::table::{self, Change};
use super::{Options, Row, Scale};
use crate::command::succeeds;
use crate::cpu::scheduled;
use crate::memory;
use dirigent_datapath::kernel::Instance;
use dirigent_net::Namespace;
use dirigent_net::lab::{DIRECTORY, Lab};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1200);

/// A lab with the daemon's files, until dropped.
struct Site {
    dirigent: PathBuf,
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    daemon: Option<Child>,
}

/// Measures it.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Scale, String> {
    const STEPS: usize = 9;
    let mut step = 0;
    let mut next = |what: &str| {
        progress(what, step, STEPS);
        step += 1;
    };
    next("lab");
    let mut site = Site::up(&options.dirigent)?;
    let size = (options.services, options.servers);
    let name = site.name.clone();
    let text = |change| table::text(&name, size, change);
    let mut rows = Vec::new();
    let mut put = |what, value, unit| rows.push(Row { what, value, unit });
    site.write(&text(Change::None))?;
    next("check the file");
    let file = site.file();
    put("read and check the file, without a daemon", site.seconds(&["check", "--config", &file])?, "s");
    next("start");
    put("start, until packets are directed", site.start()?, "s");
    put("memory of the daemon then", site.resident("VmRSS")?, "MB");
    put("most memory of the daemon until then", site.resident("VmHWM")?, "MB");
    put("kernel memory of all tables", site.instance()?.bytes().map_err(|e| e.to_string())? as f64 / 1e6, "MB");
    next("rest");
    put("of one CPU, while nothing happens", site.at_rest(), "%");
    for (what, change) in [
        ("reload without a change", Change::None),
        ("reload with one server's weight changed", Change::One),
        ("reload with every server's weight changed", Change::All),
    ] {
        next(what);
        site.write(&text(change))?;
        put(what, site.seconds(&["--instance", &name, "reload"])?, "s");
    }
    next("list");
    put("list of all services and servers", site.seconds(&["--instance", &name, "ipvsadm", "-L", "-n"])?, "s");
    next("take over");
    site.end()?;
    put("start of the next daemon, while packets are directed", site.start()?, "s");
    put("most memory of the next daemon until then", site.resident("VmHWM")?, "MB");
    Ok(Scale { services: options.services, servers: options.servers, rows })
}

impl Site {
    fn up(dirigent: &Path) -> Result<Self, String> {
        let name = format!("scale{}", std::process::id());
        let mut up = Command::new(dirigent);
        succeeds(up.args(["lab", "up", "--no-daemon", "--servers", "1", "--name", &name]))?;
        let lab = Lab::open(&name).map_err(|e| e.to_string())?;
        let namespace = lab.namespace("director").map_err(|e| e.to_string())?;
        let directory = Path::new(DIRECTORY).join(&name);
        Ok(Self { dirigent: dirigent.to_owned(), name, namespace, directory, daemon: None })
    }

    fn file(&self) -> String {
        self.directory.join("scale.toml").to_string_lossy().into_owned()
    }

    fn write(&self, text: &str) -> Result<(), String> {
        fs::write(self.file(), text).map_err(|e| format!("{}: {e}", self.file()))
    }

    fn instance(&self) -> Result<Instance, String> {
        Instance::new(&self.name).map_err(|e| e.to_string())
    }

    /// How long a command takes, in the director's namespace.
    fn seconds(&self, words: &[&str]) -> Result<f64, String> {
        let begun = Instant::now();
        let mut command = Command::new(&self.dirigent);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = self.namespace.spawn(&mut command).map_err(|e| e.to_string())?;
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(begun.elapsed().as_secs_f64()),
            false => Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Starts the daemon; seconds until it says that it is ready, as a service manager is told.
    fn start(&mut self) -> Result<f64, String> {
        let path = self.directory.join("scale.notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|e| e.to_string())?;
        let log = self.directory.join("scale.log");
        let output = fs::File::options().create(true).append(true).open(&log);
        let output = output.map_err(|e| format!("{}: {e}", log.display()))?;
        let mut command = Command::new(&self.dirigent);
        command
            .args(["run", "--config", &self.file()])
            .env("NOTIFY_SOCKET", &path)
            .env("STATE_DIRECTORY", &self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let begun = Instant::now();
        let mut child = self.namespace.spawn(&mut command).map_err(|e| e.to_string())?;
        let mut said = [0; 4096];
        loop {
            if let Ok(length) = socket.recv(&mut said)
                && String::from_utf8_lossy(said.get(..length).unwrap_or_default()).contains("READY=1")
            {
                break;
            }
            let ended = child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "the daemon is not ready: {}",
                    fs::read_to_string(&log).unwrap_or_default().trim()
                ));
            }
        }
        self.daemon = Some(child);
        Ok(begun.elapsed().as_secs_f64())
    }

    /// What the daemon takes of a CPU while nothing is asked of it, percent: over some of the looks at counters by which it knows rates.
    fn at_rest(&self) -> f64 {
        const REST: Duration = Duration::from_secs(6);
        let pid = self.daemon.as_ref().map_or(0, Child::id) as i32;
        let (before, begun) = (scheduled(pid), Instant::now());
        std::thread::sleep(REST);
        scheduled(pid).saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0
    }

    /// Ends the daemon; packets are directed on.
    fn end(&mut self) -> Result<(), String> {
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).map_err(|e| e.to_string())?;
        child.wait().map(drop).map_err(|e| e.to_string())
    }

    /// Megabytes of the daemon, by proc_pid_status(5).
    fn resident(&self, key: &str) -> Result<f64, String> {
        let pid = self.daemon.as_ref().map_or(0, Child::id);
        Ok(memory::bytes(&format!("/proc/{pid}/status"), key)? as f64 / 1e6)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.end();
        let gone = succeeds(Command::new(&self.dirigent).args(["--instance", &self.name, "stop", "--detach"]));
        let down = succeeds(Command::new(&self.dirigent).args(["lab", "down", "--name", &self.name]));
        for error in gone.err().into_iter().chain(down.err()) {
            eprintln!("scale: {error}");
        }
    }
}
