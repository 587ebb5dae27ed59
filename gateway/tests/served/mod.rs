//! A made-up site behind the real server, for tests of what speaks with it.
#![allow(dead_code, reason = "each test file uses its own part of this")]

#[path = "../../examples/page/desk.rs"]
pub mod desk;

use std::net::SocketAddr;
use std::sync::Arc;

use anmin::clock::Clock;
use anmin::main_loop::{Feed, Input};
use anmin::web::{DiscardSession, Server, Settings, Site, Token, WebLink, serve};
use desk::Desk;
use tokio::sync::mpsc;

/// The site while it is served.
pub struct Served {
    pub server: Server,
    /// What the desk would say to the live stream.
    pub feed: Feed,
    _inputs: mpsc::Sender<Input>,
}

/// Serves on a free port of this machine: six open alarms, whose ids differ in their last digit only.
pub async fn site(token: Option<&str>) -> Served {
    serve_site(token, true).await
}

/// The same; `answers` says whether there is a main loop behind it.
pub async fn serve_site(token: Option<&str>, answers: bool) -> Served {
    let clock = Clock::system();
    let desk = Desk::new(clock.clone());
    let (inputs, received) = mpsc::channel(64);
    let link = WebLink {
        inputs: inputs.clone(),
        reload: desk::reloader(),
        feed: desk.feed.clone(),
        archive: Arc::clone(&desk.memory) as _,
        subscriptions: desk::subscriptions(&clock),
        metrics: Arc::new(|| "anmin_up 1\n# EOF\n".to_owned()),
        clock,
        crew: anmin::crew_link::Links {
            key: anmin::crew_link::LinkKey::of(b"crews of the page"),
            valid: std::time::Duration::from_secs(43_200),
        },
        configuration: "00".into(),
        sessions: [(Arc::from("plant"), Arc::new(|| {}) as DiscardSession)].into(),
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
    };
    let feed = desk.feed.clone();
    if answers {
        tokio::spawn(desk.run(received));
    }
    let server = serve(settings, link).await.expect("a free port of this machine");
    Served { server, feed, _inputs: inputs }
}

impl Served {
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }
}
