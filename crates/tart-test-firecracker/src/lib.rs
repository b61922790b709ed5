//! A strict fake of Firecracker's API for tests.
