//! From transitions to orders: station calls with their clocks, events and CAP messages for the ways out.
