//! The OpenAPI 3.1 document, put together from the router's own table. What a route takes and answers is read from the types
//! of its handler: the document cannot say what the code does not do, and a handler whose types say nothing is no route.
//!
//! What people read of a route stands in `docs/api.md`, and its first paragraph goes in here as the description.

use std::future::Future;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse as _, Response};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::api::{Asked, Told, operations};
use super::authority::{Right, RouteRow, command_right};
use super::guard::{Caller, Visitor};
use super::meanwhile::Against;
use super::problem;

/// Makes the schema of one type.
type Shape = fn(&mut SchemaGenerator) -> Schema;

/// A route and what it takes and answers.
pub(super) type Operation = (RouteRow, Said);

#[derive(Clone, Default)]
enum Content {
    #[default]
    Nothing,
    Json(Shape),
    /// A media type whose content has no schema here.
    Of(&'static str),
}

/// What a route takes and answers.
#[derive(Clone, Default)]
pub(super) struct Said {
    parameters: Option<Shape>,
    body: Content,
    answer: Content,
    /// Several that share the route, each with its body.
    commands: Vec<(&'static str, Shape)>,
    against: Option<Against>,
    /// What a list is bounded by, where it has no pages; `pages` where it has.
    list: Option<&'static str>,
    /// It has an `ETag`.
    tagged: bool,
}

impl Said {
    pub fn of<H: Tells<T>, T>() -> Self {
        let mut said = Self::default();
        H::tell(&mut said);
        said
    }

    pub fn command<B: JsonSchema>(&mut self, word: &'static str) {
        self.commands.push((word, |schemas| schemas.subschema_for::<B>()));
    }

    pub fn against(&mut self, against: Against) {
        self.against = Some(against);
    }

    pub fn tagged(&mut self) {
        self.tagged = true;
    }

    pub fn list(&mut self, form: &'static str) {
        self.list = Some(form);
    }

    pub fn gives(&mut self, kind: &'static str) {
        self.answer = Content::Of(kind);
    }

    pub fn takes(&mut self, kind: &'static str) {
        self.body = Content::Of(kind);
    }
}

/// A handler: its arguments and its answer say what there is to say.
pub(super) trait Tells<T> {
    fn tell(said: &mut Said);
}

impl<F, Fut, R> Tells<((),)> for F
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = R>,
    R: Answers,
{
    fn tell(said: &mut Said) {
        R::tell(said);
    }
}

macro_rules! tells {
    ($($argument:ident),+) => {
        // As axum's own handlers: the last argument decides by `M` how it is taken from the request.
        impl<F, Fut, R, M, $($argument),+> Tells<(M, $($argument,)+)> for F
        where
            F: FnOnce($($argument),+) -> Fut,
            Fut: Future<Output = R>,
            R: Answers,
            $($argument: Argument),+
        {
            fn tell(said: &mut Said) {
                $($argument::tell(said);)+
                R::tell(said);
            }
        }
    };
}

tells!(A);
tells!(A, B);
tells!(A, B, C);
tells!(A, B, C, D);
tells!(A, B, C, D, E);

/// An argument of a handler.
pub(super) trait Argument {
    fn tell(_: &mut Said) {}
}

impl<S> Argument for State<S> {}
impl<T> Argument for Path<T> {}
impl Argument for Caller {}
impl Argument for Visitor {}
impl Argument for HeaderMap {}
impl Argument for Request {}

impl<T: JsonSchema> Argument for Asked<T> {
    fn tell(said: &mut Said) {
        said.parameters = Some(|schemas| schemas.subschema_for::<T>());
    }
}

impl<T: JsonSchema, const MOST: usize> Argument for Told<T, MOST> {
    fn tell(said: &mut Said) {
        said.body = Content::Json(|schemas| schemas.subschema_for::<T>());
    }
}

/// What a handler answers when all is well.
pub(super) trait Answers {
    fn tell(said: &mut Said);
}

impl<T: JsonSchema> Answers for Json<T> {
    fn tell(said: &mut Said) {
        said.answer = Content::Json(|schemas| schemas.subschema_for::<T>());
    }
}

impl<A: Answers, E> Answers for Result<A, E> {
    fn tell(said: &mut Said) {
        A::tell(said);
    }
}

/// Headers and what goes with them.
impl<H, A: Answers> Answers for (H, A) {
    fn tell(said: &mut Said) {
        A::tell(said);
    }
}

impl Answers for &'static str {
    fn tell(said: &mut Said) {
        said.gives("text/plain");
    }
}

/// Its route names the media type.
impl Answers for Response {
    fn tell(_: &mut Said) {}
}

pub(super) async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// The document. Requests are written out where they stand, answers share their types.
pub fn document() -> Value {
    let mut told = SchemaSettings::draft2020_12()
        .for_deserialize()
        .with(|settings| {
            settings.meta_schema = None;
            settings.inline_subschemas = true;
        })
        .into_generator();
    let mut answered = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.meta_schema = None;
            settings.definitions_path = "/components/schemas".into();
        })
        .into_generator();
    let problem = answered.subschema_for::<problem::Body>();
    let mut paths = Map::new();
    for (row, said) in operations() {
        if said.commands.is_empty() {
            add(&mut paths, &row, &said, &mut told, &mut answered);
        }
        // One path for each: the pattern is only how the router has them.
        for (word, shape) in &said.commands {
            let (before, _) = row.path.rsplit_once('/').unwrap_or((&row.path, ""));
            let right = command_right(&row.path, word).unwrap_or(row.right);
            let row = RouteRow { path: format!("{before}/{word}"), right, method: row.method.clone() };
            let said = Said { body: Content::Json(*shape), ..said.clone() };
            add(&mut paths, &row, &said, &mut told, &mut answered);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "anmin",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Within version 1 of the API fields may be added, never removed or given another meaning.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": answered.take_definitions(true),
            "responses": {
                "problem": {
                    "description": "Not what was asked for, and why (RFC 9457).",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "A token of the API, or of `[web] token_file`." },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "anmin-PORT",
                    "description": "The sign-in of a browser; commands want the header `X-Anmin` as well.",
                },
            },
        },
    })
}

fn add(
    paths: &mut Map<String, Value>,
    row: &RouteRow,
    said: &Said,
    told: &mut SchemaGenerator,
    answered: &mut SchemaGenerator,
) {
    let RouteRow { method, path, right } = row;
    let mut parameters: Vec<Value> = path.split('/').filter_map(|part| named(part, path)).collect();
    if let Some(shape) = said.parameters {
        parameters.extend(asked(&shape(told).to_value()));
    }
    if said.tagged {
        let words = "An `ETag` of before: 304 where it is still so.";
        parameters.push(json!({ "name": "If-None-Match", "in": "header", "required": false, "description": words, "schema": { "type": "string" } }));
    }
    if let Some(against) = said.against {
        parameters.extend(against.headers(*right));
    }
    let mut answer = json!({ "description": "As asked." });
    match said.answer {
        Content::Nothing => {}
        Content::Json(shape) => answer["content"] = json!({ "application/json": { "schema": shape(answered) } }),
        Content::Of(kind) => answer["content"] = json!({ kind: {} }),
    }
    let mut operation = json!({
        "operationId": operation_id(method, path),
        "tags": [path.trim_start_matches("/api/v1").split('/').nth(1).unwrap_or_default()],
        "parameters": parameters,
        "responses": { "200": answer, "default": { "$ref": "#/components/responses/problem" } },
        // Who has it, says the table of roles.
        "x-right": right.as_str(),
        "security": if *right == Right::Anybody { json!([]) } else { json!([{ "token": [] }, { "cookie": [] }]) },
    });
    if said.tagged {
        operation["responses"]["304"] = json!({ "description": "As it was under the `ETag` that was named." });
    }
    if let Some(list) = said.list {
        operation["x-list"] = list.into();
    }
    if let Some(against) = said.against {
        // What each word means, says docs/api.md.
        operation["x-guard"] = against.as_str().into();
    }
    if let Some(words) = described(method, path) {
        operation["description"] = words.into();
    }
    match said.body {
        Content::Nothing => {}
        Content::Json(shape) => {
            let schema = shape(told);
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        Content::Of(kind) => operation["requestBody"] = json!({ "required": true, "content": { kind: {} } }),
    }
    paths.entry(path.clone()).or_insert_with(|| json!({}))[method.as_str().to_ascii_lowercase()] = operation;
}

/// `{id}` of a path as a parameter.
fn named(part: &str, path: &str) -> Option<Value> {
    let name = part.strip_prefix('{')?.strip_suffix('}')?;
    let is_uuid =
        name == "id" && ["alarms", "incidents", "drills"].iter().any(|of| path.contains(&format!("/{of}/{{id}}")));
    let schema = match name {
        _ if is_uuid => json!({ "type": "string", "format": "uuid" }),
        "month" => json!({ "type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$" }),
        _ => json!({ "type": "string", "minLength": 1 }),
    };
    Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
}

/// The fields of what stands after `?`, each a parameter.
fn asked(schema: &Value) -> Vec<Value> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        // What may be left out need not be able to say that it is nothing.
        if let Some(kinds) = schema["type"].as_array() {
            schema["type"] = kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default();
        }
        json!({ "name": name, "in": "query", "required": required(name), "schema": schema })
    };
    schema["properties"].as_object().into_iter().flatten().map(parameter).collect()
}

/// `post_alarms_id_acknowledge`.
fn operation_id(method: &Method, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1").split(['/', '.', '-']);
    let words = words.map(|word| word.trim_matches(['{', '}'])).filter(|word| !word.is_empty());
    [method.as_str().to_ascii_lowercase().as_str()].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

/// The first paragraph below the route's heading in `docs/api.md`.
fn described(method: &Method, path: &str) -> Option<String> {
    const REFERENCE: &str = include_str!("../../docs/api.md");
    let (_, below) = REFERENCE.split_once(&format!("\n### {method} {path}\n"))?;
    let paragraph = below.trim_start().split("\n\n").next()?;
    let is_words = paragraph.chars().next().is_some_and(char::is_alphanumeric);
    is_words.then(|| paragraph.replace('\n', " "))
}
