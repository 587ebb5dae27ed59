//! `anmin probe modbus`: which units answer, which registers they have, which profile reads them best.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anmin_sensors::decode::modbus::Table;
use anmin_sensors::document::parse_duration;
use anmin_sensors::guess::{Fit, Guess, Image, fits, guess};
use anmin_sensors::point::{DeviceId, Form, Kind, Points};
use anmin_sensors::poll::{Failure, Request, UnitPlan};
use anmin_sensors::profile::Profiles;
use anmin_sensors::reading::Value;
use clap::{Args, ValueEnum};
use tokio_serial::{DataBits, Parity, StopBits};

use super::Proposal;
use crate::app::daemon::runtime;
use crate::app::table;
use crate::clock::Clock;
use crate::intake::modbus::{Framing, Look, Serial, Settings, Transport};

/// Registers that are asked for at once; where a unit refuses, ever fewer.
const BLOCK: u16 = 16;
/// Profiles and places that are shown for a unit.
const SHOWN: usize = 3;
/// A profile that reads less well than this is not proposed.
const GOOD_ENOUGH: f64 = 0.35;
/// A block that nobody answers, so often in a row: the table is given up.
const SILENT_BLOCKS: u32 = 2;

/// `anmin probe modbus`.
#[derive(Debug, Args)]
#[command(
    after_help = "Only reads: function codes 03 and 04, with --bits also 01 and 02. The values are guesses until somebody has \
    compared them with the display of the device. Stop anmin on this bus before: two masters on one line disturb each other."
)]
pub struct Options {
    /// tcp://HOST[:PORT], rtu_over_tcp://HOST:PORT, ascii_over_tcp://HOST:PORT, or a serial device such as /dev/ttyUSB0.
    bus: String,
    /// Units to look for, such as 1-32 or 1,7,20-25.
    #[arg(long, default_value = "1-32", value_parser = numbers)]
    units: Numbers,
    /// Registers to look at, as on the wire, from 0.
    #[arg(long, default_value = "0-95", value_parser = numbers)]
    registers: Numbers,
    /// What is looked for, such as power.voltage: the likeliest places of such a value are shown.
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Look at coils and discrete inputs, too.
    #[arg(long)]
    bits: bool,
    /// How long to wait for an answer.
    #[arg(long, default_value = "500ms", value_parser = duration)]
    timeout: Duration,
    /// Serial lines only.
    #[arg(long, default_value_t = 9600)]
    baud_rate: u32,
    /// Serial lines only.
    #[arg(long, value_enum, default_value_t = ParityBit::None)]
    parity: ParityBit,
    /// Serial lines only: 1 or 2.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    stop_bits: u8,
    /// Serial lines only: 7 or 8.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(7..=8))]
    data_bits: u8,
    /// Serial lines only: frames in hexadecimal digits instead of RTU.
    #[arg(long)]
    ascii: bool,
    /// The name of the bus in the proposal; devices are called after it.
    #[arg(long, default_value = "bus-1", value_parser = super::id)]
    id: String,
    /// Write the proposal into this site, once you have said yes.
    #[arg(long, value_name = "SITE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ParityBit {
    None,
    Even,
    Odd,
}

type Numbers = Arc<[u16]>;

/// `1-32` or `1,7,20-25`.
fn numbers(text: &str) -> Result<Numbers, String> {
    let wrong = || format!("{text:?} is not such as 1-32 or 1,7,20-25");
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all.into())
}

fn kind(text: &str) -> Result<Kind, String> {
    let kind = Kind::named(text).ok_or_else(|| format!("{text:?} is not a kind of point, such as gas.lel"))?;
    match kind.info().form {
        Form::Number => Ok(kind),
        _ => Err(format!("{text} is no number; any bit may be one")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    parse_duration(text).filter(|wait| range.contains(wait)).ok_or_else(|| format!("{text:?} is not from 10ms to 60s"))
}

impl Options {
    fn transport(&self) -> Result<Transport, String> {
        let address = |text: &str| match text.rsplit_once(':') {
            Some((host, port)) => Ok((host.to_owned(), port.parse().map_err(|_| format!("{port:?} is no port"))?)),
            None => Ok::<_, String>((text.to_owned(), 502)),
        };
        if let Some(rest) = self.bus.strip_prefix("tcp://") {
            let (host, port) = address(rest)?;
            return Ok(Transport::Tcp { host, port });
        }
        for (start, framing) in [("rtu_over_tcp://", Framing::Rtu), ("ascii_over_tcp://", Framing::Ascii)] {
            if let Some(rest) = self.bus.strip_prefix(start) {
                let (host, port) = address(rest)?;
                return Ok(Transport::OverTcp { framing, host, port });
            }
        }
        if !self.bus.starts_with('/') {
            return Err(format!(
                "{:?} is not tcp://HOST, rtu_over_tcp://HOST:PORT, ascii_over_tcp://HOST:PORT or a device such as /dev/ttyUSB0",
                self.bus
            ));
        }
        let framing = if self.ascii { Framing::Ascii } else { Framing::Rtu };
        let line = Serial {
            data_bits: if self.data_bits == 7 { DataBits::Seven } else { DataBits::Eight },
            parity: match self.parity {
                ParityBit::None => Parity::None,
                ParityBit::Even => Parity::Even,
                ParityBit::Odd => Parity::Odd,
            },
            stop_bits: if self.stop_bits == 2 { StopBits::Two } else { StopBits::One },
            ..Serial::new(&self.bus, self.baud_rate)
        };
        Ok(Transport::Serial(framing, line))
    }

    /// The `[[bus]]` of the proposal.
    fn bus(&self, transport: &Transport) -> String {
        let mut text = format!("[[bus]]\nid = {:?}\n", self.id);
        // Writing to a String cannot fail.
        let _ = match transport {
            Transport::Tcp { host, port } => writeln!(text, "transport = \"tcp\"\nhost = {host:?}\nport = {port}"),
            Transport::OverTcp { framing, host, port } => {
                let framing = framing.as_str();
                writeln!(text, "transport = \"{framing}_over_tcp\"\nhost = {host:?}\nport = {port}")
            }
            // Never one of these: they call, and a probe is no daemon that waits for them.
            Transport::DialIn(_) => Ok(()),
            Transport::Serial(framing, _) => {
                let parity = format!("{:?}", self.parity).to_lowercase();
                let (device, baud_rate, stop_bits) = (&self.bus, self.baud_rate, self.stop_bits);
                let (framing, data_bits) = (framing.as_str(), self.data_bits);
                writeln!(
                    text,
                    "transport = {framing:?}\ndevice = {device:?}\nbaud_rate = {baud_rate}\ndata_bits = {data_bits}\n\
                    parity = {parity:?}\nstop_bits = {stop_bits}"
                )
            }
        };
        text
    }
}

/// A unit that answers.
struct Unit {
    number: u8,
    image: Image,
    /// The slowest answer to one request.
    slowest: Duration,
}

pub fn run(options: &Options) -> Result<(), String> {
    let transport = options.transport()?;
    let settings = Settings { timeout: options.timeout, ..Settings::new(&options.id, transport.clone()) };
    if options.units.iter().any(|unit| *unit > 255) {
        return Err("units have numbers from 0 to 255".to_owned());
    }
    let units = runtime()?.block_on(async {
        let mut look = Look::new(settings, Clock::system());
        let mut units = Vec::new();
        for number in options.units.iter().map(|unit| *unit as u8) {
            match read_unit(&mut look, number, options).await? {
                Some(unit) => units.push(unit),
                None => {
                    eprint!("\r单元 unit {number}: 无应答 silent  ");
                }
            }
        }
        eprintln!();
        Ok::<_, String>(units)
    })?;
    if units.is_empty() {
        return Err(format!("no unit answers on {transport}: look at wiring, speed and parity, or try other --units"));
    }
    let profiles = Profiles::shipped();
    let mut proposal = Proposal::default();
    let mut text = format!("{}\n", options.bus(&transport));
    let (mut requests, mut cycle) = (0, Duration::ZERO);
    for unit in &units {
        let fits = fits(&profiles, &unit.image);
        let places = options.kind.map(|kind| guess(kind, &unit.image, SHOWN)).unwrap_or_default();
        say(unit, &fits, options.kind, &places);
        let device = format!("{}-u{}", options.id, unit.number);
        let found = match (fits.first().filter(|fit| fit.score >= GOOD_ENOUGH), options.kind, places.first()) {
            // Whoever says what is looked for, and no profile has it, gets one made of the likeliest place.
            (best, Some(kind), Some(place))
                if best.is_none_or(|fit| fit.profile.specs().iter().all(|spec| spec.kind != kind)) =>
            {
                let file = format!("profiles/{device}.toml");
                proposal.files.push((file.into(), made_profile(&device, kind, place)));
                Some((device.clone(), 1))
            }
            (Some(fit), ..) => Some((fit.profile.id.to_string(), requests_of(fit))),
            _ => None,
        };
        let Some((profile, count)) = found else {
            let _ =
                writeln!(text, "# unit {} answers, and no profile reads it: try --kind, or --registers", unit.number);
            continue;
        };
        requests += count;
        cycle += unit.slowest * count as u32;
        let _ = writeln!(
            text,
            "[[device]]\nid = {device:?}\nprofile = {profile:?}\nbus = {:?}\nunit_id = {}\n",
            options.id, unit.number
        );
    }
    println!(
        "\n一轮轮询 one cycle: {requests} 次请求 requests，最慢 at worst {} ms；每个失联单元再加 each dead unit adds {} ms",
        cycle.as_millis(),
        (options.timeout * 2).as_millis()
    );
    proposal.files.insert(0, (format!("anmin.d/{}.toml", options.id).into(), text));
    proposal.show();
    match &options.write {
        Some(site) => proposal.write(site),
        None => Ok(()),
    }
}

/// `None` for a unit that nobody is.
async fn read_unit(look: &mut Look, number: u8, options: &Options) -> Result<Option<Unit>, String> {
    let mut unit = Unit { number, image: Image::default(), slowest: Duration::ZERO };
    let mut answers = false;
    let tables: &[Table] = if options.bits {
        &[Table::Holding, Table::Input, Table::Discrete, Table::Coil]
    } else {
        &[Table::Holding, Table::Input]
    };
    for table in tables {
        // A unit that is there says something to any request, be it no.
        let (mut silent, mut blocks) = (0, blocks(&options.registers));
        blocks.reverse();
        while let Some((address, count)) = blocks.pop() {
            let began = Instant::now();
            match look.read(number, Request { table: *table, address, count }).await {
                Ok(words) => {
                    unit.slowest = unit.slowest.max(began.elapsed());
                    unit.image.put(*table, address, &words);
                    (answers, silent) = (true, 0);
                }
                // The whole table is refused.
                Err(Failure::Exception(1)) => {
                    answers = true;
                    break;
                }
                // A failure of the device, as some gateways say of units that are not there, tells no more than silence.
                Err(failure) if failure.is_refusal() && failure != Failure::Exception(4) => {
                    answers = true;
                    if count > 1 {
                        let half = count / 2;
                        blocks.push((address + half, count - half));
                        blocks.push((address, half));
                    }
                }
                Err(Failure::Lost) => return Err(format!("the connection to {} broke or is refused", options.bus)),
                Err(_) => {
                    silent += 1;
                    if !answers || silent >= SILENT_BLOCKS {
                        break;
                    }
                }
            }
        }
        if !answers {
            return Ok(None);
        }
    }
    Ok(Some(unit))
}

/// Runs of neighbours, each at most [`BLOCK`] long.
fn blocks(registers: &[u16]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for register in registers {
        match runs.last_mut() {
            Some((first, count)) if *count < BLOCK && first.checked_add(*count) == Some(*register) => *count += 1,
            _ => runs.push((*register, 1)),
        }
    }
    runs
}

fn requests_of(fit: &Fit) -> usize {
    let mut points = Points::default();
    let device = points.add(DeviceId::new("probe"), None, &fit.profile.id, &Arc::default(), fit.profile.specs());
    let plan = fit.profile.modbus.as_ref().zip(device.ok());
    plan.map_or(0, |(unit, device)| UnitPlan::new(1, unit, &points, device).requests().len())
}

fn say(unit: &Unit, fits: &[Fit], kind: Option<Kind>, places: &[Guess]) {
    println!(
        "\n单元 unit {}: {} 个寄存器 registers，最慢应答 slowest answer {} ms",
        unit.number,
        unit.image.len(),
        unit.slowest.as_millis()
    );
    let mut rows = table::Table::default();
    rows.row(["型号文件 PROFILE", "相符 FIT", "读数 VALUES"].map(str::to_owned));
    for fit in fits.iter().take(SHOWN) {
        let specs = fit.profile.specs();
        let values: Vec<String> = fit
            .values
            .iter()
            .filter_map(|(n, value)| {
                let spec = specs.get(*n)?;
                Some(match value.as_ref()? {
                    Ok(value @ Value::Number(_)) => format!("{}={value} {}", spec.name, spec.kind.info().unit),
                    Ok(value) => format!("{}={value}", spec.name),
                    Err(_) => format!("{}=?", spec.name),
                })
            })
            .take(6)
            .collect();
        rows.row([fit.profile.id.to_string(), format!("{:.2}", fit.score), values.join(", ")]);
    }
    if fits.is_empty() {
        println!("没有型号文件与之相符 · no profile reads it");
    } else {
        rows.lines().iter().for_each(|line| println!("{line}"));
    }
    let Some(kind) = kind else { return };
    let mut rows = table::Table::default();
    rows.row(["位置 WHERE", "格式 AS", "数值 VALUE", "可能性 LIKELY"].map(str::to_owned));
    for place in places {
        let Guess { table, address, kind_of_number, order, scale, value, score } = place;
        let written = format!("{kind_of_number} {order} ×{scale}");
        let shown = format!("{} {}", Value::Number(*value), kind.info().unit);
        rows.row([format!("{} {address}", table.as_str()), written, shown, format!("{score:.2}")]);
    }
    if places.is_empty() {
        println!("没有像 {} 的数值 · nothing here looks like {}", kind.as_str(), kind.as_str());
    } else {
        rows.lines().iter().for_each(|line| println!("{line}"));
    }
}

/// A profile with one point, at the likeliest place.
fn made_profile(id: &str, kind: Kind, place: &Guess) -> String {
    let Guess { table, address, kind_of_number, order, scale, .. } = place;
    let info = kind.info();
    let name = kind.as_str().rsplit('.').next().unwrap_or("value");
    format!(
        "# A guess of `anmin probe modbus`: compare its value with the display of the device, and add `range` and `silent_after`.\n\
         id = {id:?}\ntitle = {{ zh = {:?}, en = {:?} }}\n\n[[point]]\nname = {name:?}\nkind = {:?}\nregister = {:?}\n\
         address = {address}\ntype = {kind_of_number:?}\nbyte_order = {order:?}\nscale = {scale:?}\n",
        info.zh,
        info.en,
        kind.as_str(),
        table.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::Faults;
    use anmin_sensors::profile::Profile;

    use super::*;

    #[test]
    fn numbers_are_ranges_and_lists() {
        assert_eq!(numbers("7,1-3,2").as_deref(), Ok(&[1, 2, 3, 7][..]));
        for wrong in ["", "3-1", "a", "1-", "70000", "1,,2"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
        let all: Vec<u16> = (0..20).chain([40, 41, u16::MAX]).collect();
        assert_eq!(blocks(&all), [(0, 16), (16, 4), (40, 2), (u16::MAX, 1)]);
    }

    #[test]
    fn a_made_profile_is_sound_whatever_the_place() {
        for (kind_of_number, order, scale) in
            [("int16", "ABCD", 0.1), ("uint16", "ABCD", 1.0), ("int32", "DCBA", 0.001), ("float32", "CDAB", 1.0)]
        {
            let kind = Kind::named("power.voltage").expect("a kind of the table");
            let place =
                Guess { table: Table::Input, address: 7, kind_of_number, order, scale, value: 230.0, score: 0.9 };
            let faults = Faults::default();
            let profile = Profile::parse("made.toml", &made_profile("bus-1-u7", kind, &place), &faults);
            assert!(profile.is_some(), "{:?}", faults.take());
        }
    }
}
