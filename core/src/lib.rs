//! A device's replica.
pub mod clinical;
pub mod document;
pub mod error;
pub mod keys;
pub mod link;
pub mod record;
pub mod replica;
pub mod seal;
mod store;

pub use ebb_protocol::{
    id::{DeviceId, Millis, SpaceId},
    wire::SignedPins,
};
pub use error::{Error, Result};
pub use record::{Category, Entry, Record, RecordId};
pub use replica::*;
