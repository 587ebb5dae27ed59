//! Simulated Modbus slaves over TCP, serial frames over TCP, a pseudo-terminal or a call to whoever reads them, driven by a table of
//! registers.
//!
//! Whoever plays a scenario writes into [`Registers`]; the slaves answer from it. A unit that is not in the table, or
//! that has been silenced, does not answer at all, as on a real line. No root and no other program is needed: the
//! pseudo-terminal is made in this process. It is for simulation and tests and knows no writes.

use std::collections::{BTreeMap, HashMap};
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anmin_sensors::decode::modbus::{MAX_BITS, MAX_WORDS, Pdu, Register, Table, Unit, crc16};
use anmin_sensors::decode::modbus_ascii;
use anmin_sensors::reading::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_modbus::prelude::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_modbus::server::{Service, tcp};
use tokio_serial::{SerialPort as _, SerialPortBuilderExt as _, SerialStream};

use crate::intake::modbus::Framing;

/// Between two calls.
const REDIAL: Duration = Duration::from_millis(500);

/// What the slaves hold, by unit, table and address. A coil or discrete input is 0 or 1.
#[derive(Debug, Default)]
pub struct Registers {
    units: HashMap<u8, Slave>,
}

/// Shared by the slaves that answer from it and whoever moves the values.
pub type SharedRegisters = Arc<RwLock<Registers>>;

#[derive(Debug, Default)]
struct Slave {
    values: BTreeMap<(Table, u16), u16>,
    silent: bool,
}

impl Registers {
    pub fn shared() -> SharedRegisters {
        Arc::default()
    }

    /// Adds a unit with all registers of a profile, each 0.
    pub fn add_unit(&mut self, unit: u8, profile: &Unit) {
        let slave = self.units.entry(unit).or_default();
        for register in profile.registers.iter().flatten() {
            for address in register.address..=register.address.saturating_add(register.count - 1) {
                slave.values.insert((register.table, address), 0);
            }
        }
    }

    /// Sets one raw register, adding the unit where it was not there.
    pub fn set(&mut self, unit: u8, table: Table, address: u16, raw: u16) {
        self.units.entry(unit).or_default().values.insert((table, address), raw);
    }

    /// Sets the registers that read as `value`; false when this register cannot.
    pub fn put(&mut self, unit: u8, register: &Register, value: &Value) -> bool {
        let slave = self.units.entry(unit).or_default();
        let places = (0..register.count).map(|n| (register.table, register.address.saturating_add(n)));
        let now: Vec<u16> = places.clone().map(|place| slave.values.get(&place).copied().unwrap_or(0)).collect();
        let Some(words) = register.encode(value, &now) else { return false };
        slave.values.extend(places.zip(words));
        true
    }

    /// A silenced unit keeps its values and does not answer.
    pub fn silence(&mut self, unit: u8, silent: bool) {
        self.units.entry(unit).or_default().silent = silent;
    }

    /// What the unit says: `None` is silence. Registers between two known ones read as 0; outside is exception 02.
    fn read(&self, unit: u8, table: Table, address: u16, count: u16) -> Option<Result<Vec<u16>, ExceptionCode>> {
        let slave = self.units.get(&unit).filter(|slave| !slave.silent)?;
        if !(1..=if table.is_bits() { MAX_BITS } else { MAX_WORDS }).contains(&count) {
            return Some(Err(ExceptionCode::IllegalDataValue));
        }
        let mut all = slave.values.range((table, 0)..=(table, u16::MAX)).map(|((_, at), _)| *at);
        let (first, last) = match (all.next(), all.next_back()) {
            (None, _) => return Some(Err(ExceptionCode::IllegalFunction)),
            (Some(only), None) => (only, only),
            (Some(first), Some(last)) => (first, last),
        };
        let end = u32::from(address) + u32::from(count);
        if address < first || end > u32::from(last) + 1 {
            return Some(Err(ExceptionCode::IllegalDataAddress));
        }
        Some(Ok((address..=address + (count - 1))
            .map(|at| slave.values.get(&(table, at)).copied().unwrap_or(0))
            .collect()))
    }
}

/// Running slaves; they stop when this is dropped.
#[derive(Debug)]
pub struct ModbusSlaves {
    place: Place,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Place {
    Tcp(SocketAddr),
    Serial(PathBuf),
}

impl ModbusSlaves {
    /// Serves all units of the table over Modbus TCP; port 0 takes a free one.
    pub async fn tcp(address: SocketAddr, table: SharedRegisters) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let place = Place::Tcp(listener.local_addr()?);
        let server = tcp::Server::new(listener);
        let task = tokio::spawn(async move {
            let on_connected = |stream: TcpStream, _| {
                let service = TcpService(Arc::clone(&table));
                // Small answers must not wait for more; a stream that refuses the option still works.
                let _ = stream.set_nodelay(true);
                ready(Ok(Some((service, stream))))
            };
            let on_error = |error| tracing::debug!("simulated Modbus slaves dropped a connection: {error}");
            if let Err(error) = server.serve(&on_connected, on_error).await {
                tracing::warn!("simulated Modbus slaves stopped: {error}");
            }
        });
        Ok(Self { place, task })
    }

    /// Serves all units of the table over TCP with serial frames, as a serial server does; port 0 takes a free one.
    pub async fn over_tcp(framing: Framing, address: SocketAddr, table: SharedRegisters) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let place = Place::Tcp(listener.local_addr()?);
        let task = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            let _ = stream.set_nodelay(true);
                            connections.spawn(serve_stream(framing, stream, Arc::clone(&table)));
                        }
                        Err(error) => tracing::debug!("simulated Modbus slaves missed a connection: {error}"),
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { place, task })
    }

    /// Calls whoever listens there, says who it is, and serves all units of the table with serial frames; calls again where the
    /// connection ends.
    pub fn dial(framing: Framing, address: SocketAddr, registration: Vec<u8>, table: SharedRegisters) -> Self {
        let task = tokio::spawn(async move {
            loop {
                let call = async {
                    let mut stream = TcpStream::connect(address).await?;
                    let _ = stream.set_nodelay(true);
                    stream.write_all(&registration).await?;
                    serve(framing, &mut stream, &table).await
                };
                let end = call.await;
                tracing::debug!("simulated Modbus slaves: the call to {address} has ended: {end:?}");
                tokio::time::sleep(REDIAL).await;
            }
        });
        Self { place: Place::Tcp(address), task }
    }

    /// Serves all units of the table on a new pseudo-terminal, whose path is [`ModbusSlaves::device`].
    pub fn pty(framing: Framing, table: SharedRegisters) -> io::Result<Self> {
        let (master, slave) = SerialStream::pair().map_err(io::Error::from)?;
        let path = slave.name().ok_or_else(|| io::Error::other("the pseudo-terminal has no name"))?;
        // The other end is opened by its path. Holding it here as well would keep it locked to whoever opened it first.
        drop(slave);
        Ok(Self { place: Place::Serial(path.into()), task: tokio::spawn(serve_line(framing, master, table)) })
    }

    /// Serves all units of the table over RTU on a serial line that is there already, 8N1.
    pub fn rtu(path: &Path, baud_rate: u32, table: SharedRegisters) -> io::Result<Self> {
        let port = tokio_serial::new(path.to_string_lossy(), baud_rate).open_native_async()?;
        Ok(Self { place: Place::Serial(path.to_owned()), task: tokio::spawn(serve_line(Framing::Rtu, port, table)) })
    }

    /// Where the TCP slaves listen, or whom they call.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Tcp(address) => Some(*address),
            Place::Serial(_) => None,
        }
    }

    /// The device that a `[[bus]]` opens to reach the RTU slaves.
    pub fn device(&self) -> Option<&Path> {
        match &self.place {
            Place::Tcp(_) => None,
            Place::Serial(path) => Some(path),
        }
    }
}

impl Drop for ModbusSlaves {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn read(
    table: &SharedRegisters,
    unit: u8,
    of: Table,
    address: u16,
    count: u16,
) -> Option<Result<Vec<u16>, ExceptionCode>> {
    // A writer that panicked left whole registers behind.
    table.read().unwrap_or_else(PoisonError::into_inner).read(unit, of, address, count)
}

struct TcpService(SharedRegisters);

impl Service for TcpService {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Self::Response, Self::Exception>>;

    fn call(&self, SlaveRequest { slave, request }: Self::Request) -> Self::Future {
        let (of, address, count) = match request {
            Request::ReadCoils(address, count) => (Table::Coil, address, count),
            Request::ReadDiscreteInputs(address, count) => (Table::Discrete, address, count),
            Request::ReadHoldingRegisters(address, count) => (Table::Holding, address, count),
            Request::ReadInputRegisters(address, count) => (Table::Input, address, count),
            _ => return ready(Err(ExceptionCode::IllegalFunction)),
        };
        let bits = |words: Vec<u16>| words.into_iter().map(|word| word != 0).collect();
        ready(match read(&self.0, slave, of, address, count) {
            None => Ok(None),
            Some(Err(exception)) => Err(exception),
            Some(Ok(words)) => Ok(Some(match of {
                Table::Coil => Response::ReadCoils(bits(words)),
                Table::Discrete => Response::ReadDiscreteInputs(bits(words)),
                Table::Holding => Response::ReadHoldingRegisters(words),
                Table::Input => Response::ReadInputRegisters(words),
            })),
        })
    }
}

/// A serial line for ever. The other end of a pseudo-terminal may be closed, and there is no event for its being opened.
async fn serve_line(framing: Framing, mut port: SerialStream, table: SharedRegisters) {
    loop {
        let end = serve(framing, &mut port, &table).await;
        tracing::trace!("simulated Modbus slaves: nobody at the other end of the line: {end:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn serve_stream(framing: Framing, mut stream: TcpStream, table: SharedRegisters) {
    if let Err(error) = serve(framing, &mut stream, &table).await {
        tracing::debug!("simulated Modbus slaves dropped a connection: {error}");
    }
}

/// Answers every sound request, whatever noise stands around it, until the other end is closed.
async fn serve(
    framing: Framing,
    port: &mut (impl AsyncRead + AsyncWrite + Unpin),
    table: &SharedRegisters,
) -> io::Result<()> {
    const REQUEST: usize = 8;
    let mut buffer: Vec<u8> = Vec::new();
    let mut reader = modbus_ascii::Reader::default();
    let mut bytes = [0; 256];
    loop {
        let came = match port.read(&mut bytes).await? {
            0 => return Ok(()),
            n => &bytes[..n],
        };
        let mut answers = Vec::new();
        match framing {
            Framing::Ascii => {
                let requests = came.iter().filter_map(|character| reader.take(*character)).flatten();
                let frames = requests.filter_map(|request| match request[..] {
                    [unit, function, ref data @ ..] => answer(table, unit, function, data),
                    _ => None,
                });
                frames.for_each(|frame| answers.extend(modbus_ascii::write(&frame)));
            }
            Framing::Rtu => {
                buffer.extend_from_slice(came);
                while buffer.len() >= REQUEST {
                    let Some(Pdu { unit, function, data, .. }) = Pdu::unpack_rtu(&buffer[..REQUEST]) else {
                        buffer.remove(0);
                        continue;
                    };
                    if let Some(frame) = answer(table, unit, function, data) {
                        let check = crc16(&frame);
                        answers.extend(frame);
                        answers.extend(check.to_le_bytes());
                    }
                    buffer.drain(..REQUEST);
                }
            }
        }
        port.write_all(&answers).await?;
    }
}

/// Unit, function and data of the answer; `None` is silence.
fn answer(table: &SharedRegisters, unit: u8, function: u8, data: &[u8]) -> Option<Vec<u8>> {
    let (Some(of), [a, b, c, d]) = (Table::of_function(function), data) else { return None };
    let (address, count) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    read(table, unit, of, address, count).map(|result| frame(unit, of, result))
}

fn frame(unit: u8, of: Table, result: Result<Vec<u16>, ExceptionCode>) -> Vec<u8> {
    let mut frame = vec![unit, of.function()];
    match result {
        Err(exception) => {
            frame[1] |= 0x80;
            frame.push(exception.into());
        }
        Ok(words) => {
            let data: Vec<u8> = if of.is_bits() {
                let byte = |bits: &[u16]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit != 0));
                words.chunks(8).map(byte).collect()
            } else {
                words.iter().flat_map(|word| word.to_be_bytes()).collect()
            };
            // Invariant: `Registers::read` gives at most 125 registers or 2,000 bits, which is 250 bytes.
            frame.push(data.len() as u8);
            frame.extend(data);
        }
    }
    frame
}
