//! Alarm events and retained alarm states over MQTT.
