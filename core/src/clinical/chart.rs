//! What is known of a person, each thing in the order in which it happened: what rules, trends and today read.
//!
//! A [`Chart`] is what its records say, in whatever order they came: putting a record again replaces what it
//! said before, a retraction takes it out. Nothing is lost between "nobody said" and "it was not so".

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    instrument::{Instrument, Instruments, SafetyHit, Scores},
    plan::Plan,
    substance::Medicine,
};
use crate::record::{
    AlertAction, Answers, BandInstrument, Body, Category, Consent, Contact, Dose, DrugScreen, Invalid,
    Moment, PlanSignOff, Record, RecordId, UseEvent, Visit, WithdrawalBand, Writer,
};

/// The scale whose series carries its instrument's own name.
const TOTAL: &str = "total";

/// What is known of a person.
#[derive(Clone, Default)]
pub struct Chart {
    /// The plan.
    pub plan: Plan,
    /// Answers, drafts among them, by instrument.
    pub answers: BTreeMap<String, Series<Answers>>,
    /// Scores and other numbers.
    pub readings: BTreeMap<Measure, Series<Reading>>,
    /// Answers that call for somebody at once, by instrument; from drafts too.
    pub safety: BTreeMap<String, Series<Vec<SafetyHit>>>,
    /// Withdrawal bands without answers.
    pub bands: BTreeMap<BandScale, Series<WithdrawalBand>>,
    /// Doses taken and not taken, by medicine.
    pub doses: BTreeMap<Medicine, Series<Dose>>,
    /// Drug screens.
    pub screens: Series<DrugScreen>,
    /// Uses of substances.
    pub uses: Series<UseEvent>,
    /// Sessions attended and not attended.
    pub visits: Series<Visit>,
    /// People to call.
    pub contacts: Series<Contact>,
    /// Consents given and taken back.
    pub consents: Series<Consent>,
    /// The person's word on versions of the plan.
    pub sign_offs: Series<PlanSignOff>,
    /// What the care team did about alerts.
    pub actions: Series<AlertAction>,
    /// Everything that the person logged themselves.
    pub entries: Series<()>,
    /// When the server last received anything that the person logged, by the server's clock in ms since the
    /// Unix epoch, as far as records tell.
    pub heard_ms: Option<i64>,
    instruments: Option<Instruments>,
    places: BTreeMap<RecordId, Place>,
}

/// Where a record stands in its series.
#[derive(Clone)]
struct Place {
    at_ms: i64,
    topics: BTreeSet<Topic>,
}

/// Names what a record told something about, and a rule reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Topic {
    /// The plan.
    Plan,
    /// Answers, their scores and safety items.
    Answers,
    /// Numbers that are not scores: check-ins and vitals.
    Readings,
    /// Withdrawal bands without answers.
    Bands,
    /// Doses.
    Doses,
    /// Drug screens.
    Screens,
    /// Uses of substances.
    Uses,
    /// Sessions.
    Visits,
    /// People to call.
    Contacts,
    /// Consents.
    Consents,
    /// The person's word on versions of the plan.
    SignOffs,
    /// What the care team did about alerts.
    Actions,
    /// That the person logged anything.
    Entries,
}

/// What a record changed in a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// What it told something about, before or now.
    pub topics: BTreeSet<Topic>,
    /// The earliest moment that it told of, before or now, in ms since the Unix epoch.
    pub since_ms: i64,
}

/// Things in the order in which they happened; those of one moment, in the order of their ids.
#[derive(Clone)]
pub struct Series<T>(BTreeMap<(i64, RecordId), Point<T>>);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<T> {
    /// The record that told of it.
    pub record: RecordId,
    /// When it happened, as it was lived.
    pub at: Moment,
    /// When it was written down, in ms since the Unix epoch by its author's clock.
    pub recorded_ms: i64,
    /// When the server received it, in ms since the Unix epoch by the server's clock, where that is known.
    pub received_ms: Option<i64>,
    /// Whose hand it is from.
    pub by: Writer,
    /// What it was.
    pub value: T,
}

/// Names a series of numbers: an instrument's total by the instrument's id, a subscale by
/// `instrument.scale`, a check-in's answer or a vital sign by its field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Measure(Cow<'static, str>);

/// A number that was measured, and what it was found to mean.
#[derive(Clone, PartialEq)]
pub struct Reading {
    /// The number, in the unit of its measure.
    pub value: f64,
    /// Its band, where its scale has bands.
    pub band: Option<BandName>,
    /// The cut-offs that it reaches, by their codes.
    pub cutoffs: Vec<String>,
}

/// A band, by code and weight.
#[derive(Clone, PartialEq, Eq)]
pub struct BandName {
    /// The band's code, such as `moderate`.
    pub code: String,
    /// Its place among the bands, 0 for the lightest.
    pub severity: u8,
    /// The band table that named it.
    pub table: String,
}

/// [`BandInstrument`], in an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BandScale {
    /// Clinical Opiate Withdrawal Scale.
    Cows,
    /// Subjective Opiate Withdrawal Scale.
    Sows16,
}

impl From<BandInstrument> for BandScale {
    fn from(instrument: BandInstrument) -> Self {
        match instrument {
            BandInstrument::Cows => Self::Cows,
            BandInstrument::Sows16 => Self::Sows16,
        }
    }
}

impl Measure {
    /// A measure by its name.
    #[must_use]
    pub const fn named(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The measure of a scale.
    #[must_use]
    pub fn of_scale(instrument: &str, scale: &str) -> Self {
        Self(Cow::Owned(if scale == TOTAL { instrument.to_owned() } else { format!("{instrument}.{scale}") }))
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Chart {
    /// Gathers what records say; their order does not matter.
    pub fn of<'a>(records: impl IntoIterator<Item = (&'a Record, Writer)>) -> Self {
        let mut chart = Self::default();
        for (record, by) in records {
            chart.put(record, by, None);
        }
        chart
    }

    /// Takes a record up, in place of what it said before, and says what that touched.
    ///
    /// `received_ms` is when the server received it, where that is known.
    pub fn put(&mut self, record: &Record, by: Writer, received_ms: Option<i64>) -> Touched {
        let before = self.remove(&record.id);
        if by == Writer::Patient {
            self.heard_ms = self.heard_ms.max(received_ms);
        }
        let mut topics = BTreeSet::new();
        if record.retracted.is_none() {
            let rescored = self.take_up(record, by, received_ms, &mut topics);
            if by == Writer::Patient {
                self.entries.put(point(record, by, received_ms, ()));
                topics.insert(Topic::Entries);
            }
            if rescored {
                self.score_again();
                topics.insert(Topic::Answers);
            }
            let at_ms = record.occurred.millis;
            self.places.insert(record.id, Place { at_ms, topics: topics.clone() });
        }
        let mut since_ms = record.occurred.millis;
        if let Some(before) = before {
            topics.extend(before.topics);
            since_ms = since_ms.min(before.since_ms);
        }
        // A plan says when things are due: what it changes may lie anywhere.
        if topics.contains(&Topic::Plan) {
            since_ms = i64::MIN;
        }
        Touched { topics, since_ms }
    }

    /// Takes a record out, and says what that touched; `None` if it is not there.
    pub fn remove(&mut self, record: &RecordId) -> Option<Touched> {
        let Place { at_ms, topics } = self.places.remove(record)?;
        let key = (at_ms, *record);
        for topic in &topics {
            match topic {
                Topic::Plan => {
                    self.plan.remove(record);
                    self.instruments = None;
                }
                Topic::Answers => {
                    self.answers.values_mut().for_each(|series| series.remove(key));
                    self.readings.values_mut().for_each(|series| series.remove(key));
                    self.safety.values_mut().for_each(|series| series.remove(key));
                }
                Topic::Readings => self.readings.values_mut().for_each(|series| series.remove(key)),
                Topic::Bands => self.bands.values_mut().for_each(|series| series.remove(key)),
                Topic::Doses => self.doses.values_mut().for_each(|series| series.remove(key)),
                Topic::Screens => self.screens.remove(key),
                Topic::Uses => self.uses.remove(key),
                Topic::Visits => self.visits.remove(key),
                Topic::Contacts => self.contacts.remove(key),
                Topic::Consents => self.consents.remove(key),
                Topic::SignOffs => self.sign_offs.remove(key),
                Topic::Actions => self.actions.remove(key),
                Topic::Entries => self.entries.remove(key),
            }
        }
        let since_ms = if topics.contains(&Topic::Plan) { i64::MIN } else { at_ms };
        Some(Touched { topics, since_ms })
    }

    /// Returns when what a record tells of happened, in ms since the Unix epoch, if the record is here.
    pub fn happened_ms(&self, record: &RecordId) -> Option<i64> {
        self.places.get(record).map(|place| place.at_ms)
    }

    /// Returns the instruments that answers may be to: those shipped, and the programme's own.
    pub fn instruments(&self) -> &Instruments {
        self.instruments.as_ref().unwrap_or_else(|| Instruments::shipped())
    }

    /// Returns a measure's readings.
    pub fn readings(&self, measure: &Measure) -> &Series<Reading> {
        self.readings.get(measure).unwrap_or(&EMPTY_READINGS)
    }

    /// Returns a medicine's doses.
    pub fn doses(&self, medicine: &Medicine) -> &Series<Dose> {
        self.doses.get(medicine).unwrap_or(&EMPTY_DOSES)
    }

    /// Scores answers, complete or not, by the band table that the programme chose; returns the instrument as
    /// well.
    ///
    /// # Errors
    ///
    /// Names the instrument, version or item that does not fit, and the values that would.
    pub fn scores(&self, answers: &Answers) -> Result<(&Instrument, Scores), Invalid> {
        // To score is not to log: anybody may, whoever answers.
        answers.check_against(Writer::Clinic, self.instruments())?;
        Ok(self.scored(answers).expect("answers that fit their instrument have scores"))
    }

    /// Scores answers by the version that they name, or else the newest; `None` if they do not fit it.
    fn scored(&self, answers: &Answers) -> Option<(&Instrument, Scores)> {
        let Answers { instrument: id, version, answers: values, .. } = answers;
        let instruments = self.instruments();
        let instrument = instruments.get_version(id, version).or_else(|| instruments.get(id))?;
        let table = self.plan.thresholds().and_then(|own| own.bands.get(id)).map(String::as_str);
        let scores = instrument.score(values, table).or_else(|_| instrument.score(values, None)).ok()?;
        Some((instrument, scores))
    }

    /// Takes up what a record says; `true` if answers must be scored again.
    fn take_up(
        &mut self,
        record: &Record,
        by: Writer,
        received_ms: Option<i64>,
        topics: &mut BTreeSet<Topic>,
    ) -> bool {
        if record.category == Category::Plan {
            topics.insert(Topic::Plan);
            self.plan.put(record);
            let rescores = matches!(record.body, Body::Thresholds(_) | Body::ProgrammeInstrument(_));
            if rescores {
                self.instruments = Some(self.plan.instruments());
            }
            return rescores;
        }
        match &record.body {
            Body::Answers(answers) => {
                topics.insert(Topic::Answers);
                let point = point(record, by, received_ms, answers.clone());
                self.score(&point);
                self.answers.entry(answers.instrument.clone()).or_default().put(point);
            }
            Body::WithdrawalBand(band) => {
                topics.insert(Topic::Bands);
                let series = self.bands.entry(band.instrument.into()).or_default();
                series.put(point(record, by, received_ms, band.clone()));
            }
            Body::Dose(dose) => {
                topics.insert(Topic::Doses);
                let medicine = Medicine::of(&dose.drug, dose.rxnorm.as_deref());
                let series = self.doses.entry(medicine).or_default();
                series.put(point(record, by, received_ms, dose.clone()));
            }
            Body::DrugScreen(screen) => {
                topics.insert(Topic::Screens);
                self.screens.put(point(record, by, received_ms, screen.clone()));
            }
            Body::UseEvent(used) => {
                topics.insert(Topic::Uses);
                self.uses.put(point(record, by, received_ms, used.clone()));
            }
            Body::Visit(visit) => {
                topics.insert(Topic::Visits);
                self.visits.put(point(record, by, received_ms, visit.clone()));
            }
            Body::Contact(contact) => {
                topics.insert(Topic::Contacts);
                self.contacts.put(point(record, by, received_ms, contact.clone()));
            }
            Body::Consent(consent) => {
                topics.insert(Topic::Consents);
                self.consents.put(point(record, by, received_ms, consent.clone()));
            }
            Body::PlanSignOff(word) => {
                topics.insert(Topic::SignOffs);
                self.sign_offs.put(point(record, by, received_ms, word.clone()));
            }
            Body::AlertAction(action) => {
                topics.insert(Topic::Actions);
                self.actions.put(point(record, by, received_ms, action.clone()));
            }
            Body::CheckIn(day) => {
                let small = |value: Option<u8>| value.map(f64::from);
                let numbers = [
                    ("mood", small(day.mood)),
                    ("stress", small(day.stress)),
                    ("craving", small(day.craving)),
                    ("pain", small(day.pain)),
                    ("sleep_hours", day.sleep_hours.map(f64::from)),
                ];
                self.read(record, by, received_ms, numbers, topics);
            }
            Body::Vitals(vitals) => {
                let whole = |value: Option<u16>| value.map(f64::from);
                let numbers = [
                    ("pulse", whole(vitals.pulse)),
                    ("systolic", whole(vitals.systolic)),
                    ("diastolic", whole(vitals.diastolic)),
                    ("temperature", vitals.temperature.map(f64::from)),
                    ("respiration", whole(vitals.respiration)),
                    ("oxygen_saturation", vitals.oxygen_saturation.map(f64::from)),
                    ("weight", vitals.weight.map(f64::from)),
                ];
                self.read(record, by, received_ms, numbers, topics);
            }
            _ => {}
        }
        false
    }

    fn read<const N: usize>(
        &mut self,
        record: &Record,
        by: Writer,
        received_ms: Option<i64>,
        numbers: [(&'static str, Option<f64>); N],
        topics: &mut BTreeSet<Topic>,
    ) {
        topics.insert(Topic::Readings);
        for (name, value) in numbers {
            let Some(value) = value else { continue };
            let reading = Reading { value, band: None, cutoffs: Vec::new() };
            let series = self.readings.entry(Measure::named(name)).or_default();
            series.put(point(record, by, received_ms, reading));
        }
    }

    /// Scores answers into their measures; a draft's safety items alone.
    fn score(&mut self, answers: &Point<Answers>) {
        let Answers { instrument: id, draft, .. } = &answers.value;
        // What does not fit was written by another version of the instrument: it is shown, and not scored.
        let Some((_, Scores { scales, safety, .. })) = self.scored(&answers.value) else { return };
        if !safety.is_empty() {
            self.safety.entry(id.clone()).or_default().put(answers.with(safety));
        }
        for scale in scales {
            let Some(value) = scale.value.filter(|_| !draft) else { continue };
            let band = scale.band.zip(scale.table).map(|(band, table)| BandName {
                code: band.code,
                severity: band.severity,
                table,
            });
            #[expect(clippy::cast_precision_loss, reason = "scores are small: the loader allows no others")]
            let reading = Reading { value: value as f64, band, cutoffs: scale.cutoffs };
            let series = self.readings.entry(Measure::of_scale(id, &scale.scale)).or_default();
            series.put(answers.with(reading));
        }
    }

    /// Scores all answers anew, as the plan now wants them read.
    fn score_again(&mut self) {
        let all: Vec<_> = self.answers.values().flat_map(|series| series.iter().cloned()).collect();
        for answers in &all {
            let key = (answers.at.millis, answers.record);
            self.readings.values_mut().for_each(|series| series.remove(key));
            self.safety.values_mut().for_each(|series| series.remove(key));
        }
        all.iter().for_each(|answers| self.score(answers));
    }
}

static EMPTY_READINGS: Series<Reading> = Series::new();
static EMPTY_DOSES: Series<Dose> = Series::new();

fn point<T>(record: &Record, by: Writer, received_ms: Option<i64>, value: T) -> Point<T> {
    let (at, recorded_ms) = (record.occurred, record.recorded_at);
    Point { record: record.id, at, recorded_ms, received_ms, by, value }
}

impl<T> Point<T> {
    fn with<U>(&self, value: U) -> Point<U> {
        let Self { record, at, recorded_ms, received_ms, by, .. } = *self;
        Point { record, at, recorded_ms, received_ms, by, value }
    }
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Series<T> {
    /// A series of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Lists everything, the earliest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Point<T>> {
        self.0.values()
    }

    /// Lists what happened from one moment on and before another, in ms since the Unix epoch.
    pub fn between(&self, from_ms: i64, until_ms: i64) -> impl DoubleEndedIterator<Item = &Point<T>> {
        let (from, until) = ((from_ms, FIRST_ID), (until_ms.max(from_ms), FIRST_ID));
        self.0.range(from..until).map(|(_, point)| point)
    }

    /// Lists what happened from a moment on.
    pub fn since(&self, from_ms: i64) -> impl DoubleEndedIterator<Item = &Point<T>> {
        self.0.range((from_ms, FIRST_ID)..).map(|(_, point)| point)
    }

    /// Returns what happened last before a point of this or another series; of what happened at the same
    /// moment, what has the smaller id.
    pub fn before<U>(&self, point: &Point<U>) -> Option<&Point<T>> {
        self.0.range(..(point.at.millis, point.record)).next_back().map(|(_, point)| point)
    }

    /// Returns what happened last, up to and including a moment.
    pub fn latest(&self, until_ms: i64) -> Option<&Point<T>> {
        self.0.range(..(until_ms.saturating_add(1), FIRST_ID)).next_back().map(|(_, point)| point)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn put(&mut self, point: Point<T>) {
        self.0.insert((point.at.millis, point.record), point);
    }

    fn remove(&mut self, key: (i64, RecordId)) {
        self.0.remove(&key);
    }
}

const FIRST_ID: RecordId = RecordId::from_bytes([0; 16]);

/// Shows the number of records alone: contents stay out of logs.
impl fmt::Debug for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chart({} records)", self.places.len())
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for BandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BandName").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{clinical::plan::tests::section, record::Thresholds};

    #[test]
    fn answers_that_nobody_logged_are_scored_as_the_plan_wants_them_read() {
        let of = |version: &str, first| Answers {
            instrument: "ciwa_ar".to_owned(),
            version: version.to_owned(),
            answers: (1..=10)
                .map(|item: i64| (item.to_string(), if item == 1 { first } else { 0 }))
                .collect(),
            draft: false,
        };
        let shipped = Instruments::shipped().get("ciwa_ar").unwrap().version.clone();
        let mut answers = of(&shipped, 7);
        answers.answers.insert("2".to_owned(), 1);
        let band = |chart: &Chart| {
            let (_, mut scores) = chart.scores(&answers).unwrap();
            scores.scales.remove(0).band.unwrap().code
        };
        let mut chart = Chart::default();
        assert_eq!(band(&chart), "mild");
        let own =
            Thresholds { bands: [("ciwa_ar".to_owned(), "va".to_owned())].into(), ..Thresholds::default() };
        chart.put(&section(1, date(2026, 1, 1), own), Writer::Clinic, None);
        assert_eq!(band(&chart), "moderate");
        let refused = |answers: &Answers| chart.scores(answers).unwrap_err().field.into_owned();
        assert_eq!(refused(&of("0", 7)), "version");
        assert_eq!(refused(&of(&shipped, 8)), "answers.1");
    }
}
