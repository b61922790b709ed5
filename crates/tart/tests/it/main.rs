//! The program as people and scripts meet it.

mod registration;
mod support;
mod texts;
