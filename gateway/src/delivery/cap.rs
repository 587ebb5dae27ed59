//! CAP 1.2 documents.
