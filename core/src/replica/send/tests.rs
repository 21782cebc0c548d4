#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ebb_protocol::{
    envelope::Envelope,
    id::{DeviceId, Hash, LogId, Millis, Position},
    judge::Chain,
    wire::Head,
};

use super::*;
use crate::{Category, Clock, Config, Drive, Entry, FileVault, Replica, record::Unit};

/// A clock that goes on by a second whenever somebody looks.
#[derive(Default)]
struct Stepping(AtomicU64);

impl Clock for Stepping {
    fn now(&self) -> Millis {
        Millis(1_700_000_000_000 + 1_000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The categories of the envelopes that would go out now, in order.
fn order(replica: &Replica) -> Vec<String> {
    let gather = |engine: &mut Engine| {
        let Input::Outbox { items, .. } = engine.gather(&BTreeSet::new(), false, &BTreeSet::new())? else {
            panic!("an outbox")
        };
        let space = engine.spaces.values().next().unwrap();
        Ok(items
            .iter()
            .filter_map(|item| match item {
                Outgoing::Envelopes { stream, .. } => Some(space.labels[stream].clone()),
                Outgoing::Roster(..) => None,
            })
            .collect())
    };
    replica.with_engine(gather).unwrap()
}

#[test]
fn the_stream_that_was_written_last_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().join("replica"));
    (config.clock, config.drive) = (Arc::new(Stepping::default()), Drive::Manual);
    let replica = Replica::open(config, &FileVault(dir.path().join("key"))).unwrap();
    let own = replica.own().unwrap();
    let log = |entry: Entry| replica.log(own, &entry).unwrap();
    // Stream ids are random: three streams in the right order by chance would be one of six.
    log(Entry::use_event("opioid"));
    log(Entry::dose("buprenorphine", 8.0, Unit::Mg));
    log(Entry::note_to_care_team("the night was long"));
    assert_eq!(order(&replica), ["symptoms", "medication", "substance_use"]);
    // A chain goes out whole: what was sealed before and did not get out is part of the newest one.
    log(Entry::use_event("alcohol"));
    assert_eq!(order(&replica), ["substance_use", "symptoms", "medication"]);
}

/// The envelopes that would go out now: sequence, epoch, and whether as a refill.
fn outgoing(engine: &mut Engine) -> Result<Vec<(u64, u32, bool)>> {
    let Input::Outbox { items, .. } = engine.gather(&BTreeSet::new(), false, &BTreeSet::new())? else {
        panic!("an outbox")
    };
    let mut outgoing = Vec::new();
    for item in items {
        let Outgoing::Envelopes { envelopes, refill, .. } = item else { continue };
        for envelope in envelopes {
            let envelope = Envelope::parse(envelope.bytes).unwrap();
            outgoing.push((envelope.header().seq.0, envelope.header().epoch.0, refill));
        }
    }
    Ok(outgoing)
}

/// A phone that logs into one stream, and says what would go out.
struct Sealing {
    replica: Replica,
    space: SpaceId,
    stream: StreamId,
    _dir: tempfile::TempDir,
}

impl Sealing {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("replica"));
        config.drive = Drive::Manual;
        let replica = Replica::open(config, &FileVault(dir.path().join("key"))).unwrap();
        let space = replica.own().unwrap();
        let stream = |engine: &mut Engine| Ok(engine.space(&space)?.stream(Category::SubstanceUse));
        let stream = replica.with_engine(stream).unwrap().unwrap();
        Self { replica, space, stream, _dir: dir }
    }

    fn log(&self) -> Vec<(u64, u32, bool)> {
        self.replica.log(self.space, &Entry::use_event("opioid")).unwrap();
        self.with(outgoing)
    }

    /// A new key, and the server has it.
    fn rotate(&self) {
        self.replica.rotate(Category::SubstanceUse).unwrap();
        self.with(|engine| {
            let head = engine.space(&self.space)?.roster.head().unwrap();
            engine.keep_roster_ack(&head)
        });
    }

    /// The server has what was sealed last.
    fn place(&self) {
        self.with(|engine| {
            let me = engine.secrets.id();
            let newest = outbox::newest_of(engine.store.read(), &self.space, &self.stream, &me)?;
            let (seq, hash) = newest.unwrap();
            let row = outbox::known(engine.store.read(), &self.space, &hash)?.unwrap().row;
            let place = outbox::Place { position: Position(seq.0), chain: None, received: None };
            engine.store.write(|tx| Ok(outbox::set_place(tx, row, place)?))
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Engine) -> Result<T>) -> T {
        self.replica.with_engine(work).unwrap()
    }
}

#[test]
fn a_chain_changes_its_key_only_where_all_before_is_at_the_server() {
    let phone = Sealing::open();
    assert_eq!(phone.log(), [(1, 1, false)]);
    phone.rotate();
    assert_eq!(phone.log(), [(1, 1, false)], "what is logged now waits");
    phone.with(|engine| engine.reseal(&phone.space, &phone.stream, Seq(1)));
    assert_eq!(
        phone.with(outgoing),
        [(1, 2, false)],
        "the server refused it: both in one, under the new key"
    );
    phone.place();
    assert_eq!(phone.log(), [(2, 2, false)]);
}

#[test]
fn what_others_may_hold_is_not_sealed_again_at_its_place() {
    let phone = Sealing::open();
    phone.log();
    phone.place();
    phone.rotate();
    // On its way, and perhaps with others, though nobody said so.
    assert_eq!(phone.log(), [(2, 2, false)]);
    phone.with(|engine| {
        // The server lost the first, knows of no loss, and takes nothing new under the first key.
        engine.send_as_new(&phone.space, &phone.stream, Seq(1))?;
        assert_eq!(outgoing(engine)?, [(1, 1, false), (2, 2, false)]);
        engine.reseal(&phone.space, &phone.stream, Seq(1))?;
        assert_eq!(
            outgoing(engine)?,
            [(1, 1, false), (2, 2, false)],
            "at the second place it would be a fork"
        );
        engine.greeting()?;
        assert_eq!(outgoing(engine)?, [(1, 1, true), (2, 2, false)], "a refill first, in each connection");
        Ok(())
    });
    phone.rotate();
    phone.with(|engine| engine.reseal(&phone.space, &phone.stream, Seq(1)));
    assert_eq!(phone.with(outgoing), [(1, 3, false)]);
}

#[test]
fn an_author_of_whom_nothing_is_taken_keeps_no_other_waiting() {
    let phone = Sealing::open();
    phone.log();
    phone.with(|engine| {
        for (author, goes) in [(engine.secrets.id(), false), (DeviceId([9; 16]), true)] {
            let blocked = [(phone.space, Some((phone.stream, author)))].into();
            let Input::Outbox { items, .. } = engine.gather(&BTreeSet::new(), true, &blocked)? else {
                panic!("an outbox")
            };
            let went = items.iter().any(|item| matches!(item, Outgoing::Envelopes { .. }));
            assert_eq!(went, goes);
        }
        Ok(())
    });
}

#[test]
fn a_frozen_device_takes_nothing_apart_that_it_gives_back() {
    let phone = Sealing::open();
    phone.log();
    phone.place();
    phone.rotate();
    phone.with(|engine| {
        engine.rewind(&phone.space, &phone.stream, Seq(1))?;
        engine.spaces.get_mut(&phone.space).unwrap().frozen = true;
        engine.reseal(&phone.space, &phone.stream, Seq(1))?;
        assert_eq!(outgoing(engine)?, [(1, 1, true)]);
        Ok(())
    });
}

#[test]
fn a_chain_that_began_anew_does_not_name_less_of_a_log_than_before() {
    let phone = Sealing::open();
    let log_id = LogId([1; 16]);
    // The device reads as far as a position of that log, seals, and says what it saw.
    let reads_and_seals = |position: u64| {
        phone.with(|engine| {
            let head = Head {
                stream: phone.stream,
                position: Position(position),
                chain: Hash([position as u8; 32]),
            };
            engine.store.write(|tx| {
                keyring::set_log_id(tx, &phone.space, &log_id)?;
                Ok(keyring::set_cursor(tx, &phone.space, &head)?)
            })?;
            engine.reload_space(&phone.space)
        });
        phone.log();
        phone.with(|engine| {
            let me = engine.secrets.id();
            let (seq, _) = outbox::newest_of(engine.store.read(), &phone.space, &phone.stream, &me)?.unwrap();
            let chain = outbox::Accepted { db: engine.store.read(), space: phone.space };
            let link = chain.at(&me, &phone.stream, seq)?.pop().unwrap();
            Ok((link.log_id, link.seen_pos.0))
        })
    };
    assert_eq!(reads_and_seals(5), (log_id, 5));
    // What it showed did not convince: it meets the same log again, and reads what precedes its own.
    phone.with(|engine| engine.begin_anew(&phone.space));
    assert_eq!(reads_and_seals(3), (LogId::ZERO, 0), "to name less would be malformed");
    assert_eq!(reads_and_seals(4), (log_id, 4), "nothing was named before");
    assert_eq!(reads_and_seals(4), (log_id, 4));
}
