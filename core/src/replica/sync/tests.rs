#![allow(clippy::unwrap_used, reason = "tests may fail")]

use ebb_protocol::verify::Signature;

use super::*;
use crate::{Category, Config, Drive, FileVault, Replica};

#[test]
fn what_proves_a_loss_is_not_given_up_for_what_was_signed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().join("replica"));
    config.drive = Drive::Manual;
    let replica = Replica::open(config, &FileVault(dir.path().join("key"))).unwrap();
    let space = replica.own().unwrap();
    let stream = replica.with_engine(|engine| Ok(engine.space(&space)?.stream(Category::SubstanceUse)));
    let stream = stream.unwrap().unwrap();
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
            engine.store.write(|tx| {
                for (log, position, chain) in said {
                    let head = Head { stream, position: Position(position), chain: Hash([chain; 32]) };
                    let heads = wire::Heads { space, log_id: LogId([log; 16]), heads: vec![head] };
                    let signed = SignedHeads::sign(&heads, |_| Signature::from_bytes(&[0; 64]));
                    keep_evidence(tx, &heads, &signed)?;
                }
                Ok(keyring::evidence_of(tx, &space, &stream)?.unwrap().content().unwrap())
            })
        });
        let kept = kept.unwrap();
        let kept = (kept.log_id.0[0], kept.heads[0].position.0, kept.heads[0].chain.0[0]);
        assert_eq!(kept, said[usize::from(stays)], "{said:?}");
    }
}
