//! What a device found when, and what became of it: the history of alerts.
//!
//! What is found follows from the records alone. When it was found, how late that was, and that it was taken
//! back because of something that arrived later, follows from when this device looked: that is kept here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{Finding, RULES, Rule, Severity, Surroundings, find};
use crate::{
    clinical::chart::Chart,
    record::{AlertAction, AlertId, Handling, RecordId},
};

/// The alerts of a person, as one device found them.
#[derive(Clone, Default)]
pub struct Ledger {
    alerts: BTreeMap<AlertId, Alert>,
    /// Those of each rule by when they end, so that a look touches no more than lasts until then.
    ends: BTreeMap<Cow<'static, str>, BTreeSet<(i64, AlertId)>>,
}

/// A finding, and its history on this device.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What was found, as it was found last.
    pub finding: Finding,
    /// What happened to it here, the earliest first; never empty.
    pub history: Vec<AlertEvent>,
}

/// Something that happened to an alert on a device.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// When, by the device's clock in ms since the Unix epoch.
    pub at_ms: i64,
    /// What.
    pub change: Change,
}

/// What happened to an alert.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was found, for the first time or again.
    Raised {
        /// How pressing it was.
        severity: Severity,
        /// How long after it could have been observed, in ms: what arrives late is found late, and says so.
        late_ms: i64,
    },
    /// Records that arrived since say more, less or something else.
    Changed {
        /// How pressing it was before.
        from: Severity,
        /// How pressing it is now.
        to: Severity,
    },
    /// What it was about came to an end.
    Ended,
    /// Records that arrived since, or that were retracted, say that it was not so.
    Withdrawn,
}

/// How it stands with an alert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AlertState {
    /// Nobody has done anything about it.
    Open,
    /// Somebody of the care team has it.
    Acknowledged,
    /// It was handed on.
    Escalated,
    /// It is dealt with.
    Resolved,
    /// It turned out not to be so.
    Withdrawn,
}

impl Alert {
    /// When this device found it, in ms since the Unix epoch.
    #[must_use]
    pub fn raised_ms(&self) -> i64 {
        self.history.first().map_or(self.finding.observed_ms, |event| event.at_ms)
    }

    /// How long after it could have been observed this device found it, in ms.
    #[must_use]
    pub fn late_ms(&self) -> i64 {
        match self.history.first() {
            Some(AlertEvent { change: Change::Raised { late_ms, .. }, .. }) => *late_ms,
            _ => 0,
        }
    }

    /// Says whether it turned out not to be so.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.history.last().is_some_and(|event| event.change == Change::Withdrawn)
    }

    /// How it stands with it, as far as the chart's records tell.
    #[must_use]
    pub fn state(&self, chart: &Chart) -> AlertState {
        if self.is_withdrawn() {
            return AlertState::Withdrawn;
        }
        match self.handled(chart).map(|(_, action)| action.action) {
            None => AlertState::Open,
            Some(Handling::Acknowledged) => AlertState::Acknowledged,
            Some(Handling::Escalated) => AlertState::Escalated,
            Some(Handling::Resolved) => AlertState::Resolved,
        }
    }

    /// What the care team did about it last, and the record that says so.
    #[must_use]
    pub fn handled<'a>(&self, chart: &'a Chart) -> Option<(RecordId, &'a AlertAction)> {
        let of_this = chart.actions.iter().rev().find(|point| point.value.alert == self.finding.id);
        of_this.map(|point| (point.record, &point.value))
    }

    fn note(&mut self, at_ms: i64, change: Change) {
        self.history.push(AlertEvent { at_ms, change });
    }
}

impl Ledger {
    /// Takes up alerts as they were kept.
    pub fn of(alerts: impl IntoIterator<Item = Alert>) -> Self {
        let mut ledger = Self::default();
        for alert in alerts {
            ledger.index(&alert.finding);
            ledger.alerts.insert(alert.finding.id, alert);
        }
        ledger
    }

    fn index(&mut self, finding: &Finding) {
        self.ends.entry(finding.rule.clone()).or_default().insert((end_of(finding), finding.id));
    }

    fn unindex(&mut self, finding: &Finding) {
        if let Some(ends) = self.ends.get_mut(&finding.rule) {
            ends.remove(&(end_of(finding), finding.id));
        }
    }

    /// What a rule found before that lasts until a moment, or longer.
    fn lasting(&self, rule: &str, since_ms: i64) -> impl Iterator<Item = AlertId> {
        let ends = self.ends.get(rule).into_iter();
        ends.flat_map(move |ends| ends.range((since_ms, AlertId([0; 16]))..)).map(|(_, id)| *id)
    }

    /// Has the rules that `asked` chooses look at a chart, and returns what is new or changed, in the order of
    /// their ids.
    ///
    /// Looks at what lasts until `since_ms` or longer, where something was touched; at everything, with
    /// [`i64::MIN`]. What was found there before and is not found any more is withdrawn, never dropped. Times
    /// are in ms since the Unix epoch.
    pub fn look(
        &mut self,
        chart: &Chart,
        around: &Surroundings,
        now_ms: i64,
        since_ms: i64,
        asked: impl Fn(&Rule) -> bool,
    ) -> Vec<AlertId> {
        let since: BTreeMap<_, _> = RULES
            .iter()
            .filter(|rule| asked(rule))
            .map(|rule| (rule.id, self.reach(rule, since_ms)))
            .collect();
        let found = find(chart, around, now_ms, |rule| since.get(rule.id).copied());
        self.enter(found, &since, now_ms)
    }

    /// From when on a rule must look again: what it found may have become shorter than what was touched.
    fn reach(&self, rule: &Rule, since_ms: i64) -> i64 {
        let touched = self.lasting(rule.id, since_ms).map(|id| &self.alerts[&id]);
        let touched = touched.filter(|alert| !alert.is_withdrawn());
        touched.map(|alert| alert.finding.from_ms).fold(since_ms, i64::min)
    }

    fn enter(&mut self, found: Vec<Finding>, since: &BTreeMap<&str, i64>, now_ms: i64) -> Vec<AlertId> {
        let mut changed = BTreeSet::new();
        let mut present = BTreeSet::new();
        for finding in found {
            let id = finding.id;
            present.insert(id);
            let late_ms = now_ms.saturating_sub(finding.observed_ms).max(0);
            let raised = Change::Raised { severity: finding.severity, late_ms };
            let Some(alert) = self.alerts.get_mut(&id) else {
                self.index(&finding);
                let history = vec![AlertEvent { at_ms: now_ms, change: raised }];
                self.alerts.insert(id, Alert { finding, history });
                changed.insert(id);
                continue;
            };
            let was = &alert.finding;
            if alert.is_withdrawn() {
                alert.note(now_ms, raised);
            } else if *was == finding {
                continue;
            } else if was.severity != finding.severity || was.certainty != finding.certainty {
                let change = Change::Changed { from: was.severity, to: finding.severity };
                alert.note(now_ms, change);
            } else if was.until_ms.is_none() && finding.until_ms.is_some() {
                alert.note(now_ms, Change::Ended);
            }
            let was = std::mem::replace(&mut alert.finding, finding.clone());
            self.unindex(&was);
            self.index(&finding);
            changed.insert(id);
        }
        for (rule, since_ms) in since {
            let gone: Vec<_> = self.lasting(rule, *since_ms).filter(|id| !present.contains(id)).collect();
            for id in gone {
                if let Some(alert) = self.alerts.get_mut(&id).filter(|alert| !alert.is_withdrawn()) {
                    alert.note(now_ms, Change::Withdrawn);
                    changed.insert(id);
                }
            }
        }
        changed.into_iter().collect()
    }

    /// Finds an alert.
    #[must_use]
    pub fn get(&self, id: &AlertId) -> Option<&Alert> {
        self.alerts.get(id)
    }

    /// Lists every alert, withdrawn ones among them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }
}

/// When a finding ends; never, while it lasts.
fn end_of(finding: &Finding) -> i64 {
    finding.until_ms.unwrap_or(i64::MAX)
}

/// Shows the number of alerts alone: what was found stays out of logs.
impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({} alerts)", self.alerts.len())
    }
}

/// Shows rule and id alone: what was found stays out of logs.
impl fmt::Debug for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alert({} {}, {} events)", self.finding.rule, self.finding.id, self.history.len())
    }
}

/// Shows what happened, and not when.
impl fmt::Debug for AlertEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.change, f)
    }
}
