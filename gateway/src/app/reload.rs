//! New rules while the daemon runs: on SIGHUP, by command, and when the site's files change.
//!
//! Reading, compiling and trying them takes as long as it takes, off the main loop; then the main loop takes them at once.

use std::path::PathBuf;
use std::time::Duration;

use anmin_sensors::document::Fault;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tracing::error;

use crate::config;
use crate::config::files::Look;
use crate::config::fixed::Fixed;
use crate::main_loop::{Input, NewRules, ReloadAsked};
use crate::store::audit::{Through, Way};

/// How often the files are looked at. They count as written when two looks in a row are the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Commands that may wait while one is carried out. When full, who asks waits.
pub const WAITING: usize = 8;

/// Where a site lies, and what of it is in force.
pub struct Site {
    pub path: PathBuf,
    pub fixed: Fixed,
    /// The files as they were before they were read.
    pub look: Look,
}

/// Reads the rules anew whenever somebody asks or the files have changed, until nobody can ask any more.
pub fn spawn(mut site: Site, mut asked: mpsc::Receiver<ReloadAsked>, inputs: mpsc::Sender<Input>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let asked = tokio::select! {
                asked = asked.recv() => match asked {
                    Some(asked) => asked,
                    None => return,
                },
                () = until_changed(&site) => {
                    ReloadAsked { who: "anmin".to_owned(), from: Way::of(Through::Files), reply: None }
                }
            };
            let read = spawn_blocking(move || {
                site.look = Look::at(&site.path);
                let read = config::reload(&site.path, &site.fixed);
                (site, read)
            });
            let (rules, waits);
            match read.await {
                Ok((back, read)) => {
                    site = back;
                    (rules, waits) = read;
                }
                Err(problem) => {
                    error!(
                        "reading the rules anew failed: {problem}; those in force stay until anmin is started again"
                    );
                    let message = "reading the site failed; see the log".to_owned();
                    let fault = Fault { source: "rules".to_owned(), line: 0, column: 0, message, hint: None };
                    // Fails only when the main loop has ended.
                    let new = NewRules { asked, rules: Err(vec![fault]), waits: Vec::new() };
                    let _ = inputs.send(Input::Rules(Box::new(new))).await;
                    return;
                }
            }
            if inputs.send(Input::Rules(Box::new(NewRules { asked, rules, waits }))).await.is_err() {
                return;
            }
        }
    })
}

/// Ends when the files are no longer what they were when they were read, and nobody is in the middle of writing them.
async fn until_changed(site: &Site) {
    let mut last = None;
    loop {
        sleep(LOOK_EVERY).await;
        let path = site.path.clone();
        let Ok(look) = spawn_blocking(move || Look::at(&path)).await else { continue };
        if look != site.look && last.as_ref() == Some(&look) {
            return;
        }
        last = Some(look);
    }
}
