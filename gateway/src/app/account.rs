//! `anmin account`: who may sign in, tokens for programs, and the code for the first administrator.
//!
//! Where a daemon runs it is asked, like any other way in. Where none does and `--site` names the site, the same rules work
//! on its database directly: whoever may write that file is at the box. Passwords are made here and never asked for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anmin_rules::rule::Text;
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::alarm::{Desk, EXIT_CODES, Failure, Said, read, run, segment};
use super::keep::{Problem, end, storage_of};
use super::table::Table;
use crate::clock::Clock;
use crate::config;
use crate::main_loop::Input;
use crate::store::people::{Account, Places, Role};
use crate::store::{Fact, StateStore, Turn};
use crate::web::Settings;
use crate::web::authority::role_words;
use crate::web::client::{self, Client, ClientError};
use crate::web::guard::Caller;
use crate::web::people::{CODE_FILE, Doors, People};
use crate::web::problem::Problem as WebProblem;
use crate::web::wire::{AccountWire, NewTokenWire, PasswordWire, TextWire, TokenWire, Writer};

/// `anmin account`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct AccountOptions {
    #[command(flatten)]
    desk: Desk,
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Show the code with which the page makes the first administrator; only on the box itself.
    SetupCode {
        /// The site's folder, or its configuration file.
        #[arg(default_value = "/etc/anmin")]
        folder: PathBuf,
    },
    /// All accounts.
    List,
    /// Add an account; prints the password that opens it once.
    Add {
        /// The name to sign in with: small letters, digits, dash.
        name: String,
        /// The name that journal and screens give; by default the same.
        #[arg(long)]
        shown: Option<String>,
        #[command(flatten)]
        rights: Rights,
    },
    /// Shut an account out and end all that it is signed in with.
    Disable { name: String },
    /// Let it in again.
    Enable { name: String },
    /// Make a new password that opens an account once; one-time passwords end with the old one.
    Password { name: String },
    /// Tokens for programs.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is shown this once.
    New {
        /// What it is for: small letters, digits, dash.
        name: String,
        #[command(flatten)]
        rights: Rights,
        /// For how many days it holds, at most 366.
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
    /// All tokens; not what they are.
    List,
    /// End a token at once.
    Revoke { name: String },
}

/// What somebody may do, and where.
#[derive(Debug, Args)]
struct Rights {
    /// officer, crew, manager, office, administrator, auditor or device.
    #[arg(long, value_parser = Role::ALL.map(Role::as_str))]
    role: String,
    /// Only in this building, or `area:` or `grid:` with a name, or `site:` for what lies in none; may be given several times.
    #[arg(long = "place", value_name = "PLACE")]
    places: Vec<String>,
}

pub fn account(options: AccountOptions) -> ExitCode {
    let AccountOptions { desk, command } = options;
    if let AccountCommand::SetupCode { folder } = command {
        return end(|| setup_code(&folder));
    }
    let site = desk.site.clone();
    run(&desk, |client| async move {
        match (client.get("/session").await, site) {
            (Err(ClientError::Unreachable { .. }), Some(site)) => offline(&site, command).await,
            (Err(error), _) => Err(error.into()),
            (Ok(_), _) => through_api(&client, command).await,
        }
    })
}

fn setup_code(site: &Path) -> Result<(), Problem> {
    let (storage, _) = storage_of(site)?;
    let path = storage.join(CODE_FILE);
    let code = std::fs::read_to_string(&path).map_err(|error| Problem {
        text: Text {
            zh: format!("没有初始设置码（{}：{error}）", path.display()),
            en: format!("there is no set-up code ({}: {error})", path.display()),
        },
        hint: Some(Text {
            zh: "已有账号时不再有；安民首次启动后才有".to_owned(),
            en: "there is none once there is an account, and none before anmin has first been started".to_owned(),
        }),
    })?;
    println!("{}", code.trim());
    Ok(())
}

/// Path and body of what changes something; `None` for lists.
fn request(command: &AccountCommand) -> Option<(String, Value)> {
    let of = |name: &str, what: &str| Some((format!("/accounts/{}/{what}", segment(name)), json!({})));
    match command {
        AccountCommand::Add { name, shown, rights: Rights { role, places } } => {
            let shown = shown.as_ref().unwrap_or(name);
            let body = json!({ "name": name, "shown": shown, "role": role, "places": places });
            Some(("/accounts".to_owned(), body))
        }
        AccountCommand::Disable { name } => of(name, "disable"),
        AccountCommand::Enable { name } => of(name, "enable"),
        AccountCommand::Password { name } => of(name, "reset"),
        AccountCommand::Token { command: TokenCommand::New { name, rights: Rights { role, places }, days } } => {
            let body = json!({ "name": name, "role": role, "places": places, "days": days });
            Some(("/tokens".to_owned(), body))
        }
        AccountCommand::Token { command: TokenCommand::Revoke { name } } => {
            Some((format!("/tokens/{}/revoke", segment(name)), json!({})))
        }
        _ => None,
    }
}

async fn through_api(client: &Client, command: AccountCommand) -> Result<Said, Failure> {
    let json = match (request(&command), &command) {
        (Some((path, body)), _) => client.post(&path, &body).await?,
        (None, AccountCommand::Token { .. }) => client.get("/tokens").await?,
        (None, _) => client.get("/accounts").await?,
    };
    tell(&command, json)
}

/// The lines for people of what the API, or its like, has answered.
fn tell(command: &AccountCommand, json: Value) -> Result<Said, Failure> {
    let lines = match command {
        AccountCommand::List => accounts(&read::<Vec<AccountWire>>(&json)?),
        AccountCommand::Token { command: TokenCommand::List } => tokens(&read::<Vec<TokenWire>>(&json)?),
        AccountCommand::Token { command: TokenCommand::New { .. } } => {
            let NewTokenWire { token, kept } = read(&json)?;
            vec![
                token,
                format!(
                    "令牌只显示这一次，{} 到期 · this is the only time the token is shown; it holds until {}",
                    day(&kept.expires_at),
                    day(&kept.expires_at)
                ),
            ]
        }
        AccountCommand::Token { command: TokenCommand::Revoke { name } } => {
            vec![format!("已吊销令牌 {name} · token {name} is revoked")]
        }
        AccountCommand::Add { .. } | AccountCommand::Password { .. } => {
            let PasswordWire { account, password } = read(&json)?;
            vec![
                format!("{account}  {password}"),
                "一次性密码，首次登录后须更改 · opens the account once; a new one is asked for then".to_owned(),
            ]
        }
        AccountCommand::Disable { name } => vec![format!("已停用 {name} · {name} is shut out")],
        AccountCommand::Enable { name } => vec![format!("已启用 {name} · {name} may sign in again")],
        AccountCommand::SetupCode { .. } => Vec::new(),
    };
    Ok(Said { json, lines })
}

fn role(word: &str) -> String {
    Role::named(word).map_or_else(
        || word.to_owned(),
        |role| {
            let (zh, en) = role_words(role);
            format!("{zh} {en}")
        },
    )
}

fn places(places: &[String]) -> String {
    if places.is_empty() { "全部 everywhere".to_owned() } else { places.join(", ") }
}

fn accounts(found: &[AccountWire]) -> Vec<String> {
    if found.is_empty() {
        return vec!["没有账号 · no accounts".to_owned()];
    }
    let mut table = Table::default();
    table.row(["账号 NAME", "姓名 SHOWN", "角色 ROLE", "范围 PLACES", "状态 STATE"].map(str::to_owned));
    for account in found {
        let state = match (account.disabled, account.must_change) {
            (true, _) => "已停用 shut out",
            (false, true) => "待改密码 must set a password",
            (false, false) => "正常 active",
        };
        table.row([
            account.name.clone(),
            account.shown.clone(),
            role(&account.role),
            places(&account.places),
            state.to_owned(),
        ]);
    }
    table.lines()
}

fn tokens(found: &[TokenWire]) -> Vec<String> {
    if found.is_empty() {
        return vec!["没有令牌 · no tokens".to_owned()];
    }
    let mut table = Table::default();
    table.row(["名称 NAME", "角色 ROLE", "范围 PLACES", "到期 EXPIRES", "创建人 BY"].map(str::to_owned));
    for token in found {
        table.row([
            token.name.clone(),
            role(&token.role),
            places(&token.places),
            day(&token.expires_at).to_owned(),
            token.by.clone(),
        ]);
    }
    table.lines()
}

/// The same on the database itself, while no daemon has it.
async fn offline(site: &Path, command: AccountCommand) -> Result<Said, Failure> {
    let (storage, zone) = config::storage_of(site)
        .map_err(|faults| Failure::Site(faults.iter().map(|fault| format!("{fault}\n")).collect()))?;
    let clock = Clock::system();
    let opened = StateStore::open(&storage, clock.now().wall);
    let (mut store, restored) = opened.map_err(|error| Failure::Site(format!("{error}\n")))?;
    let (inputs, mut changes) = mpsc::channel(16);
    let doors = Doors { storage: Some(storage), subscriber_of: Arc::new(|_| None) };
    let people = People::new(restored.people, &Settings::default(), &clock, inputs, doors);
    let caller = Caller::at_the_box(&people);
    let writing = async {
        while let Some(input) = changes.recv().await {
            let (facts, reply): (Vec<Fact>, _) = match input {
                Input::People { people, deed, reply } => {
                    let people = people.into_iter().map(|person| Fact::Person(Box::new(person)));
                    (people.chain(deed.map(Fact::Did)).collect(), Some(reply))
                }
                Input::Did(deed) => (vec![Fact::Did(Box::new(deed))], None),
                _ => continue,
            };
            match store.commit(&Turn { facts: &facts, ..Turn::default() }) {
                // Who is not answered says that it did not work.
                Err(error) => eprintln!("error: {error}"),
                Ok(()) => drop(reply.map(|reply| reply.send(Ok(())))),
            }
        }
    };
    let working = obey(&people, &caller, &command, &zone);
    let json = tokio::select! {
        answer = working => answer?,
        () = writing => return Err(Failure::Site("the database was closed\n".to_owned())),
    };
    let mut said = tell(&command, json)?;
    said.lines
        .push("安民未在运行，已直接写入其数据库 · anmin is not running: this was done on its database".to_owned());
    Ok(said)
}

async fn obey(people: &People, caller: &Caller, command: &AccountCommand, zone: &TimeZone) -> Result<Value, Failure> {
    let writer = Writer { zone };
    let disabled = |disabled: bool| {
        move |account: &mut Account| {
            account.disabled = disabled;
            Ok(Value::Null)
        }
    };
    let value = match command {
        AccountCommand::List => {
            json!(people.accounts().iter().map(|account| AccountWire::of(account, writer)).collect::<Vec<_>>())
        }
        AccountCommand::Add { name, shown, rights } => {
            let (role, places) = rights.parsed();
            let shown = shown.as_ref().unwrap_or(name);
            let password = people.add(caller, name, shown, role, places).await.map_err(refused)?;
            json!(PasswordWire { account: name.clone(), password })
        }
        AccountCommand::Disable { name } => {
            let account = people.edit(caller, name, "account.disable", disabled(true)).await.map_err(refused)?;
            json!(AccountWire::of(&account, writer))
        }
        AccountCommand::Enable { name } => {
            let account = people.edit(caller, name, "account.enable", disabled(false)).await.map_err(refused)?;
            json!(AccountWire::of(&account, writer))
        }
        AccountCommand::Password { name } => {
            let password = people.reset(caller, name, |_| Ok(())).await.map_err(refused)?;
            json!(PasswordWire { account: name.clone(), password })
        }
        AccountCommand::Token { command: TokenCommand::New { name, rights, days } } => {
            let (role, places) = rights.parsed();
            let (token, kept) = people.new_token(caller, name, role, places, *days).await.map_err(refused)?;
            json!(NewTokenWire { token, kept: TokenWire::of(&kept, writer) })
        }
        AccountCommand::Token { command: TokenCommand::List } => {
            json!(people.tokens().iter().map(|token| TokenWire::of(token, writer)).collect::<Vec<_>>())
        }
        AccountCommand::Token { command: TokenCommand::Revoke { name } } => {
            people.revoke_token(caller, name, |_| Ok(())).await.map_err(refused)?;
            json!({ "done": true })
        }
        AccountCommand::SetupCode { .. } => Value::Null,
    };
    Ok(value)
}

impl Rights {
    /// The command line takes no other role.
    fn parsed(&self) -> (Role, Places) {
        (Role::named(&self.role).unwrap_or(Role::Device), Places::of(self.places.clone()))
    }
}

fn refused(problem: WebProblem) -> Failure {
    let text = |text: Text| TextWire { zh: text.zh, en: text.en };
    let problem =
        client::Problem { code: problem.code.to_owned(), error: text(problem.error), hint: problem.hint.map(text) };
    Failure::Name { problem: Box::new(problem), candidates: Vec::new() }
}

/// Of an RFC 3339 moment.
fn day(moment: &str) -> &str {
    moment.get(..10).unwrap_or(moment)
}
