//! Sessions for tests.
