//! A device: how it is opened, how it stands with the server, and what of the app's it calls.

use std::sync::Arc;

use ebb_core::{Config, SignedPins, SpaceId, VaultError, link::ServerAddress};

use super::{AlertId, EbbError, RecordId};
use crate::{Observer, Vault};

/// How to open a replica.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Settings {
    /// The folder of its files, made if it is not there. Exclude it from backups of the phone.
    pub dir: String,
    /// The clinic's server; without one, the replica works offline for ever.
    #[uniffi(default = None)]
    pub server: Option<Server>,
    /// What a new replica begins as, if not as a patient's first device. Looked at only when there are
    /// no files yet.
    #[uniffi(default = None)]
    pub start: Option<Start>,
}

/// The clinic's server.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Server {
    /// Where it answers to QUIC, as `host:port`.
    pub quic: String,
    /// Where it answers to TLS on TCP, as `host:port`.
    pub tcp: String,
    /// The line that `ebb-sync-server init` printed: by it the server is known for the right one.
    pub pins: String,
}

/// What a new replica begins as, if not as a patient's first device.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Start {
    /// Another device of a patient.
    Join {
        /// The ticket of the patient's first device.
        ticket: String,
    },
    /// A clinic's desk: follows the spaces of its patients.
    Clinic,
}

impl TryFrom<Settings> for Config {
    type Error = EbbError;

    fn try_from(settings: Settings) -> Result<Self, EbbError> {
        let mut config = Self::new(settings.dir);
        if let Some(Server { quic, tcp, pins }) = settings.server {
            let signed = SignedPins::from_text(&pins).map_err(|_| EbbError::FixInput {
                field: "pins".into(),
                allowed: "the whole line that ebb-sync-server init printed".into(),
            })?;
            config = config.server(ServerAddress { quic, tcp }, signed);
        }
        Ok(match settings.start {
            None => config,
            Some(Start::Join { ticket }) => config.start(ebb_core::Start::Join(ticket.parse()?)),
            Some(Start::Clinic) => config.start(ebb_core::Start::Clinic),
        })
    }
}

/// How it stands with the server.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum SyncStatus {
    /// Not connected, and not trying to.
    Offline,
    /// Trying to reach the server.
    Connecting,
    /// Connected; things are going back and forth.
    Syncing,
    /// Everything was where it should be.
    InSync {
        /// When, in ms since the Unix epoch by the device's clock.
        at_ms: u64,
    },
    /// Not connected; the next attempt has its time.
    Waiting {
        /// Until when, in ms since the Unix epoch by the device's clock.
        until_ms: u64,
    },
    /// The server does not take something: show it to the person.
    Rejected {
        /// The space of which it is.
        space: SpaceId,
    },
    /// What answers is not the clinic's server: show it to the person.
    Impostor,
}

impl From<ebb_core::SyncStatus> for SyncStatus {
    fn from(status: ebb_core::SyncStatus) -> Self {
        use ebb_core::SyncStatus as Core;
        match status {
            Core::Offline => Self::Offline,
            Core::Connecting => Self::Connecting,
            Core::Syncing => Self::Syncing,
            Core::InSync(at) => Self::InSync { at_ms: at.0 },
            Core::Waiting(until) => Self::Waiting { until_ms: until.0 },
            Core::Rejected(space) => Self::Rejected { space },
            Core::Impostor => Self::Impostor,
        }
    }
}

/// What an observer is told of.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Event {
    /// Records were logged, edited or retracted, here or elsewhere.
    RecordsChanged {
        /// Whose.
        space: SpaceId,
        /// Which.
        records: Vec<RecordId>,
    },
    /// Where records are may have changed: ask for the delivery of those on the screen.
    DeliveryChanged {
        /// Whose.
        space: SpaceId,
    },
    /// What the rules find changed: alerts were raised, changed or withdrawn.
    AlertsChanged {
        /// Whose.
        space: SpaceId,
        /// Which.
        alerts: Vec<AlertId>,
    },
    /// The connection changed its state.
    StatusChanged {
        /// How it stands now.
        status: SyncStatus,
    },
    /// The server lost data and was refilled from this device: some deliveries went back for a while.
    ServerRestored {
        /// Whose.
        space: SpaceId,
    },
    /// This device was restored or copied and may no longer write: enrol it anew.
    DeviceFrozen {
        /// Where.
        space: SpaceId,
    },
}
/// The app's vault, as core calls it.
pub(crate) struct ForeignVault(pub(crate) Arc<dyn Vault>);

impl ebb_core::Vault for ForeignVault {
    fn load(&self) -> Result<Option<Vec<u8>>, VaultError> {
        self.0.load().map_err(|_| VaultError)
    }

    fn save(&self, key: &[u8]) -> Result<(), VaultError> {
        self.0.save(key.to_vec()).map_err(|_| VaultError)
    }
}

/// The app's observer, as core calls it.
pub(crate) struct ForeignObserver(pub(crate) Arc<dyn Observer>);

impl ForeignObserver {
    fn tell(&self, event: Event) {
        // What an app's observer throws is the app's: the replica goes on.
        let _ = self.0.on_event(event);
    }
}

impl ebb_core::Observer for ForeignObserver {
    fn records_changed(&self, space: SpaceId, records: &[RecordId]) {
        self.tell(Event::RecordsChanged { space, records: records.to_vec() });
    }

    fn delivery_changed(&self, space: SpaceId) {
        self.tell(Event::DeliveryChanged { space });
    }

    fn alerts_changed(&self, space: SpaceId, alerts: &[AlertId]) {
        self.tell(Event::AlertsChanged { space, alerts: alerts.to_vec() });
    }

    fn status_changed(&self, status: ebb_core::SyncStatus) {
        self.tell(Event::StatusChanged { status: status.into() });
    }

    fn server_restored(&self, space: SpaceId) {
        self.tell(Event::ServerRestored { space });
    }

    fn device_frozen(&self, space: SpaceId) {
        self.tell(Event::DeviceFrozen { space });
    }
}
