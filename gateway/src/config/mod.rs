//! Text to configuration: all faults at once, with file, line, column and hint.

pub mod devices;
pub mod site;
