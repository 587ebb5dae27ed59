//! The accept loop, with deadlines that hold below HTTP.
//!
//! A peer that stops reading stops its response body from being polled, so no check inside a body can end it: the
//! deadline on writes stands at the socket.

use std::collections::HashMap;
use std::future::Future as _;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rumqttc::tokio_rustls::TlsAcceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

use super::guard::Peer;
use crate::accept::Entrance;

/// Connections at once; one more is closed at once.
pub const MOST_CONNECTIONS: usize = 512;
/// Of one address, once half of all are open.
const MOST_OF_ONE: usize = 64;
/// For the head of a request, the wait for it included.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// For a peer to take some of what it is sent.
const WRITE_WITHIN: Duration = Duration::from_secs(15);

/// Serves until it is dropped, which closes every connection. Through `proxies` many come from one address.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, proxies: Vec<IpAddr>, router: Router) {
    let seats = Arc::new(Seats { proxies, taken: Mutex::default() });
    let mut connections = JoinSet::new();
    let mut entrance = Entrance::new(listener, "web");
    loop {
        let (stream, peer) = entrance.next().await;
        while connections.try_join_next().is_some() {}
        let Some(seat) = seats.take(peer.ip()) else {
            tracing::debug!("web: too many connections are open, closed one more from {peer}");
            continue;
        };
        let (router, tls) = (router.clone(), tls.clone());
        connections.spawn(async move {
            let _seat = seat;
            let Some(tls) = tls else { return serve(stream, peer, router).await };
            match timeout(HEAD_WITHIN, tls.accept(stream)).await {
                Ok(Ok(stream)) => serve(stream, peer, router).await,
                Ok(Err(error)) => tracing::debug!("web: no TLS with {peer}: {error}"),
                Err(_) => tracing::debug!("web: {peer} has not spoken TLS in time"),
            }
        });
    }
}

/// Who holds how many connections: nobody alone can hold all of them against the others.
struct Seats {
    proxies: Vec<IpAddr>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// One connection's place, until it is dropped.
struct Seat {
    of: Arc<Seats>,
    who: IpAddr,
}

impl Seats {
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let peer = peer.to_canonical();
        let who = one_household(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = taken.by.get(&who).copied().unwrap_or(0);
        let is_many = peer.is_loopback() || self.proxies.contains(&peer);
        let is_bounded = taken.all >= MOST_CONNECTIONS / 2 && !is_many;
        if taken.all == MOST_CONNECTIONS || is_bounded && held >= MOST_OF_ONE {
            return None;
        }
        taken.all += 1;
        *taken.by.entry(who).or_default() += 1;
        Some(Seat { of: Arc::clone(self), who })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(held) = taken.by.get_mut(&self.who) {
            *held -= 1;
            if *held == 0 {
                taken.by.remove(&self.who);
            }
        }
    }
}

/// Of IPv6 everybody has a network of 64 bits full of addresses.
fn one_household(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// One connection to its end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: SocketAddr, router: Router) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        hyper::service::Service::call(&TowerToHyperService::new(router.clone()), request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Timed::new(stream, WRITE_WITHIN)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("web: the connection from {peer} ended: {error}");
    }
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct Timed<S> {
    stream: S,
    within: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, deadline: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let within = self.within;
        ready!(self.deadline.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn nobody_alone_holds_every_connection_against_the_others() {
        let seats = Arc::new(Seats { proxies: vec!["10.0.0.9".parse().expect("an address")], taken: Mutex::default() });
        let take = |peer: &str, wanted: usize| -> Vec<Seat> {
            let peer = peer.parse().expect("an address");
            (0..wanted).map_while(|_| seats.take(peer)).collect()
        };
        // Who asks, how often, and how often it is let in: each goes on from the last.
        let mut held: Vec<Vec<Seat>> = Vec::new();
        for (peer, wanted, granted) in [
            ("192.0.2.1", 1_000, 256),
            ("192.0.2.2", 1_000, 64),
            ("::ffff:192.0.2.2", 1, 0),
            ("2001:db8::1", 40, 40),
            // The same household.
            ("2001:db8::ffff:1", 40, 24),
            ("2001:db8:0:1::1", 3, 3),
            ("10.0.0.9", 70, 70),
            ("127.0.0.1", 1_000, 55),
            ("192.0.2.3", 1, 0),
        ] {
            let seats = take(peer, wanted);
            assert_eq!(seats.len(), granted, "{peer}");
            held.push(seats);
        }
        // What ends makes room, and is remembered of nobody.
        held.clear();
        assert_eq!(take("192.0.2.2", 200).len(), 200);
        let taken = seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((taken.all, taken.by.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_is_let_go() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut timed = Timed::new(ours, Duration::from_millis(1));
        let error = timed.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_but_reads_is_kept() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut timed = Timed::new(ours, Duration::from_secs(60));
        let read = async { tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut [0; 64]).await };
        let (written, read) = tokio::join!(timed.write_all(&[0; 64]), read);
        assert!(written.is_ok() && read.is_ok());
        assert!(timed.deadline.is_none(), "each taken byte starts the wait afresh");
    }
}
