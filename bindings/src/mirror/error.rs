//! Why a call did not do what it was asked.

use ebb_core::{SpaceId, record::Invalid};

/// Why a call did not do what it was asked, named by what to do next.
///
/// `reason` is for developers' logs: it holds neither record contents nor keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum EbbError {
    /// Nothing is wrong for good: try again later.
    #[error("not now: try again later; nothing is lost ({reason})")]
    Retry {
        /// The cause, for developers.
        reason: String,
    },
    /// The database is closed, or the vault does not give its key: unlock and open again.
    #[error("locked: unlock and open again ({reason})")]
    Unlock {
        /// The cause, for developers.
        reason: String,
    },
    /// Another process has this replica open: close it there.
    #[error("open in another process: close it there first ({reason})")]
    InUse {
        /// The cause, for developers.
        reason: String,
    },
    /// The device is full: free some room, then repeat the call.
    #[error("no room left on this device: free some and repeat ({reason})")]
    FreeSpace {
        /// The cause, for developers.
        reason: String,
    },
    /// A newer version of the app wrote the data: update it. They were not touched.
    #[error("written by a newer version: update the app ({reason})")]
    Update {
        /// The cause, for developers.
        reason: String,
    },
    /// This device may no longer write (it was restored or copied): enrol it anew. Nothing is lost.
    #[error("this device must be enrolled anew; nothing is lost ({reason})")]
    Reenrol {
        /// The cause, for developers.
        reason: String,
    },
    /// An argument is outside of what is allowed: show the person what is.
    #[error("{field} must be {allowed}")]
    FixInput {
        /// Which argument, by its name in the record or call.
        field: String,
        /// What it may be.
        allowed: String,
    },
    /// A defect of Ebb, or a damaged file: report it. The file was not touched.
    #[error("an unexpected defect: please report it ({reason})")]
    Bug {
        /// The cause, for developers.
        reason: String,
    },
}

impl From<ebb_core::Error> for EbbError {
    fn from(error: ebb_core::Error) -> Self {
        use ebb_core::Error as Core;
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        match error {
            Core::Retry(_) => Self::Retry { reason },
            Core::Unlock(_) => Self::Unlock { reason },
            Core::InUse(_) => Self::InUse { reason },
            Core::FreeSpace(_) => Self::FreeSpace { reason },
            Core::Update(_) => Self::Update { reason },
            Core::Reenrol(_) => Self::Reenrol { reason },
            Core::FixInput { field, allowed } => Self::FixInput { field, allowed },
            // Core may name more than this version mirrors.
            _ => Self::Bug { reason },
        }
    }
}

impl From<Invalid> for EbbError {
    fn from(Invalid { field, allowed }: Invalid) -> Self {
        Self::FixInput { field: field.into_owned(), allowed }
    }
}

/// Why a sync ended before everything was done. What was acknowledged until then stays so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum SyncError {
    /// The time ran out, or the server could not be reached in it: try again later.
    #[error("not everything could be done in the time given: try again later")]
    OutOfTime,
    /// The server does not take something, and trying again would not help: show it to the person.
    #[error("the server refuses something for good")]
    Rejected {
        /// The space of which it is.
        space: SpaceId,
    },
    /// What answers is not the clinic's server: show it to the person.
    #[error("what answers is not the clinic's server")]
    Impostor,
    /// Locked meanwhile, or opened without a server.
    #[error("locked, or no server is configured")]
    Closed,
}

impl From<ebb_core::SyncError> for SyncError {
    fn from(error: ebb_core::SyncError) -> Self {
        use ebb_core::SyncError as Core;
        match error {
            Core::OutOfTime => Self::OutOfTime,
            Core::Rejected(space) => Self::Rejected { space },
            Core::Impostor => Self::Impostor,
            Core::Closed => Self::Closed,
        }
    }
}

/// What an app's own code throws when Ebb calls it: a vault that cannot be read now, for example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum CallbackError {
    /// It did not work.
    #[error("the app's own code failed")]
    Failed {
        /// The cause, for developers.
        reason: String,
    },
}

/// Exceptions that the app did not declare: without this, they would be a panic in the replica's thread.
impl From<uniffi::UnexpectedUniFFICallbackError> for CallbackError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { reason: error.reason }
    }
}
