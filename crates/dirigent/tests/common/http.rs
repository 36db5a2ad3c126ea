//! Asks a daemon by its socket, as any program can.

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Null where it is no JSON.
    pub body: Value,
    /// The body as it is.
    pub text: String,
    /// What is said of it.
    pub content_type: String,
}

/// The control socket of a lab's daemon.
pub fn socket(lab: &str) -> String {
    format!("/run/dirigent/{lab}.sock")
}

/// Sends a request with exactly these bytes as its body.
pub fn send(socket: &str, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let length = body.len();
    exchange(socket, method, path, &format!("content-type: {content_type}\r\ncontent-length: {length}\r\n"), body)
}

/// Asks for something, in one of these formats.
pub fn get(socket: &str, path: &str, accept: &str) -> Answer {
    exchange(socket, "GET", path, &format!("accept: {accept}\r\n"), &[])
}

fn exchange(socket: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: dirigent\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is refused before it is read may not be taken.
    let _ = stream.write_all(body);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap_or_else(|e| panic!("{method} {path}: {e}: {}", String::from_utf8_lossy(&all)));
    let text = String::from_utf8_lossy(&all);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {text:?}"));
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let text =
        if head.to_lowercase().contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
    let content_type =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    let content_type = content_type.unwrap_or_default();
    let status = status.unwrap_or_else(|| panic!("{method} {path}: {head}"));
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::Null), text, content_type }
}

fn unchunked(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole += &after[..size];
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Sends JSON; null is no body.
pub fn ask(socket: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(socket, method, path, "application/json", body.as_bytes())
}
