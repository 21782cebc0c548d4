//! Holding the world against the model.

use std::collections::BTreeSet;

use ebb_core::{Category, Delivery, Error, Observer, Query, Record, RecordId, Replica, SpaceId};
use ebb_protocol::{
    envelope::Envelope,
    wire::{FromDevice, FromServer, Refusal},
};

use super::{BEGIN_MS, Fault, Result, Who, World, marks::mark_of};
use crate::{
    model::{Certainty, Mark, Written},
    net::LinkId,
};

impl World {
    /// After each step: no record that a device listed is gone, those that changed are as the model has them, and
    /// nobody honest was stopped from writing.
    pub(super) fn check_step(&mut self, device: usize) -> Result {
        let who = Who::ALL[device];
        for place in self.follows(device) {
            let space = self.spaces[place];
            let one = &mut self.devices[device];
            let Some(replica) = one.replica() else { return Ok(()) };
            // A disk may fail to be read: then nothing is known, and nothing contradicts.
            let Ok((records, unsent)) = replica.with_engine(|engine| engine.count(&space)) else { continue };
            let before = std::mem::replace(&mut one.counted[place], (records, unsent));
            if records < before.0 {
                return Err(Fault(format!("{who:?} listed {} records and now {records}", before.0)));
            }
            if (records, unsent) != before {
                self.line(|| format!("{who:?} has {records} records, {unsent} of them not on the server"));
            }
        }
        for (space, record) in self.devices[device].heard.take_changed() {
            let Some(place) = self.spaces.iter().position(|known| *known == space) else { continue };
            let Some(record) = record else {
                self.check_device(device)?;
                continue;
            };
            let one = &self.devices[device];
            let Some(replica) = one.replica() else { return Ok(()) };
            match replica.record(space, record) {
                Ok(record) => {
                    self.tally.count("changes looked at");
                    let first = self.shows(device, place, &record)?;
                    self.keeps_versions(device, first)?;
                }
                // A disk that could not be read may be the next time.
                Err(Error::Retry(_)) => one.heard.records_changed(space, &[record]),
                Err(_) if one.disk.is_off() => {}
                Err(error) => {
                    return Err(Fault(format!("{who:?} says that a record changed: {error} ({error:?})")));
                }
            }
        }
        match self.devices[device].heard.is_frozen() && !self.devices[device].put_back {
            true => Err(Fault(format!("{who:?} may no longer write"))),
            false => Ok(()),
        }
    }

    /// A device's every record against the model: those it was promised are there, each version of them, and
    /// none that nobody wrote or that it may not hold.
    pub(super) fn check_device(&mut self, device: usize) -> Result {
        for place in self.follows(device) {
            let space = self.spaces[place];
            let Some(replica) = self.devices[device].replica() else { return Ok(()) };
            let Ok(records) = list(replica, space) else { continue };
            let mut there = BTreeSet::new();
            for record in &records {
                there.insert(self.shows(device, place, record)?);
            }
            let written = self.model.records.iter();
            let promised: Vec<_> = written
                .filter(|(_, written)| {
                    written.space == space && promised_to(device, written).next().is_some()
                })
                .map(|(first, _)| *first)
                .collect();
            for first in promised {
                // What a device that was put back was promised since then comes back from the server, if it does.
                if !there.contains(&first) && !self.devices[device].put_back {
                    return Err(Fault(format!("{:?} lost record {first}", Who::ALL[device])));
                }
                self.keeps_versions(device, first)?;
            }
        }
        Ok(())
    }

    /// A record that a device shows is one that somebody wrote and that it may hold.
    fn shows(&mut self, device: usize, place: usize, record: &Record) -> Result<Mark> {
        let first = self.known(device, record)?;
        self.may_hold(device, place, record.category)?;
        Ok(first)
    }

    /// A device holds each version of a record that it was promised.
    fn keeps_versions(&self, device: usize, first: Mark) -> Result {
        let one = &self.devices[device];
        let written = &self.model.records[&first];
        let (Some(replica), Some(id)) = (one.replica(), written.id) else { return Ok(()) };
        if one.put_back || promised_to(device, written).next().is_none() {
            return Ok(());
        }
        let Ok(history) = replica.history(written.space, id) else { return Ok(()) };
        let held: BTreeSet<_> = history.iter().filter_map(|past| mark_of(&past.record)).collect();
        let lost = promised_to(device, written).find(|mark| !held.contains(mark));
        lost.map_or(Ok(()), |mark| Err(Fault(format!("{:?} lost version {mark} of record {first}", one.who))))
    }

    /// Which record of the model it is.
    pub(super) fn known(&mut self, device: usize, record: &Record) -> Result<Mark> {
        let who = Who::ALL[device];
        let shown = mark_of(record).ok_or_else(|| Fault(format!("{who:?} lists a record without a mark")))?;
        self.model.recognize(record.id, shown).map_err(|why| Fault(format!("{who:?}: {why}")))
    }

    fn may_hold(&self, device: usize, place: usize, category: Category) -> Result {
        let may = match Who::ALL[device] {
            Who::Desk => self.model.grants(&self.spaces[place]).maybe.contains(&category),
            Who::Second => self.model.second.is_some(),
            Who::Phone | Who::Other => true,
        };
        if may { Ok(()) } else { Err(Fault(format!("{:?} holds {category:?}", Who::ALL[device]))) }
    }

    /// Whether everything is where it should be; if not, what is not.
    pub(super) fn converged(&mut self) -> Result<Option<String>> {
        for device in 0..self.devices.len() {
            let who = Who::ALL[device];
            let Some(replica) = self.devices[device].replica() else {
                return Ok(Some(format!("{who:?} does not run")));
            };
            for place in self.follows(device) {
                let space = self.spaces[place];
                let Ok((_, unsent)) = replica.with_engine(|engine| engine.count(&space)) else {
                    return Ok(Some(format!("{who:?} cannot be read")));
                };
                if unsent > 0 && !self.devices[device].is_frozen() {
                    return Ok(Some(format!("{who:?} has {unsent} records that are not on the server")));
                }
            }
            let Ok((waiting, refused)) = replica.with_engine(|engine| engine.set_aside()) else {
                return Ok(Some(format!("{who:?} cannot be read")));
            };
            let forked = self.devices[device].is_frozen() && !self.devices[device].written_since.is_empty();
            if waiting + refused > self.model.mischief && !forked {
                return Ok(Some(format!("{who:?} set aside {waiting} and {refused} changes")));
            }
        }
        for place in 0..self.spaces.len() {
            let owner = if place == 0 { Who::Phone } else { Who::Other };
            let all = self.listed(owner, place, |_| true)?;
            if place == 0
                && self.model.second == Some(Certainty::Sure)
                && let Some(why) = self.differs(&all, Who::Second, place, |_| true)?
            {
                return Ok(Some(format!("the second phone differs: {why}")));
            }
            let granted = self.model.grants(&self.spaces[place]);
            let shared: Vec<_> =
                all.iter().filter(|record| granted.sure.contains(&record.category)).cloned().collect();
            let desk =
                self.differs(&shared, Who::Desk, place, |record| granted.sure.contains(&record.category));
            if let Some(why) = desk? {
                return Ok(Some(format!("the desk differs in space {place}: {why}")));
            }
            // A frozen device is compared with nobody, and its owner may not have heard of it yet.
            for record in &all {
                if let Some(why) = self.lacks_version(owner, place, record)? {
                    return Ok(Some(why));
                }
            }
        }
        Ok(None)
    }

    /// Which version of a record has not reached its owner although it was promised.
    fn lacks_version(&mut self, owner: Who, place: usize, record: &Record) -> Result<Option<String>> {
        let first = self.known(owner.index(), record)?;
        let held = self.versions(owner, place, record.id)?;
        let promised = self.model.records[&first].versions.iter();
        let lacking =
            promised.filter(|(mark, (_, certainty))| *certainty == Certainty::Sure && !held.contains(mark));
        let told = |(mark, (by, _)): (&Mark, &(usize, Certainty))| {
            format!("version {mark} of record {first}, by {by}, is nowhere")
        };
        Ok(lacking.map(told).next())
    }

    /// How another device's list differs from its owner's. One that signs no more may have more, and show
    /// what it alone wrote; it still holds everything that the others do.
    fn differs(
        &self,
        ours: &[Record],
        who: Who,
        place: usize,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<Option<String>> {
        let theirs = self.listed(who, place, fits)?;
        if !self.devices[who.index()].is_frozen() {
            return Ok(differ(ours, &theirs));
        }
        let owner = if place == 0 { Who::Phone } else { Who::Other };
        let written_since = &self.devices[who.index()].written_since;
        for record in ours.iter().filter(|record| !written_since.contains(&record.id)) {
            let held = self.versions(who, place, record.id)?;
            if !self.versions(owner, place, record.id)?.is_subset(&held) {
                return Ok(Some("a frozen device lacks a version".into()));
            }
        }
        Ok(None)
    }

    /// The versions of a record that a device holds; none if it does not have the record.
    fn versions(&self, who: Who, place: usize, record: RecordId) -> Result<BTreeSet<Mark>> {
        let Some(replica) = self.devices[who.index()].replica() else { return Ok(BTreeSet::new()) };
        match replica.history(self.spaces[place], record) {
            Ok(history) => Ok(history.iter().filter_map(|past| mark_of(&past.record)).collect()),
            Err(Error::FixInput { .. }) => Ok(BTreeSet::new()),
            Err(error) => Err(Fault(format!("{who:?} does not tell a history: {error}"))),
        }
    }

    fn listed(&self, who: Who, place: usize, fits: impl Fn(&Record) -> bool) -> Result<Vec<Record>> {
        let Some(replica) = self.devices[who.index()].replica() else { return Ok(Vec::new()) };
        let mut records = list(replica, self.spaces[place])?;
        records.retain(fits);
        records.sort_by_key(|record| record.id);
        Ok(records)
    }

    /// In the end: every device, every promise, every delivery, and what the server said.
    pub(super) fn check_all(&mut self) -> Result {
        for device in 0..self.devices.len() {
            self.check_device(device)?;
            self.stands_by_what_is_found(device)?;
            if let Some(replica) = self.devices[device].replica()
                && let Ok((waiting, refused)) = replica.with_engine(|engine| engine.set_aside())
            {
                self.tally.add("set aside", waiting + refused);
            }
            self.tally.add("restorations noticed", self.devices[device].heard.restored());
        }
        self.phones_find_the_same()?;
        self.server.check()?;
        for (place, owner) in [(0, Who::Phone), (1, Who::Other)] {
            let records = self.listed(owner, place, |_| true)?;
            self.lists_by_kind(owner, place, &records)?;
            self.tally.add("conflicts", records.iter().map(|record| u64::from(record.conflicts)).sum());
            for record in records {
                self.holds_every_version(owner, place, &record)?;
            }
        }
        self.line(|| "all is where it should be".into());
        Ok(())
    }

    /// Every record is among those of its kind, of the last years.
    fn lists_by_kind(&self, owner: Who, place: usize, records: &[Record]) -> Result {
        let Some(replica) = self.devices[owner.index()].replica() else { return Ok(()) };
        let now_ms = i64::try_from(BEGIN_MS + self.now()).unwrap_or(i64::MAX);
        for record in records {
            let query = Query::kind(record.kind.clone()).last_days(3_650, now_ms);
            let of_kind = replica.records(self.spaces[place], &query);
            if !of_kind.is_ok_and(|of_kind| of_kind.contains(record)) {
                return Err(Fault("a record is not among those of its kind".into()));
            }
        }
        Ok(())
    }

    /// What any device was promised of a record has reached its owner, and the server.
    fn holds_every_version(&mut self, owner: Who, place: usize, record: &Record) -> Result {
        let first = self.known(owner.index(), record)?;
        let Some(replica) = self.devices[owner.index()].replica() else { return Ok(()) };
        let space = self.spaces[place];
        let fault = |what: &str| Fault(format!("{what} of record {first} is not known"));
        let history = replica.history(space, record.id).map_err(|_| fault("the history"))?;
        let held: BTreeSet<_> = history.iter().filter_map(|past| mark_of(&past.record)).collect();
        // A retraction that is taken back within the same moment leaves what stood before it once more.
        let repeats = |later: usize| {
            let before = history[..later].iter().rposition(|past| *past == history[later]);
            before.is_some_and(|before| {
                history[before..later].iter().all(|past| past.record.retracted.is_none())
            })
        };
        if (0..history.len()).any(repeats) {
            return Err(Fault(format!("record {first} has a version twice")));
        }
        let written = &self.model.records[&first];
        let versions = replica.conflicts(space, record.id).map_err(|_| fault("a version in conflict"))?;
        if versions.first() != Some(record) || versions.len() != 1 + record.conflicts as usize {
            return Err(Fault(format!("record {first} has other versions in conflict than it says")));
        }
        if let Some(foreign) =
            versions.iter().find(|version| mark_of(version).is_none_or(|mark| !held.contains(&mark)))
        {
            return Err(Fault(format!("record {first} is in conflict with {:?}", mark_of(foreign))));
        }
        if written.retracted == Some(Certainty::Sure) && record.retracted.is_none() {
            return Err(Fault(format!("record {first} was retracted and is not")));
        }
        match replica.delivery(space, record.id) {
            Ok(Delivery::OnServer) => Ok(()),
            _ => Err(Fault(format!("record {first} is said not to be on the server"))),
        }
    }

    /// Puts what a device says into the trace: kinds, counts and sequences.
    pub(super) fn note_said(&mut self, link: LinkId, frame: &FromDevice) {
        let said = match frame {
            FromDevice::Hello(hello) => format!("hello to {} spaces", hello.spaces.len()),
            FromDevice::PushRoster(push) => format!("pushes {} roster entries", push.entries.len()),
            FromDevice::Push(push) => {
                let envelopes = push.envelopes.iter().filter_map(|it| Envelope::parse(it.to_vec()).ok());
                let envelopes: Vec<_> = envelopes.collect();
                let seqs: Vec<_> = envelopes.iter().map(|envelope| envelope.header().seq.0).collect();
                if push.refill {
                    self.refills.extend(envelopes.iter().map(Envelope::hash));
                }
                format!("{} {seqs:?}", if push.refill { "gives back" } else { "pushes" })
            }
            FromDevice::Evidence(evidence) => format!("shows {} heads", evidence.heads.len()),
            FromDevice::Seen(_) => "has seen".into(),
            FromDevice::Ping(_) => "ping".into(),
        };
        self.line(|| format!("{}: {said}", link.0));
    }

    /// Puts what the server says into the trace: kinds, counts and positions.
    pub(super) fn note(&mut self, link: LinkId, frame: &FromServer) {
        let said = match frame {
            FromServer::Welcome(welcome) => format!("welcome to {} spaces", welcome.spaces.len()),
            FromServer::Roster(roster) => format!("{} roster entries", roster.entries.len()),
            FromServer::RosterAcked(head) => format!("roster entry {} is durable", head.seq),
            FromServer::Acked(acked) => {
                let positions: Vec<_> = acked.envelopes.iter().map(|acked| acked.position.0).collect();
                let refilled =
                    acked.envelopes.iter().filter(|acked| self.refills.remove(&acked.hash)).count();
                self.tally.add("refills", refilled as u64);
                format!("durable at {positions:?}")
            }
            FromServer::Refused(refused) => {
                self.tally.count("refusals");
                format!("refused: {}", name_of(&refused.reason))
            }
            FromServer::Entries(entries) => format!("{} from {}", entries.items.len(), entries.first),
            FromServer::CaughtUp(_) => "caught up".into(),
            FromServer::NeedEvidence(_) => "asks for evidence".into(),
            FromServer::LogBorn(_) => {
                self.tally.count("logs begun anew");
                "a new log".into()
            }
            FromServer::Pong(_) => "pong".into(),
            FromServer::Bye(bye) => format!("good-bye: {}", name_of(&bye.reason)),
        };
        self.line(|| format!("{}: {said}", link.0));
    }
}

/// The versions of a record that this device was told are saved.
fn promised_to(device: usize, written: &Written) -> impl Iterator<Item = Mark> {
    let versions = written.versions.iter();
    versions
        .filter(move |(_, (by, certainty))| *by == device && *certainty == Certainty::Sure)
        .map(|(mark, _)| *mark)
}

/// The first difference between two lists of records.
fn differ(ours: &[Record], theirs: &[Record]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} records and {}", ours.len(), theirs.len()));
    }
    let differing = ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs).count();
    (differing > 0).then(|| format!("{differing} records are not equal"))
}

/// A refusal without what it carries: hashes differ from run to run.
fn name_of(reason: &Refusal) -> String {
    let mut name = format!("{reason:?}");
    name.truncate(name.find(['(', ' ']).unwrap_or(name.len()));
    name
}

/// Every record of a space, as a replica lists it.
fn list(replica: &Replica, space: SpaceId) -> Result<Vec<Record>> {
    let records = replica.records(space, &Query::default());
    records.map_err(|error| Fault(format!("records cannot be listed: {error} ({error:?})")))
}
