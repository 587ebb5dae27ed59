//! Signing in by an OpenID provider that nobody of us wrote: panva's oidc-provider. Each step is made as a browser makes it, from the
//! button to the provider's own forms and back.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anmin_tests::daemon::{DEADLINE, Daemon, pause};
use anmin_tests::peers::{Provider, free_port};
use anmin_tests::people::Person;
use anmin_tests::site::Site;
use serde_json::{Value, json};

const SITE: &str = "[broker]\nlisten = \"127.0.0.1:0\"\n[[place]]\nid = \"east\"\nbuilding = \"3\"\n";

/// `issuer_host`: how the site calls the host of the provider.
fn start(name: &str, issuer_host: &str) -> (Site, Daemon, Provider, Person) {
    let (web, port) = (free_port(), free_port());
    let provider = Provider::run(port, &format!("http://127.0.0.1:{web}"));
    let site = Site::new(name, &format!("{SITE}{}", provider.table(issuer_host)));
    provider.write(&site);
    let daemon = Daemon::start(site.folder());
    let admin = Person::set_up(daemon.web, &site, "li", "李主管");
    (site, daemon, provider, admin)
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

/// Keeps cookies by host and path, as browsers do: not by port.
#[derive(Default)]
struct Browser {
    page: String,
    jar: BTreeMap<(String, String), String>,
}

impl Browser {
    fn new(provider: &Provider) -> Self {
        Self { page: provider.page.clone(), jar: BTreeMap::new() }
    }

    /// `cross`: another site sends it, so that what is strict stays at home.
    fn send(&mut self, method: &str, url: &str, kind: &str, body: &str, cross: bool) -> Answer {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url}"));
        let (host, path) =
            rest.split_once('/').map_or((rest, "/".to_owned()), |(host, path)| (host, format!("/{path}")));
        let bare = path.split('?').next().expect("it has a first part").to_owned();
        let sent =
            self.jar.iter().filter(|((_, at), cookie)| bare.starts_with(&**at) && !(cross && cookie.ends_with('!')));
        let cookies: Vec<String> =
            sent.map(|((name, _), value)| format!("{name}={}", value.trim_end_matches('!'))).collect();
        let origin =
            if method == "POST" { format!("Origin: http://{host}\r\nX-Anmin: page\r\n") } else { String::new() };
        let mut stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("{url}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let site = if cross { "cross-site" } else { "same-origin" };
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nSec-Fetch-Site: {site}\r\n{origin}Cookie: {}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("the peer listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{url}: {error}"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{url}: {answer:?}"));
        let headers = || head.lines().filter_map(|line| line.split_once(": "));
        for (_, cookie) in headers().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            let mut parts = cookie.split(';').map(str::trim);
            let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a pair");
            let lower: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
            let at = cookie
                .split(';')
                .find_map(|part| part.trim().strip_prefix("path=").or(part.trim().strip_prefix("Path=")));
            let key = (name.to_owned(), at.unwrap_or("/").to_owned());
            let strict = if lower.iter().any(|part| part == "samesite=strict") { "!" } else { "" };
            match value {
                "" => drop(self.jar.remove(&key)),
                value => drop(self.jar.insert(key, format!("{value}{strict}"))),
            }
        }
        let location = headers().find(|(name, _)| name.eq_ignore_ascii_case("location")).map(|(_, to)| to.to_owned());
        let location = location.map(|to| if to.starts_with('/') { format!("http://{host}{to}") } else { to });
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, location, body: body.to_owned() }
    }

    fn command(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v1{path}", self.page);
        let answer = self.send("POST", &url, "application/json", &body.to_string(), false);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
    }

    fn ask(&mut self, path: &str) -> (u16, Value) {
        let url = format!("{}/api/v1{path}", self.page);
        let answer = self.send("GET", &url, "text/plain", "", false);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
    }

    /// The button: where the provider is.
    fn leave(&mut self) -> String {
        let (status, body) = self.command("/session/oidc", &json!({}));
        assert_eq!(status, 200, "{body}");
        body["address"].as_str().expect("an address").to_owned()
    }

    /// Goes through the provider's forms as `name`, to the address that it sends the browser back to.
    fn through(&mut self, mut at: String, name: &str) -> String {
        for _ in 0..12 {
            if at.starts_with(&self.page) {
                return at;
            }
            let answer = self.send("GET", &at, "text/plain", "", true);
            if let Some(to) = answer.location {
                at = to;
                continue;
            }
            let has = |word: &str| answer.body.contains(&format!("name=\"prompt\" value=\"{word}\""));
            let form = if has("login") {
                format!("prompt=login&login={name}&password=any")
            } else {
                assert!(has("consent"), "{at}: {}", answer.body);
                "prompt=consent".to_owned()
            };
            let sent = self.send("POST", &at, "application/x-www-form-urlencoded", &form, false);
            at = sent.location.unwrap_or_else(|| panic!("{at}: {}", sent.body));
        }
        panic!("the provider sends one round and round: {at}")
    }

    /// Comes back by that address; where anmin sends the browser then, without its own address.
    fn back(&mut self, at: &str) -> String {
        let answer = self.send("GET", at, "text/plain", "", true);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let to = answer.location.expect("it is sent on");
        to.strip_prefix(&self.page).unwrap_or_else(|| panic!("sent elsewhere: {to}")).to_owned()
    }

    fn sign_in(&mut self, name: &str) -> String {
        let leaving = self.leave();
        let back = self.through(leaving, name);
        self.back(&back)
    }
}

/// A row of the audit: what, who, whether it was refused, by what.
type Row = (String, String, bool, Value);

/// Those that tell of signing in, the newest first.
fn told(rows: &Value) -> Vec<Row> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row =
        |row: &Value| (text(&row["what"]), text(&row["who"]), !row["refused"].is_null(), row["detail"]["by"].clone());
    let rows = rows["rows"].as_array().unwrap_or_else(|| panic!("{rows:#}"));
    rows.iter().map(row).filter(|(what, ..)| what.starts_with("session.")).collect()
}

/// Waits until the audit has them so: a refusal is answered before it is written down.
fn wait_told(admin: &Person, what: &str, wanted: impl Fn(&[Row]) -> bool) {
    admin.wait("/api/v1/audit?limit=50", what, |rows| wanted(&told(rows)));
}

fn wait_last(admin: &Person, what: &str, refused: bool) {
    let wanted: Row = (what.to_owned(), "姓名 wang".to_owned(), refused, json!("oidc"));
    wait_told(admin, &format!("{wanted:?}"), |rows| rows[0] == wanted);
}

#[test]
fn who_signs_in_by_the_provider_has_the_role_that_the_site_gives_and_is_signed_out_like_anybody() {
    let (_site, mut daemon, mut provider, admin) = start("oidc-roles", "127.0.0.1");
    let issuer = json!(format!("http://127.0.0.1:{}", provider.port));
    provider.roles("wang", "staff duty");
    let mut browser = Browser::new(&provider);
    assert_eq!(browser.ask("/session").1["provider"]["en"], "the county's sign-in");
    assert_eq!(browser.sign_in("wang"), "/");
    let (_, me) = browser.ask("/session");
    assert_eq!((&me["shown"], &me["role"], &me["by_provider"]), (&json!("姓名 wang"), &json!("officer"), &json!(true)));
    assert_eq!(browser.ask("/alarms").0, 200);
    assert_eq!(browser.ask("/accounts").0, 403, "an officer");
    wait_last(&admin, "session.sign_in", false);

    // A locked screen is opened there, and by no password.
    assert_eq!(browser.command("/session/lock", &json!({})).0, 200);
    assert_eq!(browser.command("/drills", &json!({})).1["code"], "locked");
    assert_eq!(browser.command("/session/unlock", &json!({"password": "any"})).1["code"], "of_the_provider");
    let before = browser.jar.clone();
    assert_eq!(browser.sign_in("wang"), "/");
    let kept = |jar: &BTreeMap<(String, String), String>| {
        jar.iter().find(|(_, value)| value.ends_with('!')).map(|(_, v)| v.clone())
    };
    assert_eq!(kept(&browser.jar), kept(&before), "the sign-in goes on");
    assert_ne!(browser.command("/drills", &json!({})).1["code"], "locked");
    wait_last(&admin, "session.unlock", false);

    // What is taken away there is gone at the next sign-in, everywhere.
    provider.roles("wang", "building-3");
    let mut second = Browser::new(&provider);
    assert_eq!(second.sign_in("wang"), "/");
    for browser in [&mut browser, &mut second] {
        let (_, me) = browser.ask("/session");
        assert_eq!((&me["role"], &me["places"]), (&json!("manager"), &json!(["3"])));
    }
    provider.roles("wang", "staff");
    assert_eq!(Browser::new(&provider).sign_in("wang"), "/?oidc=no_role");
    assert_eq!(second.ask("/alarms").1["code"], "signed_out");
    wait_last(&admin, "session.sign_in", true);
    assert_eq!(Browser::new(&provider).sign_in("nobody"), "/?oidc=no_role");

    // An administrator sees who it is, changes nothing of theirs, and shuts them out.
    let accounts = admin.get("/api/v1/accounts");
    let theirs = |account: &&Value| account["provider"] == issuer;
    let wang = accounts.as_array().expect("a list").iter().find(theirs).expect("wang is there");
    assert_eq!(accounts.as_array().map(Vec::len), Some(2), "who has no role has no account: {accounts:#}");
    let name = wang["name"].as_str().expect("a name");
    assert!(name.starts_with("oidc@"), "{name}");
    let path = |what: &str| format!("/api/v1/accounts/{}/{what}", name.replace('@', "%40"));
    let body = json!({"shown": "李主管 2", "role": "administrator", "places": []});
    assert_eq!(admin.try_to(&path("edit"), &body).1["code"], "of_the_provider");
    assert_eq!(admin.try_to(&path("reset"), &json!({})).1["code"], "of_the_provider");
    provider.roles("wang", "duty");
    assert_eq!(second.sign_in("wang"), "/");
    assert_eq!(admin.post(&path("sign-ins/end"), &json!({}))["done"], true);
    assert_eq!(second.ask("/alarms").1["code"], "signed_out");
    assert_eq!(second.sign_in("wang"), "/");
    admin.post(&path("disable"), &json!({}));
    assert_eq!(second.ask("/alarms").1["code"], "signed_out");
    assert_eq!(second.sign_in("wang"), "/?oidc=disabled");

    // The one administrator with a password stays, whoever else is one.
    provider.roles("zhao", "duty-lead");
    let mut lead = Browser::new(&provider);
    assert_eq!(lead.sign_in("zhao"), "/");
    assert_eq!(lead.command("/accounts/li/disable", &json!({})).1["code"], "last_administrator");
    let log = daemon.said();
    for secret in ["a secret/of", "a+secret", "code=", "eyJ"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn what_comes_back_wrong_late_twice_or_from_another_browser_opens_nothing() {
    let (_site, _daemon, mut provider, admin) = start("oidc-back", "127.0.0.1");
    provider.roles("wang", "duty");
    let page = provider.page.clone();
    let mut browser = Browser::new(&provider);
    assert_eq!(browser.back(&format!("{page}/oidc/callback?code=x&state=y")), "/?oidc=late");
    assert_eq!(browser.back(&format!("{page}/oidc/callback")), "/?oidc=late");
    let leaving = browser.leave();
    let back = browser.through(leaving, "wang");
    let other = back.replace("state=", "state=x");
    let from = Browser::new(&provider).back(&back);
    assert_eq!((browser.back(&other), from), ("/?oidc=late".to_owned(), "/?oidc=late".to_owned()));
    assert_eq!(browser.back(&other), "/?oidc=late", "its cookie went with the first mistake");

    // The cookie of the way stays with the browser that was sent off, and what came back is used up.
    let mut browser = Browser::new(&provider);
    let leaving = browser.leave();
    let back = browser.through(leaving, "wang");
    let jar = browser.jar.clone();
    assert_eq!(browser.back(&back), "/");
    let mut again = Browser { page: page.clone(), jar };
    assert_eq!(again.back(&back), "/?oidc=late");
    assert_eq!(again.ask("/alarms").1["code"], "signed_out");

    // Turned back at the provider; another provider's answer; a code of nobody.
    for (from, to, wanted) in [
        ("code=", "error=access_denied&none=", "refused"),
        ("iss=http", "iss=https", "unsound"),
        ("code=", "code=x", "refused"),
    ] {
        let mut browser = Browser::new(&provider);
        let leaving = browser.leave();
        let back = browser.through(leaving, "wang").replacen(from, to, 1);
        assert_eq!(browser.back(&back), format!("/?oidc={wanted}"), "{to}");
        assert_eq!(browser.ask("/alarms").1["code"], "signed_out");
    }
    // Who was sent off and not let in; a stranger's link is no try.
    wait_told(&admin, "three refusals", |rows| {
        rows.iter().filter(|(_, _, refused, by)| *refused && by == "oidc").count() == 3
    });

    // By another name of this machine the way back would end elsewhere.
    let elsewhere = page.replace("127.0.0.1", "localhost");
    let mut browser = Browser { page: elsewhere, jar: BTreeMap::new() };
    assert_eq!(browser.command("/session/oidc", &json!({})).1["code"], "other_address");
}

#[test]
fn a_provider_that_is_away_or_has_new_keys_keeps_nobody_out_who_has_a_password() {
    let (_site, mut daemon, mut provider, admin) = start("oidc-away", "127.0.0.1");
    provider.roles("wang", "duty");
    let mut browser = Browser::new(&provider);
    assert_eq!(browser.sign_in("wang"), "/");
    provider.again();
    provider.roles("wang", "duty");
    assert_eq!(Browser::new(&provider).sign_in("wang"), "/", "its key is another one");

    // Gone while somebody was at its form.
    let mut away = Browser::new(&provider);
    let leaving = away.leave();
    let back = away.through(leaving, "wang");
    provider.kill();
    assert_eq!(away.back(&back), "/?oidc=away");
    daemon.until("the provider cannot be asked");
    let own = admin.add("zhao", "赵", "officer", &[]);
    assert_eq!(own.ask("/api/v1/alarms").0, 200);
    assert_eq!(browser.ask("/alarms").0, 200, "who is signed in stays so");
}

#[test]
fn a_provider_that_calls_itself_otherwise_is_not_asked_and_one_that_is_not_there_is_said() {
    let (_site, mut daemon, mut provider, _admin) = start("oidc-lies", "localhost");
    let mut browser = Browser::new(&provider);
    let (status, body) = browser.command("/session/oidc", &json!({}));
    assert_eq!((status, &body["code"]), (502, &json!("provider_unsound")));
    daemon.until("it calls itself");
    provider.kill();
    let deadline = std::time::Instant::now() + DEADLINE;
    // What was found out is believed for three seconds.
    while browser.command("/session/oidc", &json!({})).1["code"] != "provider_away" {
        assert!(std::time::Instant::now() < deadline);
        pause();
    }
}
