//! Bytes to readings, one file a wire format.

pub mod binary;
pub mod json;
pub mod message;
pub mod modbus;
pub mod stamp;
pub mod topic;
pub mod value;
pub mod zigbee2mqtt;
