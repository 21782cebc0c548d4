//! Words: notes and messages.

use serde::{Deserialize, Serialize};

use super::body::{Content, check, prose};
use super::{Category, Invalid, RecordId, Writer};

/// A note; its text is [`super::Entry::note`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Whom the patient wants to read it.
    pub audience: Audience,
}

/// Names whom a note is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// The care team.
    CareTeam,
    /// Nobody but the patient.
    OnlyMe,
}

impl Content for Note {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        match (by, self.audience) {
            (Writer::Patient, Audience::CareTeam) => &[Category::Symptoms],
            (Writer::Patient, Audience::OnlyMe) => &[Category::Private],
            (Writer::Clinic, _) => &[Category::Observations],
        }
    }

    fn check(&self, by: Writer, note: &str) -> Result<(), Invalid> {
        let own = by == Writer::Patient || self.audience == Audience::CareTeam;
        check(own, "audience", "care_team, from the clinic")?;
        check(!note.is_empty(), "note", "some text")
    }
}

/// A message between patient and care team; what was sent is never merged, so its text is its own.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What it says.
    pub text: String,
    /// The message that it answers.
    #[serde(default)]
    pub reply_to: Option<RecordId>,
}

impl Content for Message {
    fn belongs(&self, _: Writer) -> &'static [Category] {
        &[Category::Messages]
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        prose("text", &self.text)
    }
}
