//! The end of a connection. A socket that is closed with something unread resets its peer, who then may lose the answer that
//! told him why the rest of his request was not wanted.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long the rest of a request is waited for, and how much of it.
const TIME: Duration = Duration::from_secs(1);
const BYTES: usize = 4 << 20;

/// A stream whose end waits for its peer's: what still comes is read and thrown away.
pub struct Lingering<S> {
    stream: S,
    /// Once this side has said that it is at its end.
    rest: Option<Rest>,
}

struct Rest {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> Lingering<S> {
    /// Lingers at its end.
    pub fn on(stream: S) -> Self {
        Self { stream, rest: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { stream, rest } = &mut *self;
        let rest = match rest {
            Some(rest) => rest,
            none => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                none.insert(Rest { until: Box::pin(tokio::time::sleep(TIME)), bytes: 0 })
            }
        };
        let mut scratch = [0; 8192];
        loop {
            if rest.bytes > BYTES || rest.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut into = ReadBuf::new(&mut scratch);
            // An error is an end, too.
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut into));
            if read.is_err() || into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            rest.bytes += into.filled().len();
        }
    }
}
