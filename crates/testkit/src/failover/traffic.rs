//! Real clients and servers: long transfers that a failover may break, and beside them short requests, one after the
//! other, that say how long nobody answered.

use dirigent_net::netns::Namespace;
use std::io;
use std::net::{SocketAddr, TcpListener as Listener};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The first byte of a connection: everything after it comes back until the client ends.
const TRANSFER: u8 = b'T';
/// One question of [`QUESTION`] bytes, one answer; then the server closes.
const REQUEST: u8 = b'R';
const QUESTION: usize = 8;
/// A transfer sends so much...
const CHUNK: usize = 2048;
/// ... so often.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a transfer has to come back whole after its last byte was sent: retransmissions that a failover doubled.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// The servers of one host, until dropped.
pub struct Servers {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Listens on these ports of all addresses, of both families.
    pub fn start(namespace: &str, ports: &[u16]) -> Self {
        let listeners: Vec<_> = Namespace::open(namespace)
            .and_then(|n| n.run(|| ports.iter().map(|port| Listener::bind(("::", *port))).collect()))
            .expect("a namespace");
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                for listener in listeners {
                    let listener: Listener = listener.expect("a free port");
                    listener.set_nonblocking(true).expect("a socket");
                    tasks.spawn(accept(TcpListener::from_std(listener).expect("a socket")));
                }
                ended(stopped).await;
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            // Such as too many open files: it passes.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    match stream.read_u8().await? {
        TRANSFER => {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await?;
        }
        _ => {
            let mut question = [0; QUESTION];
            stream.read_exact(&mut question).await?;
            stream.write_all(&question).await?;
        }
    }
    stream.shutdown().await
}

/// Whom clients ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// For the report.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
}

/// What clients do to each target.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Long transfers at once.
    pub transfers: usize,
    /// One short request so often.
    pub every: Duration,
    /// A request that takes longer is lost.
    pub patience: Duration,
}

/// What became of a target's clients.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The target's.
    pub name: String,
    /// Long transfers that came back whole, and in order.
    pub survived: usize,
    /// Why others did not.
    pub broken: Vec<String>,
    /// When each request began, in their order, and whether it was answered in time.
    pub requests: Vec<(Instant, bool)>,
}

impl Outcome {
    /// Long transfers.
    pub fn transfers(&self) -> usize {
        self.survived + self.broken.len()
    }

    /// Requests without an answer in time.
    pub fn lost(&self) -> usize {
        self.requests.iter().filter(|(_, answered)| !answered).count()
    }

    /// The longest time from one answered request's beginning to the next one's.
    pub fn longest_pause(&self) -> Duration {
        let ends = [self.requests.first(), self.requests.last()].into_iter().flatten().map(|(at, _)| *at);
        let answered = self.requests.iter().filter(|(_, answered)| *answered).map(|(at, _)| *at);
        let mut times: Vec<_> = ends.chain(answered).collect();
        times.sort();
        times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }
}

/// Clients at work.
pub struct Load {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Vec<Outcome>>,
}

impl Load {
    /// Begins; when this returns every transfer is connected.
    pub fn start(namespace: &str, targets: Vec<Target>, plan: Plan) -> Self {
        let namespace = Namespace::open(namespace).expect("a namespace");
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            namespace.run(|| runtime().block_on(clients(targets, plan, stopped, ready))).expect("a namespace")
        });
        // An error shows when it is joined.
        let _ = is_ready.recv();
        Self { stop, thread }
    }

    /// Ends the transfers, and says what came of all.
    pub fn stop(self) -> Vec<Outcome> {
        let _ = self.stop.send(true);
        self.thread.join().expect("the clients' thread")
    }
}

async fn clients(
    targets: Vec<Target>,
    plan: Plan,
    stopped: watch::Receiver<bool>,
    ready: mpsc::Sender<()>,
) -> Vec<Outcome> {
    let mut all = Vec::new();
    for Target { name, address } in targets {
        let mut transfers = JoinSet::new();
        for _ in 0..plan.transfers {
            let stream = timeout(Duration::from_secs(5), TcpStream::connect(address)).await;
            let stopped = stopped.clone();
            transfers.spawn(async move {
                match stream {
                    Ok(Ok(stream)) => transfer(stream, stopped).await.map_err(|e| e.to_string()),
                    Ok(Err(error)) => Err(format!("connecting: {error}")),
                    Err(_) => Err("it was never connected".to_owned()),
                }
            });
        }
        all.push((name, address, transfers));
    }
    let requests: Vec<_> = all.iter().map(|(_, at, _)| tokio::spawn(requests(*at, plan, stopped.clone()))).collect();
    let _ = ready.send(());
    let mut outcomes = Vec::new();
    for ((name, _, mut transfers), requests) in all.into_iter().zip(requests) {
        let requests = requests.await.expect("a task");
        let (mut survived, mut broken) = (0, Vec::new());
        while let Some(done) = transfers.join_next().await {
            match done.expect("a task") {
                Ok(()) => survived += 1,
                Err(why) => broken.push(why),
            }
        }
        outcomes.push(Outcome { name, survived, broken, requests });
    }
    outcomes
}

/// The byte at a place of every transfer.
fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

async fn transfer(stream: TcpStream, stopped: watch::Receiver<bool>) -> io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let writer = async {
        let (mut sent, mut chunk) = (0, [0; CHUNK]);
        to.write_u8(TRANSFER).await?;
        while !*stopped.borrow() {
            chunk.iter_mut().enumerate().for_each(|(n, byte)| *byte = pattern(sent + n));
            to.write_all(&chunk).await?;
            sent += CHUNK;
            sleep(PAUSE).await;
        }
        to.shutdown().await?;
        io::Result::Ok(sent)
    };
    let reader = async {
        let (mut got, mut buffer) = (0, [0; CHUNK]);
        loop {
            let n = from.read(&mut buffer).await?;
            if n == 0 {
                return Ok(got);
            }
            if !buffer.iter().take(n).enumerate().all(|(at, byte)| *byte == pattern(got + at)) {
                return Err(io::Error::other(format!("other bytes came back after {got}")));
            }
            got += n;
        }
    };
    let patience = async {
        ended(stopped.clone()).await;
        sleep(LAST_WORDS).await;
    };
    tokio::select! {
        both = async { tokio::try_join!(writer, reader) } => {
            let (sent, got) = both?;
            if sent == got { Ok(()) } else { Err(io::Error::other(format!("{got} bytes of {sent} came back"))) }
        }
        () = patience => Err(io::Error::other("it hung")),
    }
}

async fn requests(address: SocketAddr, plan: Plan, stopped: watch::Receiver<bool>) -> Vec<(Instant, bool)> {
    let mut tasks = JoinSet::new();
    let mut clock = interval(plan.every);
    // Of a client that was late, not a burst of what it missed.
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !*stopped.borrow() {
        clock.tick().await;
        tasks.spawn(async move {
            let begun = Instant::now();
            let answered = timeout(plan.patience, request(address)).await;
            (begun, matches!(answered, Ok(Ok(()))))
        });
    }
    let mut all = tasks.join_all().await;
    all.sort();
    all
}

async fn request(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let question: [u8; 1 + QUESTION] = *b"Rquestion";
    debug_assert!(question.starts_with(&[REQUEST]));
    stream.write_all(&question).await?;
    let mut answer = Vec::new();
    // To its end: the server closes first, and the client's port is free again.
    stream.read_to_end(&mut answer).await?;
    if question.ends_with(&answer) && answer.len() == QUESTION { Ok(()) } else { Err(io::Error::other("cut short")) }
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    // Whoever could say it has gone: that is an end, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
