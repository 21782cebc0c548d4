//! Servers that lie, or that lose what they had.

use ebb_protocol::roster::EntryWithWraps;

use super::*;

/// A ward whose server is in the hands of somebody who has the clinic's keys as well.
struct Conspiracy {
    ward: Ward,
    rogue: Rogue,
    actor: u8,
}

impl Conspiracy {
    fn open() -> Self {
        let ward = Ward::open();
        let rogue = ward.rogue_clinic();
        Self { ward, rogue, actor: 0 }
    }

    /// The header of what the clinic would write next, and a payload with a record of its own.
    fn next(&mut self) -> (Header, RecordId, Vec<u8>) {
        self.actor += 1;
        let (record, change) = visit(&self.rogue, self.actor);
        let header = self.rogue.header(Category::Observations);
        (header, RecordId::from_bytes(record), payload(&[(record, &[change])]))
    }

    /// Puts something into the server's log that it was never asked to take.
    fn smuggle(&mut self, bytes: &[u8]) {
        self.ward.server.stop();
        smuggle(&log_path(&self.ward.server), bytes);
        self.ward.server.restart();
    }
}

fn log_path(server: &TestServer) -> PathBuf {
    ebb_sync_server::config::Config::local(&server.dir).log_path()
}

/// The verdicts of a closed device on what an author wrote, in the order of the log.
fn verdicts(device: &TestDevice, author: DeviceId) -> Vec<String> {
    let db = open_database(&device.dir);
    let mut query = db.prepare("SELECT verdict FROM envelope WHERE author = ?1 ORDER BY position").unwrap();
    query.query_map([author.0], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Whoever has the server and a member's keys can seal what opens and decodes, and sign heads over it: what
/// then stands between it and the others is the judging of each single receiver.
#[test]
fn what_no_honest_server_would_take_does_not_count_with_its_readers() {
    let mut plot = Conspiracy::open();
    let mut shown = BTreeSet::new();
    let good = |plot: &mut Conspiracy, shown: &mut BTreeSet<RecordId>| {
        let (header, id, payload) = plot.next();
        let envelope = plot.rogue.seal(&header, &payload);
        plot.rogue.follow(&envelope);
        plot.smuggle(envelope.as_bytes());
        shown.insert(id);
    };
    good(&mut plot, &mut shown);
    good(&mut plot, &mut shown);

    // Signed by another key than its author's; all else is in order.
    let (header, _, payload) = plot.next();
    let mut forged = plot.rogue.seal(&header, &payload).into_bytes();
    let body = forged.len() - 64;
    let other = DeviceSecrets::make_device(&mut OsEntropy);
    let signature = other.sign(&verify::signing_message(Envelope::DOMAIN, &forged[..body]));
    forged[body..].copy_from_slice(&signature.to_bytes());
    plot.smuggle(&forged);
    // Before one that is missing; behind another one than what stands there.
    for (ahead, prev) in [(1, header.prev), (0, Hash([5; 32]))] {
        let (honest, _, payload) = plot.next();
        let gap = Header { seq: Seq(honest.seq.0 + ahead), prev, ..honest };
        plot.smuggle(plot.rogue.seal(&gap, &payload).as_bytes());
    }
    // A second one at a place that is taken.
    let (honest, _, payload) = plot.next();
    let fork = Header { seq: Seq(1), prev: Hash::ZERO, ..honest };
    plot.smuggle(plot.rogue.seal(&fork, &payload).as_bytes());
    // Of an epoch that is still to come.
    let (honest, _, payload) = plot.next();
    plot.smuggle(plot.rogue.seal(&Header { epoch: Epoch(9), ..honest }, &payload).as_bytes());
    // In a stream that its author may only read.
    let (_, _, payload) = plot.next();
    let elsewhere = plot.rogue.header(Category::Medication);
    plot.smuggle(plot.rogue.seal(&elsewhere, &payload).as_bytes());
    good(&mut plot, &mut shown);

    let Conspiracy { ward, rogue, .. } = plot;
    assert!(ward.phone.sync().in_sync);
    assert_eq!(ids(&ward.phone.records(ward.space)), shown);
    let aside = ward.phone.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside, (0, 0), "their content was not even looked at");
    ward.still_serves();
    ward.phone.replica.lock();
    let mut told = verdicts(&ward.phone, rogue.secrets.id());
    told.sort();
    let expected =
        ["accepted"; 3].into_iter().chain(["fork", "gap", "gap", "malformed", "role", "signature"]);
    assert!(told.iter().map(String::as_str).eq(expected), "{told:?}");
    assert_no_errors();
}

#[test]
fn an_envelope_that_names_a_roster_entry_to_come_is_held_until_it_comes() {
    let mut plot = Conspiracy::open();
    let ticket = plot.ward.phone.replica.ticket().unwrap();
    let tablet = TestDevice::open(&plot.ward.root, "tablet", &plot.ward.server, Start::Join(ticket));
    plot.ward.phone.replica.add_device(&tablet.replica.card().unwrap()).unwrap();
    plot.ward.phone.sync();
    tablet.sync();
    // The phone has signed an entry that no server has yet; the clinic's envelope names it.
    plot.ward.phone.replica.rotate(Category::Wellbeing).unwrap();
    plot.ward.phone.replica.lock();
    let pending = "SELECT bytes FROM roster_entry WHERE NOT settled";
    let pending = open_database(&plot.ward.phone.dir).query_row(pending, [], |row| row.get::<_, Vec<u8>>(0));
    let pending = wire::decode::<EntryWithWraps>(&pending.unwrap()).unwrap().entry.hash();
    let (header, id, payload) = plot.next();
    let early = plot.rogue.seal(&Header { roster_head: pending, ..header }, &payload);
    plot.smuggle(early.as_bytes());
    assert!(tablet.sync().in_sync);
    let aside = tablet.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!((tablet.records(plot.ward.space).len(), aside), (0, (0, 0)), "neither shown nor parked");

    let phone = TestDevice::open(&plot.ward.root, "phone", &plot.ward.server, Start::Found);
    phone.sync();
    tablet.sync();
    assert_eq!(ids(&tablet.records(plot.ward.space)), [id].into());
    assert_eq!(ids(&phone.records(plot.ward.space)), [id].into());
    assert_no_errors();
}

fn lose_everything(server: &mut TestServer) {
    server.kill();
    for file in server.log_files() {
        std::fs::remove_file(file).unwrap();
    }
    server.restart();
}

#[test]
fn a_device_that_was_cut_off_before_its_first_receipt_refills_an_empty_server() {
    let mut ward = Ward::open();
    let id = ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    ward.phone.sync();
    let ticket = ward.phone.replica.ticket().unwrap();
    let tablet = TestDevice::open(&ward.root, "tablet", &ward.server, Start::Join(ticket));
    ward.phone.replica.add_device(&tablet.replica.card().unwrap()).unwrap();
    ward.phone.sync();
    tablet.replica.lock();
    // It takes a run of a log whose heads it never sees.
    let mut by_hand = ByHand::open(&tablet.dir, &ward.server.address, &ward.server.pins);
    assert!(block_on(by_hand.sync_until(|frame| matches!(frame, FromServer::Entries(_)))));
    by_hand.replica.lock();
    lose_everything(&mut ward.server);

    let tablet = TestDevice::open(&ward.root, "tablet", &ward.server, Start::Found);
    let late = tablet.replica.log(ward.space, &craving(3)).unwrap();
    assert!(tablet.sync().in_sync);
    assert_eq!(tablet.replica.delivery(ward.space, late).unwrap(), Delivery::OnServer);
    ward.phone.sync();
    tablet.sync();
    assert_eq!(ids(&tablet.records(ward.space)), [id, late].into());
    assert_eq!(ids(&ward.phone.records(ward.space)), [id, late].into());
    assert_no_errors();
}

#[test]
fn a_server_that_loses_everything_again_before_its_first_receipt_is_refilled() {
    let mut ward = Ward::open();
    let id = ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    ward.phone.sync();
    lose_everything(&mut ward.server);
    // The phone hears of the new log, and nothing more before that is lost as well.
    ward.phone.replica.lock();
    let mut by_hand = ByHand::open(&ward.phone.dir, &ward.server.address, &ward.server.pins);
    assert!(block_on(by_hand.sync_until(|frame| matches!(frame, FromServer::LogBorn(_)))));
    by_hand.replica.lock();
    lose_everything(&mut ward.server);

    let phone = TestDevice::open(&ward.root, "phone", &ward.server, Start::Found);
    assert!(phone.sync().in_sync);
    assert_eq!(phone.replica.delivery(ward.space, id).unwrap(), Delivery::OnServer);
    ward.clinic.sync();
    assert_eq!(ids(&ward.clinic.records(ward.space)), [id].into());
    assert_no_errors();
}
