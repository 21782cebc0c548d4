//! Generates the Swift, Kotlin and Python sources, and drives a real server from Python.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use ebb_core::{
    Entry, FileVault, Replica, SignedPins, Start,
    link::ServerAddress,
    record::{
        AlertAction, Ask, Cadence, Course, DoseRoute, DoseStep, Handling, Helpline, Mode, Programme, Regimen,
        SessionSeries, TimedDose, Unit, Weekday,
    },
};
use ebb_sync_server::{
    Server,
    config::Config,
    keys::Keys,
    log::sqlite::{Options, SqliteLog},
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};
use uniffi::{GenerateOptions, TargetLanguage};

/// Types that each language must know by these names.
const TYPES: [&str; 14] = [
    "Ebb",
    "Vault",
    "Observer",
    "Settings",
    "CheckIn",
    "DoseUnit",
    "RecordQuery",
    "SyncStatus",
    "Answers",
    "ClinicalAlert",
    "DueItem",
    "Instrument",
    "Reminder",
    "Summary",
];

/// How long a sync of this test's own clinic may take.
const SYNC_MAX: Duration = Duration::from_secs(20);

#[test]
fn sources_are_generated_and_python_syncs_with_a_server() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sources = generated(folder.path())?;
    expect_types(&sources.join("ebb.py"), "class ")?;
    expect_types(&sources.join("uniffi/ebb/ebb.kt"), "")?;
    expect_types(&sources.join("ebb.swift"), "")?;
    assert!(sources.join("ebbFFI.h").exists(), "Swift needs the C header");
    if !python_is_there()? {
        return Ok(());
    }
    let served = Served::start(&folder.path().join("server"))?;
    let output = script("smoke.py", &served, folder.path()).output()?;
    served.stop()?;
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}:\n{said}\n{complained}", output.status);
    Ok(())
}

#[test]
fn python_shows_a_patients_day_and_a_clinics_list() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    generated(folder.path())?;
    if !python_is_there()? {
        return Ok(());
    }
    let served = Served::start(&folder.path().join("server"))?;
    let clinic = Clinic::open(&folder.path().join("clinic"), &served)?;
    let complaints = folder.path().join("complaints");
    let mut python = script("care.py", &served, folder.path())
        .arg(clinic.replica.card()?.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&complaints)?)
        .spawn()?;
    let (input, output) = (python.stdin.take(), python.stdout.take());
    let (mut input, output) = input.zip(output).expect("both are pipes");
    let mut said = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.strip_prefix("ticket ") {
            Some(ticket) => {
                clinic.takes_on(ticket)?;
                writeln!(input, "the plan is there")?;
            }
            None => said = format!("{said}{line}\n"),
        }
    }
    let status = python.wait()?;
    clinic.replica.lock();
    served.stop()?;
    assert!(status.success(), "{status}:\n{said}\n{}", fs::read_to_string(complaints)?);
    Ok(())
}

/// The library from which this test was linked: cargo builds every form of it, into one folder.
fn library() -> PathBuf {
    let name = format!("{}ebb{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    env::current_exe().expect("a test is a file").with_file_name(name)
}

/// Generates the sources in a folder of their own, and puts the library beside them.
fn generated(folder: &Path) -> anyhow::Result<PathBuf> {
    let sources = folder.join("sources");
    let library = library();
    let utf8 = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    uniffi::generate(GenerateOptions {
        languages: vec![TargetLanguage::Python, TargetLanguage::Kotlin, TargetLanguage::Swift],
        source: utf8(&library).into(),
        out_dir: utf8(&sources).into(),
        // What of `cargo metadata` goes beyond this workspace may ask the network.
        metadata_no_deps: true,
        ..GenerateOptions::default()
    })?;
    fs::copy(&library, sources.join(library.file_name().expect("a file has a name")))?;
    Ok(sources)
}

fn expect_types(source: &Path, keyword: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(source)?;
    for name in TYPES {
        let declared = [":", "(", " ", "{"].iter().any(|end| text.contains(&format!("{keyword}{name}{end}")));
        assert!(declared, "{} does not name {name}", source.display());
    }
    Ok(())
}

fn python_is_there() -> anyhow::Result<bool> {
    let there = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        // Past the capture of `cargo test`, for everybody to see.
        writeln!(
            std::io::stderr(),
            "\n*** NOT TESTED: there is no python3 here, so the generated Python was not run. ***\n"
        )?;
    }
    Ok(there)
}

/// One of the scripts beside this package, with a server and a folder for its replicas.
fn script(name: &str, served: &Served, folder: &Path) -> Command {
    let mut python = Command::new("python3");
    python
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name))
        .args([served.quic.to_string(), served.tcp.to_string(), served.pins.clone()])
        .arg(folder.join("replicas"))
        .env("PYTHONPATH", folder.join("sources"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// A server of this process, on the loopback address.
struct Served {
    quic: SocketAddr,
    tcp: SocketAddr,
    pins: String,
    runtime: Runtime,
    running: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Served {
    fn start(data: &Path) -> anyhow::Result<Self> {
        let pins = Keys::init(data)?.pins_text();
        let config = Config::local(data);
        let log = SqliteLog::open(&config.log_path(), Options::default())?;
        let runtime = Runtime::new()?;
        let server = runtime.block_on(Server::bind(config, log))?;
        let (quic, tcp) = (server.quic_addr, server.tcp_addr);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = runtime.spawn(server.run(async move { drop(stopped.await) }));
        Ok(Self { quic, tcp, pins, runtime, running, stop })
    }

    fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.runtime.block_on(self.running)?
    }
}

/// A clinic's desk of this process: it writes the plan that Python reads.
struct Clinic {
    replica: Replica,
    runtime: Runtime,
}

impl Clinic {
    fn open(dir: &Path, served: &Served) -> anyhow::Result<Self> {
        let address = ServerAddress { quic: served.quic.to_string(), tcp: served.tcp.to_string() };
        let pins = SignedPins::from_text(&served.pins)?;
        let config = ebb_core::Config::new(dir).server(address, pins).start(Start::Clinic);
        let replica = Replica::open(config, &FileVault(dir.with_extension("key")))?;
        Ok(Self { replica, runtime: Runtime::new()? })
    }

    /// Follows a patient, writes them a plan, and acknowledges what calls for somebody at once.
    fn takes_on(&self, ticket: &str) -> anyhow::Result<()> {
        let patient = self.replica.follow(&ticket.parse()?)?;
        self.sync()?;
        for section in plan()? {
            self.replica.log(patient, &section)?;
        }
        self.replica.publish_plan(patient, "a first plan")?;
        for view in self.replica.alerts(patient)?.iter().filter(|view| view.alert.finding.rule == "R1") {
            let alert = view.alert.finding.id;
            let action = AlertAction { alert, action: Handling::Acknowledged, owner: None };
            self.replica.log(patient, &Entry::new(action))?;
        }
        self.sync()
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.runtime.block_on(self.replica.sync(SYNC_MAX)).map(drop)?)
    }
}

/// A plan in which there is something to do on every day.
fn plan() -> anyhow::Result<[Entry; 4]> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    // No whole number of hours from UTC, and clocks that never change.
    let zone = || "Asia/Kathmandu".to_owned();
    let riverside =
        Helpline { name: "Riverside".into(), phone: Some("555 0100".into()), text: None, hours: None };
    let programme = Programme {
        name: "Riverside".into(),
        zone: zone(),
        week_starts: Monday,
        hours_min: 9.0,
        hours_max: 20.0,
        opioid_treatment_programme: false,
        helplines: vec![riverside],
    };
    let doses = vec![TimedDose { at: "08:00".parse()?, amount: 16.0 }];
    let regimen = Regimen {
        drug: "buprenorphine".into(),
        product: None,
        rxnorm: None,
        route: DoseRoute::Sublingual,
        course: Course::Steady,
        unit: Unit::Mg,
        zone: zone(),
        steps: vec![DoseStep { from: "2024-01-01".parse()?, every_days: 1, doses }],
        prescriber: "Dr. Marsh".into(),
        override_reason: None,
        until: None,
    };
    let cadence = Cadence {
        ask: Ask::Instrument("gad7".into()),
        zone: zone(),
        first: "2024-01-01".parse()?,
        last: None,
        every_days: 1,
        times: vec!["00:00".parse()?],
    };
    let series = SessionSeries {
        session: "group".into(),
        title: "evening group".into(),
        zone: zone(),
        first: "2024-01-01".parse()?,
        last: None,
        weekdays: vec![Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday],
        every_weeks: 1,
        start: "18:00".parse()?,
        minutes: 90,
        mode: Mode::Video,
        led_by: None,
        cancelled: Vec::new(),
        moved: Vec::new(),
    };
    Ok([Entry::new(programme), Entry::new(regimen), Entry::new(cadence), Entry::new(series)])
}
