//! `anmin sim`: seeded scenarios played as the MQTT devices and Modbus slaves of a site, before its sensors arrive.
//!
//! It reads the site as `run` does, so that what it plays is what the site expects: each device speaks in its own
//! profile's words, on the topics of the mapping that will hear it, or in the registers of its bus.

pub mod modbus_slaves;
pub mod player;
pub mod scenario;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anmin_sensors::decode::modbus::Unit;
use anmin_sensors::point::{DeviceIx, PointIx};
use anmin_sensors::profile::Profiles;
use anmin_sensors::router::{Limits, Router};
use anmin_sensors::time::Wall;
use clap::Args;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{Bus, Config};
use crate::intake::modbus::Transport;
use modbus_slaves::{ModbusSlaves, Registers, SharedRegisters};
use player::Player;
use scenario::{Play, Scenario};

/// What `anmin sim` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// What happens; `list` shows all.
    pub scenario: String,
    /// The site whose devices are played.
    #[arg(long, default_value = ".")]
    pub site: PathBuf,
    /// The broker to publish to, as host:port; the site's own by default.
    #[arg(long)]
    pub broker: Option<String>,
    /// The same seed plays the same values.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often each MQTT device speaks, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    pub interval_ms: u64,
    /// Play the scenario again and again.
    #[arg(long)]
    pub repeat: bool,
    /// Leave the Modbus buses alone.
    #[arg(long)]
    pub no_modbus: bool,
}

/// The devices of a site, played.
pub struct World {
    player: Player,
    profiles: Profiles,
    buses: Vec<Bus>,
    slaves: Vec<Slave>,
    /// They answer while the world lives.
    servers: Vec<ModbusSlaves>,
}

/// One device on a bus: its registers, point by point.
struct Slave {
    unit: u8,
    device: DeviceIx,
    registers: Arc<Unit>,
    points: Vec<PointIx>,
    table: SharedRegisters,
}

impl World {
    /// Casts the scenario with the devices of `config`, which is taken apart for it.
    pub fn new(config: Config, scenario: Scenario, seed: u64, interval: Duration) -> Self {
        let Config { points, profiles, mappings, places, buses, .. } = config;
        let router = Router::new(mappings, profiles.clone(), places, Limits::default());
        let play = Play::new(scenario, seed, &points);
        let player = Player::new(points, &profiles, play, interval, |points, device| {
            router.topic_of(points.device(device).id.as_str())
        });
        Self { player, profiles, buses, slaves: Vec::new(), servers: Vec::new() }
    }

    pub fn player(&self) -> &Player {
        &self.player
    }

    /// Starts the slaves of the buses: those over TCP, whatever their frames, on the bus's port of this machine, serial
    /// ones on a pseudo-terminal, to which a link leads from the path that the bus names. Those that dial in call this machine.
    pub async fn start_slaves(&mut self) -> Result<(), String> {
        for bus in &self.buses {
            let id = &bus.settings.id;
            let table = Registers::shared();
            let problem = |error: std::io::Error| format!("bus {id}: {error}");
            let server = match &bus.settings.transport {
                Transport::Tcp { port, .. } => {
                    ModbusSlaves::tcp(SocketAddr::from(([127, 0, 0, 1], *port)), Arc::clone(&table))
                        .await
                        .map_err(problem)?
                }
                Transport::OverTcp { framing, port, .. } => {
                    ModbusSlaves::over_tcp(*framing, SocketAddr::from(([127, 0, 0, 1], *port)), Arc::clone(&table))
                        .await
                        .map_err(problem)?
                }
                Transport::DialIn(to) => {
                    let address = SocketAddr::from(([127, 0, 0, 1], to.listen.port()));
                    ModbusSlaves::dial(to.framing, address, to.registration.clone(), Arc::clone(&table))
                }
                Transport::Serial(framing, serial) => {
                    let server = ModbusSlaves::pty(*framing, Arc::clone(&table)).map_err(problem)?;
                    if let Some(device) = server.device() {
                        link(device, Path::new(&serial.device)).map_err(problem)?;
                    }
                    server
                }
            };
            for plan in &bus.units {
                let points = self.player.points();
                let Some(device) = points.find_device(&plan.device) else { continue };
                let info = points.device(device);
                let Some(registers) = self.profiles.get(&info.profile).and_then(|profile| profile.modbus.clone())
                else {
                    continue;
                };
                table.write().unwrap_or_else(PoisonError::into_inner).add_unit(plan.unit, &registers);
                let points = info.points().collect();
                self.slaves.push(Slave { unit: plan.unit, device, registers, points, table: Arc::clone(&table) });
            }
            self.servers.push(server);
        }
        self.move_registers(Duration::ZERO);
        Ok(())
    }

    /// Sets all registers to what they read `t` after the start.
    pub fn move_registers(&self, t: Duration) {
        for slave in &self.slaves {
            let mut table = slave.table.write().unwrap_or_else(PoisonError::into_inner);
            let silent = self.player.play().is_silent(self.player.points(), slave.device, t);
            table.silence(slave.unit, silent);
            for (ix, register) in slave.points.iter().zip(&slave.registers.registers) {
                if let (Some(register), Some(value)) = (register, self.player.value(*ix, t)) {
                    table.put(slave.unit, register, &value);
                }
            }
        }
    }

    /// Plays from now on: publishes through `client`, moves registers, until the scenario's end (or for ever).
    pub async fn play(mut self, client: AsyncClient, clock: Clock, repeat: bool) {
        let length = self.player.play().scenario().length;
        let start = clock.now().mono;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let now = clock.now();
            let t = now.mono.since(start);
            if t >= length && !repeat {
                return;
            }
            self.step(&client, t, now.wall).await;
        }
    }

    async fn step(&mut self, client: &AsyncClient, t: Duration, wall: Wall) {
        self.move_registers(t);
        for publish in self.player.poll_publishes(t, wall) {
            // Fails only when the connection's task has ended, which says so itself.
            let _ = client.publish(publish.topic, QoS::AtLeastOnce, false, publish.payload).await;
        }
    }
}

/// `anmin sim`.
pub fn run(options: Options) -> ExitCode {
    let shipped = Scenario::shipped();
    let Some(scenario) = shipped.iter().find(|scenario| scenario.name == options.scenario) else {
        for scenario in &shipped {
            println!("{:<18} {}  {}", scenario.name, scenario.title.zh, scenario.title.en);
        }
        if options.scenario == "list" {
            return ExitCode::SUCCESS;
        }
        eprintln!("there is no scenario {:?}", options.scenario);
        return ExitCode::FAILURE;
    };
    let config = match Config::load(&options.site) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{}", crate::config::report(&options.site, &faults));
            return ExitCode::FAILURE;
        }
    };
    let played = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
        .and_then(|runtime| runtime.block_on(play(options, scenario.clone(), config)));
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn play(options: Options, scenario: Scenario, config: Config) -> Result<(), String> {
    let (host, port) = broker_of(&options, &config)?;
    let title = scenario.title.clone();
    let interval = Duration::from_millis(options.interval_ms.max(100));
    let site = config.site.id.to_string();
    let mut world = World::new(config, scenario, options.seed, interval);
    if !options.no_modbus {
        world.start_slaves().await?;
    }
    let focus = world.player.play().focus().map(|device| world.player.points().device(device).id.to_string());
    println!("{}  {}", title.zh, title.en);
    println!("  {} MQTT devices to {host}:{port}, {} Modbus units", world.player.talkers(), world.slaves.len());
    println!("  it happens at {}", focus.as_deref().unwrap_or("no device: none has what the scenario moves"));
    let (client, connection) = connect(&host, port, &format!("anmin-sim-{site}-{}", std::process::id()));
    world.play(client, Clock::system(), options.repeat).await;
    connection.abort();
    Ok(())
}

/// The broker that the command line names, or the site's own.
fn broker_of(options: &Options, config: &Config) -> Result<(String, u16), String> {
    if let Some(named) = &options.broker {
        let named = named.strip_prefix("mqtt://").unwrap_or(named);
        let (host, port) = named.rsplit_once(':').unwrap_or((named, "1883"));
        let port = port.parse().map_err(|_| format!("--broker {named}: {port:?} is not a port"))?;
        return Ok((host.to_owned(), port));
    }
    match (&config.broker, config.mqtt.first()) {
        (Some(broker), _) => Ok((broker.listen.ip().to_string(), broker.listen.port())),
        (None, Some(mqtt)) if mqtt.tls.is_some() || mqtt.username.is_some() => {
            Err(format!("broker {} wants TLS or a password; name one without by --broker", mqtt.id))
        }
        (None, Some(mqtt)) => Ok((mqtt.host.clone(), mqtt.port)),
        (None, None) => Err("the site has no broker; name one by --broker".to_owned()),
    }
}

/// A link at `at` to the pseudo-terminal; what is there already and is no link of ours is left alone.
fn link(device: &Path, at: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(at) {
        Ok(found) if found.file_type().is_symlink() => std::fs::remove_file(at)?,
        Ok(_) => return Err(std::io::Error::other(format!("{} is a real device", at.display()))),
        Err(_) => {}
    }
    std::os::unix::fs::symlink(device, at)
}

/// A connection that keeps itself up and says when it comes and goes.
pub fn connect(host: &str, port: u16, client_id: &str) -> (AsyncClient, JoinHandle<()>) {
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_keep_alive(Duration::from_secs(20));
    let (client, mut events) = AsyncClient::new(options, 1_024);
    let broker = format!("{host}:{port}");
    let task = tokio::spawn(async move {
        let mut up = false;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    up = true;
                    tracing::info!("connected to the broker at {broker}");
                }
                Ok(_) => {}
                Err(error) => {
                    if std::mem::take(&mut up) {
                        tracing::warn!("lost the broker at {broker}: {error}; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    });
    (client, task)
}
