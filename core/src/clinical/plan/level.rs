//! Levels of care: where a person was and is, and what a move between two levels is.

use super::{Plan, calendar::DAY_MS};
use crate::record::{Level, LevelMove, RecordId};

/// Names what a move between levels of care is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// Into the programme, at any level.
    Admission,
    /// To a more intensive level.
    Up,
    /// To a less intensive level.
    Down,
    /// Out of the programme.
    Discharge,
    /// To the level of before.
    None,
}

impl Direction {
    /// Says what a move is; `from` is `None` before the first admission.
    ///
    /// ```
    /// use ebb_core::{clinical::plan::level::Direction, record::Level};
    ///
    /// let iop = Level::IntensiveOutpatient;
    /// assert_eq!(Direction::of(None, iop), Direction::Admission);
    /// assert_eq!(Direction::of(Some(Level::PartialHospitalization), iop), Direction::Down);
    /// ```
    #[must_use]
    pub fn of(from: Option<Level>, to: Level) -> Self {
        match from.unwrap_or(Level::Discharged) {
            from if from == to => Self::None,
            Level::Discharged => Self::Admission,
            _ if to == Level::Discharged => Self::Discharge,
            from if to < from => Self::Up,
            _ => Self::Down,
        }
    }
}

/// Lists the levels one step away: the next more and the next less intensive one. Whoever is not in the
/// programme may be admitted to any.
///
/// A move that skips a level is no error: it is for the care team to say why.
#[must_use]
pub fn steps_from(level: Option<Level>) -> &'static [Level] {
    match level.unwrap_or(Level::Discharged) {
        Level::Detox => &[Level::Residential],
        Level::Residential => &[Level::Detox, Level::PartialHospitalization],
        Level::PartialHospitalization => &[Level::Residential, Level::IntensiveOutpatient],
        Level::IntensiveOutpatient => &[Level::PartialHospitalization, Level::Outpatient],
        Level::Outpatient => &[Level::IntensiveOutpatient, Level::Discharged],
        Level::Discharged => &[
            Level::Detox,
            Level::Residential,
            Level::PartialHospitalization,
            Level::IntensiveOutpatient,
            Level::Outpatient,
        ],
    }
}

/// A time at one level of care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stay {
    /// The record of the move that began it.
    pub record: RecordId,
    /// The level.
    pub level: Level,
    /// What the move was.
    pub direction: Direction,
    /// When it began, in ms since the Unix epoch.
    pub from_ms: i64,
    /// When the next one began; `None` while it lasts.
    pub until_ms: Option<i64>,
}

impl Stay {
    /// Returns how many whole days it lasted, or has lasted by now; 0 before it begins.
    #[must_use]
    pub fn days(&self, now_ms: i64) -> i64 {
        (self.until_ms.unwrap_or(now_ms).min(now_ms) - self.from_ms).max(0) / DAY_MS
    }
}

/// Lists where the person was, the earliest first; a time after a discharge is one, too.
#[must_use]
pub fn history(plan: &Plan) -> Vec<Stay> {
    let moves = plan.level_moves();
    let stays = moves.iter().enumerate().map(|(place, section)| Stay {
        record: section.record,
        level: section.value.to,
        direction: Direction::of(place.checked_sub(1).map(|before| moves[before].value.to), section.value.to),
        from_ms: section.at.millis,
        until_ms: moves.get(place + 1).map(|next| next.at.millis),
    });
    stays.collect()
}

/// Says whether a move from a level of care wants an aftercare plan or a reason why there is none: a discharge or
/// a step down without either (R26). `before` is `None` before the first admission.
#[must_use]
pub fn needs_aftercare(one: &LevelMove, before: Option<Level>, plan: &Plan) -> bool {
    let leaves = matches!(Direction::of(before, one.to), Direction::Down | Direction::Discharge);
    leaves && one.without_aftercare.is_none() && plan.aftercare().next().is_none()
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};

    use super::*;
    use crate::{
        clinical::plan::{calendar::Zone, tests::section},
        record::{Aftercare, Task},
    };

    fn to(level: Level) -> LevelMove {
        LevelMove::to(level, "As planned").decided_by("Dr. Marsh")
    }

    fn ms(day: Date) -> i64 {
        Zone::UTC.starts_ms(day)
    }

    #[test]
    fn moves_go_in_and_out_up_and_down() {
        for from in Level::ALL {
            for to in Level::ALL {
                let direction = Direction::of(Some(from), to);
                let back = Direction::of(Some(to), from);
                let expected = match direction {
                    Direction::Admission => Direction::Discharge,
                    Direction::Discharge => Direction::Admission,
                    Direction::Up => Direction::Down,
                    Direction::Down => Direction::Up,
                    Direction::None => Direction::None,
                };
                assert_eq!((back, direction == Direction::None), (expected, from == to));
                let steps_back = to == Level::Discharged || steps_from(Some(to)).contains(&from);
                assert!(!steps_from(Some(from)).contains(&to) || from == Level::Discharged || steps_back);
            }
        }
        assert_eq!(Direction::of(None, Level::Discharged), Direction::None);
        assert_eq!(Direction::of(Some(Level::Outpatient), Level::Detox), Direction::Up);
    }

    #[test]
    fn a_history_has_levels_with_their_times() {
        let mut plan = Plan::default();
        for (id, day, level) in [
            (1, date(2026, 2, 1), Level::IntensiveOutpatient),
            (2, date(2026, 1, 1), Level::Detox),
            (3, date(2026, 3, 1), Level::Discharged),
        ] {
            plan.put(&section(id, day, to(level)));
        }
        let stays = history(&plan);
        let now = ms(date(2026, 3, 11));
        let told: Vec<_> = stays.iter().map(|stay| (stay.level, stay.direction, stay.days(now))).collect();
        assert_eq!(
            told,
            [
                (Level::Detox, Direction::Admission, 31),
                (Level::IntensiveOutpatient, Direction::Down, 28),
                (Level::Discharged, Direction::Discharge, 10),
            ]
        );
        assert_eq!(stays[2].until_ms, None);
        assert_eq!(stays[2].days(ms(date(2026, 2, 1))), 0, "not yet");
        assert_eq!(stays[1].days(ms(date(2026, 2, 8))), 7, "so far");
    }

    #[test]
    fn who_leaves_has_an_aftercare_plan_or_a_reason() {
        let mut plan = Plan::default();
        plan.put(&section(1, date(2026, 1, 1), to(Level::IntensiveOutpatient)));
        let before = Some(Level::IntensiveOutpatient);
        assert!(needs_aftercare(&to(Level::Discharged), before, &plan));
        assert!(needs_aftercare(&to(Level::Outpatient), before, &plan));
        assert!(!needs_aftercare(&to(Level::Residential), before, &plan), "a step up");
        assert!(!needs_aftercare(&to(Level::Outpatient), None, &plan), "an admission");
        let reasoned = to(Level::Discharged).without_aftercare("Moved away");
        assert!(!needs_aftercare(&reasoned, before, &plan));
        let aftercare = Aftercare::new(date(2026, 2, 1), [Task::new("Call weekly")]);
        plan.put(&section(3, date(2026, 1, 20), aftercare));
        assert!(!needs_aftercare(&to(Level::Discharged), before, &plan));
    }
}
