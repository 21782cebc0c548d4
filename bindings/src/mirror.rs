//! Core's types as they look from Swift, Kotlin and Python.
//!
//! Where a type of core can cross as it is, `remote` mirrors it, and the compiler compares every field;
//! where not (private causes, raw ids, kinds not offered yet), a type of this module is converted.
//! Some carry another name than in core, because the short one belongs to the platforms: `Unit` is
//! Kotlin's and Foundation's, `Category` Objective-C's, `Query` SwiftData's,
//! `Alert` and `State` SwiftUI's, `Notification` Foundation's and Android's.

use ebb_core::SpaceId;
use uuid::Uuid;

pub(crate) use self::device::{ForeignObserver, ForeignVault};
pub use self::{
    alert::{AlertOwner, AlertSeverity, AlertState, Certainty, ClinicalAlert, Helpline},
    device::{Event, Server, Settings, Start, SyncStatus},
    error::{CallbackError, EbbError, SyncError},
    instrument::{
        AllowedAnswers, AnsweredBy, Answers, AskedIf, Choice, Instrument, InstrumentItem, SafetyHit,
        SafetyLevel, ScaleScore, ScoreBand, Scores,
    },
    record::{
        CheckIn, ConsentCategory, Delivery, Dose, DoseUnit, PlannedDose, Record, RecordBody, RecordKind,
        RecordQuery, Retraction, Source, Taking,
    },
    summary::{MeasureSummary, Summary},
    today::{Due, DueItem, DueState, Notice, Reminder, SessionKind, SessionMode, SessionOutcome, Today},
};

mod alert;
mod device;
mod error;
mod instrument;
mod record;
mod summary;
mod today;

/// Identifies a record.
pub type RecordId = ebb_core::RecordId;
/// Identifies an alert.
pub type AlertId = ebb_core::record::AlertId;
/// An instant, and the clock on the wall where it was lived.
pub type Moment = ebb_core::record::Moment;

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

uniffi::custom_type!(AlertId, String, {
    remote,
    lower: |id| id.to_string(),
    try_lift: |text| Ok(Self(id_bytes("alert", &text)?)),
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

#[cfg(test)]
mod tests {
    use ebb_core::{
        Config,
        record::{Entry, Stamp, Unit, Value},
    };
    use uniffi::FfiConverter;

    use super::*;
    use crate::UniFfiTag;

    fn listed(entry: &Entry) -> Record {
        let recorded = Moment { millis: 1_700_000_060_000, offset_minutes: 0 };
        let stamp = Stamp { recorded, author: [0xab; 16], staff: None };
        let id = RecordId::new(1_700_000_000_000, &[7; 10]);
        let value = Value::decode(&Value::new(entry, &stamp).encode()).expect("was just encoded");
        let retracted = Some(Retraction { reason: "twice".to_owned(), at_millis: 5 });
        ebb_core::Record::new(id, ConsentCategory::Medication, value, entry.note.clone(), retracted, 2).into()
    }

    fn across<T: FfiConverter<UniFfiTag>>(value: T) -> T {
        T::try_lift(T::lower(value)).expect("what was lowered can be lifted")
    }

    #[test]
    fn a_record_arrives_as_it_was_logged() {
        let moment = Moment { millis: 1_700_000_000_000, offset_minutes: -300 };
        let logged = Dose::not_taken("buprenorphine", 16.0, Unit::Mg, Some("felt ill")).rxnorm("1655032");
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
    fn answers_arrive_as_they_were_given_and_stay_out_of_logs() {
        let record = across(listed(&Entry::answers("phq9", [("1", 2), ("9", 0)]).draft()));
        let RecordBody::Answers { answers } = &record.body else { panic!("answers were logged") };
        assert_eq!((answers.instrument.as_str(), answers.version.as_str()), ("phq9", "2001"));
        assert_eq!(answers.answers, [("1".to_owned(), 2), ("9".to_owned(), 0)].into());
        assert!(answers.draft);
        assert_eq!(format!("{:?}", record.body), "RecordBody(answers)");
        let logged = ebb_core::record::Answers::from(answers.clone());
        assert!(Answers::from(logged) == *answers);
    }

    #[test]
    fn a_session_of_a_newer_version_keeps_its_label() {
        let newer = SessionKind::from("drumming");
        assert_eq!(across(newer.clone()), newer);
        assert_eq!(newer, SessionKind::Other("drumming".to_owned()));
    }

    #[test]
    fn ids_are_text_and_anything_else_is_refused_by_name() {
        let space = SpaceId(*b"0123456789abcdef");
        assert_eq!(across(space), space);
        let record = RecordId::new(1, &[3; 10]);
        assert_eq!(across(record), record);
        let alert = ebb_core::record::AlertId(*b"0123456789abcdef");
        assert_eq!(across(alert), alert);
        assert_eq!(refused_as::<RecordId>("no id"), "record");
        assert_eq!(refused_as::<SpaceId>("no id"), "space");
        assert_eq!(refused_as::<AlertId>("no id"), "alert");
    }

    /// The field that a text is refused by, typed, so that calls throw it as it is.
    fn refused_as<T: FfiConverter<UniFfiTag, FfiType = uniffi::RustBuffer>>(text: &str) -> String {
        let text = <String as FfiConverter<UniFfiTag>>::lower(text.to_owned());
        let refused = T::try_lift(text).err().expect("is no id").downcast::<EbbError>();
        match refused.expect("an error of ours") {
            EbbError::FixInput { field, .. } => field,
            other => panic!("another error: {other}"),
        }
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
