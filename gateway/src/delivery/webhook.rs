//! Alarm events to a webhook.
