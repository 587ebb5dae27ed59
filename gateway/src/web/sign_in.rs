//! Signing in and out, and the accounts and tokens themselves.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::AppendHeaders;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::api::{Answer, Desk, Told, words};
use super::authority::rights_of;
use super::guard::{Caller, Visitor};
use super::people::{Door, SignedIn};
use super::problem::Problem;
use super::wire::{AccountWire, DoneWire, MyselfWire, NewTokenWire, PasswordWire, SignInWire, TokenWire, TotpWire};
use crate::store::audit::Deed;
use crate::store::people::{Account, ApiToken, Places, Role};

/// Longest password that is even looked at.
const MOST_PASSWORD: usize = 256;
/// Buildings and areas that one account may be bound to.
const MOST_PLACES: usize = 200;

fn done() -> Json<DoneWire> {
    Json(DoneWire { done: true })
}

pub(super) fn agent(headers: &HeaderMap) -> String {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Whether the browser speaks TLS with us or with who stands in front: its origin says so.
fn is_secure(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

fn password(text: String) -> Result<String, Problem> {
    if text.chars().count() > MOST_PASSWORD {
        return Err(Problem::bad_request(format_args!("a password has {MOST_PASSWORD} characters at most")));
    }
    Ok(text)
}

fn role(word: &str) -> Result<Role, Problem> {
    Role::named(word).ok_or_else(|| {
        let known = Role::ALL.map(Role::as_str).join(", ");
        Problem::bad_request(format_args!("`role` is {word:?}, expected one of {known}"))
    })
}

fn places(named: Vec<String>) -> Result<Places, Problem> {
    if named.len() > MOST_PLACES {
        return Err(Problem::bad_request(format_args!("`places` has more than {MOST_PLACES} entries")));
    }
    let named: Vec<String> = named.iter().map(|place| words("places", place, 64)).collect::<Result<_, _>>()?;
    Ok(Places::of(named))
}

/// Who one is now, and the cookie.
type CameIn = Result<(AppendHeaders<[(HeaderName, HeaderValue); 1]>, Json<MyselfWire>), Problem>;
/// That it is done, and what the browser shall forget.
type WentOut = Result<(AppendHeaders<[(HeaderName, HeaderValue); 3]>, Json<DoneWire>), Problem>;

impl Desk {
    fn myself(&self, headers: &HeaderMap) -> MyselfWire {
        let myself = self.people.myself(headers);
        let principal = myself.principal.as_deref();
        MyselfWire {
            door: myself.door.as_str().to_owned(),
            signed_in: principal.is_some(),
            locked: myself.locked,
            must_change: myself.must_change,
            totp: myself.totp,
            provider: self.oidc.as_ref().filter(|_| myself.door == Door::SignIn).map(|oidc| oidc.name().into()),
            by_provider: myself.by_provider,
            account: principal.filter(|_| myself.account).map(|who| who.account.clone()),
            shown: principal.map(|who| who.shown.clone()).filter(|shown| !shown.is_empty()),
            role: principal.map(|who| who.role.as_str().to_owned()),
            places: principal.map(|who| who.places.words()).unwrap_or_default(),
            rights: principal.map(rights_of).unwrap_or_default(),
        }
    }

    /// The answer of a door that has just opened: who one is now, and the cookie.
    fn came_in(&self, signed_in: &SignedIn, headers: &HeaderMap) -> CameIn {
        let secure = is_secure(headers);
        let cookie = self.people.set_cookie(&signed_in.secret, secure);
        let mut seen = HeaderMap::new();
        let pair = cookie.split(';').next().unwrap_or_default();
        // Our own text of plain characters.
        seen.insert(header::COOKIE, HeaderValue::from_str(pair).map_err(|_| Problem::busy())?);
        let cookie = HeaderValue::from_str(&cookie).map_err(|_| Problem::busy())?;
        Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(self.myself(&seen))))
    }
}

/// Ends both forms of the cookie, whatever the browser has.
fn went_out(desk: &Desk) -> WentOut {
    let ended = |secure| HeaderValue::from_str(&desk.people.set_cookie("", secure)).map_err(|_| Problem::busy());
    // What a browser keeps of a shared screen goes with who leaves it.
    let forget = (HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cache\""));
    let headers = [(header::SET_COOKIE, ended(false)?), (header::SET_COOKIE, ended(true)?), forget];
    Ok((AppendHeaders(headers), done()))
}

pub(super) async fn myself(State(desk): State<Desk>, headers: HeaderMap) -> Answer<MyselfWire> {
    Ok(Json(desk.myself(&headers)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignInBody {
    account: String,
    password: String,
    code: Option<String>,
}

pub(super) async fn sign_in(
    State(desk): State<Desk>,
    Visitor(way): Visitor,
    headers: HeaderMap,
    Told(SignInBody { account, password: said, code }): Told<SignInBody>,
) -> CameIn {
    if desk.people.door() != Door::SignIn {
        return Err(Problem::not_found("没有账号可登录", "there is no account to sign in with"));
    }
    let (account, said) = (account.trim().to_lowercase(), password(said)?);
    let agent = agent(&headers);
    let signed_in = desk.people.sign_in(&account, said, code.as_deref(), &way, &agent, &headers).await?;
    desk.came_in(&signed_in, &headers)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetUpBody {
    code: String,
    account: String,
    shown: String,
    password: String,
}

pub(super) async fn set_up(
    State(desk): State<Desk>,
    Visitor(way): Visitor,
    headers: HeaderMap,
    Told(SetUpBody { code, account, shown, password: said }): Told<SetUpBody>,
) -> CameIn {
    let (shown, said) = (words("shown", &shown, 64)?, password(said)?);
    let (account, agent) = (account.trim().to_lowercase(), agent(&headers));
    let signed_in = desk.people.set_up(&code, &account, &shown, said, &way, &agent).await?;
    desk.came_in(&signed_in, &headers)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NothingBody {}

pub(super) async fn sign_out(
    State(desk): State<Desk>,
    caller: Caller,
    Told(NothingBody {}): Told<NothingBody>,
) -> WentOut {
    desk.people.sign_out(&caller).await?;
    went_out(&desk)
}

pub(super) async fn touch(
    State(desk): State<Desk>,
    caller: Caller,
    Told(NothingBody {}): Told<NothingBody>,
) -> Answer<DoneWire> {
    desk.people.touch(&caller).await?;
    Ok(done())
}

pub(super) async fn lock(
    State(desk): State<Desk>,
    caller: Caller,
    Told(NothingBody {}): Told<NothingBody>,
) -> Answer<DoneWire> {
    desk.people.lock(&caller);
    Ok(done())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordBody {
    password: String,
}

pub(super) async fn unlock(
    State(desk): State<Desk>,
    caller: Caller,
    Told(PasswordBody { password: said }): Told<PasswordBody>,
) -> Answer<DoneWire> {
    desk.people.unlock(&caller, password(said)?).await?;
    Ok(done())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPasswordBody {
    old: String,
    new: String,
}

pub(super) async fn own_password(
    State(desk): State<Desk>,
    caller: Caller,
    Told(NewPasswordBody { old, new }): Told<NewPasswordBody>,
) -> Answer<DoneWire> {
    desk.people.set_password(&caller, password(old)?, password(new)?).await?;
    Ok(done())
}

pub(super) async fn totp_offer(
    State(desk): State<Desk>,
    caller: Caller,
    Told(PasswordBody { password: said }): Told<PasswordBody>,
) -> Answer<TotpWire> {
    let (secret, address) = desk.people.offer_totp(&caller, password(said)?, &desk.link.site.id).await?;
    Ok(Json(TotpWire { secret, address }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeBody {
    code: String,
}

pub(super) async fn totp_confirm(
    State(desk): State<Desk>,
    caller: Caller,
    Told(CodeBody { code }): Told<CodeBody>,
) -> Answer<DoneWire> {
    desk.people.set_totp(&caller, Some(&code), None).await?;
    Ok(done())
}

pub(super) async fn totp_remove(
    State(desk): State<Desk>,
    caller: Caller,
    Told(PasswordBody { password: said }): Told<PasswordBody>,
) -> Answer<DoneWire> {
    desk.people.set_totp(&caller, None, Some(password(said)?)).await?;
    Ok(done())
}

pub(super) async fn own_sign_ins(State(desk): State<Desk>, caller: Caller) -> Answer<Vec<SignInWire>> {
    let found = desk.people.sign_ins_of(&caller.principal.account);
    Ok(Json(found.iter().map(|state| SignInWire::of(state, desk.writer())).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichBody {
    /// All of them where nobody says.
    id: Option<String>,
}

pub(super) async fn end_own(
    State(desk): State<Desk>,
    caller: Caller,
    Told(WhichBody { id }): Told<WhichBody>,
) -> Answer<DoneWire> {
    desk.people.end_of(&caller, &caller.principal.account, id.as_deref()).await?;
    Ok(done())
}

pub(super) async fn accounts(State(desk): State<Desk>, _: Caller) -> Answer<Vec<AccountWire>> {
    Ok(Json(desk.people.accounts().iter().map(|account| AccountWire::of(account, desk.writer())).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountBody {
    name: String,
    shown: String,
    role: String,
    #[serde(default)]
    places: Vec<String>,
}

pub(super) async fn add_account(
    State(desk): State<Desk>,
    caller: Caller,
    Told(AccountBody { name, shown, role: word, places: named }): Told<AccountBody>,
) -> Answer<PasswordWire> {
    let (shown, role, places) = (words("shown", &shown, 64)?, role(&word)?, places(named)?);
    let password = desk.people.add(&caller, &name, &shown, role, places).await?;
    Ok(Json(PasswordWire { account: name, password }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditBody {
    shown: String,
    role: String,
    #[serde(default)]
    places: Vec<String>,
    /// Of the account as it was seen: where somebody has changed it since, nothing is changed.
    changed_at: Option<String>,
}

pub(super) async fn edit_account(
    State(desk): State<Desk>,
    caller: Caller,
    Path(name): Path<String>,
    Told(EditBody { shown, role: word, places: named, changed_at }): Told<EditBody>,
) -> Answer<AccountWire> {
    let (shown, role, places) = (words("shown", &shown, 64)?, role(&word)?, places(named)?);
    as_seen(&desk, &name, changed_at.as_deref()).await?;
    let edit = |account: &mut Account| {
        still(&desk, account, changed_at.as_deref())?;
        let was = json!({ "shown": account.shown, "role": account.role.as_str(), "places": account.places.words() });
        (account.shown, account.role, account.places) = (shown, role, places);
        let is = json!({ "shown": account.shown, "role": account.role.as_str(), "places": account.places.words() });
        Ok(json!({ "was": was, "is": is }))
    };
    let account = desk.people.edit(&caller, &name, "account.edit", edit).await?;
    Ok(Json(AccountWire::of(&account, desk.writer())))
}

/// Refuses what is about an account that was changed since it was seen, and says by whom.
async fn as_seen(desk: &Desk, name: &str, changed_at: Option<&str>) -> Result<(), Problem> {
    let Some(account) = desk.people.accounts().into_iter().find(|account| account.name == name) else { return Ok(()) };
    match still(desk, &account, changed_at) {
        Ok(()) => Ok(()),
        Err(_) => {
            let is = |deed: &Deed| deed.about == name && deed.what.starts_with("account.");
            Err(desk.changed_by(is, Some(account.changed)).await)
        }
    }
}

/// The same where it counts, in the turn in which it is changed.
fn still(desk: &Desk, account: &Account, changed_at: Option<&str>) -> Result<(), Problem> {
    match changed_at {
        Some(seen) if seen != desk.writer().at(account.changed) => Err(Problem::changed_meanwhile()),
        _ => Ok(()),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenAccountBody {
    /// Of the account as it was seen: where somebody has changed it since, nothing is changed.
    changed_at: Option<String>,
}

pub(super) async fn disable_account(
    State(desk): State<Desk>,
    caller: Caller,
    Path(name): Path<String>,
    Told(SeenAccountBody { changed_at }): Told<SeenAccountBody>,
) -> Answer<AccountWire> {
    switch(&desk, &caller, &name, changed_at, true).await
}

pub(super) async fn enable_account(
    State(desk): State<Desk>,
    caller: Caller,
    Path(name): Path<String>,
    Told(SeenAccountBody { changed_at }): Told<SeenAccountBody>,
) -> Answer<AccountWire> {
    switch(&desk, &caller, &name, changed_at, false).await
}

async fn switch(
    desk: &Desk,
    caller: &Caller,
    name: &str,
    changed_at: Option<String>,
    disabled: bool,
) -> Answer<AccountWire> {
    let what = if disabled { "account.disable" } else { "account.enable" };
    as_seen(desk, name, changed_at.as_deref()).await?;
    let set = |account: &mut Account| {
        still(desk, account, changed_at.as_deref())?;
        account.disabled = disabled;
        Ok(serde_json::Value::Null)
    };
    let account = desk.people.edit(caller, name, what, set).await?;
    Ok(Json(AccountWire::of(&account, desk.writer())))
}

pub(super) async fn reset_account(
    State(desk): State<Desk>,
    caller: Caller,
    Path(name): Path<String>,
    Told(SeenAccountBody { changed_at }): Told<SeenAccountBody>,
) -> Answer<PasswordWire> {
    as_seen(&desk, &name, changed_at.as_deref()).await?;
    let password = desk.people.reset(&caller, &name, |account| still(&desk, account, changed_at.as_deref())).await?;
    Ok(Json(PasswordWire { account: name, password }))
}

pub(super) async fn sign_ins_of(
    State(desk): State<Desk>,
    _: Caller,
    Path(name): Path<String>,
) -> Answer<Vec<SignInWire>> {
    let found = desk.people.sign_ins_of(&name);
    Ok(Json(found.iter().map(|state| SignInWire::of(state, desk.writer())).collect()))
}

pub(super) async fn end_of(
    State(desk): State<Desk>,
    caller: Caller,
    Path(name): Path<String>,
    Told(WhichBody { id }): Told<WhichBody>,
) -> Answer<DoneWire> {
    desk.people.end_of(&caller, &name, id.as_deref()).await?;
    Ok(done())
}

pub(super) async fn tokens(State(desk): State<Desk>, _: Caller) -> Answer<Vec<TokenWire>> {
    Ok(Json(desk.people.tokens().iter().map(|token| TokenWire::of(token, desk.writer())).collect()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTokenBody {
    name: String,
    role: String,
    #[serde(default)]
    places: Vec<String>,
    days: u32,
}

pub(super) async fn new_token(
    State(desk): State<Desk>,
    caller: Caller,
    Told(NewTokenBody { name, role: word, places: named, days }): Told<NewTokenBody>,
) -> Answer<NewTokenWire> {
    let (role, places) = (role(&word)?, places(named)?);
    let (token, kept) = desk.people.new_token(&caller, &name, role, places, days).await?;
    Ok(Json(NewTokenWire { token, kept: TokenWire::of(&kept, desk.writer()) }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    /// Of the token as it was seen: one that was made under its name since stays.
    created_at: Option<String>,
}

pub(super) async fn revoke_token(
    State(desk): State<Desk>,
    caller: Caller,
    Path(name): Path<String>,
    Told(RevokeBody { created_at }): Told<RevokeBody>,
) -> Answer<DoneWire> {
    let other = |token: &ApiToken| created_at.as_ref().is_some_and(|seen| *seen != desk.writer().at(token.created));
    if desk.people.tokens().iter().any(|token| token.name == name && other(token)) {
        let is = |deed: &Deed| deed.about == name && deed.what.starts_with("token.");
        return Err(desk.changed_by(is, None).await);
    }
    desk.people
        .revoke_token(&caller, &name, |token| match other(token) {
            true => Err(Problem::changed_meanwhile()),
            false => Ok(()),
        })
        .await?;
    Ok(done())
}
