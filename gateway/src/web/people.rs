//! Who is asking: accounts, sign-ins and tokens as they are now, and what the guard believes of a request.
//!
//! What changes here is made durable by the main loop first, with a row of the audit. A full disk keeps nobody from signing
//! in: the change then waits in memory as alarms do.
//!
//! | door | when | who comes in |
//! |---|---|---|
//! | open | there never was an account, no token is configured, and only the box itself can reach us | whoever is at the box |
//! | token | there is no account, and a token is configured | who holds it |
//! | set up | there is no account, others can reach us, or accounts may have been lost | nobody, until somebody proves to be at the box |
//! | sign in | there is an account | who signs in, and programs with a token |
//!
//! A screen that nobody has touched for a while is locked: it goes on showing and sounding what happens, and wants the
//! password before it does anything. It ends when its time is up.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::time::{Mono, Now, Wall};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Settings;
use super::authority::{self, Right};
use super::guard::{Caller, Token, offered, same_origin_is_said, way_of};
use super::problem::Problem;
use super::secret::{self, Vault, totp};
use super::tries::Tries;
use crate::clock::Clock;
use crate::main_loop::Input;
use crate::oidc;
use crate::store::audit::{Deed, Way};
use crate::store::people::{Account, ApiToken, Kept, Person, Places, Principal, Role, SignIn, Subject, Totp};
use crate::telemetry::Repeats;

/// Whose token it is.
pub(super) type SubscriberOf = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Wrong passwords for one name that cost no wait.
const FREE_FOR_A_NAME: u32 = 5;
/// ... and from one address, behind which several people may sit.
const FREE_FOR_AN_ADDRESS: u32 = 20;
/// For the main loop to make a change durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(3);
/// How often it is written down that a browser is still used.
const USED_EVERY: Duration = Duration::from_secs(300);
/// Browsers of one account that may be signed in at once; one more ends the oldest.
const MOST_SIGN_INS: usize = 20;
/// Sign-ins that have ended are remembered so long: who came from an address before is not kept out by what others try.
const ENDED_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Accounts and tokens at most.
const MOST_PEOPLE: usize = 1_000;
/// How long a new secret of one-time passwords waits to be confirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(600);
/// Longest life of a token.
pub(crate) const MOST_TOKEN_DAYS: u32 = 366;

/// How one comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    Token,
    SetUp,
    SignIn,
}

impl Door {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Token => "token",
            Self::SetUp => "set_up",
            Self::SignIn => "sign_in",
        }
    }
}

/// What somebody has shown to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Being at the box.
    Box,
    TokenFile,
    /// The name of a token.
    Token(String),
    /// The id of a sign-in.
    SignIn(String),
    /// The id of a subscriber, by the token that the site gave it: it opens its subscription and nothing else.
    Subscriber(String),
}

/// Cheap to clone; every clone is the same people.
#[derive(Clone)]
pub(crate) struct People(Arc<Shared>);

struct Shared {
    book: Mutex<Book>,
    /// One change of people at a time, from its checks until it is known.
    turn: tokio::sync::Mutex<()>,
    vault: Vault,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    token: Option<Token>,
    loopback: bool,
    lock_after: Duration,
    lasts: Duration,
    cookie: String,
    /// Whose people come in without a password here.
    issuer: Option<String>,
    /// Where the set-up code stands.
    code_file: Option<PathBuf>,
    subscriber_of: SubscriberOf,
}

/// What lies outside: where the set-up code is left, and whose tokens the site's configuration names.
pub(crate) struct Doors {
    pub storage: Option<PathBuf>,
    pub subscriber_of: SubscriberOf,
}

#[derive(Default)]
struct Book {
    accounts: BTreeMap<String, Account>,
    sign_ins: HashMap<String, Live>,
    tokens: BTreeMap<String, ApiToken>,
    tries: Tries,
    refused: Repeats,
    whole: bool,
    code: Option<String>,
    /// New secrets of one-time passwords, by account.
    offered: HashMap<String, (String, Mono)>,
    token_file_said: bool,
}

impl Book {
    /// What the journal holds. Whoever is known already is newer.
    fn take_up(&mut self, now: Now, kept: Kept) {
        let born = |at: Wall| Mono::from_nanos(now.mono.nanos().saturating_sub(nanos(now.wall.since(at))));
        for account in kept.accounts {
            self.accounts.entry(account.name.clone()).or_insert(account);
        }
        for kept in kept.sign_ins {
            // A start does not lock a screen on which somebody waits for an alarm: it was touched when it was written down.
            let (born, touched) = (born(kept.created), born(kept.used));
            let live = Live { born, touched, written: touched, locked: false, kept };
            self.sign_ins.entry(live.kept.id.clone()).or_insert(live);
        }
        for token in kept.tokens {
            self.tokens.entry(token.name.clone()).or_insert(token);
        }
        self.whole = kept.whole;
    }
}

struct Live {
    kept: SignIn,
    born: Mono,
    touched: Mono,
    written: Mono,
    locked: bool,
}

/// How a sign-in stands, for screens.
#[derive(Clone, Debug)]
pub(crate) struct SignInState {
    pub kept: SignIn,
    pub locked: bool,
}

/// Who is asking, for their own page.
#[derive(Clone, Debug)]
pub(crate) struct Myself {
    pub door: Door,
    pub principal: Option<Arc<Principal>>,
    pub locked: bool,
    pub must_change: bool,
    pub totp: bool,
    /// Whether an account stands behind it.
    pub account: bool,
    /// Whether that is one of the provider, which has no password.
    pub by_provider: bool,
}

/// Why somebody whom the provider has named is not let in.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    NoRole,
    Disabled,
    /// There are as many accounts as there may be.
    Full,
    Problem(Problem),
}

impl NotAdmitted {
    fn words(&self) -> Text {
        let (zh, en) = match self {
            Self::NoRole => ("统一认证中没有安民的角色", "the provider gives no role in anmin"),
            Self::Disabled => ("账号已停用", "the account is shut out"),
            Self::Full => ("账号数已达上限", "there are as many accounts as there may be"),
            Self::Problem(problem) => return problem.error.clone(),
        };
        Text { zh: zh.to_owned(), en: en.to_owned() }
    }
}

impl From<Problem> for NotAdmitted {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// A browser's new secret, and the account behind it.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub secret: String,
}

impl People {
    /// `kept` is what the journal holds; `doors` what lies outside.
    pub(crate) fn new(
        kept: Kept,
        settings: &Settings,
        clock: &Clock,
        inputs: mpsc::Sender<Input>,
        doors: Doors,
    ) -> Self {
        let mut book = Book::default();
        book.take_up(clock.now(), kept);
        let people = Self(Arc::new(Shared {
            book: Mutex::new(book),
            turn: tokio::sync::Mutex::default(),
            vault: Vault::new(),
            clock: clock.clone(),
            inputs,
            token: settings.token.clone(),
            loopback: settings.listen.ip().is_loopback(),
            lock_after: settings.lock_after,
            lasts: settings.session_lasts,
            // Browsers keep cookies by host and not by port: two daemons on one machine must not sign each other out.
            cookie: format!("anmin-{}", settings.listen.port()),
            issuer: settings.oidc.as_ref().map(|oidc| oidc.issuer.clone()),
            code_file: doors.storage.map(|dir| dir.join(CODE_FILE)),
            subscriber_of: doors.subscriber_of,
        }));
        people.offer_code();
        people
    }

    /// What the journal holds and could not be read at the start.
    pub(crate) fn take_up(&self, kept: Kept) {
        let mut book = self.book();
        book.take_up(self.0.clock.now(), kept);
        if !book.accounts.is_empty() {
            self.end_code(&mut book);
        }
    }

    /// There is an account: the set-up code opens nothing any more.
    fn end_code(&self, book: &mut Book) {
        book.code = None;
        if let Some(file) = &self.0.code_file {
            // That it is left there is no harm.
            let _ = std::fs::remove_file(file);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door_of(&self, book: &Book) -> Door {
        if !book.accounts.is_empty() {
            Door::SignIn
        } else if self.0.token.is_some() {
            Door::Token
        } else if self.0.loopback && book.whole {
            Door::Open
        } else {
            Door::SetUp
        }
    }

    pub(crate) fn door(&self) -> Door {
        self.door_of(&self.book())
    }

    /// While there is no account: says the code with which the first is made. It stays the same until it is used.
    fn offer_code(&self) {
        let mut book = self.book();
        if !book.accounts.is_empty() {
            return;
        }
        let file = self.0.code_file.as_deref();
        let kept = file.and_then(|file| std::fs::read_to_string(file).ok()).map(|text| text.trim().to_owned());
        let code = kept.filter(|code| code.len() >= 16).unwrap_or_else(|| {
            let code = secret::words();
            let written = file.map(|file| write_secret(file, &code).map_err(|error| (file, error)));
            // A log is read by many: it has the code only where nothing else could show it.
            if let Some(Err((file, error))) = written {
                tracing::warn!("web: the set-up code {code} cannot be kept in {}: {error}", file.display());
            }
            code
        });
        tracing::info!(
            "web: there is no account yet; the first administrator is made with the code that `anmin account setup-code` \
             shows"
        );
        book.code = Some(code);
    }

    /// The pass that a request shows, if any; a wrong one is an error.
    fn pass(&self, book: &mut Book, headers: &HeaderMap) -> Result<Option<Pass>, Problem> {
        if headers.contains_key(header::AUTHORIZATION) {
            let offered = offered(headers).unwrap_or_default();
            if self.0.token.as_ref().is_some_and(|token| token.is(offered)) {
                if !book.accounts.is_empty() && !std::mem::replace(&mut book.token_file_said, true) {
                    tracing::warn!(
                        "web: somebody uses the shared token of `web.token_file`, which is an administrator without a name; \
                         give each program a token of its own, by `anmin account token new`"
                    );
                }
                return Ok(Some(Pass::TokenFile));
            }
            let sum = secret::sum(offered);
            let named = book.tokens.values().find(|token| secret::same(&token.sum, &sum));
            return match named {
                Some(token) => Ok(Some(Pass::Token(token.name.clone()))),
                None => (self.0.subscriber_of)(offered).map(|id| Some(Pass::Subscriber(id))).ok_or_else(no_token),
            };
        }
        if let Some(secret) = self.cookie(headers) {
            let id = secret::sum(secret);
            if book.sign_ins.contains_key(&id) {
                return Ok(Some(Pass::SignIn(id)));
            }
        }
        Ok((self.door_of(book) == Door::Open).then_some(Pass::Box))
    }

    fn cookie<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| name.strip_prefix("__Host-").unwrap_or(name) == self.0.cookie).map(|(_, value)| value)
    }

    /// In whose right a pass lets in now; `None` when it does not any more.
    fn principal(&self, book: &Book, pass: &Pass, now: Now) -> Option<Principal> {
        match pass {
            Pass::Box => (self.door_of(book) == Door::Open).then(|| Principal::unnamed(Principal::AT_THE_BOX)),
            Pass::TokenFile => Some(Principal::unnamed(Principal::TOKEN_FILE)),
            Pass::Token(name) => {
                let token = book.tokens.get(name).filter(|token| now.wall < token.expires)?;
                Some(Principal {
                    account: format!("token:{name}"),
                    shown: name.clone(),
                    role: token.role,
                    places: token.places.clone(),
                })
            }
            Pass::Subscriber(id) => Some(Principal {
                account: format!("subscriber:{id}"),
                shown: id.clone(),
                role: Role::Office,
                places: Places::EVERYWHERE,
            }),
            Pass::SignIn(id) => {
                let live = book.sign_ins.get(id)?;
                if live.kept.ended || now.mono.since(live.born) >= self.0.lasts {
                    return None;
                }
                let account = book.accounts.get(&live.kept.account).filter(|account| !account.disabled)?;
                // Who came by a provider that the site does not name any more is nobody here.
                let known = account.provider.as_ref().is_none_or(|from| Some(&from.issuer) == self.0.issuer.as_ref());
                known.then(|| principal_of(account))
            }
        }
    }

    fn is_locked(&self, book: &Book, pass: &Pass, now: Now) -> bool {
        let Pass::SignIn(id) = pass else { return false };
        book.sign_ins.get(id).is_some_and(|live| live.locked || now.mono.since(live.touched) >= self.0.lock_after)
    }

    /// Lets a request through to a handler with this right, or says why not. The only place where that is decided.
    pub(crate) fn admit(&self, mut request: Request, right: Right) -> Result<Request, Problem> {
        let way = way_of(&request);
        if right == Right::Anybody {
            request.extensions_mut().insert(way);
            return Ok(request);
        }
        let now = self.0.clock.now();
        let mut book = self.book();
        let pass = self.pass(&mut book, request.headers())?;
        let principal = pass.as_ref().and_then(|pass| self.principal(&book, pass, now));
        let (Some(pass), Some(principal)) = (pass.clone(), principal) else {
            return Err(match (self.door_of(&book), pass) {
                (_, Some(Pass::Token(_))) | (Door::Token, _) => no_token(),
                (Door::SetUp, _) => set_up_first(),
                (Door::Open | Door::SignIn, _) => sign_in_first(),
            });
        };
        let is_command = !matches!(*request.method(), Method::GET | Method::HEAD);
        if let Pass::SignIn(id) = &pass {
            if is_command && !same_origin_is_said(request.headers()) {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "foreign_origin",
                    "拒绝其他网站发起的操作",
                    "commands with a browser's cookie are only taken from our own page",
                ));
            }
            let must_change = book.accounts.get(&principal.account).is_some_and(|account| account.must_change);
            if must_change && right != Right::Own {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "must_change",
                    "请先设置自己的密码",
                    "set a password of your own first",
                ));
            }
            if !right.outlasts_lock() && self.is_locked(&book, &pass, now) {
                return Err(locked());
            }
            if !right.outlasts_lock()
                && is_command
                && let Some(live) = book.sign_ins.get_mut(id)
            {
                live.touched = now.mono;
            }
        }
        let way = Way { principal: Some(Arc::new(principal.clone())), ..way };
        // Which subscription it opens, its route says; beyond that it is worth nothing.
        if matches!(pass, Pass::Subscriber(_)) && right != Right::Subscribe {
            return Err(no_token());
        }
        if let Err(problem) = authority::check(&principal, right) {
            let key = format!("{} {}", principal.account, request.uri().path());
            if book.refused.say(&key, now.mono).is_some() {
                let about = request.uri().path();
                self.note_refused(&principal, way, about, &problem, now);
            }
            return Err(problem);
        }
        drop(book);
        let caller = Caller { way, principal: Arc::new(principal), pass, people: self.clone(), seen: None };
        request.extensions_mut().insert(caller);
        Ok(request)
    }

    /// For a right that only the command itself shows: the same table, the same lock, the same audit.
    pub(crate) fn may(&self, caller: &Caller, right: Right) -> Result<(), Problem> {
        let now = self.0.clock.now();
        let mut book = self.book();
        if !right.outlasts_lock() && self.is_locked(&book, &caller.pass, now) {
            return Err(locked());
        }
        authority::check(&caller.principal, right).inspect_err(|problem| {
            let key = format!("{} {}", caller.principal.account, right.as_str());
            if book.refused.say(&key, now.mono).is_some() {
                self.note_refused(&caller.principal, caller.way.clone(), right.as_str(), problem, now);
            }
        })
    }

    /// What was refused for want of a right is in the audit; where that is full of work, in the log.
    fn note_refused(&self, principal: &Principal, way: Way, about: &str, problem: &Problem, now: Now) {
        let deed = Deed {
            at: now.wall,
            who: name_of(principal),
            from: way,
            what: "request.refuse".into(),
            about: about.chars().take(256).collect(),
            refused: Some(problem.error.clone()),
            detail: Value::Null,
        };
        tracing::warn!(account = principal.account, "web: refused {:?}", deed.about);
        if self.0.inputs.try_send(Input::Did(deed)).is_err() {
            tracing::warn!("web: the audit could not be told of it");
        }
    }

    /// Whether what a stream was opened with still gives what it gave then.
    pub(crate) fn is_still(&self, pass: &Pass, principal: &Principal) -> bool {
        let book = self.book();
        self.principal(&book, pass, self.0.clock.now()).is_some_and(|now| now == *principal)
    }

    /// Who is asking, whether or not they may do anything.
    pub(crate) fn myself(&self, headers: &HeaderMap) -> Myself {
        let now = self.0.clock.now();
        let mut book = self.book();
        let pass = self.pass(&mut book, headers).ok().flatten();
        let principal = pass.as_ref().and_then(|pass| self.principal(&book, pass, now));
        let signed_in = matches!(pass, Some(Pass::SignIn(_)));
        let account = principal.as_ref().filter(|_| signed_in).and_then(|who| book.accounts.get(&who.account));
        Myself {
            door: self.door_of(&book),
            locked: pass.as_ref().is_some_and(|pass| self.is_locked(&book, pass, now)),
            must_change: account.is_some_and(|account| account.must_change),
            totp: account.is_some_and(|account| account.totp.is_some()),
            account: account.is_some(),
            by_provider: account.is_some_and(|account| account.provider.is_some()),
            principal: principal.map(Arc::new),
        }
    }

    /// Makes a change durable, and then known.
    async fn change(&self, people: Vec<Person>, deed: Option<Deed>) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        let input = Input::People { people: people.clone(), deed: deed.map(Box::new), reply };
        if !matches!(timeout(DURABLE_WITHIN, self.0.inputs.send(input)).await, Ok(Ok(()))) {
            return Err(Problem::busy());
        }
        if !matches!(timeout(DURABLE_WITHIN, answer).await, Ok(Ok(_))) {
            return Err(Problem::busy());
        }
        let now = self.0.clock.now().mono;
        let mut book = self.book();
        for person in people {
            match person {
                Person::Account(account) => {
                    self.end_code(&mut book);
                    book.whole = true;
                    drop(book.accounts.insert(account.name.clone(), account));
                }
                Person::SignIn(kept) => match book.sign_ins.get_mut(&kept.id) {
                    Some(live) => live.kept = kept,
                    None => {
                        let live = Live { born: now, touched: now, written: now, locked: false, kept };
                        book.sign_ins.insert(live.kept.id.clone(), live);
                    }
                },
                Person::NoSignIn(id) => drop(book.sign_ins.remove(&id)),
                Person::Token(token) => drop(book.tokens.insert(token.name.clone(), token)),
                Person::NoToken(name) => drop(book.tokens.remove(&name)),
            }
        }
        Ok(())
    }

    async fn note(&self, deed: Deed) -> Result<(), Problem> {
        match timeout(DURABLE_WITHIN, self.0.inputs.send(Input::Did(deed))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Problem::busy()),
        }
    }

    fn deed(&self, who: &str, from: &Way, what: &'static str, about: &str, detail: Value) -> Deed {
        let at = self.0.clock.now().wall;
        Deed {
            at,
            who: who.to_owned(),
            from: from.clone(),
            what: what.into(),
            about: about.to_owned(),
            refused: None,
            detail,
        }
    }

    /// Makes the first administrator, for who knows the set-up code, and signs them in.
    pub(crate) async fn set_up(
        &self,
        code: &str,
        name: &str,
        shown: &str,
        password: String,
        way: &Way,
        agent: &str,
    ) -> Result<SignedIn, Problem> {
        let _turn = self.0.turn.lock().await;
        let now = self.0.clock.now();
        if !self.is_code(code, way)? {
            let problem =
                Problem::new(StatusCode::UNAUTHORIZED, "wrong_code", "初始设置码不对", "that is not the set-up code")
                    .hint(
                        "在安民主机上运行 `anmin account setup-code` 查看，或查看启动日志",
                        "`anmin account setup-code` on the box shows it, and the log of the start does",
                    );
            let mut deed = self.deed("?", way, "people.set_up", "", Value::Null);
            deed.refused = Some(problem.error.clone());
            self.note(deed).await?;
            return Err(problem);
        }
        check_name(name)?;
        if let Some(why) = secret::fault_of(&password, name) {
            return Err(weak(why));
        }
        let account = Account {
            name: name.to_owned(),
            shown: shown.to_owned(),
            role: Role::Administrator,
            places: Places::EVERYWHERE,
            password: self.0.vault.hash(password).await?,
            must_change: false,
            disabled: false,
            totp: None,
            provider: None,
            created: now.wall,
            changed: now.wall,
        };
        let from = Way { principal: Some(Arc::new(principal_of(&account))), ..way.clone() };
        let deed = self.deed(shown, &from, "people.set_up", name, json!({ "role": account.role.as_str() }));
        self.change(vec![Person::Account(account.clone())], Some(deed)).await?;
        self.admit_account(&account, Vec::new(), Value::Null, way, agent).await
    }

    /// Whether it is the set-up code, with the same waits as for passwords.
    fn is_code(&self, code: &str, way: &Way) -> Result<bool, Problem> {
        let (mut book, now) = (self.book(), self.0.clock.now().mono);
        let Some(expected) = book.code.clone().filter(|_| book.accounts.is_empty()) else {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "already_set_up",
                "已有账号，无需初始设置",
                "there are accounts already",
            ));
        };
        let address = address_key(way.address);
        wait(&book.tries, &[&address], now)?;
        let plain = |text: &str| text.to_lowercase().replace([' ', '-'], "");
        let good = secret::same(&plain(code), &plain(&expected));
        if !good {
            book.tries.failed(&address, FREE_FOR_A_NAME, now);
        }
        Ok(good)
    }

    /// Signs in. Whoever asks learns from the answer and from its time no more than that it was not right.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: String,
        code: Option<&str>,
        way: &Way,
        agent: &str,
        headers: &HeaderMap,
    ) -> Result<SignedIn, Problem> {
        let (account, keys) = self.begin_try(name, way)?;
        let hash = account.as_ref().map(|account| account.password.clone());
        let mut good = match self.0.vault.verify(hash, password).await {
            Ok(good) => good,
            Err(busy) => {
                // Nobody has looked at it.
                let (mut book, now) = (self.book(), self.0.clock.now().mono);
                keys.iter().for_each(|key| book.tries.take_back(key, now));
                return Err(busy);
            }
        };
        let mut account = account.filter(|_| good);
        good &= account.as_ref().is_some_and(|account| !account.disabled);
        if let Some(account) = account.as_mut().filter(|_| good)
            && let Some(known) = &mut account.totp
        {
            let seconds = self.0.clock.now().wall.micros() / 1_000_000;
            let Some(code) = code.filter(|code| !code.trim().is_empty()) else {
                self.take_back(&keys);
                return Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "code_needed",
                    "请输入动态验证码",
                    "enter the one-time password of your app",
                ));
            };
            match totp::step(&known.secret, code, seconds, known.step) {
                Some(step) => known.step = step,
                None => good = false,
            }
        }
        let Some(account) = account.filter(|_| good) else {
            let problem = wrong();
            // A name that nobody has may be a password in the wrong field: it stands nowhere.
            let shown = self.book().accounts.get(name).map_or_else(|| "?".to_owned(), |account| account.shown.clone());
            let mut deed = self.deed(&shown, way, "session.sign_in", "", Value::Null);
            deed.refused = Some(problem.error.clone());
            self.note(deed).await?;
            return Err(problem);
        };
        {
            let now = self.0.clock.now().mono;
            let mut book = self.book();
            book.tries.take_back(&keys[0], now);
            book.tries.forget(&keys[1]);
        }
        // A browser that signs in again gets another secret, and the one that it had is worth nothing any more.
        let before = self.cookie(headers).map(secret::sum);
        if let Some(before) = before.filter(|id| self.book().sign_ins.contains_key(id)) {
            self.end(std::slice::from_ref(&before), None).await?;
        }
        // While the password was looked at, somebody may have shut this account, and the code may have been used.
        let _turn = self.0.turn.lock().await;
        let now_is = self.account(&account.name).ok().filter(|now_is| {
            let fresh = match (&now_is.totp, &account.totp) {
                (Some(now_is), Some(used)) => now_is.secret == used.secret && now_is.step < used.step,
                (now_is, used) => now_is.is_none() && used.is_none(),
            };
            !now_is.disabled && now_is.password == account.password && fresh
        });
        let Some(now_is) = now_is else { return Err(wrong()) };
        let account = Account { totp: account.totp, ..now_is };
        if account.totp.is_some() {
            self.change(vec![Person::Account(account.clone())], None).await?;
        }
        self.admit_account(&account, Vec::new(), Value::Null, way, agent).await
    }

    /// Whether somebody from there must wait before the next try, whichever door they take.
    pub(crate) fn may_try(&self, way: &Way) -> Result<(), Problem> {
        wait(&self.book().tries, &[&address_key(way.address)], self.0.clock.now().mono)
    }

    /// The id of the sign-in that a browser shows, locked or not.
    pub(crate) fn shown_sign_in(&self, headers: &HeaderMap) -> Option<String> {
        let id = self.cookie(headers).map(secret::sum)?;
        self.book().sign_ins.contains_key(&id).then_some(id)
    }

    /// Lets in whom the provider names. `before` is the sign-in that the browser had when it left for the provider: of the same
    /// person it goes on, unlocked, and there is no new secret; else it ends.
    pub(crate) async fn admit_named(
        &self,
        named: oidc::Named,
        before: Option<String>,
        way: &Way,
        agent: &str,
    ) -> Result<Option<SignedIn>, NotAdmitted> {
        let _turn = self.0.turn.lock().await;
        let now = self.0.clock.now();
        let subject = Subject { issuer: self.0.issuer.clone().unwrap_or_default(), sub: named.sub };
        let name = subject.account();
        let (known, taken, full) = {
            let book = self.book();
            let taken = book.accounts.values().any(|other| other.name != name && other.shown == named.shown);
            (book.accounts.get(&name).cloned(), taken, book.accounts.len() >= MOST_PEOPLE)
        };
        // A journal in which two people have one name tells nothing of either.
        let shown = if taken { format!("{} ({name})", named.shown) } else { named.shown };
        let refused = match (&known, &named.role) {
            (Some(known), _) if known.provider.as_ref() != Some(&subject) => Some(NotAdmitted::Disabled),
            (Some(known), _) if known.disabled => Some(NotAdmitted::Disabled),
            (None, Some(_)) if full => Some(NotAdmitted::Full),
            (_, None) => Some(NotAdmitted::NoRole),
            _ => None,
        };
        if let Some(refused) = refused {
            // What they are signed in with elsewhere rests on a role that is gone.
            let ids: Vec<String> = self.sign_ins_of(&name).into_iter().map(|state| state.kept.id).collect();
            self.end(&ids, None).await?;
            self.not_admitted(&shown, &name, &refused.words(), way).await?;
            return Err(refused);
        }
        let Some((role, places)) = named.role else { return Err(NotAdmitted::NoRole) };
        let fresh = Account {
            name: name.clone(),
            shown,
            role,
            places,
            password: String::new(),
            must_change: false,
            disabled: false,
            totp: None,
            provider: Some(subject),
            created: known.as_ref().map_or(now.wall, |known| known.created),
            changed: known.as_ref().map_or(now.wall, |known| known.changed),
        };
        let is_same = known.as_ref() == Some(&fresh);
        let account = if is_same { fresh } else { Account { changed: now.wall, ..fresh } };
        let people = if is_same { Vec::new() } else { vec![Person::Account(account.clone())] };
        let detail = json!({ "by": "oidc", "role": role.as_str(), "places": account.places.words() });
        let goes_on = before.as_ref().is_some_and(|id| {
            let book = self.book();
            let lasts = |live: &Live| !live.kept.ended && now.mono.since(live.born) < self.0.lasts;
            book.sign_ins.get(id).is_some_and(|live| live.kept.account == name && lasts(live))
        });
        if let (Some(id), true) = (&before, goes_on) {
            let from = Way { principal: Some(Arc::new(principal_of(&account))), ..way.clone() };
            let deed = self.deed(&account.shown, &from, "session.unlock", &name, detail);
            self.change(people, Some(deed)).await?;
            if let Some(live) = self.book().sign_ins.get_mut(id) {
                (live.touched, live.locked) = (self.0.clock.now().mono, false);
            }
            return Ok(None);
        }
        if let Some(before) = before {
            self.end(&[before], None).await?;
        }
        Ok(Some(self.admit_account(&account, people, detail, way, agent).await?))
    }

    /// Somebody who came back from the provider was not let in: it is in the audit, and counts as a try of their address.
    pub(crate) async fn not_admitted(&self, who: &str, about: &str, why: &Text, way: &Way) -> Result<(), Problem> {
        let now = self.0.clock.now().mono;
        self.book().tries.failed(&address_key(way.address), FREE_FOR_AN_ADDRESS, now);
        let mut deed = self.deed(who, way, "session.sign_in", about, json!({ "by": "oidc" }));
        deed.refused = Some(why.clone());
        self.note(deed).await
    }

    /// Notes a try before it is judged, so that many at once are as many as one after another. The keys: address, name.
    fn begin_try(&self, name: &str, way: &Way) -> Result<(Option<Account>, [String; 2]), Problem> {
        let now = self.0.clock.now();
        let mut book = self.book();
        let keys = [address_key(way.address), format!("name {}", name.chars().take(64).collect::<String>())];
        let been_here = book
            .sign_ins
            .values()
            .any(|live| live.kept.account == name && way.address.is_some() && live.kept.address == way.address);
        let bound: &[&str] = if been_here { &[&keys[0]] } else { &[&keys[0], &keys[1]] };
        wait(&book.tries, bound, now.mono)?;
        book.tries.failed(&keys[0], FREE_FOR_AN_ADDRESS, now.mono);
        book.tries.failed(&keys[1], FREE_FOR_A_NAME, now.mono);
        // Who has no password is nobody here, and it takes as long to say so.
        Ok((book.accounts.get(name).filter(|account| account.provider.is_none()).cloned(), keys))
    }

    fn take_back(&self, keys: &[String]) {
        let (mut book, now) = (self.book(), self.0.clock.now().mono);
        keys.iter().for_each(|key| book.tries.take_back(key, now));
    }

    async fn admit_account(
        &self,
        account: &Account,
        mut people: Vec<Person>,
        detail: Value,
        way: &Way,
        agent: &str,
    ) -> Result<SignedIn, Problem> {
        let now = self.0.clock.now();
        let secret = secret::token();
        let kept = SignIn {
            id: secret::sum(&secret),
            account: account.name.clone(),
            created: now.wall,
            used: now.wall,
            address: way.address,
            agent: agent.chars().filter(|c| !c.is_control()).take(120).collect(),
            ended: false,
        };
        people.push(Person::SignIn(kept));
        people.extend(self.too_many(&account.name, now));
        let from = Way { principal: Some(Arc::new(principal_of(account))), ..way.clone() };
        let deed = self.deed(&account.shown, &from, "session.sign_in", &account.name, detail);
        self.change(people, Some(deed)).await?;
        Ok(SignedIn { secret })
    }

    /// Sign-ins that go: long over, or the oldest of too many.
    fn too_many(&self, account: &str, now: Now) -> Vec<Person> {
        let book = self.book();
        let over = |live: &&Live| {
            let ended = live.kept.ended || now.mono.since(live.born) >= self.0.lasts;
            ended && now.mono.since(live.born) >= ENDED_KEPT.max(self.0.lasts)
        };
        let mut gone: Vec<String> = book.sign_ins.values().filter(over).map(|live| live.kept.id.clone()).collect();
        let mut own: Vec<&Live> = book.sign_ins.values().filter(|live| live.kept.account == account).collect();
        own.sort_by_key(|live| std::cmp::Reverse(live.born));
        gone.extend(own.iter().skip(MOST_SIGN_INS).map(|live| live.kept.id.clone()));
        gone.into_iter().map(Person::NoSignIn).collect()
    }

    /// Ends sign-ins.
    async fn end(&self, ids: &[String], deed: Option<Deed>) -> Result<(), Problem> {
        let people = {
            let book = self.book();
            let live = ids.iter().filter_map(|id| book.sign_ins.get(id));
            live.map(|live| Person::SignIn(SignIn { ended: true, ..live.kept.clone() })).collect()
        };
        self.change(people, deed).await
    }

    /// Those of an account that have not ended, the newest first.
    pub(crate) fn sign_ins_of(&self, account: &str) -> Vec<SignInState> {
        let now = self.0.clock.now();
        let book = self.book();
        let lasting = |live: &&Live| !live.kept.ended && now.mono.since(live.born) < self.0.lasts;
        let own = book.sign_ins.values().filter(|live| live.kept.account == account).filter(lasting);
        let state = |live: &Live| SignInState {
            kept: live.kept.clone(),
            locked: self.is_locked(&book, &Pass::SignIn(live.kept.id.clone()), now),
        };
        let mut found: Vec<SignInState> = own.map(state).collect();
        found.sort_by_key(|state| std::cmp::Reverse(state.kept.created));
        found
    }

    /// Somebody touched the page: it does not lock yet.
    pub(crate) async fn touch(&self, caller: &Caller) -> Result<(), Problem> {
        let Pass::SignIn(id) = &caller.pass else { return Ok(()) };
        let now = self.0.clock.now();
        let used = {
            let mut book = self.book();
            if self.is_locked(&book, &caller.pass, now) {
                return Err(locked());
            }
            let Some(live) = book.sign_ins.get_mut(id) else { return Err(sign_in_first()) };
            live.touched = now.mono;
            (now.mono.since(live.written) >= USED_EVERY).then(|| {
                live.written = now.mono;
                SignIn { used: now.wall, ..live.kept.clone() }
            })
        };
        match used {
            Some(kept) => self.change(vec![Person::SignIn(kept)], None).await,
            None => Ok(()),
        }
    }

    /// Locks this screen at once.
    pub(crate) fn lock(&self, caller: &Caller) {
        if let Pass::SignIn(id) = &caller.pass
            && let Some(live) = self.book().sign_ins.get_mut(id)
        {
            live.locked = true;
        }
    }

    /// Opens a locked screen again.
    pub(crate) async fn unlock(&self, caller: &Caller, password: String) -> Result<(), Problem> {
        let Pass::SignIn(id) = &caller.pass else { return Ok(()) };
        self.must_have_password(caller)?;
        self.prove(caller, password, "session.unlock").await?;
        let now = self.0.clock.now();
        if let Some(live) = self.book().sign_ins.get_mut(id) {
            (live.touched, live.locked) = (now.mono, false);
        }
        let deed = self.deed(&caller.shown(), &caller.way, "session.unlock", &caller.principal.account, Value::Null);
        self.note(deed).await
    }

    /// Who signs in by the provider has none here, and opens a locked screen there.
    fn must_have_password(&self, caller: &Caller) -> Result<(), Problem> {
        let account = self.account(&caller.principal.account)?;
        if account.provider.is_some() { Err(of_the_provider()) } else { Ok(()) }
    }

    /// The caller's own password, once more, with the same waits as at the door.
    async fn prove(&self, caller: &Caller, password: String, what: &'static str) -> Result<Account, Problem> {
        let (account, keys) = self.begin_try(&caller.principal.account, &caller.way)?;
        let hash = account.as_ref().map(|account| account.password.clone());
        let good = self.0.vault.verify(hash, password).await.inspect_err(|_| self.take_back(&keys))?;
        match account.filter(|_| good) {
            Some(account) => {
                self.take_back(&keys);
                Ok(account)
            }
            None => {
                let problem = wrong();
                let mut deed = self.deed(&caller.shown(), &caller.way, what, &caller.principal.account, Value::Null);
                deed.refused = Some(problem.error.clone());
                self.note(deed).await?;
                Err(problem)
            }
        }
    }

    pub(crate) async fn sign_out(&self, caller: &Caller) -> Result<(), Problem> {
        let Pass::SignIn(id) = &caller.pass else { return Ok(()) };
        let deed = self.deed(&caller.shown(), &caller.way, "session.sign_out", &caller.principal.account, Value::Null);
        self.end(std::slice::from_ref(id), Some(deed)).await
    }

    /// Ends sign-ins of an account: the one whose id begins so, or all of them.
    pub(crate) async fn end_of(&self, caller: &Caller, account: &str, which: Option<&str>) -> Result<(), Problem> {
        let own = self.sign_ins_of(account).into_iter().map(|state| state.kept.id);
        let ids: Vec<String> = own.filter(|id| which.is_none_or(|which| public_id(id) == which)).collect();
        if ids.is_empty() && which.is_some() {
            return Err(Problem::not_found("没有这个登录", "there is no such sign-in"));
        }
        let detail = json!({ "ended": ids.len() });
        let deed = self.deed(&caller.shown(), &caller.way, "session.end", account, detail);
        self.end(&ids, Some(deed)).await
    }

    /// A new password for oneself. Every other browser of the account is signed out.
    pub(crate) async fn set_password(&self, caller: &Caller, old: String, new: String) -> Result<(), Problem> {
        let Pass::SignIn(mine) = &caller.pass else { return Err(no_account()) };
        self.must_have_password(caller)?;
        let account = self.prove(caller, old.clone(), "account.password").await?;
        if let Some(why) = secret::fault_of(&new, &account.name) {
            return Err(weak(why));
        }
        if old == new {
            let why = Text { zh: "新密码与旧密码相同".to_owned(), en: "that is the old password".to_owned() };
            return Err(weak(why));
        }
        let password = self.0.vault.hash(new).await?;
        let _turn = self.0.turn.lock().await;
        let changed = self.0.clock.now().wall;
        let account = Account { password, must_change: false, changed, ..self.account(&account.name)? };
        let deed = self.deed(&caller.shown(), &caller.way, "account.password", &account.name, Value::Null);
        self.change(vec![Person::Account(account.clone())], Some(deed)).await?;
        let others: Vec<String> =
            self.sign_ins_of(&account.name).into_iter().map(|state| state.kept.id).filter(|id| id != mine).collect();
        self.end(&others, None).await
    }

    /// A new secret of one-time passwords and its address, to be confirmed by a code.
    pub(crate) async fn offer_totp(
        &self,
        caller: &Caller,
        password: String,
        site: &str,
    ) -> Result<(String, String), Problem> {
        if !matches!(caller.pass, Pass::SignIn(_)) {
            return Err(no_account());
        }
        self.must_have_password(caller)?;
        let account = self.prove(caller, password, "account.totp").await?;
        let secret = totp::secret();
        let address = totp::address(&secret, &account.name, site);
        self.book().offered.insert(account.name, (secret.clone(), self.0.clock.now().mono));
        Ok((secret, address))
    }

    /// Takes the secret that was offered, or none any more.
    pub(crate) async fn set_totp(
        &self,
        caller: &Caller,
        code: Option<&str>,
        password: Option<String>,
    ) -> Result<(), Problem> {
        if !matches!(caller.pass, Pass::SignIn(_)) {
            return Err(no_account());
        }
        self.must_have_password(caller)?;
        let name = &caller.principal.account;
        let now = self.0.clock.now();
        let totp = match (code, password) {
            (Some(code), _) => {
                let offered = self.book().offered.get(name).cloned();
                let (secret, at) = offered.ok_or_else(wrong_code)?;
                let seconds = now.wall.micros() / 1_000_000;
                let step = totp::step(&secret, code, seconds, 0).filter(|_| now.mono.since(at) < CONFIRM_WITHIN);
                Some(Totp { secret, step: step.ok_or_else(wrong_code)? })
            }
            (None, password) => {
                self.prove(caller, password.unwrap_or_default(), "account.totp").await?;
                None
            }
        };
        let _turn = self.0.turn.lock().await;
        let detail = json!({ "totp": totp.is_some() });
        let account = Account { totp, changed: now.wall, ..self.account(name)? };
        self.book().offered.remove(name);
        let deed = self.deed(&caller.shown(), &caller.way, "account.totp", name, detail);
        self.change(vec![Person::Account(account)], Some(deed)).await
    }

    pub(crate) fn accounts(&self) -> Vec<Account> {
        self.book().accounts.values().cloned().collect()
    }

    fn account(&self, name: &str) -> Result<Account, Problem> {
        self.book().accounts.get(name).cloned().ok_or_else(|| no_such_account(name))
    }

    /// Adds an account; gives the password that opens it once.
    pub(crate) async fn add(
        &self,
        caller: &Caller,
        name: &str,
        shown: &str,
        role: Role,
        places: Places,
    ) -> Result<String, Problem> {
        let _turn = self.0.turn.lock().await;
        check_name(name)?;
        check_places(role, &places)?;
        let first = {
            let book = self.book();
            if book.accounts.contains_key(name) || book.accounts.values().any(|account| account.shown == shown) {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "name_taken",
                    "账号名或显示姓名已被使用",
                    "somebody has this name, or is shown by it",
                ));
            }
            if book.accounts.len() >= MOST_PEOPLE {
                return Err(Problem::bad_request(format_args!("there are {MOST_PEOPLE} accounts, which is the most")));
            }
            book.accounts.is_empty()
        };
        if first && role != Role::Administrator {
            return Err(last_administrator());
        }
        let now = self.0.clock.now().wall;
        let password = secret::words();
        let account = Account {
            name: name.to_owned(),
            shown: shown.to_owned(),
            role,
            places,
            password: self.0.vault.hash(password.clone()).await?,
            must_change: true,
            disabled: false,
            totp: None,
            provider: None,
            created: now,
            changed: now,
        };
        let detail = json!({ "role": role.as_str(), "places": account.places.words() });
        let deed = self.deed(&caller.shown_or("anmin"), &caller.way, "account.add", name, detail);
        self.change(vec![Person::Account(account)], Some(deed)).await?;
        Ok(password)
    }

    /// Changes an account of somebody else; `edit` says how. The last administrator stays one.
    pub(crate) async fn edit(
        &self,
        caller: &Caller,
        name: &str,
        what: &'static str,
        edit: impl FnOnce(&mut Account) -> Result<Value, Problem>,
    ) -> Result<Account, Problem> {
        let _turn = self.0.turn.lock().await;
        let before = self.account(name)?;
        let mut account = before.clone();
        let detail = edit(&mut account)?;
        check_places(account.role, &account.places)?;
        if caller.principal.account == name && (account.role, account.disabled) != (before.role, before.disabled) {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "own_role",
                "不能更改自己的角色或停用自己",
                "nobody changes their own role, or shuts themselves out",
            ));
        }
        if before.provider.is_some() && account != (Account { disabled: account.disabled, ..before.clone() }) {
            return Err(of_the_provider());
        }
        // Without the network only who has a password here comes in: one of them must be left.
        let governs =
            |account: &Account| account.role == Role::Administrator && !account.disabled && account.provider.is_none();
        let left = {
            let book = self.book();
            if book.accounts.values().any(|other| other.name != name && other.shown == account.shown) {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "name_taken",
                    "账号名或显示姓名已被使用",
                    "somebody has this name, or is shown by it",
                ));
            }
            book.accounts.values().any(|other| other.name != name && governs(other))
        };
        if governs(&before) && !governs(&account) && !left {
            return Err(last_administrator());
        }
        account.changed = self.0.clock.now().wall;
        let deed = self.deed(&caller.shown_or("anmin"), &caller.way, what, name, detail);
        let mut people = vec![Person::Account(account.clone())];
        if account.disabled {
            let ended = |state: SignInState| Person::SignIn(SignIn { ended: true, ..state.kept });
            people.extend(self.sign_ins_of(name).into_iter().map(ended));
        }
        self.change(people, Some(deed)).await?;
        Ok(account)
    }

    /// A new password that opens an account once, for somebody who has forgotten theirs; one-time passwords end with it.
    pub(crate) async fn reset(
        &self,
        caller: &Caller,
        name: &str,
        still: impl FnOnce(&Account) -> Result<(), Problem>,
    ) -> Result<String, Problem> {
        let password = secret::words();
        let hash = self.0.vault.hash(password.clone()).await?;
        self.edit(caller, name, "account.reset", |account| {
            still(account)?;
            (account.password, account.must_change, account.totp) = (hash, true, None);
            Ok(Value::Null)
        })
        .await?;
        self.book().tries.forget(&format!("name {name}"));
        let ids: Vec<String> = self.sign_ins_of(name).into_iter().map(|state| state.kept.id).collect();
        self.end(&ids, None).await?;
        Ok(password)
    }

    pub(crate) fn tokens(&self) -> Vec<ApiToken> {
        self.book().tokens.values().cloned().collect()
    }

    /// A token for a program; it is shown this once.
    pub(crate) async fn new_token(
        &self,
        caller: &Caller,
        name: &str,
        role: Role,
        places: Places,
        days: u32,
    ) -> Result<(String, ApiToken), Problem> {
        let _turn = self.0.turn.lock().await;
        check_name(name)?;
        check_places(role, &places)?;
        if !(1..=MOST_TOKEN_DAYS).contains(&days) {
            return Err(Problem::bad_request(format_args!("`days` is {days}, expected 1 to {MOST_TOKEN_DAYS}")));
        }
        {
            let book = self.book();
            if book.tokens.contains_key(name) {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "name_taken",
                    "已有同名令牌",
                    "there is a token of this name",
                ));
            }
            if book.tokens.len() >= MOST_PEOPLE {
                return Err(Problem::bad_request(format_args!("there are {MOST_PEOPLE} tokens, which is the most")));
            }
        }
        let now = self.0.clock.now().wall;
        let secret = secret::token();
        let token = ApiToken {
            name: name.to_owned(),
            sum: secret::sum(&secret),
            role,
            places,
            created: now,
            expires: now.plus(Duration::from_secs(u64::from(days) * 86_400)),
            by: caller.principal.account.clone(),
        };
        let detail = json!({ "role": role.as_str(), "places": token.places.words(), "days": days });
        let deed = self.deed(&caller.shown_or("anmin"), &caller.way, "token.new", name, detail);
        self.change(vec![Person::Token(token.clone())], Some(deed)).await?;
        Ok((secret, token))
    }

    /// Ends one; `still` says whether it is the one that is meant.
    pub(crate) async fn revoke_token(
        &self,
        caller: &Caller,
        name: &str,
        still: impl FnOnce(&ApiToken) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let _turn = self.0.turn.lock().await;
        let token = self.book().tokens.get(name).cloned();
        still(&token.ok_or_else(|| Problem::not_found("没有这个令牌", "there is no such token"))?)?;
        let deed = self.deed(&caller.shown_or("anmin"), &caller.way, "token.revoke", name, Value::Null);
        self.change(vec![Person::NoToken(name.to_owned())], Some(deed)).await
    }

    /// The cookie for a new secret; an empty one ends it. `secure`: the browser came by TLS.
    pub(crate) fn set_cookie(&self, secret: &str, secure: bool) -> String {
        let (prefix, flag) = if secure { ("__Host-", "; Secure") } else { ("", "") };
        let seconds = if secret.is_empty() { 0 } else { self.0.lasts.as_secs() };
        format!("{prefix}{}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{flag}", self.0.cookie)
    }
}

/// The file beside the databases that holds the set-up code.
pub(crate) const CODE_FILE: &str = "setup-code";

/// What of a sign-in's id is shown: enough to name it, nothing to come in with.
pub(crate) fn public_id(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

fn write_secret(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn principal_of(account: &Account) -> Principal {
    Principal {
        account: account.name.clone(),
        shown: account.shown.clone(),
        role: account.role,
        places: account.places.clone(),
    }
}

fn name_of(principal: &Principal) -> String {
    if principal.shown.is_empty() { principal.account.clone() } else { principal.shown.clone() }
}

/// All of a subscriber's addresses are one.
pub(super) fn address_key(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V6(address)) => format!("address {:x?}", &address.segments()[..4]),
        Some(address) => format!("address {address}"),
        None => "address".to_owned(),
    }
}

fn wait(tries: &Tries, keys: &[&str], now: Mono) -> Result<(), Problem> {
    let longest = keys.iter().filter_map(|key| tries.wait(key, now)).max();
    longest.map_or(Ok(()), |wait| Err(Problem::wait(wait)))
}

/// The name of an account or a token.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    if (2..=32).contains(&name.len()) && name.bytes().all(plain) && name.as_bytes()[0].is_ascii_alphanumeric() {
        return Ok(());
    }
    Err(Problem::bad_request("a name has 2 to 32 of the characters a-z, 0-9, dash, dot and underscore").hint(
        "账号名用小写字母和数字，如 li-wei；姓名另填",
        "such as li-wei; the name that people see is another field",
    ))
}

/// A manager has buildings; who looks after all of anmin, or over it, sees all of it.
pub(crate) fn check_places(role: Role, places: &Places) -> Result<(), Problem> {
    match (role, places.is_everywhere()) {
        (Role::Manager, true) => {
            Err(Problem::bad_request("a manager needs `places`").hint("请指定楼栋", "name the buildings"))
        }
        (Role::Administrator | Role::Auditor, false) => {
            Err(Problem::bad_request("administrators and auditors are not bound to places"))
        }
        _ => Ok(()),
    }
}

pub(super) fn no_token() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "no_token", "需要访问口令", "the access token is missing or wrong").hint(
        "口令在配置 [web] token_file 所指的文件里；程序令牌用 `anmin account token new` 新建",
        "it stands in the file that `token_file` in [web] names; `anmin account token new` makes one for a program",
    )
}

fn sign_in_first() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "signed_out", "请先登录", "sign in first")
        .hint("程序请使用令牌（anmin account token new）", "programs use a token: `anmin account token new`")
}

fn set_up_first() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "set_up",
        "尚未建立账号，请先完成初始设置",
        "there is no account yet: set anmin up first",
    )
    .hint("初始设置码：`anmin account setup-code`", "the set-up code: `anmin account setup-code`")
}

fn locked() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "locked",
        "屏幕已锁定，请输入密码",
        "the screen is locked: enter your password",
    )
}

fn wrong() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "wrong_credentials",
        "账号、密码或验证码不对",
        "name, password or code is not right",
    )
}

fn wrong_code() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "wrong_code", "验证码不对或已过期", "that code is not right, or too late")
}

fn weak(why: Text) -> Problem {
    Problem { error: why, ..Problem::new(StatusCode::BAD_REQUEST, "weak_password", "", "") }
}

fn no_account() -> Problem {
    Problem::new(StatusCode::CONFLICT, "no_account", "当前不是账号登录", "no account stands behind this")
}

fn of_the_provider() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "of_the_provider",
        "该账号由统一认证管理，姓名、角色、范围和密码都在那里",
        "this account is the provider's: name, role, places and password are there",
    )
}

fn last_administrator() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "last_administrator",
        "至少要有一名可用的管理员",
        "there must be an administrator who can sign in",
    )
}

fn no_such_account(name: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::not_found(format!("没有账号 {name:?}"), format!("there is no account {name:?}"))
}
