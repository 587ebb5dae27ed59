//! The form of a notice: a text with places that are filled in.
//!
//! ```text
//! {{name}}                what stands there
//! {{#name}} … {{/name}}   only where there is something; `lines` once for each of them
//! {{^name}} … {{/name}}   only where there is nothing
//! {{! … }}                a remark
//! ```
//!
//! A line with nothing but such marks leaves no line behind. There is no logic beyond that, and what is filled in is never read as a
//! template. One text tells of one change and, between `{{#several}}` and `{{/several}}`, of several. A template of a site's own is
//! checked when it is read: it knows every name, closes what it opens, and leaves out nothing that people must be told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::words::{Language, Manner};

/// What can stand in a template, for the text of one change, of several, and of one line of several.
pub(super) const NAMES: &[&str] = &[
    "advice",
    "all_places",
    "broadcast_people",
    "broadcast_until",
    "broadcast_yes",
    "clock_doubtful",
    "count",
    "crew",
    "detail",
    "left",
    "level",
    "levels",
    "lines",
    "link",
    "mark",
    "more_places",
    "place",
    "places",
    "several",
    "since",
    "since_short",
    "site",
    "state",
    "station",
    "station_state",
    "time",
    "time_short",
    "time_spoken",
    "title",
    "who",
];

/// What anmin is shipped with.
const SHIPPED: [(Manner, Language, &str); 8] = [
    (Manner::Robot, Language::Zh, include_str!("templates/robot.zh-CN.txt")),
    (Manner::Robot, Language::En, include_str!("templates/robot.en-US.txt")),
    (Manner::Mail, Language::Zh, include_str!("templates/mail.zh-CN.txt")),
    (Manner::Mail, Language::En, include_str!("templates/mail.en-US.txt")),
    (Manner::Sms, Language::Zh, include_str!("templates/sms.zh-CN.txt")),
    (Manner::Sms, Language::En, include_str!("templates/sms.en-US.txt")),
    (Manner::Voice, Language::Zh, include_str!("templates/voice.zh-CN.txt")),
    (Manner::Voice, Language::En, include_str!("templates/voice.en-US.txt")),
];

pub(super) fn shipped(manner: Manner, language: Language) -> Arc<Template> {
    let text = SHIPPED.iter().find(|(of, in_language, _)| (*of, *in_language) == (manner, language));
    let template = text.and_then(|(.., text)| Template::parse(text).ok());
    Arc::new(template.expect("each is there and read by a test"))
}

/// The largest file that is read as a template, in bytes.
const LARGEST: u64 = 64 << 10;

/// A site's own, where its folder has one: `mail.zh-CN.txt` and the like.
pub(super) fn own(folder: &Path, manner: Manner, language: Language) -> Option<(String, Result<Template, Unusable>)> {
    let path = folder.join(file_name(manner, language));
    let size = fs::metadata(&path).ok()?.len();
    let unusable = |why: String| Unusable { line: 0, why };
    let read = match size {
        ..=LARGEST => fs::read_to_string(&path).map_err(|error| unusable(format!("cannot be read: {error}"))),
        _ => Err(unusable(format!("has {size} bytes, expected at most {LARGEST}"))),
    };
    let template = read.and_then(|text| Template::parse(&text)).and_then(|template| match template.lacks(manner) {
        Some(why) => Err(unusable(why)),
        None => Ok(template),
    });
    Some((path.display().to_string(), template))
}

pub(super) fn file_name(manner: Manner, language: Language) -> String {
    format!("{}.{}.txt", manner.as_str(), language.as_str())
}

/// A template that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// From 1; 0 where it is about the whole.
    pub line: usize,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Text(String),
    Value(String),
    Section { name: String, filled: bool, inner: Vec<Self> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Node>);

/// What is filled in.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    texts: Vec<(&'static str, String)>,
    lines: Vec<Self>,
}

impl Values {
    /// Empty is the same as not there.
    pub(super) fn set(&mut self, name: &'static str, text: impl Into<String>) {
        debug_assert!(NAMES.contains(&name), "{name}");
        self.texts.retain(|(known, _)| *known != name);
        self.texts.push((name, text.into()));
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.texts.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
    }

    pub(super) fn lines(&mut self) -> &mut Vec<Self> {
        &mut self.lines
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, Unusable> {
        // What is open: name, kind, the line where it was opened, and what stands before it.
        let mut open: Vec<(String, bool, usize, Vec<Node>)> = Vec::new();
        let mut nodes = Vec::new();
        for (n, line) in text.split_inclusive('\n').enumerate() {
            let unusable = |why: String| Unusable { line: n + 1, why };
            let alone = is_marks_alone(line);
            let mut rest = line;
            while let Some(start) = rest.find("{{") {
                let (before, tag) = rest.split_at(start);
                let Some((tag, after)) = tag[2..].split_once("}}") else {
                    return Err(unusable("`{{` is not closed by `}}` in its line".to_owned()));
                };
                if !alone && !before.is_empty() {
                    nodes.push(Node::Text(before.to_owned()));
                }
                rest = after;
                let (kind, name) = match tag.chars().next() {
                    Some(kind @ ('#' | '^' | '/' | '!')) => (Some(kind), tag[1..].trim()),
                    _ => (None, tag.trim()),
                };
                if kind == Some('!') {
                    continue;
                }
                if !NAMES.contains(&name) {
                    let hint = anmin_sensors::document::did_you_mean(name, NAMES.iter().copied());
                    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                    return Err(unusable(format!("there is no `{name}`{hint}")));
                }
                match kind {
                    Some('#' | '^') => {
                        open.push((name.to_owned(), kind == Some('#'), n + 1, std::mem::take(&mut nodes)));
                    }
                    Some(_) => match open.pop() {
                        Some((opened, filled, _, before)) if opened == name => {
                            let inner = std::mem::replace(&mut nodes, before);
                            nodes.push(Node::Section { name: opened, filled, inner });
                        }
                        Some((opened, _, at, _)) => {
                            return Err(unusable(format!("`{{{{/{name}}}}}`, but `{opened}` of line {at} is open")));
                        }
                        None => return Err(unusable(format!("`{{{{/{name}}}}}` closes nothing"))),
                    },
                    None if matches!(name, "lines" | "several") => {
                        return Err(unusable(format!("`{name}` is no text: write `{{{{#{name}}}}}`")));
                    }
                    None => nodes.push(Node::Value(name.to_owned())),
                }
            }
            if !alone && !rest.is_empty() {
                nodes.push(Node::Text(rest.to_owned()));
            }
        }
        match open.pop() {
            Some((name, _, line, _)) => Err(Unusable { line, why: format!("`{name}` is opened and never closed") }),
            None => Ok(Self(nodes)),
        }
    }

    /// The names that can be shown of one change, or of several.
    pub(super) fn shows(&self, several: bool) -> BTreeSet<&str> {
        fn walk<'n>(nodes: &'n [Node], several: bool, into: &mut BTreeSet<&'n str>) {
            for node in nodes {
                match node {
                    Node::Text(_) => {}
                    Node::Value(name) => {
                        into.insert(name);
                    }
                    Node::Section { name, filled, inner } if name == "several" => {
                        if *filled == several {
                            walk(inner, several, into);
                        }
                    }
                    Node::Section { name, filled, inner } => {
                        if *filled {
                            into.insert(name);
                        }
                        walk(inner, several, into);
                    }
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.0, several, &mut found);
        found
    }

    /// What people must be told and this does not tell.
    fn lacks(&self, manner: Manner) -> Option<String> {
        let (one, several) = (self.shows(false), self.shows(true));
        let times = ["time", "time_short", "time_spoken"];
        let mut lacks: Vec<&str> =
            ["level", "title", "place", "advice", "who"].into_iter().filter(|name| !one.contains(name)).collect();
        if !times.iter().any(|name| one.contains(name)) {
            lacks.push("time");
        }
        if matches!(manner, Manner::Robot | Manner::Mail) && !one.contains("link") {
            lacks.push("link");
        }
        if let Some(name) = lacks.first() {
            return Some(format!("of one change it does not tell `{name}`"));
        }
        if let Some(name) =
            ["count", "levels", "lines", "title", "left"].into_iter().find(|name| !several.contains(name))
        {
            return Some(format!("of several changes it does not tell `{name}`"));
        }
        let read_aloud = manner == Manner::Voice && (one.contains("link") || several.contains("link"));
        read_aloud.then(|| "`link` is of no use to who listens".to_owned())
    }

    /// Filled in, without blank space at its ends.
    pub(super) fn fill(&self, values: &Values) -> String {
        fn write(nodes: &[Node], scope: &[&Values], into: &mut String) {
            let find = |name: &str| scope.iter().map(|values| values.get(name)).find(|text| !text.is_empty());
            for node in nodes {
                match node {
                    Node::Text(text) => into.push_str(text),
                    Node::Value(name) => into.push_str(find(name).unwrap_or_default()),
                    Node::Section { name, filled, inner } if name == "lines" => {
                        let lines = &scope[scope.len() - 1].lines;
                        match filled {
                            true => lines.iter().for_each(|line| write(inner, &[&[line][..], scope].concat(), into)),
                            false if lines.is_empty() => write(inner, scope, into),
                            false => {}
                        }
                    }
                    Node::Section { name, filled, inner } => {
                        if find(name).is_some() == *filled {
                            write(inner, scope, into);
                        }
                    }
                }
            }
        }
        let mut text = String::new();
        write(&self.0, &[values], &mut text);
        text.trim().to_owned()
    }
}

/// Whether a line has marks, and beside them nothing that would be seen.
fn is_marks_alone(line: &str) -> bool {
    let mut rest = line.trim();
    let has_one = rest.starts_with("{{");
    while let Some(tag) = rest.strip_prefix("{{").filter(|tag| tag.starts_with(['#', '^', '/', '!'])) {
        let Some((_, after)) = tag.split_once("}}") else { return false };
        rest = after.trim_start();
    }
    has_one && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, values: &[(&'static str, &str)], lines: &[&[(&'static str, &str)]]) -> String {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut values = Values::default();
            pairs.iter().for_each(|(name, text)| values.set(name, *text));
            values
        };
        let mut values = of(values);
        *values.lines() = lines.iter().map(|line| of(line)).collect();
        Template::parse(template).expect("a template").fill(&values)
    }

    #[test]
    fn a_template_is_filled_in_and_nothing_of_what_is_filled_in_is_read() {
        let one: &[(&'static str, &str)] = &[("title", "{{place}}"), ("place", "B3"), ("who", "")];
        for (template, wanted) in [
            ("{{title}} at {{ place }}", "{{place}} at B3"),
            ("a{{#who}}by {{who}}{{/who}}{{^who}}by nobody{{/who}}z", "aby nobodyz"),
            ("a\n{{#place}}\n{{place}}\n{{/place}}\n{{! no line }}\nz", "a\nB3\nz"),
            ("{{#place}}{{#who}}x{{/who}}{{/place}}{{^several}}one{{/several}}", "one"),
            ("{{advice}}", ""),
        ] {
            assert_eq!(fill(template, one, &[]), wanted, "{template}");
        }
        let lines: &[&[(&'static str, &str)]] = &[&[("title", "gas"), ("count", "2")], &[("title", "smoke")]];
        assert_eq!(
            fill("{{count}}:\n{{#lines}}\n{{title}} x{{count}}\n{{/lines}}\n.", &[("count", "9")], lines),
            "9:\ngas x2\nsmoke x9\n."
        );
        assert_eq!(fill("{{^lines}}none{{/lines}}", &[], &[]), "none");
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said_with_its_line() {
        for (template, line, wanted) in [
            ("{{level}}\n{{plaice}}", 2, "there is no `plaice`; did you mean `place`?"),
            ("{{level}\n", 1, "is not closed"),
            ("\n{{#who}}\n", 2, "`who` is opened and never closed"),
            ("{{#who}}\n{{#place}}\n{{/who}}", 3, "`{{/who}}`, but `place` of line 2 is open"),
            ("{{/who}}", 1, "closes nothing"),
            ("{{lines}}", 1, "is no text"),
        ] {
            let found = Template::parse(template).expect_err(template);
            assert!(found.line == line && found.why.contains(wanted), "{template}: {found:?}");
        }
    }

    #[test]
    fn what_is_shipped_tells_all_that_people_must_be_told() {
        for (manner, language, text) in SHIPPED {
            let name = file_name(manner, language);
            let template = Template::parse(text).unwrap_or_else(|why| panic!("{name}: {why:?}"));
            assert_eq!(template.lacks(manner), None, "{name}");
            assert_eq!(*shipped(manner, language), template, "{name}");
            // Each of these is missed, one at a time.
            for must in ["level", "title", "place", "advice", "who"] {
                let without =
                    text.replace(&format!("{{{{{must}}}}}"), "").replace(&format!("{{{{#{must}}}}}"), "{{#mark}}");
                let without = without
                    .replace(&format!("{{{{^{must}}}}}"), "{{^mark}}")
                    .replace(&format!("{{{{/{must}}}}}"), "{{/mark}}");
                let lacks = Template::parse(&without).expect("a template").lacks(manner);
                assert!(lacks.as_ref().is_some_and(|why| why.contains(must)), "{name} without {must}: {lacks:?}");
            }
        }
    }

    #[test]
    fn what_a_template_shows_depends_on_how_many_it_tells_of() {
        let template = Template::parse(
            "{{level}}{{^several}}{{place}}{{/several}}{{#several}}{{#lines}}{{title}}{{/lines}}{{/several}}{{^who}}?{{/who}}",
        );
        let template = template.expect("a template");
        assert_eq!(template.shows(false), BTreeSet::from(["level", "place"]));
        assert_eq!(template.shows(true), BTreeSet::from(["level", "lines", "title"]));
    }
}
