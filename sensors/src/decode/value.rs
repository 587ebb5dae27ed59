//! What was written to a [`Value`] in the unit of its kind: numbers, flags in all their dialects, the maker's "no value".
//!
//! Promises that what is no value becomes a [`Fault`], never a number: null and the profile's sentinels, NaN, infinities,
//! `1e400`, whole numbers beyond 2^53 (where neighbours merge), `12,5`, text where a number is due. A word whose meaning
//! depends on the device (`open`, `high`, `fault`, `test`) is no flag until a profile says which.

use std::sync::Arc;

use toml::de::DeValue;

use crate::decode::binary::Scale;
use crate::decode::json::{Scalar, quoted};
use crate::document::{FromToml, Reader};
use crate::point::{Form, Kind};
use crate::reading::{Fault, Value};

/// Beyond this a whole number has no exact `f64`, and no sensor of a community measures so much.
const LARGEST: f64 = 9_007_199_254_740_992.0;
/// Characters of a text value; the rest is cut.
const LONGEST_TEXT: usize = 256;

const TRUE_WORDS: &[&str] = &[
    "true",
    "on",
    "1",
    "yes",
    "alarm",
    "alarming",
    "active",
    "detected",
    "triggered",
    "fire",
    "leak",
    "wet",
    "online",
    "present",
    "报警",
    "告警",
    "有",
    "是",
    "在线",
];
const FALSE_WORDS: &[&str] = &[
    "false", "off", "0", "no", "normal", "ok", "inactive", "clear", "none", "idle", "dry", "offline", "absent", "正常",
    "无", "否", "离线",
];

/// How what is written at one place becomes the value of one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    form: Form,
    scale: Scale,
    sentinels: Vec<Word>,
    true_words: Vec<Word>,
    false_words: Vec<Word>,
    numbers_in_text: bool,
}

impl Conversion {
    /// No scaling, no words of its own.
    pub fn plain(form: Form) -> Self {
        Self {
            form,
            scale: Scale::NONE,
            sentinels: Vec::new(),
            true_words: Vec::new(),
            false_words: Vec::new(),
            numbers_in_text: false,
        }
    }

    /// Reads `scale`, `offset`, `span`, `sentinels`, `true_words`, `false_words` and `numbers_in_text` of one point.
    pub fn read(r: &Reader<'_>, kind: Kind) -> Self {
        let form = kind.info().form;
        let conversion = Self {
            form,
            scale: Scale::read(r),
            sentinels: r.or("sentinels", Vec::new()),
            true_words: r.or("true_words", Vec::new()),
            false_words: r.or("false_words", Vec::new()),
            numbers_in_text: r.or("numbers_in_text", false),
        };
        let keys: &[&str] = match form {
            Form::Number => &["true_words", "false_words"],
            Form::Flag => &["scale", "offset", "span", "numbers_in_text"],
            Form::Text => &["scale", "offset", "span", "numbers_in_text", "true_words", "false_words"],
        };
        for key in keys.iter().filter(|key| r.has(key)) {
            let what = match form {
                Form::Number => "a number",
                Form::Flag => "a flag",
                Form::Text => "text",
            };
            r.fault(key, format!("`{key}` has no meaning for kind {:?}, which is {what}", kind.as_str()), None);
        }
        if let Some(both) = conversion.true_words.iter().find(|word| conversion.false_words.contains(word)) {
            r.fault("false_words", format!("{:?} is in `true_words` and in `false_words`", both.text), None);
        }
        conversion
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// What a JSON document holds at the point's path.
    pub fn scalar(&self, scalar: &Scalar<'_>) -> Result<Value, Fault> {
        match scalar {
            Scalar::Null => Err(Fault::Sentinel),
            Scalar::NoNumber | Scalar::Compound => Err(Fault::NotAValue),
            Scalar::Number(text) => self.written(text, true),
            Scalar::Text(text) => self.written(text.trim(), self.numbers_in_text),
            Scalar::Flag(flag) => {
                let word = if *flag { "true" } else { "false" };
                match self.form {
                    Form::Number if self.is_sentinel(word) => Err(Fault::Sentinel),
                    Form::Number => Err(Fault::NotAValue),
                    Form::Flag | Form::Text => self.written(word, false),
                }
            }
        }
    }

    /// A plain payload: the whole of it is the value.
    pub fn plain_text(&self, text: &str) -> Result<Value, Fault> {
        match text.trim_matches(|c: char| c.is_whitespace() || c == '\0') {
            "" | "null" => Err(Fault::Sentinel),
            text => self.written(text, true),
        }
    }

    /// What a device would write into a JSON document for this value: the way back of [`Conversion::scalar`].
    pub fn compose(&self, value: &Value) -> String {
        match value {
            Value::Number(number) => self.scale.undo(*number).to_string(),
            Value::Flag(flag) => match if *flag { &self.true_words } else { &self.false_words }.first() {
                Some(Word { number: Some(number), .. }) => number.to_string(),
                Some(word) => quoted(&word.text),
                None => flag.to_string(),
            },
            Value::Text(text) => quoted(text),
        }
    }

    fn is_sentinel(&self, text: &str) -> bool {
        self.sentinels.iter().any(|word| word.is(text))
    }

    fn written(&self, text: &str, is_number: bool) -> Result<Value, Fault> {
        if self.is_sentinel(text) {
            return Err(Fault::Sentinel);
        }
        match self.form {
            Form::Number if is_number => {
                let raw = decimal(text).ok_or(Fault::NotAValue)?;
                let value = self.scale.apply(raw);
                // Adding zero turns -0 into 0: a value that prints "-0" makes people doubt the rest.
                if value.abs() <= LARGEST { Ok(Value::Number(value + 0.0)) } else { Err(Fault::NotAValue) }
            }
            Form::Number => Err(Fault::NotAValue),
            Form::Flag => self.flag(text).map(Value::Flag).ok_or(Fault::NotAValue),
            Form::Text if text.chars().any(char::is_control) => Err(Fault::NotAValue),
            Form::Text => Ok(Value::Text(match text.char_indices().nth(LONGEST_TEXT) {
                Some((end, _)) => Arc::from(&text[..end]),
                None => Arc::from(text),
            })),
        }
    }

    fn flag(&self, text: &str) -> Option<bool> {
        let own = |words: &[Word]| words.iter().any(|word| word.is(text));
        let known = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
        if own(&self.true_words) {
            Some(true)
        } else if own(&self.false_words) {
            Some(false)
        } else if known(TRUE_WORDS) {
            Some(true)
        } else if known(FALSE_WORDS) {
            Some(false)
        } else {
            match decimal(text)? {
                1.0 => Some(true),
                0.0 => Some(false),
                _ => None,
            }
        }
    }
}

/// A word or number of a profile; words are the same in capitals and small letters, numbers however they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    text: String,
    number: Option<f64>,
}

impl Word {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), number: decimal(text) }
    }

    pub fn is(&self, text: &str) -> bool {
        self.text.eq_ignore_ascii_case(text) || self.number.is_some() && self.number == decimal(text)
    }
}

impl FromToml for Word {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(Self::new(text)),
            DeValue::Boolean(flag) => Ok(Self::new(if *flag { "true" } else { "false" })),
            DeValue::Integer(_) | DeValue::Float(_) => {
                f64::from_toml(value).map(|number| Self::new(&number.to_string()))
            }
            _ => Err("text, a number, true or false".to_owned()),
        }
    }
}

/// A decimal number with a point, nothing else: no `inf`, no `0x1F`, no `12,5`, nothing beyond 2^53.
pub fn decimal(text: &str) -> Option<f64> {
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.abs() <= LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::json::Paths;
    use crate::document::{Document, Faults};

    fn conversion(kind: &str, keys: &str) -> Conversion {
        let faults = Faults::default();
        let doc = Document::parse("p.toml", keys, &faults).expect("the test writes TOML");
        let read = Conversion::read(&doc.root(&faults), Kind::named(kind).expect("a kind of the table"));
        assert_eq!(faults.take(), []);
        read
    }

    fn json(conversion: &Conversion, literal: &str) -> Result<Value, Fault> {
        let mut value = Err(Fault::Comms);
        let text = format!("{{\"v\":{literal}}}");
        let paths = Paths::new(["/v"]).expect("a sound path");
        paths.read(&text, &mut |_, scalar| value = conversion.scalar(&scalar)).map_err(|_| Fault::NotAValue)?;
        value
    }

    /// Sixty literals, each in JSON and as a plain payload, for a point that is a number.
    #[test]
    fn only_finite_decimal_numbers_become_numbers() {
        use Fault::{NotAValue, Sentinel};
        type Read = Result<Value, Fault>;
        let number = |number: f64| Ok(Value::Number(number));
        let no: Read = Err(NotAValue);
        let table: [(&str, Read, Read); 60] = [
            ("0", number(0.0), number(0.0)),
            ("-0", number(0.0), number(0.0)),
            ("-0.0", number(0.0), number(0.0)),
            ("12.5", number(12.5), number(12.5)),
            ("-12.5", number(-12.5), number(-12.5)),
            ("1e2", number(100.0), number(100.0)),
            ("1E+2", number(100.0), number(100.0)),
            ("125e-1", number(12.5), number(12.5)),
            ("5e-324", number(5e-324), number(5e-324)),
            ("1e-400", number(0.0), number(0.0)),
            ("9007199254740992", number(LARGEST), number(LARGEST)),
            ("-9007199254740992", number(-LARGEST), number(-LARGEST)),
            ("0.1", number(0.1), number(0.1)),
            ("230.19999999999998863131622783839702606201171875", number(230.2), number(230.2)),
            (" 7 ", number(7.0), number(7.0)),
            // A plain payload has no grammar of its own: devices pad and sign.
            ("+7", no.clone(), number(7.0)),
            ("007.50", no.clone(), number(7.5)),
            (".5", no.clone(), number(0.5)),
            ("5.", no.clone(), number(5.0)),
            ("-.5", no.clone(), number(-0.5)),
            ("7\\r\\n", no.clone(), no.clone()),
            ("9007199254740994", no.clone(), no.clone()),
            ("18446744073709551615", no.clone(), no.clone()),
            ("-18446744073709551616", no.clone(), no.clone()),
            ("123456789012345678901234567890", no.clone(), no.clone()),
            ("1e16", no.clone(), no.clone()),
            ("1e308", no.clone(), no.clone()),
            ("1.8e308", no.clone(), no.clone()),
            ("1e400", no.clone(), no.clone()),
            ("-1e400", no.clone(), no.clone()),
            ("1e999999999", no.clone(), no.clone()),
            ("NaN", no.clone(), no.clone()),
            ("nan", no.clone(), no.clone()),
            ("NAN", no.clone(), no.clone()),
            ("-NaN", no.clone(), no.clone()),
            ("Infinity", no.clone(), no.clone()),
            ("-Infinity", no.clone(), no.clone()),
            ("infinity", no.clone(), no.clone()),
            ("inf", no.clone(), no.clone()),
            ("-inf", no.clone(), no.clone()),
            ("INF", no.clone(), no.clone()),
            ("1.#INF", no.clone(), no.clone()),
            ("1.#QNAN", no.clone(), no.clone()),
            ("null", Err(Sentinel), Err(Sentinel)),
            ("", no.clone(), Err(Sentinel)),
            ("true", no.clone(), no.clone()),
            ("false", no.clone(), no.clone()),
            ("\"12.5\"", no.clone(), no.clone()),
            ("\"\"", no.clone(), no.clone()),
            ("\"NaN\"", no.clone(), no.clone()),
            ("12,5", no.clone(), no.clone()),
            ("1,234.5", no.clone(), no.clone()),
            ("0x1F", no.clone(), no.clone()),
            ("1_000", no.clone(), no.clone()),
            ("12.5 ppm", no.clone(), no.clone()),
            ("12.5%", no.clone(), no.clone()),
            ("１２", no.clone(), no.clone()),
            ("{}", no.clone(), no.clone()),
            ("[12.5]", no.clone(), no.clone()),
            ("--5", no.clone(), no),
        ];
        let gas = conversion("gas.lel", "");
        for (literal, in_json, in_plain) in table {
            assert_eq!(json(&gas, literal), in_json, "JSON {literal}");
            assert_eq!(gas.plain_text(literal), in_plain, "plain {literal}");
        }
    }

    #[test]
    fn flags_are_understood_in_all_dialects() {
        let smoke = conversion("fire.smoke", "");
        let flag = |flag| Ok(Value::Flag(flag));
        for (literal, wanted) in [
            ("true", flag(true)),
            ("1", flag(true)),
            ("1.0", flag(true)),
            ("\"ON\"", flag(true)),
            ("\"Alarm\"", flag(true)),
            ("\" alarm \"", flag(true)),
            ("\"报警\"", flag(true)),
            ("false", flag(false)),
            ("0", flag(false)),
            ("\"off\"", flag(false)),
            ("\"NORMAL\"", flag(false)),
            ("\"正常\"", flag(false)),
            ("2", Err(Fault::NotAValue)),
            ("-1", Err(Fault::NotAValue)),
            ("\"fault\"", Err(Fault::NotAValue)),
            ("\"open\"", Err(Fault::NotAValue)),
            ("\"test\"", Err(Fault::NotAValue)),
            ("NaN", Err(Fault::NotAValue)),
            ("null", Err(Fault::Sentinel)),
            ("{}", Err(Fault::NotAValue)),
        ] {
            assert_eq!(json(&smoke, literal), wanted, "{literal}");
        }
        for (text, wanted) in
            [("ON\r\n", flag(true)), ("normal\0", flag(false)), ("online", flag(true)), ("\0", Err(Fault::Sentinel))]
        {
            assert_eq!(smoke.plain_text(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_profile_has_the_last_word() {
        let gas = conversion(
            "gas.detected",
            "true_words = ['mild', 2, 'ok']\nfalse_words = ['none', 'On']\nsentinels = ['unknown', -1]",
        );
        for (literal, wanted) in [
            ("\"MILD\"", Ok(Value::Flag(true))),
            ("2", Ok(Value::Flag(true))),
            ("2.0", Ok(Value::Flag(true))),
            ("\"ok\"", Ok(Value::Flag(true))),
            ("\"ON\"", Ok(Value::Flag(false))),
            ("\"unknown\"", Err(Fault::Sentinel)),
            ("-1", Err(Fault::Sentinel)),
            ("3", Err(Fault::NotAValue)),
        ] {
            assert_eq!(json(&gas, literal), wanted, "{literal}");
        }
        let level =
            conversion("flood.level", "scale = 0.1\noffset = -2\nsentinels = [-1, 9999]\nnumbers_in_text = true");
        for (literal, wanted) in [
            ("126", Ok(Value::Number(10.6))),
            ("\"126\"", Ok(Value::Number(10.6))),
            ("9999", Err(Fault::Sentinel)),
            ("9999.0", Err(Fault::Sentinel)),
            ("\"-1\"", Err(Fault::Sentinel)),
            ("\"deep\"", Err(Fault::NotAValue)),
        ] {
            assert_eq!(json(&level, literal), wanted, "{literal}");
        }
    }

    #[test]
    fn text_is_kept_short_and_clean() {
        let text = conversion("device.text", "");
        assert_eq!(json(&text, "\"正常运行\""), Ok(Value::Text("正常运行".into())));
        assert_eq!(json(&text, "12.50"), Ok(Value::Text("12.50".into())));
        assert_eq!(json(&text, "\"a\\u0007b\""), Err(Fault::NotAValue));
        let Ok(Value::Text(cut)) = text.plain_text(&"气".repeat(1_000)) else { panic!("text is a value") };
        assert_eq!(cut.chars().count(), LONGEST_TEXT);
    }
}
