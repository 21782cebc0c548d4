#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ebb_protocol::id::Millis;

use super::*;
use crate::{Clock, Config, Drive, Entry, FileVault, Replica, record::Unit};

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
