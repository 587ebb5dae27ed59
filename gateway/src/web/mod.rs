//! REST, server-sent events and the page of the duty desk.
//!
//! It keeps no state of its own: it asks the main loop, hands it commands, and passes on what the main loop's feed says.
//! A screen that stands still must never look like a quiet night, so the live stream carries a status that the main
//! loop itself has answered, and a page that hears none says so.
//!
//! Bounds: [`listen::MOST_CONNECTIONS`] connections, few of one address when many are open, [`events::MOST_CLIENTS`] live
//! streams and those of subscribers, 1 MiB a request, 10 s for a request's head, 30 s for its body, 15 s for a peer to take
//! what it is sent.

mod api;
mod archive;
pub(crate) mod audit;
pub mod authority;
pub mod client;
mod crew;
mod delivery_reports;
pub mod devices;
mod drawings;
pub mod drills;
mod events;
mod explain;
pub(crate) mod guard;
pub mod ledger;
mod listen;
mod meanwhile;
mod oidc;
mod once;
mod openapi;
pub mod outputs;
mod page;
mod paging;
pub(crate) mod people;
pub mod plans;
pub(crate) mod problem;
pub mod registers;
pub mod residents;
mod secret;
mod sign_in;
pub mod stations;
mod subscriptions;
mod tries;
pub mod tuning;
pub mod walks;
mod warnings;
pub mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anmin_rules::alarm::AlarmId;
use anmin_rules::drill::{Drill, DrillId};
use anmin_rules::incident::{Incident, IncidentId};
use anmin_rules::order::{Order, OrderId};
use anmin_rules::rule::Text;
use anmin_rules::walk::{Tick, Walk, WalkId};
use anmin_sensors::document::Reader;
use anmin_sensors::point::{Place, PointId};
use anmin_sensors::reading::Quality;
use anmin_sensors::time::Wall;
use jiff::tz::TimeZone;
use rumqttc::tokio_rustls::TlsAcceptor;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::credentials;
use crate::crew_link::Links;
use crate::delivery_report;
use crate::drawing::Drawing;
use crate::main_loop::{Feed, Input, ReloadAsked};
use crate::output::Outputs;
use crate::register;
use crate::store::audit::{Audited, Chain, Wanted};
use crate::store::incidents::{ClosedCursor, ClosedFilter};
use crate::store::plans::Revision;
use crate::store::state::{Journaled, Sent};
use crate::store::unusable::{Kept, KeptCursor};
use crate::store::view::Raw;
use crate::store::{Bucket, DeadLetter, History, StateReader, StoreError};
use crate::subscription::Subscriptions;
use crate::warning::Warnings;
use drills::Drilled;

pub use authority::RouteRow;
pub use guard::Token;
pub use openapi::document as openapi;
use people::People;

const MINUTE: Duration = Duration::from_secs(60);
const DAYS_30: Duration = Duration::from_secs(30 * 86_400);

/// `[web]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// An administrator without a name; asked of every API request while there is no account.
    pub token: Option<Token>,
    /// After so long without a touch a screen wants the password before it does anything.
    pub lock_after: Duration,
    /// After so long one signs in anew.
    pub session_lasts: Duration,
    /// Names under which browsers may reach us, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
    pub tls: Option<Tls>,
    /// `[residents]`.
    pub residents: residents::Settings,
    /// `[oidc]`.
    pub oidc: Option<crate::oidc::Settings>,
}

/// A second listener, for whoever is not on the box.
#[derive(Clone, Debug)]
pub struct Tls {
    pub listen: SocketAddr,
    pub config: Arc<rustls::ServerConfig>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8_420)),
            token: None,
            lock_after: Duration::from_secs(15 * 60),
            session_lasts: Duration::from_secs(12 * 3_600),
            hosts: Vec::new(),
            proxies: Vec::new(),
            tls: None,
            residents: residents::Settings::default(),
            oidc: None,
        }
    }
}

impl Settings {
    pub fn read(r: &Reader<'_>, base: &Path) -> Option<Self> {
        let listen = Self::read_listen(r);
        let token = r.optional::<String>("token_file").and_then(|file| {
            let path = credentials::named_file(base, file);
            match Token::load(&path) {
                Ok(token) => Some(token),
                Err(why) => {
                    r.fault(
                        "token_file",
                        format!("`web.token_file`: {why}"),
                        Some("one line of 16 characters or more, such as `openssl rand -hex 32` prints".to_owned()),
                    );
                    None
                }
            }
        });
        let usual = Self::default();
        let lock_after = r.or("lock_after", usual.lock_after);
        let session_lasts = r.or("session_lasts", usual.session_lasts);
        for (key, span, least, most) in
            [("lock_after", lock_after, MINUTE, 24 * 60 * MINUTE), ("session_lasts", session_lasts, MINUTE, DAYS_30)]
        {
            if !(least..=most).contains(&span) {
                r.fault(
                    key,
                    format!("`web.{key}` is {span:?}, expected {least:?} to {most:?}"),
                    Some("such as \"15m\" or \"12h\"".to_owned()),
                );
            }
        }
        let hosts: Vec<String> = r.or("hosts", Vec::new());
        for host in &hosts {
            if host.is_empty() || host.contains([':', '/', '*', ' ']) {
                r.fault(
                    "hosts",
                    format!("`web.hosts` has {host:?}, expected a plain name"),
                    Some("such as \"anmin.lan\": no scheme, no port".to_owned()),
                );
            }
        }
        let proxies: Vec<String> = r.or("proxies", Vec::new());
        let proxies = proxies.iter().filter_map(|proxy| {
            let address = proxy.parse::<IpAddr>();
            if address.is_err() {
                let hint = Some("such as \"127.0.0.1\"".to_owned());
                r.fault("proxies", format!("`web.proxies` has {proxy:?}, expected an IP address"), hint);
            }
            address.ok().map(|address| address.to_canonical())
        });
        let proxies = proxies.collect();
        let tls_listen = address(r, "tls_listen");
        let tls = match (tls_listen, credentials::server_tls(r, base)) {
            (Some(listen), Some(config)) => Some(Tls { listen, config }),
            (Some(_), None) if !r.has("tls_cert") => {
                r.fault("tls_listen", "`web.tls_listen` without `tls_cert` and `tls_key`", None);
                None
            }
            (None, Some(_)) if !r.has("tls_listen") => {
                let hint = Some("such as tls_listen = \"0.0.0.0:8443\"".to_owned());
                r.fault("tls_cert", "`web.tls_cert` without `tls_listen`: nobody would see it", hint);
                None
            }
            _ => None,
        };
        r.finish();
        let residents = residents::Settings::default();
        let oidc = None;
        (!r.is_faulty()).then_some(Self {
            listen,
            token,
            lock_after,
            session_lasts,
            hosts,
            proxies,
            tls,
            residents,
            oidc,
        })
    }

    /// `listen` alone; the usual address, with a fault noted, where it is none.
    pub fn read_listen(r: &Reader<'_>) -> SocketAddr {
        address(r, "listen").unwrap_or(Self::default().listen)
    }
}

fn address(r: &Reader<'_>, key: &'static str) -> Option<SocketAddr> {
    let text = r.optional::<String>(key)?;
    let found = text.parse();
    if found.is_err() {
        r.fault(
            key,
            format!("`web.{key}` is {text:?}, expected an address and a port"),
            Some("such as \"127.0.0.1:8420\", or \"0.0.0.0:8420\" for every network of the box".to_owned()),
        );
    }
    found.ok()
}

/// What every answer may say about the site.
#[derive(Clone, Debug)]
pub struct Site {
    pub id: String,
    pub name: Text,
    /// The whole site runs as an exercise: the page says so all the time.
    pub exercise: bool,
    /// Offsets of the time stamps.
    pub time_zone: TimeZone,
}

/// Everything that the web may touch.
#[derive(Clone)]
pub struct WebLink {
    pub inputs: mpsc::Sender<Input>,
    /// Has the site's files read anew.
    pub reload: mpsc::Sender<ReloadAsked>,
    pub feed: Feed,
    pub archive: Arc<dyn Archive>,
    /// Numbers for rules that are tried and set here.
    pub tuner: Arc<dyn tuning::Tuner>,
    /// Devices that are taken in here.
    pub lister: Arc<dyn devices::Lister>,
    /// What others follow from outside.
    pub subscriptions: Subscriptions,
    /// What offices above say.
    pub warnings: Warnings,
    /// What may be switched.
    pub outputs: Outputs,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub clock: Clock,
    pub site: Site,
    /// By what crews answer from their phones.
    pub crew: Links,
    pub in_force: Arc<RwLock<InForce>>,
}

/// What of the site may be another while anmin runs.
#[derive(Default)]
pub struct InForce {
    /// SHA-256 of the site's files as they were taken last, in hexadecimal digits.
    pub configuration: Arc<str>,
    /// The places of the site, in no order.
    pub places: Vec<Arc<Place>>,
    /// Maps and floor plans, in the order of the site's files.
    pub drawings: Arc<[Drawing]>,
    /// Of ways out that speak to people, by their ids.
    pub texts: BTreeMap<Arc<str>, Teller>,
    /// How what gateways report is read, by their ways out.
    pub reports: BTreeMap<Arc<str>, delivery_report::Settings>,
    /// By the id of its `[[mqtt]]`.
    pub sessions: BTreeMap<Arc<str>, DiscardSession>,
}

impl WebLink {
    fn in_force(&self) -> RwLockReadGuard<'_, InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what an order says as its way out sends it: a CAP message, the text of a notice.
pub type Teller = Arc<dyn Fn(&Order) -> Option<String> + Send + Sync>;

/// Has an outside broker forget our session, as soon as it answers; returns at once.
pub type DiscardSession = Arc<dyn Fn() + Send + Sync>;

/// What the databases remember. Called on blocking threads, from several at once; an error is shown to the asker.
pub trait Archive: Send + Sync + 'static {
    /// A point's history between two moments, in at most `buckets` stretches of equal length; empty ones are left out.
    fn readings(&self, point: &PointId, from: Wall, to: Wall, buckets: usize) -> Result<Vec<Bucket>, String>;

    /// Every reading of a point that history has from `from` on and before `to`, in the order of time; flags are 0 and 1.
    fn samples(&self, point: &PointId, from: Wall, to: Wall) -> Result<Vec<(Wall, Option<f64>, Quality)>, String>;

    /// The first `most` of them, and how many there are besides.
    fn first_samples(&self, point: &PointId, from: Wall, to: Wall, most: usize) -> Result<(Vec<Raw>, u64), String>;

    /// The newest rows of the journal before row `before`, newest first.
    fn recent(&self, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, String>;

    /// Everything the journal holds of one alarm, oldest first.
    fn history(&self, alarm: AlarmId) -> Result<Vec<Journaled>, String>;

    /// The newest `limit` rows of the audit that are wanted, newest first.
    fn audit(&self, wanted: &Wanted, limit: usize) -> Result<Vec<Audited>, String>;

    /// Walks the whole chain of the audit.
    fn verify_audit(&self) -> Result<Chain, String>;

    /// How one incident stands, or ended; `None` when there never was one.
    fn incident(&self, id: IncidentId) -> Result<Option<Incident>, String>;

    /// Incidents that have closed, the last first, behind `after`.
    fn closed_incidents(
        &self,
        filter: &ClosedFilter,
        after: Option<ClosedCursor>,
        limit: usize,
    ) -> Result<Vec<Incident>, String>;

    /// The newest `limit` rows about one incident and all that belongs to it before row `before`, newest first.
    fn timeline(&self, id: IncidentId, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, String>;

    /// How incidents that closed within a stretch of time ended: outcome, cause of false alarms, and how many.
    fn outcomes(&self, from: Wall, to: Wall) -> Result<Vec<(String, String, u64)>, String>;

    /// The newest `limit` drills that began before `before`, the last first.
    fn drills(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Drill>, String>;

    /// Every order about these alarms, with what became of it.
    fn messages(&self, alarms: &[AlarmId]) -> Result<Vec<Sent>, String>;

    /// The newest `limit` walk tests that began before `before`, the last first.
    fn walks(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Walk>, String>;

    /// One walk test with the points that spoke in it; `None` when there never was one.
    fn walk(&self, id: WalkId) -> Result<Option<(Walk, Vec<Tick>)>, String>;

    /// The last tick of one of these points that was a test, with its walk where that is still known.
    fn last_test(&self, points: &[PointId]) -> Result<Option<(Tick, Option<Walk>)>, String>;

    /// The rows of one register in the order of their ids.
    fn register(&self, kind: register::Kind) -> Result<Vec<register::Row>, String>;

    /// Which plans came into force, of each the oldest first.
    fn plans(&self) -> Result<Vec<Revision>, String>;

    /// The configurations that were in force between two moments, each with since when, the oldest first.
    fn configurations(&self, from: Wall, to: Wall) -> Result<Vec<(Wall, String)>, String>;

    /// One drill with all that the journal holds of it; `None` when there never was one.
    fn drill(&self, id: DrillId) -> Result<Option<Drilled>, String>;

    /// The newest `limit` orders that were given up, oldest first.
    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, String>;

    /// The first `limit`, oldest first, behind an order where one is named; `None` where nothing is known of it any more.
    fn dead_letters_after(&self, order: Option<&OrderId>, limit: usize) -> Result<Option<Vec<DeadLetter>>, String>;

    /// The last payloads of which nothing could be used, newest first, behind `after`.
    fn unusable(&self, limit: usize, after: Option<KeptCursor>) -> Result<Vec<Kept>, String>;
}

/// The two databases, each read through a connection of its own: neither the main loop nor a writer waits.
pub struct Databases {
    /// Where the journal is. Opened for each question: it may have been replaced, or be away for a while.
    pub dir: PathBuf,
    pub readings: Mutex<History>,
}

impl Databases {
    fn journal<T>(&self, ask: impl FnOnce(&StateReader) -> Result<T, StoreError>) -> Result<T, String> {
        StateReader::open(&self.dir).and_then(|journal| ask(&journal)).map_err(|error| error.to_string())
    }
}

impl Archive for Databases {
    fn readings(&self, point: &PointId, from: Wall, to: Wall, buckets: usize) -> Result<Vec<Bucket>, String> {
        let mut history = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        history.buckets(point.as_str(), from, to, buckets).map_err(|error| error.to_string())
    }

    fn samples(&self, point: &PointId, from: Wall, to: Wall) -> Result<Vec<(Wall, Option<f64>, Quality)>, String> {
        let mut history = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        history.raw(point.as_str(), from, to).map_err(|error| error.to_string())
    }

    fn first_samples(&self, point: &PointId, from: Wall, to: Wall, most: usize) -> Result<(Vec<Raw>, u64), String> {
        let mut history = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        history.first(point.as_str(), from, to, most).map_err(|error| error.to_string())
    }

    fn recent(&self, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, String> {
        self.journal(|journal| journal.recent(limit, before))
    }

    fn history(&self, alarm: AlarmId) -> Result<Vec<Journaled>, String> {
        self.journal(|journal| journal.history(alarm))
    }

    fn audit(&self, wanted: &Wanted, limit: usize) -> Result<Vec<Audited>, String> {
        self.journal(|journal| journal.audit(wanted, limit))
    }

    fn verify_audit(&self) -> Result<Chain, String> {
        self.journal(StateReader::verify_audit)
    }

    fn incident(&self, id: IncidentId) -> Result<Option<Incident>, String> {
        self.journal(|journal| journal.incident(id))
    }

    fn closed_incidents(
        &self,
        filter: &ClosedFilter,
        after: Option<ClosedCursor>,
        limit: usize,
    ) -> Result<Vec<Incident>, String> {
        self.journal(|journal| journal.closed_incidents(filter, after, limit))
    }

    fn timeline(&self, id: IncidentId, limit: usize, before: Option<i64>) -> Result<Vec<Journaled>, String> {
        self.journal(|journal| journal.timeline(id, limit, before))
    }

    fn outcomes(&self, from: Wall, to: Wall) -> Result<Vec<(String, String, u64)>, String> {
        self.journal(|journal| journal.outcomes(from, to))
    }

    fn drills(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Drill>, String> {
        self.journal(|journal| journal.drills(limit, before))
    }

    fn walks(&self, limit: usize, before: Option<Wall>) -> Result<Vec<Walk>, String> {
        self.journal(|journal| journal.walks(limit, before))
    }

    fn walk(&self, id: WalkId) -> Result<Option<(Walk, Vec<Tick>)>, String> {
        self.journal(|journal| journal.walk(id))
    }

    fn last_test(&self, points: &[PointId]) -> Result<Option<(Tick, Option<Walk>)>, String> {
        self.journal(|journal| journal.last_test(points))
    }

    fn register(&self, kind: register::Kind) -> Result<Vec<register::Row>, String> {
        self.journal(|journal| journal.register(kind))
    }

    fn plans(&self) -> Result<Vec<Revision>, String> {
        self.journal(StateReader::plans)
    }

    fn configurations(&self, from: Wall, to: Wall) -> Result<Vec<(Wall, String)>, String> {
        self.journal(|journal| journal.configurations(from, to))
    }

    fn messages(&self, alarms: &[AlarmId]) -> Result<Vec<Sent>, String> {
        self.journal(|journal| journal.messages(alarms))
    }

    fn drill(&self, id: DrillId) -> Result<Option<Drilled>, String> {
        self.journal(|journal| Drilled::read(journal, id))
    }

    fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, String> {
        self.journal(|journal| journal.dead_letters(limit))
    }

    fn dead_letters_after(&self, order: Option<&OrderId>, limit: usize) -> Result<Option<Vec<DeadLetter>>, String> {
        self.journal(|journal| journal.dead_letters_after(order, limit))
    }

    fn unusable(&self, limit: usize, after: Option<KeptCursor>) -> Result<Vec<Kept>, String> {
        let mut history = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        history.unusable(limit, after).map_err(|error| error.to_string())
    }
}

/// The duty desk and its API.
#[derive(Clone)]
pub struct Server {
    listen: SocketAddr,
    tls: Option<Tls>,
    proxies: Vec<IpAddr>,
    router: axum::Router,
}

impl Server {
    /// Nobody can ask before [`Server::open`]. The task tells the screens what happens, whoever listens. `people` is what the journal holds of those who may ask, once more when it could not
    /// be read at the start; `storage` is the folder in which the set-up code is left for who is at the box.
    pub fn new(
        settings: Settings,
        link: WebLink,
        mut kept: watch::Receiver<crate::store::people::Kept>,
        storage: Option<&Path>,
    ) -> (Self, JoinHandle<()>) {
        let storage = storage.map(Path::to_owned);
        let subscriptions = link.subscriptions.clone();
        let subscriber_of = move |token: &str| {
            let found = subscriptions.all().find(|one| one.is_token(token));
            found.map(|one| one.id().to_string())
        };
        let doors = people::Doors { storage, subscriber_of: Arc::new(subscriber_of) };
        let people = People::new(kept.borrow_and_update().clone(), &settings, &link.clock, link.inputs.clone(), doors);
        let late = people.clone();
        let hub = events::Hub::new(&link);
        let desk = api::Desk {
            link: link.clone(),
            hub: hub.clone(),
            people,
            counted: crew::Counted::default(),
            residents: residents::Page::new(settings.residents.clone()),
            oidc: settings.oidc.clone().map(|oidc| oidc::Door::new(oidc, settings.listen.port(), &link.clock)),
            setting: Arc::default(),
            keeping: Arc::default(),
            exports: Arc::new(Semaphore::new(1)),
        };
        let (listen, tls, proxies) = (settings.listen, settings.tls.clone(), settings.proxies.clone());
        let router = api::router(desk, guard::Guard::new(settings));
        let told = tokio::spawn(async move {
            tokio::join!(hub.run(link), async {
                while kept.changed().await.is_ok() {
                    late.take_up(kept.borrow_and_update().clone());
                }
            });
        });
        (Self { listen, tls, proxies, router }, told)
    }

    /// Serves in the background; says where, with the port that the system chose when the settings said 0.
    pub async fn open(self) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(self.listen).await?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                "web: the duty desk is served as plain HTTP on {address}: whoever is on the way can read passwords; set `tls_listen`, \
                 or have a proxy with TLS in front of it, and listen on 127.0.0.1"
            );
        }
        Ok((address, tokio::spawn(listen::accept(listener, None, self.proxies, self.router))))
    }

    /// Where it is to serve TLS, if at all.
    pub fn tls_listen(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|tls| tls.listen)
    }

    /// Serves TLS in the background, likewise.
    pub async fn open_tls(self) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let Some(Tls { listen, config }) = &self.tls else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no certificate is configured"));
        };
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        tracing::info!("web: others find the duty desk at https://{address}/");
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        Ok((address, tokio::spawn(listen::accept(listener, Some(acceptor), self.proxies, self.router))))
    }
}

/// Every route of the API and what it needs, as the router has it.
pub fn routes() -> Vec<RouteRow> {
    api::table()
}
