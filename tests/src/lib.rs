//! PROVE: helpers shared by the acceptance tests.
