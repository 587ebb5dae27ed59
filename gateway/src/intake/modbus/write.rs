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
