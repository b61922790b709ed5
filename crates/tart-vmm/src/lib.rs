//! Virtual machine drivers behind one trait.
