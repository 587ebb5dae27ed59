//! Seeded scenarios played as MQTT devices and Modbus slaves.

pub mod modbus_slaves;
pub mod scenario;
