//! What apps show of clinical knowledge, and that it is what the records say.

use std::collections::BTreeMap;

use ebb_core::{
    Category, Entry, Replica, SpaceId,
    clinical::rules::{self, Finding, RULES, Surroundings},
    record::{AlertId, Resource},
};

use super::{BEGIN_MS, Fault, Result, Who, World, marks::text};
use crate::model::Certainty;

/// How far ahead a phone schedules reminders, in hours.
const REMINDED_HOURS: u32 = 48;

impl World {
    /// An app shows what is due and what was found; at the desk, somebody works on a plan.
    pub(super) fn care(&mut self, who: Who, pick: u8) -> Result {
        let device = who.index();
        if who == Who::Desk {
            self.plan(pick)?;
        }
        for place in self.follows(device) {
            let Some(replica) = self.devices[device].replica() else { break };
            let space = self.spaces[place];
            let shown = replica.today(space).map(drop);
            let shown = shown.and_then(|()| replica.notifications(space, REMINDED_HOURS).map(drop));
            let shown = shown.and_then(|()| replica.plan_changes(space).map(drop));
            match shown {
                Ok(()) => self.tally.count("days shown"),
                Err(error) => self.failed(who, &error)?,
            }
        }
        self.stands_by_what_is_found(device)?;
        self.after(device)
    }

    /// The desk writes a section of a plan, or publishes the plan.
    fn plan(&mut self, pick: u8) -> Result {
        let (device, space) = (Who::Desk.index(), self.spaces[usize::from(pick) % 2]);
        let mark = self.model.mark();
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let outcome = match pick / 2 % 2 {
            0 => replica.log(space, &Entry::new(Resource::new(text(mark)).sort("housing"))),
            _ => replica.publish_plan(space, &text(mark)),
        };
        let id = match outcome {
            Ok(id) => {
                self.tally.count("plans written");
                self.line(|| format!("Desk planned {mark}"));
                Some(id)
            }
            Err(error) => {
                self.failed(Who::Desk, &error)?;
                None
            }
        };
        self.model.logged(mark, device, space, Category::Plan, id);
        self.changed(device)
    }

    /// What a device found record by record, as they came, is what all of them together say.
    pub(super) fn stands_by_what_is_found(&mut self, device: usize) -> Result {
        for place in self.follows(device) {
            let space = self.spaces[place];
            let Some(replica) = self.devices[device].replica() else { return Ok(()) };
            // A disk may fail to be read: then nothing is known, and nothing contradicts.
            let Ok(alerts) = replica.alerts(space) else { continue };
            let Some(found) = self.found(replica, space) else { continue };
            let standing = alerts.into_iter().map(|view| view.alert).filter(|alert| !alert.is_withdrawn());
            let standing: BTreeMap<_, _> =
                standing.map(|alert| (alert.finding.id, alert.finding)).filter(by_records).collect();
            if standing != found {
                let (who, stood, there) = (Who::ALL[device], standing.len(), found.len());
                return Err(Fault(format!(
                    "{who:?} stands by {stood} findings, and the records say {there}"
                )));
            }
            self.tally.add("alerts standing", standing.len() as u64);
        }
        Ok(())
    }

    /// In the end both phones of a patient find the same.
    pub(super) fn phones_find_the_same(&self) -> Result {
        let [phone, second] = [Who::Phone, Who::Second].map(|who| &self.devices[who.index()]);
        if second.is_frozen() || self.model.second != Some(Certainty::Sure) {
            return Ok(());
        }
        let of = |replica: Option<&Replica>| replica.and_then(|replica| self.found(replica, self.spaces[0]));
        match (of(phone.replica()), of(second.replica())) {
            (Some(one), Some(other)) if one != other => {
                Err(Fault(format!("the phones find {} and {}", one.len(), other.len())))
            }
            _ => Ok(()),
        }
    }

    fn found(&self, replica: &Replica, space: SpaceId) -> Option<BTreeMap<AlertId, Finding>> {
        let now_ms = i64::try_from(BEGIN_MS + self.now()).unwrap_or(i64::MAX);
        let found =
            replica.chart(space, |chart| rules::evaluate(chart, &Surroundings::default(), now_ms)).ok()?;
        Some(found.into_iter().map(|finding| (finding.id, finding)).filter(by_records).collect())
    }
}

/// Whether a rule goes by records alone: neither by the clock, which is each device's own, nor by whom they are
/// shared with.
fn by_records((_, finding): &(AlertId, Finding)) -> bool {
    RULES.iter().any(|rule| rule.id == finding.rule && !rule.by_clock && rule.id != "R27")
}
