//! Ebb for Swift, Kotlin and Python: convert, call, return.
//!
//! This crate is the entire foreign surface. It decides nothing: what a call does is said at the same
//! call of [`ebb_core::Replica`], and the types are those of core, mirrored in `mirror.rs`. The
//! comments of both travel into the generated sources, so they speak to an app's developer.
//!
//! The library and the generated source must come from one build; the loader checks it.

use std::{sync::Arc, time::Duration};

use ebb_core::{
    Config, Entry, NetworkId, Replica, SpaceId,
    clinical::{
        chart::Chart,
        crisis,
        today::NOTIFICATION_HOURS,
        trend::{self, Days},
    },
    record::{self, Body},
};

pub use crate::mirror::{
    AlertId, AlertOwner, AlertSeverity, AlertState, AllowedAnswers, AnsweredBy, Answers, AskedIf,
    CallbackError, Certainty, CheckIn, Choice, ClinicalAlert, ConsentCategory, Delivery, Dose, DoseUnit, Due,
    DueItem, DueState, EbbError, Event, Helpline, Instrument, InstrumentItem, MeasureSummary, Moment, Notice,
    PlannedDose, Record, RecordBody, RecordId, RecordKind, RecordQuery, Reminder, Retraction, SafetyHit,
    SafetyLevel, ScaleScore, ScoreBand, Scores, Server, SessionKind, SessionMode, SessionOutcome, Settings,
    Source, Start, Summary, SyncError, SyncStatus, Taking, Today,
};

mod mirror;

uniffi::setup_scaffolding!();

/// Where the database's key is kept: implement it over the Keychain or the Android Keystore.
///
/// The key is the only secret that ever crosses into the app, and it goes nowhere but there.
#[uniffi::export(with_foreign)]
pub trait Vault: Send + Sync {
    /// Loads the 32 bytes that were saved; none if nothing was ever saved.
    fn load(&self) -> Result<Option<Vec<u8>>, CallbackError>;

    /// Saves a new key, once, before the database is made.
    fn save(&self, key: Vec<u8>) -> Result<(), CallbackError>;
}

/// Told of what happens, after it is durable.
///
/// It is called from any thread and may call Ebb. Hand long work to a thread of your own: the
/// connection waits. Whatever it throws is dropped.
#[uniffi::export(with_foreign)]
pub trait Observer: Send + Sync {
    /// Something happened. There will be more kinds of events: ignore those you do not know.
    fn on_event(&self, event: Event) -> Result<(), CallbackError>;
}

/// A device's records, keys and connection.
///
/// Calls block for some milliseconds, and what they did is on disk when they return, with or without a
/// network. Any thread may call.
///
/// Where a call takes a `space`, it is the patient's own if nothing is said; a clinic says whose. Languages
/// are tags, such as `es` or `es-US`; what there is no text for in one is in English.
#[derive(Debug, uniffi::Object)]
pub struct Ebb {
    replica: Replica,
}

#[uniffi::export]
impl Ebb {
    /// Opens the replica in a folder, making it if there is none.
    ///
    /// Throws `Unlock` if the vault fails or holds another key, `InUse` if it is open elsewhere,
    /// `Update` if a newer version of the app wrote it.
    #[uniffi::constructor]
    pub fn open(settings: Settings, vault: Arc<dyn Vault>) -> Result<Self, EbbError> {
        let replica = Replica::open(Config::try_from(settings)?, &mirror::ForeignVault(vault))?;
        Ok(Self { replica })
    }

    /// Closes the database and forgets every key; calls after that throw `Unlock`. Open anew to unlock.
    pub fn lock(&self) {
        self.replica.lock();
    }

    /// Logs a dose, taken or not. When this returns, it is on disk.
    ///
    /// Without `occurred` it happened now, in UTC; give the phone's own offset to keep the day as lived.
    /// Throws `FixInput` with the field and what it may hold, `FreeSpace` if the phone is full.
    #[uniffi::method(default(note = "", occurred = None))]
    pub fn log_dose(&self, dose: Dose, note: String, occurred: Option<Moment>) -> Result<RecordId, EbbError> {
        self.log(dose.into(), note, occurred)
    }

    /// Logs how a day feels. Everything else as in `log_dose`.
    #[uniffi::method(default(note = "", occurred = None))]
    pub fn log_check_in(
        &self,
        check_in: CheckIn,
        note: String,
        occurred: Option<Moment>,
    ) -> Result<RecordId, EbbError> {
        self.log(check_in.into(), note, occurred)
    }

    /// Logs answers to an instrument that the patient answers, whole or as a draft. Everything else as in
    /// `log_dose`; a refusal names an item's answer as `answers.9`.
    #[uniffi::method(default(note = "", occurred = None))]
    pub fn log_answers(
        &self,
        answers: Answers,
        note: String,
        occurred: Option<Moment>,
    ) -> Result<RecordId, EbbError> {
        self.log(record::Answers::from(answers).into(), note, occurred)
    }

    /// Writes answers in the place of those in a record: a draft that goes on, or is whole now. The old ones
    /// stay in its history, and without a new note its note stays.
    #[uniffi::method(default(note = None))]
    pub fn edit_answers(
        &self,
        record: RecordId,
        answers: Answers,
        note: Option<String>,
    ) -> Result<(), EbbError> {
        let own = self.replica.own()?;
        let note = match note {
            Some(note) => note,
            None => self.replica.record(own, record)?.note,
        };
        let entry = Entry::new(record::Answers::from(answers)).note(note);
        Ok(self.replica.edit(own, record, &entry)?)
    }

    /// A record's present version.
    #[uniffi::method(default(space = None))]
    pub fn record(&self, id: RecordId, space: Option<SpaceId>) -> Result<Record, EbbError> {
        Ok(self.replica.record(self.space(space)?, id)?.into())
    }

    /// Lists records by the time they happened, newest first.
    pub fn records(&self, query: RecordQuery) -> Result<Vec<Record>, EbbError> {
        let space = self.space(query.space)?;
        let records = self.replica.records(space, &query.into())?;
        Ok(records.into_iter().map(Record::from).collect())
    }

    /// Says where one of the patient's own records is now.
    pub fn delivery(&self, record: RecordId) -> Result<Delivery, EbbError> {
        Ok(self.replica.delivery(self.replica.own()?, record)?)
    }

    /// The instruments that the patient's programme uses, each with its newest version, in the order to show.
    #[uniffi::method(default(language = "en", space = None))]
    pub fn instruments(&self, language: String, space: Option<SpaceId>) -> Result<Vec<Instrument>, EbbError> {
        self.read(space, |chart| Instrument::in_use(chart, &language))
    }

    /// An instrument by its id, and by its version if it is to be the one that a record was answered with;
    /// none if this version of the app does not know it.
    #[uniffi::method(default(version = None, language = "en", space = None))]
    pub fn instrument(
        &self,
        id: String,
        version: Option<String>,
        language: String,
        space: Option<SpaceId>,
    ) -> Result<Option<Instrument>, EbbError> {
        self.read(space, |chart| Instrument::find(chart, &id, version.as_deref(), &language))
    }

    /// What answers come to, complete or not, logged or not; a gap is never scored.
    ///
    /// Throws `FixInput` with the instrument, version or item that does not fit, and what would.
    #[uniffi::method(default(language = "en", space = None))]
    pub fn score(
        &self,
        answers: Answers,
        language: String,
        space: Option<SpaceId>,
    ) -> Result<Scores, EbbError> {
        let answers = answers.into();
        Ok(self.read(space, |chart| Scores::of(chart, &answers, &language))??)
    }

    /// What is due now and next: doses, check-ins, questionnaires, sessions, tasks.
    #[uniffi::method(default(space = None))]
    pub fn today(&self, space: Option<SpaceId>) -> Result<Today, EbbError> {
        Ok(self.replica.today(self.space(space)?)?.into())
    }

    /// The reminders that the phone should schedule for so many hours. Schedule them anew whenever records
    /// change; their ids stay.
    #[uniffi::method(default(hours = 48, language = "en", space = None))]
    pub fn notifications(
        &self,
        hours: u32,
        language: String,
        space: Option<SpaceId>,
    ) -> Result<Vec<Reminder>, EbbError> {
        let notifications = self.replica.notifications(self.space(space)?, hours)?;
        Ok(notifications.into_iter().map(|one| Reminder::of(one, &language)).collect())
    }

    /// Every alert that this device found, withdrawn ones among them, evaluated at this moment; in no order
    /// that means anything.
    ///
    /// Observers are told of new ones as records are logged or arrive (`Event`); what time alone brings is
    /// found when you ask.
    #[uniffi::method(default(space = None))]
    pub fn alerts(&self, space: Option<SpaceId>) -> Result<Vec<ClinicalAlert>, EbbError> {
        let alerts = self.replica.alerts(self.space(space)?)?;
        Ok(alerts.into_iter().map(ClinicalAlert::from).collect())
    }

    /// Sums up so many days, in sentences and in the numbers of a chart; the last is the day of `until` by its
    /// own offset.
    #[uniffi::method(default(days = 7, language = "en", space = None))]
    pub fn summary(
        &self,
        until: Moment,
        days: u32,
        language: String,
        space: Option<SpaceId>,
    ) -> Result<Summary, EbbError> {
        let days = Days::ending(trend::day_of(until), days);
        self.read(space, |chart| Summary::of(chart, days, &language))
    }

    /// Whom to call in a crisis, in the order to show: the programme's lines, the patient's supporters, the
    /// national lines. Never empty and never refused: where nothing is known of a patient, or Ebb is locked,
    /// the national lines are there.
    pub fn crisis_lines(&self) -> Vec<Helpline> {
        self.read(None, crisis::lines).unwrap_or_else(|_| crisis::lines(&Chart::default()))
    }

    /// Every space that this replica follows: the patient's own, or those of a clinic's patients.
    pub fn spaces(&self) -> Result<Vec<SpaceId>, EbbError> {
        Ok(self.replica.spaces()?)
    }

    /// The card by which others know this device: show it to whoever shall add it.
    pub fn card(&self) -> Result<String, EbbError> {
        Ok(self.replica.card()?.to_string())
    }

    /// The ticket by which another device, or a clinic, finds the patient's space.
    pub fn ticket(&self) -> Result<String, EbbError> {
        Ok(self.replica.ticket()?.to_string())
    }

    /// Lets the clinic of this card read these categories with their whole history.
    pub fn grant(&self, card: String, categories: Vec<ConsentCategory>) -> Result<(), EbbError> {
        Ok(self.replica.grant(&card.parse()?, &categories)?)
    }

    /// Follows a patient's space, as a clinic; what was granted arrives with the next sync.
    pub fn follow(&self, ticket: String) -> Result<SpaceId, EbbError> {
        Ok(self.replica.follow(&ticket.parse()?)?)
    }

    /// Syncs once: sends what is unsent, fetches what is new.
    ///
    /// Throws `OutOfTime` when the budget ends before everything is done; what arrived stays arrived.
    /// Cancelling stops the waiting, not the sync.
    #[uniffi::method(default(budget_ms = 30_000))]
    pub async fn sync(&self, budget_ms: u32) -> Result<(), SyncError> {
        let budget = Duration::from_millis(budget_ms.into());
        Ok(self.replica.sync(budget).await.map(drop)?)
    }

    /// Stays in sync from now on: connects when it can, and again with growing pauses when it cannot.
    pub fn stay_in_sync(&self) {
        self.replica.stay_in_sync();
    }

    /// Ends `stay_in_sync` and closes the connection.
    pub fn go_offline(&self) {
        self.replica.go_offline();
    }

    /// Says that the phone's network changed, and to which, if the app can tell networks apart (by any
    /// name; only a hash of it is kept): what failed before is tried again at once.
    #[uniffi::method(default(network = None))]
    pub fn network_changed(&self, network: Option<String>) {
        self.replica.network_changed(network.as_deref().map(NetworkId::of));
    }

    /// How it stands with the server.
    pub fn status(&self) -> SyncStatus {
        self.replica.status().into()
    }

    /// Has an observer told of what happens from now on, as long as this object lives.
    pub fn watch(&self, observer: Arc<dyn Observer>) {
        self.replica.watch(Arc::new(mirror::ForeignObserver(observer)));
    }
}

impl Ebb {
    fn log(&self, body: Body, note: String, occurred: Option<Moment>) -> Result<RecordId, EbbError> {
        let entry = Entry { occurred, ..Entry::new(body).note(note) };
        Ok(self.replica.log(self.replica.own()?, &entry)?)
    }

    fn read<T>(&self, space: Option<SpaceId>, read: impl FnOnce(&Chart) -> T) -> Result<T, EbbError> {
        Ok(self.replica.chart(self.space(space)?, read)?)
    }

    fn space(&self, space: Option<SpaceId>) -> Result<SpaceId, EbbError> {
        Ok(space.map_or_else(|| self.replica.own(), Ok)?)
    }
}

/// A default in the foreign languages must be a literal.
const _: () = assert!(NOTIFICATION_HOURS == 48, "Ebb::notifications says so many hours as well");
