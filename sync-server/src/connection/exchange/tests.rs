use ebb_protocol::{
    id::LogId,
    session::Snapshot,
    wire::{FromDevice, Head, Hello, Push},
};

use super::*;
use crate::{
    Clock,
    testing::{Patient, STREAM, head_after, shared},
    worker::Storage,
};

/// A connection over a storage that does nothing by itself.
fn over(patient: &Patient, storage: Storage) -> Exchange {
    let (shared, _) = shared(Clock::new(|| Millis(1)), Arc::default(), storage);
    Exchange::new(Arc::new(shared), patient.device.tls.public(), [5; 32])
}

/// Does everything that can be done without waiting.
fn settle(exchange: &mut Exchange) {
    while exchange.step().unwrap() != Step::Idle {}
}

#[test]
fn reading_stops_above_a_mebibyte_that_is_not_committed_and_then_goes_on() {
    let mut patient = Patient::new(1);
    let (storage, unserved) = Storage::unserved();
    let mut exchange = over(&patient, storage);
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
    exchange.session.handle(Millis(1), Input::Frame(FromDevice::Hello(hello)));
    exchange.session.handle(Millis(1), Input::Opened(patient.space, Some(found)));
    for _ in 0..8 {
        let envelopes = vec![patient.write(250_000).as_bytes().to_vec().into()];
        let push = Push { space: patient.space, stream: STREAM, envelopes, refill: false };
        exchange.incoming().extend(wire::encode_frame(&FromDevice::Push(push)));
    }
    settle(&mut exchange);
    // Four fit below the limit, the fifth goes over it.
    assert_eq!(exchange.shared.metrics.frames_in.get(), 5);
    assert!(!exchange.reads() && exchange.awaits_log());
    for taken in [6, 7, 8, 8] {
        unserved.answer_one();
        settle(&mut exchange);
        assert_eq!(exchange.shared.metrics.frames_in.get(), taken);
    }
    assert!(exchange.reads(), "all frames are taken, and four are under way");
}

#[test]
fn a_frame_that_is_too_long_is_never_written() {
    let patient = Patient::new(1);
    let mut exchange = over(&patient, Storage::unserved().0);
    let head: Head = head_after(patient.space, STREAM, &[]);
    let attest = |heads: usize| {
        let heads = vec![head; heads];
        Attest::CaughtUp(vec![Heads { space: patient.space, log_id: LogId([1; 16]), heads }])
    };
    assert_eq!(exchange.attest(attest(wire::CAUGHT_UP_HEADS_MAX)), Ok(()));
    let written = exchange.unwritten().len();
    assert_eq!(exchange.attest(attest(30_000)), Err(End::Close));
    assert_eq!(exchange.unwritten().len(), written);
}
