//! The courier around a carrier: order, retry, backoff, dead letters, receipts.
