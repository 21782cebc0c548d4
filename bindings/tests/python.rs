//! Generates the Swift, Kotlin and Python sources, and drives a real server from Python.

use std::{
    env, fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
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
const TYPES: [&str; 8] =
    ["Ebb", "Vault", "Observer", "Settings", "CheckIn", "DoseUnit", "RecordQuery", "SyncStatus"];

#[test]
fn sources_are_generated_and_python_syncs_with_a_server() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sources = folder.path().join("sources");
    generate(&sources)?;
    expect_types(&sources.join("ebb.py"), "class ")?;
    expect_types(&sources.join("uniffi/ebb/ebb.kt"), "")?;
    expect_types(&sources.join("ebb.swift"), "")?;
    assert!(sources.join("ebbFFI.h").exists(), "Swift needs the C header");

    if !python_is_there() {
        // Past the capture of `cargo test`, for everybody to see.
        writeln!(
            std::io::stderr(),
            "\n*** NOT TESTED: there is no python3 here, so the generated Python was not run. ***\n"
        )?;
        return Ok(());
    }
    let library = library();
    fs::copy(&library, sources.join(library.file_name().expect("a file has a name")))?;
    let served = Served::start(&folder.path().join("server"))?;
    let mut python = Command::new("python3");
    python
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/smoke.py"))
        .args([served.quic.to_string(), served.tcp.to_string(), served.pins.clone()])
        .arg(folder.path().join("replicas"))
        .env("PYTHONPATH", &sources)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.output()?;
    served.stop()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}:\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The library from which this test was linked: cargo builds every form of it, into one folder.
fn library() -> PathBuf {
    let name = format!("{}ebb{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    env::current_exe().expect("a test is a file").with_file_name(name)
}

fn generate(out: &Path) -> anyhow::Result<()> {
    let utf8 = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    uniffi::generate(GenerateOptions {
        languages: vec![TargetLanguage::Python, TargetLanguage::Kotlin, TargetLanguage::Swift],
        source: utf8(&library()).into(),
        out_dir: utf8(out).into(),
        // What of `cargo metadata` goes beyond this workspace may ask the network.
        metadata_no_deps: true,
        ..GenerateOptions::default()
    })
}

fn expect_types(source: &Path, keyword: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(source)?;
    for name in TYPES {
        let declared = [":", "(", " ", "{"].iter().any(|end| text.contains(&format!("{keyword}{name}{end}")));
        assert!(declared, "{} does not name {name}", source.display());
    }
    Ok(())
}

fn python_is_there() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
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
