//! A new site while the daemon runs: on SIGHUP, by command, and when its files change.
//!
//! Reading, compiling and trying it takes as long as it takes, off the main loop. Then it is taken whole, as far as a running
//! daemon can: what must wait for a restart is said by name, and what is unsound changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use anmin_sensors::document::Fault;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tracing::{error, warn};

use crate::config;
use crate::config::files::Look;
use crate::config::parts::Difference;
use crate::main_loop::{Input, NewSite, ReloadAsked};
use crate::store::audit::{Through, Way};

use super::running::{Prepared, Running};

/// How often the files are looked at. They count as written when two looks in a row are the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Commands that may wait while one is carried out. When full, who asks waits.
pub const WAITING: usize = 8;

/// Where a site lies, and what of it is in force.
pub struct Site {
    pub path: PathBuf,
    /// The files as they were before they were read.
    pub look: Look,
    pub running: Running,
}

/// Reads the site anew whenever somebody asks or the files have changed, until nobody can ask any more.
pub fn spawn(mut site: Site, mut asked: mpsc::Receiver<ReloadAsked>, inputs: mpsc::Sender<Input>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let asked = tokio::select! {
                asked = asked.recv() => match asked {
                    Some(asked) => asked,
                    None => return,
                },
                () = until_changed(&site.look) => {
                    let from = Way::of(Through::Files);
                    ReloadAsked { who: "anmin".to_owned(), from, only_tell: false, reply: None }
                }
            };
            let read = spawn_blocking(move || {
                let prepared = read(&mut site);
                (site, prepared)
            });
            let prepared = match read.await {
                Ok((back, prepared)) => {
                    site = back;
                    prepared
                }
                Err(problem) => {
                    error!(
                        "reading the site anew failed: {problem}; what is in force stays until anmin is started again"
                    );
                    let message = "reading the site failed; see the log".to_owned();
                    let fault = Fault { source: "anmin".to_owned(), line: 0, column: 0, message, hint: None, zh: None };
                    let new = NewSite { asked, site: Err(vec![fault]), taken: Vec::new(), waits: Vec::new() };
                    // Fails only when the main loop has ended.
                    let _ = inputs.send(Input::Site(Box::new(new))).await;
                    return;
                }
            };
            if take(&mut site.running, asked, prepared, &inputs).await.is_none() {
                return;
            }
        }
    })
}

/// Reads and prepares everything. Changes nothing but what is known of the files.
fn read(site: &mut Site) -> Result<Prepared, Vec<Fault>> {
    // Before they are read: what is written meanwhile is read again.
    site.look = site.look.again();
    let config = config::reload(&site.path, &site.running.storage)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    site.look = config.look.clone();
    let source = site.path.display().to_string();
    site.running
        .prepare(config)
        .map_err(|message| vec![Fault { source, line: 0, column: 0, message, hint: None, zh: None }])
}

/// Takes what was prepared, or says what is wrong with it; `None` when the main loop has ended.
async fn take(
    running: &mut Running,
    asked: ReloadAsked,
    prepared: Result<Prepared, Vec<Fault>>,
    inputs: &mpsc::Sender<Input>,
) -> Option<()> {
    let names = |all: &[Difference]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (new, beginning) = match prepared {
        Err(faults) => (NewSite { asked, site: Err(faults), taken: Vec::new(), waits: running.waits.clone() }, None),
        Ok(mut prepared) => {
            let (taken, waits) = (names(&prepared.differences.live), names(&prepared.differences.waits));
            let rules = std::mem::take(&mut prepared.rules);
            let (change, beginning) = if asked.only_tell {
                (None, None)
            } else {
                let (change, beginning) = running.take(prepared);
                (Some(Box::new(change)), Some(beginning))
            };
            (NewSite { asked, site: Ok((rules, change)), taken, waits }, beginning)
        }
    };
    inputs.send(Input::Site(Box::new(new))).await.ok()?;
    if let Some(beginning) = beginning {
        running.begin(beginning).await;
    }
    Some(())
}

/// Ends when the files are no longer what they were when they were read, and nobody is in the middle of writing them.
async fn until_changed(known: &Look) {
    let mut last = None;
    loop {
        sleep(LOOK_EVERY).await;
        let look = known.clone();
        let Ok(look) = spawn_blocking(move || look.again()).await else { continue };
        if look != *known && last.as_ref() == Some(&look) {
            return;
        }
        last = Some(look);
    }
}
