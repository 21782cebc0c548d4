//! Names of things: spaces, streams, devices, positions, moments.
//!
//! Each is a newtype, so that a stream can never be taken for a space nor a sequence number for a
//! position. All of them are random or derived by hashing, and `Display` shows the first four bytes
//! only: enough to follow one thing through a log, too little to be a key to anything.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// All bytes zero: stands for "none" where the wire has a fixed place for it.
            pub const ZERO: Self = Self([0; $bytes]);

            /// Reads an id from exactly as many bytes as it has; `None` for any other length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes, as they stand on the wire.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Whether this is [`Self::ZERO`].
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0 == [0; $bytes]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id!(
    /// One patient's (or one clinic's) space: the unit of membership, of placement and of quotas.
    SpaceId,
    16
);
id!(
    /// One stream within a space: one consent category with its own keys and its own log.
    StreamId,
    16
);
id!(
    /// A device: `SHA-256("ebb/v1/device" || sig || tls || kem)[..16]`, so the id names its keys.
    DeviceId,
    16
);
id!(
    /// A member of a space: the owner, a clinic or a supporter, each with any number of devices.
    MemberId,
    16
);
id!(
    /// One life of a space's log on a server; a server that lost data starts another.
    LogId,
    16
);
id!(
    /// A SHA-256 hash.
    Hash,
    32
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $int);

        impl $name {
            /// The one that follows; the highest number, which only a liar names, stays where it is.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A place in a stream's log, dense from 1; 0 stands before the first.
    Position,
    u64
);
number!(
    /// An author's own count within a stream, from 1, without gaps; 0 stands before the first.
    Seq,
    u64
);
number!(
    /// A generation of a stream's key, from 1.
    Epoch,
    u32
);
number!(
    /// The place of an entry in a roster, from 0 (the founding entry).
    RosterSeq,
    u64
);

/// Milliseconds since the Unix epoch, or a span of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment and `ms` milliseconds more.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 where `earlier` lies later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_four_bytes_only() {
        let id = SpaceId(*b"abcdefghijklmnop");
        assert_eq!(id.to_string(), "61626364");
        assert_eq!(format!("{id:?}"), "SpaceId(61626364)");
    }
}
