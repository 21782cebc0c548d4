//! What an operator may set: a TOML file, and over it the environment (`EBB_` and the name in capitals).

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use ebb_protocol::wire::ENVELOPE_BYTES_MAX;
use serde::Deserialize;

use crate::commit::Allowance;

/// What environment variables of this server begin with.
pub const ENVIRONMENT_PREFIX: &str = "EBB_";
/// QUIC and TLS share the port of the web: the least often blocked.
const PORT: u16 = 443;
const METRICS_PORT: u16 = 9464;
/// Ten a second: a clinic's opening day and any ward of simulated phones, and little disk for a flood.
const FOUNDINGS_PER_MINUTE: u32 = 600;

/// The server's configuration. Every field has a default; unknown names are refused.
///
/// ```
/// let config = ebb_sync_server::config::Config::parse("data = '/var/lib/ebb'", []).unwrap();
/// assert_eq!(config.quic_listen.port(), 443);
/// assert!(ebb_sync_server::config::Config::parse("dta = '/var/lib/ebb'", []).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where keys and the log are kept.
    pub data: PathBuf,
    /// Where QUIC is listened for (UDP).
    pub quic_listen: SocketAddr,
    /// Where TLS is listened for (TCP), for networks that block UDP.
    pub tcp_listen: SocketAddr,
    /// Where `/metrics` and `/health` are served, to whoever can reach it: keep it local.
    pub metrics_listen: SocketAddr,
    /// The name of the SQLite file system layer; none for the platform's own.
    pub vfs: Option<String>,
    /// Whether anybody may found a space here.
    pub open_registration: bool,
    /// Spaces founded per minute, whoever founds them, and at once; 0 for no limit.
    pub foundings_per_minute: u32,
    /// What devices wait at least between attempts to connect, in milliseconds.
    pub back_off_ms: u32,
    /// What devices wait when the server stops for a restart, in milliseconds.
    pub stop_retry_ms: u32,
    /// Connections at a time: some 50 KiB of memory each while idle.
    pub connections_max: usize,
    /// Threads that read the log for connections.
    pub readers: usize,
    /// The most 4 KiB pages that the log's file may have; none for no limit.
    pub pages_max: Option<u32>,
    /// Envelopes per minute, device and space in the long run; 0 for no limit.
    pub envelopes_per_minute: u32,
    /// Envelopes at once per device and space.
    pub envelopes_burst: u32,
    /// Bytes of envelopes per day, device and space; 0 for no limit.
    pub bytes_per_day: u64,
    /// What is logged, as tracing's filters say it: `info`, or `ebb_sync_server=debug`.
    pub log_filter: String,
    /// Whether logs are JSON instead of text.
    pub log_json: bool,
}

impl Default for Config {
    fn default() -> Self {
        let Allowance { envelopes_per_minute, envelopes_burst, bytes_per_day } = Allowance::default();
        Self {
            data: PathBuf::from("ebb-data"),
            quic_listen: (Ipv6Addr::UNSPECIFIED, PORT).into(),
            tcp_listen: (Ipv6Addr::UNSPECIFIED, PORT).into(),
            metrics_listen: (Ipv4Addr::LOCALHOST, METRICS_PORT).into(),
            vfs: None,
            open_registration: true,
            foundings_per_minute: FOUNDINGS_PER_MINUTE,
            back_off_ms: 2_000,
            stop_retry_ms: 5_000,
            connections_max: 20_000,
            readers: 2,
            pages_max: None,
            envelopes_per_minute,
            envelopes_burst,
            bytes_per_day,
            log_filter: "info".into(),
            log_json: false,
        }
    }
}

impl Config {
    /// A configuration for one machine alone: the loopback address, any free ports.
    #[must_use]
    pub fn local(data: &Path) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            data: data.to_owned(),
            quic_listen: any,
            tcp_listen: any,
            metrics_listen: any,
            ..Self::default()
        }
    }

    /// Reads a file (or nothing but the defaults) and the environment.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Self::parse`].
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?,
            None => String::new(),
        };
        Self::parse(&text, std::env::vars())
    }

    /// Reads TOML, and over it those of the variables whose name begins with [`ENVIRONMENT_PREFIX`].
    ///
    /// # Errors
    /// If something is not TOML, of the wrong type, or has a name that nobody knows; or as [`Self::check`].
    pub fn parse(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let mut table: toml::Table = text.parse().context("the configuration is not TOML")?;
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let key = key.to_ascii_lowercase();
            table.insert(key, from_environment(value));
        }
        match table.try_into::<Self>() {
            Ok(config) => config.check().map(|()| config),
            Err(error) => bail!("the configuration does not hold: {}", error.message()),
        }
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// If they would have every envelope refused.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.envelopes_per_minute == 0 || self.envelopes_burst > 0,
            "envelopes_burst = 0 with envelopes_per_minute = {} would refuse every envelope: \
             set a burst of at least 1, or envelopes_per_minute = 0 for no limit",
            self.envelopes_per_minute,
        );
        ensure!(
            self.bytes_per_day == 0 || self.bytes_per_day >= ENVELOPE_BYTES_MAX as u64,
            "bytes_per_day = {} would refuse the largest envelopes for ever: \
             set at least {ENVELOPE_BYTES_MAX}, or 0 for no limit",
            self.bytes_per_day,
        );
        Ok(())
    }

    /// Where the log's file is.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.data.join("log.sqlite")
    }

    /// How much a device may append to a space.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        Allowance {
            envelopes_per_minute: self.envelopes_per_minute,
            envelopes_burst: self.envelopes_burst,
            bytes_per_day: self.bytes_per_day,
        }
    }
}

/// Numbers and truth values as such, anything else as text: nobody quotes in the environment.
fn from_environment(value: String) -> toml::Value {
    match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(number), _) => toml::Value::Integer(number),
        (_, Ok(truth)) => toml::Value::Boolean(truth),
        _ => toml::Value::String(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let environment = [
            variable("EBB_READERS", "7"),
            variable("EBB_QUIC_LISTEN", "127.0.0.1:4433"),
            variable("EBB_LOG_JSON", "true"),
            variable("HOME", "/root"),
        ];
        let config = Config::parse("readers = 3\nvfs = 'shim'", environment).expect("holds");
        assert_eq!(config.readers, 7);
        assert_eq!(config.quic_listen.port(), 4433);
        assert_eq!(config.vfs.as_deref(), Some("shim"));
        assert!(config.log_json && config.open_registration);
    }

    #[test]
    fn what_nobody_knows_is_refused_by_its_name() {
        let error = Config::parse("reders = 3", []).expect_err("misspelt").to_string();
        assert!(error.contains("reders"), "{error}");
        let error = Config::parse("", [variable("EBB_REDERS", "3")]).expect_err("misspelt").to_string();
        assert!(error.contains("reders"), "{error}");
        assert!(Config::parse("readers = 'many'", []).is_err());
    }

    #[test]
    fn limits_that_let_nothing_through_are_refused_with_what_to_do() {
        for (text, name) in
            [("envelopes_burst = 0", "envelopes_burst"), ("bytes_per_day = 1", "bytes_per_day")]
        {
            let error = Config::parse(text, []).expect_err("refuses everything").to_string();
            assert!(error.contains(name) && error.contains("set "), "{error}");
        }
        let free = "envelopes_burst = 0\nenvelopes_per_minute = 0\nbytes_per_day = 0";
        assert!(Config::parse(free, []).is_ok(), "no limit at all");
    }
}
