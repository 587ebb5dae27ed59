//! Everything that leaves. One [`Carrier`] a way out; the courier around it retries, backs off and reports.

pub mod broadcast;
pub mod cap;
pub mod courier;
pub mod event;
pub mod influx;
pub mod mqtt_out;
pub mod webhook;

use std::future::Future;
use std::time::Duration;

use anmin_rules::order::Order;

/// A way out. One courier calls it, one order at a time, in order.
pub trait Carrier: Send + 'static {
    /// Carries one order. Must be cancel-safe and finish within `timeout` by itself or be cut off by the courier.
    fn carry(&mut self, order: &Order) -> impl Future<Output = Result<Receipt, DeliveryError>> + Send;
}

/// What the peer said when it took the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// For the record, such as `HTTP 204` or the file's name.
    pub detail: String,
}

/// Why an order was not delivered, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The wire failed or the peer is busy: the same again later.
    #[error("{0}")]
    Retry(String),
    /// The peer said when to come back.
    #[error("{reason}, asked to wait {wait:?}")]
    RetryAfter { wait: Duration, reason: String },
    /// The peer will never take this one: dead letter and system alarm.
    #[error("{0}")]
    Never(String),
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered(Receipt),
    /// Given up; kept and listed.
    Dead(String),
}
