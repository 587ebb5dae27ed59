//! A made-up site behind the real server, for tests of what speaks with it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

#[path = "../../examples/page/desk.rs"]
pub mod desk;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use anmin::clock::Clock;
use anmin::config::drawings::sha256;
use anmin::drawing::{Drawing, Image, Map, Mark, Sheet, Spot, judge_image};
use anmin::main_loop::{Feed, Input};
use anmin::store::audit::Deed;
use anmin::store::people::Kept;
use anmin::web::{DiscardSession, InForce, Server, Settings, Site, Token, WebLink};
use anmin_sensors::point::Place;
use desk::Desk;
use tokio::sync::{mpsc, watch};

/// The site while it is served.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the desk would say to the live stream.
    pub feed: Feed,
    /// What the audit was told.
    pub deeds: Arc<Mutex<Vec<Deed>>>,
    /// What the journal turns out to hold of people.
    pub people: watch::Sender<Kept>,
    _inputs: mpsc::Sender<Input>,
}

/// Serves on a free port of this machine: six open alarms, whose ids differ in their last digit only.
pub async fn site(token: Option<&str>) -> Served {
    serve_site(token, true).await
}

/// The same; `answers` says whether there is a main loop behind it.
pub async fn serve_site(token: Option<&str>, answers: bool) -> Served {
    serve_people(token, answers, Kept::default(), Clock::system(), None).await
}

/// The same for people that the journal knows, by a clock of the test, with the set-up code in a folder.
pub async fn serve_people(
    token: Option<&str>,
    answers: bool,
    people: Kept,
    clock: Clock,
    folder: Option<&Path>,
) -> Served {
    serve_behind(token, answers, people, clock, folder, Vec::new()).await
}

/// The same behind proxies that are believed.
pub async fn serve_behind(
    token: Option<&str>,
    answers: bool,
    people: Kept,
    clock: Clock,
    folder: Option<&Path>,
    proxies: Vec<IpAddr>,
) -> Served {
    let desk = Desk::new(clock.clone());
    let (inputs, mut received) = mpsc::channel(64);
    let link = WebLink {
        inputs: inputs.clone(),
        reload: desk::reloader(),
        feed: desk.feed.clone(),
        archive: Arc::clone(&desk.memory) as _,
        tuner: Arc::new(desk::Tuned::default()),
        lister: Arc::new(desk::Devices::default()),
        subscriptions: desk::subscriptions(&clock),
        warnings: desk::warnings(&clock),
        outputs: anmin::output::Outputs::default(),
        metrics: Arc::new(|| "anmin_up 1\n# EOF\n".to_owned()),
        clock,
        crew: anmin::crew_link::Links {
            key: anmin::crew_link::LinkKey::of(b"crews of the page"),
            valid: std::time::Duration::from_secs(43_200),
        },
        in_force: Arc::new(RwLock::new(InForce {
            reports: std::collections::BTreeMap::new(),
            places: ["3", "1"].map(place).into(),
            drawings: drawings(),
            texts: Default::default(),
            configuration: "00".into(),
            sessions: [(Arc::from("plant"), Arc::new(|| {}) as DiscardSession)].into(),
        })),
        site: Site {
            id: "chunhui".to_owned(),
            name: desk::text("春晖社区", "Chunhui"),
            exercise: true,
            time_zone: jiff::tz::TimeZone::UTC,
        },
    };
    let settings = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: token.map(|token| Token::new(token).expect("a good token")),
        hosts: vec!["anmin.lan".to_owned()],
        proxies,
        ..Settings::default()
    };
    let feed = desk.feed.clone();
    let deeds: Arc<Mutex<Vec<Deed>>> = Arc::default();
    if answers {
        let (on, passed_on) = mpsc::channel(64);
        tokio::spawn(desk.run(passed_on));
        let told = Arc::clone(&deeds);
        tokio::spawn(async move {
            while let Some(input) = received.recv().await {
                if let Input::Did(deed) = &input {
                    told.lock().expect("no test panics with it").push(deed.clone());
                }
                if let Input::People { deed: Some(deed), .. } = &input {
                    told.lock().expect("no test panics with it").push(Deed::clone(deed));
                }
                if on.send(input).await.is_err() {
                    return;
                }
            }
        });
    } else {
        // Held, so that whoever asks waits for an answer.
        std::mem::forget(received);
    }
    let people = watch::Sender::new(people);
    let (server, _) = Server::new(settings, link, people.subscribe(), folder);
    let (address, _) = server.open().await.expect("a free port of this machine");
    Served { address, feed, deeds, people, _inputs: inputs }
}

/// Building `n`, which has a position.
fn place(n: &str) -> Arc<Place> {
    Arc::new(Place {
        area: format!("b{n}"),
        building: n.to_owned(),
        position: Some((36.0618, 103.8352)),
        ..Place::default()
    })
}

/// A map of building 3 under the id that tests ask for, one of the whole site, and a floor of building 1.
fn drawings() -> Arc<[Drawing]> {
    // Two crates read this file.
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/demo/plans");
    let text = std::fs::read_to_string(plans.join("site.geojson")).expect("the demo has a map");
    let map = Map::parse(&text).expect("it is one");
    let file = std::fs::read(plans.join("b3-f1.png")).expect("the demo has a floor");
    let (form, width, height) = judge_image(&file).expect("it is an image");
    let mark = Mark {
        spot: Spot { room: "101".to_owned(), ..Spot::default() },
        at: (0.25, 0.5),
        name: desk::text("1号楼1层101", "Building 1, Floor 1, 101"),
        place: Place::clone(&place("1")),
    };
    let image = Image { path: plans.join("b3-f1.png"), sha256: sha256(&file), form, width, height, marks: vec![mark] };
    let changed = Image { path: plans.join("site.geojson"), ..image.clone() };
    let drawing = |id: &str, building: &str, sheet: Sheet| Drawing {
        id: Arc::from(id),
        name: desk::text("图", "drawing"),
        building: building.to_owned(),
        floor: String::new(),
        sheet,
    };
    [
        drawing(&desk::id(1).to_string(), "3", Sheet::Map(map.clone())),
        drawing("site", "", Sheet::Map(map)),
        drawing("b1-f1", "1", Sheet::Image(image)),
        drawing("changed", "", Sheet::Image(changed)),
    ]
    .into()
}

impl Served {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
