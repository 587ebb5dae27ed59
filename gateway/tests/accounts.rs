//! Who may do what, over real sockets: every route with every role, in its own and in other buildings; signing in and all
//! that somebody could try at the door. The main loop behind it is made up; time moves by hand.

mod peers;
mod served;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anmin::clock::Clock;
use anmin::store::people::{Account, ApiToken, Kept, Places, Principal, Role};
use anmin::web::authority::{COMMANDS, Right, allows};
use anmin::web::{RouteRow, routes};
use anmin_sensors::point::Place;
use anmin_sensors::time::Wall;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, RETRY_AFTER, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use peers::{Folder, soon};
use serde_json::{Value, json};
use served::desk::id;
use served::{Served, serve_behind, serve_people};
use tokio::net::TcpSocket;

const START: Wall = Wall::from_millis(1_772_328_600_000);
/// Where alarm and incident 1 are, and where they are not.
const OWN: &str = "3";
const OTHER: &str = "1";

fn sum(secret: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token for each role: everywhere, in building 3, in building 1. The secret is its name.
fn tokens() -> Vec<ApiToken> {
    let of = |role: Role, place: &str| {
        let name = format!("{}-{place}", role.as_str());
        ApiToken {
            sum: sum(&name),
            name,
            role,
            places: Places::of((!place.is_empty()).then(|| place.to_owned())),
            created: START,
            expires: START.plus(Duration::from_secs(90 * 86_400)),
            by: "li".to_owned(),
        }
    };
    Role::ALL.into_iter().flat_map(|role| ["", OWN, OTHER].map(|place| of(role, place))).collect()
}

struct Site {
    served: Served,
    clock: Clock,
    folder: Folder,
}

/// Who a request says to be.
#[derive(Clone, Copy)]
enum As<'a> {
    Nobody,
    Token(&'a str),
    Cookie(&'a str),
}

impl Site {
    async fn open(name: &str, people: Kept) -> Self {
        let (clock, folder) = (Clock::manual(START), Folder::new(name));
        let served = serve_people(None, true, people, clock.clone(), Some(&folder.0)).await;
        Self { served, clock, folder }
    }

    async fn with_tokens(name: &str) -> Self {
        Self::open(name, Kept { tokens: tokens(), whole: false, ..Kept::default() }).await
    }

    /// From one of the addresses of this machine.
    async fn send_from(&self, host: u8, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))).expect("all of 127/8 is ours");
        let stream = socket.connect(self.served.address).await.expect("the server listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    fn request(&self, who: As<'_>, method: &Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.served.address.to_string());
        request = match who {
            As::Nobody => request,
            As::Token(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            As::Cookie(cookie) => request.header(COOKIE, cookie).header("x-anmin", "page"),
        };
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(body.to_string())).expect("a good request")
    }

    async fn get(&self, who: As<'_>, path: &str) -> (StatusCode, Value) {
        read(self.send_from(1, self.request(who, &Method::GET, &format!("/api/v1{path}"), &Value::Null)).await).await
    }

    async fn post(&self, who: As<'_>, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.send_from(1, self.request(who, &Method::POST, &format!("/api/v1{path}"), body)).await).await
    }

    fn code(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("setup-code")).expect("the set-up code is there").trim().to_owned()
    }

    /// The first administrator, `li`; gives the cookie.
    async fn set_up(&self) -> String {
        let body = json!({"code": self.code(), "account": "li", "shown": "李主管", "password": PASSWORD});
        let request = self.request(As::Nobody, &Method::POST, "/api/v1/session/set-up", &body);
        cookie(&self.send_from(1, request).await)
    }

    /// Signs in from an address; the cookie, or the status and code of the refusal.
    async fn sign_in_from(&self, host: u8, account: &str, password: &str) -> Result<String, (u16, String)> {
        let body = json!({"account": account, "password": password});
        let response = self.send_from(host, self.request(As::Nobody, &Method::POST, "/api/v1/session", &body)).await;
        if response.status() == StatusCode::OK {
            return Ok(cookie(&response));
        }
        let (status, body) = read(response).await;
        Err((status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned()))
    }

    /// An account that the administrator has added and that has set its own password; gives the cookie.
    async fn person(&self, admin: &str, name: &str, role: Role, places: &[&str]) -> String {
        let body = json!({"name": name, "shown": format!("姓名 {name}"), "role": role.as_str(), "places": places});
        let (status, added) = self.post(As::Cookie(admin), "/accounts", &body).await;
        assert_eq!(status, StatusCode::OK, "{added}");
        let once = added["password"].as_str().expect("a password").to_owned();
        let cookie = self.sign_in_from(1, name, &once).await.expect("it opens the account once");
        let (status, body) = self.get(As::Cookie(&cookie), "/alarms").await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("must_change")));
        let (status, _) =
            self.post(As::Cookie(&cookie), "/session/password", &json!({"old": once, "new": PASSWORD})).await;
        assert_eq!(status, StatusCode::OK);
        cookie
    }
}

const PASSWORD: &str = "correct horse battery staple";

fn cookie(response: &Response<Incoming>) -> String {
    let set = response.headers().get(SET_COOKIE).expect("a cookie").to_str().expect("plain text");
    set.split(';').next().expect("a pair").to_owned()
}

async fn read(response: Response<Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    if response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream") {
        return (status, Value::Null);
    }
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// The path with one object of building 3 in it.
fn path(row: &RouteRow) -> String {
    let id = id(1).to_string();
    [
        ("{id}/discard-session", "plant/discard-session"),
        ("{id}", &*id),
        ("{token}", "nothing"),
        ("{action}", if row.path.contains("/stations/") { "on-duty" } else { "acknowledge" }),
        ("{station}", "south"),
        ("{step}", "accept"),
        ("{device}", "b3-5-gas"),
        ("{subscriber}", "office"),
        ("{identifier}", "nothing"),
        ("{name}", if row.path.contains("/points/") { "lel" } else { "nobody" }),
    ]
    .into_iter()
    .fold(row.path.clone(), |path, (word, value)| path.replace(word, value))
}

/// Every building that an answer names.
fn buildings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("building").and_then(Value::as_str).map(str::to_owned));
            if let Some(choices) = fields.get("buildings").and_then(Value::as_array) {
                found.extend(choices.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            fields.values().for_each(|inner| buildings(inner, found));
        }
        Value::Array(rows) => rows.iter().for_each(|inner| buildings(inner, found)),
        _ => {}
    }
}

/// Goal: nobody comes to what the table does not give them. Method: every route that the router has, with no credentials and
/// with every role, for all of the site, for the building of what is asked for, and for another one.
#[tokio::test]
async fn every_route_lets_in_whom_the_table_names_and_shows_them_their_own_places_only() {
    let site = Site::with_tokens("matrix").await;
    let rows = routes();
    assert!(rows.len() > 50, "{}", rows.len());
    for row in &rows {
        let path = path(row);
        let ask =
            async |who: As<'_>| read(site.send_from(1, site.request(who, &row.method, &path, &json!({}))).await).await;
        let (status, _) = ask(As::Nobody).await;
        // An office that warns shows the token of its source, which is nobody's account.
        let open = row.right == Right::Anybody && !row.path.contains("/warnings/");
        assert_eq!(status == StatusCode::UNAUTHORIZED, !open, "{row:?} without credentials: {status}");
        for token in tokens() {
            let principal = Principal {
                account: token.name.clone(),
                shown: token.name.clone(),
                role: token.role,
                places: token.places.clone(),
            };
            let (status, body) = ask(As::Token(&token.name)).await;
            let told = format!("{} {} as {}: {status} {body}", row.method, row.path, token.name);
            if row.right == Right::Anybody {
                continue;
            }
            assert_eq!(status == StatusCode::FORBIDDEN, !allows(&principal, row.right), "{told}");
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{told}");
            if status == StatusCode::FORBIDDEN {
                assert_eq!(body["code"], json!("not_your_role"), "{told}");
                assert!(body["error"]["zh"].is_string() && body["error"]["en"].is_string(), "{told}");
                continue;
            }
            let [place] = &principal.places.words()[..] else { continue };
            let mut named = Vec::new();
            buildings(&body, &mut named);
            assert!(named.iter().all(|building| building == place), "{told}");
            let of_one_object = row.path.contains("{id}") || row.path.contains("{device}");
            if of_one_object && place == OTHER && row.right != Right::Own {
                let empty = body == json!([]);
                assert!(status == StatusCode::NOT_FOUND || empty, "{told}");
            }
        }
    }
}

#[tokio::test]
async fn a_drawing_shows_a_manager_their_own_building_and_nothing_of_another() {
    let site = Site::with_tokens("drawings").await;
    for token in tokens() {
        let principal = Principal { role: token.role, places: token.places.clone(), ..Principal::unnamed("li") };
        if !allows(&principal, Right::Look) {
            continue;
        }
        let get = async |path: &str| site.get(As::Token(&token.name), path).await;
        let (_, list) = get("/drawings").await;
        let ids: Vec<&str> =
            list["drawings"].as_array().expect("a list").iter().filter_map(|one| one["id"].as_str()).collect();
        let mut areas: Vec<&str> = list["drawings"]
            .as_array()
            .expect("a list")
            .iter()
            .flat_map(|one| one["marks"].as_array().expect("marks"))
            .filter_map(|mark| mark["area"].as_str())
            .filter(|area| !area.is_empty())
            .collect();
        areas.sort_unstable();
        areas.dedup();
        let (_, map) = get("/drawings/site/map").await;
        let outlined: Vec<&str> = map["features"]
            .as_array()
            .expect("features")
            .iter()
            .filter_map(|one| one["properties"]["place"].as_str())
            .collect();
        let floor = get("/drawings/b1-f1/image").await.0;
        let sees =
            |building: &str| principal.places.takes(&Place { building: building.to_owned(), ..Place::default() });
        let wanted: Vec<&str> =
            [("1", "b1"), ("3", "b3")].iter().filter(|(n, _)| sees(n)).map(|(_, area)| *area).collect();
        assert_eq!(areas, wanted, "{} {list}", token.name);
        assert!(outlined.iter().all(|area| wanted.contains(area)), "{} {outlined:?}", token.name);
        assert_eq!((floor == StatusCode::OK, ids.contains(&"b1-f1")), (sees("1"), sees("1")), "{} {floor}", token.name);
        assert!(ids.contains(&"site"), "{} {ids:?}", token.name);
    }
}

#[tokio::test]
async fn every_command_of_a_shared_route_has_its_own_right() {
    let site = Site::with_tokens("commands").await;
    for (about, command, right) in COMMANDS {
        let path = match about {
            "calls" => format!("/alarms/{}/calls/south/{command}", id(1)),
            _ => format!("/{about}/{}/{command}", id(1)),
        };
        for token in tokens() {
            let principal =
                Principal { role: token.role, places: token.places.clone(), ..Principal::unnamed(&token.name) };
            // Nothing is said but what: whoever may do it is told what is missing, or does it.
            let (status, body) = site.post(As::Token(&token.name), &path, &json!({})).await;
            let told = format!("{path} as {}: {status} {body}", token.name);
            assert_eq!(status == StatusCode::FORBIDDEN, !allows(&principal, right), "{told}");
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{told}");
        }
    }
}

/// Two buildings' incidents were made one: who sees but one of them does not answer for the other's alarms.
#[tokio::test]
async fn an_incident_that_reaches_beyond_somebodys_places_is_not_handled_by_them_as_a_whole() {
    let site = Site::with_tokens("beyond").await;
    let (_, list) = site.get(As::Token("administrator-"), "/incidents").await;
    let of = |building: &str| {
        let mut all = list["incidents"].as_array().into_iter().flatten();
        let found = all.find(|incident| incident["place"]["building"] == building);
        found.and_then(|incident| incident["id"].as_str()).unwrap_or_else(|| panic!("{building}: {list:#}")).to_owned()
    };
    let (own, other) = (of(OWN), of(OTHER));
    let path = format!("/incidents/{own}/acknowledge");
    let (status, body) = site.post(As::Token("manager-3"), &path, &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let merge = json!({"who": "li", "into": own});
    let (status, body) = site.post(As::Token("administrator-"), &format!("/incidents/{other}/merge"), &merge).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = site.post(As::Token("manager-3"), &path, &json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("beyond_your_places")), "{body}");
    let (status, whole) = site.post(As::Token("officer-"), &path, &json!({})).await;
    assert_eq!((status, &whole["incident"]["beyond"]), (StatusCode::OK, &json!(0)));

    // An officer of either building sees their own alarms and how many are not theirs, and acts on their own.
    let note = json!({"text": "501室有一位老人"});
    let (status, _) = site.post(As::Token("officer-3"), &format!("/incidents/{own}/note"), &note).await;
    assert_eq!(status, StatusCode::OK, "it began in their building");
    for (building, theirs) in [(OWN, true), (OTHER, false)] {
        let token = format!("officer-{building}");
        let officer = As::Token(&token);
        let (status, view) = site.get(officer, &format!("/incidents/{own}")).await;
        assert_eq!(status, StatusCode::OK, "{token}: {view}");
        let mut named = Vec::new();
        buildings(&view, &mut named);
        assert!(!named.is_empty() && named.iter().all(|one| one == building), "{token}: {view:#}");
        let [seen, beyond, all] = [
            view["alarms"].as_array().map_or(0, Vec::len) as u64,
            view["incident"]["beyond"].as_u64().expect("a number"),
            whole["alarms"].as_array().map_or(0, Vec::len) as u64,
        ];
        assert!(seen > 0 && beyond > 0, "{token}: {view:#}");
        assert_eq!(seen + beyond, all, "{token}: {view:#}");
        assert_eq!(view["incident"]["notes"].as_array().is_some_and(|notes| !notes.is_empty()), theirs, "{view:#}");
        let (_, list) = site.get(officer, "/incidents").await;
        let found = list["incidents"].as_array().into_iter().flatten().find(|one| one["id"] == json!(own));
        assert_eq!(found, Some(&view["incident"]), "{token}: the list says the same");
        for (what, body) in [("note", json!({"text": "x"})), ("close", json!({"outcome": "test", "why": "x"}))] {
            let (status, answer) = site.post(officer, &format!("/incidents/{own}/{what}"), &body).await;
            let refused = (status, &answer["code"]) == (StatusCode::FORBIDDEN, &json!("beyond_your_places"));
            assert_eq!(refused, what == "close" || !theirs, "{token} {what}: {answer}");
        }
        let alarm = view["alarms"][0]["id"].as_str().expect("an alarm");
        let (status, body) = site.post(officer, &format!("/alarms/{alarm}/acknowledge"), &json!({})).await;
        assert_eq!(status, StatusCode::OK, "{token}: {body}");
        let (status, _) = site.get(officer, &format!("/alarms/{alarm}/next")).await;
        assert_eq!(status, StatusCode::OK);
        let stranger =
            whole["alarms"].as_array().into_iter().flatten().find(|one| one["place"]["building"] != building);
        let stranger = stranger.and_then(|one| one["id"].as_str()).expect("an alarm of the other");
        for (what, body) in [
            ("acknowledge", json!({})),
            ("escalate", json!({"step": 1, "why": "x"})),
            ("call-station", json!({"station": "south", "why": "x"})),
        ] {
            let (status, body) = site.post(officer, &format!("/alarms/{stranger}/{what}"), &body).await;
            assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("no_such_alarm")), "{token} {what}");
        }
    }
}

/// What lies in no building is for those who have all of the site, and for those who have been given it.
#[tokio::test]
async fn an_officer_of_a_building_hears_of_anmin_itself_where_an_administrator_says_so() {
    let site = Site::open("of-anmin", Kept::default()).await;
    let admin = site.set_up().await;
    let without = site.person(&admin, "wang", Role::Officer, &["3"]).await;
    let with = site.person(&admin, "zhao", Role::Officer, &["3", Places::NOWHERE]).await;
    let system = async |cookie: &str| {
        let (status, list) = site.get(As::Cookie(cookie), "/alarms?class=system").await;
        assert_eq!(status, StatusCode::OK, "{list}");
        let placeless = |alarm: &Value| alarm["place"]["building"] == "";
        list["alarms"].as_array().expect("a list").iter().filter(|alarm| placeless(alarm)).count()
    };
    let all = system(&admin).await;
    assert!(all > 0, "the site has one");
    assert_eq!((system(&without).await, system(&with).await), (0, all));
    let troubles = async |cookie: &str| {
        let (_, status) = site.get(As::Cookie(cookie), "/status").await;
        status["troubles"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((troubles(&without).await, troubles(&with).await), (0, troubles(&admin).await));
}

#[tokio::test]
async fn a_command_bears_the_name_of_who_signed_in_whatever_its_body_says() {
    let site = Site::open("by", Kept::default()).await;
    let admin = site.set_up().await;
    let officer = site.person(&admin, "wang", Role::Officer, &[]).await;
    let path = format!("/alarms/{}/acknowledge", id(1));
    let (status, body) = site.post(As::Cookie(&officer), &path, &json!({"who": "李主管"})).await;
    assert_eq!((status, &body["alarm"]["acknowledged"]["by"]), (StatusCode::OK, &json!("姓名 wang")));
    let token = json!({"name": "station-1", "role": "crew", "days": 1});
    let (_, made) = site.post(As::Cookie(&admin), "/tokens", &token).await;
    let token = made["token"].as_str().expect("it is shown once");
    let (_, body) = site.post(As::Token(token), &format!("/alarms/{}/calls/south/accept", id(1)), &json!({})).await;
    assert_eq!(body["calls"][0]["steps"][1]["by"], json!("station-1"), "{body}");
}

#[tokio::test]
async fn before_the_first_account_the_box_is_open_and_after_it_everybody_signs_in() {
    let site = Site::open("first", Kept::default()).await;
    assert_eq!(site.get(As::Nobody, "/alarms").await.0, StatusCode::OK);
    let (_, me) = site.get(As::Nobody, "/session").await;
    assert_eq!((&me["door"], &me["signed_in"], &me["account"]), (&json!("open"), &json!(true), &Value::Null));
    let code = site.code();
    let wrong = json!({"code": "aaaa-aaaa-aaaa-aaaa", "account": "li", "shown": "李", "password": PASSWORD});
    let (status, body) = site.post(As::Nobody, "/session/set-up", &wrong).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("wrong_code")));
    let weak = json!({"code": code, "account": "li", "shown": "李", "password": "short"});
    let (status, body) = site.post(As::Nobody, "/session/set-up", &weak).await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("weak_password")));
    let admin = site.set_up().await;
    let (status, body) = site.get(As::Nobody, "/alarms").await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("signed_out")));
    assert_eq!(site.get(As::Cookie(&admin), "/alarms").await.0, StatusCode::OK);
    assert!(!site.folder.0.join("setup-code").exists(), "the code is used up");
    let again = json!({"code": code, "account": "wang", "shown": "王", "password": PASSWORD});
    let (status, body) = site.post(As::Nobody, "/session/set-up", &again).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("already_set_up")));
}

/// A journal that may have lost its accounts opens nothing.
#[tokio::test]
async fn where_accounts_may_have_been_lost_nobody_comes_in_without_the_set_up_code() {
    let site = Site::open("lost", Kept::lost()).await;
    let (status, body) = site.get(As::Nobody, "/alarms").await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("set_up")));
    let admin = site.set_up().await;
    assert_eq!(site.get(As::Cookie(&admin), "/alarms").await.0, StatusCode::OK);
}

#[tokio::test]
async fn accounts_of_a_journal_that_is_read_late_are_let_in_and_end_the_set_up_code() {
    let site = Site::open("late", Kept::lost()).await;
    let code = site.folder.0.join("setup-code");
    assert!(code.exists());
    let token = As::Token("auditor-");
    assert_eq!(site.get(token, "/alarms").await.0, StatusCode::UNAUTHORIZED);
    let account = Account {
        name: "li".to_owned(),
        shown: "李".to_owned(),
        role: Role::Administrator,
        places: Places::EVERYWHERE,
        password: String::new(),
        must_change: false,
        disabled: false,
        totp: None,
        provider: None,
        created: START,
        changed: START,
    };
    let found = Kept { accounts: vec![account], tokens: tokens(), ..Kept::default() };
    site.served.people.send_replace(found);
    let gone = async {
        while code.exists() {
            tokio::task::yield_now().await;
        }
    };
    soon("the code is gone", gone).await;
    assert_eq!(site.get(token, "/alarms").await.0, StatusCode::OK);
    assert_eq!(site.get(As::Nobody, "/alarms").await.1["code"], "signed_out");
}

#[tokio::test]
async fn the_cookie_is_for_our_own_page_alone() {
    let site = Site::open("cookie", Kept::default()).await;
    let admin = site.set_up().await;
    let sign_in = json!({"account": "li", "password": PASSWORD});
    for (origin, secure) in [("http", false), ("https", true)] {
        let mut request = site.request(As::Nobody, &Method::POST, "/api/v1/session", &sign_in);
        let origin = format!("{origin}://{}", site.served.address);
        request.headers_mut().insert("origin", origin.parse().expect("plain text"));
        let response = site.send_from(1, request).await;
        let set = response.headers()[SET_COOKIE].to_str().expect("plain text").to_owned();
        for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
            assert!(set.contains(part), "{set}");
        }
        assert_eq!((set.starts_with("__Host-anmin-"), set.ends_with("; Secure")), (secure, secure), "{set}");
    }
    // Another site can make a browser send the cookie with a plain request at most, and never our header.
    let act = format!("/api/v1/alarms/{}/acknowledge", id(1));
    let mut bare = site.request(As::Cookie(&admin), &Method::POST, &act, &json!({}));
    bare.headers_mut().remove("x-anmin");
    let (status, body) = read(site.send_from(1, bare).await).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("foreign_origin")));
    let mut foreign = site.request(As::Cookie(&admin), &Method::POST, &act, &json!({}));
    foreign.headers_mut().insert("origin", "http://evil.example".parse().expect("plain text"));
    assert_eq!(site.send_from(1, foreign).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(site.get(As::Cookie("anmin-1=x"), "/alarms").await.0, StatusCode::UNAUTHORIZED);
}

/// Who signs in gets a secret that nobody could have put into their browser before.
#[tokio::test]
async fn signing_in_makes_a_new_secret_and_ends_the_one_that_was_there() {
    let site = Site::open("fixation", Kept::default()).await;
    let before = site.set_up().await;
    let body = json!({"account": "li", "password": PASSWORD});
    let mut request = site.request(As::Cookie(&before), &Method::POST, "/api/v1/session", &body);
    request.headers_mut().remove("x-anmin");
    let after = cookie(&site.send_from(1, request).await);
    assert_ne!(before, after);
    assert_eq!(site.get(As::Cookie(&before), "/alarms").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.get(As::Cookie(&after), "/alarms").await.0, StatusCode::OK);
}

#[tokio::test]
async fn wrong_passwords_cost_waits_and_the_answer_tells_no_name_from_another() {
    let site = Site::open("waits", Kept::default()).await;
    site.set_up().await;
    let refused = |code: &str, status| Err((status, code.to_owned()));
    for name in ["li", "nobody"] {
        for _ in 0..5 {
            assert_eq!(
                site.sign_in_from(9, name, "wrong horse battery").await,
                refused("wrong_credentials", 401),
                "{name}"
            );
        }
        // From elsewhere too, and the right password as well.
        assert_eq!(site.sign_in_from(8, name, PASSWORD).await, refused("wait", 429), "{name}");
    }
    let body = json!({"account": "li", "password": PASSWORD});
    let response = site.send_from(8, site.request(As::Nobody, &Method::POST, "/api/v1/session", &body)).await;
    assert_eq!(response.headers()[RETRY_AFTER], "60");
    // Where the account has signed in before nobody is kept out by what others try.
    assert!(site.sign_in_from(1, "li", PASSWORD).await.is_ok());
    assert_eq!(site.sign_in_from(9, "nobody", PASSWORD).await, refused("wait", 429));
    site.clock.advance(Duration::from_secs(61));
    assert_eq!(site.sign_in_from(9, "nobody", PASSWORD).await, refused("wrong_credentials", 401));
    // A step of the wall clock opens nothing.
    site.clock.step_wall(86_400_000_000);
    assert_eq!(site.sign_in_from(9, "nobody", PASSWORD).await, refused("wait", 429));
}

/// Goal: a thousand addresses guess no more of one password in an hour than one does. Method: guesses from many addresses,
/// each a minute after the other, and how many of them were looked at.
/// Its last word counts, what cannot be read hides what stands before it, and nobody else is believed.
#[tokio::test]
async fn behind_a_proxy_of_ours_each_is_known_by_their_own_address() {
    let (clock, folder) = (Clock::manual(START), Folder::new("proxy"));
    let proxies = vec![Ipv4Addr::new(127, 0, 0, 9).into()];
    let served = serve_behind(None, true, Kept::default(), clock.clone(), Some(&folder.0), proxies).await;
    let site = Site { served, clock, folder };
    site.set_up().await;
    for (host, forwarded, wanted) in [
        (9, "192.0.2.1", "192.0.2.1"),
        (9, "198.51.100.7, 192.0.2.2", "192.0.2.2"),
        (9, "192.0.2.3, 127.0.0.9", "192.0.2.3"),
        (9, "198.51.100.7, x", "127.0.0.9"),
        (8, "192.0.2.4", "127.0.0.8"),
    ] {
        let body = json!({"account": "li", "password": PASSWORD});
        let mut request = site.request(As::Nobody, &Method::POST, "/api/v1/session", &body);
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().expect("a header"));
        assert_eq!(site.send_from(host, request).await.status(), StatusCode::OK);
        let told = site.served.deeds.lock().expect("no test panics with it").clone();
        let last = told.iter().rev().find(|deed| deed.what == "session.sign_in").and_then(|deed| deed.from.address);
        assert_eq!(last.map(|address| address.to_string()).as_deref(), Some(wanted), "{host} {forwarded}");
    }
}

#[tokio::test]
async fn guesses_from_many_addresses_are_as_few_as_from_one() {
    let site = Site::open("brute", Kept::default()).await;
    site.set_up().await;
    let mut looked_at = 0;
    for minute in 0..60_u8 {
        for attempt in 0..2 {
            let host = 10 + minute * 2 + attempt;
            match site.sign_in_from(host, "li", "wrong horse battery").await {
                Err((401, _)) => looked_at += 1,
                other => assert_eq!(other, Err((429, "wait".to_owned()))),
            }
        }
        site.clock.advance(Duration::from_secs(60));
    }
    assert!((5..=12).contains(&looked_at), "{looked_at}");
    // One address that goes through many names is held, too.
    let mut looked_at = 0;
    for n in 0..40 {
        looked_at += u32::from(
            site.sign_in_from(200, &format!("name-{n}"), "wrong horse battery")
                .await
                .is_err_and(|(status, _)| status == 401),
        );
    }
    assert_eq!(looked_at, 20);
}

#[tokio::test]
async fn a_screen_locks_shows_what_happens_and_ends_in_time() {
    let site = Site::open("lock", Kept::default()).await;
    let admin = site.set_up().await;
    let act = format!("/alarms/{}/acknowledge", id(1));
    site.clock.advance(Duration::from_secs(14 * 60));
    assert_eq!(site.post(As::Cookie(&admin), "/session/touch", &json!({})).await.0, StatusCode::OK);
    site.clock.advance(Duration::from_secs(14 * 60));
    assert_eq!(site.post(As::Cookie(&admin), &act, &json!({})).await.0, StatusCode::OK, "it was touched");
    site.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(site.get(As::Cookie(&admin), "/alarms").await.0, StatusCode::OK, "it goes on showing");
    for path in [act.as_str(), "/session/touch", "/rules/reload", "/accounts"] {
        let (status, body) = site.post(As::Cookie(&admin), path, &json!({})).await;
        assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("locked")), "{path}");
    }
    let wrong = json!({"password": "wrong horse battery"});
    assert_eq!(site.post(As::Cookie(&admin), "/session/unlock", &wrong).await.0, StatusCode::UNAUTHORIZED);
    let right = json!({"password": PASSWORD});
    assert_eq!(site.post(As::Cookie(&admin), "/session/unlock", &right).await.0, StatusCode::OK);
    assert_eq!(site.post(As::Cookie(&admin), "/session/touch", &json!({})).await.0, StatusCode::OK);
    assert_eq!(site.post(As::Cookie(&admin), "/session/lock", &json!({})).await.0, StatusCode::OK);
    assert_eq!(site.post(As::Cookie(&admin), &act, &json!({})).await.1["code"], json!("locked"), "at once");
    site.clock.advance(Duration::from_secs(12 * 3_600));
    assert_eq!(site.get(As::Cookie(&admin), "/alarms").await.1["code"], json!("signed_out"));
}

/// The text of a live stream until it ends.
/// What a stream says until these words, or to its end.
async fn heard(body: &mut Incoming, until: Option<&str>) -> String {
    let mut text = String::new();
    while until.is_none_or(|words| !text.contains(words))
        && let Some(Ok(frame)) = soon("the stream goes on or ends", body.frame()).await
    {
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    }
    text
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_browser_and_its_live_stream() {
    let site = Site::open("everywhere", Kept::default()).await;
    let admin = site.set_up().await;
    let manager = site.person(&admin, "zhao", Role::Manager, &[OWN]).await;
    let other = site.sign_in_from(2, "zhao", PASSWORD).await.expect("the right password");
    let (_, listed) = site.get(As::Cookie(&manager), "/session/sign-ins").await;
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    assert!(!listed.to_string().contains(other.split_once('=').expect("a pair").1));
    let open = site.request(As::Cookie(&other), &Method::GET, "/api/v1/events?readings=yes", &Value::Null);
    let mut stream = site.send_from(2, open).await.into_body();
    // Two things happen: one at home, one elsewhere.
    for n in [1, 2] {
        site.post(As::Cookie(&admin), &format!("/alarms/{}/acknowledge", id(n)), &json!({})).await;
    }
    let mut told = heard(&mut stream, Some(&id(1).to_string())).await;
    assert!(told.contains(&id(1).to_string()), "{told}");
    assert_eq!(site.post(As::Cookie(&manager), "/session/sign-ins/end", &json!({})).await.0, StatusCode::OK);
    site.post(As::Cookie(&admin), &format!("/alarms/{}/acknowledge", id(3)), &json!({})).await;
    told.push_str(&heard(&mut stream, None).await);
    let data = told.lines().filter_map(|line| line.strip_prefix("data: "));
    for data in data.filter_map(|data| serde_json::from_str::<Value>(data).ok()) {
        let mut named = Vec::new();
        buildings(&data, &mut named);
        assert!(named.iter().all(|building| building == OWN), "{data}");
        let points = data["points"].as_array().cloned().unwrap_or_default();
        assert!(points.iter().all(|point| point["id"].as_str().is_some_and(|id| id.starts_with("b3-"))), "{data}");
    }
    for cookie in [&manager, &other] {
        assert_eq!(site.get(As::Cookie(cookie), "/alarms").await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_token_ends_on_its_day_and_when_it_is_revoked() {
    let site = Site::open("tokens", Kept::default()).await;
    let admin = site.set_up().await;
    let new = |name: &str, days: u32| json!({"name": name, "role": "office", "days": days});
    let (_, short) = site.post(As::Cookie(&admin), "/tokens", &new("short", 1)).await;
    let (_, long) = site.post(As::Cookie(&admin), "/tokens", &new("long", 2)).await;
    let [short, long] = [&short, &long].map(|made| made["token"].as_str().expect("it is shown once").to_owned());
    assert_eq!(site.post(As::Cookie(&admin), "/tokens", &new("too-long", 400)).await.0, StatusCode::BAD_REQUEST);
    let (_, listed) = site.get(As::Cookie(&admin), "/tokens").await;
    assert!(listed.as_array().map(Vec::len) == Some(2) && !listed.to_string().contains(&short), "{listed}");
    assert_eq!(site.get(As::Token(&short), "/alarms").await.0, StatusCode::OK);
    site.clock.advance(Duration::from_secs(86_400));
    assert_eq!(site.get(As::Token(&short), "/alarms").await.1["code"], json!("no_token"));
    assert_eq!(site.get(As::Token(&long), "/alarms").await.0, StatusCode::OK);
    let admin = site.sign_in_from(1, "li", PASSWORD).await.expect("the right password");
    // Another one was made under the name since: that one stays.
    let old = json!({"created_at": "2026-01-01T00:00:00.000+00:00"});
    let (status, said) = site.post(As::Cookie(&admin), "/tokens/long/revoke", &old).await;
    assert_eq!((status, &said["code"]), (StatusCode::CONFLICT, &json!("changed_meanwhile")));
    assert_eq!(site.get(As::Token(&long), "/alarms").await.0, StatusCode::OK);
    assert_eq!(site.post(As::Cookie(&admin), "/tokens/long/revoke", &json!({})).await.0, StatusCode::OK);
    assert_eq!(site.get(As::Token(&long), "/alarms").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn there_is_always_an_administrator_and_nobody_raises_themselves() {
    let site = Site::open("last", Kept::default()).await;
    let admin = site.set_up().await;
    let edit = json!({"shown": "李", "role": "officer"});
    let (status, body) = site.post(As::Cookie(&admin), "/accounts/li/edit", &edit).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("own_role")));
    let (_, body) = site.post(As::Cookie(&admin), "/accounts/li/disable", &json!({})).await;
    assert_eq!(body["code"], json!("own_role"));
    let officer = site.person(&admin, "wang", Role::Officer, &[]).await;
    let raise = json!({"shown": "王", "role": "administrator"});
    assert_eq!(site.post(As::Cookie(&officer), "/accounts/wang/edit", &raise).await.0, StatusCode::FORBIDDEN);
    // Who edits what somebody else has changed since changes nothing.
    let (_, accounts) = site.get(As::Cookie(&admin), "/accounts").await;
    let wang =
        accounts.as_array().into_iter().flatten().find(|account| account["name"] == "wang").expect("it is there");
    let seen = wang["changed_at"].clone();
    site.clock.advance(Duration::from_secs(1));
    let edit = |shown: &str, role: &str| json!({"shown": shown, "role": role, "changed_at": seen});
    let (first, said) = site.post(As::Cookie(&admin), "/accounts/wang/edit", &edit("王", "officer")).await;
    assert_eq!((first, &said["shown"]), (StatusCode::OK, &json!("王")));
    let (second, said) = site.post(As::Cookie(&admin), "/accounts/wang/edit", &edit("汪", "auditor")).await;
    assert_eq!((second, &said["code"]), (StatusCode::CONFLICT, &json!("changed_meanwhile")));
    for what in ["disable", "reset"] {
        let path = format!("/accounts/wang/{what}");
        let (status, said) = site.post(As::Cookie(&admin), &path, &json!({"changed_at": seen})).await;
        assert_eq!((status, &said["code"]), (StatusCode::CONFLICT, &json!("changed_meanwhile")), "{what}");
    }
    let unbound = json!({"name": "qian", "shown": "钱", "role": "manager"});
    assert_eq!(site.post(As::Cookie(&admin), "/accounts", &unbound).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(site.post(As::Cookie(&admin), "/accounts/wang/disable", &json!({})).await.0, StatusCode::OK);
    assert_eq!(site.get(As::Cookie(&officer), "/alarms").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.sign_in_from(1, "wang", PASSWORD).await, Err((401, "wrong_credentials".to_owned())));
    assert_eq!(site.post(As::Cookie(&admin), "/accounts/wang/enable", &json!({})).await.0, StatusCode::OK);
    assert!(site.sign_in_from(1, "wang", PASSWORD).await.is_ok());
    let (_, reset) = site.post(As::Cookie(&admin), "/accounts/wang/reset", &json!({})).await;
    assert_eq!(site.sign_in_from(1, "wang", PASSWORD).await, Err((401, "wrong_credentials".to_owned())));
    assert!(site.sign_in_from(1, "wang", reset["password"].as_str().expect("a password")).await.is_ok());
}

#[tokio::test]
async fn the_audit_tells_who_came_who_was_refused_and_what_changed_and_never_a_secret() {
    let site = Site::open("audit", Kept::default()).await;
    let code = site.code();
    let admin = site.set_up().await;
    let officer = site.person(&admin, "wang", Role::Officer, &[]).await;
    let _ = site.sign_in_from(3, "li", "a wrong password of mine").await;
    let _ = site.sign_in_from(3, "my-password-in-the-wrong-field", "x").await;
    site.post(As::Cookie(&officer), "/rules/reload", &json!({})).await;
    let (_, made) = site.post(As::Cookie(&admin), "/tokens", &json!({"name": "tv", "role": "office", "days": 1})).await;
    site.post(As::Cookie(&officer), "/session/sign-out", &json!({})).await;
    let deeds = site.served.deeds.lock().expect("no test panics with it").clone();
    let told: Vec<(String, String, bool)> =
        deeds.iter().map(|deed| (deed.what.to_string(), deed.who.clone(), deed.refused.is_none())).collect();
    for (what, who, done) in [
        ("people.set_up", "李主管", true),
        ("session.sign_in", "李主管", true),
        ("account.add", "李主管", true),
        ("account.password", "姓名 wang", true),
        ("session.sign_in", "李主管", false),
        ("session.sign_in", "?", false),
        ("request.refuse", "姓名 wang", false),
        ("token.new", "李主管", true),
        ("session.sign_out", "姓名 wang", true),
    ] {
        assert!(told.contains(&(what.to_owned(), who.to_owned(), done)), "{what} {who} {done}: {told:?}");
    }
    let add = deeds.iter().find(|deed| deed.what == "account.add").expect("it is told");
    let by = add.from.principal.as_deref().expect("somebody did it");
    assert_eq!((by.account.as_str(), by.role), ("li", Role::Administrator));
    let all = format!("{deeds:?}");
    let secrets =
        [PASSWORD, "a wrong password of mine", "my-password", &code, made["token"].as_str().expect("a token")];
    for secret in secrets.into_iter().chain([&admin, &officer].map(|cookie| cookie.split_once('=').expect("a pair").1))
    {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

/// Bodies that would be taken from somebody who may, by the end of the path; what is asked without one is none of these.
const BODIES: &[(&str, &str)] = &[
    ("/accounts", r#"{"name": "zhao", "shown": "赵", "role": "officer"}"#),
    ("/edit", r#"{"shown": "赵", "role": "officer"}"#),
    ("/acknowledge", "{}"),
    ("/approve-broadcast", r#"{"typed": "春晖社区", "level": "red", "state": "waiting"}"#),
    ("/refuse-broadcast", r#"{"why": "x"}"#),
    ("/take-back-broadcast", r#"{"why": "x"}"#),
    ("/shelve", r#"{"minutes": 5, "why": "x"}"#),
    ("/out-of-service", r#"{"why": "x"}"#),
    ("/decline", r#"{"why": "x"}"#),
    ("/dead-letters/resend", r#"{"way_out": "office"}"#),
    ("/device-list/import", r#"{"sheet": "aWQscHJvZmlsZQpnOSxhbm1pbi1qc29uLWdhcwo=", "preview": true}"#),
    ("/device-list/remove", r#"{"device": "g9", "why": "x"}"#),
    ("/drills", r#"{"building": "3", "scenario": "kitchen-gas"}"#),
    ("/raise", r#"{"scenario": "kitchen-gas"}"#),
    ("/incidents", r#"{"kind": "report", "title": "x", "place": {"area": "b3", "building": "3"}}"#),
    ("/called-119", r#"{"text": "x"}"#),
    ("/close", r#"{"outcome": "handled"}"#),
    ("/merge", r#"{"into": "01900000-0000-7000-8000-000000000002"}"#),
    ("/note", r#"{"text": "x"}"#),
    ("/skip", r#"{"step": "gas/valve", "why": "x"}"#),
    ("/split", r#"{"alarms": ["01900000-0000-7000-8000-000000000001"]}"#),
    ("/stage", r#"{"stage": "assigned"}"#),
    ("/tick", r#"{"step": "gas/valve"}"#),
    ("/arm", r#"{"action": "open", "why": "x"}"#),
    ("/do", r#"{"action": "open", "code": "x"}"#),
    ("/adopt", r#"{"device": "0x00158d0009c1a2f3", "profile": "zigbee2mqtt-smoke", "preview": true}"#),
    ("/import", r#"{"sheet": "aWQsbmFtZSxhbW91bnQKczEseCwxCg==", "preview": true}"#),
    ("/rows", r#"{"rows": []}"#),
    (
        "/rules/set",
        r#"{"why": "x", "version": "x", "change": {"rule": "gas/leak", "of": {}, "numbers": {"limit.yellow": 12}}}"#,
    ),
    ("/rules/try", r#"{"change": {"rule": "gas/leak", "of": {}, "numbers": {"limit.yellow": 12}}, "days": 1}"#),
    ("/hand-over", r#"{"crew": ["li"]}"#),
    ("/off-duty", r#"{"why": "x"}"#),
    ("/tokens", r#"{"name": "tv", "role": "office", "days": 1}"#),
    ("/walks", r#"{"building": "3"}"#),
];

/// The last one that the path ends with is the most particular.
fn body_of(path: &str) -> Value {
    let body = BODIES.iter().filter(|(end, _)| path.ends_with(end)).max_by_key(|(end, _)| end.len());
    body.map_or_else(|| json!({}), |(_, body)| serde_json::from_str(body).expect("it is JSON"))
}

/// Goal: a person can read who gets what answer, and nothing changes in it unseen. Method: each operation of the OpenAPI document
/// about what lies in building 3, asked by nobody and by every role: for all of the site, for that building and for another one;
/// the answers are held against `golden/roles.txt`. To write it anew: `UPDATE_GOLDEN=1 cargo test -p anmin --test accounts`, then
/// review it like code.
#[tokio::test]
async fn who_gets_which_answer_is_as_it_was_reviewed() {
    let document = anmin::web::openapi();
    let mut opened = 0;
    let mut site = Site::with_tokens("golden-roles-0").await;
    let mut table = String::from(ROLES_HEAD);
    let heads = Role::ALL.iter().map(|role| format!("{:<15}", role.as_str())).collect::<String>();
    table.push_str(&format!("{:<58}{:<7}{}\n", "", "nobody", heads.trim_end()));
    for (path, methods) in document["paths"].as_object().expect("it has paths") {
        for method in methods.as_object().expect("methods").keys() {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let row = RouteRow { method: method.clone(), path: path.clone(), right: Right::Own };
            let (asked, body) = (self::path(&row).replace("{kind}", "stock"), body_of(path));
            let asked = asked.replace("{month}", "2026-02").replace("{source}", "county");
            let asked = if asked.ends_with("/guess") { format!("{asked}?device=0x00158d0009c1a2f3") } else { asked };
            let mut line = format!("{:<58}", format!("{method} {path}"));
            for (n, who) in [None].into_iter().chain(tokens().into_iter().map(Some)).enumerate() {
                let by = who.as_ref().map_or(As::Nobody, |token| As::Token(&token.name));
                let response = site.send_from(1, site.request(by, &method, &asked, &body)).await;
                let (status, body) = read(response).await;
                let mut named = Vec::new();
                buildings(&body, &mut named);
                let mark = if named.iter().any(|building| building == OWN) { "*" } else { "" };
                let elsewhere = who.as_ref().is_some_and(|token| token.places.words() == [OTHER]);
                assert!(mark.is_empty() || !elsewhere, "{method} {path} as {:?}: {body}", who.map(|token| token.name));
                let width = if n == 0 { 7 } else { 5 };
                line.push_str(&format!("{:<width$}", format!("{}{mark}", status.as_u16())));
                // What was done to it would change the next answer.
                if method == Method::POST && status.is_success() {
                    opened += 1;
                    site = Site::with_tokens(&format!("golden-roles-{opened}")).await;
                }
            }
            table.push_str(line.trim_end());
            table.push('\n');
        }
    }
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/roles.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &table).expect("the golden file can be written");
    }
    let reviewed = std::fs::read_to_string(&golden).unwrap_or_default();
    let differences = table.lines().filter(|line| !reviewed.lines().any(|known| known == *line));
    let differences: String = differences.map(|line| format!("{line}\n")).collect();
    assert!(table == reviewed, "{} has no such rows:\n{differences}UPDATE_GOLDEN=1 writes it anew", golden.display());
}

const ROLES_HEAD: &str = "\
# Who gets which answer. Each operation of the OpenAPI document is asked about what lies in building 3 (area b3): by nobody, then by
# every role three times: for all of the site, for building 3 alone, for building 1 alone. An answer with `*` names building 3.
# 401: come in first. 403: not in this role, or the whole site is meant. 404: there is nothing for them. 400, 409, 503: they may,
# and this made-up site or body is not as it would have to be.
";
