//! SENSE: what enters anmin, and whether to believe it.
//!
//! Sans-IO: no sockets, files, clock or randomness. Bytes and `now` come in as arguments, samples go out as values.
//! This crate does not know what an alarm is.

pub mod by_name;
pub mod decode;
pub mod document;
pub mod guess;
pub mod point;
pub mod poll;
pub mod profile;
pub mod reading;
pub mod router;
pub mod survey;
pub mod time;
pub mod validator;
