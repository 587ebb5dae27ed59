//! The test cases that stand beside a rule, and how they are run.
