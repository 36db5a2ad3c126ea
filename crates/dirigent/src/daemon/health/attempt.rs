//! One attempt of a check: the sockets and programs of it. What an answer means is `dirigent_health::judge`'s.
//!
//! An attempt that is dropped ends at once, with its socket: the machine drops it when its time is over.

mod connect;
mod datagram;
mod evidence;
mod http;
mod tls;

use super::job::Job;
use super::scripts::Scripts;
use super::ways::Ways;
use connect::Stream;
use dirigent_config::health::Probe;
use dirigent_health::judge::{self, End};
use dirigent_health::{Outcome, Weight, Why};
pub use evidence::Late;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes that are read at once.
const PIECE: usize = 4096;
/// Longest text of a file, bytes: it is a number.
const LONGEST_FILE: u64 = 4096;

/// What attempts use.
#[derive(Clone)]
pub struct Tools {
    scripts: Scripts,
    ways: Ways,
    tls: tls::Connectors,
    late: Late,
}

impl Tools {
    /// For one runtime.
    pub fn new(scripts: Scripts, ways: Ways) -> Self {
        Self { scripts, ways, tls: tls::Connectors::default(), late: Late::default() }
    }
    /// For one attempt: if it ends by its timeout, `late` says more.
    pub fn with(&self, late: Late) -> Self {
        Self { late, ..self.clone() }
    }
}

/// Makes an attempt of the job, or of one part of it. How long it may take is its caller's to say.
pub async fn make(job: &Job, part: Option<u32>, tools: &Tools) -> Outcome {
    match &job.check.probe {
        Probe::Tcp => {
            let (_leave, stream) = connect::tcp(job, tools).await?;
            // A reset: without it each check would leave a socket in TIME_WAIT, ten thousand a second for a minute.
            let _ = stream.set_zero_linger();
            Ok(Weight::Keep)
        }
        Probe::Http(http) => http::make(job, http, part, tools).await,
        Probe::Smtp { helo } => {
            let (_leave, stream) = connect::tcp(job, tools).await?;
            converse(stream, judge::smtp::Exchange::new(helo)).await
        }
        Probe::Dns { name, record } => datagram::dns(job, name, *record, tools).await,
        Probe::Udp(udp) => datagram::udp(job, udp, tools).await,
        Probe::Ping => datagram::ping(job).await,
        Probe::Script { script, weight_from_exit } => {
            let exit = tools.scripts.run(script.clone(), job.check.pace.timeout).await?;
            judge::script::judge(exit, *weight_from_exit)
        }
        Probe::File { path, weight, reverse } => {
            let text = read(path).await?;
            judge::file::judge(text.as_deref(), *weight, *reverse)
        }
        // Its sessions tell; nobody asks for an attempt.
        Probe::Bfd(_) => Err(Why::of("BFD is not asked")),
    }
}

/// None: there is no such file.
async fn read(path: &str) -> Result<Option<Vec<u8>>, Why> {
    match tokio::fs::File::open(path).await {
        Ok(file) => {
            let mut text = Vec::new();
            let read = file.take(LONGEST_FILE).read_to_end(&mut text).await;
            read.map(|_| Some(text)).map_err(|e| Why::new(format!("{path}: {e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Why::new(format!("{path}: {e}"))),
    }
}

/// Speaks with a server until there is a verdict.
async fn converse(mut stream: impl Stream, mut exchange: impl judge::Stream) -> Outcome {
    let mut piece = [0; PIECE];
    loop {
        let output = exchange.output();
        if !output.is_empty()
            && let Err(e) = stream.write_all(&output).await
        {
            return Err(exchange.verdict().and_then(|v| v.clone().err()).unwrap_or_else(|| broken(&e)));
        }
        if let Some(verdict) = exchange.verdict() {
            return verdict.clone();
        }
        match stream.read(&mut piece).await {
            Ok(0) => exchange.on_end(End::Clean),
            Ok(length) => exchange.on_bytes(piece.get(..length).unwrap_or_default()),
            Err(e) if is_cut(&e) => exchange.on_end(End::Cut),
            Err(e) => return Err(broken(&e)),
        }
    }
}

/// A connection that was there is not any more.
fn broken(error: &std::io::Error) -> Why {
    Why::new(match error.kind() {
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "closed without close_notify".to_owned(),
        _ => error.to_string(),
    })
}

/// TLS ended with its connection, without a word: rustls tells it so.
fn is_cut(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::UnexpectedEof
}
