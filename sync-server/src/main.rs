//! The command line: makes a deployment's keys, runs the server.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use ebb_sync_server::{
    Server,
    config::Config,
    keys::Keys,
    log::sqlite::{Options, SqliteLog},
    system,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The content-blind log service of Ebb.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the keys of a new deployment and prints the pins that apps need.
    Init {
        /// The data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// Prints the pins that apps need, as they are now.
    Pins {
        /// The data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// Makes new keys in the place of those in use, and prints the new pins; needs the root key.
    Renew {
        /// The data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// Serves until it is told to stop (SIGTERM or SIGINT).
    Run(Run),
}

/// Where the configuration comes from; arguments go over the environment, that over the file.
#[derive(Args)]
struct Run {
    /// A TOML file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data directory.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where QUIC is listened for, as address:port.
    #[arg(long)]
    quic_listen: Option<std::net::SocketAddr>,
    /// Where TLS is listened for, as address:port.
    #[arg(long)]
    tcp_listen: Option<std::net::SocketAddr>,
    /// Where metrics and health are served, as address:port.
    #[arg(long)]
    metrics_listen: Option<std::net::SocketAddr>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Init { data } => init(&data),
        Command::Pins { data } => pins(&data),
        Command::Renew { data } => renew(&data),
        Command::Run(arguments) => run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What went wrong and why, in one line: a backtrace tells an operator nothing.
            let _ = writeln!(std::io::stderr(), "ebb-sync-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init(data: &std::path::Path) -> anyhow::Result<()> {
    let keys = Keys::init(data)?;
    let folder = data.join("keys");
    write!(
        std::io::stdout(),
        "{}\n\n\
         This line is what apps need to know this deployment: give it to them with the server's address.\n\
         Next:\n\
         1. copy {} to a safe place (without it, devices must be told anew whom to trust);\n\
         2. move {} away from this machine: it is only needed to change keys;\n\
         3. ebb-sync-server run --data {}\n",
        keys.pins_text(),
        folder.display(),
        folder.join("root").display(),
        data.display(),
    )?;
    Ok(())
}

fn pins(data: &std::path::Path) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", Keys::load(data)?.pins_text())?;
    Ok(())
}

fn renew(data: &std::path::Path) -> anyhow::Result<()> {
    let keys = Keys::renew(data)?;
    let folder = data.join("keys");
    write!(
        std::io::stdout(),
        "{}\n\n\
         The TLS key that devices already know as the next one, and a new heads key, are used from now on.\n\
         Next:\n\
         1. restart the server: devices take the new list over at their next connection;\n\
         2. copy {} to a safe place, and move {} away from this machine again;\n\
         3. give this line to new apps; renew again only when every device has been here since.\n",
        keys.pins_text(),
        folder.display(),
        folder.join("root").display(),
    )?;
    Ok(())
}

fn run(arguments: Run) -> anyhow::Result<()> {
    let mut config = Config::read(arguments.config.as_deref())?;
    config.data = arguments.data.unwrap_or(config.data);
    config.quic_listen = arguments.quic_listen.unwrap_or(config.quic_listen);
    config.tcp_listen = arguments.tcp_listen.unwrap_or(config.tcp_listen);
    config.metrics_listen = arguments.metrics_listen.unwrap_or(config.metrics_listen);
    trace(&config)?;
    let descriptors = system::raise_descriptors();
    if descriptors.is_some_and(|descriptors| descriptors < config.connections_max as u64) {
        tracing::warn!(descriptors, config.connections_max, "fewer sockets than connections may be had");
    }
    // Keys first: whoever forgot `init` should read that, and find no empty log in its place.
    Keys::load(&config.data)?;
    let options = Options { vfs: config.vfs.clone(), pages_max: config.pages_max };
    let log = SqliteLog::open(&config.log_path(), options).context("cannot open the log")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::bind(config, log).await?;
        server
            .run(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await
    })
}

fn trace(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_filter).context("log_filter is no filter")?;
    let trace = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_json {
        true => trace.json().init(),
        false => trace.init(),
    }
    Ok(())
}
