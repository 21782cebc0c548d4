//! The whole system in a box: real servers, real replicas, real files and loopback sockets.

pub mod disk;
pub mod rogue;
pub mod ward;
