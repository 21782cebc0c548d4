//! The whole system in a box: real servers, real replicas, real files and loopback sockets; and a simulated
//! world of the same replicas and the same server in virtual time.

pub mod disk;
pub mod fuzz;
pub mod model;
pub mod net;
pub mod proxy;
pub mod rogue;
pub mod scenario;
pub mod ward;
pub mod world;
