//! Core's types as they look from Swift, Kotlin and Python.
//!
//! Where a type of core can cross as it is, `remote` mirrors it, and the compiler compares every field;
//! where not (private causes, raw ids, kinds not offered yet), a type of this module is converted.
//! Some carry another name than in core, because the short one belongs to the platforms: `Unit` is
//! Kotlin's and Foundation's, `Category` Objective-C's, `Query` SwiftData's.

use std::sync::Arc;

use ebb_core::{Config, Query, VaultError, link::ServerAddress, record};
use ebb_core::{SignedPins, SpaceId};
use uuid::Uuid;

use crate::{Observer, Vault};

/// Identifies a record.
pub type RecordId = ebb_core::RecordId;
/// An instant, and the clock on the wall where it was lived.
pub type Moment = record::Moment;
/// How a record is known.
pub type Source = record::Source;
/// A consent category: what a patient grants.
pub type ConsentCategory = record::Category;
/// A dose taken or not taken.
pub type Dose = record::Dose;
/// One dose of a regimen.
pub type PlannedDose = record::PlannedDose;
/// What a dose's amount counts.
pub type DoseUnit = record::Unit;
/// Whether a dose was taken.
pub type Taking = record::Taking;
/// How a day feels.
pub type CheckIn = record::CheckIn;
/// What a record is about.
pub type RecordKind = record::Kind;
/// Where a record is.
pub type Delivery = ebb_core::Delivery;
/// Why and when a record was retracted.
pub type Retraction = record::Retraction;

uniffi::custom_type!(RecordId, String, {
    remote,
    lower: |id| id.to_string(),
    try_lift: |text| Ok(Self::from_bytes(id_bytes("record", &text)?)),
});

uniffi::custom_type!(SpaceId, String, {
    remote,
    lower: |id| Uuid::from_bytes(id.0).simple().to_string(),
    try_lift: |text| Ok(Self(id_bytes("space", &text)?)),
});

fn id_bytes(field: &str, text: &str) -> Result<[u8; 16], EbbError> {
    let allowed = || EbbError::FixInput { field: field.into(), allowed: "an id as Ebb gave it".into() };
    Uuid::parse_str(text).map(Uuid::into_bytes).map_err(|_| allowed())
}

/// An instant, and the clock on the wall where it was lived.
#[uniffi::remote(Record)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub millis: i64,
    /// Minutes that local time was ahead of UTC.
    pub offset_minutes: i16,
}

/// How a record is known.
#[uniffi::remote(Enum)]
pub enum Source {
    /// The patient said so.
    SelfReport,
    /// A member of the care team saw it.
    Observed,
    /// It came from another system.
    Imported,
    /// It was made up, to show or to try something: it is of nobody.
    Synthetic,
}

/// A consent category: what a patient grants.
#[uniffi::remote(Enum)]
pub enum ConsentCategory {
    /// Answers to withdrawal scales, craving, pain, vitals and notes to the care team.
    Symptoms,
    /// Doses taken and not taken.
    Medication,
    /// Use of substances, and home tests.
    SubstanceUse,
    /// Check-ins and questionnaires about mood and daily life.
    Wellbeing,
    /// Triggers, coping, meetings, goals and own reports of attendance.
    Recovery,
    /// Name, language, contacts, supporters and coverage.
    Profile,
    /// What someone who helps in an emergency must know.
    Emergency,
    /// Notes nobody else has a key for; never to be granted.
    Private,
    /// Messages between patient and care team.
    Messages,
    /// The treatment plan.
    Plan,
    /// What the care team observed: scales, screens, doses, attendance.
    Observations,
}

/// A dose taken or not taken. The absence of both is unknown: no record stands for it.
#[uniffi::remote(Record)]
pub struct Dose {
    /// The drug as the plan names it.
    pub drug: String,
    /// The drug's RxNorm concept, where one is known.
    #[uniffi(default = None)]
    pub rxnorm: Option<String>,
    /// How much, in `unit`.
    pub amount: f64,
    /// What `amount` counts.
    pub unit: DoseUnit,
    /// Whether it was taken.
    pub taking: Taking,
    /// Whether a member of the care team watched; never from a patient.
    #[uniffi(default = false)]
    pub observed: bool,
    /// The dose of the plan that this answers, if it answers one.
    #[uniffi(default = None)]
    pub planned: Option<PlannedDose>,
}

/// Names one dose of a regimen.
#[uniffi::remote(Record)]
pub struct PlannedDose {
    /// The regimen's record.
    pub regimen: RecordId,
    /// When it is due, in ms since the Unix epoch.
    pub due_ms: i64,
}

/// What a dose's amount counts.
#[uniffi::remote(Enum)]
pub enum DoseUnit {
    /// Milligrams.
    Mg,
    /// Micrograms.
    Mcg,
    /// Millilitres.
    Ml,
    /// Tablets.
    Tablet,
    /// Films.
    Film,
    /// Patches.
    Patch,
    /// Injections.
    Injection,
}

/// Whether a dose was taken.
#[uniffi::remote(Enum)]
pub enum Taking {
    /// It was taken.
    Taken,
    /// It was not taken.
    NotTaken {
        /// Why, in the patient's or the observer's words.
        reason: Option<String>,
    },
}

/// How a day feels: at least one of these.
#[uniffi::remote(Record)]
pub struct CheckIn {
    /// Mood, 0 (worst) to 10 (best).
    #[uniffi(default = None)]
    pub mood: Option<u8>,
    /// Stress, 0 to 10.
    #[uniffi(default = None)]
    pub stress: Option<u8>,
    /// Craving, 0 to 10.
    #[uniffi(default = None)]
    pub craving: Option<u8>,
    /// Pain, 0 to 10.
    #[uniffi(default = None)]
    pub pain: Option<u8>,
    /// Hours slept in the last night, 0 to 24.
    #[uniffi(default = None)]
    pub sleep_hours: Option<f32>,
}

/// What a record is about.
#[uniffi::remote(Enum)]
pub enum RecordKind {
    /// A dose taken or not taken.
    Dose,
    /// The answers to an instrument.
    Answers,
    /// A withdrawal band known without the answers behind it.
    WithdrawalBand,
    /// Vital signs.
    Vitals,
    /// The result of a drug screen.
    DrugScreen,
    /// A use of a substance.
    UseEvent,
    /// A session of the programme, attended or not.
    Visit,
    /// How a day feels.
    CheckIn,
    /// What happened around an urge.
    Coping,
    /// A meeting of people who help each other.
    Meeting,
    /// Something done for oneself.
    Activity,
    /// What a person wants.
    Goal,
    /// A person's word on a version of the plan.
    PlanSignOff,
    /// A note, whose text is the record's collaborative note.
    Note,
    /// A message between patient and care team.
    Message,
    /// Who a person is.
    Person,
    /// Where and with whom a person lives.
    LivingSituation,
    /// Somebody to call.
    Contact,
    /// Who pays.
    Coverage,
    /// What somebody who helps in an emergency must know.
    EmergencyCard,
    /// A written consent to disclose records.
    Consent,
    /// A request to restrict how records are used.
    RestrictionRequest,
    /// What holds for the programme as a whole.
    Programme,
    /// A problem that is worked on.
    Problem,
    /// A condition that is treated.
    Condition,
    /// Somebody of the care team.
    TeamMember,
    /// A medicine and how it is to be taken.
    Regimen,
    /// Sessions that come again.
    SessionSeries,
    /// How often something is asked of the person.
    Cadence,
    /// The programme's own thresholds.
    Thresholds,
    /// An instrument of the programme's own.
    ProgrammeInstrument,
    /// A move between levels of care.
    LevelMove,
    /// Who may come.
    Eligibility,
    /// A permission of the payer.
    Authorization,
    /// How a person means to keep from returning to use.
    RelapsePrevention,
    /// What comes after the programme.
    Aftercare,
    /// Something that can help.
    Resource,
    /// A person was sent somewhere.
    Referral,
    /// A version of the plan.
    PlanVersion,
    /// Somebody has seen records.
    Seen,
    /// What was done about an alert.
    AlertAction,
    /// The answer to a request for restriction.
    RestrictionAnswer,
    /// A kind that only a newer version knows, by its label.
    Unknown(String),
}

/// Where a record is.
#[uniffi::remote(Enum)]
pub enum Delivery {
    /// On this device only.
    OnPhone,
    /// Every change of it is durable on the server.
    OnServer,
}

/// Why and when a record was retracted.
#[uniffi::remote(Record)]
pub struct Retraction {
    /// The reason given.
    pub reason: String,
    /// When, in ms since the Unix epoch by the author's clock.
    pub at_millis: i64,
}

/// The present version of a record.
#[derive(Clone, PartialEq, uniffi::Record)]
pub struct Record {
    /// Which record it is.
    pub id: RecordId,
    /// The consent category that it belongs to.
    pub category: ConsentCategory,
    /// What it is about.
    pub kind: RecordKind,
    /// When it happened.
    pub occurred: Moment,
    /// When the present version was written down, in ms since the Unix epoch by its author's clock.
    pub recorded_ms: i64,
    /// The device that wrote the present version.
    pub author: String,
    /// The member of staff who wrote the present version, in a clinic.
    pub staff: Option<String>,
    /// How it is known.
    pub source: Source,
    /// What it says.
    pub body: RecordBody,
    /// Its note, often empty.
    pub note: String,
    /// Why and when it was retracted, if it was.
    pub retracted: Option<Retraction>,
    /// How many other versions were written at the same time and await a choice.
    pub conflicts: u32,
    /// Whether a newer version of the app wrote something that this one does not know.
    pub from_newer_version: bool,
}

/// What a record says.
#[derive(Clone, PartialEq, uniffi::Enum)]
pub enum RecordBody {
    /// A dose taken or not taken.
    Dose {
        /// Which, and whether.
        dose: Dose,
    },
    /// How a day feels.
    CheckIn {
        /// The answers.
        check_in: CheckIn,
    },
    /// A kind that this version of the bindings does not take apart: see the record's `kind`.
    Other,
}

/// Shows the kind alone: contents stay out of logs.
impl std::fmt::Debug for RecordBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dose { .. } => "RecordBody(dose)",
            Self::CheckIn { .. } => "RecordBody(check_in)",
            Self::Other => "RecordBody(other)",
        })
    }
}

/// Shows id and kind alone: contents stay out of logs.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, {})", self.id, self.kind.label())
    }
}

impl From<record::Record> for Record {
    fn from(record: record::Record) -> Self {
        Self {
            id: record.id,
            category: record.category,
            kind: record.kind,
            occurred: record.occurred,
            recorded_ms: record.recorded_at,
            author: Uuid::from_bytes(record.author).simple().to_string(),
            staff: record.staff,
            source: record.source,
            body: record.body.into(),
            note: record.note,
            retracted: record.retracted,
            conflicts: record.conflicts,
            from_newer_version: record.from_newer_version,
        }
    }
}

impl From<record::Body> for RecordBody {
    fn from(body: record::Body) -> Self {
        match body {
            record::Body::Dose(dose) => Self::Dose { dose },
            record::Body::CheckIn(check_in) => Self::CheckIn { check_in },
            _ => Self::Other,
        }
    }
}

/// Which records to list: all of the patient's own, if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct RecordQuery {
    /// Only what happened from this moment on, in ms since the Unix epoch.
    #[uniffi(default = None)]
    pub from_ms: Option<i64>,
    /// Only what happened before this moment, in ms since the Unix epoch.
    #[uniffi(default = None)]
    pub until_ms: Option<i64>,
    /// Only this kind.
    #[uniffi(default = None)]
    pub kind: Option<RecordKind>,
    /// Only this category.
    #[uniffi(default = None)]
    pub category: Option<ConsentCategory>,
    /// At most so many.
    #[uniffi(default = None)]
    pub limit: Option<u32>,
    /// The patient's space, for a clinic.
    #[uniffi(default = None)]
    pub space: Option<SpaceId>,
}

impl From<RecordQuery> for Query {
    fn from(query: RecordQuery) -> Self {
        Self {
            from_ms: query.from_ms,
            until_ms: query.until_ms,
            kind: query.kind,
            category: query.category,
            limit: query.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use ebb_core::record::{Entry, Stamp, Unit, Value};
    use uniffi::FfiConverter;

    use super::*;
    use crate::UniFfiTag;

    fn listed(entry: &Entry) -> Record {
        let recorded = Moment { millis: 1_700_000_060_000, offset_minutes: 0 };
        let stamp = Stamp { recorded, author: [0xab; 16], staff: None };
        let id = RecordId::new(1_700_000_000_000, &[7; 10]);
        let value = Value::decode(&Value::new(entry, &stamp).encode()).expect("was just encoded");
        let retracted = Some(Retraction { reason: "twice".to_owned(), at_millis: 5 });
        record::Record::new(id, ConsentCategory::Medication, value, entry.note.clone(), retracted, 2).into()
    }

    fn across<T: FfiConverter<UniFfiTag>>(value: T) -> T {
        T::try_lift(T::lower(value)).expect("what was lowered can be lifted")
    }

    #[test]
    fn a_record_arrives_as_it_was_logged() {
        let moment = Moment { millis: 1_700_000_000_000, offset_minutes: -300 };
        let logged = Dose {
            drug: "buprenorphine".to_owned(),
            rxnorm: Some("1655032".to_owned()),
            amount: 16.0,
            unit: Unit::Mg,
            taking: Taking::NotTaken { reason: Some("felt ill".to_owned()) },
            observed: false,
            planned: None,
        };
        let record = listed(&Entry::new(across(logged.clone())).at(across(moment)).note("bitter"));
        assert_eq!(across(record.clone()), record);
        assert_eq!(record.body, RecordBody::Dose { dose: logged });
        assert_eq!(
            (record.kind, record.occurred, record.note.as_str()),
            (RecordKind::Dose, moment, "bitter")
        );
        assert_eq!((record.recorded_ms, record.author), (1_700_000_060_000, "ab".repeat(16)));
        assert_eq!(record.retracted.map(|retraction| retraction.reason), Some("twice".to_owned()));
    }

    #[test]
    fn a_kind_that_is_not_offered_is_shown_by_its_name() {
        let record = across(listed(&Entry::use_event("opioid")));
        assert_eq!((record.kind, record.body), (RecordKind::UseEvent, RecordBody::Other));
        let newer = RecordKind::from_label("walk");
        assert_eq!(across(newer.clone()), newer);
    }

    #[test]
    fn ids_are_text_and_anything_else_is_refused_by_name() {
        let space = SpaceId(*b"0123456789abcdef");
        assert_eq!(across(space), space);
        let record = RecordId::new(1, &[3; 10]);
        assert_eq!(across(record), record);
        let text = <String as FfiConverter<UniFfiTag>>::lower("no id".to_owned());
        let refused = <RecordId as FfiConverter<UniFfiTag>>::try_lift(text).expect_err("is no id");
        let refused = refused.downcast::<EbbError>().expect("typed, so that calls throw it as it is");
        assert!(matches!(refused, EbbError::FixInput { field, .. } if field == "record"));
    }

    #[test]
    fn what_core_refuses_keeps_field_and_allowed() {
        let error = "no card".parse::<ebb_core::Card>().expect_err("is no card");
        let EbbError::FixInput { field, allowed } = error.into() else { panic!("another error") };
        assert_eq!(field, "text");
        assert!(allowed.contains("ebb-card-1-"));
    }

    #[test]
    fn settings_with_pins_that_are_none_are_refused_by_name() {
        let server = Server { quic: "h:1".to_owned(), tcp: "h:1".to_owned(), pins: "ebb1-00".to_owned() };
        let settings = Settings { dir: "d".to_owned(), server: Some(server), start: None };
        let error = Config::try_from(settings).err();
        assert!(matches!(error, Some(EbbError::FixInput { field, .. }) if field == "pins"));
    }
}
