//! The typed records: what an app hands to `log`, what lists show, and the CBOR value between.
//!
//! A record is a small header (when, by whom, how known) and a [`Body`], one struct per [`Kind`].
//! Both are stored as one CBOR value with string keys, so that whatever a newer version adds
//! survives an edit by this one: unknown fields are carried along, and an unknown kind, or a known
//! kind this version cannot read, is kept whole as [`Body::Unknown`].
//!
//! A constructor takes what no record of its kind is without, but of names and reasons only one: two could
//! change places unnoticed. The others, and what may be absent, are given by methods named for them. Nothing is
//! checked before [`Entry::validate`], which names what was left out.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    attendance::{Attendance, GROUP_PARTICIPANTS_MIN, Mode, PlannedSession, SessionKind, Visit},
    authorization::{
        Authorization, AuthorizationState, Criterion, CriterionOutcome, CriterionSort, Eligibility,
        ServiceUnit,
    },
    body::{Body, Kind},
    care_plan::{
        Condition, Domain, Helpline, Intervention, PARTS_MAX, PlanGoal, PlanPart, PlanVersion, Problem,
        Programme, Role, TeamMember,
    },
    consent::Consent,
    medication::{AMOUNT_MAX, Dose, PlannedDose, Taking, Unit},
    note::{Audience, Message, Note},
    observations::{AlertAction, AlertId, Handling, RestrictionAnswer, SEEN_MAX, Seen},
    orders::{Ask, Cadence, MovedSession, ProgrammeInstrument, SessionSeries, Thresholds, Weekday},
    profile::{
        Arrangement, Contact, Coverage, EmergencyCard, InsurancePlan, LivingSituation, Network, Person,
        Purpose, RestrictionRequest,
    },
    recovery::{
        Activity, ActivitySort, Coping, Distortion, Fellowship, Goal, GoalState, Meeting, PlanSignOff,
        Trigger,
    },
    regimen::{Course, DoseRoute, DoseStep, Regimen, STEPS_MAX, TIMES_MAX, TimedDose},
    substance_use::{DrugScreen, Route, ScreenResult, Specimen, TestPlace, UseEvent},
    symptoms::{Answers, Band, BandInstrument, Phase, Vitals, WithdrawalBand},
    transition::{Aftercare, Level, LevelMove, Referral, ReferralOutcome, RelapsePrevention, Resource, Task},
    value::{Undecodable, Value},
    wellbeing::CheckIn,
};

pub(crate) use self::body::check;
use crate::clinical::instrument::Instruments;

mod attendance;
mod authorization;
mod body;
mod care_plan;
mod consent;
mod medication;
mod note;
mod observations;
mod orders;
mod profile;
mod recovery;
mod regimen;
mod substance_use;
mod symptoms;
mod transition;
mod value;
mod wellbeing;

/// Most characters of a note.
///
/// A note is merged character by character, and replacing a whole note is one deletion and one
/// insertion for each, in one change; twice this stays under the gate's 10,000 items per column.
pub const NOTE_CHARS_MAX: usize = 4_900;

/// Most characters of a name, label or reason: a line on a phone, not a place for prose.
pub const TEXT_CHARS_MAX: usize = 200;

/// Most characters of a paragraph: a plan's text, a message.
pub const PROSE_CHARS_MAX: usize = 4_000;

/// Most answered items of one questionnaire; the longest one shipped has 20.
pub const ANSWERS_MAX: usize = 200;

/// The earliest moment a record may claim, 2000-01-01 UTC, in ms since the Unix epoch.
pub const OCCURRED_MILLIS_MIN: i64 = 946_684_800_000;

/// The first moment that a record may no longer claim, 2100-01-01 UTC, in ms since the Unix epoch.
pub const OCCURRED_MILLIS_END: i64 = 4_102_444_800_000;

/// Identifies a record: a UUIDv7, so ids sort by when they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(Uuid);

impl RecordId {
    /// Makes an id from a clock reading in ms since the Unix epoch and ten random bytes.
    pub fn new(millis: u64, random: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
    }

    /// Reads an id from its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Borrows the id's 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names whose hand a record comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// A device of the patient.
    Patient,
    /// A device of the care team.
    Clinic,
}

/// Names a consent category: what a patient grants, one stream each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
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
    /// Notes nobody else has a key for.
    Private,
    /// Messages between patient and care team.
    Messages,
    /// The treatment plan.
    Plan,
    /// What the care team observed: scales, screens, doses, attendance.
    Observations,
}

impl Category {
    /// Every category, in the order of the table of streams.
    pub const ALL: [Self; 11] = [
        Self::Symptoms,
        Self::Medication,
        Self::SubstanceUse,
        Self::Wellbeing,
        Self::Recovery,
        Self::Profile,
        Self::Emergency,
        Self::Private,
        Self::Messages,
        Self::Plan,
        Self::Observations,
    ];

    /// Returns the name it has on disk and in consent forms.
    pub fn label(self) -> &'static str {
        match self {
            Self::Symptoms => "symptoms",
            Self::Medication => "medication",
            Self::SubstanceUse => "substance_use",
            Self::Wellbeing => "wellbeing",
            Self::Recovery => "recovery",
            Self::Profile => "profile",
            Self::Emergency => "emergency",
            Self::Private => "private",
            Self::Messages => "messages",
            Self::Plan => "plan",
            Self::Observations => "observations",
        }
    }

    /// Finds the category of a label, if this version knows it.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.label() == label)
    }

    /// Says whether the patient's devices write here.
    pub fn patient_writes(self) -> bool {
        !matches!(self, Self::Plan | Self::Observations)
    }

    /// Says whether the clinic's devices write here.
    pub fn clinic_writes(self) -> bool {
        matches!(self, Self::Messages | Self::Plan | Self::Observations)
    }
}

/// An instant, and the clock on the wall where it was lived.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "(i64, i16)", into = "(i64, i16)")]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub millis: i64,
    /// Minutes that local time was ahead of UTC.
    pub offset_minutes: i16,
}

impl From<(i64, i16)> for Moment {
    fn from((millis, offset_minutes): (i64, i16)) -> Self {
        Self { millis, offset_minutes }
    }
}

impl From<Moment> for (i64, i16) {
    fn from(moment: Moment) -> Self {
        (moment.millis, moment.offset_minutes)
    }
}

/// Tells how a record is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The patient said so.
    #[serde(rename = "self")]
    SelfReport,
    /// A member of the care team saw it.
    Observed,
    /// It came from another system.
    Imported,
    /// It was made up, to show or to try something: it is of nobody.
    Synthetic,
}

/// What an app hands to `log`.
///
/// ```
/// use ebb_core::record::{Entry, Moment, Unit, Writer};
///
/// let entry = Entry::dose("buprenorphine", 16.0, Unit::Mg)
///     .at(Moment { millis: 1_700_000_000_000, offset_minutes: -300 })
///     .note("a bitter taste");
/// assert!(entry.validate(Writer::Patient).is_ok());
/// ```
#[derive(Clone, PartialEq)]
pub struct Entry {
    /// When it happened; `None` means as it is logged, and on an edit that it stays as it was.
    pub occurred: Option<Moment>,
    /// How it is known.
    pub source: Source,
    /// What it says.
    pub body: Body,
    /// The note that goes with it, often empty.
    pub note: String,
}

impl Entry {
    /// Makes an entry that the patient reports, happening now, without a note.
    pub fn new(body: impl Into<Body>) -> Self {
        Self { occurred: None, source: Source::SelfReport, body: body.into(), note: String::new() }
    }

    /// Makes an entry for a dose that was taken.
    pub fn dose(drug: impl Into<String>, amount: f64, unit: Unit) -> Self {
        Self::new(Dose::taken(drug, amount, unit))
    }

    /// Makes an entry for a dose that was not taken, with the reason if one was given.
    pub fn dose_not_taken(drug: impl Into<String>, amount: f64, unit: Unit, reason: Option<&str>) -> Self {
        Self::new(Dose::not_taken(drug, amount, unit, reason))
    }

    /// Makes an entry for the answers to an instrument that is shipped, by item id.
    ///
    /// ```
    /// use ebb_core::record::{Entry, Writer};
    ///
    /// let entry = Entry::answers("gad7", [("1", 2), ("2", 3)]).draft();
    /// assert!(entry.validate(Writer::Patient).is_ok());
    /// let refused = Entry::answers("gad7", [("1", 4)]).validate(Writer::Patient).expect_err("0 to 3");
    /// assert_eq!(refused.field, "answers.1");
    /// ```
    pub fn answers<I: Into<String>>(
        instrument: impl Into<String>,
        answers: impl IntoIterator<Item = (I, i64)>,
    ) -> Self {
        let instrument = instrument.into();
        let version =
            Instruments::shipped().get(&instrument).map_or("", |shipped| shipped.version.as_str()).to_owned();
        Self::answers_to(instrument, version, answers)
    }

    /// Makes an entry for the answers to a version of an instrument, by item id.
    pub fn answers_to<I: Into<String>>(
        instrument: impl Into<String>,
        version: impl Into<String>,
        answers: impl IntoIterator<Item = (I, i64)>,
    ) -> Self {
        Self::new(Answers {
            instrument: instrument.into(),
            version: version.into(),
            answers: answers.into_iter().map(|(item, value)| (item.into(), value)).collect(),
            draft: false,
        })
    }

    /// Makes an entry for all 16 answers to the Subjective Opiate Withdrawal Scale, each 0 to 4.
    pub fn sows(answers: [u8; 16]) -> Self {
        Self::answers("sows16", numbered(answers))
    }

    /// Makes an entry for all nine answers to the PHQ-9, each 0 to 3.
    pub fn phq9(answers: [u8; 9]) -> Self {
        Self::answers("phq9", numbered(answers))
    }

    /// Makes an entry for all seven answers to the GAD-7, each 0 to 3.
    pub fn gad7(answers: [u8; 7]) -> Self {
        Self::answers("gad7", numbered(answers))
    }

    /// Makes an entry for craving as it is now, 0 to 10.
    pub fn craving(now: u8) -> Self {
        Self::answers("craving", numbered([now]))
    }

    /// Says that more answers are meant to follow.
    #[must_use]
    pub fn draft(mut self) -> Self {
        if let Body::Answers(answers) = &mut self.body {
            answers.draft = true;
        }
        self
    }

    /// Makes an entry for a withdrawal band whose answers are not known.
    pub fn withdrawal_band(instrument: BandInstrument, band: Band, phase: Phase) -> Self {
        Self::new(WithdrawalBand { instrument, band, phase })
    }

    /// Makes an entry for a drug screen.
    pub fn drug_screen(specimen: Specimen, substance: impl Into<String>, result: ScreenResult) -> Self {
        Self::new(DrugScreen::new(specimen, substance, result))
    }

    /// Makes an entry for a use of a substance.
    pub fn use_event(substance: impl Into<String>) -> Self {
        Self::new(UseEvent::new(substance))
    }

    /// Makes an entry for a session of the programme.
    pub fn visit(session: impl Into<SessionKind>, label: impl Into<String>, attendance: Attendance) -> Self {
        Self::new(Visit::new(session, label, attendance))
    }

    /// Makes an entry for a check-in.
    pub fn check_in(check_in: CheckIn) -> Self {
        Self::new(check_in)
    }

    /// Makes an entry for a note to the care team.
    pub fn note_to_care_team(text: impl Into<String>) -> Self {
        Self::new(Note { audience: Audience::CareTeam }).note(text)
    }

    /// Makes an entry for a note that nobody else has a key for.
    pub fn private_note(text: impl Into<String>) -> Self {
        Self::new(Note { audience: Audience::OnlyMe }).note(text)
    }

    /// Says when it happened.
    pub fn at(mut self, occurred: Moment) -> Self {
        self.occurred = Some(occurred);
        self
    }

    /// Adds a note.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Says that a member of the care team saw it; a dose counts as watched.
    pub fn observed(mut self) -> Self {
        self.source = Source::Observed;
        if let Body::Dose(dose) = &mut self.body {
            dose.observed = true;
        }
        self
    }

    /// Says that it came from another system.
    pub fn imported(mut self) -> Self {
        self.source = Source::Imported;
        self
    }

    /// Says that it was made up.
    pub fn synthetic(mut self) -> Self {
        self.source = Source::Synthetic;
        self
    }

    /// Makes an entry for a message.
    pub fn message(text: impl Into<String>, reply_to: Option<RecordId>) -> Self {
        Self::new(Message { text: text.into(), reply_to })
    }

    /// Checks that a writer may log this, where answers are to instruments that are shipped.
    ///
    /// The time is not compared with the present: a phone's clock may be wrong.
    ///
    /// # Errors
    ///
    /// Names the first field that does not fit and what would, never the value that was given.
    pub fn validate(&self, writer: Writer) -> Result<(), Invalid> {
        self.validate_with(writer, Instruments::shipped())
    }

    /// Checks that a writer may log this, where answers are to any of the given instruments.
    ///
    /// # Errors
    ///
    /// As [`Entry::validate`].
    pub fn validate_with(&self, writer: Writer, instruments: &Instruments) -> Result<(), Invalid> {
        if let Some(Moment { millis, offset_minutes }) = self.occurred {
            let years = OCCURRED_MILLIS_MIN..OCCURRED_MILLIS_END;
            check(years.contains(&millis), "occurred", "from 2000-01-01 to 2099-12-31")?;
            let offsets = -18 * 60..=18 * 60;
            check(offsets.contains(&offset_minutes), "offset_minutes", "-1080 to 1080")?;
        }
        let observes = writer == Writer::Clinic || self.source != Source::Observed;
        check(observes, "source", "self, imported or synthetic, from a patient")?;
        let short = self.note.chars().count() <= NOTE_CHARS_MAX;
        check(short, "note", format_args!("at most {NOTE_CHARS_MAX} characters"))?;
        self.body.check(writer, &self.note)?;
        match &self.body {
            Body::Answers(answers) => answers.check_against(writer, instruments),
            _ => Ok(()),
        }
    }
}

/// Shows the kind alone: contents stay out of logs.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.body.kind().label())
    }
}

/// Says which field of an entry does not fit and what would, never what was given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub struct Invalid {
    /// The field.
    pub field: Cow<'static, str>,
    /// What it may hold.
    pub allowed: String,
}

/// Answers by items that are numbered from 1.
fn numbered(answers: impl IntoIterator<Item = u8>) -> impl Iterator<Item = (String, i64)> {
    (1..).zip(answers).map(|(item, value): (u32, u8)| (item.to_string(), i64::from(value)))
}

/// Who writes, and when: what an [`Entry`] does not say itself.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The writing device's clock.
    pub recorded: Moment,
    /// The writing device's id.
    pub author: [u8; 16],
    /// The acting member of staff, in a clinic.
    pub staff: Option<String>,
}

/// What lists show: the present version of a record.
#[derive(Clone, PartialEq)]
pub struct Record {
    /// Which record it is.
    pub id: RecordId,
    /// The consent category of its stream.
    pub category: Category,
    /// What it is about.
    pub kind: Kind,
    /// When it happened.
    pub occurred: Moment,
    /// When the present version was written down, in ms since the Unix epoch by its author's clock.
    pub recorded_at: i64,
    /// The device that wrote the present version.
    pub author: [u8; 16],
    /// The member of staff who wrote the present version, in a clinic.
    pub staff: Option<String>,
    /// How it is known.
    pub source: Source,
    /// What it says.
    pub body: Body,
    /// Its note.
    pub note: String,
    /// Why and when it was retracted, if it was.
    pub retracted: Option<Retraction>,
    /// How many other versions were written at the same time and await a choice.
    pub conflicts: u32,
    /// Whether a newer version wrote something that this one does not know.
    pub from_newer_version: bool,
}

impl Record {
    /// Puts a record together from its value and from what its document says beside it.
    pub fn new(
        id: RecordId,
        category: Category,
        value: Value,
        note: String,
        retracted: Option<Retraction>,
        conflicts: u32,
    ) -> Self {
        Self {
            id,
            category,
            kind: value.body.kind(),
            from_newer_version: value.from_newer_version(),
            occurred: value.occurred,
            recorded_at: value.recorded_at,
            author: value.author,
            staff: value.staff,
            source: value.source,
            body: value.body,
            note,
            retracted,
            conflicts,
        }
    }
}

/// Shows id and kind alone: contents stay out of logs.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, {})", self.id, self.kind.label())
    }
}

/// Why and when a record was retracted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retraction {
    /// The reason given.
    pub reason: String,
    /// When, in ms since the Unix epoch by the author's clock.
    pub at_millis: i64,
}

impl Retraction {
    /// Encodes it as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        value::to_bytes(&value::close(self, &Default::default()))
    }

    /// Decodes it from CBOR; what cannot be read is a retraction without a reason, never none.
    pub fn decode(bytes: &[u8]) -> Self {
        static NAMES: value::Names = value::Names::new();
        value::from_bytes(bytes)
            .and_then(|cbor| value::open(&cbor, &NAMES))
            .map_or_else(Self::default, |(retraction, _)| retraction)
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for Retraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retraction").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(entry: Entry, writer: Writer) -> String {
        entry.validate(writer).expect_err("this entry must not fit").field.into_owned()
    }

    /// The field for which the clinic may not log this.
    pub(super) fn refused_by_clinic(body: impl Into<Body>) -> Option<String> {
        Entry::new(body).validate(Writer::Clinic).err().map(|invalid| invalid.field.into_owned())
    }

    /// The field for which the patient may not log this.
    pub(super) fn refused_by_patient(body: impl Into<Body>) -> Option<String> {
        Entry::new(body).validate(Writer::Patient).err().map(|invalid| invalid.field.into_owned())
    }

    #[test]
    fn observer_rated_scales_are_not_for_patients() {
        for instrument in ["cows", "ciwa_ar"] {
            let entry = Entry::answers(instrument, [("1", 0)]);
            assert_eq!(refused(entry.clone(), Writer::Patient), "instrument");
            assert!(entry.validate(Writer::Clinic).is_ok());
        }
        let band = Entry::withdrawal_band(BandInstrument::Cows, Band::Mild, Phase::Routine);
        assert_eq!(refused(band.clone(), Writer::Patient), "instrument");
        assert!(band.validate(Writer::Clinic).is_ok());
        assert!(Entry::answers("sows16", [("1", 0)]).validate(Writer::Patient).is_ok());
    }

    #[test]
    fn each_field_has_its_bounds() {
        let dose = || Entry::dose("methadone", 60.0, Unit::Mg);
        let at = |millis, offset_minutes| dose().at(Moment { millis, offset_minutes });
        let mood = |mood| Entry::check_in(CheckIn { mood: Some(mood), ..CheckIn::default() });
        let slept = |hours| Entry::check_in(CheckIn { sleep_hours: Some(hours), ..CheckIn::default() });
        let long = "a".repeat(TEXT_CHARS_MAX + 1);
        let patient = Writer::Patient;
        for fits in [
            dose(),
            at(OCCURRED_MILLIS_MIN, -720),
            at(OCCURRED_MILLIS_END - 1, 840),
            mood(10),
            slept(24.0),
            dose().note("é".repeat(NOTE_CHARS_MAX)),
            Entry::private_note("mine"),
        ] {
            assert_eq!(fits.validate(patient), Ok(()));
        }
        for (field, entry) in [
            ("occurred", at(OCCURRED_MILLIS_MIN - 1, 0)),
            ("occurred", at(OCCURRED_MILLIS_END, 0)),
            ("offset_minutes", at(OCCURRED_MILLIS_MIN, 1_081)),
            ("source", Entry::use_event("opioid").observed()),
            ("note", dose().note("a".repeat(NOTE_CHARS_MAX + 1))),
            ("note", Entry::private_note("")),
            ("drug", Entry::dose("", 1.0, Unit::Mg)),
            ("amount", Entry::dose("methadone", -1.0, Unit::Mg)),
            ("amount", Entry::dose("methadone", f64::NAN, Unit::Mg)),
            ("reason", Entry::dose_not_taken("methadone", 1.0, Unit::Mg, Some(&long))),
            ("answers", Entry::answers("sows16", [("", 0); 0])),
            ("answers.17", Entry::answers("sows16", [("17", 0)])),
            ("instrument", Entry::answers_to("sows17", "1", [("1", 0)])),
            ("version", Entry::answers_to("sows16", "0", [("1", 0)])),
            ("substance", Entry::use_event(long.clone())),
            ("label", Entry::visit("group", "", Attendance::Kept)),
            ("reason", Entry::visit("group", "1", Attendance::Missed { reason: Some(long.clone()) })),
            ("check_in", Entry::check_in(CheckIn::default())),
            ("mood", mood(11)),
            ("sleep_hours", slept(f32::NAN)),
            ("kind", Entry::new(Body::Unknown { kind: "walk".to_owned(), fields: ciborium::Value::Null })),
        ] {
            assert_eq!(refused(entry, patient), field);
        }
        let watched = Dose { observed: true, ..dose_of(dose()) };
        assert_eq!(refused(Entry::new(watched.clone()), patient), "observed");
        assert!(Entry::new(watched).validate(Writer::Clinic).is_ok());
        assert_eq!(refused(Entry::private_note("mine"), Writer::Clinic), "audience");
    }

    fn dose_of(entry: Entry) -> Dose {
        match entry.body {
            Body::Dose(dose) => dose,
            _ => panic!("a dose was made"),
        }
    }

    #[test]
    fn a_refusal_and_debug_hold_no_contents() {
        let secret = format!("canary{}", "x".repeat(TEXT_CHARS_MAX));
        let entry = Entry::use_event(secret.clone()).note(secret);
        let refusal = entry.validate(Writer::Patient).expect_err("too long");
        let Body::UseEvent(used) = &entry.body else { panic!("a use was made") };
        let recorded = Moment { millis: 1, offset_minutes: 0 };
        let value = Value::new(&entry, &Stamp { recorded, author: [0; 16], staff: None });
        let shown = format!("{refusal} {refusal:?} {entry:?} {:?} {used:?} {value:?}", entry.body);
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("substance must be 1 to 200 characters"), "{shown}");
    }

    #[test]
    fn each_writer_stays_in_its_categories() {
        let both = [Category::Messages];
        for category in Category::ALL {
            assert_eq!(Category::from_label(category.label()), Some(category));
            let shared = category.patient_writes() && category.clinic_writes();
            assert_eq!(shared, both.contains(&category));
        }
        let screen = Entry::drug_screen(Specimen::Urine, "opioid", ScreenResult::Refused).body;
        assert_eq!(screen.belongs(Writer::Clinic), [Category::Observations]);
        assert_eq!(screen.belongs(Writer::Patient), [Category::SubstanceUse]);
        let note = Entry::private_note("mine").body;
        assert_eq!(note.belongs(Writer::Patient), [Category::Private]);
    }

    #[test]
    fn a_retraction_that_cannot_be_read_still_retracts() {
        let retraction = Retraction { reason: "entered twice".to_owned(), at_millis: 5 };
        assert_eq!(Retraction::decode(&retraction.encode()), retraction);
        assert_eq!(Retraction::decode(b"\xff"), Retraction::default());
    }

    #[test]
    fn ids_sort_by_time() {
        let early = RecordId::new(1_700_000_000_000, &[0xff; 10]);
        let late = RecordId::new(1_700_000_000_001, &[0; 10]);
        assert!(early < late);
        assert_eq!(RecordId::from_bytes(*early.as_bytes()), early);
        assert_eq!(early.to_string(), "018bcfe5-6800-7fff-bfff-ffffffffffff");
    }
}
