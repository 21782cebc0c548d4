//! What the demo's processes say to each other: JSON, a line each, over stdin and stdout.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::trial::{Background, Row};

/// What a process of the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The clinic's server.
    Server,
    /// The clinic's desk.
    Clinic,
    /// A person's phone.
    Phone,
}

/// What a device must know to open its replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// Where its files are.
    pub(crate) dir: PathBuf,
    /// Where the server is for QUIC.
    pub(crate) quic: String,
    /// Where the server is for TLS on TCP.
    pub(crate) tcp: String,
    /// The server's pins, as text.
    pub(crate) pins: String,
    /// For a phone: the card of the clinic to which it grants everything that is to be shared.
    pub(crate) clinic: Option<String>,
}

/// What a process is asked to do. The end of its input means that it closes and ends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Opens the replica: [`Answer::Opened`].
    Open(Opening),
    /// Follows the space of a ticket, as the clinic: [`Answer::Done`].
    Follow(String),
    /// Logs rows one after the other: [`Answer::Logged`] for each as its call returns, then
    /// [`Answer::Done`] or [`Answer::NotYet`].
    Log {
        /// The ticket of the person's space.
        ticket: String,
        /// What else of the person the records depend on.
        background: Background,
        /// The rows.
        rows: Vec<Row>,
    },
    /// Stays in sync from now on: [`Answer::Done`].
    Stay,
    /// Connects anew and syncs: [`Answer::Synced`].
    Sync {
        /// For how long at most, in ms.
        budget_ms: u64,
    },
    /// Counts what the replica has of a ticket's space: [`Answer::Counted`].
    Count(String),
    /// Lists the records of a ticket's space: [`Answer::Records`].
    List(String),
    /// Has the clinic look at what is known of a person at a moment: [`Answer::Looked`].
    Look {
        /// The ticket of the person's space.
        ticket: String,
        /// The moment, in ms since the Unix epoch: study days are not today's.
        now_ms: i64,
    },
    /// Changes one stored field behind the replica's back: [`Answer::Done`].
    Tamper,
}

/// What a process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The server serves.
    Serving {
        /// Where QUIC is listened for.
        quic: String,
        /// Where TLS is listened for.
        tcp: String,
        /// The pins, as text.
        pins: String,
    },
    /// The replica is open.
    Opened {
        /// The device's id, in hexadecimal digits.
        device: String,
        /// The device's card.
        card: String,
        /// The ticket of a phone's space.
        ticket: Option<String>,
        /// The rows that a phone's records name.
        held: Vec<String>,
    },
    /// The call that logged this row returned.
    Logged(String),
    /// Done.
    Done,
    /// The patient's grant has not arrived: ask again later.
    NotYet,
    /// A sync ended.
    Synced {
        /// Whether everything was where it should be.
        in_sync: bool,
        /// Bytes of frames that this process sent so far.
        sent: u64,
        /// Bytes of frames that this process received so far.
        received: u64,
    },
    /// What a replica has of a space.
    Counted {
        /// Records.
        records: u64,
        /// Records of which the server does not have everything.
        unsent: u64,
        /// Envelopes.
        envelopes: u64,
    },
    /// What the clinic knows of a person.
    Looked(Care),
    /// A space's records.
    Records(Vec<Seen>),
    /// It could not be done.
    Failed(String),
}

/// What the clinic knows of a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Care {
    /// Scales that came to a score.
    pub(crate) scored: u32,
    /// Alerts to look at or worse, found within a day of what they are about.
    pub(crate) on_time: u32,
    /// The same, found later.
    pub(crate) late: u32,
    /// Hours attended in the programme's weeks.
    pub(crate) hours: f64,
    /// Hours that those weeks ask for.
    pub(crate) required: f64,
}

/// A record as a replica lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Its id.
    pub(crate) id: String,
    /// Its category.
    pub(crate) category: String,
    /// Its kind.
    pub(crate) kind: String,
    /// When it happened, in ms since the Unix epoch.
    pub(crate) occurred_ms: i64,
    /// Minutes that local time was ahead of UTC.
    pub(crate) offset_minutes: i16,
    /// When it was written down, in ms since the Unix epoch.
    pub(crate) recorded_ms: i64,
    /// The device that wrote it, in hexadecimal digits.
    pub(crate) author: String,
    /// How it is known.
    pub(crate) source: String,
    /// What it says.
    pub(crate) body: serde_json::Value,
    /// Its note.
    pub(crate) note: String,
    /// Whether it was retracted, conflicts, or came from a newer version: nobody did any of it here.
    pub(crate) is_disturbed: bool,
}

/// How long an answer may take before the process counts as stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a process may take to close its files.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// A process of the demo, as its parent sees it. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts the demo again in another role; what it has to say for developers goes to a file.
    ///
    /// # Errors
    /// If the system does not start it.
    pub(crate) fn start(role: Role, data: &Path, log: &Path) -> anyhow::Result<Self> {
        let errors = std::fs::File::options().create(true).append(true).open(log)?;
        let role = role.to_possible_value().context("every role has a name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--role")
            .arg(role.get_name())
            .arg("--data")
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { input: child.stdin.take(), child, answers, log: log.to_owned() })
    }

    /// Asks for something without waiting.
    ///
    /// # Errors
    /// If the process has ended.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        let input = self.input.as_mut().context("the process was closed")?;
        input.write_all(&line).await.with_context(|| format!("a process ended; {}", last_words(&self.log)))
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// If the process has ended, is stuck, or could not do what it was asked.
    pub(crate) async fn answer(&mut self) -> anyhow::Result<Answer> {
        let log = || last_words(&self.log);
        let line = timeout(ANSWER_TIMEOUT, self.answers.next_line()).await;
        let line = line.context("a process does not answer").with_context(log)??;
        let line = line.context("a process ended before it answered").with_context(log)?;
        match serde_json::from_str(&line).context("a process answers something else than JSON")? {
            Answer::Failed(reason) => bail!("a process could not do what it was asked: {reason}"),
            answer => Ok(answer),
        }
    }

    /// Asks for something and waits for the one answer.
    ///
    /// # Errors
    /// As [`Process::ask`] and [`Process::answer`].
    pub(crate) async fn request(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        self.ask(ask).await?;
        self.answer().await
    }

    /// Kills the process (SIGKILL): it gets no chance to tidy up. Returns what it had said and nobody
    /// had read.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) async fn kill(mut self) -> anyhow::Result<Vec<Answer>> {
        self.child.kill().await.context("cannot kill a process")?;
        let mut unread = Vec::new();
        while let Ok(Some(line)) = self.answers.next_line().await {
            // The last line may be cut off.
            unread.extend(serde_json::from_str::<Answer>(&line));
        }
        Ok(unread)
    }

    /// Lets the process close its files and end.
    ///
    /// # Errors
    /// If it does not end, or not well.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let status = timeout(CLOSE_TIMEOUT, self.child.wait()).await;
        let status =
            status.with_context(|| format!("a process does not end; {}", last_words(&self.log)))??;
        if !status.success() {
            bail!("a process ended with {status}; {}", last_words(&self.log));
        }
        Ok(())
    }
}

/// The end of what a process had to say for developers: its file may be temporary.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("the last lines of {}:\n{}", log.display(), last.join("\n"))
}

/// So many lines tell why a process does not do its part.
const LAST_LINES: usize = 20;
