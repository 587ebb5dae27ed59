//! A task that panics is a defect of ours: it is said, counted and started again; one that cannot be, ends the process.
//!
//! Intakes and forwarders hold nothing that is not on disk or with the broker, so they begin anew ([`keep`]). The main
//! loop, couriers and writers hold what only the journal can give back: when one of them panics the process ends with
//! [`EXIT`] and systemd starts it again within a second ([`or_end`]). So does a task that panics again and again.
//!
//! What cannot be opened is no defect: what others dial in to tries again ([`listening`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use anmin_rules::rule::{Finding, Level, Text};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info};

use crate::main_loop::{Input, PartState, PartTrouble};

/// Exit code of a process that gave itself up: `EX_SOFTWARE` of sysexits.h.
pub const EXIT: i32 = 70;

/// When a task may begin anew.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Between a panic and the next start.
    pause: Duration,
    /// Running for so long is well again.
    well_after: Duration,
    /// More panics than this within `well_after` end the process.
    most: usize,
}

const PATIENCE: Patience = Patience { pause: Duration::from_millis(500), well_after: Duration::from_secs(60), most: 5 };

/// Keeps a task running: `start` starts it. The handle's abort ends both.
pub fn keep(
    name: impl Into<Arc<str>>,
    inputs: mpsc::Sender<Input>,
    start: impl FnMut() -> JoinHandle<()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(watch(name.into(), inputs, PATIENCE, start, end))
}

/// Ends the process when the task panics.
pub fn or_end(name: impl Into<Arc<str>>, task: JoinHandle<()>) -> JoinHandle<()> {
    let name: Arc<str> = name.into();
    tokio::spawn(async move {
        if panicked(&mut Owned(task)).await {
            end(&name);
        }
    })
}

/// Between two attempts to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Opens what listens, and tries again while it cannot: an address that somebody else has, or of a tunnel that is not up yet, costs
/// those who dial in there and nobody else, and is said until it is free. Ends the process when the task panics. Returns where
/// it listens by now.
pub async fn listening<F>(
    name: String,
    listen: SocketAddr,
    inputs: mpsc::Sender<Input>,
    open: impl Fn() -> F + Send + 'static,
) -> (Option<SocketAddr>, JoinHandle<()>)
where
    F: Future<Output = io::Result<(SocketAddr, JoinHandle<()>)>> + Send,
{
    let why = match open().await {
        Ok((address, task)) => {
            // The last run may have ended with the notice.
            say(&name, &inputs, None).await;
            return (Some(address), or_end(name, task));
        }
        Err(why) => why,
    };
    let again = tokio::spawn(async move {
        let message = Text {
            zh: format!("{name} 无法在 {listen} 上监听：{why}；正在重试"),
            en: format!("{name}: cannot listen on {listen}: {why}; it is tried again"),
        };
        let finding = Finding { level: Level::Orange, limit: None, note: None };
        say(&name, &inputs, Some(PartTrouble { finding, message })).await;
        let mut task = loop {
            tokio::time::sleep(LISTEN_AGAIN).await;
            if let Ok((_, task)) = open().await {
                break Owned(task);
            }
        };
        info!("{name}: one can dial in on {listen} now");
        say(&name, &inputs, None).await;
        if panicked(&mut task).await {
            end(&name);
        }
    });
    (None, again)
}

/// Ends the process when the thread that holds it panics. The main loop's: a panic inside a script is caught long before.
pub struct EndOnPanic(pub &'static str);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end(self.0);
        }
    }
}

/// The thread that writes readings gives acknowledgements: without it no source could go on.
const WRITER: &str = "anmin-readings";

/// From here on every panic is a line of the log, and one in the readings' writer ends the process.
pub fn watch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("nothing said");
        error!(thread = name, at, "anmin has failed inside: {said}");
        if name == WRITER {
            end(name);
        }
    }));
}

/// A panic that nobody can go on from.
fn end(name: &str) {
    error!(
        task = name,
        "A task that holds what only the journal can give back has failed inside anmin. anmin ends here, so that a new start takes up from the journal."
    );
    process::exit(EXIT);
}

/// A task that ends with the one that waits for it.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn panicked(task: &mut Owned) -> bool {
    (&mut task.0).await.is_err_and(|error| error.is_panic())
}

async fn watch(
    name: Arc<str>,
    inputs: mpsc::Sender<Input>,
    patience: Patience,
    mut start: impl FnMut() -> JoinHandle<()>,
    give_up: impl Fn(&str),
) {
    let part = format!("task:{name}");
    let mut panics: VecDeque<Instant> = VecDeque::new();
    loop {
        let mut task = Owned(start());
        let has_panicked = if panics.is_empty() {
            panicked(&mut task).await
        } else {
            match tokio::time::timeout(patience.well_after, panicked(&mut task)).await {
                Ok(has_panicked) => has_panicked,
                Err(_) => {
                    panics.clear();
                    info!(task = &*name, "has run without failing for {:?}", patience.well_after);
                    say(&part, &inputs, None).await;
                    panicked(&mut task).await
                }
            }
        };
        if !has_panicked {
            return;
        }
        panics.push_back(Instant::now());
        panics.retain(|at| at.elapsed() < patience.well_after);
        if panics.len() > patience.most {
            give_up(&name);
            return;
        }
        error!(
            task = &*name,
            "A task failed inside anmin and is started again; please report what stands before this line."
        );
        let message = Text {
            zh: format!("内部任务 {name} 异常中止，已自动重启"),
            en: format!("the task {name} failed inside anmin and was started again"),
        };
        let finding = Finding { level: Level::Yellow, limit: None, note: None };
        say(&part, &inputs, Some(PartTrouble { finding, message })).await;
        tokio::time::sleep(patience.pause).await;
    }
}

async fn say(part: &str, inputs: &mpsc::Sender<Input>, trouble: Option<PartTrouble>) {
    // Fails only when the main loop has ended.
    let _ = inputs.send(Input::Part(PartState { part: part.into(), trouble })).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SOON: Patience = Patience { pause: Duration::ZERO, well_after: Duration::from_millis(50), most: 5 };

    /// A task that panics at its first `times` starts and then runs for ever.
    fn failing(times: usize) -> (Arc<AtomicUsize>, impl FnMut() -> JoinHandle<()>) {
        let starts = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&starts);
        let start = move || {
            let n = count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                assert!(n >= times, "a defect, for this test");
                std::future::pending().await
            })
        };
        (starts, start)
    }

    #[tokio::test]
    async fn a_task_that_panics_is_said_and_started_again_and_is_well_after_a_while() {
        let (inputs, mut said) = mpsc::channel(8);
        let (starts, start) = failing(2);
        let watcher = tokio::spawn(watch("mqtt:site".into(), inputs, SOON, start, |_| {}));
        for trouble in [true, true, false] {
            let Some(Input::Part(state)) = said.recv().await else { panic!("it says nothing") };
            assert_eq!((&*state.part, state.trouble.is_some()), ("task:mqtt:site", trouble));
        }
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        watcher.abort();
    }

    #[tokio::test]
    async fn a_task_that_panics_again_and_again_ends_the_process() {
        let (inputs, mut said) = mpsc::channel(8);
        let (starts, start) = failing(usize::MAX);
        let (given_up, was_given_up) = std::sync::mpsc::channel();
        let patience = Patience { well_after: Duration::from_secs(60), ..SOON };
        watch("bus:a".into(), inputs, patience, start, |name| given_up.send(name.to_owned()).unwrap_or_default()).await;
        assert_eq!(was_given_up.try_recv().as_deref(), Ok("bus:a"));
        assert_eq!(starts.load(Ordering::Relaxed), PATIENCE.most + 1);
        let mut troubles = 0;
        while let Ok(Input::Part(_)) = said.try_recv() {
            troubles += 1;
        }
        assert_eq!(troubles, PATIENCE.most);
    }

    #[tokio::test]
    async fn a_task_that_ends_or_is_told_to_is_left_alone() {
        let (inputs, mut said) = mpsc::channel(8);
        watch("done".into(), inputs.clone(), SOON, || tokio::spawn(async {}), |_| {}).await;
        let dropped = Arc::new(());
        let held = Arc::clone(&dropped);
        let start = move || {
            let held = Arc::clone(&held);
            tokio::spawn(async move {
                let _held = held;
                std::future::pending().await
            })
        };
        let watcher = tokio::spawn(watch("told".into(), inputs, SOON, start, |_| {}));
        while Arc::strong_count(&dropped) < 3 {
            tokio::task::yield_now().await;
        }
        watcher.abort();
        let _ = watcher.await;
        while Arc::strong_count(&dropped) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(said.recv().await.is_none(), "nothing is said");
    }
}
