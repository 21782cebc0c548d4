//! A whole clinic on one machine, on real trial data.
//!
//! Starts a server, a clinic's desk and phones as processes of their own, replays people's study days
//! through them, and compares what arrived on the far side with the data, field by field.
//!
//! ```text
//!  main ── ward ──┬─▶ server            one process
//!   │             ├─▶ clinic's desk     one process
//!   │             └─▶ phone ─ weather   a process for each person, behind a network that breaks
//!   └── trial (the rows) ── replay (row to record) ── verdict (record to row)
//! ```

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use ebb_core::record::Writer;
use tracing_subscriber::EnvFilter;

use crate::{
    pipe::{Care, Role, Seen},
    progress::Progress,
    table::{TextTable, bytes},
    trial::{Dirt, Person, Row, Trial},
    verdict::Verdict,
    ward::{Lived, Plan, Run},
};

mod dice;
#[cfg(test)]
mod oracle;
mod pipe;
mod progress;
mod replay;
mod role;
mod synthetic;
mod table;
mod tamper;
mod trial;
mod verdict;
mod ward;
mod weather;

/// Replays real people's days in treatment through phones, a server and a clinic, and checks every record.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many people are given a phone, taken from each trial in turn (default: all, at most 60).
    #[arg(long)]
    phones: Option<usize>,
    /// How many study days are replayed, from day 0; what was told before is always (default: all).
    #[arg(long)]
    days: Option<u32>,
    /// Plain lines instead of progress bars.
    #[arg(long)]
    headless: bool,
    /// Where the processes keep their files, and leave them (default: a temporary folder, removed).
    #[arg(long)]
    data: Option<PathBuf>,
    /// Decides when connectivity returns, and what is cut and killed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A folder with other tables of the same form, as .csv or .csv.gz.
    #[arg(long)]
    trial: Option<PathBuf>,
    /// Changes one stored field at the clinic before the verdict, which must see it.
    #[arg(long, hide = true)]
    tamper: bool,
    /// What this process is; set by the demo when it starts itself again.
    #[arg(long, hide = true)]
    role: Option<Role>,
}

/// Phones if nobody says how many.
const PHONES: usize = 60;
/// So many findings are described; all are counted.
const FINDINGS_SHOWN: usize = 10;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).init();
    match arguments.role {
        Some(role) => {
            role::play(role, arguments.data.as_deref().context("a role needs --data")?)?;
            Ok(ExitCode::SUCCESS)
        }
        None => demonstrate(&arguments),
    }
}

fn demonstrate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let trial = load(arguments)?;
    let folder = Folder::make(arguments.data.as_deref())?;
    let plan = Plan {
        data: folder.path().to_owned(),
        days: arguments.days,
        seed: arguments.seed,
        tamper: arguments.tamper,
    };
    let rows =
        trial.people.iter().flat_map(|person| person.days(arguments.days)).map(|(_, rows)| rows.len()).sum();
    let progress = Arc::new(Progress::begin(trial.people.len(), rows, arguments.headless));
    progress.say(&format!(
        "Ebb: {} people, {rows} rows of their days; a server, a clinic and a phone for each, in {}",
        trial.people.len(),
        folder.path().display(),
    ));
    let run = tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            run = ward::run(plan, &trial.people, progress.clone()) => run,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    progress.end();
    let run = run.inspect_err(|_| {
        if arguments.data.is_none() {
            progress.say("The processes' files were temporary; with --data DIR they are kept.");
        }
    })?;
    // The verdict reads the data again: it takes no phone's word for what they say.
    let trial = load(arguments)?;
    let clean = report(&progress, &run, &trial, arguments.days, begun.elapsed());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(arguments: &Arguments) -> anyhow::Result<Trial> {
    Trial::load(arguments.trial.as_deref(), Some(arguments.phones.unwrap_or(PHONES)))
}

/// Judges what arrived, and says it all. Returns whether nothing is wrong.
fn report(progress: &Progress, run: &Run, trial: &Trial, days: Option<u32>, took: Duration) -> bool {
    let mut verdict = Verdict::default();
    let mut dirt = Dirt::default();
    let mut table = TextTable::new([
        "person",
        "trial",
        "phone",
        "clinic",
        "on server",
        "far side",
        "envelopes",
        "up",
        "down",
        "syncs",
        "cuts",
        "kills",
        "scored",
        "alerts",
        "late",
        "hours",
    ]);
    let mut total = Total::default();
    for lived in &run.lived {
        let person = &trial.people[lived.place];
        let told = person.days(days);
        let far = judge(&mut verdict, person, &told, lived, &run.clinic_device);
        let replayed: std::collections::HashSet<_> =
            told.values().flatten().map(|row| (row.table, row.number)).collect();
        dirt.count(person.rows.iter().filter(|row| replayed.contains(&(row.table, row.number))));
        let figures = Total::of(lived, far);
        table.row(figures.cells(person.who.clone(), person.background.project.clone()));
        total.add(&figures);
    }
    table.row(total.cells("all".into(), String::new()));
    let mut lines = table.lines();
    lines.push(String::new());
    lines.extend(facts(&dirt, run, took));
    lines.extend(conclusion(&verdict, run));
    for line in lines {
        progress.say(&line);
    }
    verdict.is_clean() && run.errors.is_empty()
}

/// Compares what each side logged with what the other holds. Returns how many records are the same there.
fn judge(
    verdict: &mut Verdict,
    person: &Person,
    told: &BTreeMap<i32, Vec<&Row>>,
    lived: &Lived,
    clinic_device: &str,
) -> usize {
    let rows = |writer| -> Vec<&Row> {
        let rows = told.values().flatten().copied();
        rows.filter(|row| replay::writer(row.table, &person.background) == writer).collect()
    };
    let observed = |seen: &&Seen| ["observations", "plan"].contains(&seen.category.as_str());
    let from_phone: Vec<_> = lived.at_clinic.iter().filter(|seen| !observed(seen)).collect();
    let from_clinic: Vec<_> = lived.at_phone.iter().filter(observed).collect();
    verdict.lose(person, &lived.lost);
    verdict.compare(person, &rows(Writer::Patient), &lived.device, &from_phone)
        + verdict.compare(person, &rows(Writer::Clinic), clinic_device, &from_clinic)
}

/// A line of the table, as numbers.
#[derive(Default)]
struct Total {
    by_phone: u64,
    by_clinic: u64,
    on_server: u64,
    far: u64,
    envelopes: u64,
    up: u64,
    down: u64,
    syncs: u64,
    cuts: u64,
    kills: u64,
    care: Care,
}

impl Total {
    fn of(lived: &Lived, far: usize) -> Self {
        Self {
            by_phone: lived.logged_by_phone as u64,
            by_clinic: lived.logged_by_clinic as u64,
            on_server: lived.on_server,
            far: far as u64,
            envelopes: lived.envelopes,
            up: lived.carried.up,
            down: lived.carried.down,
            syncs: lived.syncs.into(),
            cuts: lived.cuts.into(),
            kills: lived.kills.into(),
            care: lived.care,
        }
    }

    fn add(&mut self, other: &Self) {
        self.by_phone += other.by_phone;
        self.by_clinic += other.by_clinic;
        self.on_server += other.on_server;
        self.far += other.far;
        self.envelopes += other.envelopes;
        self.up += other.up;
        self.down += other.down;
        self.syncs += other.syncs;
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.care.scored += other.care.scored;
        self.care.on_time += other.care.on_time;
        self.care.late += other.care.late;
        self.care.hours += other.care.hours;
        self.care.required += other.care.required;
    }

    fn cells(&self, who: String, trial: String) -> [String; 16] {
        [
            who,
            trial,
            self.by_phone.to_string(),
            self.by_clinic.to_string(),
            self.on_server.to_string(),
            self.far.to_string(),
            self.envelopes.to_string(),
            bytes(self.up),
            bytes(self.down),
            self.syncs.to_string(),
            self.cuts.to_string(),
            self.kills.to_string(),
            self.care.scored.to_string(),
            (self.care.on_time + self.care.late).to_string(),
            self.care.late.to_string(),
            format!("{:.0}/{:.0}", self.care.hours, self.care.required),
        ]
    }
}

fn facts(dirt: &Dirt, run: &Run, took: Duration) -> Vec<String> {
    let frames_up = run.lived.iter().map(|lived| lived.frames.up).sum();
    let frames_down = run.lived.iter().map(|lived| lived.frames.down).sum();
    vec![
        "phone, clinic: records logged there. far side: records that arrived where they were not logged, the same"
            .into(),
        "in every field. up, down: bytes between phone and server with all of TLS and QUIC in them; frames alone,"
            .into(),
        format!("as phones counted that were not killed: {} up, {} down.", bytes(frames_up), bytes(frames_down)),
        String::new(),
        format!(
            "Met in the data and kept as it is: {} duplicate rows, {} second study weeks on one day, {} rows out of \
             order, {} without a day, {} without a value, {} gaps between doses.",
            dirt.duplicates,
            dirt.weeks_on_one_day,
            dirt.out_of_order,
            dirt.undated,
            dirt.unanswered,
            dirt.gaps,
        ),
        format!("It took {:.1} s.", took.as_secs_f64()),
    ]
}

fn conclusion(verdict: &Verdict, run: &Run) -> Vec<String> {
    let mut lines = vec![String::new()];
    for finding in verdict.findings.iter().chain(&run.errors).take(FINDINGS_SHOWN) {
        lines.push(format!("  {finding}"));
    }
    let Verdict { expected, fields, same, missing, extra, differing, lost, .. } = verdict;
    let errors = run.errors.len();
    lines.push(if verdict.is_clean() && errors == 0 {
        format!("VERDICT: all {same} records are on the far side, equal to the data in each of {fields} fields.")
    } else {
        format!(
            "VERDICT: of {expected} records {same} arrived as the data have them; {missing} missing, {extra} extra, \
             {differing} differing, {lost} lost by killed phones; {errors} defects logged.",
        )
    });
    lines
}

/// Where the processes keep their files: a folder that stays, or one that is removed in the end.
enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn make(kept: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = kept else { return Ok(Self::Temporary(tempfile::tempdir()?)) };
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let empty = std::fs::read_dir(path)?.next().is_none();
        ensure!(empty, "{} is not empty: the demo begins with new phones", path.display());
        Ok(Self::Kept(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}
