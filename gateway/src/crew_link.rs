//! Signed links by which a crew answers a call from a phone, without signing in.
//!
//! A link is `/crew/` and a token: what it is good for, and HMAC-SHA256 of that under the site's key, each in URL-safe
//! base64 with a dot between. What it is good for is one station's call for one alarm, in the name of one member, until it
//! expires: 16 bytes of the alarm's id, 8 bytes of seconds since 1970 (the highest first), the station's id, a zero byte,
//! the member's id, empty where the station lists no crew. Whoever holds a link can use it, so it goes to the station's own
//! group, and opens nothing but the call. This module reads no clock and knows no HTTP.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anmin_rules::alarm::AlarmId;
use anmin_rules::order::Call;
use anmin_sensors::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The file in the state directory where a key is kept that nobody gave.
pub const FILE: &str = "crew-link.key";
/// Characters of a key that somebody gives.
const SHORTEST: usize = 32;
/// No token is longer.
const MOST: usize = 600;
/// Before what is signed, so that the key signs nothing else by mistake.
const PURPOSE: &[u8] = b"anmin crew link 1\0";

/// What one link is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub alarm: AlarmId,
    pub station: String,
    pub member: String,
    /// In whole seconds.
    pub expires: Wall,
}

impl Link {
    /// The links of one call: one for each who was on duty when the station was called, with the name; one without a name
    /// where nobody is listed.
    pub fn of_call(call: &Call, valid: Duration) -> Vec<(Self, String)> {
        let called = call.stamps.iter().rev().find(|stamp| stamp.state == anmin_rules::order::CallState::Called);
        let expires = called.map_or(call.respond_by, |stamp| stamp.at).plus(valid);
        let expires = Wall::from_millis(expires.millis().div_euclid(1_000) * 1_000);
        let link = |member: &str| Self {
            alarm: call.alarm,
            station: call.station.to_string(),
            member: member.to_owned(),
            expires,
        };
        if call.crew.is_empty() {
            return vec![(link(""), String::new())];
        }
        call.crew.iter().map(|member| (link(&member.id), member.name.clone())).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.alarm.0.as_bytes().to_vec();
        bytes.extend((self.expires.millis().div_euclid(1_000) as u64).to_be_bytes());
        bytes.extend(self.station.as_bytes());
        bytes.push(0);
        bytes.extend(self.member.as_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (alarm, rest) = bytes.split_first_chunk::<16>()?;
        let (seconds, rest) = rest.split_first_chunk::<8>()?;
        let (station, member) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
        let seconds = i64::try_from(u64::from_be_bytes(*seconds)).ok()?;
        Some(Self {
            alarm: AlarmId(uuid::Uuid::from_bytes(*alarm)),
            station: station.to_owned(),
            member: member.to_owned(),
            expires: Wall::from_millis(seconds.saturating_mul(1_000)),
        })
    }
}

/// What makes links, and for how long they are good.
#[derive(Clone, Debug)]
pub struct Links {
    pub key: LinkKey,
    pub valid: Duration,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Not signed by this site's key, or cut.
    Forged,
    Expired,
}

/// The key that signs links. Neither a log nor a dump can show it.
#[derive(Clone)]
pub struct LinkKey(hmac::Key);

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey")
    }
}

impl LinkKey {
    /// The key that these bytes are.
    pub fn of(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key in a file that somebody gave: one line of 32 characters or more. The error names the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = text.trim();
        match text.chars().count() {
            length if length < SHORTEST => {
                Err(format!("{}: the key has {length} characters, expected {SHORTEST} or more", path.display()))
            }
            _ => Ok(Self::of(text.as_bytes())),
        }
    }

    /// The key of this state directory, made at the first start and readable by nobody else.
    pub fn of_directory(dir: &Path) -> Result<Self, String> {
        let path = dir.join(FILE);
        let error = |error: io::Error| format!("{}: {error}", path.display());
        match Self::load(&path) {
            Ok(key) => return Ok(key),
            Err(why) if path.exists() => return Err(why),
            Err(_) => {}
        }
        let text = secret()?;
        // Whole or not at all: half a key would be another one after a power cut.
        let new = dir.join(format!("{FILE}.new"));
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(error)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(error)?;
        fs::rename(&new, &path).map_err(error)?;
        Self::load(&path)
    }

    /// A key that is forgotten with this run, and its links with it.
    pub fn of_this_run() -> Result<Self, String> {
        Ok(Self::of(secret()?.as_bytes()))
    }

    /// What follows `/crew/`.
    pub fn token(&self, link: &Link) -> String {
        let bytes = link.bytes();
        let signed = hmac::sign(&self.0, &[PURPOSE, &bytes].concat());
        format!("{}.{}", BASE64.encode(&bytes), BASE64.encode(signed.as_ref()))
    }

    /// What a token is good for at this moment.
    pub fn open(&self, token: &str, at: Wall) -> Result<Link, Unfit> {
        let parts = token.split_once('.').filter(|_| token.len() <= MOST).ok_or(Unfit::Forged)?;
        let bytes = BASE64.decode(parts.0).map_err(|_| Unfit::Forged)?;
        let signed = BASE64.decode(parts.1).map_err(|_| Unfit::Forged)?;
        // Compares in the same time wherever they differ.
        hmac::verify(&self.0, &[PURPOSE, &bytes].concat(), &signed).map_err(|_| Unfit::Forged)?;
        let link = Link::read(&bytes).ok_or(Unfit::Forged)?;
        if at >= link.expires { Err(Unfit::Expired) } else { Ok(link) }
    }
}

/// 32 bytes that nobody can guess, in hexadecimal digits.
fn secret() -> Result<String, String> {
    let mut secret = [0_u8; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(secret.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            alarm: AlarmId(uuid::Uuid::from_u128(0x0195_506b_f3c0_7000_8000_0000_0000_0001)),
            station: "st-1".to_owned(),
            member: "王强".to_owned(),
            expires: Wall::from_millis(1_800_000_000_000),
        }
    }

    #[test]
    fn a_link_opens_until_it_expires_and_only_as_it_was_signed() {
        let key = LinkKey::of(b"one");
        let token = key.token(&link());
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{token}");
        let (before, after) = (Wall::from_millis(1_799_999_999_999), Wall::from_millis(1_800_000_000_000));
        assert_eq!(key.open(&token, before), Ok(link()));
        assert_eq!(key.open(&token, after), Err(Unfit::Expired));
        assert_eq!(LinkKey::of(b"other").open(&token, before), Err(Unfit::Forged));
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(bytes).expect("it is ASCII");
            assert_eq!(key.open(&other, before), Err(Unfit::Forged), "another sign at {at}");
            assert_eq!(key.open(&token[..at], before), Err(Unfit::Forged), "cut at {at}");
        }
        for other in ["", ".", "..", "a.b", &format!("{token}."), &"A".repeat(10_000)] {
            assert_eq!(key.open(other, before), Err(Unfit::Forged), "{other:.20}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_for_nobody_elses_eyes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = std::env::temp_dir().join(format!("anmin-crew-link-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let token = LinkKey::of_directory(&dir).unwrap().token(&link());
        assert_eq!(LinkKey::of_directory(&dir).unwrap().token(&link()), token, "the same after a restart");
        let mode = fs::metadata(dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.join(FILE), "short").unwrap();
        let problem = LinkKey::of_directory(&dir).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        assert!(problem.contains("crew-link.key: the key has 5 characters"), "{problem}");
    }
}
