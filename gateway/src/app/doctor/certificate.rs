//! Until when certificates hold. Only their validity is read (RFC 5280, section 4.1): who signed them is for TLS itself.

use std::path::Path;

use anmin_sensors::time::Wall;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Finding, Grade};

/// One that ends sooner should be renewed.
const SOON_DAYS: i64 = 30;

/// The first certificate of a file to end.
pub fn file(of: &str, path: &Path, now: Wall) -> Finding {
    let shown = path.display();
    let wrong = |why: String| Finding::new(of, Grade::Ill, format!("{shown}：{why}"), format!("{shown}: {why}"));
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) => return wrong(error.to_string()),
    };
    let mut first: Option<Timestamp> = None;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let Some(end) = certificate.ok().and_then(|certificate| end(&certificate)) else {
            return wrong("a certificate in it cannot be read".to_owned());
        };
        first = Some(first.map_or(end, |first| first.min(end)));
    }
    match first {
        Some(end) => judge(of, &shown.to_string(), end, now),
        None => wrong("there is no certificate in it".to_owned()),
    }
}

/// What the end of a certificate means now.
pub fn judge(of: &str, what: &str, end: Timestamp, now: Wall) -> Finding {
    let now = Timestamp::from_microsecond(now.micros()).unwrap_or_default();
    let days = (end.as_second() - now.as_second()).div_euclid(86_400);
    let (grade, zh, en) = if days < 0 {
        (Grade::Ill, "证书已过期", "its certificate has expired")
    } else if days < SOON_DAYS {
        (Grade::Doubtful, "证书即将过期", "its certificate ends soon")
    } else {
        (Grade::Well, "证书有效", "its certificate holds")
    };
    let finding = Finding::new(of, grade, format!("{what} {zh}：{end}"), format!("{what}: {en}, until {end}"));
    match grade {
        Grade::Well => finding,
        _ => finding.next("更新证书", "renew it"),
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
        let end: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
        let at = |text: &str| Wall::from_micros(text.parse::<Timestamp>().expect("a time").as_microsecond());
        for (now, grade) in [
            ("2026-01-01T00:00:00Z", Grade::Well),
            ("2026-02-10T00:00:00Z", Grade::Doubtful),
            ("2026-02-28T23:59:59Z", Grade::Doubtful),
            ("2026-03-01T00:00:01Z", Grade::Ill),
        ] {
            assert_eq!(judge("a", "b", end, at(now)).grade, grade, "{now}");
        }
    }
}
