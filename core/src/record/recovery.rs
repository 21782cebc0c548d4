//! A person's own work: coping, meetings, activities, goals, and the word on a plan.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional, optional_prose, optional_text, text};
use super::{Category, Invalid, Mode, RecordId, Writer};

/// What happened around an urge, as cognitive behavioural therapy looks at it: at least one of these.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coping {
    /// Where and with whom it began.
    pub situation: Option<String>,
    /// What set it off.
    pub trigger: Option<Trigger>,
    /// The thought that came.
    pub thought: Option<String>,
    /// How the thought bends things, if it does.
    pub distortion: Option<Distortion>,
    /// The feeling that came with it.
    pub emotion: Option<String>,
    /// How strong the urge was, 0 to 10.
    pub urge: Option<u8>,
    /// What was tried against it: a skill's id ([`crate::clinical::skills`]) or own words.
    pub skill: Option<String>,
    /// How strong the urge was afterwards, 0 to 10.
    pub urge_after: Option<u8>,
}

/// Names what set an urge off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person.
    People,
    /// A place.
    Place,
    /// A feeling.
    Feeling,
    /// A thing, a picture, a smell.
    Thing,
    /// Pain or another bodily feeling.
    Body,
    /// A time of the day, a date.
    Time,
    /// Something else.
    Other,
}

/// Names how a thought bends things.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distortion {
    /// All or nothing.
    AllOrNothing,
    /// Expecting the worst.
    Catastrophizing,
    /// Knowing what others think.
    MindReading,
    /// Making one time every time.
    Overgeneralization,
    /// Seeing only what is bad.
    MentalFilter,
    /// Taking a feeling for a fact.
    EmotionalReasoning,
    /// Having to, having failed to.
    ShouldStatement,
    /// Naming oneself or others.
    Labeling,
    /// Taking everything to oneself.
    Personalization,
    /// Allowing oneself just this once.
    PermissionGiving,
}

impl Coping {
    /// Says where and with whom it began.
    #[must_use]
    pub fn situation(mut self, situation: impl Into<String>) -> Self {
        self.situation = Some(situation.into());
        self
    }

    /// Says what set it off.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = Some(trigger);
        self
    }

    /// Tells the thought that came.
    #[must_use]
    pub fn thought(mut self, thought: impl Into<String>) -> Self {
        self.thought = Some(thought.into());
        self
    }

    /// Says how the thought bends things.
    #[must_use]
    pub fn distortion(mut self, distortion: Distortion) -> Self {
        self.distortion = Some(distortion);
        self
    }

    /// Tells the feeling that came with it.
    #[must_use]
    pub fn emotion(mut self, emotion: impl Into<String>) -> Self {
        self.emotion = Some(emotion.into());
        self
    }

    /// Says how strong the urge was.
    #[must_use]
    pub fn urge(mut self, urge: u8) -> Self {
        self.urge = Some(urge);
        self
    }

    /// Says what was tried against it.
    #[must_use]
    pub fn skill(mut self, skill: impl Into<String>) -> Self {
        self.skill = Some(skill.into());
        self
    }

    /// Says how strong the urge was afterwards.
    #[must_use]
    pub fn urge_after(mut self, urge_after: u8) -> Self {
        self.urge_after = Some(urge_after);
        self
    }
}

impl Content for Coping {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Recovery])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(*self != Self::default(), "coping", "at least one answer")?;
        optional_prose("situation", self.situation.as_deref())?;
        optional_prose("thought", self.thought.as_deref())?;
        optional_text("emotion", self.emotion.as_deref())?;
        optional("urge", self.urge, 0..=10)?;
        optional_text("skill", self.skill.as_deref())?;
        optional("urge_after", self.urge_after, 0..=10)
    }
}

/// A meeting of people who help each other.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Meeting {
    /// Whose meeting.
    pub fellowship: Fellowship,
    /// Its name or place, if told.
    #[serde(default)]
    pub label: Option<String>,
    /// How the person took part, if told.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// How many minutes, 1 to 1440, if told.
    #[serde(default)]
    pub minutes: Option<u16>,
}

/// Names a fellowship of mutual help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fellowship {
    /// Narcotics Anonymous.
    NarcoticsAnonymous,
    /// Alcoholics Anonymous.
    AlcoholicsAnonymous,
    /// Another of twelve steps.
    TwelveStep,
    /// SMART Recovery.
    Smart,
    /// A meeting of families and friends.
    Family,
    /// Any other.
    Other,
}

impl Meeting {
    /// Makes a meeting of which nothing else is told.
    pub fn new(fellowship: Fellowship) -> Self {
        Self { fellowship, label: None, mode: None, minutes: None }
    }

    /// Gives its name or place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says how the person took part.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Says how many minutes it was.
    #[must_use]
    pub fn minutes(mut self, minutes: u16) -> Self {
        self.minutes = Some(minutes);
        self
    }
}

impl Content for Meeting {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Recovery])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        optional_text("label", self.label.as_deref())?;
        optional("minutes", self.minutes, 1..=1_440)
    }
}

/// Something done for oneself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Of what sort.
    pub sort: ActivitySort,
    /// What exactly, if told.
    #[serde(default)]
    pub label: Option<String>,
    /// How many minutes, 1 to 1440, if told.
    #[serde(default)]
    pub minutes: Option<u16>,
}

/// Names a sort of activity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivitySort {
    /// Exercise.
    Exercise,
    /// Yoga, meditation, mindfulness.
    Mindfulness,
    /// Paid work.
    Work,
    /// School or training.
    School,
    /// Work for others.
    Volunteering,
    /// Time with family or friends.
    Company,
    /// Something else.
    Other,
}

impl Activity {
    /// Makes an activity of which nothing else is told.
    pub fn new(sort: ActivitySort) -> Self {
        Self { sort, label: None, minutes: None }
    }

    /// Says what exactly.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says how many minutes it was.
    #[must_use]
    pub fn minutes(mut self, minutes: u16) -> Self {
        self.minutes = Some(minutes);
        self
    }
}

impl Content for Activity {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Recovery])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        optional_text("label", self.label.as_deref())?;
        optional("minutes", self.minutes, 1..=1_440)
    }
}

/// What a person wants, in their own words.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What.
    pub text: String,
    /// By when, if told.
    #[serde(default)]
    pub target: Option<Date>,
    /// How it stands.
    pub state: GoalState,
}

/// Tells how it stands with a goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalState {
    /// Being worked on.
    Open,
    /// Reached.
    Reached,
    /// Put aside for now.
    SetAside,
}

impl Goal {
    /// Makes a goal that is worked on.
    pub fn open(text: impl Into<String>) -> Self {
        Self { text: text.into(), target: None, state: GoalState::Open }
    }

    /// Says by when.
    #[must_use]
    pub fn target(mut self, target: Date) -> Self {
        self.target = Some(target);
        self
    }

    /// Says how it stands.
    #[must_use]
    pub fn state(mut self, state: GoalState) -> Self {
        self.state = state;
        self
    }
}

impl Content for Goal {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Recovery])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("text", &self.text)
    }
}

/// A person's word on a version of the treatment plan.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSignOff {
    /// The record of the version, a [`super::PlanVersion`].
    pub version: RecordId,
    /// Its number, as it was shown.
    pub number: u32,
    /// Whether the person agrees; reasons and wishes go into the note.
    pub agreed: bool,
}

impl Content for PlanSignOff {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        match by {
            Writer::Patient => &[Category::Recovery],
            // Nobody signs for somebody else here.
            Writer::Clinic => &[],
        }
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(self.number > 0, "number", "1 or more")
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::record::tests::refused_by_patient;

    #[test]
    fn own_work_fits_once_something_is_told() {
        assert_eq!(refused_by_patient(Coping::default()).as_deref(), Some("coping"));
        let coping = Coping::default()
            .situation("alone at home")
            .trigger(Trigger::Feeling)
            .thought("just this once")
            .distortion(Distortion::PermissionGiving)
            .emotion("restless")
            .urge(8)
            .skill("urge_surfing")
            .urge_after(3);
        assert_eq!(refused_by_patient(coping.clone()), None);
        assert_eq!(refused_by_patient(coping.clone().urge(11)).as_deref(), Some("urge"));
        assert_eq!(refused_by_patient(coping.urge_after(11)).as_deref(), Some("urge_after"));

        let meeting = Meeting::new(Fellowship::Smart);
        assert_eq!(refused_by_patient(meeting.clone()), None);
        let meeting = meeting.label("Tuesday room").mode(Mode::Audio).minutes(60);
        assert_eq!(refused_by_patient(meeting.clone()), None);
        assert_eq!(refused_by_patient(meeting.minutes(0)).as_deref(), Some("minutes"));

        let activity = Activity::new(ActivitySort::Exercise).label("a walk");
        assert_eq!(refused_by_patient(activity.clone().minutes(25)), None);
        assert_eq!(refused_by_patient(activity.minutes(1_441)).as_deref(), Some("minutes"));

        let goal = Goal::open("see my sister").target(date(2026, 5, 1));
        assert_eq!(refused_by_patient(goal.clone().state(GoalState::Reached)), None);
        assert_eq!((refused_by_patient(goal.clone()), goal.state), (None, GoalState::Open));
        assert_eq!(refused_by_patient(Goal::open("")).as_deref(), Some("text"));
    }
}
