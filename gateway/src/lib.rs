//! ACT: every socket, file, clock and screen of anmin.
//!
//! `intake`, `delivery` and `web` never import one another: they meet in `main_loop`'s types, and only `app` knows all.

mod accept;
pub mod app;
mod certificate;
mod chance;
pub mod clock;
pub mod config;
mod credentials;
pub mod crew_link;
pub mod delivery;
pub mod delivery_report;
pub mod drawing;
pub mod intake;
pub mod main_loop;
pub mod oidc;
pub mod outgoing;
pub mod output;
pub mod package;
pub mod pulse;
pub mod register;
pub mod report;
#[cfg(test)]
mod samples;
pub mod sim;
pub mod spreadsheet;
pub mod store;
pub mod subscription;
pub mod telemetry;
pub mod warning;
pub mod web;
