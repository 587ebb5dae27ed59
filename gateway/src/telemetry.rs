//! Log line and counter together; /metrics.
