//! PROVE: what the acceptance tests are made of. They speak with the real daemon as the outside world does: over MQTT,
//! Modbus, HTTP, files and signals, and never by its own types.

pub mod bench;
pub mod daemon;
pub mod fuzz;
pub mod http;
pub mod mqtt;
pub mod peers;
pub mod people;
pub mod site;
pub mod storm;
pub mod supply;
