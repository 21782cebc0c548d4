#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ebb_protocol::{
    envelope::Envelope,
    id::{Millis, Position},
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

#[test]
fn what_others_hold_is_not_sealed_again_at_its_place() {
    for is_second_placed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("replica"));
        config.drive = Drive::Manual;
        let replica = Replica::open(config, &FileVault(dir.path().join("key"))).unwrap();
        let own = replica.own().unwrap();
        let stream =
            replica.with_engine(|engine| Ok(engine.space(&own)?.stream(Category::SubstanceUse))).unwrap();
        let stream = stream.unwrap();
        let seal_and_place = |is_placed| {
            replica.log(own, &Entry::use_event("opioid")).unwrap();
            let work = |engine: &mut Engine| {
                let head = engine.space(&own)?.roster.head().unwrap();
                engine.keep_roster_ack(&head)?;
                outgoing(engine)?;
                let me = engine.secrets.id();
                let (seq, hash) = outbox::newest_of(engine.store.read(), &own, &stream, &me)?.unwrap();
                let row = outbox::known(engine.store.read(), &own, &hash)?.unwrap().row;
                let place = outbox::Place { position: Position(seq.0), chain: None, received: None };
                engine
                    .store
                    .write(|tx| if is_placed { Ok(outbox::set_place(tx, row, place)?) } else { Ok(()) })
            };
            replica.with_engine(work).unwrap();
        };
        seal_and_place(true);
        replica.rotate(Category::SubstanceUse).unwrap();
        seal_and_place(is_second_placed);
        let work = |engine: &mut Engine| {
            // The server lost both, knows of no loss, and takes nothing new under the first key.
            engine.rewind(&own, &stream, Seq(1), true)?;
            assert_eq!(outgoing(engine)?, [(1, 1, false), (2, 2, false)]);
            engine.reseal(&own, &stream, Seq(1))?;
            let again = outgoing(engine)?;
            engine.store.write(|tx| Ok(outbox::send_as_refills(tx, &own)?))?;
            Ok((again, outgoing(engine)?))
        };
        let (again, refilled) = replica.with_engine(work).unwrap();
        if is_second_placed {
            // Another envelope at the second place, under the same key, would be a fork.
            assert_eq!(again, [(1, 1, false), (2, 2, false)]);
            assert_eq!(refilled, [(1, 1, true), (2, 2, true)], "once the loss is proven");
        } else {
            assert_eq!(again, [(1, 2, false)], "both in one, and nobody saw the second");
        }
    }
}
