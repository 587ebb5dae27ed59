//! `[oidc]`: people who sign in at a provider of their office, by OpenID Connect Core 1.0.
//!
//! What it promises: the authorization code flow with PKCE (RFC 7636), state and nonce; a provider that is exactly the one
//! that was configured; an [ID token](token) that is checked whole; and a role only for who has a claim that the site maps to one.
//! Every sign-in has the person show who they are anew (`max_age=0`): a duty desk is a screen that several people share. It keeps
//! no people and no browsers, which [`crate::web`] does, and no token longer than a sign-in takes.

mod provider;
pub mod token;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anmin_rules::rule::Text;
use anmin_sensors::document::{Reader, did_you_mean};
use serde_json::{Map, Value};
use url::{Host, Url};

pub use provider::{Flow, Provider, Trouble};

use crate::config::site::text;
use crate::credentials::{ClientTls, Secret, named_file};
use crate::delivery::http::Target;
use crate::outgoing::Outgoing;
use crate::store::people::{Places, Role};

/// Where the provider sends the browser back to, behind the address of the page.
pub const CALLBACK: &str = "/oidc/callback";
/// Longest name that journal and screens give.
const MOST_SHOWN: usize = 64;

/// `[oidc]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As the provider names itself, to the letter.
    pub issuer: String,
    client: String,
    secret: Option<Secret>,
    /// Where browsers find this anmin: scheme, host and port.
    pub page: String,
    /// Stands on the button.
    pub name: Text,
    scopes: Vec<String>,
    role_claim: String,
    roles: Vec<Mapped>,
    tls: ClientTls,
    outgoing: Outgoing,
}

/// `[[oidc.role]]`: who has this value in the claim has this role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    value: String,
    role: Role,
    places: Places,
}

/// Whom the provider has named, with the role that the site gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub sub: String,
    pub shown: String,
    /// None: whatever they have there opens nothing here.
    pub role: Option<(Role, Places)>,
}

impl Settings {
    /// `places`: what an account of this site may be bound to; `hosts`: `[web] hosts`.
    pub fn read(r: &Reader<'_>, base: &Path, places: &BTreeSet<String>, hosts: &[String]) -> Option<Self> {
        let issuer: Option<String> = r.required("issuer");
        let issuer = issuer.filter(|issuer| is_safe(r, "issuer", issuer).is_some());
        let client: Option<String> = r.required("client_id");
        let secret = r.optional::<String>("client_secret_file").and_then(|file| {
            let read = Secret::read(&named_file(base, file));
            read.map_err(|why| r.fault("client_secret_file", format!("`client_secret_file`: {why}"), None)).ok()
        });
        let page: Option<String> = r.required("page");
        let page = page.and_then(|page| page_of(r, &page, hosts));
        let name = text(r, "name");
        let scopes = r.or("scopes", vec!["openid".to_owned(), "profile".to_owned()]);
        if !scopes.iter().any(|scope| scope == "openid") || scopes.iter().any(|scope| scope.contains([' ', '"', '\\']))
        {
            let hint = "such as [\"openid\", \"profile\", \"groups\"]";
            r.fault(
                "scopes",
                format!("`scopes` is {scopes:?}, expected plain words, \"openid\" among them"),
                Some(hint.into()),
            );
        }
        let role_claim: String = r.or("role_claim", "roles".to_owned());
        let roles: Vec<Mapped> = r.tables("role").iter().filter_map(|r| Mapped::read(r, places)).collect();
        if r.tables("role").is_empty() {
            let hint = "add [[oidc.role]] with `value`, what the claim holds, and `role`";
            r.fault("role", "`[oidc]` gives nobody a role, so that nobody could come in by it", Some(hint.to_owned()));
        }
        let tls = ClientTls::read(r, base);
        r.finish();
        (!r.is_faulty()).then_some(())?;
        let usual = Text { zh: "统一身份认证".to_owned(), en: "single sign-on".to_owned() };
        let (issuer, client, page) = (issuer?, client?, page?);
        let (name, outgoing) = (name.unwrap_or(usual), Outgoing::default());
        Some(Self { issuer, client, secret, page, name, scopes, role_claim, roles, tls, outgoing })
    }

    /// Goes only where `outgoing` lets it; a fault where that is nowhere.
    pub fn heed(&mut self, outgoing: &Outgoing, r: &Reader<'_>) {
        outgoing.check(r, "issuer", Url::parse(&self.issuer).ok().as_ref().and_then(Url::host_str).unwrap_or_default());
        self.outgoing = outgoing.clone();
    }

    /// A part of the provider that it has named itself. It may stand on another host, but by no weaker way.
    fn target(&self, url: &str) -> Result<Target, String> {
        if !self.issuer.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("{url:?} is not https"));
        }
        let target = Target::new(url, self.tls.clone(), false).map_err(|(why, _)| why)?;
        Ok(target.heeding(&self.outgoing))
    }

    fn redirect(&self) -> String {
        format!("{}{CALLBACK}", self.page)
    }

    /// The first `[[oidc.role]]` in the order of the file decides the role; the places of all that give this role are joined.
    fn role_of(&self, claims: &Map<String, Value>) -> Option<(Role, Places)> {
        let held: Vec<&str> = match self.claim(claims) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let given: Vec<&Mapped> = self.roles.iter().filter(|mapped| held.contains(&&*mapped.value)).collect();
        let role = given.first()?.role;
        let same = || given.iter().filter(|mapped| mapped.role == role);
        let everywhere = same().any(|mapped| mapped.places.is_everywhere());
        let places = same().filter(|_| !everywhere).flat_map(|mapped| mapped.places.words());
        Some((role, Places::of(places)))
    }

    /// By its name, or as a JSON pointer: `/realm_access/roles`.
    fn claim<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        match self.role_claim.strip_prefix('/').map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
            None => claims.get(&self.role_claim),
            Some((first, "")) => claims.get(first),
            Some((first, rest)) => claims.get(first)?.pointer(&format!("/{rest}")),
        }
    }

    fn named(&self, sub: String, claims: &Map<String, Value>) -> Named {
        let said = ["name", "preferred_username", "email"].iter().filter_map(|name| claims.get(*name)?.as_str());
        let plain = |text: &str| -> String {
            text.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect::<String>().trim().to_owned()
        };
        let shown = said.chain([&*sub]).map(plain).find(|shown| !shown.is_empty()).unwrap_or_else(|| "?".to_owned());
        Named { shown, role: self.role_of(claims), sub }
    }
}

impl Mapped {
    fn read(r: &Reader<'_>, known: &BTreeSet<String>) -> Option<Self> {
        let value: Option<String> = r.required("value");
        let roles: Vec<(&'static str, Role)> =
            Role::ALL.into_iter().filter(|role| *role != Role::Device).map(|role| (role.as_str(), role)).collect();
        let role = r.choice("role", &roles);
        if role.is_none() && !r.has("role") {
            r.fault("role", "`role` is missing", None);
        }
        let places: Vec<String> = r.or("places", Vec::new());
        for place in places.iter().filter(|place| !known.contains(*place)) {
            let hint = did_you_mean(place, known.iter().map(String::as_str))
                .unwrap_or_else(|| "a building by its name, `area:` or `grid:` with a name".to_owned());
            r.fault("places", format!("`places` holds {place:?}, which this site does not have"), Some(hint));
        }
        let places = Places::of(places);
        match role {
            Some(Role::Manager) if places.is_everywhere() => {
                r.fault("role", "a manager needs `places`", Some("name the buildings".to_owned()));
            }
            Some(Role::Administrator | Role::Auditor) if !places.is_everywhere() => {
                r.fault("places", "administrators and auditors are not bound to places", None);
            }
            _ => {}
        }
        r.finish();
        Some(Self { value: value?, role: role?, places })
    }
}

/// `https`, or `http` on this machine alone: what passes there is who somebody is.
fn is_safe(r: &Reader<'_>, key: &'static str, text: &str) -> Option<Url> {
    let url =
        Url::parse(text).ok().filter(|url| url.host().is_some() && url.query().is_none() && url.fragment().is_none());
    let own = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    };
    let safe = url.filter(|url| {
        let bare = url.username().is_empty() && url.password().is_none();
        bare && (url.scheme() == "https" || url.scheme() == "http" && own(url))
    });
    if safe.is_none() {
        let hint = "http:// only on this machine, for a trial; no user's name, no `?` and no `#`";
        r.fault(key, format!("`{key}` is {text:?}, expected an address with https://"), Some(hint.to_owned()));
    }
    safe
}

fn page_of(r: &Reader<'_>, text: &str, hosts: &[String]) -> Option<String> {
    let url = is_safe(r, "page", text)?;
    if url.path() != "/" {
        let hint = "such as \"https://anmin.example.cn\"".to_owned();
        r.fault("page", format!("`page` is {text:?}, expected scheme, host and port alone"), Some(hint));
        return None;
    }
    if let Some(Host::Domain(name)) = url.host()
        && name != "localhost"
        && !hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    {
        let hint = format!("add {name:?} to `hosts` in [web], or nobody who comes back by this name is let in");
        r.fault("page", format!("`page` has the name {name:?}, which is not one of ours"), Some(hint));
        return None;
    }
    Some(url.origin().ascii_serialization())
}

#[cfg(test)]
pub(crate) mod tests {
    use anmin_sensors::document::{Document, Faults};
    use serde_json::json;

    use super::*;

    pub const SOUND: &str = r#"
issuer = "https://sso.example.gov.cn/realms/duty"
client_id = "anmin"
page = "https://anmin.lan:8443"
role_claim = "/realm_access/roles"

[[role]]
value = "duty-lead"
role = "administrator"

[[role]]
value = "duty"
role = "officer"

[[role]]
value = "building-3"
role = "manager"
places = ["3"]

[[role]]
value = "east"
role = "manager"
places = ["area:east"]
"#;

    pub fn read(text: &str) -> (Option<Settings>, Vec<String>) {
        let faults = Faults::default();
        let document = Document::parse("t.toml", text, &faults).expect("the test writes TOML");
        let places = ["3", "area:east"].map(str::to_owned).into();
        let settings = Settings::read(&document.root(&faults), Path::new("/"), &places, &["anmin.lan".to_owned()]);
        (settings, faults.take().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_role_of_the_file_decides_and_places_of_the_same_role_are_joined() {
        let settings = read(SOUND).0.expect("it is sound");
        let places = |words: &[&str]| Places::of(words.iter().map(|word| (*word).to_owned()));
        for (held, wanted) in [
            (json!(["offline", "duty"]), Some((Role::Officer, Places::EVERYWHERE))),
            (json!("duty"), Some((Role::Officer, Places::EVERYWHERE))),
            (json!(["building-3", "duty-lead", "duty"]), Some((Role::Administrator, Places::EVERYWHERE))),
            (json!(["east", "building-3"]), Some((Role::Manager, places(&["3", "area:east"])))),
            (json!(["Duty", "duty "]), None),
            (json!([]), None),
            (json!({"duty": true}), None),
            (json!(7), None),
        ] {
            let claims = json!({"realm_access": {"roles": held}});
            assert_eq!(settings.role_of(claims.as_object().expect("it is one")), wanted, "{held}");
        }
        assert_eq!(settings.role_of(&Map::new()), None);
        // Names of claims may be addresses.
        let by_name = Settings { role_claim: "https://example.cn/roles".to_owned(), ..settings };
        let claims = json!({"https://example.cn/roles": ["duty"]});
        assert!(by_name.role_of(claims.as_object().expect("it is one")).is_some());
    }

    #[test]
    fn who_has_no_name_is_called_by_what_the_provider_calls_them() {
        let settings = read(SOUND).0.expect("it is sound");
        for (claims, wanted) in [
            (json!({"name": " 李\u{1b}值班 ", "email": "li@example.cn"}), "李值班"),
            (json!({"name": "", "preferred_username": "li"}), "li"),
            (json!({"name": 7}), "u-1"),
        ] {
            let named = settings.named("u-1".to_owned(), claims.as_object().expect("it is one"));
            assert_eq!((&*named.shown, named.role), (wanted, None), "{claims}");
        }
    }

    #[test]
    fn what_could_let_in_whoever_asks_or_send_them_elsewhere_is_a_fault() {
        assert_eq!(read(SOUND).1, Vec::<String>::new());
        let mut without = SOUND.split("\n[[role]]").next().expect("its head").to_owned();
        without.push('\n');
        for (text, wanted) in [
            (SOUND.replace("https://sso", "http://sso"), "t.toml:2:10: `issuer` is \"http://sso"),
            (SOUND.replace("https://sso", "http://127.0.0.1.sso"), "expected an address with https://"),
            (SOUND.replace("https://sso", "https://li:secret@sso"), "no user's name"),
            (SOUND.replace("duty\"\nclient", "duty?x\"\nclient"), "no `?`"),
            (SOUND.replace("anmin.lan:8443", "anmin.lan/desk"), "scheme, host and port alone"),
            (SOUND.replace("anmin.lan", "other.lan"), "add \"other.lan\" to `hosts` in [web]"),
            (SOUND.replace("\"officer\"", "\"device\""), "`role"),
            (SOUND.replace("places = [\"3\"]", ""), "a manager needs `places`"),
            (SOUND.replace("[\"3\"]", "[\"4\"]"), "which this site does not have"),
            (SOUND.replace("\"administrator\"", "\"administrator\"\nplaces = [\"3\"]"), "not bound to places"),
            (SOUND.replace("role_claim", "scopes = [\"profile\"]\nrole_claim"), "\"openid\" among them"),
            (
                SOUND.replace("role_claim", "client_secret_file = \"nowhere\"\nrole_claim"),
                "`client_secret_file`: /nowhere",
            ),
            (without, "gives nobody a role"),
        ] {
            let (_, faults) = read(&text);
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{wanted}: {faults:?}");
        }
        // On this machine, for a trial.
        let trial = SOUND.replace("https://sso.example.gov.cn", "http://127.0.0.1:9000");
        assert!(read(&trial.replace("https://anmin.lan:8443", "http://127.0.0.1:8420")).0.is_some());
    }
}
