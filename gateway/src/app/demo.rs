//! `anmin demo`: a sample community on this machine, from sensor to station, in a minute.
//!
//! Everything is real but the sensors: embedded broker, Modbus TCP and RTU, the shipped rules, the journal, CAP. It needs
//! no network and no root, and leaves nothing outside its folder.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anmin_rules::alarm::{Action, AlarmId, Class, Command};
use anmin_rules::order::{CallCause, CallStep};
use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::daemon::{self, Daemon};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::main_loop::{FeedEvent, Input};
use crate::sim::scenario::Scenario;
use crate::sim::{self, World};
use crate::store::audit::{Through, Way};
use crate::telemetry;

const SITE: &str = include_str!("../../demo/anmin.toml");
const DEVICES: &str = include_str!("../../demo/devices.csv");
const MAP: &[u8] = include_bytes!("../../demo/plans/site.geojson");
const FLOOR: &[u8] = include_bytes!("../../demo/plans/b3-f1.png");

/// Marks the folder as ours, so that a second demo may clear it.
const MARK: &str = ".anmin-demo";

/// What `anmin demo` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// Where everything lies; cleared at the start of each demo.
    #[arg(long, default_value = "anmin-demo")]
    dir: PathBuf,
    /// What happens.
    #[arg(long, default_value = "gas-leak")]
    scenario: String,
    /// Stop after so many seconds; by default it goes on until Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
}

pub fn run(options: Options) -> ExitCode {
    let played = prepare(&options.dir).and_then(|()| {
        telemetry::start_log_in(&options.dir.join("anmin.log"))?;
        let runtime = daemon::runtime()?;
        runtime.block_on(play(&options))
    });
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Clears the folder of the last demo and writes the sample site into it, with ports that are free.
fn prepare(dir: &Path) -> Result<(), String> {
    let problem = |error: std::io::Error| format!("{}: {error}", dir.display());
    if dir.exists() {
        let empty = std::fs::read_dir(dir).map_err(problem)?.next().is_none();
        if !empty && !dir.join(MARK).exists() {
            return Err(format!("{} is not a demo's folder and not empty; name another by --dir", dir.display()));
        }
        std::fs::remove_dir_all(dir).map_err(problem)?;
    }
    std::fs::create_dir_all(dir).map_err(problem)?;
    let line = std::path::absolute(dir).map_err(problem)?.join("ttyDEMO");
    let site = SITE
        .replace("127.0.0.1:8420", &format!("127.0.0.1:{}", free_port(8_420)))
        .replace("127.0.0.1:1883", &format!("127.0.0.1:{}", free_port(1_883)))
        .replace("port = 5020", &format!("port = {}", free_port(5_020)))
        .replace("\"ttyDEMO\"", &format!("{:?}", line.display().to_string()));
    std::fs::create_dir_all(dir.join("plans")).map_err(problem)?;
    for (name, bytes) in [
        (MARK, b"".as_slice()),
        ("anmin.toml", site.as_bytes()),
        ("devices.csv", DEVICES.as_bytes()),
        ("plans/site.geojson", MAP),
        ("plans/b3-f1.png", FLOOR),
    ] {
        std::fs::write(dir.join(name), bytes).map_err(problem)?;
    }
    Ok(())
}

/// The usual port, or one that the system picks where it is taken.
fn free_port(usual: u16) -> u16 {
    let picked = |port: u16| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
    picked(usual).or_else(|_| picked(0)).map_or(usual, |address| address.port())
}

async fn play(options: &Options) -> Result<(), String> {
    let shipped = Scenario::shipped();
    let scenario = shipped
        .iter()
        .find(|scenario| scenario.name == options.scenario)
        .ok_or_else(|| format!("there is no scenario {:?}; `anmin sim list` shows all", options.scenario))?;
    let load = || Config::load(&options.dir).map_err(|faults| config::report(&options.dir, &faults));
    let clock = Clock::system();
    let mut world = World::new(load()?, scenario.clone(), 1, Duration::from_secs(1));
    world.start_slaves().await?;

    let devices = world.player().points().devices().len();
    let told_to_stop = daemon::told_to_stop();
    let daemon = Daemon::start(load()?, clock.clone()).await?;
    let broker = daemon.devices.ok_or("somebody has taken the port of the demo's broker meanwhile; start it again")?;
    println!("安民 anmin · {} · {}", scenario.title.zh, scenario.title.en);
    println!("  {devices} 台设备 devices: MQTT {broker}, Modbus TCP, Modbus RTU");
    println!("  值班台 duty desk: http://{}/", daemon.web);
    println!("  应急广播演练文件 CAP exercise files: {}", options.dir.join("cap").display());
    println!();

    let story = tokio::spawn(tell(daemon.feed.listen(), daemon.inputs(), clock.clone()));
    let (client, connection) = sim::connect(&broker.ip().to_string(), broker.port(), "anmin-demo-devices");
    let world = tokio::spawn(world.play(client, clock, true));
    match options.seconds {
        Some(seconds) => drop(tokio::time::timeout(Duration::from_secs(seconds), told_to_stop).await),
        None => told_to_stop.await,
    }
    for task in [story, world, connection] {
        task.abort();
    }
    daemon.stop().await;
    Ok(())
}

/// Says on the terminal what happens, and answers the call as a crew would.
async fn tell(mut feed: tokio::sync::broadcast::Receiver<FeedEvent>, inputs: mpsc::Sender<Input>, clock: Clock) {
    let start = clock.now().mono;
    let mut told_next = false;
    loop {
        let event = match feed.recv().await {
            Ok(event) => event,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let second = clock.now().mono.since(start).as_secs();
        match event {
            FeedEvent::Transition(transition) if transition.alarm.class != Class::System => {
                let alarm = &transition.alarm;
                println!("{second:>4} s  {} {} · {}", alarm.level.zh(), alarm.message.zh, alarm.message.en);
            }
            FeedEvent::Call(change) => {
                println!("{second:>4} s  {} · {}", change.message.zh, change.message.en);
                if change.cause == CallCause::Called {
                    let (alarm, station) = (change.call.alarm, change.call.station.to_string());
                    tokio::spawn(crew(inputs.clone(), alarm, station));
                    if !std::mem::replace(&mut told_next, true) {
                        println!(
                            "        下一步：在值班台确认告警 · next: acknowledge it on the duty desk, or `anmin alarm list`"
                        );
                    }
                }
            }
            _ => {}
        }
    }
}

/// A crew that accepts, sets out and arrives.
async fn crew(inputs: mpsc::Sender<Input>, alarm: AlarmId, station: String) {
    for (wait, step) in [(4, CallStep::Accept), (3, CallStep::OnTheWay), (20, CallStep::OnScene)] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let what = Action::Call { alarm, station: station.clone(), step };
        let command = Command { who: "演示队员 demo crew".to_owned(), what };
        let (reply, _) = oneshot::channel();
        if inputs.send(Input::Command { command, from: Way::of(Through::Anmin), seen: None, reply }).await.is_err() {
            return;
        }
    }
}
