//! Who may do what, kept in state.db: accounts, their sign-ins, and tokens of programs.
//!
//! | column | |
//! |---|---|
//! | `kind`, `id` | `account` and its name, `sign_in` and the SHA-256 of its secret, `token` and its name |
//! | `record` | JSON with a version in it |
//! | `sum` | SHA-256 over kind, id and record: a row that fails it is nobody's right |
//!
//! Passwords are here as Argon2id, the secrets of sign-ins and tokens as SHA-256: who reads the file can be nobody. The
//! secret of a one-time password must be known to check one and stands as it is.
//!
//! **Lost is not never there.** While there is no account, whoever is at the box may do everything. So a file of which
//! accounts may have been lost says so (`people_lost` in `meta`) until somebody proves by the set-up code to be at the box.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anmin_sensors::point::Place;
use anmin_sensors::time::Wall;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::audit::hex;
use super::backup::Revoked;
use super::state::{Hash, sha256};

/// The step to schema 10.
pub(super) const SCHEMA_10: &str = "
    CREATE TABLE people (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        record TEXT NOT NULL,
        sum BLOB NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
";

/// The version of the records that this anmin writes.
const VERSION: u32 = 1;

/// What somebody is here for; [`crate::web::authority`] says what each may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// On duty at the desk.
    Officer,
    /// Of a micro fire station.
    Crew,
    /// Of a property company, for its own buildings.
    Manager,
    /// The emergency office of the town.
    Office,
    /// Looks after anmin and who may do what.
    Administrator,
    /// Proves what was done.
    Auditor,
    /// No person: speaks for sensors.
    Device,
}

impl Role {
    pub const ALL: [Self; 7] =
        [Self::Officer, Self::Crew, Self::Manager, Self::Office, Self::Administrator, Self::Auditor, Self::Device];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Officer => "officer",
            Self::Crew => "crew",
            Self::Manager => "manager",
            Self::Office => "office",
            Self::Administrator => "administrator",
            Self::Auditor => "auditor",
            Self::Device => "device",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// Where somebody may look and act: everywhere, or in some buildings, `area:` and `grid:` with the name of a place or grid
/// cell for all that lies in it, and [`Places::NOWHERE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Places(Option<Arc<BTreeSet<String>>>);

impl Places {
    pub const EVERYWHERE: Self = Self(None);
    /// What lies in no building, place or grid cell: anmin's own parts, offices' warnings, calls for help, cases without a place.
    pub const NOWHERE: &str = "site:";

    /// None at all means everywhere.
    pub fn of(words: impl IntoIterator<Item = String>) -> Self {
        let words: BTreeSet<String> = words.into_iter().collect();
        Self((!words.is_empty()).then(|| Arc::new(words)))
    }

    pub fn is_everywhere(&self) -> bool {
        self.0.is_none()
    }

    pub fn words(&self) -> Vec<String> {
        self.0.iter().flat_map(|words| words.iter().cloned()).collect()
    }

    /// Whether it lies within. What has no place, such as anmin itself, lies within everywhere and [`Places::NOWHERE`] alone.
    pub fn takes(&self, place: &Place) -> bool {
        let Some(words) = &self.0 else { return true };
        let mut parts = self.named(place).peekable();
        if parts.peek().is_none() { words.contains(Self::NOWHERE) } else { parts.any(|theirs| theirs) }
    }

    /// Whether every part of a place that somebody names lies within: where a device is the site says, here the caller does.
    pub fn takes_every_part(&self, place: &Place) -> bool {
        self.takes(place) && (self.0.is_none() || self.named(place).all(|theirs| theirs))
    }

    /// Of each part of the place that has a name whether it is one of these.
    fn named(&self, place: &Place) -> impl Iterator<Item = bool> {
        let parts = [("", &place.building), ("area:", &place.area), ("grid:", &place.grid)];
        let given = parts.into_iter().filter(|(_, name)| !name.is_empty());
        given.map(|(before, name)| self.0.as_ref().is_some_and(|words| words.contains(&format!("{before}{name}"))))
    }
}

/// In whose right something is asked or done: goes with each command into the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The name of an account, or one of [`Principal::TOKEN_FILE`], [`Principal::AT_THE_BOX`] and `token:` with a name.
    pub account: String,
    /// The name that journal and screens give; empty where no account stands behind it, so that the command says one.
    pub shown: String,
    pub role: Role,
    #[serde(default)]
    pub places: Places,
}

impl Principal {
    /// Whoever holds the token of `[web] token_file`.
    pub const TOKEN_FILE: &str = "(token_file)";
    /// Whoever is at the box, while there is no account.
    pub const AT_THE_BOX: &str = "(box)";

    /// The account of a person who has signed in; `None` for a token and for whoever is at the box.
    pub fn person(&self) -> Option<&str> {
        // Names of accounts hold letters, digits, dots, dashes and underscores, and those of a provider an at sign.
        (!self.account.starts_with('(') && !self.account.contains(':')).then_some(&*self.account)
    }

    /// Somebody with every right and no name.
    pub fn unnamed(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            shown: String::new(),
            role: Role::Administrator,
            places: Places::EVERYWHERE,
        }
    }
}

/// A person who can sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    /// As journal and screens name them.
    pub shown: String,
    pub role: Role,
    #[serde(default)]
    pub places: Places,
    /// Argon2id in PHC's notation.
    pub password: String,
    /// The password was given by somebody else and opens nothing but its own change.
    #[serde(default)]
    pub must_change: bool,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default)]
    pub totp: Option<Totp>,
    /// Who signs in by a provider and has no password; role and places are those of their last sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Subject>,
    #[serde(with = "micros")]
    pub created: Wall,
    #[serde(with = "micros")]
    pub changed: Wall,
}

/// A person as an OpenID provider knows them: only both together are somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub issuer: String,
    pub sub: String,
}

impl Subject {
    /// The name of the account, which no local one can have.
    pub fn account(&self) -> String {
        let sum = hex(&sha256(&[self.issuer.as_bytes(), &[0], self.sub.as_bytes()]));
        format!("oidc@{}", &sum[..20])
    }
}

/// One-time passwords of RFC 6238.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totp {
    /// In base 32.
    pub secret: String,
    /// The last step that was used: none counts twice.
    pub step: u64,
}

/// One browser that an account has signed in with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// SHA-256 of what the browser holds, in lower-case hexadecimal.
    pub id: String,
    pub account: String,
    #[serde(with = "micros")]
    pub created: Wall,
    /// When a person last did something with it; written down now and then.
    #[serde(with = "micros")]
    pub used: Wall,
    pub address: Option<IpAddr>,
    /// What the browser calls itself, cut short.
    pub agent: String,
    #[serde(default)]
    pub ended: bool,
}

/// A program's right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    pub name: String,
    /// SHA-256 of the token, in lower-case hexadecimal.
    pub sum: String,
    pub role: Role,
    #[serde(default)]
    pub places: Places,
    #[serde(with = "micros")]
    pub created: Wall,
    #[serde(with = "micros")]
    pub expires: Wall,
    /// The account that made it.
    pub by: String,
}

/// One row, or that it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Person {
    Account(Account),
    SignIn(SignIn),
    NoSignIn(String),
    Token(ApiToken),
    NoToken(String),
}

/// All that a file holds of people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub accounts: Vec<Account>,
    pub sign_ins: Vec<SignIn>,
    pub tokens: Vec<ApiToken>,
    /// Nothing is known to have been lost.
    pub whole: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self { accounts: Vec::new(), sign_ins: Vec::new(), tokens: Vec::new(), whole: true }
    }
}

impl Kept {
    /// Where nothing could be read.
    pub fn lost() -> Self {
        Self { whole: false, ..Self::default() }
    }

    pub fn into_people(self) -> impl Iterator<Item = Person> {
        let accounts = self.accounts.into_iter().map(Person::Account);
        accounts.chain(self.sign_ins.into_iter().map(Person::SignIn)).chain(self.tokens.into_iter().map(Person::Token))
    }
}

impl Person {
    pub fn key(&self) -> (&'static str, &str) {
        match self {
            Self::Account(account) => (ACCOUNT, &account.name),
            Self::SignIn(sign_in) => (SIGN_IN, &sign_in.id),
            Self::NoSignIn(id) => (SIGN_IN, id),
            Self::Token(token) => (TOKEN, &token.name),
            Self::NoToken(name) => (TOKEN, name),
        }
    }

    /// Whether the row goes.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::NoSignIn(_) | Self::NoToken(_))
    }
}

const ACCOUNT: &str = "account";
const SIGN_IN: &str = "sign_in";
const TOKEN: &str = "token";
/// The mark in `meta`.
const LOST: &str = "people_lost";

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

fn text<T: Serialize>(record: &T) -> String {
    // Plain text and numbers under plain names: it becomes JSON.
    serde_json::to_string(&Versioned { v: VERSION, record }).unwrap_or_default()
}

pub(super) fn write(tx: &Connection, person: &Person) -> rusqlite::Result<()> {
    let (kind, id) = person.key();
    let record = match person {
        Person::Account(account) => {
            // Somebody has come in: from here on it is known who may.
            tx.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([LOST])?;
            text(account)
        }
        Person::SignIn(sign_in) => text(sign_in),
        Person::Token(token) => text(token),
        Person::NoSignIn(_) | Person::NoToken(_) => {
            tx.prepare_cached("DELETE FROM people WHERE kind = ?1 AND id = ?2")?.execute([kind, id])?;
            return Ok(());
        }
    };
    let sum = sum(kind, id, &record);
    tx.prepare_cached("INSERT OR REPLACE INTO people (kind, id, record, sum) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![kind, id, record, sum])
        .map(drop)
}

/// Everybody whose row is as it was written.
pub(super) fn read(conn: &Connection) -> rusqlite::Result<Kept> {
    let mut kept = Kept::default();
    if !is_there(conn)? {
        return Ok(kept);
    }
    kept.whole = !conn.prepare("SELECT 1 FROM meta WHERE key = ?1")?.exists([LOST])?;
    let mut sql = conn.prepare("SELECT kind, id, record, sum FROM people ORDER BY kind, id")?;
    let mut rows = sql.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, id, record): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let good = row.get::<_, Hash>(3).is_ok_and(|kept| kept == sum(&kind, &id, &record));
        let taken = good
            && match kind.as_str() {
                ACCOUNT => take(&record, &mut kept.accounts),
                SIGN_IN => take(&record, &mut kept.sign_ins),
                TOKEN => take(&record, &mut kept.tokens),
                _ => false,
            };
        kept.whole &= taken;
    }
    Ok(kept)
}

fn take<T: for<'de> Deserialize<'de>>(record: &str, into: &mut Vec<T>) -> bool {
    match serde_json::from_str::<Versioned<T>>(record) {
        Ok(found) if found.v <= VERSION => {
            into.push(found.record);
            true
        }
        _ => false,
    }
}

/// Rows of each kind, and those that fail their hash or cannot be read.
pub(super) fn check(conn: &Connection) -> rusqlite::Result<(Kept, u64)> {
    let kept = read(conn)?;
    let rows: i64 =
        if is_there(conn)? { conn.query_row("SELECT count(*) FROM people", [], |row| row.get(0))? } else { 0 };
    let good = kept.accounts.len() + kept.sign_ins.len() + kept.tokens.len();
    Ok((kept, rows.unsigned_abs().saturating_sub(good as u64)))
}

/// What of a damaged file is whole; the new one says when that may not be everybody.
pub(super) fn carry_over(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    let kept = read(from).unwrap_or_else(|_| Kept::lost());
    let whole = kept.whole;
    kept.into_people().try_for_each(|person| write(into, &person))?;
    if whole { Ok(()) } else { mark_lost(into) }
}

pub(super) fn mark_lost(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, '1')", [LOST]).map(drop)
}

/// In a file of a day long past: who has signed out since must not be signed in again.
pub(super) fn forget_sign_ins(conn: &Connection) -> rusqlite::Result<()> {
    if is_there(conn)? {
        conn.execute("DELETE FROM people WHERE kind = ?1", [SIGN_IN])?;
    }
    Ok(())
}

/// In a file of a day long past: a token that was revoked since, or an account that was disabled, comes back as no right. What
/// was revoked `now` says, the file in its place, where it is of the same installation and nothing of it is lost.
pub(super) fn keep_revoked(past: &Connection, now: Option<&Connection>) -> rusqlite::Result<Revoked> {
    let installation = |conn: &Connection| -> Option<String> {
        conn.query_row("SELECT value FROM meta WHERE key = 'installation'", [], |row| row.get(0)).ok()
    };
    let then = read(past)?;
    let now = now.filter(|now| installation(now).is_some_and(|now| Some(now) == installation(past)));
    let Some(now) =
        now.and_then(|now| check(now).ok()).and_then(|(kept, bad)| (kept.whole && bad == 0).then_some(kept))
    else {
        return Ok(Revoked { named: Vec::new(), unknown: then.tokens.len() + then.accounts.len() });
    };
    let mut named = Vec::new();
    for token in then.tokens.iter().filter(|then| !now.tokens.iter().any(|now| now.sum == then.sum)) {
        write(past, &Person::NoToken(token.name.clone()))?;
        named.push(format!("token:{}", token.name));
    }
    for account in then.accounts.into_iter().filter(|account| !account.disabled) {
        if now.accounts.iter().any(|now| now.name == account.name && now.disabled) {
            named.push(format!("account:{}", account.name));
            write(past, &Person::Account(Account { disabled: true, ..account }))?;
        }
    }
    Ok(Revoked { named, unknown: 0 })
}

/// A file of an older schema has no such table.
fn is_there(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'people'")?.exists([])
}

fn sum(kind: &str, id: &str, record: &str) -> Hash {
    sha256(&[kind.as_bytes(), &[0], id.as_bytes(), &[0], record.as_bytes()])
}

mod micros {
    use anmin_sensors::time::Wall;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Wall, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(at.micros())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Wall, D::Error> {
        i64::deserialize(from).map(Wall::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::FILE;
    use super::super::tests::TestDir;
    use super::super::{Fact, StateStore, Turn};
    use super::*;
    use crate::samples::RAISED;

    fn account(name: &str) -> Account {
        Account {
            name: name.to_owned(),
            shown: "李值班".to_owned(),
            role: Role::Manager,
            places: Places::of(["3".to_owned(), "grid:c-2".to_owned()]),
            password: "$argon2id$".to_owned(),
            must_change: true,
            disabled: false,
            totp: Some(Totp { secret: "GEZDGNBV".to_owned(), step: 7 }),
            provider: None,
            created: RAISED,
            changed: RAISED,
        }
    }

    fn people() -> Kept {
        let sign_in = |id: &str| SignIn {
            id: id.to_owned(),
            account: "li".to_owned(),
            created: RAISED,
            used: RAISED,
            address: Some([10, 0, 0, 7].into()),
            agent: "Chromium".to_owned(),
            ended: false,
        };
        let token = ApiToken {
            name: "office".to_owned(),
            sum: "00ff".to_owned(),
            role: Role::Office,
            places: Places::EVERYWHERE,
            created: RAISED,
            expires: RAISED,
            by: "li".to_owned(),
        };
        Kept {
            accounts: vec![account("li"), account("wang")],
            sign_ins: vec![sign_in("a1"), sign_in("b2")],
            tokens: vec![token],
            whole: true,
        }
    }

    fn file(name: &str) -> TestDir {
        let dir = TestDir::new(name);
        let (mut store, _) = StateStore::open(dir.path(), RAISED).unwrap();
        let facts: Vec<Fact> = people().into_people().map(|person| Fact::Person(Box::new(person))).collect();
        store.commit(&Turn { facts: &facts, ..Turn::default() }).unwrap();
        dir
    }

    fn edit(dir: &TestDir, sql: &str) {
        Connection::open(dir.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
    }

    #[test]
    fn people_are_known_after_a_restart_and_what_goes_is_gone() {
        let dir = file("people");
        let (mut store, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!(back.people, people());
        let gone = [Person::NoSignIn("a1".to_owned()), Person::NoToken("office".to_owned())];
        let facts = gone.map(|person| Fact::Person(Box::new(person)));
        store.commit(&Turn { facts: &facts, ..Turn::default() }).unwrap();
        drop(store);
        let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((back.people.accounts.len(), back.people.sign_ins.len(), back.people.tokens.len()), (2, 1, 0));
    }

    #[test]
    fn a_file_of_schema_9_takes_them_up_and_has_lost_nobody() {
        let dir = TestDir::new("people-schema-9");
        drop(StateStore::open(dir.path(), RAISED).unwrap());
        dir.back_to_schema(9);
        let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
        assert_eq!((back.notes.len(), back.people), (0, Kept::default()));
    }

    /// A role that somebody edited, or a bit that fell over, gives no right, and opens nothing either.
    #[test]
    fn a_row_that_fails_its_hash_is_nobody_and_is_missed() {
        for sql in [
            "UPDATE people SET record = replace(record, '\"manager\"', '\"administrator\"') WHERE id = 'li'",
            "UPDATE people SET id = 'root' WHERE id = 'li'",
            "UPDATE people SET sum = zeroblob(32) WHERE id = 'li'",
        ] {
            let dir = file("people-edited");
            edit(&dir, sql);
            let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
            let names: Vec<&str> = back.people.accounts.iter().map(|account| &*account.name).collect();
            assert_eq!((names, back.people.whole), (vec!["wang"], false), "{sql}");
        }
    }

    /// Goal: no damage makes a site that had accounts look like one that never had any. Method: invert every page.
    #[test]
    fn a_damaged_file_never_looks_as_if_nobody_had_ever_been_known() {
        let good = file("people-damaged");
        let bytes = std::fs::read(good.path().join(FILE)).unwrap();
        let mut lost = 0;
        for page in 0..bytes.len() / 4096 {
            let dir = TestDir::new("people-damaged-page");
            let mut bytes = bytes.clone();
            bytes[page * 4096..(page + 1) * 4096].iter_mut().for_each(|byte| *byte ^= 0x5a);
            std::fs::write(dir.path().join(FILE), bytes).unwrap();
            let (_, back) = StateStore::open(dir.path(), RAISED).unwrap();
            assert!(!back.people.accounts.is_empty() || !back.people.whole, "page {page}");
            lost += usize::from(back.people.accounts.is_empty());
        }
        assert!(lost <= 2, "only its own page, and the list of tables: {lost}");
    }

    #[test]
    fn who_names_a_place_must_have_every_part_of_it() {
        let theirs = Places::of(["3".to_owned(), "grid:c-2".to_owned()]);
        for (building, grid, area, taken) in [
            ("3", "", "", true),
            ("3", "c-2", "", true),
            ("", "c-2", "", true),
            ("7", "c-2", "", false),
            ("3", "c-9", "", false),
            ("3", "", "east", false),
            ("", "", "", false),
        ] {
            let [building, grid, area] = [building, grid, area].map(str::to_owned);
            let place = Place { building, grid, area, ..Place::default() };
            assert_eq!(theirs.takes_every_part(&place), taken, "{place:?}");
            assert!(Places::EVERYWHERE.takes_every_part(&place), "{place:?}");
        }
    }

    #[test]
    fn places_take_what_lies_in_them() {
        let place = |building: &str, area: &str, grid: &str| Place {
            building: building.to_owned(),
            area: area.to_owned(),
            grid: grid.to_owned(),
            ..Place::default()
        };
        for (words, taken) in [
            (&[][..], [true, true, true, true]),
            (&["3"], [true, false, false, false]),
            (&["area:b3"], [false, true, false, false]),
            (&["grid:3"], [false, false, true, false]),
            (&["4", "grid:9"], [false, false, false, false]),
            (&[""], [false, false, false, false]),
            (&["site:"], [false, false, false, true]),
            (&["3", "site:"], [true, false, false, true]),
        ] {
            let places = Places::of(words.iter().map(|word| (*word).to_owned()));
            let found = [place("3", "", ""), place("", "b3", ""), place("", "", "3"), Place::default()]
                .map(|place| places.takes(&place));
            assert_eq!(found, taken, "{words:?}");
        }
    }
}
