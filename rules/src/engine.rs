//! The facade that composes rule set, alarm book and response desk.
