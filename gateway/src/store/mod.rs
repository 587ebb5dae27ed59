//! The two databases: the journal of transitions and orders, the queue and history of readings.
