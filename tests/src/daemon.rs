//! The real binary, started on a site and watched through its log and its API.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http;

/// Nothing that is waited for takes so long unless it never happens.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// A running `anmin run`, killed when dropped.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far.
    pub log: Vec<String>,
    pub web: SocketAddr,
    /// Its own broker, where the site has one.
    pub broker: Option<SocketAddr>,
}

impl Daemon {
    /// Starts the daemon and waits until its duty desk answers.
    pub fn start(site: &Path) -> Self {
        let mut daemon = Self::launch(site);
        daemon.ready();
        daemon
    }

    /// Starts the daemon and waits for nothing.
    pub fn launch(site: &Path) -> Self {
        Self::launch_by(&mut Command::new(binary()), site)
    }

    /// As [`Daemon::launch`], by a command that runs the binary in surroundings of its own.
    pub fn launch_by(command: &mut Command, site: &Path) -> Self {
        let mut child = command
            .arg("run")
            .arg(site)
            .env_remove("RUST_LOG")
            // As the unit has it.
            .envs([("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        let log = BufReader::new(child.stderr.take().expect("it is piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            log.lines().map_while(Result::ok).take_while(|line| send.send(line.clone()).is_ok()).for_each(drop);
        });
        Self { child, lines, log: Vec::new(), web: ([127, 0, 0, 1], 0).into(), broker: None }
    }

    /// Waits until the duty desk answers.
    pub fn ready(&mut self) {
        let line = self.until("the duty desk is at http://");
        self.web = address(&line, "http://").unwrap_or_else(|| panic!("{line:?}"));
        self.broker = self.log.iter().find_map(|line| address(line, "mqtt://"));
    }

    /// Waits until the log has a line that holds `text`; gives the first such line.
    pub fn until(&mut self, text: &str) -> String {
        if let Some(line) = self.log.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => panic!("the log has no {text:?} ({why}):\n{}", self.log.join("\n")),
            }
        }
    }

    /// All that the log has so far.
    pub fn said(&mut self) -> String {
        self.log.extend(self.lines.try_iter());
        self.log.join("\n")
    }

    /// One figure of `/metrics`, labels and all; 0 when it is not there.
    pub fn figure(&self, name: &str) -> u64 {
        let text = http::get(self.web, "/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap_or_else(|error| panic!("{name} is {value:?}: {error}")))
    }

    pub fn get(&self, path: &str) -> Value {
        http::get(self.web, path).json()
    }

    /// Asks `path` until the answer is as wanted; gives that answer.
    pub fn wait(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what} did not come; GET {path} says {answer:#}");
            pause();
        }
    }

    /// Waits for an open alarm of `rule` at `subject` that is as `wanted`.
    pub fn alarm(&self, rule: &str, subject: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let find = |list: &Value| {
            let mut alarms = list["alarms"].as_array().into_iter().flatten();
            alarms.find(|alarm| alarm["rule"] == rule && alarm["subject"] == subject && wanted(alarm)).cloned()
        };
        let what = format!("{rule} at {subject}: {what}");
        find(&self.wait("/api/v1/alarms?limit=1000", &what, |list| find(list).is_some())).expect("it was found")
    }

    /// As the power would: at once, nothing said to anybody.
    pub fn kill(mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// As systemd would; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
        self.child.wait().expect("the child is ours").code()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.child.id())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.log.extend(self.lines.try_iter());
            eprintln!("the daemon said:\n{}", self.log.join("\n"));
        }
    }
}

/// The address behind `scheme` in a line of the log.
fn address(line: &str, scheme: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(scheme)?;
    rest.split(['/', ' ']).next()?.parse().ok()
}

/// Between two looks at something that only can be asked.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// Runs the binary to its end.
pub fn anmin(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("the binary can be started")
}

/// The release before the last change of the state, as `tests/earlier.sh` has built it out of the history.
pub fn earlier() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/earlier/anmin").canonicalize().ok();
    if built.is_none() {
        println!(
            "left out: no earlier release was built; sh tests/earlier.sh builds it where the clone has its history"
        );
    }
    built
}

/// The binary of this build: it lies beside the folder of the tests' own.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows where it lies");
    let near = own.ancestors().skip(1).take(2).map(|folder| folder.join("anmin")).find(|path| path.is_file());
    near.unwrap_or_else(|| panic!("no `anmin` near {}: run `cargo build -p anmin`, or `make test`", own.display()))
}
