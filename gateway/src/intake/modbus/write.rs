//! Writes: the one way in which anmin changes anything on a bus.
//!
//! A [`Deed`] is carried between two requests of the schedule: written once, never twice, and then read back twice, because the
//! answer to a write repeats the request and an adapter that hears itself answers just so. It is not carried when whoever asked has
//! gone, nor before they have looked once more, with the bus free, whether it may still be done. Only single coils and holding registers, only of units 1 to 247: what the broadcast address does, nobody answers for.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anmin_sensors::decode::modbus::Table;
use anmin_sensors::poll::{self, Ask, Failure};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tokio_modbus::prelude::{Request, Response};

use super::{Data, Link, Settings};
use crate::clock::Clock;

/// A bus that is not free, or not there, within so long carries nothing.
const CARRIED_WITHIN: Duration = Duration::from_secs(10);
/// The bus stands still for so long while whoever asked looks.
const LOOKED_WITHIN: Duration = Duration::from_secs(1);
/// For a deed that is under way.
const DONE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at what was written.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// 1 to 247.
    pub unit: u8,
    pub what: Write,
    /// Where it shows what the unit has done, and what stands there then.
    pub shows: (Table, u16),
    pub shown: u16,
    /// How long the unit takes to do it.
    pub settle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Coil(u16, bool),
    Register(u16, u16),
}

impl Write {
    fn request(self) -> Request<'static> {
        match self {
            Self::Coil(address, on) => Request::WriteSingleCoil(address, on),
            Self::Register(address, value) => Request::WriteSingleRegister(address, value),
        }
    }

    fn is_answered_by(self, response: &Response) -> bool {
        match (self, response) {
            (Self::Coil(address, on), Response::WriteSingleCoil(of, is)) => (address, on) == (*of, *is),
            (Self::Register(address, value), Response::WriteSingleRegister(of, is)) => (address, value) == (*of, *is),
            _ => false,
        }
    }
}

/// Why a deed is not known to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// Nothing was sent: the bus cannot be reached, or was never free.
    NotSent,
    /// The unit has said no; nothing has changed.
    Refused(u8),
    /// It was sent, and the unit cannot be read: it may be done.
    Unknown(Failure),
    /// It was sent, and the unit shows something else.
    Shows(u16),
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent => f.write_str("nothing was sent: its bus cannot be reached"),
            Self::Refused(code) => write!(f, "the unit refuses it: {}", Failure::Exception(*code)),
            Self::Unknown(why) => write!(f, "it was sent and may be done, but cannot be read back: {why}"),
            Self::Shows(found) => write!(f, "it was sent, but the unit shows {found}"),
        }
    }
}

/// Hands deeds to a bus. Clones lead to the same bus.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Job>>,
    came: Notify,
}

#[derive(Debug)]
pub(super) struct Job {
    pub deed: Deed,
    /// The bus is free for it: whoever asked says whether it may still be done.
    begun: oneshot::Sender<oneshot::Sender<()>>,
    done: oneshot::Sender<Result<(), NotDone>>,
}

impl Job {
    /// Whether somebody still waits for it and still wants it; from now on it is under way.
    pub async fn begin(self) -> Option<(Deed, oneshot::Sender<Result<(), NotDone>>)> {
        let (go, goes) = oneshot::channel();
        self.begun.send(go).ok()?;
        timeout(LOOKED_WITHIN, goes).await.ok()?.ok()?;
        Some((self.deed, self.done))
    }
}

impl Writes {
    /// Has the bus do it, and answers what the unit shows then. `may` is asked when the bus is free for it, and its error ends it.
    pub async fn carry<E>(
        &self,
        deed: Deed,
        may: impl Future<Output = Result<(), E>>,
    ) -> Result<Result<(), NotDone>, E> {
        if !(1..=247).contains(&deed.unit) {
            return Ok(Err(NotDone::NotSent));
        }
        let ((begun, begins), (done, ends)) = (oneshot::channel(), oneshot::channel());
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(Job { deed, begun, done });
        self.0.came.notify_one();
        // Dropped here, the job finds nobody waiting and is not carried.
        let Ok(Ok(go)) = timeout(CARRIED_WITHIN, begins).await else { return Ok(Err(NotDone::NotSent)) };
        may.await?;
        if go.send(()).is_err() {
            return Ok(Err(NotDone::NotSent));
        }
        Ok(match timeout(DONE_WITHIN, ends).await {
            Ok(Ok(done)) => done,
            _ => Err(NotDone::Unknown(Failure::Lost)),
        })
    }

    /// The unit of the job that is next.
    pub(super) fn next_unit(&self) -> Option<u8> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).front().map(|job| job.deed.unit)
    }

    pub(super) fn next(&self) -> Option<Job> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Waits for a job.
    pub(super) async fn came(&self) {
        while self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.0.came.notified().await;
        }
    }
}

impl Link {
    /// Writes once and looks twice. `Lost` of any part ends it.
    pub(super) async fn carry_out(&mut self, deed: &Deed, settings: &Settings, clock: &Clock) -> Result<(), NotDone> {
        let (table, address) = deed.shows;
        let look = Ask::alone(deed.unit, poll::Request { table, address, count: 1 }, settings.timeout);
        match self.write(&look, deed.what, settings, clock).await {
            Err(Failure::Exception(code)) => return Err(NotDone::Refused(code)),
            Err(Failure::Lost) => return Err(NotDone::Unknown(Failure::Lost)),
            // Without an answer it may be done all the same: the look tells.
            Ok(()) | Err(Failure::Silent | Failure::Garbled) => {}
        }
        sleep(deed.settle).await;
        for _ in 0..2 {
            sleep(LOOK_AGAIN).await;
            let found = match self.exchange(&look, settings, clock).await {
                Ok(Data::Words(words)) => words.first().copied(),
                Ok(Data::Bits(bits)) => bits.first().map(|bit| u16::from(*bit)),
                Err(why) => return Err(NotDone::Unknown(why)),
            };
            match found {
                Some(found) if found == deed.shown => {}
                Some(found) => return Err(NotDone::Shows(found)),
                None => return Err(NotDone::Unknown(Failure::Garbled)),
            }
        }
        Ok(())
    }

    async fn write(&mut self, look: &Ask, what: Write, settings: &Settings, clock: &Clock) -> Result<(), Failure> {
        self.prepare(look, settings, clock).await.map_err(|_| Failure::Lost)?;
        let written = self.say(look.unit, what.request(), self.limit_of_write(settings)).await;
        let result = written.and_then(|response| match what.is_answered_by(&response) {
            true => Ok(()),
            false => Err(Failure::Garbled),
        });
        if matches!(result, Err(Failure::Silent | Failure::Garbled)) && self.framing.is_some() {
            self.start_anew(clock).await.map_err(|_| Failure::Lost)?;
        }
        self.last_use = clock.now().mono;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::super::{Doors, Transport, spawn};
    use super::*;
    use crate::telemetry::BusCounters;

    const MS: Duration = Duration::from_millis(1);
    const ON: Deed =
        Deed { unit: 7, what: Write::Coil(5, true), shows: (Table::Coil, 5), shown: 1, settle: Duration::ZERO };

    /// How a unit behaves when it is written to.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Unit {
        Well,
        /// Does it and does not say so.
        DoesAndIsSilent,
        /// Says so and does not do it.
        OnlySays,
        /// Does it, and lets go by itself before the second look.
        LetsGo,
        Refuses,
        /// Says that it has done something else, and has.
        DoesAnother,
        /// Closes the connection.
        Leaves,
        /// Does it, and cannot be read any more.
        GoesDead,
    }

    /// Modbus over TCP as it is on the wire; tells every request as unit and function.
    async fn serve(mut stream: TcpStream, unit: Unit, told: mpsc::UnboundedSender<(u8, u8)>) {
        let (mut request, mut is_on, mut looks) = ([0; 12], false, 0);
        while stream.read_exact(&mut request).await.is_ok() {
            let [t1, t2, _, _, _, _, number, function, a1, a2, v1, v2] = request;
            // The test may be over.
            let _ = told.send((number, function));
            let answer: Vec<u8> = match function {
                1 => {
                    looks += 1;
                    if unit == Unit::GoesDead {
                        continue;
                    }
                    vec![1, 1, u8::from(is_on && !(unit == Unit::LetsGo && looks > 1))]
                }
                _ => {
                    is_on = !matches!(unit, Unit::OnlySays | Unit::Refuses | Unit::DoesAnother | Unit::Leaves);
                    match unit {
                        Unit::DoesAndIsSilent => continue,
                        Unit::Leaves => return,
                        Unit::Refuses => vec![function | 0x80, 4],
                        Unit::DoesAnother => vec![function, a1, a2 + 1, v1, v2],
                        _ => vec![function, a1, a2, v1, v2],
                    }
                }
            };
            let mut frame = vec![t1, t2, 0, 0, 0, answer.len() as u8 + 1, number];
            frame.extend(answer);
            if stream.write_all(&frame).await.is_err() {
                return;
            }
        }
    }

    /// A bus with nobody to poll, and one unit that behaves so; with retries, which are for reading only.
    struct Bus {
        writes: Writes,
        requests: mpsc::UnboundedReceiver<(u8, u8)>,
    }

    impl Bus {
        async fn of(unit: Unit) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
            let port = listener.local_addr().expect("it is bound").port();
            let (told, requests) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, unit, told.clone()));
                }
            });
            let transport = Transport::Tcp { host: "127.0.0.1".to_owned(), port };
            let settings = Settings { timeout: 60 * MS, retries: 4, ..Settings::new("b", transport) };
            let doors = Doors::default();
            let writes = doors.writes.clone();
            let (sender, mut inputs) = mpsc::channel(64);
            spawn(settings, Vec::new(), Clock::system(), sender, BusCounters::default(), doors);
            tokio::spawn(async move { while inputs.recv().await.is_some() {} });
            Self { writes, requests }
        }

        async fn carry(&self, deed: Deed) -> Result<(), NotDone> {
            let Ok(done) = self.writes.carry(deed, async { Ok::<(), Infallible>(()) }).await;
            done
        }

        /// The functions that were asked for, in order.
        fn asked(&mut self) -> Vec<u8> {
            let mut asked = Vec::new();
            while let Ok((unit, function)) = self.requests.try_recv() {
                assert_eq!(unit, ON.unit);
                asked.push(function);
            }
            asked
        }
    }

    /// Goal: a siren that does not answer is not switched twice, and what came of it is never guessed. Method: units that behave in
    /// every way that matters; the requests that reach them are counted.
    #[tokio::test]
    async fn a_write_goes_once_and_only_what_the_unit_shows_twice_counts() {
        for (unit, wanted, asked) in [
            (Unit::Well, Ok(()), &[5, 1, 1][..]),
            // Without an answer the look tells.
            (Unit::DoesAndIsSilent, Ok(()), &[5, 1, 1]),
            (Unit::OnlySays, Err(NotDone::Shows(0)), &[5, 1]),
            (Unit::LetsGo, Err(NotDone::Shows(0)), &[5, 1, 1]),
            (Unit::Refuses, Err(NotDone::Refused(4)), &[5]),
            (Unit::DoesAnother, Err(NotDone::Shows(0)), &[5, 1]),
            (Unit::Leaves, Err(NotDone::Unknown(Failure::Lost)), &[5]),
            (Unit::GoesDead, Err(NotDone::Unknown(Failure::Silent)), &[5, 1]),
        ] {
            let mut bus = Bus::of(unit).await;
            assert_eq!(bus.carry(ON).await, wanted, "{unit:?}");
            assert_eq!(bus.asked(), asked, "{unit:?}");
        }
    }

    #[tokio::test]
    async fn broadcast_and_what_no_unit_has_are_never_written_to() {
        let mut bus = Bus::of(Unit::Well).await;
        for unit in [0, 248, 249, 254, 255] {
            assert_eq!(bus.carry(Deed { unit, ..ON }).await, Err(NotDone::NotSent), "{unit}");
        }
        assert_eq!(bus.asked(), [0; 0]);
        assert_eq!(bus.carry(ON).await, Ok(()), "the bus is well");
    }

    #[tokio::test]
    async fn what_may_not_be_done_any_more_when_the_bus_is_free_is_not_sent() {
        let mut bus = Bus::of(Unit::Well).await;
        let refused = bus.writes.carry(ON, async { Err::<(), &str>("gas came in between") }).await;
        assert_eq!((refused, bus.asked()), (Err("gas came in between"), vec![]));
        // Nor for somebody who has gone meanwhile, nor for one that cannot say it in time.
        let gone = timeout(20 * MS, bus.writes.carry(ON, std::future::pending::<Result<(), Infallible>>())).await;
        assert!(gone.is_err());
        assert_eq!(bus.carry(ON).await, Ok(()));
        assert_eq!(bus.asked(), [5, 1, 1], "one write is that of whoever waited");
    }

    #[tokio::test]
    async fn a_bus_that_is_not_there_carries_nothing_later() {
        // What nobody carries is not left lying about for a bus that comes back.
        let writes = Writes::default();
        let gone = timeout(20 * MS, writes.carry(ON, async { Ok::<(), Infallible>(()) })).await;
        assert!(gone.is_err());
        let left = writes.next().expect("the bus finds it when it is back");
        assert!(left.begin().await.is_none(), "nobody waits for it any more");
    }
}
