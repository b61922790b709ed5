//! A real registry on loopback for tests, and images to fill it with.
