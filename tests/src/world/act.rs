//! Carrying out what happens.

use ebb_core::{
    Category, Entry, LinkAction, Query, RecordId, Replica,
    record::{Attendance, Body, ScreenResult, Specimen, Unit},
};
use ebb_protocol::client::Input;
use ebb_sync_server::connection::{End, Step};

use super::{Event, Fault, Happening, Host, Result, Who, World, server::frames};
use crate::{
    model::{Certainty, Mark},
    net::{Arrival, LinkId, Way},
};

/// A connection that cannot be made fails after this.
const REFUSED_MS: u64 = 300;
/// How often a host that does not start is started again.
const RETRY_MS: u64 = 700;
/// Records among which one is chosen to be written again.
const PICKED_MAX: usize = 6;
/// How often a log that failed is tried while nobody appends.
const PROBE_MS: u64 = 1_000;

impl World {
    /// Does what the scenario says.
    pub(super) fn act(&mut self, event: Event) -> Result {
        self.line(|| format!("{event:?}"));
        self.tally.count("events");
        match event {
            Event::Log(who, kind) => self.log(who, kind),
            Event::Edit(who, pick) => self.edit(who, pick),
            Event::Retract(who, pick) => self.retract(who, pick),
            Event::Resolve(who, pick) => self.resolve(who, pick),
            Event::AddSecond => self.add_second(),
            Event::Grant(who, categories) => self.grant(who, categories),
            Event::Rotate(who, pick) => self.rotate(who, pick),
            Event::Online(who, ms) => {
                self.devices[who.index()].network_ms = Some(1 + u64::from(ms));
                self.drive(who.index(), Input::NetworkChanged)
            }
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
                watch.off_ms.fetch_add(i64::from(minutes) * 60_000, std::sync::atomic::Ordering::Relaxed);
                self.tally.count("clock jumps");
                Ok(())
            }
            Event::Crash(host, ms) => self.crash(host, ms),
            Event::CrashAtSync(host, sync, _) => {
                if self.is_up(host) {
                    self.disk(host).cut_at_sync(u64::from(sync));
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
            _ => entry.body.category(ebb_core::Writer::Patient).expect("a known kind"),
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
                self.model.edited(&record.id, mark, device, Certainty::Sure);
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
            Ok(()) => Certainty::Sure,
            // Another's record in a category that only others write: nothing was done.
            Err(ebb_core::Error::FixInput { .. }) => return Ok(()),
            Err(error) => {
                self.failed(who, &error)?;
                Certainty::Maybe
            }
        };
        self.tally.count("retractions");
        self.model.retracted(&record.id, certainty);
        self.changed(device)
    }

    fn resolve(&mut self, who: Who, pick: u8) -> Result {
        let device = who.index();
        let Some((space, record)) = self.pick(device, pick, |record| record.conflicts > 0)? else {
            return Ok(());
        };
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        match replica.resolve(space, record.id, usize::from(pick) % 2) {
            Ok(()) => self.tally.count("choices"),
            Err(error) => self.failed(who, &error)?,
        }
        self.changed(device)
    }

    fn add_second(&mut self) -> Result {
        let Some(card) = self.devices[Who::Second.index()].card.clone() else { return Ok(()) };
        let Some(replica) = self.devices[Who::Phone.index()].replica() else { return Ok(()) };
        let certainty = match replica.add_device(&card) {
            Ok(()) => Certainty::Sure,
            Err(ebb_core::Error::FixInput { .. }) => return Ok(()),
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
        let Some(clinic) = self.devices[Who::Desk.index()].card.clone() else { return Ok(()) };
        let Some(replica) = self.devices[who.index()].replica() else { return Ok(()) };
        let certainty = match replica.grant(&clinic, &categories) {
            Ok(()) => Certainty::Sure,
            Err(ebb_core::Error::FixInput { .. }) => return Ok(()),
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

    /// A call failed: for a reason that there may be.
    fn failed(&mut self, who: Who, error: &ebb_core::Error) -> Result {
        self.line(|| format!("{who:?} could not: {error}"));
        match error {
            ebb_core::Error::Bug(cause) if !self.disk(Host::Device(who)).is_off() => {
                Err(Fault(format!("a defect at {who:?}: {error} ({cause:?})")))
            }
            ebb_core::Error::Reenrol(_) => Err(Fault(format!("{who:?} may no longer write"))),
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
        Ok(Some((space, record)))
    }

    fn is_there(&self, device: usize, id: RecordId, mark: Mark) -> Result {
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let space = self.model.records[&mark].space;
        match replica.record(space, id) {
            Err(ebb_core::Error::FixInput { .. }) => {
                Err(Fault(format!("{mark} was logged and is not there")))
            }
            _ => Ok(()),
        }
    }

    /// A device's records or roster changed: its connection hears of it.
    fn changed(&mut self, device: usize) -> Result {
        self.after(device)?;
        self.drive(device, Input::LocalChange)
    }

    /// Hands a device's connection what happened, and carries out what it says.
    pub(super) fn drive(&mut self, device: usize, input: Input) -> Result {
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let actions = replica.drive(input).map_err(|error| Fault(format!("locked: {error}")))?;
        self.after(device)?;
        for action in actions {
            if let Some((outputs, ms)) = &mut self.devices[device].output_until_crash {
                if *outputs == 0 {
                    let ms = *ms;
                    return self.crash(Host::Device(Who::ALL[device]), ms);
                }
                *outputs -= 1;
            }
            self.carry_out(device, action)?;
        }
        self.await_tick(device);
        Ok(())
    }

    fn carry_out(&mut self, device: usize, action: LinkAction) -> Result {
        match action {
            LinkAction::Connect => {
                let one = &mut self.devices[device];
                one.attempt += 1;
                one.connecting = true;
                let (attempt, after) = (one.attempt, one.network_ms.map_or(REFUSED_MS, |ms| 4 * ms));
                self.close_link(device);
                self.due(self.now() + after, Happening::Connects(device, attempt));
            }
            LinkAction::Send(frame) => {
                if let Some(link) = self.devices[device].link {
                    let slow_ms = std::mem::take(&mut self.devices[device].slow_ms);
                    self.send(slow_ms, link, Way::Up, &frame);
                }
            }
            LinkAction::Close => {
                self.devices[device].connecting = false;
                self.close_link(device);
            }
        }
        Ok(())
    }

    /// The device closes its link: what was sent still arrives, and the end behind it.
    fn close_link(&mut self, device: usize) {
        self.devices[device].forget_incoming();
        if let Some(link) = self.devices[device].link.take() {
            self.send(0, link, Way::Up, &[]);
        }
    }

    /// After each call: whether the power went, what it cost, and that no record is gone.
    fn after(&mut self, device: usize) -> Result {
        let who = Who::ALL[device];
        if self.devices[device].disk.is_off() {
            return self.crash(Host::Device(who), 500);
        }
        let cost = self.devices[device].disk.sync_cost_ms();
        let one = &mut self.devices[device];
        one.slow_ms += cost - std::mem::replace(&mut one.cost_ms, cost);
        self.check_step(device)
    }

    /// Asks for a tick when the device's deadline has come.
    fn await_tick(&mut self, device: usize) {
        let one = &self.devices[device];
        let Some(replica) = one.replica() else { return };
        let Ok(Some(deadline)) = replica.deadline() else { return };
        let at_ms = deadline.0.max(self.now() + 1);
        if one.tick_ms.is_none_or(|tick_ms| tick_ms <= self.now() || at_ms < tick_ms) {
            self.devices[device].tick_ms = Some(at_ms);
            self.due(at_ms, Happening::DeviceTick(device));
        }
    }

    pub(super) fn device_tick(&mut self, device: usize) -> Result {
        let one = &mut self.devices[device];
        if one.tick_ms != Some(self.now_ms.load(std::sync::atomic::Ordering::Relaxed)) {
            return Ok(());
        }
        one.tick_ms = None;
        self.drive(device, Input::Tick)
    }

    pub(super) fn connects(&mut self, device: usize, attempt: u32) -> Result {
        let one = &mut self.devices[device];
        if !one.connecting || one.attempt != attempt || one.replica().is_none() {
            return Ok(());
        }
        one.connecting = false;
        let Some(network_ms) = one.network_ms.filter(|_| self.server.is_up()) else {
            return self.drive(device, Input::Closed);
        };
        let Some(tls) = one.card.as_ref().map(|card| card.device.tls) else { return Ok(()) };
        let link = self.net.connect(device, network_ms);
        let mut exporter = [0; 32];
        exporter[..4].copy_from_slice(&link.0.to_be_bytes());
        self.devices[device].link = Some(link);
        self.devices[device].forget_incoming();
        self.server.connect(link, tls, exporter);
        self.tally.count("connections");
        self.line(|| format!("{:?} is connected by {}", Who::ALL[device], link.0));
        self.await_session_tick(link);
        self.drive(device, Input::Connected { exporter })
    }

    pub(super) fn link_gone(&mut self, device: usize, link: LinkId) -> Result {
        if self.devices[device].link != Some(link) {
            return Ok(());
        }
        self.devices[device].link = None;
        self.devices[device].forget_incoming();
        self.drive(device, Input::Closed)
    }

    /// Breaks a device's link: with a delay, both ends notice, and what was under way up may come that late;
    /// without, nobody does.
    fn break_link(&mut self, who: Who, what: &'static str, late_ms: Option<u64>) -> Result {
        let device = who.index();
        let Some(link) = self.devices[device].link else { return Ok(()) };
        self.tally.count(what);
        let Some(late_ms) = late_ms else {
            self.net.black_hole(link);
            return Ok(());
        };
        if late_ms == 0 {
            self.net.black_hole(link);
        } else {
            self.net.deafen(link);
            self.delay_up(link, late_ms);
        }
        let ends_at = self.now() + late_ms + self.random.below(300) as u64;
        let end = Arrival { at_ms: ends_at, link, way: Way::Up, bytes: Vec::new() };
        self.due(ends_at, Happening::Arrives(end));
        let notices_at = self.now() + self.random.below(300) as u64;
        self.due(notices_at, Happening::LinkGone(device, link));
        Ok(())
    }

    /// What is under way to the server arrives later, in the same order.
    fn delay_up(&mut self, link: LinkId, late_ms: u64) {
        let is_up = |happening: &Happening| matches!(happening, Happening::Arrives(arrival) if arrival.link == link && arrival.way == Way::Up);
        let keys: Vec<_> = self.due.iter().filter(|(_, due)| is_up(due)).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(Happening::Arrives(arrival)) = self.due.remove(&key) {
                self.due(key.0 + late_ms, Happening::Arrives(arrival));
            }
        }
    }

    /// What the device pushed over its connection before arrives again over this one.
    fn send_twice(&mut self, who: Who) -> Result {
        let Some(link) = self.devices[who.index()].link else { return Ok(()) };
        let again: Vec<_> = self.net.pushed_before(link).iter().skip(1).cloned().collect();
        for frame in again {
            self.tally.count("twice");
            self.send(0, link, Way::Up, &frame);
        }
        Ok(())
    }

    pub(super) fn arrives(&mut self, arrival: Arrival) -> Result {
        let Arrival { link, way, bytes, .. } = arrival;
        let ends = bytes.is_empty();
        if !ends && !self.net.delivers(link, way) {
            return Ok(());
        }
        match way {
            Way::Up => {
                let Some(exchange) = self.server.exchanges.get_mut(&link) else { return Ok(()) };
                if ends {
                    self.server.exchanges.remove(&link);
                    return Ok(());
                }
                exchange.incoming().extend_from_slice(&bytes);
                self.serve(link)?;
                self.log_is_asked()
            }
            Way::Down => {
                let Some(device) = self.net.device(link) else { return Ok(()) };
                if self.devices[device].link != Some(link) {
                    return Ok(());
                }
                if ends {
                    return self.link_gone(device, link);
                }
                for input in self.devices[device].takes(&bytes) {
                    if self.devices[device].link == Some(link) {
                        self.drive(device, input)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Lets a connection at the server do what it can, and sends what it says.
    fn serve(&mut self, link: LinkId) -> Result {
        let Some(exchange) = self.server.exchanges.get_mut(&link) else { return Ok(()) };
        let ended = loop {
            match exchange.step() {
                Ok(Step::Went | Step::Took) => {}
                Ok(Step::Idle | Step::Opens) => break None,
                Err(end) => break Some(end),
            }
        };
        let bytes = exchange.unwritten().to_vec();
        exchange.wrote(bytes.len());
        if ended.is_some() {
            self.server.exchanges.remove(&link);
        }
        if self.server.disk.is_off() {
            return self.crash(Host::Server, 500);
        }
        if !bytes.is_empty() && ended != Some(End::Gone) {
            if let Some((outputs, ms)) = &mut self.server.output_until_crash {
                if *outputs == 0 {
                    let ms = *ms;
                    return self.crash(Host::Server, ms);
                }
                *outputs -= 1;
            }
            for frame in frames(&bytes) {
                self.note(link, &frame);
                self.server.says(&frame)?;
            }
            self.send(0, link, Way::Down, &bytes);
        }
        if ended.is_some() {
            self.send(0, link, Way::Down, &[]);
        } else {
            self.await_session_tick(link);
        }
        Ok(())
    }

    fn await_session_tick(&mut self, link: LinkId) {
        let Some(exchange) = self.server.exchanges.get(&link) else { return };
        let Some(deadline) = exchange.deadline() else { return };
        let wait_ms = deadline.since(self.server.watch.shows()).max(1);
        self.due(self.now() + wait_ms, Happening::SessionTick(link));
    }

    pub(super) fn session_tick(&mut self, link: LinkId) -> Result {
        let shows = self.server.watch.shows();
        let Some(exchange) = self.server.exchanges.get_mut(&link) else { return Ok(()) };
        if exchange.deadline().is_none_or(|deadline| deadline > shows) {
            return Ok(());
        }
        if exchange.tick().is_err() {
            self.server.exchanges.remove(&link);
            self.send(0, link, Way::Down, &[]);
            return Ok(());
        }
        self.serve(link)
    }

    /// Something may wait for the log: it comes round to it soon.
    pub(super) fn log_is_asked(&mut self) -> Result {
        if self.server.is_up() && !self.server.works {
            self.server.works = true;
            let cost = self.server.disk.sync_cost_ms();
            let slow = cost - std::mem::replace(&mut self.server.slow_ms, cost).min(cost);
            let after = self.random.below(4) as u64 + slow;
            self.due(self.now() + after, Happening::LogWorks);
        }
        Ok(())
    }

    pub(super) fn log_works(&mut self) -> Result {
        self.server.works = false;
        let reads_first = self.random.coin();
        let worked = self.server.work(reads_first);
        // Now and then something more happens before anybody hears of it.
        while worked && self.random.below(3) == 0 {
            let reads_first = self.random.coin();
            self.server.work(reads_first);
        }
        if self.server.disk.is_off() {
            return self.crash(Host::Server, 500);
        }
        if worked {
            let links: Vec<_> = self.server.exchanges.keys().copied().collect();
            for link in links {
                self.serve(link)?;
            }
            self.log_is_asked()
        } else if self.server.probe() {
            self.server.works = true;
            self.due(self.now() + PROBE_MS, Happening::LogWorks);
            Ok(())
        } else {
            Ok(())
        }
    }

    /// The power of a host goes off.
    fn crash(&mut self, host: Host, off_ms: u16) -> Result {
        if !self.is_up(host) {
            return Ok(());
        }
        self.line(|| format!("{host:?} loses its power"));
        self.disk(host).cut();
        match host {
            Host::Server => {
                self.tally.count("server crashes");
                self.server.end();
                for device in 0..self.devices.len() {
                    let Some(link) = self.devices[device].link else { continue };
                    // A process that died says so, a machine that lost its power does not.
                    if self.random.coin() || self.heals {
                        self.due(self.now() + 100, Happening::LinkGone(device, link));
                    } else {
                        self.net.black_hole(link);
                    }
                }
            }
            Host::Device(who) => {
                self.tally.count("device crashes");
                let link = self.devices[who.index()].link;
                // What was listed and never promised may go with the power.
                self.devices[who.index()].listed = [0; 2];
                self.devices[who.index()].close();
                if let Some(link) = link.filter(|_| self.random.coin()) {
                    self.send(0, link, Way::Up, &[]);
                }
            }
        }
        self.due(self.now() + 1 + u64::from(off_ms), Happening::PowerOn(host));
        Ok(())
    }

    pub(super) fn power_on(&mut self, host: Host) -> Result {
        if self.is_up(host) {
            return Ok(());
        }
        let disk = self.disk(host);
        if disk.is_off() {
            disk.power_on();
        }
        self.line(|| format!("{host:?} starts"));
        match host {
            Host::Server => match self.server.start() {
                Ok(()) => {
                    self.server.check()?;
                    self.log_is_asked()?;
                }
                Err(ebb_sync_server::log::LogError::Damaged(why)) => {
                    return Err(Fault(format!("the server's log is damaged: {why}")));
                }
                Err(_) => return self.start_later(host),
            },
            Host::Device(who) => {
                match self.devices[who.index()].open() {
                    Ok(()) => {}
                    Err(
                        error @ (ebb_core::Error::Bug(_)
                        | ebb_core::Error::Unlock(_)
                        | ebb_core::Error::Update(_)),
                    ) if !disk.is_off() => {
                        return Err(Fault(format!("{who:?} does not open: {error} ({error:?})")));
                    }
                    Err(_) => return self.start_later(host),
                }
                if disk.is_off() {
                    return self.crash(host, 500);
                }
                self.check_device(who.index())?;
                self.drive(who.index(), Input::Stay)?;
            }
        }
        Ok(())
    }

    fn start_later(&mut self, host: Host) -> Result {
        self.line(|| format!("{host:?} does not start yet"));
        if let Host::Device(who) = host {
            self.devices[who.index()].close();
        }
        self.due(self.now() + RETRY_MS, Happening::PowerOn(host));
        Ok(())
    }

    fn restore(&mut self, pick: u8, ms: u16) -> Result {
        if !self.server.is_up() || self.heals {
            return Ok(());
        }
        self.crash(Host::Server, ms)?;
        self.server.disk.power_on();
        let backup = self.server.restore(pick);
        self.line(|| format!("the server's file is that of backup {backup:?}"));
        self.tally.count("restores");
        Ok(())
    }

    fn upgrade(&mut self, who: Who) -> Result {
        let device = who.index();
        if self.devices[device].replica().is_none() {
            return Ok(());
        }
        self.close_link(device);
        self.devices[device].close();
        match self.devices[device].age_lists() {
            Ok(()) => self.tally.count("upgrades"),
            // A disk that fails keeps the old lists.
            Err(error) => self.line(|| format!("not updated: {:?}", error.sqlite_error_code())),
        }
        if self.devices[device].disk.is_off() {
            self.due(self.now() + 500, Happening::PowerOn(Host::Device(who)));
            return Ok(());
        }
        self.power_on(Host::Device(who))
    }
}

/// What a mark looks like in a record.
fn text(mark: Mark) -> String {
    format!("m{mark}")
}

/// The mark of a record's shown version.
pub(super) fn mark_of(record: &ebb_core::Record) -> Option<Mark> {
    let text = match &record.body {
        Body::Dose(dose) => &dose.drug,
        Body::UseEvent(used) => &used.substance,
        Body::Visit(visit) => &visit.label,
        Body::WithdrawalAnswers(answers) => &answers.version,
        Body::DrugScreen(screen) => &screen.substance,
        Body::Note(_) => &record.note,
        _ => return None,
    };
    text.strip_prefix('m')?.parse().ok()
}

/// A record of one of several kinds with a mark.
fn entry(kind: u8, mark: Mark) -> Entry {
    let entry = match kind / 2 % 6 {
        0 => Entry::dose(text(mark), 8.0, Unit::Mg),
        1 => Entry::use_event(text(mark)),
        2 => Entry::visit("group", text(mark), Attendance::Kept),
        3 => Entry::withdrawal_answers("sows16", text(mark), [("1", 3), ("2", 0)]),
        4 => Entry::drug_screen(Specimen::Urine, text(mark), ScreenResult::Negative),
        _ => return Entry::private_note(text(mark)),
    };
    entry.note(format!("as of {mark}"))
}

/// The same record with another mark; `None` for one whose mark is a note, which merges.
fn rewritten(body: &Body, mark: Mark) -> Option<Entry> {
    let kind = match body {
        Body::Dose(_) => 0,
        Body::UseEvent(_) => 2,
        Body::Visit(_) => 4,
        Body::WithdrawalAnswers(_) => 6,
        Body::DrugScreen(_) => 8,
        _ => return None,
    };
    Some(entry(kind, mark))
}

/// Every record of a space, as a replica lists it.
pub(super) fn list(replica: &Replica, space: ebb_core::SpaceId) -> Result<Vec<ebb_core::Record>> {
    let records = replica.records(space, &Query::default());
    records.map_err(|error| Fault(format!("records cannot be listed: {error} ({error:?})")))
}
