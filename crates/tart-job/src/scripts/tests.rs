//! Generated scripts are run with the shells that jobs have.

mod shell;
mod sources;
mod submodules;
mod user;
