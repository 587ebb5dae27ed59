//! Seeded scenarios played as MQTT devices and Modbus slaves.

pub mod scenario;
