//! Modbus TCP, RTU and RTU over TCP: one task a bus.
