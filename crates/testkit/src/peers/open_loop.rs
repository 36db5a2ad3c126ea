//! Requests at a fixed rate, whatever becomes of those before: a request that had to wait for a connection was late from the
//! moment at which it was due. So a stall shows in all requests that it held up, not in one (no coordinated omission).

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// How long what is under way may take after the last request was due.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Nobody waits longer to connect.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that is told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Whom.
    pub to: SocketAddr,
    /// Requests a second.
    pub rate: f64,
    /// Connections, open throughout.
    pub connections: usize,
    /// How long.
    pub time: Duration,
}

/// How long answers took.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Nanoseconds from when a request was due to the end of its answer.
    pub histogram: Histogram<u64>,
    /// Requests without an answer.
    pub lost: u64,
}

impl Latencies {
    /// Microseconds within which so many of a hundred requests were answered.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.histogram.value_at_percentile(percent) as f64 / 1000.0
    }
}

struct Connection {
    stream: TcpStream,
    /// When the request that is under way was due.
    due: Option<Duration>,
    answer: Vec<u8>,
}

/// Asks by HTTP/1.1, on the calling thread and in its network namespace.
pub fn run(plan: &Plan) -> io::Result<Latencies> {
    // The kernel may else be 50 µs late.
    set_timerslack(1)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", plan.to);
    let mut connections: Vec<_> =
        (0..plan.connections).map(|_| Connection::open(plan.to)).collect::<io::Result<_>>()?;
    let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3).map_err(io::Error::other)?;
    let mut idle: VecDeque<usize> = (0..connections.len()).collect();
    let total = (plan.rate * plan.time.as_secs_f64()) as u32;
    let due = |n: u32| Duration::from_secs_f64(f64::from(n) / plan.rate);
    let (begun, mut next) = (Instant::now(), 0);
    while begun.elapsed() < plan.time + LAST_WORDS && (next < total || idle.len() < connections.len()) {
        while next < total && due(next) <= begun.elapsed() {
            let Some(at) = idle.pop_front() else { break };
            connections[at].ask(&request, due(next))?;
            next += 1;
        }
        let sleep = if next < total && !idle.is_empty() {
            due(next).saturating_sub(begun.elapsed())
        } else {
            Duration::from_millis(10)
        };
        for at in readable(&connections, sleep)? {
            if let Some(due) = connections[at].read()? {
                let took = begun.elapsed().saturating_sub(due).as_nanos();
                histogram.saturating_record(took.try_into().unwrap_or(LONGEST));
                idle.push_back(at);
            }
        }
    }
    let lost = u64::from(total) - histogram.len();
    Ok(Latencies { histogram, lost })
}

/// Those with something to read, or none after a while.
fn readable(connections: &[Connection], sleep: Duration) -> io::Result<Vec<usize>> {
    let busy: Vec<_> = (0..connections.len()).filter(|at| connections[*at].due.is_some()).collect();
    let mut fds: Vec<_> =
        busy.iter().map(|at| PollFd::new(connections[*at].stream.as_fd(), PollFlags::POLLIN)).collect();
    ppoll(&mut fds, Some(sleep.into()), None)?;
    let ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
    Ok(busy.iter().zip(ready).filter(|(_, ready)| *ready).map(|(at, _)| *at).collect())
}

impl Connection {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: None, answer: Vec::with_capacity(4096) })
    }

    fn ask(&mut self, request: &str, due: Duration) -> io::Result<()> {
        // Nothing is under way, so there is room for it.
        self.stream.write_all(request.as_bytes())?;
        self.due = Some(due);
        Ok(())
    }

    /// When the request was due, once its answer is whole.
    fn read(&mut self) -> io::Result<Option<Duration>> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")),
            Ok(length) => self.answer.extend_from_slice(&part[..length]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
        if !is_whole(&self.answer)? {
            return Ok(None);
        }
        self.answer.clear();
        Ok(self.due.take())
    }
}

/// Whether an answer is all there: its head, and as much after it as that says.
fn is_whole(answer: &[u8]) -> io::Result<bool> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200 ") {
        return Err(io::Error::other(format!("an answer that was not asked for: {text}")));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("an answer without its length"))?;
    Ok(answer.len() >= head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 8\r\n\r\nserver1\n";
        for length in 0..answer.len() {
            assert!(!is_whole(&answer[..length]).unwrap(), "{length}");
        }
        assert!(is_whole(answer).unwrap());
        assert!(is_whole(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    /// One answer is held back for 200 ms: with 500 requests a second and one connection a hundred of them were late, and half
    /// of those by more than 100 ms. A client that waits for each answer would have told of one.
    #[test]
    fn a_stall_is_told_of_every_request_that_it_held_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 512];
            for n in 0.. {
                if stream.read(&mut request).unwrap_or(0) == 0 {
                    break;
                }
                if n == 50 {
                    std::thread::sleep(Duration::from_millis(200));
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").unwrap();
            }
        });
        let time = Duration::from_millis(1000);
        let answered = run(&Plan { to, rate: 500.0, connections: 1, time }).unwrap();
        server.join().unwrap();
        assert_eq!((answered.histogram.len(), answered.lost), (500, 0));
        let late = |ms: u64| answered.histogram.iter_recorded().filter(move |v| v.value_iterated_to() > ms * 1_000_000);
        let count = |ms| late(ms).map(|v| v.count_since_last_iteration()).sum::<u64>();
        assert!(count(100) >= 45, "{}", count(100));
        assert!(answered.percentile_us(99.9) >= 195_000.0, "{}", answered.percentile_us(99.9));
    }
}
