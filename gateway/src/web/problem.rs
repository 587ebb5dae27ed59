//! What an asker is told when something does not work, in both languages.

use std::time::Duration;

use anmin_rules::alarm::Refusal;
use anmin_rules::rule::Text;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::wire::TextWire;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct Problem {
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    pub error: Text,
    pub hint: Option<Text>,
    /// Seconds after which it may be tried again; 0: nothing is said of it.
    pub retry_after: u16,
}

/// `application/problem+json` (RFC 9457) with fields of our own, by which programs and people go.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Body {
    /// Always `about:blank`: `code` tells what it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    /// `error` in English.
    detail: String,
    /// A word for programs.
    code: &'static str,
    error: TextWire,
    hint: Option<TextWire>,
}

fn text(zh: impl Into<String>, en: impl Into<String>) -> Text {
    Text { zh: zh.into(), en: en.into() }
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { status, code, error: text(zh, en), hint: None, retry_after: 0 }
    }

    pub fn hint(mut self, zh: impl Into<String>, en: impl Into<String>) -> Self {
        self.hint = Some(text(zh, en));
        self
    }

    /// The request cannot be understood; `why` says it in English, which is what the parser speaks.
    pub fn bad_request(why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", format!("请求有误：{why}"), format!("bad request: {why}"))
    }

    pub fn not_found(zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", zh, en)
    }

    /// Too many wrong passwords.
    pub fn wait(wait: Duration) -> Self {
        let minutes = wait.as_secs().div_ceil(60);
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "wait",
            format!("错误次数过多，请 {minutes} 分钟后再试"),
            format!("too many wrong passwords: try again in {minutes} min"),
        );
        Self { retry_after: u16::try_from(wait.as_secs().max(1)).unwrap_or(u16::MAX), ..problem }
    }

    /// The main loop did not answer in time.
    pub fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "系统繁忙，主程序没有及时应答",
            "the main loop did not answer in time",
        )
        .hint("请稍后再试；若持续出现，请查看日志", "try again; if it stays so, read the log")
    }

    pub fn archive(why: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "archive",
            format!("历史数据库读取失败：{why}"),
            format!("the database could not be read: {why}"),
        )
    }

    /// What the asker saw is not what stands there now; nothing was changed.
    pub fn changed_meanwhile() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "changed_meanwhile",
            "他人已先行修改，本次未采用",
            "somebody else has changed it meanwhile; nothing was changed",
        )
        .hint("请重新载入后再修改", "load it again, then change it")
    }

    /// The same, where it is known who it was, and at what time of the day.
    pub fn changed_by(who: &str, at: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "changed_meanwhile",
            format!("{who} 已于 {at} 先行修改，本次未采用"),
            format!("{who} has changed it meanwhile, at {at}; nothing was changed"),
        )
        .hint("请重新载入后再修改", "load it again, then change it")
    }

    /// The site's rules were read anew, and the new ones are not taken.
    pub fn rules_refused(faults: &[String]) -> Self {
        let told = faults.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
        let count = faults.len();
        Self::new(
            StatusCode::CONFLICT,
            "rules_refused",
            format!("新的配置和规则有 {count} 处错误，未采用，原有配置和规则继续有效：\n{told}"),
            format!("the new configuration has {count} faults and is not taken, what is in force stays:\n{told}"),
        )
        .hint("`anmin check` 和 `anmin test` 会列出全部错误", "`anmin check` and `anmin test` tell all of them")
    }

    pub fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::NoSuchAlarm(_)
            | Refusal::NoSuchCall { .. }
            | Refusal::NoSuchStation(_)
            | Refusal::NoSuchIncident(_)
            | Refusal::NoSuchDrill(_)
            | Refusal::NoSuchWalk(_) => StatusCode::NOT_FOUND,
            Refusal::StillActive { .. }
            | Refusal::NotAcknowledged { .. }
            | Refusal::AlarmActive { .. }
            | Refusal::StationUnready(_)
            | Refusal::ChangedMeanwhile
            | Refusal::NotAllowed(_) => StatusCode::CONFLICT,
        };
        Self { status, code: refusal.as_str(), error: refusal.text(), hint: None, retry_after: 0 }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: self.error.en.clone(),
            code: self.code,
            error: self.error.into(),
            hint: self.hint.map(Into::into),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let usual = if self.status == StatusCode::SERVICE_UNAVAILABLE { 5 } else { 0 };
        let wait = self.retry_after.max(usual);
        if wait > 0 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }
}
