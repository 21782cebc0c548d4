//! The device's side of a connection, input by input.

use std::collections::BTreeSet;

use ebb_protocol::{
    client::{
        BACK_OFF_MS_MAX, BACK_OFF_MS_MIN, BYE_MS_MAX, CONNECT_MS_MAX, Client, Input, Outgoing,
        OutgoingEnvelope, Output, Place, Report, STEADY_MS, UNAVAILABLE_MS,
    },
    envelope::Envelope,
    id::{Hash, LogId, Millis, Position, Seq, SpaceId, StreamId},
    roster::{EntryWithWraps, MemberKind},
    verify::Verified,
    wire::{
        self, ANSWER_MS_MAX, Acked, AckedEnvelope, Bye, Entries, Evidence, FromDevice, FromServer, Head,
        Heads, Hello, Item, ItemContent, NeedEvidence, PushRoster, Refusal, Refused, RefusedWhat,
        RosterFrame, RosterHead, SignedHeads, SpaceHello, Welcome,
    },
};

use crate::{
    kit::{CLINIC, Device, Draft, OTHER, Patient, STREAM},
    session::heads_key,
};

const LOG: LogId = LogId([1; 16]);
const EXPORTER: [u8; 32] = [7; 32];

mod losses;

/// A client, the clock, and whose it is.
struct Phone {
    client: Client,
    now: Millis,
    patient: Patient,
    chain: Vec<Verified<Envelope>>,
}

impl Phone {
    fn new() -> Self {
        let patient = Patient::new(1);
        let chain = patient.phone.chain(&patient.roster, STREAM, 6);
        Self { client: Client::new(1), now: Millis(1_000_000), patient, chain }
    }

    /// A phone that wants to stay in sync and is.
    fn in_sync() -> Self {
        let mut phone = Self::new();
        phone.input(Input::Stay);
        phone.arrive();
        phone
    }

    /// The link comes to stand, everything is exchanged, and nothing was to be done.
    fn arrive(&mut self) {
        self.greet();
        self.outbox(Vec::new());
        self.frame(welcome(EXPORTER, 0));
        self.outbox(Vec::new());
        self.frame(FromServer::CaughtUp(Vec::new()));
        let out = self.outbox(Vec::new());
        assert_eq!(reports(&out), [Report::InSync], "{out:?}");
    }

    /// The link comes to stand and Hello is said.
    fn greet(&mut self) -> Vec<Output> {
        let out = self.input(Input::Connected { exporter: EXPORTER });
        assert!(matches!(out[..], [Output::Greet]), "{out:?}");
        let out = self.input(Input::Greeting(self.hello(4)));
        assert!(matches!(out[..], [Output::Send(FromDevice::Hello(_)), Output::Gather { .. }]), "{out:?}");
        out
    }

    fn hello(&self, cursor: u64) -> Hello {
        let space = SpaceHello {
            space: self.space(),
            log_id: LOG,
            roster: self.patient.roster.head(),
            cursors: vec![head(STREAM, cursor)],
            own_in_full: false,
        };
        Hello {
            version: wire::VERSION,
            device: self.patient.phone.id(),
            pins_version: 0,
            spaces: vec![space],
        }
    }

    fn space(&self) -> SpaceId {
        self.patient.space()
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.client.handle(self.now, input)
    }

    fn frame(&mut self, frame: FromServer) -> Vec<Output> {
        self.input(Input::Frame(frame))
    }

    fn outbox(&mut self, items: Vec<Outgoing>) -> Vec<Output> {
        self.input(Input::Outbox { items, more: false })
    }

    /// Envelopes of the chain, from this sequence to that.
    fn envelopes(&self, from: usize, to: usize) -> Outgoing {
        let outgoing = |envelope: &Verified<Envelope>| OutgoingEnvelope {
            hash: envelope.hash(),
            author: envelope.header().author,
            seq: envelope.header().seq,
            bytes: envelope.as_bytes().to_vec(),
        };
        let envelopes = self.chain[from - 1..to].iter().map(outgoing).collect();
        Outgoing::Envelopes { space: self.space(), stream: STREAM, envelopes, refill: false }
    }

    fn push(&mut self, from: usize, to: usize) -> Vec<Output> {
        let item = self.envelopes(from, to);
        self.input(Input::LocalChange);
        self.outbox(vec![item])
    }

    fn refuse(&mut self, seq: u64, reason: Refusal) -> Vec<Output> {
        let what = RefusedWhat::Envelope { stream: STREAM, author: self.patient.phone.id(), seq: Seq(seq) };
        self.frame(FromServer::Refused(Refused { space: self.space(), what, reason }))
    }

    fn refuse_entry(&mut self, entry: &EntryWithWraps, reason: Refusal) -> Vec<Output> {
        let what = RefusedWhat::Entry(entry.entry.hash());
        self.frame(FromServer::Refused(Refused { space: self.space(), what, reason }))
    }

    fn acked(&self, seqs: &[(usize, u64)]) -> FromServer {
        let acked = |(seq, position): &(usize, u64)| AckedEnvelope {
            hash: self.chain[seq - 1].hash(),
            position: Position(*position),
        };
        let heads = Heads { space: self.space(), log_id: LOG, heads: vec![head(STREAM, 6)] };
        let head = SignedHeads::sign(&heads, |message| heads_key().sign(message));
        FromServer::Acked(Acked { envelopes: seqs.iter().map(acked).collect(), head })
    }

    /// Evidence of a loss in a space was looked up.
    fn show(&mut self, space: SpaceId) {
        let heads = Heads { space, log_id: LOG, heads: Vec::new() };
        let heads = vec![SignedHeads::sign(&heads, |message| heads_key().sign(message))];
        let out = self.input(Input::Evidence(Evidence { space, heads, common: Vec::new() }));
        assert!(matches!(sent(&out)[..], [FromDevice::Evidence(_)]), "{out:?}");
    }

    fn entries(&self, first: u64, count: usize) -> FromServer {
        let item = Item { received_ms: Millis(1), content: ItemContent::Own(Hash::ZERO) };
        let items = vec![item; count];
        let first = Position(first);
        FromServer::Entries(Entries { space: self.space(), stream: STREAM, log_id: LOG, first, items })
    }

    fn kept(&mut self, position: u64) -> Vec<Output> {
        self.input(Input::Kept(self.space(), Some(head(STREAM, position))))
    }

    /// Lets time pass to the next deadline and beyond, `ms` at the most.
    fn wait(&mut self, ms: u64) -> Vec<Output> {
        let until = self.now.plus(ms);
        let mut out = Vec::new();
        while let Some(deadline) = self.client.deadline().filter(|deadline| *deadline <= until) {
            assert!(out.len() < 1000, "a hot loop: {out:?}");
            self.now = self.now.max(deadline);
            out.extend(self.input(Input::Tick));
        }
        self.now = until;
        out
    }
}

fn welcome(exporter: [u8; 32], back_off_ms: u32) -> FromServer {
    FromServer::Welcome(Welcome {
        version: wire::VERSION,
        exporter,
        server_ms: Millis(1),
        pins: None,
        spaces: Vec::new(),
        back_off_ms,
    })
}

fn head(stream: StreamId, position: u64) -> Head {
    Head { stream, position: Position(position), chain: Hash::ZERO }
}

fn reports(out: &[Output]) -> Vec<Report> {
    let reports = out.iter().filter_map(|output| match output {
        Output::Report(report) => Some(*report),
        _ => None,
    });
    reports.collect()
}

fn sent(out: &[Output]) -> Vec<&FromDevice> {
    let sent = out.iter().filter_map(|output| match output {
        Output::Send(frame) => Some(frame),
        _ => None,
    });
    sent.collect()
}

fn hangs_up(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Disconnect))
}

fn connects(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Connect))
}

/// A stream, or a whole space.
fn gathers(out: &[Output]) -> Option<(&BTreeSet<Hash>, &BTreeSet<Place>)> {
    out.iter().find_map(|output| match output {
        Output::Gather { in_flight, blocked, .. } => Some((in_flight, blocked)),
        _ => None,
    })
}

// The round trip.

#[test]
fn everything_leaves_before_welcome_and_nothing_before_caught_up() {
    let mut phone = Phone::new();
    phone.input(Input::SyncUntil(phone.now.plus(25_000)));
    phone.greet();
    let out = phone.outbox(vec![phone.envelopes(1, 2)]);
    assert!(matches!(sent(&out)[..], [FromDevice::Push(_)]));
    let out = phone.frame(welcome(EXPORTER, 0));
    assert!(gathers(&out).unwrap().0.len() == 2 && sent(&out).is_empty());
    assert!(sent(&phone.outbox(Vec::new())).is_empty());
    assert!(sent(&phone.frame(phone.acked(&[(1, 5), (2, 6)]))).is_empty());
    assert!(sent(&phone.frame(phone.entries(5, 2))).is_empty());
    assert!(sent(&phone.kept(6)).is_empty());
    assert!(sent(&phone.frame(FromServer::CaughtUp(Vec::new()))).is_empty());
    let out = phone.outbox(Vec::new());
    assert!(
        matches!(sent(&out)[..], [FromDevice::Seen(seen)] if seen.cursors == [(STREAM, Position(6))]),
        "{out:?}"
    );
    assert_eq!(reports(&out), [Report::InSync, Report::Waiting(None)]);
    assert!(hangs_up(&out) && phone.client.deadline().is_none());
}

#[test]
fn nothing_counts_before_welcome_echoes_this_very_connection() {
    for frame in [welcome([8; 32], 0), FromServer::CaughtUp(Vec::new()), FromServer::Pong(0)] {
        let mut phone = Phone::new();
        phone.input(Input::Stay);
        phone.greet();
        let out = phone.frame(frame);
        assert_eq!(reports(&out)[0], Report::Impostor);
        assert!(hangs_up(&out) && !phone.client.is_connected());
    }
    let mut phone = Phone::in_sync();
    assert!(hangs_up(&phone.frame(welcome(EXPORTER, 0))), "Welcome comes once");
}

#[test]
fn nothing_is_said_before_hello_whatever_comes_first() {
    let mut phone = Phone::new();
    phone.input(Input::Stay);
    phone.input(Input::Connected { exporter: EXPORTER });
    assert!(phone.input(Input::LocalChange).is_empty());
    let stale = phone.envelopes(1, 1);
    assert!(phone.outbox(vec![stale]).is_empty(), "an answer of the link before");
    assert!(phone.wait(wire::ANSWER_MS_MAX - 1).is_empty());
    let out = phone.input(Input::Greeting(phone.hello(0)));
    assert!(matches!(sent(&out)[..], [FromDevice::Hello(_)]));
    assert!(phone.input(Input::Greeting(phone.hello(0))).is_empty(), "Hello is said once");
}

#[test]
fn answers_that_come_after_the_link_is_gone_change_nothing() {
    let mut phone = Phone::in_sync();
    phone.input(Input::Closed);
    let item = phone.envelopes(1, 1);
    let evidence = Evidence { space: phone.space(), heads: Vec::new(), common: Vec::new() };
    for input in [
        Input::Greeting(phone.hello(0)),
        Input::Outbox { items: vec![item], more: true },
        Input::Kept(phone.space(), None),
        Input::Kept(phone.space(), Some(head(STREAM, 1))),
        Input::Evidence(evidence.clone()),
        Input::Frame(FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms: 60_000 })),
        Input::Garbage,
        Input::Closed,
    ] {
        assert!(phone.input(input).is_empty());
    }
    assert!(connects(&phone.wait(0)));
    assert!(phone.frame(FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms: 60_000 })).is_empty());
    phone.arrive_again();
    assert!(phone.input(Input::Evidence(evidence)).is_empty(), "nobody asked over this link");
}

impl Phone {
    fn arrive_again(&mut self) {
        self.arrive();
        assert!(self.client.is_in_sync());
    }
}

#[test]
fn a_link_that_comes_when_nobody_wants_it_is_closed() {
    let mut phone = Phone::new();
    assert!(matches!(phone.input(Input::Connected { exporter: EXPORTER })[..], [Output::Disconnect]));
}

// What is under way.

#[test]
fn in_sync_means_that_what_is_durable_there_is_stored_here() {
    let mut phone = Phone::in_sync();
    phone.push(5, 6);
    assert!(!phone.client.is_in_sync());
    phone.frame(phone.acked(&[(5, 5), (6, 6)]));
    assert!(!phone.client.is_in_sync(), "they come back as entries of the log");
    phone.frame(phone.entries(5, 2));
    phone.kept(6);
    assert!(phone.client.is_in_sync());
}

#[test]
fn nothing_is_called_in_sync_while_the_outbox_is_looked_through() {
    let mut phone = Phone::in_sync();
    assert!(gathers(&phone.input(Input::LocalChange)).is_some());
    assert!(!phone.client.is_in_sync());
    let out = phone.input(Input::SyncUntil(phone.now.plus(1_000)));
    assert!(!reports(&out).contains(&Report::InSync), "{out:?}");
    phone.outbox(Vec::new());
    phone.outbox(Vec::new());
    phone.frame(FromServer::Pong(0));
    assert!(phone.client.is_in_sync());
}

/// A phone slept for hours; the link that stood then may be dead.
#[test]
fn a_sync_over_a_link_that_stands_waits_for_an_answer() {
    for answers in [true, false] {
        let mut phone = Phone::in_sync();
        let out = phone.input(Input::SyncUntil(phone.now.plus(60_000)));
        assert!(matches!(sent(&out)[..], [FromDevice::Ping(_)]), "{out:?}");
        let out = phone.outbox(Vec::new());
        assert!(!reports(&out).contains(&Report::InSync) && !phone.client.is_settled(), "{out:?}");
        if answers {
            // What others logged meanwhile comes first.
            phone.frame(phone.entries(5, 1));
            let out = phone.frame(FromServer::Pong(0));
            assert!(!reports(&out).contains(&Report::InSync), "{out:?}");
            assert_eq!(reports(&phone.kept(5)), [Report::InSync]);
        } else {
            assert!(hangs_up(&phone.wait(ANSWER_MS_MAX)), "and makes another");
        }
    }
}

#[test]
fn what_is_refused_is_not_all_that_a_sync_comes_to_while_more_is_under_way() {
    let mut phone = Phone::in_sync();
    phone.push(1, 1);
    let mut elsewhere = phone.envelopes(2, 2);
    let Outgoing::Envelopes { stream, .. } = &mut elsewhere else { panic!("envelopes") };
    *stream = OTHER;
    phone.input(Input::LocalChange);
    phone.outbox(vec![elsewhere]);
    let out = phone.refuse(1, Refusal::Role);
    assert!(reports(&out).contains(&Report::Rejected(phone.space(), Refusal::Role)), "{out:?}");
    phone.outbox(Vec::new());
    assert!(!phone.client.is_settled());
    let out = phone.frame(phone.acked(&[(2, 0)]));
    assert_eq!(reports(&out), [Report::Rejected(phone.space(), Refusal::Role)]);
    assert!(phone.client.is_settled() && !phone.client.is_in_sync());
}

#[test]
fn what_lies_before_the_cursor_is_stored_already() {
    let mut phone = Phone::in_sync();
    phone.push(1, 2);
    // They stand there since long ago; the server will not send them again.
    phone.frame(phone.acked(&[(1, 3), (2, 4)]));
    assert!(phone.client.is_in_sync());
}

#[test]
fn a_run_that_is_none_ends_the_connection() {
    for (first, count) in [(5, 0), (u64::MAX, 2)] {
        let mut phone = Phone::in_sync();
        let out = phone.frame(phone.entries(first, count));
        assert!(hangs_up(&out), "{out:?}");
    }
    let mut phone = Phone::in_sync();
    phone.frame(phone.entries(5, 1));
    assert!(hangs_up(&phone.input(Input::Kept(phone.space(), None))), "it could not be stored");
}

#[test]
fn the_next_flight_leaves_when_the_first_has_landed() {
    let mut phone = Phone::in_sync();
    phone.input(Input::LocalChange);
    let item = phone.envelopes(1, 2);
    let out = phone.input(Input::Outbox { items: vec![item], more: true });
    assert!(gathers(&out).is_none());
    assert!(gathers(&phone.frame(phone.acked(&[(1, 1)]))).is_none());
    assert!(gathers(&phone.frame(phone.acked(&[(2, 2)]))).is_some());
    // More, it is said, but nothing to wait for: asking at once would be asking for ever.
    let out = phone.input(Input::Outbox { items: Vec::new(), more: true });
    assert!(gathers(&out).is_none() && phone.client.is_in_sync(), "{out:?}");
}

#[test]
fn entries_on_their_way_are_not_sent_again() {
    let mut phone = Phone::in_sync();
    phone.patient.rotate(2);
    phone.patient.rotate(3);
    let entries = phone.patient.entries.clone();
    phone.input(Input::LocalChange);
    let push = |phone: &mut Phone, entries: &[EntryWithWraps]| {
        let out = phone.outbox(vec![Outgoing::Roster(phone.space(), entries.to_vec())]);
        let pushed = sent(&out).into_iter().map(|frame| match frame {
            FromDevice::PushRoster(PushRoster { entries, .. }) => entries.len(),
            other => panic!("{other:?}"),
        });
        pushed.collect::<Vec<_>>()
    };
    assert_eq!(push(&mut phone, &entries[1..2]), [1]);
    assert_eq!(push(&mut phone, &entries[1..3]), [1], "only the other");
    assert_eq!(push(&mut phone, &entries[1..3]), []);
    let hash = entries[1].entry.hash();
    let head = RosterHead { space: phone.space(), seq: ebb_protocol::id::RosterSeq(1), hash };
    phone.frame(FromServer::RosterAcked(head));
    phone.outbox(Vec::new());
    assert!(!phone.client.is_in_sync(), "one is still on its way");
    phone.refuse_entry(&entries[2], Refusal::HeadMoved(None));
    assert_eq!(push(&mut phone, &entries[2..3]), [1], "it was refused: it may go again");
}

#[test]
fn a_long_roster_is_pushed_in_frames_that_the_server_takes() {
    let mut phone = Phone::in_sync();
    (2..2 + 2 * wire::ROSTER_FRAME_ENTRIES_MAX as u32).for_each(|epoch| phone.patient.rotate(epoch));
    phone.input(Input::LocalChange);
    let entries = phone.patient.entries.clone();
    let out = phone.outbox(vec![Outgoing::Roster(phone.space(), entries.clone())]);
    let mut pushed = Vec::new();
    for frame in sent(&out) {
        assert!(wire::encode(frame).len() <= wire::FRAME_BYTES_MAX);
        let FromDevice::PushRoster(push) = frame else { panic!("{frame:?}") };
        assert!(push.entries.len() <= wire::ROSTER_FRAME_ENTRIES_MAX);
        pushed.extend(push.entries.clone());
    }
    assert_eq!(pushed, entries);
}

// What is refused.

#[test]
fn each_reason_has_its_remedy() {
    let remedy = |reason| {
        let mut phone = Phone::in_sync();
        phone.push(1, 3);
        let space = phone.space();
        let mut out = phone.refuse(2, reason);
        let (in_flight, blocked) =
            gathers(&out).map(|(flight, blocked)| (flight.len(), !blocked.is_empty())).unwrap();
        assert_eq!(in_flight, 1, "the first is still on its way");
        out.retain(|output| !matches!(output, Output::Gather { .. } | Output::Report(Report::Syncing)));
        (format!("{out:?}"), blocked, space)
    };
    let (done, blocked, space) = remedy(Refusal::StaleEpoch);
    assert_eq!((done, blocked), (format!("{:?}", [Output::Reseal(space, STREAM, Seq(2))]), false));
    let (done, blocked, space) = remedy(Refusal::UnknownHead);
    assert_eq!((done, blocked), (format!("{:?}", [Output::OfferRoster(space)]), false));
    let (done, blocked, space) = remedy(Refusal::HeadMoved(None));
    assert_eq!((done, blocked), (format!("{:?}", [Output::Resign(space)]), false));
    let (done, blocked, space) = remedy(Refusal::Gap(Seq(1)));
    assert_eq!((done, blocked), (format!("{:?}", [Output::Rewind(space, STREAM, Seq(1))]), false));
    let (done, blocked, _) = remedy(Refusal::Unavailable);
    assert_eq!((done, blocked), ("[]".into(), true));
    let (done, blocked, _) = remedy(Refusal::Quota(7));
    assert_eq!((done, blocked), ("[]".into(), true));
    for reason in [Refusal::Role, Refusal::Malformed, Refusal::Version, Refusal::Unregistered] {
        let (done, blocked, space) = remedy(reason);
        assert_eq!(
            (done, blocked),
            (format!("{:?}", [Output::Report(Report::Rejected(space, reason))]), true)
        );
    }
    let (done, blocked, space) = remedy(Refusal::Fork);
    let rejected = Output::Report(Report::Rejected(space, Refusal::Fork));
    assert_eq!((done, blocked), (format!("{:?}", [Output::Freeze(space), rejected]), true));
}

#[test]
fn a_remedy_that_does_not_help_is_not_tried_for_ever() {
    for reason in [Refusal::StaleEpoch, Refusal::UnknownHead, Refusal::Gap(Seq(1))] {
        let mut phone = Phone::in_sync();
        let mut tries = 0;
        loop {
            // Sealed again it is another envelope, at the same sequence.
            let mut item = phone.envelopes(1, 1);
            let Outgoing::Envelopes { envelopes, .. } = &mut item else { panic!("envelopes") };
            envelopes[0].hash = Hash([tries; 32]);
            phone.input(Input::LocalChange);
            phone.outbox(vec![item]);
            let out = phone.refuse(1, reason);
            if reports(&out).contains(&Report::Rejected(phone.space(), reason)) {
                assert!(
                    gathers(&out)
                        .unwrap()
                        .1
                        .contains(&(phone.space(), Some((STREAM, phone.patient.phone.id()))))
                );
                break;
            }
            tries += 1;
            assert!(tries < 10, "{reason:?} for ever");
        }
        phone.outbox(Vec::new());
        assert!(!phone.client.is_in_sync());
        // Another entry of the roster may hold a newer key.
        phone.patient.rotate(2);
        let head = phone.patient.roster.head().unwrap();
        let out = phone.frame(FromServer::RosterAcked(head));
        let is_lifted = gathers(&out).unwrap().1.is_empty();
        assert_eq!(is_lifted, reason == Refusal::StaleEpoch, "{reason:?}");
    }
}

#[test]
fn an_entry_that_moves_and_moves_at_the_same_place_is_given_up() {
    let mut phone = Phone::in_sync();
    let space = phone.space();
    let mut rejected = false;
    for n in 0..5 {
        // Signed again on the same head: another entry at the same place.
        let draft = Draft::default().member(ebb_protocol::id::MemberId([n; 16]), MemberKind::Clinic);
        let entry = phone.patient.phone.sign(&phone.patient.entry(&draft), draft.wraps);
        phone.input(Input::LocalChange);
        phone.outbox(vec![Outgoing::Roster(space, vec![entry.clone()])]);
        let out = phone.refuse_entry(&entry, Refusal::HeadMoved(None));
        rejected |= reports(&out).contains(&Report::Rejected(space, Refusal::HeadMoved(None)));
    }
    assert!(rejected);
}

#[test]
fn a_refusal_of_what_is_no_longer_on_its_way_is_old_news() {
    let mut phone = Phone::in_sync();
    phone.push(1, 3);
    phone.refuse(1, Refusal::UnknownHead);
    phone.outbox(Vec::new());
    let space = phone.space();
    for _ in 0..5 {
        assert!(phone.refuse(2, Refusal::UnknownHead).is_empty());
        let whole = Refused { space, what: RefusedWhat::Space, reason: Refusal::Role };
        assert!(phone.frame(FromServer::Refused(whole)).is_empty());
        let entry = Refused { space, what: RefusedWhat::Entry(Hash::ZERO), reason: Refusal::Role };
        assert!(phone.frame(FromServer::Refused(entry)).is_empty());
    }
}

#[test]
fn one_space_that_must_wait_keeps_no_other_waiting() {
    let mut phone = Phone::in_sync();
    phone.push(1, 1);
    let day_ms = 86_400_000;
    let out = phone.refuse(1, Refusal::Quota(day_ms));
    let (_, blocked) = gathers(&out).unwrap();
    assert_eq!(*blocked, [(phone.space(), Some((STREAM, phone.patient.phone.id())))].into());
    phone.outbox(Vec::new());
    assert!(!phone.client.is_in_sync());
    // Whatever else there is goes at once.
    assert!(gathers(&phone.input(Input::LocalChange)).is_some());
    let mut elsewhere = phone.envelopes(1, 1);
    let Outgoing::Envelopes { stream, .. } = &mut elsewhere else { panic!("envelopes") };
    *stream = OTHER;
    assert_eq!(sent(&phone.outbox(vec![elsewhere])).len(), 1);
    phone.frame(phone.acked(&[(1, 0)]));
}

#[test]
fn what_must_wait_is_tried_again_when_the_time_has_come() {
    let mut phone = Phone::in_sync();
    phone.push(1, 1);
    phone.refuse(1, Refusal::Unavailable);
    phone.outbox(Vec::new());
    assert!(gathers(&phone.wait(UNAVAILABLE_MS - 1)).is_none());
    let out = phone.wait(1);
    assert!(gathers(&out).unwrap().1.is_empty());
    phone.outbox(Vec::new());
    assert!(phone.client.is_in_sync());
}

#[test]
fn entries_that_could_not_be_stored_wait_too() {
    let mut phone = Phone::in_sync();
    phone.patient.rotate(2);
    let entry = phone.patient.entries[1].clone();
    phone.input(Input::LocalChange);
    phone.outbox(vec![Outgoing::Roster(phone.space(), vec![entry.clone()])]);
    let out = phone.refuse_entry(&entry, Refusal::Unavailable);
    assert_eq!(*gathers(&out).unwrap().1, [(phone.space(), None)].into());
    phone.outbox(Vec::new());
    assert!(gathers(&phone.wait(UNAVAILABLE_MS - 1)).is_none(), "no hot loop");
}

#[test]
fn what_is_rejected_is_never_called_in_sync_and_a_new_roster_may_change_it() {
    let mut phone = Phone::in_sync();
    phone.push(1, 1);
    phone.refuse(1, Refusal::Role);
    phone.outbox(Vec::new());
    assert!(!phone.client.is_in_sync());
    phone.input(Input::LocalChange);
    let out = phone.outbox(Vec::new());
    assert!(!reports(&out).contains(&Report::InSync));
    let frame = RosterFrame { space: phone.space(), entries: Vec::new() };
    let out = phone.frame(FromServer::Roster(frame));
    assert!(gathers(&out).unwrap().1.is_empty());
    let out = phone.outbox(Vec::new());
    assert_eq!(reports(&out), [Report::InSync]);
}

#[test]
fn a_sync_that_meets_a_rejection_ends_and_says_so() {
    let mut phone = Phone::new();
    phone.input(Input::SyncUntil(phone.now.plus(25_000)));
    phone.greet();
    phone.outbox(vec![phone.envelopes(1, 1)]);
    phone.frame(welcome(EXPORTER, 0));
    phone.outbox(Vec::new());
    phone.frame(FromServer::CaughtUp(Vec::new()));
    phone.outbox(Vec::new());
    phone.refuse(1, Refusal::Role);
    let out = phone.outbox(Vec::new());
    let space = phone.space();
    assert_eq!(reports(&out), [Report::Rejected(space, Refusal::Role), Report::Waiting(None)]);
    assert!(hangs_up(&out));
}

// Time.

#[test]
fn a_change_after_a_long_silence_does_not_break_the_link() {
    let mut phone = Phone::in_sync();
    assert!(phone.wait(wire::PING_MS - 1).is_empty());
    phone.push(1, 1);
    let out = phone.wait(wire::ANSWER_MS_MAX - 1);
    assert!(!hangs_up(&out), "the server has had no time to answer: {out:?}");
    assert!(hangs_up(&phone.wait(100)));
}

#[test]
fn a_device_that_keeps_talking_still_notices_that_nobody_answers() {
    let mut phone = Phone::in_sync();
    for seq in 1..=3 {
        phone.push(seq, seq);
        assert!(!hangs_up(&phone.wait(5_000 - 1)));
    }
    assert!(hangs_up(&phone.wait(1_000)));
}

#[test]
fn silence_is_met_with_a_ping_and_more_silence_with_another_link() {
    let mut phone = Phone::in_sync();
    let out = phone.wait(wire::PING_MS);
    assert!(matches!(sent(&out)[..], [FromDevice::Ping(_)]));
    assert!(phone.client.is_in_sync());
    phone.frame(FromServer::Pong(0));
    assert!(matches!(sent(&phone.wait(wire::PING_MS))[..], [FromDevice::Ping(_)]));
    let out = phone.wait(wire::ANSWER_MS_MAX);
    assert!(hangs_up(&out) && connects(&out));
}

#[test]
fn a_long_download_is_no_silence_of_the_device() {
    let mut phone = Phone::new();
    phone.input(Input::Stay);
    phone.greet();
    phone.outbox(Vec::new());
    phone.frame(welcome(EXPORTER, 0));
    phone.outbox(Vec::new());
    let mut silent_ms = 0;
    for n in 0..200 {
        phone.frame(phone.entries(n + 1, 1));
        phone.kept(n + 1);
        let out = phone.wait(1_000);
        assert!(!hangs_up(&out));
        silent_ms = if sent(&out).is_empty() { silent_ms + 1_000 } else { 0 };
        assert!(silent_ms < wire::IDLE_MS_MAX, "the server takes it for dead");
    }
}

#[test]
fn much_on_a_slow_link_is_given_time() {
    let mut phone = Phone::in_sync();
    phone.input(Input::LocalChange);
    let mut item = phone.envelopes(1, 1);
    let Outgoing::Envelopes { envelopes, .. } = &mut item else { panic!("envelopes") };
    envelopes[0].bytes = vec![0; 512 << 10];
    phone.outbox(vec![item]);
    // Some 10 KiB a second: half a minute's worth of network for one frame.
    assert!(!hangs_up(&phone.wait(50_000)));
    assert!(hangs_up(&phone.wait(50_000)), "but not for ever");
}

#[test]
fn a_connection_attempt_times_out() {
    let mut phone = Phone::new();
    phone.input(Input::Stay);
    assert!(phone.wait(CONNECT_MS_MAX - 1).is_empty());
    let out = phone.wait(1);
    assert!(hangs_up(&out) && connects(&out), "the first failure is tried again at once");
}

#[test]
fn failures_are_tried_again_ever_more_slowly_up_to_a_minute() {
    let mut phone = Phone::new();
    phone.input(Input::Stay);
    let mut pauses = Vec::new();
    for _ in 0..14 {
        phone.input(Input::Closed);
        let from = phone.now;
        phone.now = phone.client.deadline().unwrap();
        pauses.push(phone.now.since(from));
        assert!(connects(&phone.input(Input::Tick)));
    }
    assert_eq!(pauses[0], 0);
    assert!((250..=500).contains(&pauses[1]) && (500..=1000).contains(&pauses[2]), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= BACK_OFF_MS_MAX));
    assert!(pauses[13] >= BACK_OFF_MS_MAX / 2);
}

#[test]
fn a_link_that_breaks_as_soon_as_it_is_in_sync_is_no_good_one() {
    let mut phone = Phone::in_sync();
    let mut last = 0;
    for n in 0..6 {
        phone.frame(FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms: 1 }));
        let from = phone.now;
        phone.now = phone.client.deadline().unwrap();
        let pause = phone.now.since(from);
        assert!(n == 0 || pause > last, "pause {n}: {pause} after {last}");
        last = pause;
        phone.input(Input::Tick);
        phone.arrive();
    }
    phone.wait(STEADY_MS);
    phone.input(Input::Closed);
    assert_eq!(phone.client.deadline(), Some(phone.now), "this one was");
}

#[test]
fn a_server_says_how_long_it_wants_to_be_left_alone() {
    let pause = |retry_ms| {
        let mut phone = Phone::in_sync();
        phone.frame(FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms }));
        phone.client.deadline().unwrap().since(phone.now)
    };
    assert_eq!(pause(0), 0);
    assert!((8_000..=10_000).contains(&pause(8_000)));
    assert!((BYE_MS_MAX..=BYE_MS_MAX / 4 * 5).contains(&pause(u32::MAX)), "not for ever");
    let mut phone = Phone::new();
    phone.input(Input::Stay);
    phone.greet();
    phone.frame(welcome(EXPORTER, 3_000));
    phone.input(Input::Closed);
    phone.wait(0);
    phone.input(Input::Closed);
    assert_eq!(phone.client.deadline().unwrap().since(phone.now), 3_000);
}

#[test]
fn another_way_is_tried_at_once_and_pauses_grow_all_the_same() {
    let mut phone = Phone::new();
    assert!(phone.input(Input::OtherWay).is_empty(), "nobody wants to connect");
    phone.input(Input::Stay);
    let mut last = 0;
    for _ in 0..5 {
        phone.input(Input::Closed);
        assert!(connects(&phone.input(Input::OtherWay)));
        phone.input(Input::Closed);
        let pause = phone.client.deadline().unwrap().since(phone.now);
        assert!(pause > last, "{pause} after {last}");
        last = pause;
        phone.wait(pause);
    }
    assert!(phone.input(Input::OtherWay).is_empty(), "one attempt at a time");
}

#[test]
fn another_network_is_tried_at_once() {
    let mut phone = Phone::new();
    phone.input(Input::Stay);
    let out = phone.input(Input::NetworkChanged);
    assert!(hangs_up(&out), "the attempt over the old one is given up");
    assert!(connects(&phone.wait(0)));
    phone.arrive();
    assert!(hangs_up(&phone.input(Input::NetworkChanged)));
    assert!(connects(&phone.wait(0)));
    phone.input(Input::Closed);
    assert!(!connects(&phone.input(Input::NetworkChanged)) || phone.client.deadline().is_some());
    let mut idle = Phone::new();
    assert!(idle.input(Input::NetworkChanged).is_empty(), "nobody wants a connection");
}

#[test]
fn a_sync_ends_at_its_deadline_and_the_longest_of_several_counts() {
    let mut phone = Phone::new();
    phone.input(Input::SyncUntil(phone.now.plus(5_000)));
    phone.input(Input::SyncUntil(phone.now.plus(1_000)));
    assert!(reports(&phone.wait(4_999)).is_empty());
    let out = phone.wait(1);
    assert_eq!(reports(&out), [Report::OutOfTime, Report::Waiting(None)]);
    assert!(hangs_up(&out) && phone.client.deadline().is_none());
}

#[test]
fn leaving_ends_everything() {
    let mut phone = Phone::in_sync();
    assert!(hangs_up(&phone.input(Input::Leave)));
    assert_eq!(phone.client.deadline(), None);
    assert!(phone.wait(1_000_000).is_empty());
}

// A server that forgot.

#[test]
fn who_is_asked_to_introduce_himself_anew_does_so_soon() {
    let mut phone = Phone::in_sync();
    let space = phone.space();
    for n in 0..8 {
        let out = match n % 2 {
            0 => phone.frame(FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms: 0 })),
            // What it wrote itself and no longer holds must come in full.
            _ => phone.input(Input::Kept(space, None)),
        };
        assert!(hangs_up(&out));
        let pause_ms = phone.client.deadline().unwrap().since(phone.now);
        assert!(pause_ms <= BACK_OFF_MS_MIN, "the server was reached: {pause_ms} ms");
        phone.wait(BACK_OFF_MS_MIN);
        phone.arrive_again();
    }
}

#[test]
fn a_member_is_told_apart_from_the_owner() {
    // A clinic admitted while the phone is connected: its roster comes, and what it may do is looked at anew.
    let mut phone = Phone::in_sync();
    phone.patient.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    let entries = phone.patient.entries[1..].to_vec();
    let out = phone.frame(FromServer::Roster(RosterFrame { space: phone.space(), entries }));
    assert!(matches!(out[..], [Output::KeepRoster(_), Output::Gather { .. }]), "{out:?}");
}
