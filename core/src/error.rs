//! What went wrong, named by what the caller does next.

use std::{error::Error as StdError, fmt};

/// Why a call did not do what it was asked.
///
/// The variants are the caller's choices; the cause is for developers' logs. Neither ever holds
/// record contents, keys or names.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is lost and nothing is wrong for good: try again later.
    Retry(Cause),
    /// The database is closed, or its key is not the one it was made with: unlock and open again.
    Unlock(Cause),
    /// Another process has this replica open: close it there.
    InUse(Cause),
    /// The device has no room left to save this: free some, then repeat the call.
    FreeSpace(Cause),
    /// The data were written by a newer version of the app: update it. They were not touched.
    Update(Cause),
    /// This device may no longer write (it was restored or copied): enrol it anew. Nothing is lost.
    Reenrol(Cause),
    /// An argument is outside of what is allowed: show the person what is.
    FixInput {
        /// Which argument, by its name in the record or call.
        field: String,
        /// What it may be.
        allowed: String,
    },
    /// A defect of this library, or a damaged file: report it. The file was not touched.
    Bug(Cause),
}

/// The private cause of an [`Error`], for developers' logs.
pub struct Cause(Box<dyn StdError + Send + Sync>);

/// The database could not be read as it should: its disk failed once, or it is damaged.
#[derive(Debug, thiserror::Error)]
#[error("the database could not be read: {0}")]
struct Unread(String);

impl Cause {
    pub(crate) fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(cause.into())
    }

    /// A cause after which the database must be opened anew before it can be trusted to answer.
    pub(crate) fn unread(what: String) -> Self {
        Self::new(Unread(what))
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.0.is::<Unread>()
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error {
    pub(crate) fn bug(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Bug(Cause::new(cause))
    }

    pub(crate) fn retry(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Retry(Cause::new(cause))
    }

    pub(crate) fn fix(field: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::FixInput { field: field.into(), allowed: allowed.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(_) => f.write_str("not now: try again later; nothing is lost"),
            Self::Unlock(_) => f.write_str("locked: unlock and open again"),
            Self::InUse(_) => f.write_str("open in another process: close it there first"),
            Self::FreeSpace(_) => f.write_str("no room left on this device: free some and repeat"),
            Self::Update(_) => f.write_str("written by a newer version: update the app; nothing was touched"),
            Self::Reenrol(_) => f.write_str("this device must be enrolled anew; nothing is lost"),
            Self::FixInput { field, allowed } => write!(f, "{field} must be {allowed}"),
            Self::Bug(_) => f.write_str("an unexpected defect: please report it; nothing was touched"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Retry(cause)
            | Self::Unlock(cause)
            | Self::InUse(cause)
            | Self::FreeSpace(cause)
            | Self::Update(cause)
            | Self::Reenrol(cause)
            | Self::Bug(cause) => Some(&*cause.0),
            Self::FixInput { .. } => None,
        }
    }
}

/// What a call of this library comes to.
pub type Result<T, E = Error> = std::result::Result<T, E>;
