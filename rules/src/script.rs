//! The Rhai sandbox in one place: what a script may call, and what it may cost.
