//! The bytes of a line in both directions: what came is kept for a look, and what is no answer is taken out before the master
//! sees it.
//!
//! In this order: heartbeats of devices that dial in, frames in hexadecimal digits (ASCII), which become such of RTU and back, and
//! the echo of adapters that hear themselves. It does not know what a frame means.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use anmin_sensors::decode::modbus::crc16;
use anmin_sensors::decode::modbus_ascii;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_serial::SerialStream;

/// What is heard and not thrown away, at most.
const MOST_HEARD: usize = 1_024;

#[derive(Debug)]
pub enum Wire {
    Tcp(TcpStream),
    Serial(SerialStream),
}

impl Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Serial(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Serial(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// Frames in hexadecimal digits on the wire, RTU frames towards the master.
#[derive(Debug, Default)]
struct Ascii {
    reader: modbus_ascii::Reader,
    /// Characters that the wire has not taken yet.
    outbox: VecDeque<u8>,
}

/// The wire, and what came over it since the last request; at most 1 KiB is kept. Adapters that hear themselves give
/// every request back: such an echo is taken out here, since the master would read it as the start of an answer.
#[derive(Debug)]
struct Tapped<W> {
    wire: W,
    heard: Vec<u8>,
    /// What a device that dialled in says by itself: its heartbeat and its registration. Only where a frame may begin.
    beats: Arc<[Vec<u8>]>,
    /// The start of one of them.
    begun: Vec<u8>,
    beaten: u64,
    ascii: Option<Ascii>,
    /// The request, until it is known whether it comes back.
    echo: Vec<u8>,
    /// So many bytes of it have come and are kept back.
    echoed: usize,
    /// What has come and is not read yet.
    inbox: VecDeque<u8>,
}

impl<W> Tapped<W> {
    fn new(wire: W, is_ascii: bool, beats: Arc<[Vec<u8>]>) -> Self {
        Self {
            wire,
            heard: Vec::new(),
            beats,
            begun: Vec::new(),
            beaten: 0,
            ascii: is_ascii.then(Ascii::default),
            echo: Vec::new(),
            echoed: 0,
            inbox: VecDeque::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let is_inside = self.ascii.as_ref().is_some_and(|ascii| ascii.reader.is_inside());
            let may_begin = self.heard.is_empty() && self.echoed == 0 && !is_inside;
            if !self.begun.is_empty() || may_begin {
                self.begun.push(*byte);
                if self.beats.contains(&self.begun) {
                    self.begun.clear();
                    self.beaten += 1;
                } else if !self.beats.iter().any(|beat| beat.starts_with(&self.begun)) {
                    let begun = std::mem::take(&mut self.begun);
                    begun.into_iter().for_each(|byte| self.take_character(byte));
                }
            } else {
                self.take_character(*byte);
            }
        }
    }

    fn take_character(&mut self, character: u8) {
        let Some(ascii) = &mut self.ascii else { return self.take_byte(character) };
        let Some(frame) = ascii.reader.take(character) else { return };
        let check = frame.as_ref().map_or_else(|damaged| !crc16(damaged), |frame| crc16(frame));
        let (Ok(bytes) | Err(bytes)) = frame;
        bytes.into_iter().chain(check.to_le_bytes()).for_each(|byte| self.take_byte(byte));
    }

    fn take_byte(&mut self, byte: u8) {
        if self.echo.get(self.echoed) == Some(&byte) {
            self.echoed += 1;
            if self.echoed == self.echo.len() {
                self.expect(&[]);
            }
            return;
        }
        // It is no echo: what was kept back belongs to an answer.
        let held = self.echo[..self.echoed].to_vec();
        self.expect(&[]);
        for byte in held.into_iter().chain([byte]) {
            self.inbox.push_back(byte);
            if self.heard.len() < MOST_HEARD {
                self.heard.push(byte);
            }
        }
    }

    fn expect(&mut self, echo: &[u8]) {
        self.echo = echo.to_vec();
        self.echoed = 0;
    }
}

/// What the master reads of what comes in these pieces once `request` has gone out, and how many heartbeats were in it.
pub fn untangled<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    is_ascii: bool,
    beats: &Arc<[Vec<u8>]>,
    request: &[u8],
) -> (Vec<u8>, u64) {
    let mut tapped = Tapped::new((), is_ascii, Arc::clone(beats));
    tapped.expect(request);
    pieces.into_iter().for_each(|bytes| tapped.take(bytes));
    (tapped.inbox.into(), tapped.beaten)
}

impl Tapped<Wire> {
    /// Hands characters to the wire until it has them all.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, ascii: Some(Ascii { outbox, .. }), .. } = self else { return Poll::Ready(Ok(())) };
        while !outbox.is_empty() {
            match ready!(wire.poll_write(cx, outbox.make_contiguous()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => drop(outbox.drain(..taken)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A handle on the wire; clones share it. One of them is read at a time.
#[derive(Clone, Debug)]
pub struct Line(Arc<Mutex<Tapped<Wire>>>);

impl Line {
    /// With `is_ascii` what is written is taken for RTU frames, one a write. `beats` are taken out where they stand between
    /// answers.
    pub fn new(wire: Wire, is_ascii: bool, beats: Arc<[Vec<u8>]>) -> Self {
        Self(Arc::new(Mutex::new(Tapped::new(wire, is_ascii, beats))))
    }

    fn tapped(&self) -> MutexGuard<'_, Tapped<Wire>> {
        // Nothing under this lock panics halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn heard<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.tapped().heard)
    }

    pub fn heard_clear(&self) {
        let mut tapped = self.tapped();
        tapped.heard.clear();
        tapped.expect(&[]);
        if let Some(ascii) = &mut tapped.ascii {
            ascii.reader.clear();
        }
    }

    /// Heartbeats so far.
    pub fn beaten(&self) -> u64 {
        self.tapped().beaten
    }

    pub fn expect_echo(&self, request: &[u8]) {
        self.tapped().expect(request);
    }

    /// Reads what is there already, without waiting; gives the number of bytes.
    pub async fn swallow(&mut self) -> io::Result<usize> {
        let mut all = 0;
        loop {
            let mut bytes = [0; 256];
            let read = poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut bytes);
                Poll::Ready(match Pin::new(&mut *self).poll_read(cx, &mut buf) {
                    Poll::Pending => Ok(None),
                    Poll::Ready(Ok(())) => Ok(Some(buf.filled().len())),
                    Poll::Ready(Err(error)) => Err(error),
                })
            });
            match read.await? {
                None => return Ok(all),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(n) => all += n,
            }
        }
    }

    /// Waits for at least one byte, which is heard and thrown away.
    pub async fn readable(&mut self) -> io::Result<()> {
        let mut byte = [0];
        match self.read(&mut byte).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut tapped = self.tapped();
        while tapped.inbox.is_empty() {
            let mut bytes = [0; 256];
            let mut new = ReadBuf::new(&mut bytes);
            ready!(tapped.wire.poll_read(cx, &mut new))?;
            if new.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            tapped.take(new.filled());
        }
        let count = tapped.inbox.len().min(buf.remaining());
        tapped.inbox.drain(..count).for_each(|byte| buf.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut tapped = self.tapped();
        let Some(ascii) = &mut tapped.ascii else { return tapped.wire.poll_write(cx, bytes) };
        // Without the CRC, in whose place the LRC stands.
        let frame = &bytes[..bytes.len().saturating_sub(2)];
        ascii.outbox.extend(modbus_ascii::write(frame));
        match tapped.poll_send(cx) {
            // What is left goes with the flush.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut tapped = self.tapped();
        ready!(tapped.poll_send(cx))?;
        match &mut tapped.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            // `SerialStream`'s own flush waits in the kernel until the last bit is out, and the thread with it.
            Wire::Serial(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tapped().wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Serial(_) => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: &[u8] = &[1, 3, 0xF0, 0x15, 0, 1, 0xA6, 0xCE];
    const ANSWER: &[u8] = &[1, 3, 2, 0, 7, 0xF9, 0x86];

    /// What the master reads of `bytes`, which come in pieces of whatever size.
    fn check(bytes: &[u8], is_ascii: bool, beats: &[&[u8]], wanted: &[u8]) -> u64 {
        let beats: Arc<[Vec<u8>]> = beats.iter().map(|beat| beat.to_vec()).collect();
        let read = [1, 2, 3, 256].map(|chunk| {
            let mut tapped = Tapped::new((), is_ascii, Arc::clone(&beats));
            tapped.expect(ASK);
            bytes.chunks(chunk).for_each(|bytes| tapped.take(bytes));
            assert_eq!(tapped.heard, wanted, "{bytes:02X?} in chunks of {chunk}");
            let (read, beaten) = untangled(bytes.chunks(chunk), is_ascii, &beats, ASK);
            assert_eq!(read, wanted, "{bytes:02X?} in chunks of {chunk}");
            beaten
        });
        assert!(read.iter().all(|beaten| *beaten == read[0]));
        read[0]
    }

    #[test]
    fn an_echo_of_the_request_is_no_part_of_the_answer() {
        let begins_alike: &[u8] = &[1, 3, 0xF0, 0x15, 9];
        for (bytes, wanted) in [
            (ANSWER.to_vec(), ANSWER.to_vec()),
            ([ASK, ANSWER].concat(), ANSWER.to_vec()),
            ([ASK, ASK, ANSWER].concat(), [ASK, ANSWER].concat()),
            (begins_alike.to_vec(), begins_alike.to_vec()),
            (ASK[..5].to_vec(), Vec::new()),
            ([&[0xFF], ASK, ANSWER].concat(), [&[0xFF], ASK, ANSWER].concat()),
        ] {
            check(&bytes, false, &[], &wanted);
        }
    }

    #[test]
    fn a_heartbeat_before_an_answer_is_no_part_of_it_and_one_inside_is_left_to_the_check() {
        let beats: &[&[u8]] = &[b"HB", b"DTU-7", &[1, 3, 9, 9]];
        for (bytes, wanted, beaten) in [
            (ANSWER.to_vec(), ANSWER.to_vec(), 0),
            ([b"HB", ANSWER].concat(), ANSWER.to_vec(), 1),
            ([b"HBDTU-7HB", ANSWER].concat(), ANSWER.to_vec(), 3),
            // Begins like a heartbeat, as an answer may.
            ([b"HX", ANSWER].concat(), [b"HX", ANSWER].concat(), 0),
            ([b"HB", &ANSWER[..3], b"HB", &ANSWER[3..]].concat(), [&ANSWER[..3], b"HB", &ANSWER[3..]].concat(), 1),
            // An answer that ends like the start of a heartbeat is whole all the same.
            ([&ANSWER[..6], b"H"].concat(), [&ANSWER[..6], b"H"].concat(), 0),
            (b"H".to_vec(), Vec::new(), 0),
        ] {
            assert_eq!(check(&bytes, false, beats, &wanted), beaten, "{bytes:02X?}");
        }
    }

    #[test]
    fn frames_in_digits_reach_the_master_as_bytes_and_damaged_ones_with_a_wrong_check() {
        let characters = modbus_ascii::write(&ANSWER[..5]);
        let echo = modbus_ascii::write(&ASK[..6]);
        check(&characters, true, &[], ANSWER);
        check(&[&echo[..], &characters].concat(), true, &[], ANSWER);
        check(&[b"\x00xyHB", &characters[..]].concat(), true, &[], ANSWER);
        assert_eq!(check(&[b"HB", &characters[..]].concat(), true, &[b"HB"], ANSWER), 1);
        let mut damaged = characters;
        damaged[8] ^= 1;
        let bytes = [1, 3, 2, 1, 7];
        check(&damaged, true, &[], &[&bytes[..], &(!crc16(&bytes)).to_le_bytes()].concat());
    }
}
