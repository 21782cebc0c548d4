//! A small clinic in virtual time, under one seed: real replicas over real SQLCipher files, the server's real
//! sessions, committer and log, and between them a network and disks that lose what they may.
//!
//! [`World::run`] lives through a [`Scenario`], heals everything, and expects that all converge. Whatever
//! contradicts the [`Model`] ends the run with a [`Fault`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use ebb_core::SpaceId;
use ebb_protocol::{
    client::{BACK_OFF_MS_MAX, Input},
    id::{Hash, Millis},
};
use tempfile::TempDir;

use crate::{
    disk::{self, Disk, medium::Random},
    model::Model,
    net::{Arrival, LinkId, Net, Way},
    scenario::{Event, Host, Scenario, Step, Who},
};

mod act;
mod care;
mod check;
mod device;
mod links;
mod marks;
mod mischief;
mod power;
mod server;
mod trace;

use device::Device;
use server::Server;
pub use trace::{Tally, Trace};

/// When a world begins, in ms since the Unix epoch.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Once everything works again, all must be where it should be within this time. In every other world no
/// device is told so, and the longest pause between attempts comes on top.
const CONVERGE_MS: u64 = 60_000;
/// How often it is looked whether it is.
const LOOK_MS: u64 = 500;
/// More happenings than this in one run: the world goes round in circles.
const HAPPENINGS_MAX: u64 = 400_000;

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

type Result<T = (), E = Fault> = std::result::Result<T, E>;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What it met.
    pub tally: Tally,
    /// What happened, line by line where that was asked for, and as one number.
    pub trace: Trace,
    /// What should not be, if anything.
    pub fault: Option<Fault>,
}

/// The true time, which nobody in the world knows, and how wrong a clock is.
#[derive(Clone, Debug)]
struct Watch {
    now_ms: Arc<AtomicU64>,
    off_ms: Arc<AtomicI64>,
}

impl Watch {
    fn shows(&self) -> Millis {
        let now = BEGIN_MS + self.now_ms.load(Ordering::Relaxed);
        Millis(now.saturating_add_signed(self.off_ms.load(Ordering::Relaxed)))
    }
}

impl ebb_core::Clock for Watch {
    fn now(&self) -> Millis {
        self.shows()
    }

    fn steady(&self) -> Millis {
        Millis(self.now_ms.load(Ordering::Relaxed))
    }
}

/// Something that is due.
#[derive(Debug)]
enum Happening {
    /// The scenario's next event.
    Scripted(Event),
    /// Bytes (or the end) arrive.
    Arrives(Arrival),
    /// A device's attempt to connect comes to something, or fails.
    Connects(usize, u32),
    /// A device learns that its link is gone.
    LinkGone(usize, LinkId),
    /// A device's deadline may have passed.
    DeviceTick(usize),
    /// A session's deadline may have passed.
    SessionTick(LinkId),
    /// The log reads or commits something.
    LogWorks,
    /// Power is back.
    PowerOn(Host),
    /// A disk has room again, or is fast again.
    DiskRecovers(Host),
    /// The server can store what belongs to every space again.
    SpaceRecovers,
}

/// A small clinic in virtual time.
#[derive(Debug)]
pub struct World {
    now_ms: Arc<AtomicU64>,
    due: BTreeMap<(u64, u64), Happening>,
    happened: u64,
    random: Random,
    devices: Vec<Device>,
    server: Server,
    net: Net,
    model: Model,
    spaces: [SpaceId; 2],
    /// Whether the second phone signs rosters too. Where files are put back, two owners could leave two valid
    /// branches, which the protocol's sharing operations will settle and this version does not.
    second_signs: bool,
    /// Whether devices are told when everything works again.
    tells_devices: bool,
    /// Set once the scenario is over: nothing breaks any more.
    heals: bool,
    trace: Trace,
    tally: Tally,
    /// For how long the power goes when it goes at a sync.
    off_ms: BTreeMap<Host, u16>,
    /// What devices gave back to a server that lost it, and it did not yet acknowledge.
    refills: BTreeSet<Hash>,
    _folder: TempDir,
}

impl World {
    /// Lives through a scenario. `tells` keeps the trace's lines.
    #[must_use]
    pub fn run(scenario: &Scenario, tells: bool) -> Outcome {
        let mut world = Self::new(scenario.seed, tells);
        let fault = world.live(scenario).err();
        let disks = world.devices.iter().map(|device| &device.disk).chain([&world.server.disk]);
        world.tally.add("disk faults", disks.map(|disk| disk.faults()).sum());
        let Self { tally, trace, .. } = world;
        Outcome { tally, trace, fault }
    }

    fn new(seed: u64, tells: bool) -> Self {
        let folder = disk::folder();
        let now_ms = Arc::new(AtomicU64::new(0));
        let watch = || Watch { now_ms: now_ms.clone(), off_ms: Arc::default() };
        let server = Server::new(folder.path().join("server"), seed, watch());
        let devices = Who::ALL.map(|who| Device::new(who, folder.path(), seed, watch(), server.pins()));
        Self {
            now_ms: now_ms.clone(),
            due: BTreeMap::new(),
            happened: 0,
            random: Random::new(seed ^ 0x0077_6f72_6c64),
            devices: devices.into(),
            server,
            net: Net::new(seed ^ 0x006e_6574),
            model: Model::default(),
            spaces: [SpaceId::ZERO; 2],
            second_signs: true,
            tells_devices: seed.is_multiple_of(2),
            heals: false,
            trace: Trace::new(tells),
            tally: Tally::default(),
            off_ms: BTreeMap::new(),
            refills: BTreeSet::new(),
            _folder: folder,
        }
    }

    fn live(&mut self, scenario: &Scenario) -> Result {
        self.begin()?;
        let puts_back = |step: &Step| matches!(step.event, Event::Restore(..) | Event::PutBack(..));
        self.second_signs = !scenario.steps.iter().any(puts_back);
        for step in &scenario.steps {
            self.due(step.at_ms, Happening::Scripted(step.event));
        }
        let end = scenario.steps.last().map_or(0, |step| step.at_ms);
        self.pass(end)?;
        self.heal()?;
        let until = end + CONVERGE_MS + if self.tells_devices { 0 } else { BACK_OFF_MS_MAX };
        let mut reason = String::new();
        for at in (end..=until).step_by(usize::try_from(LOOK_MS).expect("small")) {
            self.pass(at)?;
            match self.converged()? {
                None => return self.check_all(),
                Some(why) => reason = why,
            }
        }
        Err(Fault(format!("a minute after everything works again: {reason}")))
    }

    /// Founds the spaces and lets the desk follow them; everybody wants to be in sync.
    fn begin(&mut self) -> Result {
        self.server.start().map_err(|error| Fault(format!("the server does not start: {error}")))?;
        for who in [Who::Phone, Who::Other, Who::Desk, Who::Second] {
            if who == Who::Second {
                self.devices[who.index()].joins = Some(through_text(&self.ticket(Who::Phone)?)?);
            }
            self.devices[who.index()].open().map_err(|error| Fault(format!("{who:?}: {error}")))?;
        }
        let tickets = [self.ticket(Who::Phone)?, self.ticket(Who::Other)?];
        self.spaces = tickets.map(|ticket| ticket.space);
        for ticket in tickets {
            let ticket = through_text(&ticket)?;
            let desk = self.devices[Who::Desk.index()].replica().expect("just opened");
            desk.follow(&ticket).map_err(|error| Fault(format!("the desk follows nobody: {error}")))?;
        }
        for who in Who::ALL {
            let online = self.random.below(3) > 0;
            self.devices[who.index()].network_ms = online.then(|| 1 + self.random.below(300) as u64);
            self.drive(who.index(), Input::Stay)?;
        }
        Ok(())
    }

    /// Lets everything happen that is due up to a moment.
    fn pass(&mut self, until_ms: u64) -> Result {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= until_ms
        {
            let ((at_ms, _), happening) = entry.remove_entry();
            self.happened += 1;
            if self.happened > HAPPENINGS_MAX {
                return Err(Fault("the world goes round in circles".into()));
            }
            self.now_ms.fetch_max(at_ms, Ordering::Relaxed);
            self.happen(happening)?;
        }
        self.now_ms.fetch_max(until_ms, Ordering::Relaxed);
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result {
        match happening {
            Happening::Scripted(event) => self.act(event),
            Happening::Arrives(arrival) => self.arrives(arrival),
            Happening::Connects(device, attempt) => self.connects(device, attempt),
            Happening::LinkGone(device, link) => self.link_gone(device, link),
            Happening::DeviceTick(device) => self.device_tick(device),
            Happening::SessionTick(link) => self.session_tick(link),
            Happening::LogWorks => self.log_works(),
            Happening::PowerOn(host) => self.power_on(host),
            Happening::SpaceRecovers => self.space_recovers(),
            Happening::DiskRecovers(host) => {
                self.disk(host).free();
                self.disk(host).slow_syncs(0);
                if host == Host::Server { self.log_is_asked() } else { Ok(()) }
            }
        }
    }

    /// Everything works again, apps are in front, and everybody is told that there is a network.
    fn heal(&mut self) -> Result {
        self.heals = true;
        self.line(|| "everything works again".into());
        let hosts = Who::ALL.map(Host::Device).into_iter().chain([Host::Server]);
        for host in hosts {
            let disk = self.disk(host);
            disk.free();
            disk.slow_syncs(0);
            disk.fail_next_syncs(0);
            disk.fail_next_reads(0);
            if !self.is_up(host) {
                self.power_on(host)?;
            } else if !disk.is_off() {
                // A cut that waits for a sync which did not come does not come any more.
                disk.cut_at_sync(u64::MAX);
            }
        }
        self.space_recovers()?;
        self.server.output_until_crash = None;
        for device in 0..self.devices.len() {
            self.devices[device].output_until_crash = None;
            if self.devices[device].network_ms.is_none_or(|ms| ms > 300) {
                self.devices[device].network_ms = Some(50);
            }
            if self.devices[device].in_background {
                self.come_to_the_front(device)?;
            }
            if self.tells_devices {
                self.drive(device, Input::NetworkChanged)?;
            }
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn due(&mut self, at_ms: u64, happening: Happening) {
        let at_ms = at_ms.max(self.now());
        let number = self.happened + self.due.len() as u64;
        let mut key = (at_ms, number);
        while self.due.contains_key(&key) {
            key.1 += 1;
        }
        self.due.insert(key, happening);
    }

    fn line(&mut self, line: impl FnOnce() -> String) {
        let now = self.now();
        self.trace.line(now, line);
    }

    fn disk(&self, host: Host) -> Arc<Disk> {
        match host {
            Host::Server => self.server.disk.clone(),
            Host::Device(who) => self.devices[who.index()].disk.clone(),
        }
    }

    fn is_up(&self, host: Host) -> bool {
        match host {
            Host::Server => self.server.is_up(),
            Host::Device(who) => self.devices[who.index()].replica().is_some(),
        }
    }

    fn ticket(&self, who: Who) -> Result<ebb_core::Ticket> {
        let replica = self.devices[who.index()].replica().expect("opened in the beginning");
        replica.ticket().map_err(|error| Fault(format!("no ticket: {error}")))
    }

    /// Sends bytes on their way.
    fn send(&mut self, after_ms: u64, link: LinkId, way: Way, bytes: &[u8]) {
        for arrival in self.net.send(self.now() + after_ms, link, way, bytes) {
            self.due(arrival.at_ms, Happening::Arrives(arrival));
        }
    }

    /// The spaces that a device follows, by their places.
    fn follows(&self, device: usize) -> BTreeSet<usize> {
        match Who::ALL[device] {
            Who::Phone | Who::Second => BTreeSet::from([0]),
            Who::Other => BTreeSet::from([1]),
            Who::Desk => BTreeSet::from([0, 1]),
        }
    }
}

/// The same, as it comes out of the text that people scan or paste.
fn through_text<T: std::fmt::Display + std::str::FromStr>(shown: &T) -> Result<T> {
    let text = shown.to_string();
    text.parse().map_err(|_| Fault(format!("a text of {} letters does not read", text.len())))
}
