//! A database that holds what does not count: a change that waits for its ancestor, and one that was refused.

use std::path::Path;

use ebb_core::{Category, Config, Start, document::Document};
use ebb_tests::{
    rogue::{Rogue, Wire, payload},
    ward::{TestDevice, TestServer, craving},
};

use super::{NODE, copy_all, fixtures};

#[test]
fn a_database_with_parked_changes_is_read() {
    let files = fixtures().join("phone-with-parked");
    if !files.exists() && std::env::var_os("EBB_WRITE_FIXTURES").is_some() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let server = TestServer::start(&root.path().join("server"), NODE);
        let phone = TestDevice::open(&root, "phone", &server, Start::Found);
        phone.replica.log(phone.replica.own().expect("a patient's"), &craving(1)).expect("logs");
        let tablet = phone.second(&root, &server);
        tablet.replica.lock();
        let mut rogue = Rogue::of(&tablet.dir);
        let actor = rogue.actor(Category::Wellbeing);
        let (mut document, _) = Document::create(actor, 1, &rogue.value(&craving(2)), "").expect("fits");
        let waits = document.edit(actor, 2, None, Some("a note")).expect("fits").expect("differs");
        let bad = payload(&[([1; 16], &[waits.bytes]), ([2; 16], &[b"no change at all".to_vec()])]);
        let envelope = rogue.write(Category::Wellbeing, &bad);
        let (mut wire, _) = Wire::member(&server.address, &server.pins, &rogue);
        assert!(wire.push_one(&envelope).is_acked());
        phone.sync();
        phone.replica.lock();
        std::fs::remove_file(phone.dir.join("replica/ebb.lock")).expect("ours");
        copy_all(&phone.dir, &files);
    }
    reads(&files);
}

/// Of a schema in which what was refused kept its bytes: its envelopes are looked at again.
#[test]
fn a_database_with_changes_parked_by_schema_2_is_read() {
    reads(&fixtures().join("phone-with-parked-2"));
}

fn reads(files: &Path) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let dir = root.path().join("phone");
    copy_all(files, &dir);
    let phone = TestDevice::open_with(&dir, Config::new(dir.join("replica")));
    assert_eq!(phone.records(phone.replica.own().expect("a patient's")).len(), 1);
    let aside = phone.replica.with_engine(|engine| engine.set_aside()).expect("reads");
    assert_eq!(aside, (1, 1), "one waits, one was refused");
}
