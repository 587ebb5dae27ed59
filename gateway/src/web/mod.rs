//! REST, server-sent events and the page of the duty desk.
