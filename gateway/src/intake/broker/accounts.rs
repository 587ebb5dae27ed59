//! Who may connect, and which topics are theirs: the files of Mosquitto, so that its tools and its habits serve here.
//!
//! Passwords are read as `mosquitto_passwd` writes them: `name:$7$rounds$salt$hash`, PBKDF2 with SHA-512. The access
//! list knows `user`, `topic` and `pattern` with `read`, `write`, `readwrite` and `deny`; a deny goes before all else.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;

use super::wire;

/// Names with the hashes of their passwords.
#[derive(Clone, Default)]
pub struct Accounts(HashMap<String, Hash>);

#[derive(Clone)]
struct Hash {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// More rounds than this would let a stranger keep a core busy by merely connecting.
const MOST_ROUNDS: u32 = 1_000_000;

impl Accounts {
    /// The error is one line per fault, each with its line number.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut accounts = HashMap::new();
        let mut faults = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match account(line) {
                Ok((name, hash)) => {
                    accounts.insert(name.to_owned(), hash);
                }
                Err(why) => faults.push(format!("line {}: {why}", n + 1)),
            }
        }
        if faults.is_empty() { Ok(Self(accounts)) } else { Err(faults) }
    }

    /// Takes as long as the rounds of the hash say: not for a thread that others wait on.
    pub fn is_right(&self, name: &str, password: &[u8]) -> bool {
        self.0.get(name).is_some_and(|account| {
            pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, account.rounds, &account.salt, password, &account.hash).is_ok()
        })
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accounts({})", self.0.len())
    }
}

fn account(line: &str) -> Result<(&str, Hash), &'static str> {
    let (name, rest) = line.split_once(':').ok_or("expected name:$7$rounds$salt$hash")?;
    if name.is_empty() {
        return Err("the name is empty");
    }
    let mut parts = rest.split('$').skip(1);
    let (Some("7"), Some(rounds), Some(salt), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the password is not hashed as `mosquitto_passwd` of Mosquitto 2 does it");
    };
    let rounds = rounds
        .parse()
        .ok()
        .and_then(NonZeroU32::new)
        .filter(|rounds| rounds.get() <= MOST_ROUNDS)
        .ok_or("the rounds of the hash are not a number from 1 to 1000000")?;
    let salt = STANDARD.decode(salt).map_err(|_| "the salt is not base64")?;
    let hash = STANDARD.decode(hash).map_err(|_| "the hash is not base64")?;
    if hash.len() != 64 {
        return Err("the hash does not have 64 bytes");
    }
    Ok((name, Hash { rounds, salt, hash }))
}

/// Which topics are whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// For clients without a name.
    nameless: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    /// For all, with `%u` and `%c` in their place.
    patterns: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    access: Access,
    filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

/// The one who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub user: Option<&'a str>,
    pub client: &'a str,
}

impl Acl {
    /// The error is one line per fault, each with its line number.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut acl = Self::default();
        let mut faults = Vec::new();
        let mut user: Option<String> = None;
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "user" if !rest.is_empty() => {
                    acl.users.entry(rest.to_owned()).or_default();
                    user = Some(rest.to_owned());
                }
                "topic" | "pattern" => match rule(rest) {
                    Ok(rule) if word == "pattern" => acl.patterns.push(rule),
                    Ok(rule) => match &user {
                        None => acl.nameless.push(rule),
                        Some(user) => acl.users.entry(user.clone()).or_default().push(rule),
                    },
                    Err(why) => faults.push(format!("line {}: {why}", n + 1)),
                },
                _ => faults.push(format!("line {}: {word:?} is not `user <name>`, `topic` or `pattern`", n + 1)),
            }
        }
        if faults.is_empty() { Ok(acl) } else { Err(faults) }
    }

    pub fn may_write(&self, who: Who<'_>, topic: &str) -> bool {
        self.may(who, topic, Access::Write)
    }

    pub fn may_read(&self, who: Who<'_>, topic: &str) -> bool {
        self.may(who, topic, Access::Read)
    }

    /// Whether one of the rules covers all that `filter` asks for. A subscription that would be answered only in part
    /// is refused: a subscriber that believes it sees everything and does not is worse off than one that was told.
    pub fn may_subscribe(&self, who: Who<'_>, filter: &str) -> bool {
        self.rules(who)
            .any(|(access, rule)| matches!(access, Access::Read | Access::ReadWrite) && covers(&rule, filter))
    }

    fn may(&self, who: Who<'_>, topic: &str, wanted: Access) -> bool {
        let mut allowed = false;
        for (access, rule) in self.rules(who) {
            if covers(&rule, topic) {
                match access {
                    Access::Deny => return false,
                    _ => allowed |= access == wanted || access == Access::ReadWrite,
                }
            }
        }
        allowed
    }

    fn rules<'s>(&'s self, who: Who<'s>) -> impl Iterator<Item = (Access, std::borrow::Cow<'s, str>)> {
        let own = match who.user {
            None => Some(&self.nameless),
            Some(user) => self.users.get(user),
        };
        own.into_iter()
            .flatten()
            .map(|rule| (rule.access, rule.filter.as_str().into()))
            .chain(self.patterns.iter().filter_map(move |rule| Some((rule.access, fill(&rule.filter, who)?.into()))))
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    let (access, filter) = match text.split_once(char::is_whitespace) {
        Some(("read", filter)) => (Access::Read, filter.trim()),
        Some(("write", filter)) => (Access::Write, filter.trim()),
        Some(("readwrite", filter)) => (Access::ReadWrite, filter.trim()),
        Some(("deny", filter)) => (Access::Deny, filter.trim()),
        _ => (Access::ReadWrite, text),
    };
    if wire::is_filter(filter) {
        Ok(Rule { access, filter: filter.to_owned() })
    } else {
        Err(format!("{filter:?} is not a topic filter: `+` and `#` stand for whole levels, `#` for the last"))
    }
}

/// `%u` and `%c` in their place. A name that holds `+`, `#` or `/` fits nowhere: it would widen its own rule
/// (CVE-2017-7650).
fn fill(pattern: &str, who: Who<'_>) -> Option<String> {
    let fits = |name: &&str| !name.is_empty() && !name.contains(['+', '#', '/']);
    let mut filled = pattern.to_owned();
    if pattern.contains("%u") {
        filled = filled.replace("%u", who.user.filter(fits)?);
    }
    if pattern.contains("%c") {
        filled = filled.replace("%c", Some(who.client).filter(fits)?);
    }
    Some(filled)
}

/// Whether every topic that `asked` (a topic or a filter) stands for is one that `rule` stands for.
pub fn covers(rule: &str, asked: &str) -> bool {
    // MQTT 4.7.2: a wildcard in the first place does not reach the topics that begin with a dollar.
    if asked.starts_with('$') && rule.starts_with(['+', '#']) {
        return false;
    }
    let mut asked = asked.split('/');
    for level in rule.split('/') {
        if level == "#" {
            return true;
        }
        match asked.next() {
            None | Some("#") => return false,
            Some(_) if level == "+" => {}
            Some(other) if other == level => {}
            Some(_) => return false,
        }
    }
    asked.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_mosquitto_passwd_lets_in_whom_it_names() {
        // Made with `mosquitto_passwd -b -c file zhao geheim` of Mosquitto 2.0.11.
        let line = "zhao:$7$101$NGn1u9B04u3wNJ5a$dnifEtxUq75i9mRMj3Xn9YK3kPJ4U4ljmZYDettgLBt3GxXJe741WMO3yzMNeyNNl3p/dAZM8widcIVEPzdHJQ==
";
        let accounts = Accounts::parse(line).expect("the tool's own line");
        assert!(accounts.is_right("zhao", b"geheim"));
        assert!(!accounts.is_right("zhao", b"geheim "));
        assert!(!accounts.is_right("li", b"geheim"));
        for (line, why) in [
            ("zhao", "line 1: expected name:$7$rounds$salt$hash"),
            ("zhao:geheim", "line 1: the password is not hashed as `mosquitto_passwd` of Mosquitto 2 does it"),
            ("zhao:$7$0$AAAA$AAAA", "line 1: the rounds of the hash are not a number from 1 to 1000000"),
            ("zhao:$7$9999999$AAAA$AAAA", "line 1: the rounds of the hash are not a number from 1 to 1000000"),
            ("zhao:$7$101$AAAA$AAAA", "line 1: the hash does not have 64 bytes"),
        ] {
            assert_eq!(Accounts::parse(line).expect_err(line), [why]);
        }
    }

    #[test]
    fn the_access_list_gives_each_its_own_topics() {
        let acl = Acl::parse(
            "topic read public/#\n\
             user office\n\
             topic read #\n\
             topic write command/+\n\
             topic deny secret/#\n\
             pattern write site/%u/up\n\
             pattern readwrite client/%c/#\n",
        )
        .expect("the list is right");
        let office = Who { user: Some("office"), client: "o1" };
        let nameless = Who { user: None, client: "x" };
        let device = Who { user: Some("gas-1"), client: "gas-1" };
        for (who, topic, write, read) in [
            (office, "command/reset", true, true),
            (office, "command/a/b", false, true),
            (office, "secret/plan", false, false),
            (nameless, "public/news", false, true),
            (nameless, "site/gas-1/up", false, false),
            (device, "site/gas-1/up", true, false),
            (device, "site/gas-2/up", false, false),
            (device, "client/gas-1/x", true, true),
            (Who { user: Some("+"), client: "#" }, "site/gas-1/up", false, false),
            (Who { user: Some("a/b"), client: "c" }, "site/a/b/up", false, false),
        ] {
            assert_eq!(acl.may_write(who, topic), write, "{who:?} write {topic}");
            assert_eq!(acl.may_read(who, topic), read, "{who:?} read {topic}");
        }
        for (who, filter, wanted) in [
            (office, "a/#", true),
            (office, "$SYS/#", false),
            (nameless, "public/+/x", true),
            (nameless, "#", false),
            (nameless, "+/news", false),
            (device, "client/gas-1/#", true),
            (device, "client/+/#", false),
        ] {
            assert_eq!(acl.may_subscribe(who, filter), wanted, "{who:?} subscribe {filter}");
        }
        assert_eq!(
            Acl::parse("topics a\ntopic read a/#/b\n").expect_err("both lines are wrong"),
            [
                "line 1: \"topics\" is not `user <name>`, `topic` or `pattern`",
                "line 2: \"a/#/b\" is not a topic filter: `+` and `#` stand for whole levels, `#` for the last"
            ]
        );
    }
}
