//! A clinic's server without sockets and threads: session, committer, and any log.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use ebb_core::{LinkAction, Replica};
use ebb_protocol::{
    client,
    id::{LogId, Millis, SpaceId},
    session::{self, Attest, Input, Output, Session},
    verify::PublicKey,
    wire::{self, Acked, FromServer, LogBorn, Pins, SignedHeads, SignedLogBorn, SignedPins},
};
use ebb_sync_server::{
    commit::{Allowance, Answer, Committer, Effect, Means, Notice, Offer},
    log::{self, Log, Rosters},
    signing::SigningKey,
};

const EXPORTER: [u8; 32] = [5; 32];
/// Longer than any sync here takes by clocks that move on by a minute at each look.
const SYNC: Duration = Duration::from_secs(366 * 86_400);

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// The server's keys, as devices know them.
pub(crate) fn pins() -> SignedPins {
    let key = key();
    let pins = Pins { version: 1, root: key.public(), tls: Vec::new(), heads: vec![key.public()] };
    SignedPins::sign(&pins, |message| key.sign(message))
}

/// A server over some log.
pub(crate) struct Clinic<L> {
    pub(crate) log: L,
    rosters: Arc<Rosters>,
    committer: Committer<()>,
    means: OwnMeans,
}

struct OwnMeans(SigningKey);

impl Means for OwnMeans {
    fn log_id(&mut self) -> LogId {
        LogId([8; 16])
    }

    fn sign_born(&mut self, born: &LogBorn) -> SignedLogBorn {
        SignedLogBorn::sign(born, |message| self.0.sign(message))
    }
}

impl<L: Log> Clinic<L> {
    pub(crate) fn new(log: L) -> Self {
        let rosters = Arc::new(Rosters::default());
        let allowance = Allowance { envelopes_per_minute: 0, envelopes_burst: u32::MAX, bytes_per_day: 0 };
        let committer = Committer::new(rosters.clone(), allowance);
        Self { log, rosters, committer, means: OwnMeans(key()) }
    }

    pub(crate) fn offer(&mut self, space: SpaceId, offer: Offer) {
        assert!(self.committer.offer((), space, offer).is_none(), "the queue takes it");
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.committer.is_idle()
    }

    /// Commits everything offered, and gives what is to be told, in order.
    pub(crate) fn commit(&mut self) -> Vec<Effect<()>> {
        let mut effects = Vec::new();
        while !self.committer.is_idle() {
            let group = self.committer.next_group(&self.log, Millis(1), &mut self.means);
            let result = if group.is_empty() { Ok(Vec::new()) } else { self.log.commit(&group) };
            effects.extend(self.committer.done(&self.log, result));
        }
        effects
    }

    /// Serves one connection of a replica that syncs once, to its end; `committed` looks at the log after each
    /// commit.
    ///
    /// # Panics
    /// Where anything is refused.
    pub(crate) fn sync(&mut self, replica: &Replica, mut committed: impl FnMut(&L)) {
        let config = session::Config {
            open_registration: true,
            pins: pins(),
            heads_keys: vec![key().public()],
            back_off_ms: 0,
        };
        let tls = replica.card().unwrap().device.tls;
        let mut session = Session::new(Millis(1), Arc::new(config), tls, EXPORTER);
        let device = |input| replica.with_engine(|engine| Ok(engine.handle(input))).unwrap();
        let until = replica.with_engine(|engine| Ok(engine.until(SYNC))).unwrap();
        let mut actions = VecDeque::from(device(client::Input::SyncUntil(until)));
        while let Some(action) = actions.pop_front() {
            let bytes = match action {
                LinkAction::Connect => {
                    actions.extend(device(client::Input::Connected { exporter: EXPORTER }));
                    continue;
                }
                LinkAction::Close => return,
                LinkAction::Send(bytes) => bytes,
            };
            let frame = wire::decode(&bytes[4..]).unwrap();
            let mut said = self.hear(&mut session, &tls, Input::Frame(frame));
            let effects = self.commit();
            if !effects.is_empty() {
                committed(&self.log);
            }
            for input in effects.into_iter().map(told) {
                said.extend(self.hear(&mut session, &tls, input));
            }
            for frame in said {
                assert!(!matches!(frame, FromServer::Refused(_) | FromServer::Bye(_)), "{frame:?}");
                actions.extend(device(client::Input::Frame(frame)));
            }
        }
        panic!("the replica waits for something that never comes");
    }

    /// Has the session hear something, and says what it says to it.
    fn hear(&mut self, session: &mut Session, tls: &PublicKey, input: Input) -> Vec<FromServer> {
        let mut outputs = VecDeque::from(session.handle(Millis(1), input));
        let mut said = Vec::new();
        while let Some(output) = outputs.pop_front() {
            let answer = match output {
                Output::Open(device, hello) => {
                    let snapshot = log::open(&self.log, &self.rosters, &device, tls, &hello).unwrap();
                    Input::Opened(hello.space, snapshot)
                }
                Output::Append { space, stream, envelopes, refill } => {
                    self.offer(space, Offer::Envelopes { stream, envelopes, refill });
                    continue;
                }
                Output::AppendRoster(space, entries) => {
                    self.offer(space, Offer::Roster(entries));
                    continue;
                }
                Output::Read { space, stream, after, own } => {
                    let run = self.log.read(&space, &stream, after, wire::CATCH_UP_BYTES_MAX, own.as_ref());
                    Input::Run(run.unwrap().unwrap())
                }
                Output::Send(frame) => {
                    let drains = matches!(frame, FromServer::Entries(_));
                    said.push(frame);
                    if !drains {
                        continue;
                    }
                    Input::Drained
                }
                Output::Attest(attest) => {
                    said.push(self.attested(attest));
                    continue;
                }
                Output::Bear { .. } | Output::Close => panic!("nobody lost anything"),
            };
            outputs.extend(session.handle(Millis(1), answer));
        }
        said
    }

    fn attested(&self, attest: Attest) -> FromServer {
        let sign = |heads: &_| SignedHeads::sign(heads, |message| self.means.0.sign(message));
        match attest {
            Attest::CaughtUp(heads) => FromServer::CaughtUp(heads.iter().map(sign).collect()),
            Attest::Acked(envelopes, heads) => FromServer::Acked(Acked { envelopes, head: sign(&heads) }),
        }
    }
}

/// What a session is told.
fn told(effect: Effect<()>) -> Input {
    match effect {
        Effect::Reply((), Answer::Input(input)) => input,
        Effect::Reply((), Answer::Unavailable) => panic!("the log works"),
        Effect::Notice(space, Notice::Grew(log_id, head)) => Input::Grew(space, log_id, vec![head]),
        Effect::Notice(space, Notice::RosterGrew { log_id, roster, entries }) => {
            Input::RosterGrew { space, log_id, roster, entries: entries.to_vec() }
        }
        Effect::Notice(space, Notice::Born(born)) => Input::Born(space, Some(born)),
    }
}
