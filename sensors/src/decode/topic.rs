//! Topic patterns with captures, and the templates that use what they capture.
//!
//! `{name}` captures one level, `+` takes one, `#` takes the rest.

use std::fmt;

/// A topic with captures, such as `shequ/{building}/{device}/up`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Is(String),
    Capture(String),
    One,
    Rest,
}

/// What a pattern found in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found<'t> {
    pub captures: Vec<(&'t str, &'t str)>,
    /// What `#` took.
    pub rest: Option<&'t str>,
}

impl<'t> Found<'t> {
    pub fn get(&self, name: &str) -> Option<&'t str> {
        self.captures.iter().find(|(found, _)| *found == name).map(|(_, text)| *text)
    }
}

impl Pattern {
    /// The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 1_024 || text.chars().any(char::is_control) {
            return Err(format!("{text:?} is not a topic"));
        }
        let mut levels: Vec<Level> = Vec::new();
        for word in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(format!("in {text:?} something follows #, which takes all that is left"));
            }
            let capture = word.strip_prefix('{').and_then(|word| word.strip_suffix('}'));
            levels.push(match (word, capture) {
                ("+", _) => Level::One,
                ("#", _) => Level::Rest,
                (_, Some(name)) if is_name(name) => {
                    if levels.contains(&Level::Capture(name.to_owned())) {
                        return Err(format!("{text:?} captures {{{name}}} twice"));
                    }
                    Level::Capture(name.to_owned())
                }
                _ if word.contains(['+', '#', '{', '}']) => {
                    return Err(format!("in {text:?} level {word:?} mixes a wildcard or capture with other text"));
                }
                _ => Level::Is(word.to_owned()),
            });
        }
        Ok(Self { levels })
    }

    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(|level| match level {
            Level::Capture(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The MQTT topic filter that brings all topics of the pattern.
    pub fn filter(&self) -> String {
        let words: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Is(word) => word.as_str(),
                Level::Capture(_) | Level::One => "+",
                Level::Rest => "#",
            })
            .collect();
        words.join("/")
    }

    pub fn find<'t>(&'t self, topic: &'t str) -> Option<Found<'t>> {
        let mut found = Found::default();
        let mut left = Some(topic);
        for level in &self.levels {
            if *level == Level::Rest {
                // `a/#` takes `a` as well: its rest is empty.
                found.rest = Some(left.unwrap_or_default());
                return Some(found);
            }
            let (word, after) = match left?.split_once('/') {
                Some((word, after)) => (word, Some(after)),
                None => (left?, None),
            };
            match level {
                Level::Is(wanted) if wanted != word => return None,
                Level::Capture(name) => found.captures.push((name, word)),
                _ => {}
            }
            left = after;
        }
        left.is_none().then_some(found)
    }

    /// Whether one topic can be of both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut n = 0;
        loop {
            match (self.levels.get(n), other.levels.get(n)) {
                (Some(Level::Rest), _) | (_, Some(Level::Rest)) => return true,
                (Some(Level::Is(a)), Some(Level::Is(b))) if a != b => return false,
                (Some(_), Some(_)) => n += 1,
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, level) in self.levels.iter().enumerate() {
            let slash = if n == 0 { "" } else { "/" };
            match level {
                Level::Is(word) => write!(f, "{slash}{word}")?,
                Level::Capture(name) => write!(f, "{slash}{{{name}}}")?,
                Level::One => write!(f, "{slash}+")?,
                Level::Rest => write!(f, "{slash}#")?,
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// The topic that captures this, the inverse of [`Pattern::find`]; `None` where a level would still be open.
    pub fn compose(&self, name: &str, text: &str) -> Option<String> {
        let levels: Option<Vec<&str>> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Is(word) => Some(word.as_str()),
                Level::Capture(capture) if capture == name => Some(text),
                Level::Capture(_) | Level::One | Level::Rest => None,
            })
            .collect();
        levels.map(|levels| levels.join("/"))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Text with captures in it, such as `b{building}-gas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Capture(String),
}

impl Template {
    /// `known` are the captures that there are; the error says what is wrong with the text.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}').map(|at| open + at) else {
                return Err(format!("{text:?} has a {{ without its }}"));
            };
            let name = &rest[open + 1..close];
            if !known.contains(&name) {
                let names: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
                let has = if names.is_empty() {
                    "captures nothing".to_owned()
                } else {
                    format!("captures {}", names.join(", "))
                };
                return Err(format!("{text:?} uses {{{name}}}, but the topic {has}"));
            }
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            pieces.push(Piece::Capture(name.to_owned()));
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub fn fill(&self, found: &Found<'_>) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Capture(name) => found.get(name).unwrap_or_default(),
            })
            .collect()
    }

    /// The capture that it consists of, where it is nothing but one.
    pub fn as_capture(&self) -> Option<&str> {
        match &self.0[..] {
            [Piece::Capture(name)] => Some(name),
            _ => None,
        }
    }

    /// Whether it is the same whatever was captured.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_composed_for_the_device_that_it_would_capture() {
        for (pattern, wanted) in [("a/{device}/up", Some("a/g1/up")), ("a/{b}/{device}", None), ("a/{device}/#", None)]
        {
            let parsed = Pattern::parse(pattern).expect("a sound pattern");
            assert_eq!(parsed.compose("device", "g1").as_deref(), wanted, "{pattern}");
        }
    }

    #[test]
    fn patterns_find_their_topics() {
        for (pattern, topic, wanted) in [
            ("a/{b}/c", "a/x/c", Some("b=x")),
            ("a/{b}/c", "a//c", Some("b=")),
            ("a/{b}/c", "a/x/d", None),
            ("a/{b}/c", "a/x", None),
            ("a/{b}/c", "a/x/c/d", None),
            ("{a}/+/{c}", "1/2/3", Some("a=1 c=3")),
            ("s/{device}/#", "s/g1/sensor/gas", Some("device=g1 #=sensor/gas")),
            ("s/{device}/#", "s/g1", Some("device=g1 #=")),
            ("s/{device}/#", "s", None),
            ("#", "any/thing", Some("#=any/thing")),
            ("楼/{d}", "楼/厨房", Some("d=厨房")),
        ] {
            let parsed = Pattern::parse(pattern).expect("a sound pattern");
            let found = parsed.find(topic).map(|found| {
                let mut words: Vec<String> =
                    found.captures.iter().map(|(name, text)| format!("{name}={text}")).collect();
                words.extend(found.rest.map(|rest| format!("#={rest}")));
                words.join(" ")
            });
            assert_eq!(found.as_deref(), wanted, "{pattern} {topic}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn faulty_patterns_and_templates_say_what_is_wrong() {
        for (text, wanted) in [
            ("", "\"\" is not a topic"),
            ("a/#/b", "in \"a/#/b\" something follows #, which takes all that is left"),
            ("a/x{b}", "in \"a/x{b}\" level \"x{b}\" mixes a wildcard or capture with other text"),
            ("a/b+", "in \"a/b+\" level \"b+\" mixes a wildcard or capture with other text"),
            ("{a}/{a}", "\"{a}/{a}\" captures {a} twice"),
            ("a/{}", "in \"a/{}\" level \"{}\" mixes a wildcard or capture with other text"),
        ] {
            assert_eq!(Pattern::parse(text), Err(wanted.to_owned()));
        }
        assert_eq!(Template::parse("x{y", &["y"]), Err("\"x{y\" has a { without its }".to_owned()));
        assert_eq!(Template::parse("x{z}", &["y"]), Err("\"x{z}\" uses {z}, but the topic captures {y}".to_owned()));
        let template = Template::parse("b{b}-{u}号", &["b", "u"]).expect("a sound template");
        let pattern = Pattern::parse("{b}/{u}").expect("a sound pattern");
        assert_eq!(template.fill(&pattern.find("3/2").expect("it fits")), "b3-2号");
    }

    #[test]
    fn overlapping_patterns_are_recognised() {
        for (a, b, wanted) in [
            ("a/{b}/c", "a/+/c", true),
            ("a/{b}/c", "a/+/d", false),
            ("a/#", "a/b/c", true),
            ("#", "x", true),
            ("a/b", "a/b/c", false),
            ("{x}/b", "a/{y}", true),
        ] {
            let parse = |text| Pattern::parse(text).expect("a sound pattern");
            assert_eq!(parse(a).overlaps(&parse(b)), wanted, "{a} {b}");
            assert_eq!(parse(b).overlaps(&parse(a)), wanted, "{b} {a}");
        }
        assert_eq!(Pattern::parse("a/{b}/+/#").expect("a sound pattern").filter(), "a/+/+/#");
    }
}
