//! Until when certificates hold. Only their validity is read (RFC 5280, section 4.1): who signed them is for TLS itself.

use std::path::Path;

use anmin_sensors::time::Wall;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// One that ends sooner should be renewed.
const SOON_DAYS: i64 = 30;

/// When the certificates of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub first: Timestamp,
    pub last: Timestamp,
}

/// How what ends stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Holds,
    /// Within a month.
    EndsSoon,
    /// Of several authorities: whoever is signed by another is believed all the same.
    OneHasEnded,
    HasEnded,
}

impl Ends {
    /// The error says what is wrong with the file, without its name.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let pem = std::fs::read(path).map_err(|error| error.to_string())?;
        let mut ends: Option<Self> = None;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let end = certificate.ok().and_then(|certificate| end(&certificate));
            let end = end.ok_or("a certificate in it cannot be read")?;
            let Self { first, last } = ends.unwrap_or(Self::at(end));
            ends = Some(Self { first: first.min(end), last: last.max(end) });
        }
        ends.ok_or_else(|| "there is no certificate in it".to_owned())
    }

    /// Of one certificate.
    pub fn at(end: Timestamp) -> Self {
        Self { first: end, last: end }
    }

    /// A chain ends with the first of it; of `authorities` each stands for itself.
    pub fn standing(&self, authorities: bool, now: Wall) -> Standing {
        let now = Timestamp::from_microsecond(now.micros()).unwrap_or_default().as_second();
        let days = |end: Timestamp| (end.as_second() - now).div_euclid(86_400);
        if days(self.first) < 0 {
            if authorities && days(self.last) >= 0 { Standing::OneHasEnded } else { Standing::HasEnded }
        } else if days(self.first) < SOON_DAYS {
            Standing::EndsSoon
        } else {
            Standing::Holds
        }
    }
}

/// `notAfter` of a certificate in DER.
pub fn end(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der)?;
    let (_, mut fields, _) = element(certificate)?;
    // version, where it is not the first
    if element(fields)?.0 == 0xA0 {
        fields = element(fields)?.2;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // UTCTime: a year of two digits, of this century below 50.
        0x17 => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    TimeZone::UTC.to_timestamp(at).ok()
}

/// The first element of some DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Certificates that hold nothing but their validity, for tests; `ends` as they stand there: `260301000000Z`.
#[cfg(test)]
pub fn pem(ends: &[&str]) -> String {
    use base64::Engine as _;
    let element = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let mut text = String::new();
    for end in ends {
        let time = element(if end.len() > 13 { 0x18 } else { 0x17 }, end.as_bytes());
        let validity = element(0x30, &[element(0x17, b"250101000000Z"), time].concat());
        // serialNumber, signature and issuer, which nobody looks at
        let before = [element(0x02, &[1]), element(0x30, &[]), element(0x30, &[])].concat();
        let certificate = element(0x30, &element(0x30, &[before, validity].concat()));
        let base64 = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str(&format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_no_certificate_is_unknown() {
        for der in [b"".as_slice(), b"\x30", b"\x30\x03\x30\x01", b"\x30\x84\xFF\xFF\xFF\xFF", &[0x30; 64]] {
            assert_eq!(end(der), None, "{der:?}");
        }
    }

    #[test]
    fn one_that_ends_is_said_in_time() {
        let file = std::env::temp_dir().join(format!("anmin-ends-{}.pem", std::process::id()));
        let ends = |all: &[&str]| {
            std::fs::write(&file, pem(all)).expect("the folder takes a file");
            Ends::of_file(&file).expect("it is made well")
        };
        let wall = |text: &str| Wall::from_micros(text.parse::<Timestamp>().expect("a time").as_microsecond());
        let one = ends(&["260301000000Z"]);
        let two = ends(&["260301000000Z", "20510301000000Z"]);
        for (now, alone, in_a_chain, of_authorities) in [
            ("2026-01-01T00:00:00Z", Standing::Holds, Standing::Holds, Standing::Holds),
            ("2026-02-10T00:00:00Z", Standing::EndsSoon, Standing::EndsSoon, Standing::EndsSoon),
            ("2026-02-28T23:59:59Z", Standing::EndsSoon, Standing::EndsSoon, Standing::EndsSoon),
            ("2026-03-01T00:00:01Z", Standing::HasEnded, Standing::HasEnded, Standing::OneHasEnded),
            ("2051-03-01T00:00:01Z", Standing::HasEnded, Standing::HasEnded, Standing::HasEnded),
        ] {
            let now_is = wall(now);
            assert_eq!(one.standing(true, now_is), alone, "{now}");
            assert_eq!(two.standing(false, now_is), in_a_chain, "{now}");
            assert_eq!(two.standing(true, now_is), of_authorities, "{now}");
        }
        for (text, why) in [("", "there is no certificate"), (&*pem(&["2603"]), "cannot be read")] {
            std::fs::write(&file, text).expect("the folder takes a file");
            assert!(Ends::of_file(&file).is_err_and(|said| said.contains(why)), "{text:?}");
        }
        std::fs::remove_file(&file).expect("it was just written");
        assert!(Ends::of_file(&file).is_err());
    }
}
