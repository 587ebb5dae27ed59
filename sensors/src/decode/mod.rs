//! Bytes to readings, one file a wire format.

pub mod modbus;
