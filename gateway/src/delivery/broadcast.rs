//! CAP to an HTTP endpoint or a folder.
