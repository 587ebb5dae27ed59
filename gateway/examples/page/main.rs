//! Serves the page of the duty desk with a made-up site behind it, to look at:
//! `cargo run -p anmin --example page -- 127.0.0.1:8421`. A number after the address opens so many alarms more.

mod desk;

use std::error::Error;
use std::sync::Arc;

use anmin::clock::Clock;
use anmin::web::{Server, Settings, Site, WebLink};
use tokio::sync::{mpsc, watch};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    anmin::telemetry::start_log();
    let mut settings = Settings::default();
    let mut arguments = std::env::args().skip(1);
    if let Some(address) = arguments.next() {
        settings.listen = address.parse()?;
    }
    let clock = Clock::system();
    let mut desk = desk::Desk::new(clock.clone());
    if let Some(alarms) = arguments.next() {
        desk.storm(alarms.parse()?);
    }
    let (inputs, received) = mpsc::channel(256);
    let link = WebLink {
        in_force: Default::default(),
        inputs,
        reload: desk::reloader(),
        feed: desk.feed.clone(),
        archive: Arc::clone(&desk.memory) as _,
        tuner: Arc::new(desk::Tuned::default()),
        lister: Arc::new(desk::Devices::default()),
        subscriptions: desk::subscriptions(&clock),
        warnings: desk::warnings(&clock),
        outputs: anmin::output::Outputs::default(),
        metrics: Arc::new(|| "# EOF\n".to_owned()),
        clock,
        crew: anmin::crew_link::Links {
            key: anmin::crew_link::LinkKey::of(b"crews of the page"),
            valid: std::time::Duration::from_secs(43_200),
        },
        site: Site {
            id: "chunhui".to_owned(),
            name: desk::text("春晖社区", "Chunhui Community"),
            exercise: true,
            time_zone: jiff::tz::TimeZone::get("Asia/Shanghai")?,
        },
    };
    let (server, _) = Server::new(settings, link, watch::Sender::default().subscribe(), None);
    let (address, served) = server.open().await?;
    println!("http://{address}");
    tokio::select! {
        () = desk.run(received) => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    served.abort();
    Ok(())
}
