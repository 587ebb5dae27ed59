//! Whether a peer can be reached, and by TLS believed. It says nothing to it that a broker or an office would count.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::{Finding, Grade, certificate};
use crate::certificate::{Ends, end};
use crate::clock::Clock;
use crate::config::outside::Peer;
use crate::delivery::influx::{self, Tried};
use crate::outgoing::Outgoing;

/// For a connection, and then for a word.
const WITHIN: Duration = Duration::from_secs(3);

/// All peers at once, those that `outgoing` lists. Of `databases` each is asked whether it would take readings, too.
pub fn all(peers: &[Peer], databases: &[influx::Settings], outgoing: &Outgoing) -> Vec<Finding> {
    thread::scope(|scope| {
        let ask = |peer: &Peer| {
            let found = one(peer, outgoing);
            let database = databases.iter().find(|settings| peer.of == format!("[[influx]] {}", settings.id));
            match database {
                Some(settings) if found.grade != Grade::Ill => database_of(&peer.of, settings, found),
                _ => found,
            }
        };
        let asked: Vec<_> = peers.iter().map(|peer| scope.spawn(move || ask(peer))).collect();
        asked.into_iter().filter_map(|asked| asked.join().ok()).collect()
    })
}

fn one(peer: &Peer, outgoing: &Outgoing) -> Finding {
    let of = peer.of.as_str();
    // The address of a robot is a secret: of all addresses only host and port are said.
    let Ok(url) = url::Url::parse(&peer.url) else {
        return Finding::new(of, Grade::Ill, "地址无效", "its address is none").next("anmin check", "anmin check");
    };
    let (secure, usual) = match url.scheme() {
        "https" => (true, 443),
        "http" => (false, 80),
        "mqtts" => (true, 8_883),
        "smtps" => (true, 465),
        // What it speaks once it is asked for TLS is tried with the first message.
        "smtp" => (false, 587),
        _ => (false, 1_883),
    };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = url.port().unwrap_or(usual);
    if secure { tls(of, host, port, peer, outgoing) } else { tcp(of, host, port, outgoing) }
}

/// What a database says; where it is well, what was found of the way to it.
fn database_of(of: &str, settings: &influx::Settings, found: Finding) -> Finding {
    let tried = super::daemon::runtime().and_then(|runtime| runtime.block_on(influx::probe(settings)));
    let ill =
        |zh: &str, en: &str, why: String| Finding::new(of, Grade::Ill, format!("{zh}：{why}"), format!("{en}: {why}"));
    match tried {
        Ok(Tried::Taken) => found,
        Ok(Tried::Denied(why)) => ill("数据库不接受令牌", "the database does not accept the token", why).next(
            "检查 token_file 中的令牌，及其对该 bucket 的写入权限",
            "look at the token in token_file, and whether it may write to the bucket",
        ),
        Ok(Tried::Unknown(why)) => {
            ill("数据库中没有该 bucket 或组织", "the database knows no such bucket or organisation", why)
                .next("检查 url、org 和 bucket", "look at url, org and bucket")
        }
        Ok(Tried::Odd(why)) => ill("对方不像时序数据库那样应答", "it does not answer as a database", why)
            .next("检查 url；查看数据库的日志", "look at url, and at the database's own log"),
        Ok(Tried::Silent(why)) => ill("已连接，但没有应答", "it is there and does not answer", why)
            .next("检查 url；查看数据库的日志", "look at url, and at the database's own log"),
        Err(why) => ill("无法询问", "it cannot be asked", why).next("anmin check", "anmin check"),
    }
}

fn connect(host: &str, port: u16, outgoing: &Outgoing) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in outgoing.keep(host, (host, port).to_socket_addrs()?)? {
        match TcpStream::connect_timeout(&address, WITHIN) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(of: &str, host: &str, port: u16, error: &io::Error) -> Finding {
    let next = format!("ping {host}");
    Finding::new(of, Grade::Ill, format!("{host}:{port} 无法连接：{error}"), format!("{host}:{port}: {error}")).next(
        format!("检查地址、电源、网线和防火墙；{next}"),
        format!("look at address, power, cable and firewall; {next}"),
    )
}

/// Whether something listens there.
pub fn tcp(of: &str, host: &str, port: u16, outgoing: &Outgoing) -> Finding {
    match connect(host, port, outgoing) {
        Ok(_) => Finding::new(of, Grade::Well, format!("{host}:{port} 可连接"), format!("{host}:{port} answers")),
        Err(error) => unreachable(of, host, port, &error),
    }
}

fn tls(of: &str, host: &str, port: u16, peer: &Peer, outgoing: &Outgoing) -> Finding {
    let stream = match connect(host, port, outgoing) {
        Ok(stream) => stream,
        Err(error) => return unreachable(of, host, port, &error),
    };
    let spoken = || -> Result<Option<jiff::Timestamp>, String> {
        let config = peer.tls.config(true)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(WITHIN)).map_err(|error| error.to_string())?;
        }
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        let end = stream.conn.peer_certificates().and_then(|chain| end(chain.first()?));
        stream.conn.send_close_notify();
        // Whoever has gone already was polite enough.
        let _ = stream.flush();
        Ok(end)
    };
    let what = format!("{host}:{port}");
    match spoken() {
        Ok(Some(end)) => certificate::judge(of, &what, Ends::at(end), false, Clock::system().now().wall),
        Ok(None) => Finding::new(of, Grade::Well, format!("{what} 可连接"), format!("{what} answers")),
        Err(why) => Finding::new(of, Grade::Ill, format!("{what} TLS 失败：{why}"), format!("{what}: TLS: {why}"))
            .next("检查证书、tls_ca 和本机时间", "look at its certificate, at tls_ca and at the clock of this machine"),
    }
}
