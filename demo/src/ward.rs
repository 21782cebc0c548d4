//! The ward: a server, a clinic's desk and phones as processes, and what happens to them.
//!
//! A person's phone is told the person's rows day by day, offline. Now and then there is a network:
//! then it syncs, or is cut off, or is killed, as a seed decides. Meanwhile the desk logs what the
//! clinic saw of the same days. At the end everybody syncs in peace.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use ebb_core::record::Writer;
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    dice::Dice,
    pipe::{Answer, Ask, Care, Opening, Process, Role, Seen},
    progress::Progress,
    replay::writer,
    trial::{Background, DAY_ZERO_MS, Person, Row},
    weather::{Carried, Weather},
};

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the processes keep their files; empty at first.
    pub(crate) data: PathBuf,
    /// How many study days are told; `None` for all.
    pub(crate) days: Option<u32>,
    /// Decides when there is a network, and what happens to it.
    pub(crate) seed: u64,
    /// Whether a field is changed in the clinic's database at the end.
    pub(crate) tamper: bool,
}

/// What became of a person's records.
#[derive(Debug)]
pub(crate) struct Lived {
    /// The person's place in the trial's list.
    pub(crate) place: usize,
    /// Rows that the phone logged.
    pub(crate) logged_by_phone: usize,
    /// Rows that the clinic logged.
    pub(crate) logged_by_clinic: usize,
    /// Records on the phone at the end.
    pub(crate) records: u64,
    /// Those of them that the server has whole.
    pub(crate) on_server: u64,
    /// Envelopes of the person's space.
    pub(crate) envelopes: u64,
    /// Bytes between phone and server, those of TLS and QUIC included.
    pub(crate) carried: Carried,
    /// Bytes of frames alone, as far as phones that were not killed counted them.
    pub(crate) frames: Carried,
    /// Syncs that came through.
    pub(crate) syncs: u32,
    /// Connections that were cut in the middle.
    pub(crate) cuts: u32,
    /// Kills in the middle of a transfer.
    pub(crate) kills: u32,
    /// Rows whose `log()` had returned and that were gone after a kill.
    pub(crate) lost: Vec<String>,
    /// The phone's device id.
    pub(crate) device: String,
    /// The ticket of the person's space.
    pub(crate) ticket: String,
    /// What the phone lists in the end.
    pub(crate) at_phone: Vec<Seen>,
    /// What the clinic lists in the end.
    pub(crate) at_clinic: Vec<Seen>,
    /// What the clinic knew of the person on the last day.
    pub(crate) care: Care,
}

/// Everything that happened.
#[derive(Debug)]
pub(crate) struct Run {
    /// Person by person.
    pub(crate) lived: Vec<Lived>,
    /// The clinic's device id.
    pub(crate) clinic_device: String,
    /// Lines that processes logged at error level: each is a defect.
    pub(crate) errors: Vec<String>,
}

/// How many phones are on at a time: each is a process that wants its share of two cores.
const PHONES_AT_ONCE: usize = 10;
const DAY_MS: i64 = 86_400_000;
/// A calm sync may take so long on a busy machine.
const CALM_MS: u64 = 30_000;
/// A sync that is to be cut off gives up after this: nobody tells a phone that its network is gone.
const CUT_MS: u64 = 1_200;
/// How long a phone that is to be killed is given to transfer enough for that.
const STORM_PATIENCE: Duration = Duration::from_millis(500);
/// How often a calm sync is tried before the demo gives up.
const CALM_TRIES: u32 = 5;
/// No storm before so many bytes: the handshakes alone take most of them.
const STORM_BYTES_MIN: u64 = 3_000;
/// Days without a network, at most.
const OFFLINE_DAYS_MAX: u64 = 14;
/// How long the desk may take to learn of a grant, or to send what it logged.
const DESK_PATIENCE: Duration = Duration::from_secs(60);
/// How often the desk is asked whether it has.
const DESK_POLL: Duration = Duration::from_millis(150);

/// Lets it all happen.
///
/// # Errors
/// If a process cannot do its part. That records differ is no error here: the verdict says so.
pub(crate) async fn run(plan: Plan, people: &[Person], progress: Arc<Progress>) -> anyhow::Result<Run> {
    let logs = plan.data.join("log");
    std::fs::create_dir_all(&logs)?;
    let server_data = plan.data.join("server");
    let mut server = Process::start(Role::Server, &server_data, &logs.join("server.log"))?;
    let Answer::Serving { quic, tcp, pins } = server.answer().await? else {
        bail!("the server does not serve")
    };
    let (quic, tcp): (SocketAddr, SocketAddr) = (quic.parse()?, tcp.parse()?);
    let desk = Desk::open(&plan, quic, tcp, &pins).await?;
    let ward = Arc::new(Ward { plan, logs, quic, tcp, pins, desk, progress });

    let turns = Arc::new(Semaphore::new(PHONES_AT_ONCE));
    let mut lives = JoinSet::new();
    for (place, person) in people.iter().cloned().enumerate() {
        let (ward, turns) = (ward.clone(), turns.clone());
        lives.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            let who = person.who.clone();
            Life::begin(&ward, place, person).await?.live().await.with_context(|| format!("person {who}"))
        });
    }
    let mut lived = Vec::new();
    while let Some(life) = lives.join_next().await {
        lived.push(life??);
    }
    lived.sort_by_key(|life| life.place);

    let ward = Arc::into_inner(ward).context("a life goes on")?;
    ward.desk.settle(ward.plan.tamper, &mut lived).await?;
    let clinic_device = ward.desk.device.clone();
    ward.desk.process.into_inner().close().await?;
    server.close().await?;
    Ok(Run { lived, clinic_device, errors: errors_in(&ward.logs)? })
}

struct Ward {
    plan: Plan,
    logs: PathBuf,
    quic: SocketAddr,
    tcp: SocketAddr,
    pins: String,
    desk: Desk,
    progress: Arc<Progress>,
}

/// The clinic's desk. One question at a time.
struct Desk {
    process: Mutex<Process>,
    card: String,
    device: String,
}

impl Desk {
    async fn open(plan: &Plan, quic: SocketAddr, tcp: SocketAddr, pins: &str) -> anyhow::Result<Self> {
        let dir = plan.data.join("clinic");
        let mut process = Process::start(Role::Clinic, &dir, &plan.data.join("log/clinic.log"))?;
        let opening = Opening {
            dir,
            quic: quic.to_string(),
            tcp: tcp.to_string(),
            pins: pins.to_owned(),
            clinic: None,
        };
        let Answer::Opened { device, card, .. } = process.request(&Ask::Open(opening)).await? else {
            bail!("the desk does not open");
        };
        process.request(&Ask::Stay).await?;
        Ok(Self { process: Mutex::new(process), card, device })
    }

    async fn follow(&self, ticket: &str) -> anyhow::Result<()> {
        self.process.lock().await.request(&Ask::Follow(ticket.to_owned())).await.map(drop)
    }

    /// Logs the first of the rows, as many as it may, and takes them out. Returns how many.
    async fn log(&self, ticket: &str, background: &Background, rows: &mut Vec<Row>) -> anyhow::Result<usize> {
        if rows.is_empty() {
            return Ok(0);
        }
        let (ticket, background) = (ticket.to_owned(), background.clone());
        let mut process = self.process.lock().await;
        process.ask(&Ask::Log { ticket, background, rows: rows.clone() }).await?;
        let mut logged = 0;
        while let Answer::Logged(_) = process.answer().await? {
            logged += 1;
        }
        rows.drain(..logged);
        Ok(logged)
    }

    /// Looks at a person as the desk would have at the end of a study day.
    async fn look(&self, ticket: &str, day: i32) -> anyhow::Result<Care> {
        let now_ms = DAY_ZERO_MS + i64::from(day + 1) * DAY_MS;
        let look = Ask::Look { ticket: ticket.to_owned(), now_ms };
        match self.process.lock().await.request(&look).await? {
            Answer::Looked(care) => Ok(care),
            _ => bail!("the desk does not look"),
        }
    }

    /// How many records of a space have come to the desk.
    async fn held(&self, ticket: &str) -> anyhow::Result<u64> {
        match self.process.lock().await.request(&Ask::Count(ticket.to_owned())).await? {
            Answer::Counted { records, .. } => Ok(records),
            _ => bail!("the desk does not count"),
        }
    }

    /// Whether everything that the desk logged in a space is at the server.
    async fn is_delivered(&self, ticket: &str) -> anyhow::Result<bool> {
        match self.process.lock().await.request(&Ask::Count(ticket.to_owned())).await? {
            Answer::Counted { unsent, .. } => Ok(unsent == 0),
            _ => bail!("the desk does not count"),
        }
    }

    /// Syncs in peace and lists everybody's records; before that, it may be tampered with.
    async fn settle(&self, tamper: bool, lived: &mut [Lived]) -> anyhow::Result<()> {
        let mut process = self.process.lock().await;
        let mut tries = 0;
        loop {
            let answer = process.request(&Ask::Sync { budget_ms: CALM_MS }).await?;
            if matches!(answer, Answer::Synced { in_sync: true, .. }) {
                break;
            }
            tries += 1;
            ensure!(tries < CALM_TRIES, "the desk does not get in sync");
        }
        if tamper {
            process.request(&Ask::Tamper).await?;
        }
        for life in lived {
            let Answer::Records(records) = process.request(&Ask::List(life.ticket.clone())).await? else {
                bail!("the desk does not list");
            };
            life.at_clinic = records;
        }
        Ok(())
    }
}

/// A person's days with a phone.
struct Life<'a> {
    ward: &'a Ward,
    person: Person,
    dice: Dice,
    weather: Weather,
    opening: Opening,
    phone: Process,
    /// Rows whose `log()` returned: the ledger that a killed phone is held to.
    acknowledged: HashSet<String>,
    /// Whether the desk follows the person's space: it does from the first sync on.
    followed: bool,
    /// Bytes of frames by phones that ended, and by the present one.
    frames: (Carried, Carried),
    lived: Lived,
}

impl<'a> Life<'a> {
    async fn begin(ward: &'a Ward, place: usize, person: Person) -> anyhow::Result<Self> {
        let mut dice = Dice::new(ward.plan.seed, &person.who);
        let weather = Weather::begin(ward.quic, ward.tcp, dice.one_in(4)).await?;
        let opening = Opening {
            dir: ward.plan.data.join(format!("phone-{}", person.who)),
            quic: weather.quic.to_string(),
            tcp: weather.tcp.to_string(),
            pins: ward.pins.clone(),
            clinic: Some(ward.desk.card.clone()),
        };
        let phone = Process::start(Role::Phone, &opening.dir, &ward.phone_log(&person))?;
        let lived = Lived {
            place,
            logged_by_phone: 0,
            logged_by_clinic: 0,
            records: 0,
            on_server: 0,
            envelopes: 0,
            carried: Carried::default(),
            frames: Carried::default(),
            syncs: 0,
            cuts: 0,
            kills: 0,
            lost: Vec::new(),
            device: String::new(),
            ticket: String::new(),
            at_phone: Vec::new(),
            at_clinic: Vec::new(),
            care: Care::default(),
        };
        let (acknowledged, frames) = (HashSet::new(), Default::default());
        let mut life = Self {
            ward,
            person,
            dice,
            weather,
            opening,
            phone,
            acknowledged,
            followed: false,
            frames,
            lived,
        };
        life.open().await?;
        Ok(life)
    }

    async fn live(mut self) -> anyhow::Result<Lived> {
        let days: BTreeMap<i32, Vec<Row>> = self
            .person
            .days(self.ward.plan.days)
            .into_iter()
            .map(|(day, rows)| (day, rows.into_iter().cloned().collect()))
            .collect();
        // One cut and, for most, one kill are certain to be tried; others come as they come.
        let cut_at = self.dice.below(3);
        let kill_at = if self.dice.one_in(3) { None } else { Some(self.dice.below(4)) };
        let mut contacts = 0;
        let mut next_contact = None;
        let mut seen_by_clinic = Vec::new();
        let mut last_day = 0;
        for (day, rows) in days {
            let (own, observed): (Vec<_>, Vec<_>) = rows
                .into_iter()
                .partition(|row| writer(row.table, &self.person.background) == Writer::Patient);
            seen_by_clinic.extend(observed);
            if day < *next_contact.get_or_insert(day) {
                self.log(own).await?;
                continue;
            }
            match contacts {
                at if at == cut_at => self.log_then_cut(own).await?,
                at if Some(at) == kill_at => self.log_until_killed(own).await?,
                _ if self.dice.one_in(10) => self.log_then_cut(own).await?,
                _ if self.dice.one_in(12) => self.log_until_killed(own).await?,
                _ => {
                    self.log(own).await?;
                    self.sync().await?;
                }
            }
            contacts += 1;
            next_contact = Some(day + 1 + i32::try_from(self.dice.below(OFFLINE_DAYS_MAX))?);
            self.desk_logs(&mut seen_by_clinic).await?;
            self.desk_looks(day).await?;
            last_day = day;
        }
        self.sync().await?;
        self.desk_catches_up(&mut seen_by_clinic).await?;
        self.sync().await?;
        self.desk_looks(last_day + 1).await?;
        self.end().await
    }

    /// Opens the phone, and looks whether it still has what it said it had.
    async fn open(&mut self) -> anyhow::Result<()> {
        let answer = self.phone.request(&Ask::Open(self.opening.clone())).await?;
        let Answer::Opened { device, ticket, held, .. } = answer else { bail!("the phone does not open") };
        let held: HashSet<_> = held.into_iter().collect();
        self.lived.lost.extend(self.acknowledged.difference(&held).cloned());
        // Killed between a commit and its acknowledgement, a phone holds a row that nobody heard of.
        self.ward.progress.records.inc(held.difference(&self.acknowledged).count() as u64);
        self.acknowledged.extend(held);
        self.lived.device = device;
        self.lived.ticket = ticket.context("a phone has a ticket")?;
        Ok(())
    }

    /// Has the phone log rows. If a storm comes meanwhile, the phone is killed, and its successor goes on.
    async fn log(&mut self, mut rows: Vec<Row>) -> anyhow::Result<()> {
        loop {
            rows.retain(|row| !self.acknowledged.contains(&row.reference()));
            if rows.is_empty() {
                return Ok(());
            }
            let (ticket, background) = (self.lived.ticket.clone(), self.person.background.clone());
            self.phone.ask(&Ask::Log { ticket, background, rows: rows.clone() }).await?;
            loop {
                let answer = tokio::select! {
                    biased;
                    () = self.weather.storm() => None,
                    answer = self.phone.answer() => Some(answer?),
                };
                match answer {
                    Some(Answer::Logged(row)) => self.acknowledge(row),
                    Some(_) => return Ok(()),
                    None => break,
                }
            }
            self.kill().await?;
        }
    }

    fn acknowledge(&mut self, row: String) {
        self.acknowledged.insert(row);
        self.ward.progress.records.inc(1);
    }

    /// Syncs in peace.
    async fn sync(&mut self) -> anyhow::Result<()> {
        for _ in 0..CALM_TRIES {
            let answer = self.phone.request(&Ask::Sync { budget_ms: CALM_MS }).await?;
            if self.synced(&answer)? {
                return Ok(());
            }
        }
        bail!("the phone does not get in sync")
    }

    /// Logs, then syncs until the connection is cut in the middle.
    async fn log_then_cut(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        self.log(rows).await?;
        self.brew();
        let answer = self.phone.request(&Ask::Sync { budget_ms: CUT_MS }).await?;
        let broke = self.weather.clear();
        if !self.synced(&answer)? && broke {
            self.lived.cuts += 1;
            self.ward.progress.breaks.inc(1);
        }
        Ok(())
    }

    /// Logs while a sync goes on behind it, and kills the phone in the middle of that.
    async fn log_until_killed(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        self.brew();
        let kills = self.lived.kills;
        self.phone.request(&Ask::Stay).await?;
        self.log(rows).await?;
        if self.lived.kills == kills {
            match timeout(STORM_PATIENCE, self.weather.storm()).await {
                Ok(()) => self.kill().await?,
                Err(_) => drop(self.weather.clear()),
            }
        }
        if self.lived.kills == kills { self.sync().await } else { Ok(()) }
    }

    /// Lets a storm come in the middle of the next transfer.
    fn brew(&mut self) {
        // The first time, the keys of every category go over; later, some days' records do.
        let most = if self.lived.syncs == 0 { 40_000 } else { 4_000 };
        self.weather.storm_after(STORM_BYTES_MIN + self.dice.below(most));
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        let next = Process::start(Role::Phone, &self.opening.dir, &self.ward.phone_log(&self.person))?;
        for answer in std::mem::replace(&mut self.phone, next).kill().await? {
            if let Answer::Logged(row) = answer {
                self.acknowledge(row);
            }
        }
        self.weather.clear();
        self.lived.kills += 1;
        self.ward.progress.breaks.inc(1);
        let Carried { up, down } = std::mem::take(&mut self.frames.1);
        self.frames.0.up += up;
        self.frames.0.down += down;
        self.open().await
    }

    fn synced(&mut self, answer: &Answer) -> anyhow::Result<bool> {
        let Answer::Synced { in_sync, sent, received } = *answer else { bail!("the phone does not sync") };
        self.frames.1 = Carried { up: sent, down: received };
        if in_sync {
            self.lived.syncs += 1;
            self.ward.progress.syncs.inc(1);
        }
        Ok(in_sync)
    }

    async fn desk_logs(&mut self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        if self.lived.syncs == 0 {
            return Ok(());
        }
        if !self.followed {
            self.ward.desk.follow(&self.lived.ticket).await?;
            self.followed = true;
        }
        let logged = self.ward.desk.log(&self.lived.ticket, &self.person.background, rows).await?;
        self.lived.logged_by_clinic += logged;
        self.ward.progress.records.inc(logged as u64);
        Ok(())
    }

    /// The desk looks at the person once what the phone sent has come.
    async fn desk_looks(&mut self, day: i32) -> anyhow::Result<()> {
        if !self.followed {
            return Ok(());
        }
        let Answer::Counted { records, unsent, .. } =
            self.phone.request(&Ask::Count(self.lived.ticket.clone())).await?
        else {
            bail!("the phone does not count");
        };
        let begun = Instant::now();
        while self.ward.desk.held(&self.lived.ticket).await? < records - unsent {
            ensure!(begun.elapsed() < DESK_PATIENCE, "the desk does not get what the phone sent");
            sleep(DESK_POLL).await;
        }
        self.lived.care = self.ward.desk.look(&self.lived.ticket, day).await?;
        Ok(())
    }

    /// The desk logs what is left, and sends it.
    async fn desk_catches_up(&mut self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.desk_logs(rows).await?;
            if rows.is_empty() && self.ward.desk.is_delivered(&self.lived.ticket).await? {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < DESK_PATIENCE,
                "the desk has {} rows left that it may not log",
                rows.len()
            );
            sleep(DESK_POLL).await;
        }
    }

    async fn end(mut self) -> anyhow::Result<Lived> {
        let ticket = self.lived.ticket.clone();
        let Answer::Counted { records, unsent, envelopes } =
            self.phone.request(&Ask::Count(ticket.clone())).await?
        else {
            bail!("the phone does not count");
        };
        let Answer::Records(at_phone) = self.phone.request(&Ask::List(ticket)).await? else {
            bail!("the phone does not list");
        };
        self.phone.close().await?;
        let carried = self.weather.carried();
        let (earlier, last) = self.frames;
        let frames = Carried { up: earlier.up + last.up, down: earlier.down + last.down };
        let logged_by_phone = self.acknowledged.len();
        let on_server = records - unsent;
        let lived =
            Lived { logged_by_phone, records, on_server, envelopes, carried, frames, at_phone, ..self.lived };
        self.ward.progress.people.inc(1);
        self.ward.progress.done(&self.person, &lived);
        Ok(lived)
    }
}

impl Ward {
    fn phone_log(&self, person: &Person) -> PathBuf {
        self.logs.join(format!("phone-{}.log", person.who))
    }
}

fn errors_in(logs: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut errors = Vec::new();
    for file in std::fs::read_dir(logs)? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bad = |line: &&str| line.contains("ERROR") || line.contains("panicked at");
        errors.extend(text.lines().filter(bad).map(|line| format!("{name}: {line}")));
    }
    Ok(errors)
}
