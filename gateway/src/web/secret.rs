//! Passwords, one-time passwords and the secrets that anmin makes itself.
//!
//! A password is kept as Argon2id with 19 MiB and two passes (OWASP's first choice): a guess costs so much everywhere. At
//! most two are tried at once, and eight wait, so that guessing takes neither the memory nor the time of the alarms.

use std::sync::Arc;

use anmin_rules::rule::Text;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use axum::http::StatusCode;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::store::audit::hex;

/// Fewest characters of a password.
pub(crate) const SHORTEST: usize = 12;
/// More are no safer and cost time to read.
const LONGEST: usize = 256;
const AT_ONCE: usize = 2;
const WAITING: usize = 8;

/// What people take where they must take something long.
const COMMON: [&str; 12] = [
    "123456789012",
    "1234567890123",
    "12345678901234567890",
    "password1234",
    "password12345",
    "passwordpassword",
    "qwertyuiop12",
    "qwertyuiop123",
    "1qaz2wsx3edc",
    "1qaz2wsx3edc4rfv",
    "admin1234567",
    "anmin1234567",
];

/// Why a password of somebody called `name` is not taken.
pub(crate) fn fault_of(password: &str, name: &str) -> Option<Text> {
    let text = |zh: &str, en: &str| Some(Text { zh: zh.to_owned(), en: en.to_owned() });
    let count = password.chars().count();
    let low = password.to_lowercase();
    let mut different: Vec<char> = low.chars().collect();
    different.sort_unstable();
    different.dedup();
    if count < SHORTEST {
        return text("密码至少 12 个字符，可以是一句话", "a password needs 12 characters; a sentence does well");
    }
    if count > LONGEST {
        return text("密码最多 256 个字符", "a password has 256 characters at most");
    }
    if different.len() < 5 || COMMON.contains(&&*low) {
        return text("该密码太容易被猜到", "this password is too easily guessed");
    }
    if name.len() >= 3 && low.contains(&name.to_lowercase()) {
        return text("密码中不能包含账号名", "a password must not hold the account's name");
    }
    None
}

fn argon2() -> Argon2<'static> {
    // These numbers are within the bounds that the algorithm has.
    let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Takes its time, and 19 MiB: not for a thread that serves.
pub(crate) fn hash(password: &str) -> Result<String, String> {
    let salt = SaltString::encode_b64(&random::<16>()).map_err(|error| error.to_string())?;
    let hash = argon2().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

fn is(hash: &str, password: &str) -> bool {
    let whole = PasswordHash::new(hash);
    whole.is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Lets few passwords be tried at once.
#[derive(Clone)]
pub(crate) struct Vault {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// What the password of somebody whom nobody knows is compared with, so that it takes as long.
    nobody: Arc<str>,
}

impl Vault {
    pub(crate) fn new() -> Self {
        let nobody = "$argon2id$v=19$m=19456,t=2,p=1$YW5taW4tbm9ib2R5LTE2$\
                      7Y2cYb0XK5mYv0k3s1m0j5n3mXr3oQ1v7m6m1b1c0a4";
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            nobody: nobody.into(),
        }
    }

    /// Whether it is the password; without a `hash` it never is, after the same time.
    pub(crate) async fn verify(&self, hash: Option<String>, password: String) -> Result<bool, Problem> {
        let nobody = Arc::clone(&self.nobody);
        self.work(move || match hash {
            Some(hash) => is(&hash, &password),
            None => {
                is(&nobody, &password);
                false
            }
        })
        .await
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        self.work(move || hash(&password)).await?.map_err(|why| {
            tracing::error!("web: a password cannot be hashed: {why}");
            too_many()
        })
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let Ok(_queued) = self.queue.try_acquire() else { return Err(too_many()) };
        // Neither is ever closed.
        let Ok(_place) = self.places.acquire().await else { return Err(too_many()) };
        tokio::task::spawn_blocking(work).await.map_err(|_| too_many())
    }
}

pub(super) fn too_many() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_sign_ins",
        "同时登录的人太多，请稍后再试",
        "too many people sign in at this moment; try again",
    )
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Linux gives them or waits; without them nothing here can be kept secret.
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// What a browser or a program holds: 256 bits.
pub(crate) fn token() -> String {
    hex(&random::<32>())
}

/// Sixteen characters in groups that can be read out and typed, none of which looks like another: 80 bits.
pub(crate) fn words() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut text = String::new();
    for (n, byte) in random::<16>().iter().enumerate() {
        if n > 0 && n % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(LETTERS[usize::from(byte % 32)]));
    }
    text
}

/// What is kept of such a secret.
pub(crate) fn sum(secret: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()).as_ref())
}

/// Takes as long for a near miss as for a far one.
pub(crate) fn same(a: &str, b: &str) -> bool {
    let (a, b) = (sum(a), sum(b));
    a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// One-time passwords by time: RFC 6238 with SHA-1, six digits and steps of 30 s, which is what every app knows.
pub mod totp {
    use super::{hmac, random};

    const STEP_SECONDS: i64 = 30;
    /// RFC 4648 section 6.
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

    /// A new secret in base 32: 160 bits, as RFC 4226 section 4 recommends.
    pub(crate) fn secret() -> String {
        base32(&random::<20>())
    }

    /// The address that apps read as a picture or by hand.
    pub(crate) fn address(secret: &str, account: &str, site: &str) -> String {
        let plain = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let (site, account) = (plain(site).replace('+', "%20"), plain(account).replace('+', "%20"));
        format!("otpauth://totp/anmin%20{site}:{account}?secret={secret}&issuer=anmin%20{site}")
    }

    /// The step that a code belongs to, where it is one of `seconds` since 1970, of the step before or after (RFC 6238
    /// section 5.2), and later than `last`.
    pub(crate) fn step(secret: &str, code: &str, seconds: i64, last: u64) -> Option<u64> {
        let key = bytes(secret)?;
        let now = u64::try_from(seconds.div_euclid(STEP_SECONDS)).ok()?;
        let code = code.replace(' ', "");
        (now.saturating_sub(1)..=now + 1).find(|step| *step > last && super::same(&digits(&key, *step, 6), &code))
    }

    /// RFC 4226 section 5.3.
    pub(super) fn digits(key: &[u8], step: u64, count: u32) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[tag.len() - 1] & 0xf);
        let four = tag[at..at + 4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let number = (four & 0x7fff_ffff) % 10_u32.pow(count);
        format!("{number:0width$}", width = count as usize)
    }

    fn base32(bytes: &[u8]) -> String {
        let bit = |n: usize| bytes.get(n / 8).is_some_and(|byte| byte >> (7 - n % 8) & 1 == 1);
        let letters = (0..(bytes.len() * 8).div_ceil(5)).map(|letter| {
            let value = (0..5).fold(0, |value, n| value << 1 | usize::from(bit(letter * 5 + n)));
            char::from(ALPHABET[value])
        });
        letters.collect()
    }

    pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
        let (mut held, mut bits, mut bytes) = (0_u32, 0, Vec::new());
        for letter in text.bytes() {
            let value = ALPHABET.iter().position(|each| *each == letter)?;
            held = held << 5 | value as u32;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((held >> bits & 0xff) as u8);
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238 appendix B, SHA-1.
    #[test]
    fn one_time_passwords_are_those_of_the_standard() {
        let key = b"12345678901234567890";
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(totp::digits(key, seconds / 30, 8), code, "{seconds}");
            let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
            assert_eq!(totp::bytes(secret).as_deref(), Some(&key[..]));
            let (now, six) = (seconds as i64, &code[2..]);
            let step = seconds / 30;
            for (at, last, found) in [
                (now, 0, Some(step)),
                (now + 30, 0, Some(step)),
                (now - 30, 0, Some(step)),
                (now + 60, 0, None),
                (now - 60, 0, None),
                (now, step, None),
            ] {
                assert_eq!(totp::step(secret, six, at, last), found, "{seconds} at {at} after {last}");
            }
        }
        let (one, other) = (totp::secret(), totp::secret());
        assert!(one != other && one.len() == 32 && totp::bytes(&one).is_some_and(|bytes| bytes.len() == 20), "{one}");
    }

    #[test]
    fn passwords_that_are_easily_guessed_are_not_taken() {
        for (password, taken) in [
            ("short", false),
            ("aaaaaaaaaaaaaaaa", false),
            ("123456789012", false),
            ("PasswordPassword", false),
            ("li-zhiban has a long one", false),
            ("correct horse battery", true),
            ("三号楼的灯每晚十点关一次", true),
        ] {
            assert_eq!(fault_of(password, "li-zhiban").is_none(), taken, "{password}");
        }
        assert!(fault_of(&"长短句子不同".repeat(50), "li").is_some());
    }

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_nobody_has_one() {
        let vault = Vault::new();
        let hash = vault.hash("correct horse battery".to_owned()).await.expect("there is room");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(PasswordHash::new(&vault.nobody).is_ok(), "it takes as long as any");
        let of = |hash: Option<&String>, password: &str| vault.verify(hash.cloned(), password.to_owned());
        assert!(of(Some(&hash), "correct horse battery").await.is_ok_and(|good| good));
        assert!(of(Some(&hash), "correct horse batterz").await.is_ok_and(|good| !good));
        assert!(of(None, "correct horse battery").await.is_ok_and(|good| !good));
    }
}
