//! Carrying out what happens.

use std::{sync::atomic::Ordering, time::Duration};

use ebb_core::{Category, Error, Query, RecordId};
use ebb_protocol::client::Input;

use super::{
    Event, Fault, Happening, Host, Result, Who, World,
    marks::{entry, mark_of, rewritten},
    through_text,
};
use crate::model::{Certainty, Mark};

/// Records among which one is chosen to be written again.
const PICKED_MAX: usize = 3;

impl World {
    /// Does what the scenario says.
    pub(super) fn act(&mut self, event: Event) -> Result {
        self.line(|| format!("{event:?}"));
        self.tally.count("events");
        match event {
            // It has told its person that it must be set up anew.
            Event::Log(who, _)
            | Event::Edit(who, _)
            | Event::Retract(who, _)
            | Event::Unretract(who, _)
            | Event::Resolve(who, _)
            | Event::Care(who, _)
            | Event::Grant(who, _)
            | Event::Rotate(who, _)
                if self.devices[who.index()].is_frozen() =>
            {
                Ok(())
            }
            Event::Log(who, kind) => self.log(who, kind),
            Event::Edit(who, pick) => self.edit(who, pick),
            Event::Retract(who, pick) => self.retract(who, pick),
            Event::Unretract(who, pick) => self.unretract(who, pick),
            Event::Resolve(who, pick) => self.resolve(who, pick),
            Event::Care(who, pick) => self.care(who, pick),
            Event::AddSecond => self.add_second(),
            Event::Grant(who, categories) => self.grant(who, categories),
            Event::Rotate(who, pick) => self.rotate(who, pick),
            Event::Online(who, ms) => {
                self.devices[who.index()].network_ms = Some(1 + u64::from(ms));
                self.drive(who.index(), Input::NetworkChanged)
            }
            Event::Background(who, ms) => self.background(who, ms),
            Event::Foreground(who) => self.come_to_the_front(who.index()),
            Event::Roam(who, udp, is_named) => self.roam(who, udp, is_named),
            Event::Offline(who) => {
                self.devices[who.index()].network_ms = None;
                self.break_link(who, "cuts", Some(0))
            }
            Event::Cut(who) => self.break_link(who, "cuts", Some(0)),
            Event::HalfOpen(who) => self.break_link(who, "half-open", None),
            Event::Late(who, ms) => self.break_link(who, "late", Some(u64::from(ms))),
            Event::Twice(who) => self.send_twice(who),
            Event::Clock(host, minutes) => {
                let watch = match host {
                    Host::Server => &self.server.watch,
                    Host::Device(who) => &self.devices[who.index()].watch,
                };
                watch.off_ms.fetch_add(i64::from(minutes) * 60_000, Ordering::Relaxed);
                self.tally.count("clock jumps");
                Ok(())
            }
            Event::Crash(host, ms) => self.crash(host, ms),
            Event::CrashAtSync(host, sync, ms) => {
                if self.is_up(host) {
                    self.disk(host).cut_at_sync(u64::from(sync));
                    self.off_ms.insert(host, ms);
                }
                Ok(())
            }
            Event::CrashAtOutput(host, outputs, ms) => {
                let crash = Some((outputs, ms));
                match host {
                    Host::Server => self.server.output_until_crash = crash,
                    Host::Device(who) => self.devices[who.index()].output_until_crash = crash,
                }
                Ok(())
            }
            Event::SlowDisk(host, each_ms, for_ms) => {
                self.tally.count("slow disks");
                self.disk(host).slow_syncs(u64::from(each_ms));
                self.due(self.now() + u64::from(for_ms), Happening::DiskRecovers(host));
                Ok(())
            }
            Event::FullDisk(host, for_ms) => {
                self.tally.count("full disks");
                self.disk(host).fill();
                self.due(self.now() + u64::from(for_ms), Happening::DiskRecovers(host));
                Ok(())
            }
            Event::SpaceFails(pick, for_ms) => {
                let space = self.spaces[usize::from(pick) % self.spaces.len()];
                if !self.server.is_up() {
                    return Ok(());
                }
                match self.server.fails(Some(space)) {
                    Ok(()) => self.tally.count("spaces that fail alone"),
                    // A disk that fails or is full keeps its places good.
                    Err(error) => self.line(|| format!("no space fails: {:?}", error.sqlite_error_code())),
                }
                self.due(self.now() + u64::from(for_ms), Happening::SpaceRecovers);
                self.server_was_touched()
            }
            Event::FailSyncs(host, times) => {
                self.tally.count("failing syncs");
                self.disk(host).fail_next_syncs(u64::from(times));
                Ok(())
            }
            Event::FailReads(host, times) => {
                self.tally.count("failing reads");
                self.disk(host).fail_next_reads(u64::from(times));
                Ok(())
            }
            Event::Backup => {
                if self.server.is_up() {
                    self.tally.count("backups");
                    self.server.back_up();
                }
                Ok(())
            }
            Event::Restore(pick, ms) => self.restore(pick, ms),
            Event::Mischief(pick) => self.mischief(pick),
            Event::Copy(who) => {
                if self.devices[who.index()].replica().is_some() {
                    self.tally.count("copies");
                    self.devices[who.index()].copy_files();
                }
                Ok(())
            }
            Event::PutBack(who, pick, ms) => self.put_back(who, pick, ms),
            Event::Upgrade(who) => self.upgrade(who),
        }
    }

    fn log(&mut self, who: Who, kind: u8) -> Result {
        let device = who.index();
        let place = match who {
            Who::Desk => usize::from(kind) % 2,
            Who::Other => 1,
            Who::Phone | Who::Second => 0,
        };
        let space = self.spaces[place];
        let mark = self.model.mark();
        let entry = entry(kind, mark);
        let category = match who {
            Who::Desk => Category::Observations,
            _ => entry.body.belongs(ebb_core::Writer::Patient)[0],
        };
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        match replica.log(space, &entry) {
            Ok(id) => {
                self.model.logged(mark, device, space, category, Some(id));
                self.tally.count("records");
                self.line(|| format!("{who:?} logged {mark}"));
                self.is_there(device, id, mark)?;
            }
            Err(error) => {
                self.failed(who, &error)?;
                self.model.logged(mark, device, space, category, None);
            }
        }
        self.changed(device)
    }

    fn edit(&mut self, who: Who, pick: u8) -> Result {
        let device = who.index();
        let Some((space, record)) = self.pick(device, pick, |_| true)? else { return Ok(()) };
        let mark = self.model.mark();
        let Some(entry) = rewritten(&record.body, mark) else { return Ok(()) };
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        match replica.edit(space, record.id, &entry) {
            Ok(()) => {
                self.tally.count("edits");
                self.line(|| format!("{who:?} wrote {mark}"));
                let certainty = self.lasts(device);
                self.model.edited(&record.id, mark, device, certainty);
            }
            Err(error) => {
                self.failed(who, &error)?;
                self.model.edited(&record.id, mark, device, Certainty::Maybe);
            }
        }
        self.changed(device)
    }

    fn retract(&mut self, who: Who, pick: u8) -> Result {
        let device = who.index();
        let Some((space, record)) = self.pick(device, pick, |_| true)? else { return Ok(()) };
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let certainty = match replica.retract(space, record.id, "a mistake") {
            Ok(()) => self.lasts(device),
            // Another's record in a category that only others write: nothing was done.
            Err(Error::FixInput { .. }) => return Ok(()),
            Err(error) => {
                self.failed(who, &error)?;
                Certainty::Maybe
            }
        };
        self.tally.count("retractions");
        self.model.retracted(&record.id, certainty);
        self.changed(device)
    }

    fn unretract(&mut self, who: Who, pick: u8) -> Result {
        let device = who.index();
        let Some((space, record)) = self.pick(device, pick, |record| record.retracted.is_some())? else {
            return Ok(());
        };
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        match replica.unretract(space, record.id) {
            Ok(()) => self.tally.count("retractions taken back"),
            Err(Error::FixInput { .. }) => return Ok(()),
            Err(error) => self.failed(who, &error)?,
        }
        self.model.unretracted(&record.id);
        self.changed(device)
    }

    fn resolve(&mut self, who: Who, pick: u8) -> Result {
        let device = who.index();
        let Some((space, record)) = self.pick(device, pick, |record| record.conflicts > 0)? else {
            return Ok(());
        };
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let versions = match replica.conflicts(space, record.id) {
            Ok(versions) => versions,
            Err(error) => return self.failed(who, &error),
        };
        let chosen = &versions[usize::from(pick) % versions.len()];
        match replica.resolve(space, chosen) {
            Ok(()) => {
                self.tally.count("choices");
                match replica.record(space, record.id) {
                    Ok(now) if now.conflicts > 0 || mark_of(&now) != mark_of(chosen) => {
                        return Err(Fault(format!("{who:?} chose a version and another stands")));
                    }
                    _ => {}
                }
            }
            Err(error) => self.failed(who, &error)?,
        }
        self.changed(device)
    }

    fn add_second(&mut self) -> Result {
        let Some(card) = &self.devices[Who::Second.index()].card else { return Ok(()) };
        let card = through_text(card)?;
        let Some(replica) = self.devices[Who::Phone.index()].replica() else { return Ok(()) };
        let certainty = match replica.add_device(&card) {
            Ok(()) => Certainty::Sure,
            Err(Error::FixInput { .. }) => return Ok(()),
            Err(error) => {
                self.failed(Who::Phone, &error)?;
                Certainty::Maybe
            }
        };
        self.tally.count("devices added");
        self.model.second = self.model.second.max(Some(certainty));
        self.changed(Who::Phone.index())
    }

    fn grant(&mut self, who: Who, bits: u16) -> Result {
        if who == Who::Second && !self.second_signs {
            return Ok(());
        }
        let categories: Vec<_> = Category::ALL
            .into_iter()
            .enumerate()
            .filter(|(place, category)| bits >> place & 1 == 1 && *category != Category::Private)
            .map(|(_, category)| category)
            .collect();
        let Some(card) = &self.devices[Who::Desk.index()].card else { return Ok(()) };
        let clinic = through_text(card)?;
        let Some(replica) = self.devices[who.index()].replica() else { return Ok(()) };
        let certainty = match replica.grant(&clinic, &categories) {
            Ok(()) => Certainty::Sure,
            Err(Error::FixInput { .. }) => return Ok(()),
            Err(error) => {
                self.failed(who, &error)?;
                Certainty::Maybe
            }
        };
        self.tally.count("grants");
        let space = self.spaces[usize::from(who == Who::Other)];
        self.model.granted(space, &categories, certainty);
        self.changed(who.index())
    }

    fn rotate(&mut self, who: Who, pick: u8) -> Result {
        if who == Who::Second && !self.second_signs {
            return Ok(());
        }
        let category = Category::ALL[usize::from(pick) % Category::ALL.len()];
        let Some(replica) = self.devices[who.index()].replica() else { return Ok(()) };
        match replica.rotate(category) {
            Ok(()) => self.tally.count("rotations"),
            Err(error) => self.failed(who, &error)?,
        }
        self.changed(who.index())
    }

    /// The app is given a moment in the background.
    fn background(&mut self, who: Who, ms: u16) -> Result {
        let device = who.index();
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let budget = Duration::from_millis(ms.into());
        let Ok(until) = replica.with_engine(|engine| Ok(engine.until(budget))) else { return Ok(()) };
        self.tally.count("moments in the background");
        self.devices[device].in_background = true;
        self.drive(device, Input::Leave)?;
        self.drive(device, Input::SyncUntil(until))
    }

    pub(super) fn come_to_the_front(&mut self, device: usize) -> Result {
        self.devices[device].in_background = false;
        self.drive(device, Input::Stay)
    }

    /// What a call promised lasts, but for a device that was put back: it may be told that it signs no more.
    fn lasts(&self, device: usize) -> Certainty {
        if self.devices[device].put_back { Certainty::Maybe } else { Certainty::Sure }
    }

    /// A call failed: for a reason that there may be.
    pub(super) fn failed(&mut self, who: Who, error: &Error) -> Result {
        self.line(|| format!("{who:?} could not: {error}"));
        match error {
            Error::Bug(cause) if !self.disk(Host::Device(who)).is_off() => {
                Err(Fault(format!("a defect at {who:?}: {error} ({cause:?})")))
            }
            Error::Reenrol(_) if !self.devices[who.index()].put_back => {
                Err(Fault(format!("{who:?} may no longer write")))
            }
            _ => Ok(()),
        }
    }

    /// A record that a device lists, by a number.
    fn pick(
        &mut self,
        device: usize,
        pick: u8,
        fits: impl Fn(&ebb_core::Record) -> bool,
    ) -> Result<Option<(ebb_core::SpaceId, ebb_core::Record)>> {
        let mut found = Vec::new();
        for place in self.follows(device) {
            let space = self.spaces[place];
            let Some(replica) = self.devices[device].replica() else { return Ok(None) };
            match replica.records(space, &Query::default()) {
                Ok(records) => found.extend(records.into_iter().filter(&fits).map(|record| (space, record))),
                Err(error) => self.failed(Who::ALL[device], &error)?,
            }
        }
        // In an order that does not hang on chance: ids are drawn from the seed.
        found.sort_by_key(|(_, record)| record.id);
        if found.is_empty() {
            return Ok(None);
        }
        // Among a few, so that devices often mean the same one.
        let place = usize::from(pick) % found.len().min(PICKED_MAX);
        let (space, record) = found.swap_remove(place);
        self.known(device, &record)?;
        if self.devices[device].put_back {
            self.devices[device].written_since.insert(record.id);
        }
        Ok(Some((space, record)))
    }

    fn is_there(&self, device: usize, id: RecordId, mark: Mark) -> Result {
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let space = self.model.records[&mark].space;
        match replica.record(space, id) {
            Err(Error::FixInput { .. }) => Err(Fault(format!("{mark} was logged and is not there"))),
            _ => Ok(()),
        }
    }

    /// A device's records or roster changed: its connection hears of it.
    pub(super) fn changed(&mut self, device: usize) -> Result {
        self.after(device)?;
        self.drive(device, Input::LocalChange)
    }

    /// After each call: whether the power went, what it cost, and that no record is gone.
    pub(super) fn after(&mut self, device: usize) -> Result {
        let who = Who::ALL[device];
        if self.devices[device].disk.is_off() {
            return self.power_went(Host::Device(who));
        }
        let cost = self.devices[device].disk.sync_cost_ms();
        let one = &mut self.devices[device];
        one.slow_ms += cost - std::mem::replace(&mut one.cost_ms, cost);
        self.check_step(device)
    }
}
