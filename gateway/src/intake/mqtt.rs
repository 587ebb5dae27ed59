//! MQTT from outside brokers, by rumqttc.
