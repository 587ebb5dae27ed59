//! Composition root: the subcommands.
