//! What the logs say over a span of days, put together for a payer's review: figures with the records behind
//! them, and no notes.

use std::{collections::BTreeMap, fmt};

use jiff::civil::Date;

use super::{
    answers::answered_doses,
    attendance::{Outcome, WeekHours, occasions},
    calendar::plus_days,
    level::{Stay, history},
    schedule::Weeks,
};
use crate::{
    clinical::{
        chart::{BandName, BandScale, Chart},
        substance::Medicine,
    },
    record::{Band, Domain, GoalState, Moment, Phase, PlannedDose, RecordId, ScreenResult, Specimen, Taking},
};

/// What the logs say over a span of days.
#[derive(Clone)]
pub struct EvidencePacket {
    /// The first day, in the programme's zone.
    pub from: Date,
    /// The last day.
    pub until: Date,
    /// The levels of care of that time.
    pub levels: Vec<Stay>,
    /// The scores, the earliest first.
    pub scores: Vec<ScoreLine>,
    /// The withdrawal bands without answers, the earliest first.
    pub bands: Vec<BandLine>,
    /// The hours of each programme week that has a day in it, counted in full.
    pub weeks: Vec<WeekLine>,
    /// The doses, by medicine.
    pub doses: Vec<DoseLine>,
    /// The drug screens, the earliest first.
    pub screens: Vec<ScreenLine>,
    /// What is to be reached, and not put aside, by the plan as it stands.
    pub goals: Vec<GoalLine>,
}

/// A score.
#[derive(Clone, PartialEq)]
pub struct ScoreLine {
    /// The record of the answers.
    pub record: RecordId,
    /// When they were given.
    pub at: Moment,
    /// The measure's name, such as `phq9` or `bam.risk`.
    pub measure: String,
    /// The score.
    pub value: f64,
    /// Its band.
    pub band: Option<BandName>,
    /// The cut-offs that it reaches, by their codes.
    pub cutoffs: Vec<String>,
}

/// A withdrawal band without answers.
#[derive(Clone, PartialEq)]
pub struct BandLine {
    /// Its record.
    pub record: RecordId,
    /// When it was found.
    pub at: Moment,
    /// By which scale.
    pub scale: BandScale,
    /// The band.
    pub band: Band,
    /// In which phase of treatment.
    pub phase: Phase,
}

/// A week's hours.
#[derive(Clone, PartialEq)]
pub struct WeekLine {
    /// The hours.
    pub hours: WeekHours,
    /// The records of visits behind them.
    pub records: Vec<RecordId>,
}

/// The doses of a medicine.
#[derive(Clone, PartialEq)]
pub struct DoseLine {
    /// Which.
    pub medicine: Medicine,
    /// The records of doses taken, in the plan or not.
    pub taken: Vec<RecordId>,
    /// The records of doses not taken.
    pub not_taken: Vec<RecordId>,
    /// Doses of the plan of which nobody knows, up to the moment of the packet.
    pub unknown: Vec<PlannedDose>,
}

/// A drug screen.
#[derive(Clone, PartialEq)]
pub struct ScreenLine {
    /// Its record.
    pub record: RecordId,
    /// When it was taken.
    pub at: Moment,
    /// Of what.
    pub specimen: Specimen,
    /// What was looked for.
    pub substance: String,
    /// What was found.
    pub result: ScreenResult,
    /// Whether that was expected, where somebody said so.
    pub expected: Option<bool>,
}

/// A goal of the treatment plan.
#[derive(Clone, PartialEq)]
pub struct GoalLine {
    /// The record of its problem.
    pub record: RecordId,
    /// Of which side of life.
    pub domain: Domain,
    /// What is to be reached.
    pub text: String,
    /// By when.
    pub target: Option<Date>,
    /// How it stands.
    pub state: GoalState,
}

/// Puts together what the logs say from one day to another, as it is known at a moment, in ms since the Unix
/// epoch.
#[must_use]
pub fn evidence_packet(chart: &Chart, from: Date, until: Date, now_ms: i64) -> EvidencePacket {
    let weeks = Weeks::of(&chart.plan);
    let (from_ms, until_ms) = (weeks.zone.starts_ms(from), weeks.zone.starts_ms(plus_days(until, 1)));
    let levels = history(&chart.plan).into_iter();
    let touches =
        |stay: &Stay| stay.from_ms < until_ms && stay.until_ms.is_none_or(|until_ms| from_ms < until_ms);
    let mut goals = Vec::new();
    for problem in chart.plan.problems() {
        let domain = problem.value.domain;
        let open = problem.value.goals.iter().filter(|goal| goal.state != GoalState::SetAside);
        goals.extend(open.map(|goal| GoalLine {
            record: problem.record,
            domain,
            text: goal.text.clone(),
            target: goal.target,
            state: goal.state,
        }));
    }
    EvidencePacket {
        from,
        until,
        levels: levels.filter(touches).collect(),
        scores: scores(chart, from_ms, until_ms),
        bands: bands(chart, from_ms, until_ms),
        weeks: weeks.between(from, until).map(|week| week_line(chart, &weeks, week, now_ms)).collect(),
        doses: doses(chart, from_ms, until_ms, now_ms),
        screens: screens(chart, from_ms, until_ms),
        goals,
    }
}

fn scores(chart: &Chart, from_ms: i64, until_ms: i64) -> Vec<ScoreLine> {
    let mut lines = Vec::new();
    for (measure, series) in &chart.readings {
        let instrument = measure.name().split('.').next().unwrap_or_default();
        if chart.answers.contains_key(instrument) {
            lines.extend(series.between(from_ms, until_ms).map(|reading| ScoreLine {
                record: reading.record,
                at: reading.at,
                measure: measure.name().to_owned(),
                value: reading.value.value,
                band: reading.value.band.clone(),
                cutoffs: reading.value.cutoffs.clone(),
            }));
        }
    }
    lines.sort_by_key(|line| line.at.millis);
    lines
}

fn bands(chart: &Chart, from_ms: i64, until_ms: i64) -> Vec<BandLine> {
    let mut lines = Vec::new();
    for (scale, series) in &chart.bands {
        lines.extend(series.between(from_ms, until_ms).map(|point| BandLine {
            record: point.record,
            at: point.at,
            scale: *scale,
            band: point.value.band,
            phase: point.value.phase,
        }));
    }
    lines.sort_by_key(|line| line.at.millis);
    lines
}

fn week_line(chart: &Chart, weeks: &Weeks, week: super::schedule::ProgrammeWeek, now_ms: i64) -> WeekLine {
    let told = occasions(chart, week.starts_ms, week.ends_ms).into_iter();
    let known = told.filter(|one| one.outcome() != Outcome::Unknown);
    let records = known.flat_map(|one| one.records).collect();
    WeekLine { hours: WeekHours::of(chart, weeks, week, now_ms), records }
}

fn doses(chart: &Chart, from_ms: i64, until_ms: i64, now_ms: i64) -> Vec<DoseLine> {
    let mut lines: BTreeMap<&Medicine, DoseLine> = BTreeMap::new();
    let line = |medicine: &Medicine| DoseLine {
        medicine: medicine.clone(),
        taken: Vec::new(),
        not_taken: Vec::new(),
        unknown: Vec::new(),
    };
    for (medicine, series) in &chart.doses {
        for dose in series.between(from_ms, until_ms) {
            let line = lines.entry(medicine).or_insert_with(|| line(medicine));
            match dose.value.taking {
                Taking::Taken => line.taken.push(dose.record),
                Taking::NotTaken { .. } => line.not_taken.push(dose.record),
            }
        }
    }
    let due = answered_doses(chart, from_ms, until_ms.min(now_ms));
    for dose in due.iter().filter(|dose| dose.answer.is_none()) {
        let line = lines.entry(&dose.medicine).or_insert_with(|| line(&dose.medicine));
        line.unknown.push(dose.due.planned);
    }
    lines.into_values().collect()
}

fn screens(chart: &Chart, from_ms: i64, until_ms: i64) -> Vec<ScreenLine> {
    let lines = chart.screens.between(from_ms, until_ms).map(|screen| ScreenLine {
        record: screen.record,
        at: screen.at,
        specimen: screen.value.specimen,
        substance: screen.value.substance.clone(),
        result: screen.value.result,
        expected: screen.value.expected,
    });
    lines.collect()
}

/// Shows the days alone: contents stay out of logs.
impl fmt::Debug for EvidencePacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvidencePacket")
            .field("from", &self.from)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};

    use super::*;
    use crate::{
        clinical::plan::{
            calendar::{DAY_MS, HOUR_MS, Zone},
            schedule::tests::{group, programme},
            taper::Taper,
            tests::{logged, section},
        },
        record::{
            Attendance, Body, Entry, Level, LevelMove, PlanGoal, Problem, Unit, Visit, Weekday, Writer,
        },
    };

    const FIRST: Date = date(2026, 3, 2);

    fn ms(days: i64, hours: i64) -> i64 {
        Zone::named("America/New_York").unwrap().starts_ms(FIRST) + days * DAY_MS + hours * HOUR_MS
    }

    fn ids(records: &[RecordId]) -> Vec<u8> {
        records.iter().map(|record| record.as_bytes()[0]).collect()
    }

    #[test]
    fn a_packet_holds_what_the_logs_say_of_its_days() {
        let mut chart = Chart::default();
        let goals = [PlanGoal::open("A room"), PlanGoal::open("A house").state(GoalState::SetAside)];
        let problem = Problem::new(Domain::Social, "Housing").goals(goals);
        let moved = LevelMove::to(Level::IntensiveOutpatient, "Referred").decided_by("Dr. Marsh");
        let taper = Taper::of("buprenorphine", Unit::Mg, 8.0, FIRST)
            .zone("America/New_York")
            .prescribed_by("Dr. Marsh")
            .at([time(8, 0, 0, 0)])
            .regimen()
            .unwrap();
        let plan: [Body; 5] = [
            programme().into(),
            group(FIRST, &[Weekday::Tuesday], 1).into(),
            problem.into(),
            moved.into(),
            taper.into(),
        ];
        for (id, body) in (1..).zip(plan) {
            chart.put(&section(id, plus_days(FIRST, -30), body), Writer::Clinic, None);
        }
        let log = [
            (10, 1, Entry::gad7([1; 7])),
            (11, -1, Entry::gad7([2; 7])),
            (12, 1, Entry::dose("buprenorphine", 8.0, Unit::Mg)),
            (
                13,
                2,
                Entry::dose_not_taken("Suboxone", 8.0, Unit::Mg, None).note("a note that nobody shall read"),
            ),
            (14, 7, Entry::dose("buprenorphine", 8.0, Unit::Mg)),
            (15, 1, Entry::new(Visit::new("group", "Morning group", Attendance::Kept))),
            (16, 2, Entry::drug_screen(Specimen::Urine, "Opioid", ScreenResult::Negative)),
            (17, 2, Entry::check_in(crate::record::CheckIn { mood: Some(4), ..Default::default() })),
        ];
        for (id, days, entry) in log {
            chart.put(&logged(id, Writer::Patient, ms(days, 8), entry), Writer::Patient, None);
        }

        let packet = evidence_packet(&chart, FIRST, plus_days(FIRST, 6), ms(4, 0));
        assert_eq!(
            packet.scores.iter().map(|line| (&*line.measure, line.value)).collect::<Vec<_>>(),
            [("gad7", 7.0)]
        );
        assert_eq!(packet.scores[0].band.as_ref().map(|band| &*band.code), Some("mild"));
        let [doses] = &packet.doses[..] else { panic!("one medicine") };
        assert_eq!((ids(&doses.taken), ids(&doses.not_taken)), (vec![12], vec![13]));
        let unknown: Vec<_> = doses.unknown.iter().map(|dose| dose.due_ms).collect();
        assert_eq!(unknown, [ms(0, 8), ms(3, 8)], "what is still to come is not unknown");
        let weeks: Vec<_> =
            packet.weeks.iter().map(|line| (line.hours.week.first, ids(&line.records))).collect();
        assert_eq!(weeks, [(date(2026, 3, 1), vec![15]), (date(2026, 3, 8), vec![])]);
        assert_eq!(packet.weeks[0].hours.attended, 180);
        assert_eq!(packet.screens.iter().map(|line| &*line.substance).collect::<Vec<_>>(), ["Opioid"]);
        assert_eq!(packet.goals.iter().map(|line| &*line.text).collect::<Vec<_>>(), ["A room"]);
        assert_eq!(
            packet.levels.iter().map(|stay| stay.level).collect::<Vec<_>>(),
            [Level::IntensiveOutpatient]
        );
        assert!(packet.bands.is_empty());
        let before = evidence_packet(&chart, date(2026, 1, 1), date(2026, 1, 2), ms(4, 0));
        assert!(before.levels.is_empty() && before.doses.is_empty() && before.scores.is_empty());
    }
}
