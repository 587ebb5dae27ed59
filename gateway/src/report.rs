//! Documents that people print: HTML in one file, which needs nothing from anywhere else and looks the same on paper.
//!
//! A report is written once in each language, Chinese first, each beginning on a page of its own. Text of devices and people
//! is text here: nothing in it becomes a tag.

use std::fmt::Write as _;

use anmin_rules::rule::Text;
use anmin_sensors::time::Wall;
use jiff::tz::TimeZone;

use crate::delivery::event;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Zh,
    En,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::Zh, Self::En];

    const fn tag(self) -> &'static str {
        match self {
            Self::Zh => "zh-CN",
            Self::En => "en",
        }
    }

    pub fn pick<'t>(self, zh: &'t str, en: &'t str) -> &'t str {
        match self {
            Self::Zh => zh,
            Self::En => en,
        }
    }

    pub fn of(self, text: &Text) -> &str {
        self.pick(&text.zh, &text.en)
    }
}

const STYLE: &str = "
@page { size: A4; margin: 16mm 14mm 18mm }
:root { color-scheme: light }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #111; background: #fff;
  font: 10.5pt/1.5 'Noto Sans SC', 'Noto Sans CJK SC', 'Source Han Sans SC', 'PingFang SC', 'Microsoft YaHei', sans-serif }
section + section { break-before: page; border-top: 2px solid #111; margin-top: 2rem; padding-top: 1rem }
h1 { font-size: 18pt; line-height: 1.25; margin: 0 0 .25rem }
h2 { font-size: 12.5pt; margin: 1.25rem 0 .35rem; border-bottom: 1px solid #888; break-after: avoid }
p { margin: .25rem 0 }
table { border-collapse: collapse; width: 100%; margin: .35rem 0 }
thead { display: table-header-group }
tr { break-inside: avoid }
th, td { border: 1px solid #999; padding: .2rem .45rem; text-align: left; vertical-align: top; overflow-wrap: anywhere }
th { background: #eee; font-weight: 600; white-space: nowrap }
td { min-width: 4.6em }
td.t { white-space: nowrap; font-variant-numeric: tabular-nums }
td.n { min-width: 0; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; margin: .35rem 0 }
dt { color: #444 }
dd { margin: 0; overflow-wrap: anywhere }
.mark { display: inline-block; border: 2px solid #6a1b9a; color: #6a1b9a; font-weight: 700; padding: 0 .5rem; margin: 0 0 .4rem }
.good { color: #1b5e20; font-weight: 600 }
.bad { color: #b00020; font-weight: 700 }
.fine { color: #444; font-size: 9pt }
@media print { body { max-width: none; padding: 0 } section + section { border-top: 0; margin-top: 0; padding-top: 0 } }
";

/// May a report show its own style, and nothing else: for the answer's `Content-Security-Policy`.
pub const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The whole document; `write` fills one language's part.
pub fn document(title: &Text, mut write: impl FnMut(Language, &mut Page)) -> String {
    let Text { zh, en } = title;
    let mut out = format!(
        "<!doctype html>\n<html lang=\"zh-CN\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{} · {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escape(zh),
        escape(en)
    );
    for language in Language::ALL {
        let mut page = Page(String::new());
        write(language, &mut page);
        let _ = writeln!(out, "<section lang=\"{}\">\n{}</section>", language.tag(), page.0);
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// A part of the document in one language.
pub struct Page(String);

/// One cell of a table.
pub enum Cell {
    Words(String),
    /// Set to the right.
    Number(String),
    /// Whether it is as it should be.
    Verdict(bool, String),
}

impl From<&str> for Cell {
    fn from(words: &str) -> Self {
        Self::Words(words.to_owned())
    }
}

impl From<String> for Cell {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl Page {
    fn put(&mut self, html: std::fmt::Arguments<'_>) {
        // Writing into a String does not fail.
        let _ = self.0.write_fmt(html);
    }

    pub fn title(&mut self, words: &str) {
        self.put(format_args!("<h1>{}</h1>\n", escape(words)));
    }

    /// A frame that cannot be overlooked, on the screen and on paper.
    pub fn mark(&mut self, words: &str) {
        self.put(format_args!("<p class=\"mark\">{}</p>\n", escape(words)));
    }

    pub fn heading(&mut self, words: &str) {
        self.put(format_args!("<h2>{}</h2>\n", escape(words)));
    }

    pub fn line(&mut self, words: &str) {
        self.put(format_args!("<p>{}</p>\n", escape(words)));
    }

    pub fn fine(&mut self, words: &str) {
        self.put(format_args!("<p class=\"fine\">{}</p>\n", escape(words)));
    }

    /// Names and what they stand for; what is empty is left out.
    pub fn facts<'w>(&mut self, facts: impl IntoIterator<Item = (&'w str, String)>) {
        self.put(format_args!("<dl>\n"));
        for (name, words) in facts.into_iter().filter(|(_, words)| !words.is_empty()) {
            self.put(format_args!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(&words)));
        }
        self.put(format_args!("</dl>\n"));
    }

    pub fn table<R: IntoIterator<Item = Cell>>(&mut self, heads: &[&str], rows: impl IntoIterator<Item = R>) {
        self.put(format_args!("<table>\n<thead><tr>"));
        heads.iter().for_each(|head| self.put(format_args!("<th scope=\"col\">{}</th>", escape(head))));
        self.put(format_args!("</tr></thead>\n<tbody>\n"));
        for row in rows {
            self.put(format_args!("<tr>"));
            for cell in row {
                match cell {
                    Cell::Words(words) if is_moment(&words) => self.put(format_args!("<td class=\"t\">{words}</td>")),
                    Cell::Words(words) => self.put(format_args!("<td>{}</td>", escape(&words))),
                    Cell::Number(words) => self.put(format_args!("<td class=\"n\">{}</td>", escape(&words))),
                    Cell::Verdict(good, words) => {
                        let class = if good { "good" } else { "bad" };
                        self.put(format_args!("<td class=\"{class}\">{}</td>", escape(&words)));
                    }
                }
            }
            self.put(format_args!("</tr>\n"));
        }
        self.put(format_args!("</tbody>\n</table>\n"));
    }
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Turns the writing of what stands around it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push(' '),
            letter if letter.is_control() && letter != '\n' => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}

/// The causes of transitions and of incidents' changes in Chinese.
pub const CAUSES: [(&str, &str); 35] = [
    ("raised", "发生报警"),
    ("level_changed", "级别变化"),
    ("returned", "异常消失"),
    ("realarmed", "再次报警"),
    ("acknowledged", "确认"),
    ("reset", "复位"),
    ("shelved", "搁置"),
    ("unshelved", "结束搁置"),
    ("taken_out_of_service", "停用"),
    ("returned_to_service", "恢复使用"),
    ("escalated", "升级上报"),
    ("regrouped", "归入另一事件"),
    ("moved", "位置更正"),
    ("broadcast_seconded", "播报获一人同意"),
    ("broadcast_approved", "播报已批准"),
    ("broadcast_refused", "播报被否决"),
    ("broadcast_expired", "播报超时未批准"),
    ("broadcast_taken_back", "播报已撤回"),
    ("broadcast_rerouted", "已转发下一出口"),
    ("broadcast_renewed", "播报续发"),
    ("broadcast_ended", "警报器到时停止"),
    ("opened", "事件开始"),
    ("grew", "事件扩大"),
    ("settled", "报警均已结束"),
    ("resumed", "再次出现报警"),
    ("noted", "记录"),
    ("ticked", "完成步骤"),
    ("skipped", "跳过步骤"),
    ("step_late", "步骤超时"),
    ("staged", "办理进展"),
    ("called_119", "已拨打119"),
    ("split_from", "自其他事件分出"),
    ("split_into", "分出报警"),
    ("absorbed", "并入其他事件"),
    ("closed", "结案"),
];

/// Why an alarm or an incident changed, for people.
pub fn cause(word: &str, language: Language) -> String {
    let zh = CAUSES.iter().find(|(cause, _)| *cause == word).map_or(word, |(_, zh)| zh);
    language.pick(zh, word).replace('_', " ")
}

/// `2026-11-26 22:50:07`, by the site's clock.
pub fn moment(at: Wall, zone: &TimeZone) -> String {
    let stamp = event::rfc3339(at, zone);
    format!("{} {}", &stamp[..10], &stamp[11..19])
}

/// What [`moment`] gives: it stays on one line.
fn is_moment(words: &str) -> bool {
    let like =
        |pattern: &str| words.bytes().zip(pattern.bytes()).all(|(c, p)| c == p || p == b'0' && c.is_ascii_digit());
    words.len() == 19 && like("0000-00-00 00:00:00")
}

/// `22:50:07`.
pub fn time(at: Wall, zone: &TimeZone) -> String {
    event::rfc3339(at, zone)[11..19].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_kept_on_one_line_and_nothing_else_is() {
        for (words, kept) in [
            ("2026-11-26 22:50:07", true),
            (&moment(Wall::default(), &TimeZone::UTC), true),
            ("2026-11-26T22:50:07", false),
            ("2026-11-26 22:50:07 <b>", false),
            ("the 26th of November", false),
            ("", false),
        ] {
            assert_eq!(is_moment(words), kept, "{words}");
        }
    }

    #[test]
    fn words_of_people_stay_words() {
        let evil = "<script>alert(1)</script>\" onload='x' & \u{202e}abc";
        let title = Text { zh: evil.to_owned(), en: evil.to_owned() };
        let html = document(&title, |language, page| {
            page.title(evil);
            page.mark(evil);
            page.heading(evil);
            page.line(evil);
            page.fine(evil);
            page.facts([(evil, evil.to_owned())]);
            page.table(&[language.of(&title)], [[Cell::from(evil)]]);
        });
        assert!(!html.contains("<script") && !html.contains("onload='") && !html.contains('\u{202e}'), "{html}");
        assert_eq!(html.matches("&lt;script&gt;").count(), 2 + 2 * 9, "once in each place, in both languages");
        assert_eq!(html.matches("<section lang=").count(), 2);
    }
}
