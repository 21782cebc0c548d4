use ebb_protocol::{
    id::{LogId, Millis},
    session::Snapshot,
    wire::{FromDevice, Head, Hello, Push},
};

use super::*;
use crate::{
    testing::{Patient, STREAM, head_after, shared},
    worker::Storage,
};

/// A connection that no task serves, over a storage that does nothing by itself.
fn by_hand(
    patient: &Patient,
    storage: Storage,
) -> Connection<impl AsyncRead + Unpin + use<>, impl AsyncWrite + Unpin + use<>> {
    let (shared, _) = shared(Clock::new(|| Millis(1)), Arc::default(), storage);
    Connection::new(
        Arc::new(shared),
        patient.device.tls.public(),
        [5; 32],
        tokio::io::empty(),
        tokio::io::sink(),
    )
}

#[tokio::test]
async fn reading_stops_above_a_mebibyte_that_is_not_committed_and_then_goes_on() {
    let mut patient = Patient::new(1);
    let (storage, unserved) = Storage::unserved();
    let mut connection = by_hand(&patient, storage);
    let hello = Hello {
        version: wire::VERSION,
        device: patient.device.id(),
        pins_version: 0,
        spaces: vec![patient.hello()],
    };
    let found = Snapshot {
        log_id: LogId([1; 16]),
        roster: Arc::new(patient.roster.clone()),
        entries: Vec::new(),
        heads: Vec::new(),
        at_cursors: Vec::new(),
        samples: Vec::new(),
        own_heads: Vec::new(),
        births: Vec::new(),
    };
    connection.session.handle(Millis(1), Input::Frame(FromDevice::Hello(hello)));
    connection.session.handle(Millis(1), Input::Opened(patient.space, Some(found)));
    for _ in 0..8 {
        let envelopes = vec![patient.write(250_000).as_bytes().to_vec().into()];
        let push = Push { space: patient.space, stream: STREAM, envelopes, refill: false };
        connection.read.extend(wire::encode_frame(&FromDevice::Push(push)));
    }
    connection.turn().await.unwrap();
    // Four fit below the limit, the fifth goes over it.
    assert_eq!(connection.shared.metrics.frames_in.get(), 5);
    assert!(!connection.reads() && connection.appends_bytes < APPENDS_BYTES_MAX + wire::FRAME_BYTES_MAX);
    for taken in [6, 7, 8, 8] {
        unserved.answer_one();
        connection.turn().await.unwrap();
        assert_eq!(connection.shared.metrics.frames_in.get(), taken);
    }
    assert!(connection.reads(), "all frames are taken, and four are under way");
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_never_written() {
    let patient = Patient::new(1);
    let mut connection = by_hand(&patient, Storage::unserved().0);
    let head: Head = head_after(patient.space, STREAM, &[]);
    let attest = |heads: usize| {
        let heads = vec![head; heads];
        Attest::CaughtUp(vec![Heads { space: patient.space, log_id: LogId([1; 16]), heads }])
    };
    assert_eq!(connection.attest(attest(wire::CAUGHT_UP_HEADS_MAX)), Ok(()));
    let written = connection.to_write.len();
    assert_eq!(connection.attest(attest(30_000)), Err(End::Close));
    assert_eq!(connection.to_write.len(), written);
}
