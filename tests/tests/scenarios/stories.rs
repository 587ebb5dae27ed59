//! What happens, and what is so: a story is a place with its sensors, and the time at which a hazard begins and ends in it,
//! or that there is none.
//!
//! Hazards begin where the quantity begins to move, not where somebody's limit lies. Stories without a hazard last for
//! days and hold what comes about in that time, so that a false alarm a month is one a month.

use anmin_rules::rule::Level;
use anmin_sensors::point::{Hazard, Kind};

use crate::signal::{Bump, Curve, DAY, Dice, End, HOUR, MINUTE, Sensor};

/// One seeded variation of a story.
pub struct Scene {
    pub sensors: Vec<Sensor>,
    pub length: f64,
    /// From when to when there is a hazard.
    pub hazard: Option<(f64, f64)>,
}

pub struct Story {
    pub name: &'static str,
    pub what: &'static str,
    /// Whose alarms tell of it, or would be false.
    pub hazard: Hazard,
    /// The level from which people are called out.
    pub from: Level,
    pub make: fn(&mut Dice) -> Scene,
}

impl Story {
    /// Whether something happens that must be told.
    pub fn is_hazard(&self) -> bool {
        HAZARDS.iter().any(|story| story.name == self.name)
    }
}

const fn story(
    name: &'static str,
    hazard: Hazard,
    from: Level,
    what: &'static str,
    make: fn(&mut Dice) -> Scene,
) -> Story {
    Story { name, what, hazard, from, make }
}

pub static HAZARDS: [Story; 13] = [
    story(
        "gas, fast",
        Hazard::Gas,
        Level::Orange,
        "a hose has come off: within minutes half of what explodes",
        gas_fast,
    ),
    story("gas, slow", Hazard::Gas, Level::Orange, "a fitting seeps for the better part of an hour", gas_slow),
    story(
        "gas, messages lost",
        Hazard::Gas,
        Level::Orange,
        "the same over a radio that loses every third message",
        gas_lossy,
    ),
    story("carbon monoxide", Hazard::Gas, Level::Orange, "a boiler that burns badly", boiler),
    story(
        "smouldering fire",
        Hazard::Fire,
        Level::Orange,
        "a mattress, for up to an hour without a flame",
        smouldering,
    ),
    story(
        "smouldering, dirty chamber",
        Hazard::Fire,
        Level::Orange,
        "the same under a detector that shows half its limit in clean air",
        smouldering_dirty,
    ),
    story(
        "flaming fire",
        Hazard::Fire,
        Level::Orange,
        "heat that grows with the square of the time; heat detector alone",
        flaming,
    ),
    story("cable under load", Hazard::Power, Level::Orange, "an overloaded cable warms within the hour", overload),
    story(
        "loose joint",
        Hazard::Power,
        Level::Orange,
        "a terminal grows hot although little current flows",
        loose_joint,
    ),
    story(
        "insulation fails",
        Hazard::Power,
        Level::Orange,
        "current to earth grows within minutes or hours",
        insulation,
    ),
    story("neutral lost", Hazard::Power, Level::Orange, "230 V become 270 at once", neutral_lost),
    story("storm", Hazard::Flood, Level::Orange, "a cloudburst, and the street fills behind it", storm),
    story(
        "burst pipe",
        Hazard::Flood,
        Level::Yellow,
        "water on a garage's floor, then a hand more each ten minutes",
        burst_pipe,
    ),
];

pub static CALM: [Story; 14] = [
    story("kitchen", Hazard::Gas, Level::Orange, "burners that catch late, alcohol and hair spray", kitchen),
    story("garage", Hazard::Gas, Level::Orange, "cars that start below a CO detector", garage),
    story(
        "gas detector drifts",
        Hazard::Gas,
        Level::Orange,
        "its zero wanders up to its own limit within a month",
        drifting,
    ),
    story(
        "gas detector dies",
        Hazard::Gas,
        Level::Orange,
        "flat, silent, or wild between the ends of its range",
        dying,
    ),
    story("cooking", Hazard::Fire, Level::Orange, "warmth and fumes twice a day, now and then a burnt dinner", cooking),
    story("shower", Hazard::Fire, Level::Orange, "steam at the smoke detector before the door", shower),
    story(
        "chamber grows dirty",
        Hazard::Fire,
        Level::Orange,
        "dust in the chamber up to its limit within a month",
        dirt,
    ),
    story(
        "boiler room",
        Hazard::Fire,
        Level::Orange,
        "a hot day under the roof, two degrees below the limit",
        hot_room,
    ),
    story(
        "motors start",
        Hazard::Power,
        Level::Orange,
        "lifts and pumps: a surge to earth for a second or three",
        motors,
    ),
    story(
        "cable by day",
        Hazard::Power,
        Level::Orange,
        "a warm cable at the evening's peak, close to its limit",
        evening_load,
    ),
    story(
        "mains",
        Hazard::Power,
        Level::Orange,
        "dips when something starts, long evenings near the upper limit",
        mains,
    ),
    story("puddle", Hazard::Flood, Level::Orange, "deep water and waves of cars, below what closes a road", puddle),
    story("wet floor", Hazard::Flood, Level::Yellow, "mops and drops at a leak contact", wet_floor),
    story("showers of rain", Hazard::Flood, Level::Orange, "rain that no drain minds", rain),
];

/// How the sensors of a kind are, each a little otherwise.
fn sensor(dice: &mut Dice, kind: &str, curve: Curve) -> Sensor {
    // Interval, lag, dead time, noise, step, range; what is between two figures is thrown.
    let (interval, lag, dead_time, noise, step, range): (&[f64], _, _, _, &[f64], _) = match kind {
        "gas.lel" => (&[2.0, 5.0, 10.0], (8.0, 20.0), 4.0, (0.3, 0.8), &[0.1, 1.0], (-5.0, 110.0)),
        "gas.co" => (&[5.0, 10.0, 30.0], (20.0, 40.0), 5.0, (0.5, 1.5), &[1.0], (-10.0, 1_000.0)),
        "fire.smoke_density" => (&[5.0, 10.0, 30.0], (5.0, 15.0), 2.0, (0.002, 0.005), &[0.001, 0.01], (0.0, 2.0)),
        "fire.smoke" => (&[2.0], (5.0, 15.0), 2.0, (0.002, 0.005), &[1.0], (0.0, 2.0)),
        "fire.temperature" => (&[5.0, 10.0, 30.0], (20.0, 60.0), 0.0, (0.1, 0.4), &[0.1, 0.5], (-40.0, 150.0)),
        "power.residual_current" => (&[5.0, 10.0, 30.0], (0.2, 1.0), 0.0, (3.0, 8.0), &[1.0], (0.0, 30_000.0)),
        "power.cable_temperature" => (&[5.0, 10.0, 30.0], (60.0, 180.0), 0.0, (0.1, 0.5), &[0.1, 1.0], (-40.0, 250.0)),
        "power.current" => (&[5.0, 10.0, 30.0], (0.2, 1.0), 0.0, (0.1, 0.5), &[0.01], (0.0, 1_000.0)),
        "power.voltage" => (&[5.0, 10.0], (0.2, 1.0), 0.0, (0.4, 1.2), &[0.1], (0.0, 500.0)),
        "flood.level" => (&[5.0, 10.0, 30.0], (2.0, 10.0), 0.0, (0.2, 0.6), &[0.1, 1.0], (-10.0, 1_000.0)),
        "flood.leak" => (&[2.0], (0.2, 1.0), 0.0, (0.0, 0.0), &[1.0], (0.0, 1.0)),
        "flood.rain" => (&[60.0, 300.0], (0.0, 0.0), 0.0, (0.0, 0.0), &[0.2], (0.0, 500.0)),
        _ => panic!("no story has {kind}"),
    };
    let closes_at = if kind == "fire.smoke" { dice.from(0.1, 0.15) } else { 0.5 };
    Sensor {
        kind: Kind::named(kind).expect("stories speak of kinds of the table"),
        curve,
        interval: dice.pick(interval),
        lag: dice.from(lag.0, lag.1),
        dead_time: dice.from(0.0, dead_time),
        noise: dice.from(noise.0, noise.1),
        clouds: 0.0,
        step: dice.pick(step),
        lost: dice.from(0.0, 3.0),
        drift_a_day: 0.0,
        range,
        closes_at,
        counts_up: kind == "flood.rain",
        end: None,
    }
}

/// Bumps at any time of so many days, so many a day on average.
fn bumps(dice: &mut Dice, days: f64, a_day: f64, one: impl Fn(&mut Dice, f64) -> Bump) -> Vec<Bump> {
    (0..dice.times(days * a_day))
        .map(|_| {
            let at = dice.from(HOUR, days * DAY - HOUR);
            one(dice, at)
        })
        .collect()
}

fn with(curve: Curve, bumps: &[Bump]) -> Curve {
    bumps.iter().fold(curve, |curve, bump| curve.with(*bump))
}

/// A day's rise and fall around noon or evening, on so many days.
fn daily(dice: &mut Dice, days: u32, low: f64, high: (f64, f64), noon: f64) -> Curve {
    // The box and its stories begin at eight in the morning.
    (0..days).fold(Curve::still(low), |curve, day| {
        let (begin, high) = (f64::from(day) * DAY, dice.from(high.0, high.1));
        let peak = begin + (noon - 8.0) * HOUR;
        curve.until(peak - 4.0 * HOUR).to(peak - HOUR, high).to(peak + HOUR, high).to(peak + 5.0 * HOUR, low)
    })
}

fn scene(sensors: Vec<Sensor>, began: f64, length: f64) -> Scene {
    Scene { sensors, length, hazard: Some((began, length)) }
}

fn calm(sensors: Vec<Sensor>, length: f64) -> Scene {
    Scene { sensors, length, hazard: None }
}

fn leak(dice: &mut Dice, over: (f64, f64), to: (f64, f64)) -> Scene {
    let begin = dice.from(20.0 * MINUTE, HOUR);
    let full = begin + dice.from(over.0, over.1);
    let curve = Curve::still(dice.from(0.0, 1.5)).until(begin).settling_to(full, dice.from(to.0, to.1));
    let length = full + 10.0 * MINUTE;
    scene(vec![sensor(dice, "gas.lel", curve)], begin, length)
}

fn gas_fast(dice: &mut Dice) -> Scene {
    leak(dice, (MINUTE, 5.0 * MINUTE), (55.0, 95.0))
}

fn gas_slow(dice: &mut Dice) -> Scene {
    leak(dice, (20.0 * MINUTE, HOUR), (32.0, 60.0))
}

fn gas_lossy(dice: &mut Dice) -> Scene {
    let mut scene = leak(dice, (2.0 * MINUTE, 20.0 * MINUTE), (40.0, 80.0));
    scene.sensors[0].lost = dice.from(25.0, 40.0);
    scene
}

fn boiler(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let full = begin + dice.from(20.0 * MINUTE, 90.0 * MINUTE);
    let curve = Curve::still(dice.from(0.0, 4.0)).until(begin).settling_to(full, dice.from(130.0, 400.0));
    scene(vec![sensor(dice, "gas.co", curve)], begin, full + 20.0 * MINUTE)
}

fn smoke(dice: &mut Dice, clean: f64, begin: f64) -> (Vec<Sensor>, f64) {
    let full = begin + dice.from(15.0 * MINUTE, HOUR);
    let curve = Curve::still(clean).until(begin).growing_to(full, clean + dice.from(0.3, 0.8));
    let mut density = sensor(dice, "fire.smoke_density", curve);
    density.clouds = dice.from(0.03, 0.1);
    let warm = Curve::still(dice.from(16.0, 28.0)).until(begin);
    let warmer = dice.from(1.0, 6.0);
    let heat = warm.value(0.0) + warmer;
    (vec![density, sensor(dice, "fire.temperature", warm.to(full, heat))], full + 5.0 * MINUTE)
}

fn smouldering(dice: &mut Dice) -> Scene {
    let (clean, begin) = (dice.from(0.005, 0.02), dice.from(30.0 * MINUTE, 2.0 * HOUR));
    let (sensors, length) = smoke(dice, clean, begin);
    scene(sensors, begin, length)
}

fn smouldering_dirty(dice: &mut Dice) -> Scene {
    let (clean, begin) = (dice.from(0.04, 0.075), dice.from(30.0 * MINUTE, 2.0 * HOUR));
    let (sensors, length) = smoke(dice, clean, begin);
    scene(sensors, begin, length)
}

fn flaming(dice: &mut Dice) -> Scene {
    let begin = dice.from(20.0 * MINUTE, HOUR);
    let full = begin + dice.from(3.0 * MINUTE, 10.0 * MINUTE);
    let heat = Curve::still(dice.from(12.0, 30.0)).until(begin).growing_to(full, dice.from(90.0, 150.0));
    scene(vec![sensor(dice, "fire.temperature", heat)], begin, full + 3.0 * MINUTE)
}

fn overload(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let full = begin + dice.from(20.0 * MINUTE, 80.0 * MINUTE);
    let heat = Curve::still(dice.from(28.0, 45.0)).until(begin).settling_to(full, dice.from(78.0, 105.0));
    let load = Curve::still(dice.from(12.0, 25.0)).until(begin).to(begin + MINUTE, dice.from(55.0, 90.0));
    let sensors = vec![sensor(dice, "power.cable_temperature", heat), sensor(dice, "power.current", load)];
    scene(sensors, begin, full + 20.0 * MINUTE)
}

fn loose_joint(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let full = begin + dice.from(HOUR, 4.0 * HOUR);
    let heat = Curve::still(dice.from(22.0, 32.0)).until(begin).settling_to(full, dice.from(76.0, 110.0));
    let load = Curve::still(dice.from(2.0, 7.0));
    let sensors = vec![sensor(dice, "power.cable_temperature", heat), sensor(dice, "power.current", load)];
    scene(sensors, begin, full + 30.0 * MINUTE)
}

fn insulation(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let full = begin + dice.from(2.0 * MINUTE, 2.0 * HOUR);
    let habit = dice.from(40.0, 180.0);
    let leaks = Curve::still(habit).until(begin).growing_to(full, dice.from(620.0, 1_500.0));
    scene(vec![sensor(dice, "power.residual_current", leaks)], begin, full + 10.0 * MINUTE)
}

fn neutral_lost(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let mains = Curve::still(dice.from(218.0, 236.0)).until(begin).to(begin + 1.0, dice.from(262.0, 320.0));
    scene(vec![sensor(dice, "power.voltage", mains)], begin, begin + 20.0 * MINUTE)
}

fn storm(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let end = begin + dice.from(1.5 * HOUR, 3.0 * HOUR);
    let fallen = Curve::still(0.0).until(begin).to(end, dice.from(60.0, 140.0));
    let fills = begin + dice.from(20.0 * MINUTE, 40.0 * MINUTE);
    let full = fills + dice.from(20.0 * MINUTE, 80.0 * MINUTE);
    let water = Curve::still(dice.from(0.0, 1.0)).until(fills).to(full, dice.from(46.0, 70.0));
    let sensors = vec![sensor(dice, "flood.rain", fallen), sensor(dice, "flood.level", water)];
    scene(sensors, begin, full.max(end) + 10.0 * MINUTE)
}

fn burst_pipe(dice: &mut Dice) -> Scene {
    let begin = dice.from(HOUR, 2.0 * HOUR);
    let deep = dice.from(20.0, 60.0);
    let full = begin + deep / dice.from(0.6, 4.0) * MINUTE;
    let water = Curve::still(dice.from(0.0, 1.0)).until(begin).to(full, deep);
    let mut level = sensor(dice, "flood.level", water);
    level.noise = dice.from(0.2, 0.5);
    let wet = begin + dice.from(0.0, 3.0 * MINUTE);
    let contact = Curve::still(0.0).until(wet).to(wet + 0.5, 1.0);
    scene(vec![level, sensor(dice, "flood.leak", contact)], begin, full + 10.0 * MINUTE)
}

fn kitchen(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let puffs = bumps(dice, days, 4.0, |dice, at| Bump {
        at,
        rise: dice.from(1.0, 5.0),
        hold: dice.from(2.0, 12.0),
        fall: dice.from(10.0, 60.0),
        height: dice.from(3.0, 22.0),
    });
    let sprays = bumps(dice, days, 0.4, |dice, at| Bump {
        at,
        rise: dice.from(5.0, 20.0),
        hold: dice.from(20.0, 120.0),
        fall: dice.from(60.0, 300.0),
        height: dice.from(16.0, 27.0),
    });
    let mut gas = sensor(dice, "gas.lel", with(with(Curve::still(0.5), &puffs), &sprays));
    gas.clouds = 0.05;
    calm(vec![gas], days * DAY)
}

fn garage(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let cars = bumps(dice, days, 8.0, |dice, at| Bump {
        at,
        rise: dice.from(MINUTE, 5.0 * MINUTE),
        hold: dice.from(MINUTE, 8.0 * MINUTE),
        fall: dice.from(5.0 * MINUTE, 20.0 * MINUTE),
        height: dice.from(10.0, 75.0),
    });
    let mut co = sensor(dice, "gas.co", with(Curve::still(3.0), &cars));
    co.clouds = 0.1;
    calm(vec![co], days * DAY)
}

fn drifting(dice: &mut Dice) -> Scene {
    let days = 30.0;
    let mut gas = sensor(dice, "gas.lel", Curve::still(0.5));
    (gas.interval, gas.drift_a_day) = (300.0, dice.from(0.2, 0.85));
    calm(vec![gas], days * DAY)
}

fn dying(dice: &mut Dice) -> Scene {
    let at = dice.from(6.0 * HOUR, 30.0 * HOUR);
    let mut gas = sensor(dice, "gas.lel", Curve::still(0.5));
    let end = dice.pick(&[End::Silent, End::Flat(0.0), End::Flat(1.2), End::Wild]);
    if matches!(end, End::Wild) {
        gas.interval = 10.0;
    }
    gas.end = Some((at, end));
    calm(vec![gas], 2.0 * DAY)
}

fn cooking(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let warmth = bumps(dice, days, 2.0, |dice, at| Bump {
        at,
        rise: dice.from(2.0 * MINUTE, 8.0 * MINUTE),
        hold: dice.from(10.0 * MINUTE, 30.0 * MINUTE),
        fall: dice.from(10.0 * MINUTE, 30.0 * MINUTE),
        height: dice.from(6.0, 20.0),
    });
    let fumes = warmth.iter().map(|bump| Bump { height: dice.from(0.01, 0.09), ..*bump }).collect::<Vec<_>>();
    let burnt = bumps(dice, days, 0.15, |dice, at| Bump {
        at,
        rise: dice.from(30.0, 2.0 * MINUTE),
        hold: dice.from(30.0, 3.0 * MINUTE),
        fall: dice.from(2.0 * MINUTE, 6.0 * MINUTE),
        height: dice.from(0.1, 0.3),
    });
    let smoke = with(with(Curve::still(0.012), &fumes), &burnt);
    let mut density = sensor(dice, "fire.smoke_density", smoke.clone());
    let mut contact = sensor(dice, "fire.smoke", smoke);
    (density.clouds, contact.clouds) = (0.25, 0.25);
    let heat = with(Curve::still(dice.from(18.0, 30.0)), &warmth);
    calm(vec![density, contact, sensor(dice, "fire.temperature", heat)], days * DAY)
}

fn shower(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let steam = bumps(dice, days, 2.0, |dice, at| Bump {
        at,
        rise: dice.from(30.0, 3.0 * MINUTE),
        hold: dice.from(MINUTE, 6.0 * MINUTE),
        fall: dice.from(2.0 * MINUTE, 6.0 * MINUTE),
        height: dice.from(0.02, 0.13),
    });
    let mut density = sensor(dice, "fire.smoke_density", with(Curve::still(0.012), &steam));
    density.clouds = 0.3;
    calm(vec![density], days * DAY)
}

fn dirt(dice: &mut Dice) -> Scene {
    let days = 30.0;
    let mut density = sensor(dice, "fire.smoke_density", Curve::still(0.015));
    (density.interval, density.drift_a_day) = (300.0, dice.from(0.003, 0.0055));
    calm(vec![density], days * DAY)
}

fn hot_room(dice: &mut Dice) -> Scene {
    let heat = daily(dice, 2, 30.0, (44.0, 53.0), 15.0);
    calm(vec![sensor(dice, "fire.temperature", heat)], 2.0 * DAY)
}

fn motors(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let starts = bumps(dice, days, 15.0, |dice, at| Bump {
        at,
        rise: 0.2,
        hold: dice.from(0.5, 3.0),
        fall: 0.5,
        height: dice.from(150.0, 700.0),
    });
    let habit = dice.from(60.0, 180.0);
    let surges = starts.iter().map(|bump| Bump { height: dice.from(20.0, 60.0), ..*bump }).collect::<Vec<_>>();
    let leakage = sensor(dice, "power.residual_current", with(Curve::still(habit), &starts));
    let load = with(Curve::still(dice.from(8.0, 16.0)), &surges);
    let current = sensor(dice, "power.current", load);
    calm(vec![leakage, current], days * DAY)
}

fn evening_load(dice: &mut Dice) -> Scene {
    let heat = daily(dice, 2, 34.0, (52.0, 69.3), 20.0);
    let load = daily(dice, 2, 14.0, (40.0, 60.0), 20.0);
    calm(vec![sensor(dice, "power.cable_temperature", heat), sensor(dice, "power.current", load)], 2.0 * DAY)
}

fn mains(dice: &mut Dice) -> Scene {
    let dips = bumps(dice, 2.0, 12.0, |dice, at| Bump {
        at,
        rise: 0.1,
        hold: dice.from(0.3, 2.5),
        fall: 0.5,
        height: -dice.from(15.0, 55.0),
    });
    let evening = daily(dice, 2, 228.0, (238.0, 251.5), 22.0);
    calm(vec![sensor(dice, "power.voltage", with(evening, &dips))], 2.0 * DAY)
}

fn puddle(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let begin = dice.from(2.0 * HOUR, 20.0 * HOUR);
    let water = Curve::still(0.5)
        .until(begin)
        .to(begin + 3.0 * HOUR, dice.from(22.0, 37.0))
        .until(begin + 8.0 * HOUR)
        .to(begin + 20.0 * HOUR, 0.5);
    let waves = bumps(dice, days, 120.0, |dice, at| Bump {
        at,
        rise: 1.0,
        hold: dice.from(1.0, 6.0),
        fall: dice.from(1.0, 4.0),
        height: dice.from(2.0, 9.0),
    });
    let on_water = waves.into_iter().filter(|wave| water.value(wave.at) > 10.0).collect::<Vec<_>>();
    calm(vec![sensor(dice, "flood.level", with(water, &on_water))], days * DAY)
}

fn wet_floor(dice: &mut Dice) -> Scene {
    let days = 2.0;
    let drops =
        bumps(dice, days, 5.0, |dice, at| Bump { at, rise: 0.0, hold: dice.from(0.5, 4.5), fall: 0.0, height: 1.0 });
    calm(vec![sensor(dice, "flood.leak", with(Curve::still(0.0), &drops))], days * DAY)
}

fn rain(dice: &mut Dice) -> Scene {
    let fallen = (0..4).fold(Curve::still(0.0), |curve, shower| {
        let begin = f64::from(shower) * 12.0 * HOUR + dice.from(0.0, 6.0 * HOUR);
        let so_far = curve.value(f64::MAX);
        curve.until(begin).to(begin + dice.from(20.0 * MINUTE, 3.0 * HOUR), so_far + dice.from(2.0, 22.0))
    });
    calm(vec![sensor(dice, "flood.rain", fallen)], 2.0 * DAY)
}
