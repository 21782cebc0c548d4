#![allow(clippy::unwrap_used, reason = "tests may fail")]

use ebb_protocol::id::StreamId;

use super::*;
use crate::{Category, Config, Drive, FileVault, Replica};

/// A phone of its own that signs what a server would, and one of its streams.
fn phone() -> (tempfile::TempDir, Replica, SpaceId, StreamId) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().join("replica"));
    config.drive = Drive::Manual;
    let replica = Replica::open(config, &FileVault(dir.path().join("key"))).unwrap();
    let space = replica.own().unwrap();
    let stream = replica.with_engine(|engine| {
        let key = engine.secrets.public().sig;
        let pins = wire::Pins { version: 1, root: key, tls: Vec::new(), heads: vec![key] };
        engine.pins = Some(wire::SignedPins::sign(&pins, |message| engine.secrets.sign(message)));
        Ok(engine.space(&space)?.stream(Category::SubstanceUse))
    });
    let stream = stream.unwrap().unwrap();
    (dir, replica, space, stream)
}

fn heads(space: SpaceId, stream: StreamId, (log, position, chain): (u8, u64, u8)) -> wire::Heads {
    let head = Head { stream, position: Position(position), chain: Hash([chain; 32]) };
    wire::Heads { space, log_id: LogId([log; 16]), heads: vec![head] }
}

#[test]
fn what_proves_a_loss_is_not_given_up_for_what_was_signed_after_it() {
    let (_dir, replica, space, stream) = phone();
    // What the server signs one after the other, each in a log of its own, and whether the last one is what stays.
    let cases = [
        ([(1, 3, 3), (1, 5, 5)], true),
        ([(2, 5, 5), (2, 5, 5)], true),
        ([(3, 5, 5), (3, 3, 3)], false),
        ([(4, 5, 5), (4, 5, 6)], false),
        ([(5, 5, 5), (6, 3, 3)], true),
    ];
    for (said, stays) in cases {
        let kept = replica.with_engine(|engine| {
            let Engine { store, secrets, .. } = engine;
            store.write(|tx| {
                for at in said {
                    let heads = heads(space, stream, at);
                    keep_evidence(tx, &heads, &SignedHeads::sign(&heads, |message| secrets.sign(message)))?;
                }
                Ok(keyring::evidence_of(tx, &space, &stream)?.unwrap().content().unwrap())
            })
        });
        assert_eq!(kept.unwrap(), heads(space, stream, said[usize::from(stays)]), "{said:?}");
    }
}

#[test]
fn what_is_acknowledged_while_a_loss_is_asked_about_proves_nothing() {
    let (_dir, replica, space, stream) = phone();
    let kept = |(position, is_evidence)| {
        let kept = replica.with_engine(|engine| {
            let heads = heads(space, stream, (1, position, 0));
            let head = SignedHeads::sign(&heads, |message| engine.secrets.sign(message));
            engine.keep_acked(&Acked { envelopes: Vec::new(), head }, is_evidence)?;
            Ok(keyring::evidence_of(engine.store.read(), &space, &stream)?.unwrap().content().unwrap())
        });
        kept.unwrap().heads[0].position.0
    };
    assert_eq!([(5, true), (7, false), (9, true)].map(kept), [5, 5, 9]);
}
