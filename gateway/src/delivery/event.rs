//! The JSON of alarm events and states, version 1: what MQTT and webhooks carry.
