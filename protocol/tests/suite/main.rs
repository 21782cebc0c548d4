//! The protocol's tests: one binary, so that they are linked once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod client;
mod envelope;
mod fixtures;
mod judge;
mod kit;
mod roster;
mod session;
mod wire;
mod world;
