//! Bytes to readings, one file a wire format.

pub mod binary;
pub mod frame;
pub mod gbt26875;
pub mod homeassistant;
pub mod json;
pub mod message;
pub mod modbus;
pub mod modbus_ascii;
pub mod preset;
pub mod properties;
pub mod sparkplug;
pub mod stamp;
pub mod topic;
pub mod value;
pub mod zigbee2mqtt;
