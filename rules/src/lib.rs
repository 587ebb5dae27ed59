//! DECIDE: what a sample means, and what should be done about it.
//!
//! Sans-IO: samples and commands come in with `now`, transitions and orders go out as values. This crate does not
//! know a socket, a file, a clock or how an order reaches anybody.

pub mod alarm;
pub mod book;
pub mod broadcast;
pub mod cases;
pub mod casework;
pub mod change;
pub mod drill;
pub mod duty;
pub mod engine;
mod health;
pub mod incident;
pub mod library;
pub mod order;
pub mod plan;
pub mod reference;
pub mod replay;
pub mod response;
pub mod rule;
pub mod schema;
pub mod script;
pub mod set;
pub mod siren;
pub mod template;
#[cfg(test)]
mod timeline;
pub mod walk;
mod window;
mod words;
