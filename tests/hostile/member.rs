//! Members who hold keys: what their devices write counts where they may write it, and nowhere else.

use super::*;

#[test]
fn poison_is_parked_and_the_good_ones_around_it_arrive() {
    let ward = Ward::open();
    let mut rogue = ward.rogue_clinic();
    let actor = rogue.actor(Category::Observations);
    let value = rogue.value(&week(1));
    let (first, good) = visit(&rogue, 1);
    let (last, also_good) = visit(&rogue, 2);
    let mut flipped = visit(&rogue, 3).1;
    let place = flipped.len() - 1;
    flipped[place] ^= 1;
    let (mut orphan, root) = Document::create(actor, 1, &value, "").unwrap();
    let orphan = orphan.edit(actor, 2, Some(&rogue.value(&week(2))), None).unwrap().unwrap();
    drop(root);
    let poison: Vec<([u8; 16], Vec<u8>)> = vec![
        ([10; 16], bomb(actor, 4_000_000)),
        ([11; 16], flipped),
        ([12; 16], Document::create([9; 16], 1, &value, "").unwrap().1.bytes),
        ([13; 16], b"no change at all".to_vec()),
        ([14; 16], chunk(&[0xff; 100])),
        ([15; 16], orphan.bytes),
    ];
    let mut records = vec![(first, vec![good])];
    records.extend(poison.iter().map(|(record, change)| (*record, vec![change.clone()])));
    records.push((last, vec![also_good]));
    let records: Vec<_> = records.iter().map(|(id, changes)| (*id, changes.as_slice())).collect();
    let mut wire = ward.wire(&rogue);
    let envelope = rogue.write(Category::Observations, &payload(&records));
    assert!(wire.push_one(&envelope).is_acked(), "the server cannot tell");
    let (later, change) = visit(&rogue, 4);
    let envelope = rogue.write(Category::Observations, &payload(&[(later, &[change])]));
    assert!(wire.push_one(&envelope).is_acked());

    assert!(ward.phone.sync().in_sync);
    let arrived = ids(&ward.phone.records(ward.space));
    assert_eq!(arrived, [first, last, later].map(RecordId::from_bytes).into(), "the good ones, and no other");
    let aside = || ward.phone.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside(), (1, 5), "one waits for its ancestor, five are parked");
    ward.still_serves();

    // What waited is taken up when its ancestor comes.
    let (mut document, root) = Document::create(actor, 1, &value, "").unwrap();
    let edited = document.edit(actor, 2, None, Some("late")).unwrap().unwrap();
    let edit = payload(&[([16; 16], &[edited.bytes])]);
    assert!(wire.push_one(&rogue.write(Category::Observations, &edit)).is_acked());
    ward.phone.sync();
    assert_eq!(aside().0, 2);
    let root = payload(&[([16; 16], &[root.bytes])]);
    assert!(wire.push_one(&rogue.write(Category::Observations, &root)).is_acked());
    ward.phone.sync();
    assert_eq!(aside().0, 1);
    let whole = ward.phone.replica.record(ward.space, RecordId::from_bytes([16; 16])).unwrap();
    assert_eq!(whole.note, "late");
    assert_no_errors();
}

#[test]
fn a_version_under_anothers_name_counts_nowhere_whenever_it_comes() {
    let ward = Ward::open();
    let (phone, space) = (&ward.phone.replica, ward.space);
    let tablet = ward.phone.second(&ward.root, &ward.server);
    let id = phone.log(space, &craving(1)).unwrap();
    ward.phone.sync();
    tablet.sync();
    tablet.replica.lock();
    let mut rogue = Rogue::of(&tablet.dir);
    let mut wire = ward.wire(&rogue);
    // The phone has written twice since, and does not show what is put beside the first version.
    phone.edit(space, id, &craving(2)).unwrap();
    phone.edit(space, id, &craving(3)).unwrap();

    let actor = rogue.actor(Category::Wellbeing);
    let first = changes_of(&open_database(&tablet.dir), id).unwrap();
    let mut document = Document::load(first.iter().map(Vec::as_slice)).unwrap();
    let in_its_name = Rogue::value_by(DeviceId(phone.record(space, id).unwrap().author), &craving(9));
    let forged = document.edit(actor, RECORDED_MS, Some(&in_its_name), None).unwrap().unwrap();
    // Built upon it, and honest by itself.
    let honest = document.edit(actor, RECORDED_MS, Some(&rogue.value(&craving(8))), None).unwrap().unwrap();
    let both = payload(&[(*id.as_bytes(), &[forged.bytes, honest.bytes])]);
    assert!(wire.push_one(&rogue.write(Category::Wellbeing, &both)).is_acked(), "the server cannot tell");

    assert!(ward.clinic.sync().in_sync, "it meets the forged version before what the phone wrote since");
    ward.phone.sync();
    ward.clinic.sync();
    for device in [&ward.phone, &ward.clinic] {
        let record = device.replica.record(space, id).unwrap();
        assert_eq!((record.conflicts, &record.body), (0, &craving(3).body));
        assert_eq!(device.replica.history(space, id).unwrap().len(), 3);
        let aside = device.replica.with_engine(|engine| engine.set_aside()).unwrap();
        assert_eq!(aside, (1, 1), "one is set aside, and what builds upon it waits");
    }
    assert_no_errors();
}

/// A member's device that writes into its own log of the phone's space, and two that read it: one hears each
/// envelope by itself, one all of them at once.
struct Forked {
    ward: Ward,
    rogue: Rogue,
    wire: Wire,
}

impl Forked {
    fn open() -> Self {
        let ward = Ward::open();
        let tablet = ward.phone.second(&ward.root, &ward.server);
        ward.clinic.sync();
        tablet.replica.lock();
        let rogue = Rogue::of(&tablet.dir);
        let wire = ward.wire(&rogue);
        Self { ward, rogue, wire }
    }

    /// Sends envelopes of one record's changes, and gives what both readers make of the record: what it says,
    /// its versions, and what was set aside.
    fn send(
        &mut self,
        record: [u8; 16],
        envelopes: &[&[Vec<u8>]],
    ) -> [(Option<Record>, usize, (u64, u64)); 2] {
        for changes in envelopes {
            let payload = payload(&[(record, changes)]);
            assert!(self.wire.push_one(&self.rogue.write(Category::Wellbeing, &payload)).is_acked());
            self.ward.phone.sync();
        }
        self.ward.clinic.sync();
        [&self.ward.phone, &self.ward.clinic].map(|reader| {
            let (space, id) = (self.ward.space, RecordId::from_bytes(record));
            let versions = reader.replica.history(space, id).map_or(0, |versions| versions.len());
            let aside = reader.replica.with_engine(|engine| engine.set_aside()).unwrap();
            (reader.replica.record(space, id).ok(), versions, aside)
        })
    }
}

#[test]
fn of_two_changes_with_one_number_the_first_counts_however_they_come() {
    let mut forked = Forked::open();
    let (rogue, actor) = (&forked.rogue, forked.rogue.actor(Category::Wellbeing));
    let (document, first) = Document::create(actor, 1, &rogue.value(&craving(1)), "").unwrap();
    let second = |strength| {
        let mut document = document.clone();
        document.edit(actor, 2, Some(&rogue.value(&craving(strength))), None).unwrap().unwrap().bytes
    };
    // Whoever has all three at once could take the third for the second, since it need not wait.
    let [a, b] = [2, 3].map(second);
    let [one, other] = forked.send([7; 16], &[&[a], &[first.bytes], &[b]]);
    assert_eq!(one, other);
    assert_eq!((one.0.unwrap().body, one.1, one.2), (craving(2).body, 2, (0, 1)));
}

#[test]
fn what_automerge_cannot_bear_keeps_its_number_however_it_comes() {
    let mut forked = Forked::open();
    let (rogue, actor) = (&forked.rogue, forked.rogue.actor(Category::Wellbeing));
    let (mut document, first) = Document::create(actor, 1, &rogue.value(&craving(1)), "").unwrap();
    let good = document.edit(actor, 2, Some(&rogue.value(&craving(2))), None).unwrap().unwrap();
    // At another key, in place of the version.
    let mut bad = automerge::Change::try_from(good.bytes.as_slice()).unwrap().decode();
    for operation in &mut bad.operations {
        operation.key = automerge::legacy::Key::Map("w".into());
    }
    let bad = automerge::Change::from(bad).raw_bytes().to_vec();
    let [one, other] = forked.send([7; 16], &[&[first.bytes], &[bad], &[good.bytes]]);
    assert_eq!(one, other);
    assert_eq!((one.0.unwrap().body, one.1, one.2), (craving(1).body, 1, (0, 2)));
}

#[test]
fn what_is_tried_again_after_an_update_comes_in_the_order_it_came() {
    let mut forked = Forked::open();
    let (rogue, actor) = (&forked.rogue, forked.rogue.actor(Category::Wellbeing));
    let (mut document, first) = Document::create(actor, 1, &rogue.value(&craving(1)), "").unwrap();
    let good = document.edit(actor, 2, Some(&rogue.value(&craving(2))), None).unwrap().unwrap();
    // It does not follow from what it names, and keeps the number of the one behind it all the same.
    let mut bad = automerge::Change::try_from(good.bytes.as_slice()).unwrap().decode();
    bad.start_op = 4_000_000_000.try_into().unwrap();
    let bad = automerge::Change::from(bad).raw_bytes().to_vec();
    let [one, other] = forked.send([7; 16], &[&[first.bytes, bad, good.bytes]]);
    assert_eq!(one, other);
    assert_eq!((one.0.unwrap().body, one.1, one.2), (craving(1).body, 1, (0, 2)));

    let Ward { root, server, phone, .. } = &mut forked.ward;
    phone.replica.lock();
    let older = "UPDATE meta SET value = x'00' WHERE name = 'quarantine_tried_by'";
    assert_eq!(open_database(&phone.dir).execute(older, []).unwrap(), 1);
    *phone = TestDevice::open(root, "phone", server, Start::Found);
    let [one, other] = forked.send([7; 16], &[]);
    assert_eq!(one, other, "the one that was updated makes the same of it");
}

#[test]
fn what_inflates_to_more_than_a_phone_holds_at_once_arrives_all_the_same() {
    const ENVELOPES: u8 = 12;
    let ward = Ward::open();
    let mut rogue = ward.rogue_clinic();
    let mut wire = ward.wire(&rogue);
    let note = "a".repeat(200 * 1024);
    let mut sent = BTreeSet::new();
    for envelope in 0..ENVELOPES {
        let records: Vec<_> = (0..4)
            .map(|number| {
                let id = [16 + envelope * 4 + number; 16];
                let actor = rogue.actor(Category::Observations);
                let (_, change) = Document::create(actor, 1, &rogue.value(&week(1)), "").unwrap();
                let junk = [note.as_bytes(), &id].concat();
                (id, [change.bytes, junk])
            })
            .collect();
        sent.extend(records.iter().map(|(id, _)| RecordId::from_bytes(*id)));
        let records: Vec<_> = records.iter().map(|(id, changes)| (*id, changes.as_slice())).collect();
        let envelope = rogue.write(Category::Observations, &payload(&records));
        assert!(envelope.as_bytes().len() < 8 * 1024, "{} bytes", envelope.as_bytes().len());
        assert!(wire.push_one(&envelope).is_acked());
    }
    ward.phone.sync();
    assert_eq!(ids(&ward.phone.records(ward.space)), sent);
    let aside = ward.phone.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside, (0, 4 * u64::from(ENVELOPES)));
    // What was refused takes no room of its own beside the envelopes that brought it.
    let size = std::fs::metadata(ward.phone.dir.join("replica/ebb.db")).unwrap().len();
    assert!(size < 1024 * 1024, "{size} bytes");
}

#[test]
fn what_an_author_offers_is_counted_once_however_it_comes() {
    const ALMOST: usize = CHANGES_PER_AUTHOR_AND_RECORD_MAX as usize - 4;
    let mut forked = Forked::open();
    let (rogue, actor) = (&forked.rogue, forked.rogue.actor(Category::Wellbeing));
    let (mut document, first) = Document::create(actor, 1, &rogue.value(&craving(1)), "").unwrap();
    let mut good = vec![first.bytes];
    let edit = |document: &mut Document, value: Option<&[u8]>, note: &str| {
        document.edit(actor, 2, value, Some(note)).unwrap().unwrap().bytes
    };
    let forged = Rogue::value_by(DeviceId([9; 16]), &craving(9));
    let mut bad = Vec::new();
    for number in 1..ALMOST + 4 {
        if number == ALMOST {
            bad.extend((0..3).map(|bad| edit(&mut document.clone(), Some(&forged), &format!("bad {bad}"))));
        }
        good.push(edit(&mut document, None, &number.to_string()));
    }
    let (good, more) = good.split_at(ALMOST);
    let [one, other] = forked.send([7; 16], &[good, &bad, more]);
    assert_eq!(one, other);
    assert_eq!((one.0.unwrap().note, one.1, one.2), (ALMOST.to_string(), ALMOST + 1, (0, 6)));
}

#[test]
fn anothers_change_is_no_change_of_whoever_offers_it() {
    let mut forked = Forked::open();
    let id = forked.ward.phone.replica.log(forked.ward.space, &craving(1)).unwrap();
    forked.ward.phone.replica.lock();
    let changes = changes_of(&open_database(&forked.ward.phone.dir), id).unwrap();
    forked.ward.phone = TestDevice::open(&forked.ward.root, "phone", &forked.ward.server, Start::Found);
    // The phone has not sent it yet, and would take it for sent.
    let payload = payload(&[(*id.as_bytes(), &changes)]);
    assert!(forked.wire.push_one(&forked.rogue.write(Category::Wellbeing, &payload)).is_acked());
    forked.ward.phone.sync();
    forked.ward.clinic.sync();
    for reader in [&forked.ward.phone, &forked.ward.clinic] {
        assert_eq!(reader.replica.record(forked.ward.space, id).unwrap().body, craving(1).body);
        assert_eq!(reader.replica.with_engine(|engine| engine.set_aside()).unwrap(), (0, 1));
    }
    forked.ward.phone.replica.lock();
    let db = open_database(&forked.ward.phone.dir);
    let sealed_by = "SELECT e.author = c.author FROM change c JOIN envelope e ON e.row = c.envelope";
    assert!(db.query_row(sealed_by, [], |row| row.get::<_, bool>(0)).unwrap(), "in an envelope of its own");
}

#[test]
fn payloads_that_are_none_are_parked_whole_and_the_chain_goes_on() {
    let ward = Ward::open();
    let mut rogue = ward.rogue_clinic();
    let mut wire = ward.wire(&rogue);
    let (record, change) = visit(&rogue, 1);
    let good = payload(&[(record, &[change])]);
    let mut newer = good.clone();
    newer[0] = PAYLOAD_VERSION + 1;
    let mut larger_than_declared = good.clone();
    larger_than_declared[4] -= 1;
    let mut smaller_than_declared = good.clone();
    smaller_than_declared[4] += 1;
    let mut enormous = good.clone();
    enormous[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let trailing = [&good[..], b"!"].concat();
    for bad in [vec![], newer, larger_than_declared, smaller_than_declared, enormous, trailing] {
        let envelope = rogue.write(Category::Observations, &bad);
        assert!(wire.push_one(&envelope).is_acked());
    }
    // Sealed under a key that is not the epoch's: no one can open it.
    let mut header = rogue.header(Category::Observations);
    let stranger = ebb_core::keys::EpochKey::make_epoch_key(&mut OsEntropy);
    header.salt = [99; 16];
    let closed = ebb_core::seal::seal(&rogue.secrets, &stranger, &header, &good).unwrap();
    rogue.follow(&closed);
    assert!(wire.push_one(&closed).is_acked());
    assert!(wire.push_one(&rogue.write(Category::Observations, &good)).is_acked());

    assert!(ward.phone.sync().in_sync);
    assert_eq!(ids(&ward.phone.records(ward.space)), [RecordId::from_bytes(record)].into());
    let aside = ward.phone.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside, (0, 7));
    ward.still_serves();
    ward.phone.replica.lock();
    let db = open_database(&ward.phone.dir);
    let mut query = db.prepare("SELECT reason FROM quarantine ORDER BY envelope").unwrap();
    let reasons: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let of_payloads = ["empty", "version", "deflate", "deflate", "too_long", "trailing"];
    let expected = of_payloads.map(|reason| format!("payload_{reason}"));
    assert_eq!(reasons, [&expected[..], &["commitment".to_owned()]].concat());
    assert_no_errors();
}

#[test]
fn what_an_observer_rates_is_not_taken_from_a_persons_phone() {
    let ward = Ward::open();
    ward.phone.replica.grant(&ward.clinic.replica.card().unwrap(), &[Category::Symptoms]).unwrap();
    ward.phone.sync();
    ward.clinic.sync();
    let mut rogue = ward.rogue_phone();
    let actor = rogue.actor(Category::Symptoms);
    let change =
        |entry: &Entry| Document::create(actor, RECORDED_MS, &rogue.value(entry), "").unwrap().1.bytes;
    let band = |scale| Entry::withdrawal_band(scale, Band::Severe, Phase::Routine);
    let own = [change(&Entry::sows([1; 16])), change(&band(BandInstrument::Sows16))];
    let others = [
        change(&Entry::answers("cows", [("1", 4)])),
        change(&band(BandInstrument::Cows)),
        change(&Entry::new(Thresholds::default())),
    ];
    let changes: Vec<_> = own.into_iter().chain(others).map(|change| [change]).collect();
    let records: Vec<_> = (1..).zip(&changes).map(|(id, change)| ([id; 16], change.as_slice())).collect();
    let envelope = rogue.write(Category::Symptoms, &payload(&records));
    assert!(ward.wire(&rogue).push_one(&envelope).is_acked(), "the server cannot tell");

    assert!(ward.clinic.sync().in_sync);
    let arrived = ids(&ward.clinic.records(ward.space));
    assert_eq!(
        arrived,
        [[1; 16], [2; 16]].map(RecordId::from_bytes).into(),
        "the person's own, and no other"
    );
    let aside = ward.clinic.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside, (0, 3));
}

#[test]
fn a_record_that_does_not_load_any_more_stops_no_other() {
    let mut ward = Ward::open();
    let id = ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    ward.phone.sync();
    ward.clinic.sync();
    ward.clinic.replica.lock();
    let damage = "UPDATE change SET bytes = x'00' WHERE record = ?1";
    assert_eq!(open_database(&ward.clinic.dir).execute(damage, [id.as_bytes()]).unwrap(), 1);
    ward.clinic = TestDevice::open(&ward.root, "clinic", &ward.server, Start::Clinic);

    ward.phone.replica.edit(ward.space, id, &craving(2)).unwrap();
    let other = ward.phone.replica.log(ward.space, &craving(3)).unwrap();
    ward.phone.sync();
    assert!(ward.clinic.sync().in_sync);
    assert_eq!(ids(&ward.clinic.records(ward.space)), [id, other].into(), "as it was shown, and the other");
    let aside = ward.clinic.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside, (0, 1), "kept for a version that can");
}

#[test]
fn a_bomb_costs_next_to_nothing_to_refuse() {
    const REFUSAL_KIB_MAX: u64 = 10 << 10;
    let root = folder();
    let actor = [7; 16];
    let full: Vec<_> = (0..4_000).map(|_| bomb(actor, 10_000)).collect();
    let small: Vec<_> = (0..8_000).map(|_| bomb(actor, 7)).collect();
    let mut deflate_bomb = payload(&[([1; 16], &[vec![0; 1_000_000]])]);
    deflate_bomb[1..5].copy_from_slice(&100_u32.to_be_bytes());
    let bombs = [
        ("one change of 4,000,000 operations", payload(&[([1; 16], &[bomb(actor, 4_000_000)])])),
        ("4,000 changes of 10,000 operations", payload(&[([1; 16], &full)])),
        ("8,000 changes of 7 operations", payload(&[([1; 16], &small)])),
        ("a block that inflates to 10,000 times what it says", deflate_bomb),
    ];
    for (name, packed) in bombs {
        let file = root.path().join("payload");
        std::fs::write(&file, &packed).unwrap();
        let output = Command::new(NODE).arg("weigh").arg(&file).output().unwrap();
        assert!(output.status.success(), "{name}");
        let said = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = said.split_whitespace().collect();
        let [verdict, micros, kib] = words[..] else { panic!("{said:?}") };
        eprintln!("{name}, {} bytes: {verdict} after {micros} us and {kib} KiB", packed.len());
        assert_ne!(verdict, "fine", "{name}");
        assert!(kib.parse::<u64>().unwrap() <= REFUSAL_KIB_MAX, "{name}: {kib} KiB");
    }
    let ward = Ward::open();
    let mut rogue = ward.rogue_clinic();
    let mut wire = ward.wire(&rogue);
    let actor = rogue.actor(Category::Observations);
    for (parked, (changes, operations)) in (1..).zip([(4_000, 10_000), (8_000, 7)]) {
        let many: Vec<_> = (0..changes).map(|_| bomb(actor, operations)).collect();
        let packed = payload(&[([parked; 16], &many)]);
        assert!(wire.push_one(&rogue.write(Category::Observations, &packed)).is_acked());
        let started = Instant::now();
        ward.phone.sync();
        eprintln!("{changes} changes of {operations} operations: in sync after {:?}", started.elapsed());
        let aside = ward.phone.replica.with_engine(|engine| engine.set_aside()).unwrap();
        assert_eq!(aside, (0, u64::from(parked)), "the payload is parked as one");
    }
    assert!(ward.phone.records(ward.space).is_empty());
    ward.still_serves();
}
