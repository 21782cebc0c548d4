//! The processes that the demo starts: a server, the clinic's desk, a phone.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use ebb_core::{
    Category, Config, Error, FileVault, Query, Record, Replica, SpaceId, Start, SyncError, Ticket,
    clinical::{
        chart::Chart,
        plan::{attendance::WeekHours, level, schedule::Weeks},
        rules::{Ledger, Severity, Surroundings},
    },
    link::ServerAddress,
    record::Writer,
};
use ebb_protocol::wire::SignedPins;
use ebb_sync_server::{
    Server,
    keys::Keys,
    log::sqlite::{Options, SqliteLog},
};
use serde::Serialize;

use crate::{
    pipe::{Answer, Ask, Care, Opening, Role, Seen},
    replay, tamper,
};

/// Plays a role until standard input ends.
///
/// # Errors
/// If the role cannot be played at all; what goes wrong later is answered to whoever asked.
pub(crate) fn play(role: Role, data: &Path) -> anyhow::Result<()> {
    match role {
        Role::Server => serve(data),
        Role::Clinic => Device { writer: Writer::Clinic, open: None, ledgers: BTreeMap::new() }.run(),
        Role::Phone => Device { writer: Writer::Patient, open: None, ledgers: BTreeMap::new() }.run(),
    }
}

/// What a device of the demo waits at least between attempts to connect: nobody has minutes here.
const BACK_OFF_MS: u32 = 100;
const DAY_MS: i64 = 86_400_000;

fn serve(data: &Path) -> anyhow::Result<()> {
    let keys = Keys::init(data)?;
    let mut config = ebb_sync_server::config::Config::local(data);
    config.back_off_ms = BACK_OFF_MS;
    let log = SqliteLog::open(&config.log_path(), Options::default()).context("cannot open the log")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = Server::bind(config, log).await?;
        say(&Answer::Serving {
            quic: server.quic_addr.to_string(),
            tcp: server.tcp_addr.to_string(),
            pins: keys.pins_text(),
        })?;
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            ended.send(())
        });
        server.run(async { end.await.unwrap_or(()) }).await
    })
}

/// A phone or the clinic's desk.
struct Device {
    writer: Writer,
    open: Option<(Replica, Opening)>,
    /// What the desk found on which study day, person by person.
    ledgers: BTreeMap<SpaceId, Ledger>,
}

impl Device {
    fn run(mut self) -> anyhow::Result<()> {
        for line in io::stdin().lock().lines() {
            let ask = serde_json::from_str(&line?).context("the parent asks in something else than JSON")?;
            let answer = self.handle(ask).unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
            say(&answer)?;
        }
        if let Some((replica, _)) = self.open {
            replica.lock();
        }
        Ok(())
    }

    fn handle(&mut self, ask: Ask) -> anyhow::Result<Answer> {
        match ask {
            Ask::Open(opening) => self.open(opening),
            Ask::Follow(ticket) => {
                self.replica()?.follow(&parse(&ticket)?)?;
                Ok(Answer::Done)
            }
            Ask::Log { ticket, background, rows } => {
                let space = parse(&ticket)?.space;
                for row in rows {
                    match self.replica()?.log(space, &replay::entry(&row, &background)) {
                        Ok(_) => say(&Answer::Logged(row.reference()))?,
                        // The key of the category comes with the grant.
                        Err(Error::Retry(_)) if self.writer == Writer::Clinic => return Ok(Answer::NotYet),
                        Err(error) => return Err(error).with_context(|| row.reference()),
                    }
                }
                Ok(Answer::Done)
            }
            Ask::Stay => {
                self.replica()?.stay_in_sync();
                Ok(Answer::Done)
            }
            Ask::Sync { budget_ms } => self.sync(Duration::from_millis(budget_ms)),
            Ask::Count(ticket) => {
                let space = parse(&ticket)?.space;
                let count =
                    |engine: &mut ebb_core::Engine| Ok((engine.count(&space)?, engine.envelopes(&space)?));
                let ((records, unsent), envelopes) = self.replica()?.with_engine(count)?;
                Ok(Answer::Counted { records, unsent, envelopes })
            }
            Ask::List(ticket) => {
                let records = self.replica()?.records(parse(&ticket)?.space, &Query::default())?;
                Ok(Answer::Records(records.iter().map(seen).collect::<anyhow::Result<_>>()?))
            }
            Ask::Look { ticket, now_ms } => self.look(parse(&ticket)?.space, now_ms),
            Ask::Tamper => {
                let (replica, opening) = self.open.take().context("nothing is open")?;
                replica.lock();
                drop(replica);
                tamper::flip_one_field(&database(&opening), &vault(&opening).0)?;
                self.open(opening)?;
                Ok(Answer::Done)
            }
        }
    }

    fn open(&mut self, opening: Opening) -> anyhow::Result<Answer> {
        std::fs::create_dir_all(&opening.dir)?;
        let (quic, tcp) = (opening.quic.clone(), opening.tcp.clone());
        let pins = SignedPins::from_text(&opening.pins).context("the pins are no pins")?;
        let mut config = Config::new(folder(&opening)).server(ServerAddress { quic, tcp }, pins);
        if self.writer == Writer::Clinic {
            config = config.start(Start::Clinic);
        }
        let replica = Replica::open(config, &vault(&opening))?;
        let device = replica.with_engine(|engine| Ok(hex(&engine.device().0)))?;
        let card = replica.card()?.to_string();
        let (mut ticket, mut held) = (None, Vec::new());
        if self.writer == Writer::Patient {
            let own = replica.own()?;
            let shared: Vec<_> =
                Category::ALL.into_iter().filter(|category| *category != Category::Private).collect();
            let clinic = opening.clinic.as_deref().context("a phone needs the clinic's card")?;
            // To grant what is granted already changes nothing: so it is after a kill.
            replica.grant(&clinic.parse()?, &shared)?;
            ticket = Some(replica.ticket()?.to_string());
            let records = replica.records(own, &Query::default())?;
            let own = records.iter().filter(|record| record.category.patient_writes());
            held = own.filter_map(|record| record.note.lines().next()).map(str::to_owned).collect();
        }
        self.open = Some((replica, opening));
        Ok(Answer::Opened { device, card, ticket, held })
    }

    /// Looks at a person's chart as it would be seen on a study day. The alerts that a replica keeps by itself go
    /// by the clock on the wall, which is years ahead of the study.
    fn look(&mut self, space: SpaceId, now_ms: i64) -> anyhow::Result<Answer> {
        let mut ledger = self.ledgers.remove(&space).unwrap_or_default();
        let care = self.replica()?.chart(space, |chart| {
            let around = Surroundings { last_heard_ms: Some(now_ms), grants: Vec::new() };
            ledger.look(chart, &around, now_ms, i64::MIN, |_| true);
            care(chart, &ledger, now_ms)
        })?;
        self.ledgers.insert(space, ledger);
        Ok(Answer::Looked(care))
    }

    fn sync(&self, budget: Duration) -> anyhow::Result<Answer> {
        let replica = self.replica()?;
        replica.go_offline();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let in_sync = match runtime.block_on(replica.sync(budget)) {
            Ok(synced) => synced.in_sync,
            Err(SyncError::OutOfTime) => false,
            Err(error) => bail!("the sync failed for good: {error}"),
        };
        let traffic = replica.traffic();
        Ok(Answer::Synced { in_sync, sent: traffic.sent, received: traffic.received })
    }

    fn replica(&self) -> anyhow::Result<&Replica> {
        self.open.as_ref().map(|(replica, _)| replica).context("nothing is open")
    }
}

/// What is known of a person, in figures.
fn care(chart: &Chart, ledger: &Ledger, now_ms: i64) -> Care {
    let mut care = Care::default();
    let totals = chart.readings.iter().filter(|(measure, _)| chart.answers.contains_key(measure.name()));
    care.scored = totals.map(|(_, series)| u32::try_from(series.len()).unwrap_or(u32::MAX)).sum();
    for alert in ledger.iter().filter(|alert| !alert.is_withdrawn()) {
        if alert.finding.severity >= Severity::Review {
            let late = alert.late_ms() > DAY_MS;
            *(if late { &mut care.late } else { &mut care.on_time }) += 1;
        }
    }
    let weeks = Weeks::of(&chart.plan);
    for stay in level::history(&chart.plan) {
        // Four weeks are made up: after them, nobody counts hours.
        let until_ms = stay.until_ms.unwrap_or(now_ms).min(now_ms).min(stay.from_ms + 28 * DAY_MS);
        for week in weeks.between(weeks.zone.day(stay.from_ms), weeks.zone.day(until_ms)) {
            if week.starts_ms >= stay.from_ms - DAY_MS && week.ends_ms <= until_ms {
                care.hours += f64::from(WeekHours::of(chart, &weeks, week, now_ms).attended) / 60.0;
                care.required += f64::from(weeks.hours_min);
            }
        }
    }
    care
}

fn folder(opening: &Opening) -> PathBuf {
    opening.dir.join("replica")
}

fn database(opening: &Opening) -> PathBuf {
    folder(opening).join("ebb.db")
}

fn vault(opening: &Opening) -> FileVault {
    FileVault(opening.dir.join("vault.key"))
}

fn parse(ticket: &str) -> anyhow::Result<Ticket> {
    ticket.parse().context("no ticket")
}

/// A record in the words of the pipe.
fn seen(record: &Record) -> anyhow::Result<Seen> {
    Ok(Seen {
        id: record.id.to_string(),
        category: record.category.label().to_owned(),
        kind: record.kind.label().to_owned(),
        occurred_ms: record.occurred.millis,
        offset_minutes: record.occurred.offset_minutes,
        recorded_ms: record.recorded_at,
        author: hex(&record.author),
        source: words(&record.source)?.as_str().context("a source is a word")?.to_owned(),
        body: words(&record.body)?,
        note: record.note.clone(),
        is_disturbed: record.retracted.is_some() || record.conflicts > 0 || record.from_newer_version,
    })
}

fn words(value: &impl Serialize) -> anyhow::Result<serde_json::Value> {
    serde_json::to_value(value).context("a record has no JSON form")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn say(answer: &Answer) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    Ok(output.flush()?)
}
