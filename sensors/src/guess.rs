//! What the registers of an unknown Modbus unit may mean: by which profile they read best, and where a value of one kind may
//! stand; and by which profile the message of an unknown device reads best.
//!
//! A guess is a number from 0 to 1 that ranks; it proves nothing. Whoever stands before the device compares the value with what
//! its display says. This module does not know sockets: it works on an [`Image`] of what was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::modbus::Table;
use crate::point::{Form, Kind};
use crate::profile::{Profile, Profiles};
use crate::reading::{Fault, Value};

/// The registers of one unit that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<(Table, u16), u16>);

impl Image {
    /// Registers from `first` on; bits are 0 and 1.
    pub fn put(&mut self, table: Table, first: u16, words: &[u16]) {
        let places = (first..=u16::MAX).zip(words);
        self.0.extend(places.map(|(address, word)| ((table, address), *word)));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, table: Table, first: u16, count: u16) -> Option<Vec<u16>> {
        (0..count).map(|n| self.0.get(&(table, first.checked_add(n)?)).copied()).collect()
    }
}

/// How well a profile reads a unit.
#[derive(Clone, Debug)]
pub struct Fit {
    pub profile: Arc<Profile>,
    /// 0 to 1.
    pub score: f64,
    /// By the place of the point in the profile; `None` where its register did not answer.
    pub values: Vec<(usize, Option<Result<Value, Fault>>)>,
}

/// Profiles whose registers the unit has, the best first. One with a register that the unit does not have is left out: it
/// would be asked for it for ever.
pub fn fits(profiles: &Profiles, image: &Image) -> Vec<Fit> {
    let mut found: Vec<Fit> = profiles.iter().filter_map(|profile| fit(profile, image)).collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.profile.id.cmp(&b.profile.id)));
    found
}

fn fit(profile: &Arc<Profile>, image: &Image) -> Option<Fit> {
    let unit = profile.modbus.as_ref()?;
    let mut values = Vec::new();
    let (mut sum, mut count) = (0.0, 0_u32);
    for (n, register) in unit.registers.iter().enumerate() {
        let Some(register) = register else { continue };
        let spec = profile.specs().get(n)?;
        let words = image.get(register.table, register.address, register.count)?;
        let value = if register.table.is_bits() {
            register.decode_bit(words.first().is_some_and(|word| *word != 0))
        } else if register.is_counter() {
            register.count(&words).map(|count| Value::Number(count as f64))
        } else {
            register.decode(&words)
        };
        sum += match &value {
            Ok(Value::Number(number)) if spec.range.is_some_and(|(low, high)| *number < low || *number > high) => 0.0,
            // Where a counter stands says little.
            Ok(_) if register.is_counter() => 0.3,
            Ok(value) => plausibility(spec.kind, value),
            Err(_) => 0.0,
        };
        count += 1;
        values.push((n, Some(value)));
    }
    // Of two that read as well, the one that reads more says more.
    let known = f64::from(count);
    (count > 0).then(|| Fit { profile: Arc::clone(profile), score: sum / (known + 0.5), values })
}

/// How well a profile reads a message.
#[derive(Clone, Debug)]
pub struct MessageFit {
    pub profile: Arc<Profile>,
    /// 0 to 1; 0 where it reads nothing of it.
    pub score: f64,
    /// By the place of the point in the profile, those that the message carries.
    pub values: Vec<(usize, Result<Value, Fault>)>,
}

/// Words of a profile's id that say nothing about its device.
const COMMON_WORDS: [&str; 3] = ["anmin", "json", "generic"];

/// The profiles that read MQTT messages, by how well they read this one, the best first. Many messages are a value under a
/// common key; there, what the device is called and its topic decide: `site/gas-501/up` is rather a gas detector than a thermometer.
pub fn message_fits(profiles: &Profiles, topic: &str, device: &str, payload: &[u8]) -> Vec<MessageFit> {
    let words: Vec<String> = [topic, device]
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
        .map(str::to_lowercase)
        .collect();
    let mut found: Vec<MessageFit> =
        profiles.iter().filter_map(|profile| message_fit(profile, topic, &words, payload)).collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.profile.id.cmp(&b.profile.id)));
    found
}

fn message_fit(profile: &Arc<Profile>, topic: &str, words: &[String], payload: &[u8]) -> Option<MessageFit> {
    let shape = profile.mqtt.as_ref()?;
    // Which part of the topic stands below the device only the mapping knows.
    let keys = topic.match_indices('/').map(|(at, _)| &topic[at + 1..]).chain([""]);
    let read = |key: &str| {
        let mut values: Vec<(usize, Result<Value, Fault>)> = Vec::new();
        let put = |n, value| match values.iter_mut().find(|(known, _)| *known == n) {
            Some(known) => known.1 = value,
            None => values.push((n, value)),
        };
        let sound =
            shape.decode(key, payload, put).is_ok() && (!shape.has_signature() || shape.is_signed(key, payload));
        if sound { values } else { Vec::new() }
    };
    // Of keys that read as much, the shortest.
    let values = keys.map(read).max_by_key(Vec::len).unwrap_or_default();
    if values.is_empty() {
        return Some(MessageFit { profile: Arc::clone(profile), score: 0.0, values });
    }
    let likely = |(n, value): &(usize, Result<Value, Fault>)| match (profile.specs().get(*n), value) {
        (Some(spec), Ok(Value::Number(number)))
            if spec.range.is_some_and(|(low, high)| *number < low || *number > high) =>
        {
            0.0
        }
        (Some(spec), Ok(value)) => plausibility(spec.kind, value),
        _ => 0.0,
    };
    let fits = values.iter().map(likely).sum::<f64>() / (values.len() as f64 + 0.5);
    let signed = if shape.has_signature() { 0.3 } else { 0.0 };
    let named = profile.id.split('-').filter(|word| word.len() > 1 && !COMMON_WORDS.contains(word));
    let named = named.filter(|word| words.iter().any(|known| known == word)).count().min(2);
    let score = 0.5 * fits + signed + 0.1 * named as f64;
    Some(MessageFit { profile: Arc::clone(profile), score, values })
}

/// Where a value of one kind may stand in a unit, and how it is written there.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    pub table: Table,
    pub address: u16,
    /// `type`, `byte_order` and `scale` as a profile says them.
    pub kind_of_number: &'static str,
    pub order: &'static str,
    pub scale: f64,
    pub value: f64,
    /// 0 to 1.
    pub score: f64,
}

/// The likeliest places of a number of this kind, the likeliest first, at most `most`. Empty for flags and text: any bit may be
/// one.
pub fn guess(kind: Kind, image: &Image, most: usize) -> Vec<Guess> {
    if kind.info().form != Form::Number {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (table, address) in image.0.keys().copied().filter(|(table, _)| !table.is_bits()) {
        let mut put = |kind_of_number, order, scale: f64, raw: f64, weight: f64| {
            let value = raw * scale;
            let score = plausibility(kind, &Value::Number(value)) * weight;
            if score > 0.0 {
                found.push(Guess { table, address, kind_of_number, order, scale, value, score });
            }
        };
        if let Some(&[word]) = image.get(table, address, 1).as_deref() {
            for (scale, weight) in SCALES {
                // Zero is zero by any scale, and says nothing.
                let weight = if word == 0 { weight * 0.3 } else { weight } * 0.8;
                put("int16", "ABCD", scale, f64::from(word as i16), weight);
                if word as i16 >= 0 {
                    continue;
                }
                put("uint16", "ABCD", scale, f64::from(word), weight);
            }
        }
        let Some(&[high, low]) = image.get(table, address, 2).as_deref() else { continue };
        for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
            let bits = arranged(order, high, low);
            let float = f32::from_bits(bits);
            // A float that happens to be of the right size is rare among numbers that are none. Between two floats lies what
            // looks like one in another order; most makers begin at even addresses.
            let weight = if address.is_multiple_of(2) { 1.0 } else { 0.95 };
            if float.is_finite() && float != 0.0 && float.abs() > 1e-6 {
                put("float32", order, 1.0, f64::from(float), weight);
            }
            // One whose upper half is empty is more likely two numbers of 16 bits.
            if bits > 0xFFFF && bits < 0x7FFF_FFFF {
                SCALES.iter().for_each(|(scale, weight)| put("int32", order, *scale, f64::from(bits), weight * 0.6));
            }
        }
    }
    found.sort_by(|a, b| {
        b.score.total_cmp(&a.score).then_with(|| (a.table, a.address, a.order).cmp(&(b.table, b.address, b.order)))
    });
    // One place once, as it reads best.
    let mut seen = Vec::new();
    found.retain(|guess| {
        let place = (guess.table, guess.address);
        let is_new = !seen.contains(&place);
        seen.push(place);
        is_new
    });
    found.truncate(most);
    found
}

/// Powers of ten that manuals use, and how usual they are.
const SCALES: [(f64, f64); 4] = [(1.0, 1.0), (0.1, 0.98), (0.01, 0.9), (0.001, 0.75)];

fn arranged(order: &str, first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_be_bytes(), second.to_be_bytes());
    u32::from_be_bytes(match order {
        "CDAB" => [c, d, a, b],
        "BADC" => [b, a, d, c],
        "DCBA" => [d, c, b, a],
        _ => [a, b, c, d],
    })
}

/// How likely a device that is well says this, from 0 (never) to 1 (nothing else says it).
fn plausibility(kind: Kind, value: &Value) -> f64 {
    let Value::Number(number) = value else {
        // Half of all bits look right, a set alarm bit less so.
        return if *value == Value::Flag(true) { 0.3 } else { 0.5 };
    };
    // From the narrowest: what a healthy device says most of the time, what it may say.
    let bands: &[(f64, f64, f64)] = match kind.as_str() {
        "power.voltage" => &[(200.0, 250.0, 1.0), (350.0, 430.0, 0.9), (80.0, 480.0, 0.3)],
        "power.frequency" => &[(49.5, 50.5, 1.0), (59.5, 60.5, 0.9), (45.0, 65.0, 0.3)],
        "power.factor" => &[(0.3, 1.0, 0.7), (-1.0, 1.0, 0.4)],
        "power.current" => &[(0.05, 200.0, 0.5), (0.0, 2_000.0, 0.3)],
        "power.active_power" | "power.apparent_power" => &[(5.0, 100_000.0, 0.5), (-100_000.0, 1_000_000.0, 0.2)],
        "power.energy" => &[(0.1, 1_000_000.0, 0.5), (0.0, 100_000_000.0, 0.2)],
        "power.residual_current" => &[(2.0, 300.0, 0.6), (0.0, 3_000.0, 0.3)],
        "power.harmonics" => &[(0.1, 20.0, 0.5), (0.0, 100.0, 0.3)],
        "env.temperature" | "fire.temperature" | "power.cable_temperature" => &[(5.0, 45.0, 0.9), (-40.0, 120.0, 0.3)],
        "env.humidity" => &[(20.0, 90.0, 0.8), (0.0, 100.0, 0.3)],
        "gas.lel" => &[(0.1, 20.0, 0.7), (-3.0, 100.0, 0.4)],
        "gas.co" => &[(0.0, 50.0, 0.6), (0.0, 1_000.0, 0.3)],
        "flood.level" => &[(0.5, 500.0, 0.5), (0.0, 2_000.0, 0.3)],
        "ground.tilt" => &[(-5.0, 5.0, 0.6), (-90.0, 90.0, 0.3)],
        "device.battery" => &[(20.0, 100.0, 0.6), (0.0, 100.0, 0.3)],
        "device.signal" => &[(-110.0, -30.0, 0.8), (-140.0, 0.0, 0.2)],
        "env.noise" => &[(30.0, 90.0, 0.7), (20.0, 140.0, 0.3)],
        _ => &[(-1e6, 1e6, 0.3)],
    };
    bands.iter().find(|(low, high, _)| (low..=high).contains(&number)).map_or(0.0, |(.., likely)| *likely)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(order: &str, value: f32) -> [u16; 2] {
        let [a, b, c, d] = value.to_be_bytes();
        let [w, x, y, z] = match order {
            "CDAB" => [c, d, a, b],
            "BADC" => [b, a, d, c],
            "DCBA" => [d, c, b, a],
            _ => [a, b, c, d],
        };
        [u16::from_be_bytes([w, x]), u16::from_be_bytes([y, z])]
    }

    #[test]
    fn a_voltage_is_found_in_every_order_and_scale() {
        let kind = Kind::named("power.voltage").expect("a kind of the table");
        for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
            let mut image = Image::default();
            image.put(Table::Input, 6, &[17, 3]);
            image.put(Table::Input, 8, &float(order, 231.7));
            let best = guess(kind, &image, 3).into_iter().next().expect("a guess");
            assert_eq!((best.address, best.kind_of_number, best.order), (8, "float32", order));
            assert!((best.value - 231.7).abs() < 0.01, "{best:?}");
        }
        for (words, kind_of_number, scale) in [
            (&[2_317, 3][..], "int16", 0.1),
            (&[23_170, 3], "int16", 0.01),
            (&[231, 3], "int16", 1.0),
            (&[0x0003, 0x8270], "int32", 0.001),
        ] {
            let mut image = Image::default();
            image.put(Table::Holding, 0, words);
            let best = guess(kind, &image, 1).into_iter().next().expect("a guess");
            assert_eq!(
                (best.table, best.address, best.kind_of_number, best.scale),
                (Table::Holding, 0, kind_of_number, scale),
                "{words:?}"
            );
        }
        let mut image = Image::default();
        image.put(Table::Holding, 0, &[0, 0, 1, 0, 0, 1]);
        assert_eq!(guess(kind, &image, 5), [], "nothing here is a voltage");
        assert_eq!(guess(Kind::named("fire.smoke").expect("a kind"), &image, 5), []);
        image.put(Table::Holding, u16::MAX, &[1, 2]);
        assert_eq!(image.get(Table::Holding, u16::MAX, 2), None, "there is no register behind the last");
    }

    #[test]
    fn what_is_below_zero_is_read_with_its_sign() {
        let mut image = Image::default();
        image.put(Table::Holding, 1, &[0xFFCE]);
        let best = guess(Kind::named("env.temperature").expect("a kind"), &image, 1);
        assert_eq!((best[0].kind_of_number, best[0].scale), ("int16", 0.1));
        assert!((best[0].value + 5.0).abs() < 1e-9);
    }

    #[test]
    fn the_profile_of_the_device_comes_first_and_one_with_a_missing_register_not_at_all() {
        let profiles = Profiles::shipped();
        // As its manual has it: 12.6 %LEL, low alarm, 23.1 degrees, CH4, range, limits.
        let mut image = Image::default();
        image.put(Table::Holding, 0, &[0x007E, 0, 0, 0x00E7, 1, 100, 25, 50]);
        let found = fits(&profiles, &image);
        assert_eq!(
            &*found[0].profile.id,
            "yaoan-ya-k300",
            "{:?}",
            found.iter().map(|fit| (&fit.profile.id, fit.score)).collect::<Vec<_>>()
        );
        assert!(found.iter().all(|fit| fit.values.iter().all(|(_, value)| value.is_some())));
        let mut image = Image::default();
        for (address, value) in [(0, 230.2_f32), (6, 1.5), (12, 345.0), (0x46, 50.02), (0x48, 17.25)] {
            image.put(Table::Input, address, &float("ABCD", value));
        }
        let found = fits(&profiles, &image);
        assert_eq!(&*found[0].profile.id, "eastron-sdm120");
        assert!(!found.iter().any(|fit| &*fit.profile.id == "eastron-sdm630"));
        assert!(fits(&profiles, &Image::default()).is_empty());
    }

    #[test]
    fn a_message_is_guessed_by_what_it_says_and_by_what_its_device_is_called() {
        let profiles = Profiles::shipped();
        for (topic, device, payload, wanted, read) in [
            ("unknown/gas-501/up", "gas-501", r#"{"v":12.5,"battery":80}"#, "anmin-json-gas", 2),
            ("unknown/501-CO/up", "501-CO", r#"{"v":12.5}"#, "anmin-json-co", 1),
            ("zigbee2mqtt/0x00158d", "0x00158d", r#"{"smoke":false,"battery":97}"#, "zigbee2mqtt-smoke", 2),
            ("zigbee2mqtt/0x00158e", "0x00158e", r#"{"water_leak":false,"linkquality":40}"#, "zigbee2mqtt-leak", 2),
            ("shellies/x1/sensor/gas", "x1", "mild", "shelly-gas", 1),
        ] {
            let found = message_fits(&profiles, topic, device, payload.as_bytes());
            let best = &found[0];
            assert_eq!((&*best.profile.id, best.values.len()), (wanted, read), "{topic} {payload}: {:?}", &found[..3]);
            assert!(best.score > 0.0 && best.score <= 1.0 && found.iter().all(|fit| fit.profile.mqtt.is_some()));
        }
        for payload in ["", "{", "ON", r#"{"nothing":1}"#, "{\"v\":12"] {
            let found = message_fits(&profiles, "a/b", "b", payload.as_bytes());
            assert!(found.iter().all(|fit| fit.score == 0.0 && fit.values.is_empty()), "{payload}");
        }
    }
}
