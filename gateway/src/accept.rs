//! Taking connections, also when there is no file handle left for one.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{error, info};

/// Between two attempts: connections that are open must be closed first.
const AGAIN: Duration = Duration::from_millis(200);

/// A listener that says once that it cannot take connections, and once that it can again.
#[derive(Debug)]
pub struct Entrance {
    listener: TcpListener,
    /// `web`, `http:cloud`: who says so.
    of: String,
    failed: bool,
}

impl Entrance {
    pub fn new(listener: TcpListener, of: impl Into<String>) -> Self {
        Self { listener, of: of.into(), failed: false }
    }

    /// The next connection. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    if std::mem::take(&mut self.failed) {
                        info!("{}: takes connections again", self.of);
                    }
                    return accepted;
                }
                Err(problem) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        error!("{}: cannot take a connection: {problem}; it is tried again", self.of);
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }
}
