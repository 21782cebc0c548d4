//! Two devices of one patient and a clinic, through a real server on loopback.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::{collections::BTreeSet, net::UdpSocket, path::Path};

use ebb_core::{
    Category, Delivery, Entry, Error, NetworkId, Record, RecordId, Start, SyncStatus,
    link::{ServerAddress, Transport},
    record::*,
};
use ebb_protocol::id::SpaceId;
use ebb_tests::ward::{Events, TestDevice, TestServer, Told, craving, dose, wait_for};
use tempfile::TempDir;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");
const SHARED: [Category; 9] = [
    Category::Symptoms,
    Category::Medication,
    Category::SubstanceUse,
    Category::Wellbeing,
    Category::Recovery,
    Category::Profile,
    Category::Messages,
    Category::Plan,
    Category::Observations,
];

struct Ward {
    root: TempDir,
    server: TestServer,
    phone: TestDevice,
    clinic: TestDevice,
    space: SpaceId,
}

impl Ward {
    /// A phone that granted a clinic everything shareable; nothing has been synced yet.
    fn open(transport: Transport) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let server = TestServer::start(&root.path().join("server"), NODE);
        let phone = TestDevice::open_over(&root, "phone", &server, Start::Found, transport);
        let clinic = TestDevice::open_over(&root, "clinic", &server, Start::Clinic, transport);
        phone.replica.grant(&clinic.replica.card().unwrap(), &SHARED).unwrap();
        let space = clinic.replica.follow(&phone.replica.ticket().unwrap()).unwrap();
        Self { root, server, phone, clinic, space }
    }
}

fn ids(records: &[Record]) -> BTreeSet<RecordId> {
    records.iter().map(|record| record.id).collect()
}

fn a_log_reaches_the_clinic_and_back(transport: Transport) {
    let ward = Ward::open(transport);
    let (phone, clinic, space) = (&ward.phone, &ward.clinic, ward.space);
    let logged: BTreeSet<RecordId> =
        (0..10).map(|n| phone.replica.log(space, &craving(n)).unwrap()).collect();
    let private = phone.replica.log(space, &Entry::private_note("mine alone")).unwrap();
    assert_eq!(phone.replica.delivery(space, private).unwrap(), Delivery::OnPhone);
    assert!(phone.sync().in_sync);
    assert_eq!(phone.replica.delivery(space, private).unwrap(), Delivery::OnServer);
    clinic.sync();
    assert_eq!(ids(&clinic.records(space)), logged, "all but the private note");

    let visit = Entry::visit("group", "week 1", Attendance::Kept);
    let visit = clinic.replica.log(space, &visit).unwrap();
    clinic.sync();
    phone.sync();
    assert!(ids(&phone.records(space)).contains(&visit));
    for record in clinic.records(space) {
        assert_eq!(phone.replica.record(space, record.id).unwrap(), record);
    }
}

#[test]
fn a_log_reaches_the_clinic_and_back_over_quic() {
    a_log_reaches_the_clinic_and_back(Transport::Quic);
}

#[test]
fn a_log_reaches_the_clinic_and_back_over_tcp() {
    a_log_reaches_the_clinic_and_back(Transport::Tcp);
}

#[test]
fn what_is_logged_arrives_live() {
    let ward = Ward::open(Transport::Quic);
    let (phone, clinic, space) = (&ward.phone, &ward.clinic, ward.space);
    phone.sync();
    let told = Events::of(&clinic.replica);
    clinic.replica.stay_in_sync();
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::InSync(_))));
    phone.replica.stay_in_sync();
    let id = phone.replica.log(space, &dose(8.0)).unwrap();
    wait_for(&told, |told| matches!(told, Told::Records(_, ids) if ids.contains(&id)));
    assert_eq!(clinic.replica.record(space, id).unwrap().kind, Kind::Dose);
    clinic.replica.lock();
    assert_eq!(clinic.replica.status(), SyncStatus::Offline, "whatever it was before");
}

#[test]
fn a_desk_that_is_connected_follows_another_patient_at_once() {
    let ward = Ward::open(Transport::Quic);
    ward.phone.sync();
    let told = Events::of(&ward.clinic.replica);
    ward.clinic.replica.stay_in_sync();
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::InSync(_))));
    let other = TestDevice::open(&ward.root, "other", &ward.server, Start::Found);
    other.replica.grant(&ward.clinic.replica.card().unwrap(), &SHARED).unwrap();
    let space = ward.clinic.replica.follow(&other.replica.ticket().unwrap()).unwrap();
    let id = other.replica.log(space, &dose(2.0)).unwrap();
    other.sync();
    wait_for(&told, |told| matches!(told, Told::Records(of, ids) if *of == space && ids.contains(&id)));
}

#[test]
fn a_choice_is_refused_where_another_version_came_since() {
    let ward = Ward::open(Transport::Quic);
    let (phone, space) = (&ward.phone, ward.space);
    let id = phone.replica.log(space, &craving(3)).unwrap();
    let tablet = phone.second(&ward.root, &ward.server);
    phone.replica.edit(space, id, &craving(5)).unwrap();
    tablet.replica.edit(space, id, &craving(7)).unwrap();
    for device in [phone, &tablet, phone] {
        device.sync();
    }
    let seen = phone.replica.conflicts(space, id).unwrap();
    assert_eq!(seen.len(), 2);
    tablet.replica.edit(space, id, &craving(8)).unwrap();
    tablet.sync();
    phone.sync();
    for version in &seen {
        let refused = phone.replica.resolve(space, version).unwrap_err();
        assert!(matches!(refused, Error::FixInput { .. }), "{refused:?}");
    }
    assert_eq!(phone.replica.record(space, id).unwrap().body, craving(8).body);
}

#[test]
fn two_devices_of_one_patient_edit_offline_and_converge() {
    let ward = Ward::open(Transport::Quic);
    let (phone, space) = (&ward.phone, ward.space);
    let id = phone.replica.log(space, &craving(3)).unwrap();
    let tablet = phone.second(&ward.root, &ward.server);
    assert_eq!(tablet.replica.record(space, id).unwrap(), phone.replica.record(space, id).unwrap());

    phone.replica.edit(space, id, &craving(5).note("on the phone")).unwrap();
    tablet.replica.edit(space, id, &craving(7).note("on the tablet")).unwrap();
    tablet.replica.log(space, &dose(4.0)).unwrap();
    for device in [phone, &tablet, phone, &ward.clinic] {
        device.sync();
    }
    let here = phone.replica.record(space, id).unwrap();
    assert_eq!(here.conflicts, 1, "both answers are kept");
    assert_eq!(tablet.replica.record(space, id).unwrap(), here);
    assert_eq!(ward.clinic.replica.record(space, id).unwrap(), here);
    let versions = phone.replica.conflicts(space, id).unwrap();
    assert_eq!((versions.len(), &versions[0]), (2, &here));
    assert_eq!(phone.replica.history(space, id).unwrap().len(), 3);

    phone.replica.resolve(space, &versions[1]).unwrap();
    let again = phone.replica.resolve(space, &versions[0]).unwrap_err();
    assert!(matches!(again, Error::FixInput { .. }), "what was seen stands no more: {again:?}");
    phone.replica.resolve(space, &phone.replica.record(space, id).unwrap()).unwrap();
    assert_eq!(phone.replica.history(space, id).unwrap().len(), 4, "one stands: there is nothing to write");
    tablet.replica.retract(space, id, "entered twice").unwrap();
    for device in [phone, &tablet, phone, &ward.clinic] {
        device.sync();
    }
    let here = phone.replica.record(space, id).unwrap();
    assert_eq!(here.conflicts, 0);
    assert_eq!(here.retracted.as_ref().unwrap().reason, "entered twice");
    assert_eq!(ward.clinic.replica.record(space, id).unwrap(), here);
    tablet.replica.unretract(space, id).unwrap();
    tablet.sync();
    phone.sync();
    assert!(phone.replica.record(space, id).unwrap().retracted.is_none());
}

#[test]
fn rosters_that_grow_on_two_devices_at_once_are_signed_again() {
    let ward = Ward::open(Transport::Quic);
    let (phone, space) = (&ward.phone, ward.space);
    let tablet = phone.second(&ward.root, &ward.server);
    phone.replica.rotate(Category::Wellbeing).unwrap();
    phone.replica.log(space, &craving(1)).unwrap();
    tablet.replica.rotate(Category::Wellbeing).unwrap();
    tablet.replica.rotate(Category::Medication).unwrap();
    let late = tablet.replica.log(space, &craving(2)).unwrap();
    for device in [phone, &tablet, phone, &ward.clinic] {
        device.sync();
    }
    assert_eq!(ids(&phone.records(space)), ids(&tablet.records(space)));
    assert_eq!(ids(&ward.clinic.records(space)), ids(&tablet.records(space)));
    assert_eq!(tablet.replica.delivery(space, late).unwrap(), Delivery::OnServer);
}

#[test]
fn what_was_sealed_under_an_old_key_is_sealed_again() {
    let ward = Ward::open(Transport::Quic);
    let (phone, space) = (&ward.phone, ward.space);
    let tablet = phone.second(&ward.root, &ward.server);
    // The tablet seals offline (as if cut right after), while the phone starts a new key.
    let id = tablet.replica.log(space, &craving(2)).unwrap();
    tablet
        .replica
        .with_engine(|engine| {
            engine.seal_now()?;
            Ok(())
        })
        .unwrap();
    phone.replica.rotate(Category::Wellbeing).unwrap();
    phone.sync();
    tablet.sync();
    assert_eq!(tablet.replica.delivery(space, id).unwrap(), Delivery::OnServer);
    phone.sync();
    ward.clinic.sync();
    assert!(ids(&ward.clinic.records(space)).contains(&id));
    assert!(ids(&phone.records(space)).contains(&id));
}

/// What a network that swallows UDP got to swallow since it was asked last.
fn swallowed(abyss: &UdpSocket) -> usize {
    std::iter::from_fn(|| abyss.recv(&mut [0; 1]).ok()).count()
}

#[test]
fn where_udp_is_swallowed_tcp_gets_through_and_goes_first_from_then_on() {
    let root = tempfile::tempdir().unwrap();
    let server = TestServer::start(&root.path().join("server"), NODE);
    let abyss = UdpSocket::bind("127.0.0.1:0").unwrap();
    abyss.set_nonblocking(true).unwrap();
    let quic = abyss.local_addr().unwrap().to_string();
    let address = ServerAddress { quic, ..server.address.clone() };
    let open = |dir: &Path| TestDevice::open_with(dir, TestDevice::config(dir, &address, &server.pins));
    let (at_home, at_work) = (Some(NetworkId::of("home")), Some(NetworkId::of("work")));

    let phone = open(&root.path().join("phone"));
    phone.replica.network_changed(at_home);
    phone.sync();
    assert!(swallowed(&abyss) > 0, "QUIC went first");
    phone.sync();
    assert_eq!(swallowed(&abyss), 0, "what got through goes first");
    phone.replica.network_changed(at_work);
    phone.sync();
    assert!(swallowed(&abyss) > 0, "another network may be another matter");

    phone.replica.lock();
    let phone = open(&phone.dir);
    for known in [at_work, at_home] {
        phone.replica.network_changed(known);
        phone.sync();
        assert_eq!(swallowed(&abyss), 0, "remembered for the next start");
    }
    phone.replica.network_changed(None);
    phone.sync();
    assert!(swallowed(&abyss) > 0, "who knows where this is");
}

#[test]
fn a_server_that_is_killed_comes_back_with_everything() {
    let mut ward = Ward::open(Transport::Quic);
    let space = ward.space;
    ward.phone.replica.stay_in_sync();
    let told = Events::of(&ward.phone.replica);
    for n in 0..5 {
        let id = ward.phone.replica.log(space, &craving(n)).unwrap();
        wait_for(&told, |_| ward.phone.replica.delivery(space, id).unwrap() == Delivery::OnServer);
        ward.server.kill();
        ward.server.restart();
        ward.phone.replica.network_changed(None);
    }
    ward.clinic.sync();
    assert_eq!(ward.clinic.records(space).len(), 5);
}

/// A server's log files, put aside to be put back.
struct Backup(std::path::PathBuf);

impl Ward {
    fn back_up(&mut self) -> Backup {
        self.server.stop();
        let folder = self.root.path().join("yesterday");
        std::fs::create_dir_all(&folder).unwrap();
        for file in self.server.log_files() {
            std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        self.server.restart();
        Backup(folder)
    }

    fn restore(&mut self, Backup(folder): &Backup) {
        self.server.stop();
        for file in self.server.log_files() {
            std::fs::remove_file(file).unwrap();
        }
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            std::fs::copy(&file, self.server.dir.join(file.file_name().unwrap())).unwrap();
        }
        self.server.restart();
    }

    /// A device of the patient that has nothing but what the server gives it.
    fn fresh_device(&self) -> TestDevice {
        let ticket = self.phone.replica.ticket().unwrap();
        let fresh = TestDevice::open(&self.root, "fresh", &self.server, Start::Join(ticket));
        self.phone.replica.add_device(&fresh.replica.card().unwrap()).unwrap();
        self.phone.sync();
        fresh.sync();
        fresh
    }
}

#[test]
fn a_server_restored_to_yesterdays_file_is_refilled_by_its_clients() {
    let mut ward = Ward::open(Transport::Quic);
    let space = ward.space;
    let before = ward.phone.replica.log(space, &craving(1)).unwrap();
    ward.phone.sync();
    ward.clinic.sync();
    let yesterday = ward.back_up();
    let lost = ward.phone.replica.log(space, &craving(2)).unwrap();
    ward.phone.sync();
    let visit = ward.clinic.replica.log(space, &Entry::visit("group", "week 1", Attendance::Kept)).unwrap();
    ward.clinic.sync();
    ward.phone.sync();
    ward.restore(&yesterday);

    let told = Events::of(&ward.phone.replica);
    let unsent = ward.phone.replica.log(space, &craving(3)).unwrap();
    ward.phone.sync();
    wait_for(&told, |told| matches!(told, Told::Restored(_)));
    for id in [before, lost, visit, unsent] {
        assert_eq!(ward.phone.replica.delivery(space, id).unwrap(), Delivery::OnServer);
    }
    let fresh = ward.fresh_device();
    ward.clinic.sync();
    assert_eq!(ids(&fresh.records(space)), BTreeSet::from([before, lost, visit, unsent]));
    assert_eq!(ids(&ward.clinic.records(space)), ids(&fresh.records(space)));
}

#[test]
fn a_restored_server_takes_back_what_was_sealed_under_keys_that_are_over() {
    for clinic_first in [false, true] {
        let mut ward = Ward::open(Transport::Quic);
        let space = ward.space;
        let log = |ward: &Ward, strength| ward.phone.replica.log(space, &craving(strength)).unwrap();
        let mut logged = BTreeSet::from([log(&ward, 1)]);
        ward.phone.sync();
        ward.clinic.sync();
        let yesterday = ward.back_up();
        for strength in 2..5 {
            logged.insert(log(&ward, strength));
            ward.phone.sync();
        }
        ward.phone.replica.rotate(Category::Wellbeing).unwrap();
        ward.phone.sync();
        logged.insert(log(&ward, 5));
        ward.phone.sync();
        ward.clinic.sync();
        ward.restore(&yesterday);

        let frozen = Events::of(&ward.phone.replica);
        logged.insert(log(&ward, 6));
        let order = if clinic_first { [&ward.clinic, &ward.phone] } else { [&ward.phone, &ward.clinic] };
        for device in order.iter().chain(&order) {
            device.sync();
        }
        logged.insert(log(&ward, 7));
        ward.phone.sync();
        ward.clinic.sync();
        assert!(frozen.try_iter().all(|told| !matches!(told, Told::Frozen(_))), "nobody is to blame");
        assert_eq!(ids(&ward.clinic.records(space)), logged);
        assert_eq!(ids(&ward.fresh_device().records(space)), logged);
    }
}

#[test]
fn a_restored_server_that_nobody_noticed_yet_is_sent_what_it_acknowledged() {
    let mut ward = Ward::open(Transport::Quic);
    let space = ward.space;
    ward.phone.sync();
    let yesterday = ward.back_up();
    let lost = ward.phone.replica.log(space, &dose(8.0)).unwrap();
    ward.phone.sync();
    ward.restore(&yesterday);
    // The clinic, whose cursor lies before the loss, writes first: nothing tells it of the loss.
    ward.clinic.sync();
    ward.clinic.replica.log(space, &Entry::visit("group", "week 1", Attendance::Kept)).unwrap();
    ward.clinic.sync();
    ward.phone.sync();
    ward.clinic.sync();
    assert!(ids(&ward.clinic.records(space)).contains(&lost));
    assert_eq!(ids(&ward.clinic.records(space)), ids(&ward.phone.records(space)));
}

#[test]
fn a_replica_that_is_locked_answers_nothing_and_loses_nothing() {
    let ward = Ward::open(Transport::Quic);
    let id = ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    let syncing = ward.phone.replica.sync(ebb_tests::ward::PATIENCE);
    ward.phone.replica.lock();
    let _ = ebb_tests::ward::block_on(syncing);
    let again = ebb_tests::ward::block_on(ward.phone.replica.sync(ebb_tests::ward::PATIENCE));
    assert_eq!(again, Err(ebb_core::SyncError::Closed));
    assert_eq!(ward.phone.replica.status(), SyncStatus::Offline);
    assert!(matches!(ward.phone.replica.log(ward.space, &craving(2)), Err(ebb_core::Error::Unlock(_))));
    let reopened = TestDevice::open(&ward.root, "phone", &ward.server, Start::Found);
    assert_eq!(reopened.replica.record(ward.space, id).unwrap().id, id);
    reopened.sync();
}
