//! What records say, by kind.
//!
//! To add a kind: write its struct with its [`Content`], and add its line to `kinds!`.

use std::{borrow::Cow, fmt, ops::RangeInclusive};

use ciborium::Value as Cbor;
use serde::{Serialize, Serializer};

use super::value::{self, Extra};
use super::{
    Activity, Aftercare, AlertAction, Answers, Authorization, Cadence, Category, CheckIn, Condition, Consent,
    Contact, Coping, Coverage, Dose, DrugScreen, Eligibility, EmergencyCard, Goal, Invalid, LevelMove,
    LivingSituation, Meeting, Message, Note, PROSE_CHARS_MAX, Person, PlanSignOff, PlanVersion, Problem,
    Programme, ProgrammeInstrument, Referral, Regimen, RelapsePrevention, Resource, RestrictionAnswer,
    RestrictionRequest, Seen, SessionSeries, TEXT_CHARS_MAX, TeamMember, Thresholds, UseEvent, Visit, Vitals,
    WithdrawalBand, Writer,
};

/// What the body of a kind answers for itself.
pub(super) trait Content {
    /// The categories in which a writer's records of it may lie, the usual one first; none if it is not
    /// theirs to write.
    fn belongs(&self, by: Writer) -> &'static [Category];

    /// Checks what it says; `note` is the text that goes with it.
    fn check(&self, by: Writer, note: &str) -> Result<(), Invalid>;

    /// Checks that an edit may put it in another's place.
    fn may_follow(&self, _before: &Self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Declares the kinds: names, bodies, and how each is read and written.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $label:literal $(| $once:literal)*),+ $(,)?) => {
        /// Names what a record is about.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
            /// A kind that only a newer version knows, by its label.
            Unknown(String),
        }

        impl Kind {
            /// Every kind that this version knows.
            pub const KNOWN: &[Self] = &[$(Self::$kind),+];

            /// Returns the name it has on disk.
            pub fn label(&self) -> &str {
                match self {
                    $(Self::$kind => $label,)+
                    Self::Unknown(label) => label,
                }
            }

            /// Reads a label; one this version does not know is a kind all the same.
            pub fn from_label(label: &str) -> Self {
                match label {
                    $($label $(| $once)* => Self::$kind,)+
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }

        /// What a record says, by kind.
        #[derive(Clone, PartialEq)]
        pub enum Body {
            $($(#[$doc])* $kind($kind),)+
            /// A body this version cannot read, kept and re-encoded as it is.
            Unknown {
                /// The label of its kind.
                kind: String,
                /// Its content.
                fields: Cbor,
            },
        }

        impl Body {
            /// Returns what the body is about.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)+
                    Self::Unknown { kind, .. } => Kind::from_label(kind),
                }
            }

            pub(super) fn open(kind: &str, fields: Cbor) -> (Self, Extra) {
                let opened = match kind {
                    $($label $(| $once)* => {
                        static NAMES: value::Names = value::Names::new();
                        value::open::<$kind>(&fields, &NAMES).map(|(body, extra)| (body.into(), extra))
                    })+
                    _ => None,
                };
                opened.unwrap_or_else(|| {
                    (Self::Unknown { kind: kind.to_owned(), fields }, Extra::new())
                })
            }

            pub(super) fn close(&self, extra: &Extra) -> Cbor {
                match self {
                    $(Self::$kind(body) => value::close(body, extra),)+
                    Self::Unknown { fields, .. } => fields.clone(),
                }
            }

            /// Lists the categories in which a writer's records of this may lie, the usual one first; none if it
            /// is not theirs to write, or of an unknown kind, which stays in the stream it came in.
            pub fn belongs(&self, by: Writer) -> &'static [Category] {
                match self {
                    $(Self::$kind(body) => body.belongs(by),)+
                    Self::Unknown { .. } => &[],
                }
            }

            /// Checks what it says; `note` is the text that goes with it.
            pub(super) fn check(&self, by: Writer, note: &str) -> Result<(), Invalid> {
                match self {
                    $(Self::$kind(body) => {
                        body.check(by, note)?;
                        check(!body.belongs(by).is_empty(), "kind", "one that this side writes")
                    })+
                    Self::Unknown { .. } => check(false, "kind", "one that this version knows"),
                }
            }

            /// Checks that an edit may put it in another's place: of another kind it always may.
            pub(crate) fn may_follow(&self, before: &Self) -> Result<(), Invalid> {
                match (self, before) {
                    $((Self::$kind(body), Self::$kind(before)) => body.may_follow(before),)+
                    _ => Ok(()),
                }
            }
        }

        /// Writes the fields of the kind, without its name.
        impl Serialize for Body {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(body) => body.serialize(serializer),)+
                    Self::Unknown { fields, .. } => fields.serialize(serializer),
                }
            }
        }

        $(
            impl From<$kind> for Body {
                fn from(body: $kind) -> Self {
                    Self::$kind(body)
                }
            }

            /// Shows the kind alone: contents stay out of logs.
            impl fmt::Debug for $kind {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($kind)).finish_non_exhaustive()
                }
            }
        )+
    };
}

kinds! {
    /// A dose taken or not taken.
    Dose = "dose",
    /// The answers to an instrument.
    Answers = "answers" | "withdrawal_answers",
    /// A withdrawal band known without the answers behind it.
    WithdrawalBand = "withdrawal_band",
    /// Vital signs.
    Vitals = "vitals",
    /// The result of a drug screen.
    DrugScreen = "drug_screen",
    /// A use of a substance.
    UseEvent = "use_event",
    /// A session of the programme, attended or not.
    Visit = "visit",
    /// How a day feels.
    CheckIn = "check_in",
    /// What happened around an urge.
    Coping = "coping",
    /// A meeting of people who help each other.
    Meeting = "meeting",
    /// Something done for oneself.
    Activity = "activity",
    /// What a person wants.
    Goal = "goal",
    /// A person's word on a version of the plan.
    PlanSignOff = "plan_sign_off",
    /// A note, whose text is the record's collaborative note.
    Note = "note",
    /// A message between patient and care team.
    Message = "message",
    /// Who a person is.
    Person = "person",
    /// Where and with whom a person lives.
    LivingSituation = "living_situation",
    /// Somebody to call.
    Contact = "contact",
    /// Who pays.
    Coverage = "coverage",
    /// What somebody who helps in an emergency must know.
    EmergencyCard = "emergency_card",
    /// A written consent to disclose records.
    Consent = "consent",
    /// A request to restrict how records are used.
    RestrictionRequest = "restriction_request",
    /// What holds for the programme as a whole.
    Programme = "programme",
    /// A problem that is worked on.
    Problem = "problem",
    /// A condition that is treated.
    Condition = "condition",
    /// Somebody of the care team.
    TeamMember = "team_member",
    /// A medicine and how it is to be taken.
    Regimen = "regimen",
    /// Sessions that come again.
    SessionSeries = "session_series",
    /// How often something is asked of the person.
    Cadence = "cadence",
    /// The programme's own thresholds.
    Thresholds = "thresholds",
    /// An instrument of the programme's own.
    ProgrammeInstrument = "programme_instrument",
    /// A move between levels of care.
    LevelMove = "level_move",
    /// Who may come.
    Eligibility = "eligibility",
    /// A permission of the payer.
    Authorization = "authorization",
    /// How a person means to keep from returning to use.
    RelapsePrevention = "relapse_prevention",
    /// What comes after the programme.
    Aftercare = "aftercare",
    /// Something that can help.
    Resource = "resource",
    /// A person was sent somewhere.
    Referral = "referral",
    /// A version of the plan.
    PlanVersion = "plan_version",
    /// Somebody has seen records.
    Seen = "seen",
    /// What was done about an alert.
    AlertAction = "alert_action",
    /// The answer to a request for restriction.
    RestrictionAnswer = "restriction_answer",
}

/// Shows the kind alone: contents stay out of logs.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({})", self.kind().label())
    }
}

impl Writer {
    /// The categories of what a patient logs, and a clinic too, as what it observed.
    pub(super) fn of_patient(self, categories: &'static [Category]) -> &'static [Category] {
        match self {
            Self::Patient => categories,
            Self::Clinic => &[Category::Observations],
        }
    }

    /// The categories of what a clinic alone writes.
    pub(super) fn of_clinic(self, categories: &'static [Category]) -> &'static [Category] {
        match self {
            Self::Patient => &[],
            Self::Clinic => categories,
        }
    }
}

pub(crate) fn check(
    fits: bool,
    field: impl Into<Cow<'static, str>>,
    allowed: impl ToString,
) -> Result<(), Invalid> {
    if fits { Ok(()) } else { Err(Invalid { field: field.into(), allowed: allowed.to_string() }) }
}

/// Checks a name, label or reason.
pub(super) fn text(field: &'static str, value: &str) -> Result<(), Invalid> {
    let fits = (1..=TEXT_CHARS_MAX).contains(&value.chars().count());
    check(fits, field, format_args!("1 to {TEXT_CHARS_MAX} characters"))
}

pub(super) fn optional_text(field: &'static str, value: Option<&str>) -> Result<(), Invalid> {
    value.map_or(Ok(()), |value| text(field, value))
}

pub(super) fn each_text(field: &'static str, values: &[String]) -> Result<(), Invalid> {
    check(values.len() <= LINES_MAX, field, format_args!("at most {LINES_MAX} lines"))?;
    values.iter().try_for_each(|value| text(field, value))
}

/// Makes a list of lines.
pub(super) fn lines(lines: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    lines.into_iter().map(Into::into).collect()
}

/// Checks sentences.
pub(super) fn prose(field: &'static str, value: &str) -> Result<(), Invalid> {
    let fits = (1..=PROSE_CHARS_MAX).contains(&value.chars().count());
    check(fits, field, format_args!("1 to {PROSE_CHARS_MAX} characters"))
}

pub(super) fn optional_prose(field: &'static str, value: Option<&str>) -> Result<(), Invalid> {
    value.map_or(Ok(()), |value| prose(field, value))
}

/// Checks a number, where one is given.
pub(super) fn optional<T: PartialOrd + fmt::Display>(
    field: &'static str,
    value: Option<T>,
    range: RangeInclusive<T>,
) -> Result<(), Invalid> {
    let fits = value.is_none_or(|value| range.contains(&value));
    check(fits, field, format_args!("{} to {}", range.start(), range.end()))
}

/// Checks the name of a time zone.
pub(super) fn zone(field: &'static str, name: &str) -> Result<(), Invalid> {
    let known = jiff::tz::TimeZone::get(name).is_ok();
    check(known, field, "the IANA name of a time zone, such as America/New_York")
}

/// Most lines of a list.
const LINES_MAX: usize = 100;
