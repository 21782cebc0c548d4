//! What calls for attention: rules R1 to R28, each a small function of chart and time.
//!
//! A [`Rule`] finds [`Finding`]s. What is found is the same on every device that has the same records, in
//! whatever order they came, so a finding's id is a hash of what it is about. When each device found it, and
//! what became of it as later records arrived, is kept by the [`Ledger`].
//!
//! Thresholds have a default and its source here; a programme's own stand in its plan
//! ([`Thresholds`]). No rule takes missing data for a bad answer: what nobody said
//! is [`Certainty::Unknown`], and told apart from what was missed.

use std::{borrow::Cow, fmt};

use ebb_protocol::verify;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

pub use self::ledger::{Alert, AlertEvent, AlertState, Change, Ledger};
use super::{
    chart::{Chart, Point, Topic},
    trend,
};
use crate::record::{AlertId, Category, Invalid, RecordId, Thresholds};

mod ledger;
mod medicines;
mod programme;
mod scales;
#[cfg(test)]
mod tests;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A rule: when it finds what, and where that comes from.
pub struct Rule {
    /// Its id, such as `R6`.
    pub id: &'static str,
    /// Counts up when what it finds changes.
    pub version: u16,
    /// What it looks for.
    pub title: &'static str,
    /// The figures in it that a programme may set.
    pub parameters: &'static [Parameter],
    /// Where it comes from.
    pub source: &'static str,
    /// What it reads: it is evaluated again when a record tells something about one of these.
    pub reads: &'static [Topic],
    /// Whether time alone can make it find something.
    pub by_clock: bool,
    find: fn(&Case<'_>) -> Vec<Finding>,
}

/// A figure of a rule that a programme may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name within the rule, such as `total`.
    pub name: &'static str,
    /// What it is if the programme says nothing.
    pub default: f64,
    /// What it counts.
    pub unit: &'static str,
    /// The least that it may be set to.
    pub min: f64,
    /// The most.
    pub max: f64,
}

/// How pressing a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something to know; nothing is to be done.
    Info,
    /// Something to tell the person, in kind words.
    Notice,
    /// Something that the care team looks at when it next looks at this person.
    Review,
    /// Somebody of the care team gets in touch today.
    SameDay,
    /// Somebody acts now.
    Urgent,
    /// The emergency path; the phone shows the crisis screen at once, with or without a network.
    Emergency,
}

/// Who has to do with a finding first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The person.
    Patient,
    /// Whoever of the care team looks first.
    CareTeam,
    /// Who prescribes.
    Prescriber,
    /// Who speaks with payers.
    UtilizationReview,
    /// Who watches over what is disclosed.
    PrivacyOfficer,
}

/// Whether something is known to be so, or not known not to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Records say so.
    Known,
    /// Records that would tell are missing: somebody must ask.
    Unknown,
}

/// Something that a rule found.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The same for the same rule, version, subject and window, on every device.
    pub id: AlertId,
    /// The rule's id.
    pub rule: Cow<'static, str>,
    /// The rule's version.
    pub version: u16,
    /// What it is about: an instrument, a medicine, a session.
    pub subject: String,
    /// When what it is about began, in ms since the Unix epoch.
    pub from_ms: i64,
    /// When that ended; `None` while it lasts.
    pub until_ms: Option<i64>,
    /// When the last thing happened without which it would not have been found, in ms since the Unix epoch.
    pub observed_ms: i64,
    /// How pressing it is.
    pub severity: Severity,
    /// Whether it is known, or not known not to be.
    pub certainty: Certainty,
    /// Whether what it warns of should wait until somebody has looked and given a reason.
    pub holds: bool,
    /// Who has to do with it first.
    pub owner: Owner,
    /// What was found, in English, with its figures; never for a lock screen.
    pub text: String,
    /// The records that it was found in.
    pub inputs: Vec<RecordId>,
}

/// What a device knows beside the records of a chart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// When the server last received anything that the person logged, by the server's clock in ms since the
    /// Unix epoch; `None` on the person's own device.
    pub last_heard_ms: Option<i64>,
    /// To whom which categories are granted now.
    pub grants: Vec<Grant>,
}

/// A category whose key a member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The member.
    pub member: ebb_protocol::id::MemberId,
    /// The category.
    pub category: Category,
}

/// What a rule is asked to look at.
struct Case<'a> {
    rule: &'static Rule,
    chart: &'a Chart,
    around: &'a Surroundings,
    now_ms: i64,
    /// Only what lasts until here, or longer, is asked for.
    since_ms: i64,
}

/// Every rule, in order.
pub static RULES: &[Rule] = &[
    scales::R1,
    scales::R2,
    scales::R3,
    scales::R4,
    scales::R5,
    scales::R6,
    medicines::R7,
    medicines::R8,
    scales::R9,
    scales::R10,
    scales::R11,
    scales::R12,
    medicines::R13,
    medicines::R14,
    medicines::R15,
    medicines::R16,
    medicines::R17,
    medicines::R18,
    programme::R19,
    programme::R20,
    programme::R21,
    medicines::R22,
    scales::R23,
    scales::R24,
    programme::R25,
    programme::R26,
    programme::R27,
    programme::R28,
];

/// Finds everything that the rules find, in the order of the rules; `now_ms` is in ms since the Unix epoch.
///
/// [`Ledger::look`] does the same for what a record touched, and keeps the history.
#[must_use]
pub fn evaluate(chart: &Chart, around: &Surroundings, now_ms: i64) -> Vec<Finding> {
    find(chart, around, now_ms, |_| Some(i64::MIN))
}

/// Finds what lasts until the moment that `asked` gives for a rule, or longer; nothing by the others.
fn find(
    chart: &Chart,
    around: &Surroundings,
    now_ms: i64,
    asked: impl Fn(&'static Rule) -> Option<i64>,
) -> Vec<Finding> {
    let off = |rule: &Rule| {
        let own = chart.plan.thresholds();
        own.is_some_and(|own| own.rules_off.iter().any(|off| off == rule.id))
    };
    let mut found = Vec::new();
    for rule in RULES.iter().filter(|rule| !off(rule)) {
        let Some(since_ms) = asked(rule) else { continue };
        let case = Case { rule, chart, around, now_ms, since_ms };
        let lasts = |finding: &Finding| finding.until_ms.is_none_or(|until| until >= since_ms);
        found.extend((rule.find)(&case).into_iter().filter(lasts));
    }
    found
}

/// Checks a programme's thresholds: that each names a parameter, rule, instrument or band table that there is,
/// and lies where the parameter may lie.
///
/// # Errors
///
/// Names the entry that does not fit and what would.
pub fn check_thresholds(
    thresholds: &Thresholds,
    instruments: &super::instrument::Instruments,
) -> Result<(), Invalid> {
    let refuse = |field: String, allowed: String| Err(Invalid { field: field.into(), allowed });
    for (name, value) in &thresholds.values {
        let Some(parameter) = find_parameter(name) else {
            let all =
                RULES.iter().flat_map(|rule| rule.parameters.iter().map(move |one| (rule.id, one.name)));
            let names: Vec<_> = all.map(|(rule, name)| format!("{rule}.{name}")).collect();
            return refuse("values".into(), format!("named {}", names.join(", ")));
        };
        if !(parameter.min..=parameter.max).contains(value) {
            let Parameter { min, max, unit, .. } = parameter;
            return refuse(format!("values.{name}"), format!("{min} to {max} {unit}"));
        }
    }
    for off in &thresholds.rules_off {
        if !RULES.iter().any(|rule| rule.id == off) {
            return refuse("rules_off".into(), "rules from R1 to R28".into());
        }
    }
    for id in &thresholds.instruments_on {
        if instruments.get(id).is_none() {
            return refuse("instruments_on".into(), "ids of instruments".into());
        }
    }
    for (id, table) in &thresholds.bands {
        let Some(instrument) = instruments.get(id) else {
            return refuse("bands".into(), "by the ids of instruments".into());
        };
        let tables: Vec<_> =
            instrument.scales.iter().flat_map(|scale| &scale.tables).map(|table| table.id.as_str()).collect();
        if !tables.contains(&table.as_str()) {
            return refuse(format!("bands.{id}"), format!("one of {}", tables.join(", ")));
        }
    }
    Ok(())
}

/// Finds a parameter by its full name, such as `R6.total`.
#[must_use]
pub fn find_parameter(name: &str) -> Option<&'static Parameter> {
    let (id, name) = name.split_once('.')?;
    let rule = RULES.iter().find(|rule| rule.id == id)?;
    rule.parameters.iter().find(|parameter| parameter.name == name)
}

impl Rule {
    /// Says whether a record that told something about these topics can change what the rule finds.
    #[must_use]
    pub fn reads_any(&self, topics: &std::collections::BTreeSet<Topic>) -> bool {
        self.reads.iter().any(|topic| topics.contains(topic))
    }
}

/// Shows the id alone.
impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({} version {})", self.id, self.version)
    }
}

impl<'a> Case<'a> {
    /// What a parameter is: the programme's value, or the default.
    fn value(&self, name: &str) -> f64 {
        let own = self.chart.plan.thresholds();
        let own = own.filter(|own| !own.values.is_empty());
        let set = own.and_then(|own| own.values.get(&format!("{}.{name}", self.rule.id)).copied());
        let parameter = self.rule.parameters.iter().find(|parameter| parameter.name == name);
        set.unwrap_or_else(|| parameter.expect("a rule asks for its own parameters").default)
    }

    /// Hours of a parameter, in ms.
    fn hours(&self, name: &str) -> i64 {
        ms(self.value(name), HOUR_MS)
    }

    /// Days of a parameter, in ms.
    fn days(&self, name: &str) -> i64 {
        ms(self.value(name), DAY_MS)
    }

    /// Minutes of a parameter, in ms.
    fn minutes(&self, name: &str) -> i64 {
        ms(self.value(name), MINUTE_MS)
    }

    /// A moment some time before what is asked for.
    fn since(&self, earlier_ms: i64) -> i64 {
        self.since_ms.saturating_sub(earlier_ms)
    }

    /// A finding about one thing that happened: its window is that moment, its key the record.
    fn at<T>(&self, point: &Point<T>, subject: impl Into<String>) -> Draft {
        let at = point.at.millis;
        self.draft(subject, point.record.as_bytes(), at, Some(at), at).input(point.record)
    }

    /// A finding about a span of time, whose key tells it from others of its rule and subject.
    fn draft(
        &self,
        subject: impl Into<String>,
        key: &[u8],
        from_ms: i64,
        until_ms: Option<i64>,
        observed_ms: i64,
    ) -> Draft {
        let subject = subject.into();
        let version = self.rule.version.to_be_bytes();
        let length = u32::try_from(subject.len()).unwrap_or(u32::MAX).to_be_bytes();
        let parts = [
            b"ebb/alert/1".as_slice(),
            self.rule.id.as_bytes(),
            &[0],
            &version,
            &length,
            subject.as_bytes(),
            key,
        ];
        let hash = verify::sha256(&parts);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.0[..16]);
        Draft(Finding {
            id: AlertId(id),
            rule: self.rule.id.into(),
            version: self.rule.version,
            subject,
            from_ms,
            until_ms,
            observed_ms,
            severity: Severity::Review,
            certainty: Certainty::Known,
            holds: false,
            owner: Owner::CareTeam,
            text: String::new(),
            inputs: Vec::new(),
        })
    }
}

const fn parameter(name: &'static str, default: f64, unit: &'static str, min: f64, max: f64) -> Parameter {
    Parameter { name, default, unit, min, max }
}

/// A finding in the making.
struct Draft(Finding);

impl Draft {
    fn input(mut self, record: RecordId) -> Self {
        if !self.0.inputs.contains(&record) {
            self.0.inputs.push(record);
        }
        self
    }

    fn inputs(self, records: impl IntoIterator<Item = RecordId>) -> Self {
        records.into_iter().fold(self, Self::input)
    }

    fn owner(mut self, owner: Owner) -> Self {
        self.0.owner = owner;
        self
    }

    fn unknown(mut self) -> Self {
        self.0.certainty = Certainty::Unknown;
        self
    }

    fn holds(mut self) -> Self {
        self.0.holds = true;
        self
    }

    fn says(mut self, severity: Severity, text: impl Into<String>) -> Finding {
        self.0.severity = severity;
        self.0.text = text.into();
        self.0
    }
}

/// Shows rule and id alone: what was found stays out of logs.
impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finding({} {})", self.rule, self.id)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "parameters are small; `as` saturates for what is not")]
fn ms(many: f64, unit_ms: i64) -> i64 {
    (many * unit_ms as f64) as i64
}

/// The day of something, by the clock on the wall where it was lived.
fn day_of<T>(point: &Point<T>) -> Date {
    trend::day_of(point.at)
}

/// When a day begins by the clock on the wall that something was lived by, in ms since the Unix epoch.
fn begins_ms<T>(day: Date, beside: &Point<T>) -> i64 {
    trend::number(day) * DAY_MS - i64::from(beside.at.offset_minutes) * MINUTE_MS
}

/// A day as a part of an alert's identity.
fn key_of(day: Date) -> [u8; 8] {
    trend::number(day).to_be_bytes()
}
