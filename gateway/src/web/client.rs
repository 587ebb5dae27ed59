//! The API from the command line: `anmin alarm` and `anmin call`.
