//! The sans-IO Modbus schedule: plan requests, space them, back off, park and probe a dead unit.
