//! Whether an ID token is believed: OpenID Connect Core 1.0 section 3.1.3.7, JWS (RFC 7515) in its compact form.
//!
//! A function from the token, the provider's keys, what was asked for and the time. It opens no socket and reads no clock.
//! The signatures are checked by `ring`. Only algorithms with a public key are known: `none` and those of a shared secret are
//! not, so that no key can be taken for one of another kind.

use std::time::Duration;

use anmin_sensors::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// How far the provider's clock may be from ours.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// Longest name of a person within a provider (section 2).
const MOST_SUB: usize = 255;
/// Keys of one set that are looked at.
const MOST_KEYS: usize = 64;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no JWS, or its parts are not what they must be.
    #[error("the token cannot be read: {0}")]
    Form(&'static str),
    /// `none`, a shared secret, or one that nobody here knows.
    #[error("the token is signed by {0:?}, expected RS256, PS256 or ES256")]
    Algorithm(String),
    /// The provider may have new keys: they are looked up anew, now and then.
    #[error("the provider has no key {0:?} for it")]
    UnknownKey(String),
    #[error("its signature is wrong")]
    Signature,
    #[error("it is of {0:?}, not of the provider that was asked")]
    Issuer(String),
    #[error("it is for somebody else")]
    Audience,
    #[error("it was made for another one's request (azp)")]
    Party,
    #[error("it answers another request (nonce)")]
    Nonce,
    #[error("`{0}` is missing, or is no number")]
    Time(&'static str),
    #[error("it ended {0:?} ago by this machine's clock")]
    Over(Duration),
    /// `nbf` or `iat`.
    #[error("it begins in {0:?} by this machine's clock")]
    Early(Duration),
    /// The person has not shown who they are since they were asked to.
    #[error("the person has not signed in anew at the provider (auth_time)")]
    Stale,
    #[error("it does not belong to the access token that came with it (at_hash)")]
    AccessToken,
    #[error("it names nobody")]
    Nobody,
}

/// A key of the provider by which it signs.
#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
}

/// A JWK set (RFC 7517), as far as it can sign for us.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Map<String, Value>>,
}

impl Keys {
    /// Keys of other kinds are left out.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("no set of keys: {error}"))?;
        Ok(Self(set.keys.iter().take(MOST_KEYS).filter_map(Key::read).collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let public = match (text("kty")?, text("crv")) {
            // ring wants numbers without zeros before them, as RFC 7518 section 6.3.1 does.
            ("RSA", _) => Public::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                (x.len() == 32 && y.len() == 32).then(|| Public::P256([&[4], &x[..], &y[..]].concat()))?
            }
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), public })
    }

    fn fits(&self, algorithm: &str) -> bool {
        let kind = match self.public {
            Public::Rsa { .. } => ["RS256", "PS256"].contains(&algorithm),
            Public::P256(_) => algorithm == "ES256",
        };
        kind && self.algorithm.as_deref().is_none_or(|own| own == algorithm)
    }

    fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (&self.public, algorithm) {
            (Public::Rsa { n, e }, "RS256") => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            (Public::Rsa { n, e }, "PS256") => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature).is_ok()
            }
            (Public::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client: &'a str,
    pub nonce: &'a str,
    /// That came with it.
    pub access_token: Option<&'a str>,
    /// The person must have shown who they are since then.
    pub since: Wall,
}

/// What a token says that is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    pub sub: String,
    pub all: Map<String, Value>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What a reader must understand; we understand none.
    crit: Option<Value>,
}

/// Believes it or says why not.
pub fn judge(token: &str, keys: &Keys, expected: &Expected<'_>, now: Wall) -> Result<Claims, Fault> {
    let (message, signature) = token.rsplit_once('.').ok_or(Fault::Form("it has no parts"))?;
    let (header, payload) = message.split_once('.').ok_or(Fault::Form("it has two parts"))?;
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Form("a part is not base64url"));
    let header: Header =
        serde_json::from_slice(&decoded(header)?).map_err(|_| Fault::Form("its head is not as it must be"))?;
    if !["RS256", "PS256", "ES256"].contains(&&*header.alg) {
        return Err(Fault::Algorithm(header.alg.chars().take(20).collect()));
    }
    if header.crit.is_some() {
        return Err(Fault::Form("its head has extensions that must be understood"));
    }
    let signature = decoded(signature)?;
    let mut fitting = keys
        .0
        .iter()
        .filter(|key| key.fits(&header.alg) && (header.kid.is_none() || key.id.is_none() || key.id == header.kid))
        .peekable();
    if fitting.peek().is_none() {
        return Err(Fault::UnknownKey(header.kid.unwrap_or_default().chars().take(64).collect()));
    }
    if !fitting.any(|key| key.has_signed(&header.alg, message.as_bytes(), &signature)) {
        return Err(Fault::Signature);
    }
    let all: Map<String, Value> =
        serde_json::from_slice(&decoded(payload)?).map_err(|_| Fault::Form("it holds no JSON object"))?;
    check(&all, expected, now)?;
    let sub = all.get("sub").and_then(Value::as_str).filter(|sub| (1..=MOST_SUB).contains(&sub.len()));
    Ok(Claims { sub: sub.ok_or(Fault::Nobody)?.to_owned(), all })
}

fn check(all: &Map<String, Value>, expected: &Expected<'_>, now: Wall) -> Result<(), Fault> {
    let text = |name: &str| all.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(Fault::Issuer(text("iss").unwrap_or_default().chars().take(200).collect()));
    }
    let several = match all.get("aud") {
        Some(Value::String(one)) if one == expected.client => false,
        Some(Value::Array(list)) if list.iter().any(|one| one == expected.client) => list.len() > 1,
        _ => return Err(Fault::Audience),
    };
    if (several || all.contains_key("azp")) && text("azp") != Some(expected.client) {
        return Err(Fault::Party);
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(Fault::Nonce);
    }
    let moment = |name: &'static str| {
        let seconds = all.get(name).and_then(Value::as_f64).filter(|seconds| (0.0..1e11).contains(seconds));
        seconds.map(|seconds| Wall::from_micros((seconds * 1e6) as i64)).ok_or(Fault::Time(name))
    };
    let end = moment("exp")?.plus(LEEWAY);
    if now >= end {
        return Err(Fault::Over(now.since(end)));
    }
    let mut begins = vec![moment("iat")?];
    if all.contains_key("nbf") {
        begins.push(moment("nbf")?);
    }
    if let Some(early) = begins.into_iter().filter(|begin| *begin > now.plus(LEEWAY)).max() {
        return Err(Fault::Early(early.since(now)));
    }
    if moment("auth_time")?.plus(LEEWAY) < expected.since {
        return Err(Fault::Stale);
    }
    if let Some(hash) = all.get("at_hash") {
        let half = |token: &str| URL_SAFE_NO_PAD.encode(&digest(&SHA256, token.as_bytes()).as_ref()[..16]);
        if expected.access_token.map(half).as_deref() != hash.as_str() {
            return Err(Fault::AccessToken);
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use std::sync::LazyLock;

    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_772_328_600;
    const ISSUER: &str = "https://sso.example.gov.cn/realms/duty";

    fn wall(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    /// Signs for tests.
    pub struct Signer {
        pair: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl Signer {
        pub fn made() -> Self {
            let random = SystemRandom::new();
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
            Self { pair: pair.expect("it is one"), random }
        }

        pub fn jwk(&self, id: &str) -> Value {
            let point = self.pair.public_key().as_ref();
            let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": x, "y": y})
        }

        pub fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let message = format!("{}.{}", part(header), part(claims));
            let signature = self.pair.sign(&self.random, message.as_bytes()).expect("it signs");
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::made);

    fn keys(all: &[Value]) -> Keys {
        Keys::read(json!({ "keys": all }).to_string().as_bytes()).expect("a set of keys")
    }

    fn good() -> Value {
        json!({
            "iss": ISSUER, "sub": "u-1", "aud": "anmin", "nonce": "n-1", "exp": NOW + 300, "iat": NOW - 2,
            "auth_time": NOW - 5, "name": "李值班",
        })
    }

    fn judged(header: &Value, claims: &Value, keys: &Keys) -> Result<Claims, Fault> {
        let expected = Expected {
            issuer: ISSUER,
            client: "anmin",
            nonce: "n-1",
            access_token: Some("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"),
            since: wall(NOW - 30),
        };
        judge(&SIGNER.sign(header, claims), keys, &expected, wall(NOW))
    }

    /// Goal: nothing is believed that is not meant for us, now, by whom we asked. Method: one good token, and one change a line.
    #[test]
    fn a_token_is_believed_as_it_was_asked_for_and_refused_for_each_thing_that_is_not() {
        let set = keys(&[SIGNER.jwk("k1")]);
        let head = json!({"alg": "ES256", "kid": "k1"});
        assert_eq!(judged(&head, &good(), &set).map(|claims| claims.sub), Ok("u-1".to_owned()));
        let form = |why| Fault::Form(why);
        for (field, value, wanted) in [
            ("iss", json!("https://sso.example.gov.cn/realms/duty/"), Some("not of the provider")),
            ("iss", Value::Null, Some("not of the provider")),
            ("aud", json!("other"), Some("somebody else")),
            ("aud", json!(["other"]), Some("somebody else")),
            ("aud", Value::Null, Some("somebody else")),
            ("aud", json!(["anmin"]), None),
            ("aud", json!(["anmin", "other"]), Some("azp")),
            ("azp", json!("other"), Some("azp")),
            ("azp", json!("anmin"), None),
            ("nonce", json!("n-2"), Some("nonce")),
            ("nonce", Value::Null, Some("nonce")),
            ("exp", json!(NOW - 61), Some("ended 1s ago")),
            ("exp", json!(NOW - 59), None),
            ("exp", Value::Null, Some("`exp` is missing")),
            // What is no number is not passed over.
            ("exp", json!("1999999999"), Some("`exp` is missing")),
            ("exp", json!(1e300), Some("`exp` is missing")),
            ("iat", json!(NOW + 61), Some("begins in 61s")),
            ("iat", json!(NOW + 59), None),
            ("iat", Value::Null, Some("`iat` is missing")),
            ("nbf", json!(NOW + 600), Some("begins in 600s")),
            ("nbf", json!("soon"), Some("`nbf` is missing")),
            ("nbf", json!(NOW - 1), None),
            ("auth_time", json!(NOW - 91), Some("auth_time")),
            ("auth_time", json!(NOW - 89), None),
            ("auth_time", Value::Null, Some("`auth_time` is missing")),
            // The example of OpenID Connect Core 1.0, appendix A.3, is this hash of this access token.
            ("at_hash", json!("77QmUPtjPfzWtF2AnpK9RQ"), None),
            ("at_hash", json!("77QmUPtjPfzWtF2AnpK9RR"), Some("at_hash")),
            ("at_hash", json!(7), Some("at_hash")),
            ("sub", json!(""), Some("names nobody")),
            ("sub", json!(7), Some("names nobody")),
            ("sub", json!("x".repeat(256)), Some("names nobody")),
        ] {
            let mut claims = good();
            match &value {
                Value::Null => drop(claims.as_object_mut().expect("it is one").remove(field)),
                value => claims[field] = value.clone(),
            }
            let found = judged(&head, &claims, &set).err().map(|fault| fault.to_string());
            let fits = match (&found, wanted) {
                (Some(found), Some(wanted)) => found.contains(wanted),
                (found, wanted) => found.is_none() && wanted.is_none(),
            };
            assert!(fits, "{field} {value}: {found:?}, wanted {wanted:?}");
        }
        for (head, wanted) in [
            (json!({"alg": "none", "kid": "k1"}), Fault::Algorithm("none".to_owned())),
            (json!({"alg": "HS256", "kid": "k1"}), Fault::Algorithm("HS256".to_owned())),
            (json!({"alg": "RS256", "kid": "k1"}), Fault::UnknownKey("k1".to_owned())),
            (json!({"alg": "ES256", "kid": "k2"}), Fault::UnknownKey("k2".to_owned())),
            (
                json!({"alg": "ES256", "kid": "k1", "crit": ["b64"]}),
                form("its head has extensions that must be understood"),
            ),
            (json!({"kid": "k1"}), form("its head is not as it must be")),
        ] {
            assert_eq!(judged(&head, &good(), &set), Err(wanted), "{head}");
        }
        assert!(judged(&json!({"alg": "ES256"}), &good(), &set).is_ok(), "one key that needs no name");
    }

    #[test]
    fn only_the_providers_own_signature_counts_and_only_keys_that_sign() {
        let head = json!({"alg": "ES256", "kid": "k1"});
        let another = Signer::made();
        assert_eq!(judged(&head, &good(), &keys(&[another.jwk("k1")])), Err(Fault::Signature));
        let set = keys(&[SIGNER.jwk("k1")]);
        let expected =
            Expected { issuer: ISSUER, client: "anmin", nonce: "n-1", access_token: None, since: wall(NOW - 30) };
        let whole = SIGNER.sign(&head, &good());
        let (message, signature) = whole.rsplit_once('.').expect("three parts");
        let forged = {
            let other = SIGNER.sign(&head, &json!({"sub": "root"}));
            let (message, _) = other.rsplit_once('.').expect("three parts");
            format!("{message}.{signature}")
        };
        for (token, wanted) in [
            (forged, Fault::Signature),
            (format!("{message}."), Fault::Signature),
            (format!("{message}.{signature}="), Fault::Form("a part is not base64url")),
            (format!("{whole}.x"), Fault::Form("its head is not as it must be")),
            ("nothing".to_owned(), Fault::Form("it has no parts")),
            ("a.b".to_owned(), Fault::Form("it has two parts")),
        ] {
            let found = judge(&token, &set, &expected, wall(NOW)).expect_err("it is not signed so");
            // Four parts: the head is then another text.
            assert!(
                found == wanted || matches!(found, Fault::Form(_)) && matches!(wanted, Fault::Form(_)),
                "{token}: {found:?}"
            );
        }
        let mut for_secrets = SIGNER.jwk("k1");
        for_secrets["use"] = json!("enc");
        let mut for_another = SIGNER.jwk("k1");
        for_another["alg"] = json!("ES384");
        let mut short = SIGNER.jwk("k1");
        short["x"] = json!("AQAB");
        for jwk in [for_secrets, for_another, short, json!({"kty": "oct", "k": "AQAB", "kid": "k1"})] {
            assert_eq!(
                judged(&head, &good(), &keys(std::slice::from_ref(&jwk))),
                Err(Fault::UnknownKey("k1".to_owned())),
                "{jwk}"
            );
        }
    }

    /// By the example of RFC 7515, appendix A.2: a key of 2048 bits that nobody here made.
    #[test]
    fn a_signature_by_rsa_of_another_hand_is_known() {
        let jwk = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddx\
            HmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let expected = Expected { issuer: "x", client: "x", nonce: "x", access_token: None, since: wall(NOW) };
        let found = judge(token, &keys(std::slice::from_ref(&jwk)), &expected, wall(NOW));
        assert_eq!(found, Err(Fault::Issuer("joe".to_owned())), "its signature is right");
        let mut changed = token.to_owned();
        changed.replace_range(25..26, "K");
        assert_eq!(judge(&changed, &keys(&[jwk]), &expected, wall(NOW)), Err(Fault::Signature));
    }
}
