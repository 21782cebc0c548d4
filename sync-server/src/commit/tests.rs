use ebb_protocol::{
    id::{Epoch, Position},
    session::Appended,
    wire::{AckedEnvelope, Heads},
};
use proptest::prelude::*;

use super::*;
use crate::{
    log::{Log, memory::MemoryLog, open},
    testing::{Device, OTHER_STREAM, Patient, STREAM, TestMeans, head_after},
};

/// A committer over a log in memory, with every commit done by hand.
struct Bench {
    log: MemoryLog,
    committer: Committer<usize>,
    means: TestMeans,
    now: Millis,
}

impl Bench {
    fn new() -> Self {
        Self::over(MemoryLog::new())
    }

    fn over(log: MemoryLog) -> Self {
        let committer = Committer::new(Arc::default(), Allowance::default());
        Self { log, committer, means: TestMeans::new(), now: Millis(1) }
    }

    fn offer(&mut self, from: usize, space: SpaceId, offer: Offer) {
        assert!(self.committer.offer(from, space, offer).is_none(), "the queue has room");
    }

    fn push(&mut self, from: usize, patient: &Patient, envelopes: &[Verified<Envelope>]) {
        let envelopes = envelopes.to_vec();
        self.offer(from, patient.space, Offer::Envelopes { stream: STREAM, envelopes, refill: false });
    }

    fn found(&mut self, patient: &Patient) {
        self.offer(0, patient.space, Offer::Roster(patient.verified_entries()));
        self.commit();
    }

    /// One group, from judging to telling.
    fn commit(&mut self) -> Vec<Effect<usize>> {
        let group = self.committer.next_group(&self.log, self.now, &mut self.means);
        let result = if group.is_empty() { Ok(Vec::new()) } else { self.log.commit(&group) };
        self.committer.done(&self.log, result)
    }
}

fn outcomes(effects: &[Effect<usize>], to: usize) -> Vec<Appended> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply(who, Answer::Input(Input::Committed { outcomes, .. })) if *who == to => {
                Some(outcomes)
            }
            _ => None,
        })
        .flatten()
        .copied()
        .collect()
}

fn positions(outcomes: &[Appended]) -> Vec<u64> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Appended::At(AckedEnvelope { position, .. }) => position.0,
            refused @ Appended::Refused(..) => panic!("{refused:?}"),
        })
        .collect()
}

fn refusals(outcomes: &[Appended]) -> Vec<Refusal> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Appended::Refused(_, _, reason) => *reason,
            taken @ Appended::At(_) => panic!("{taken:?}"),
        })
        .collect()
}

fn notices(effects: &[Effect<usize>]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Notice(..))).count()
}

#[test]
fn a_space_and_its_first_envelopes_go_in_one_group() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    let envelopes = patient.write_many(3);
    bench.offer(1, patient.space, Offer::Roster(patient.verified_entries()));
    bench.push(2, &patient, &envelopes);
    let effects = bench.commit();
    assert_eq!(positions(&outcomes(&effects, 2)), [1, 2, 3]);
    let log_id = bench.log.log_id(&patient.space).unwrap().unwrap();
    // The founder hears of the log before he hears that it grew.
    let [
        Effect::Reply(1, Answer::Input(Input::RosterCommitted { state: Some((told, _)), refused: None, .. })),
        Effect::Notice(_, Notice::RosterGrew { .. }),
        Effect::Notice(_, Notice::Grew(grew_log, head)),
        Effect::Reply(2, Answer::Input(Input::Committed { head: Some(attested), .. })),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((*told, *grew_log), (log_id, log_id));
    assert_eq!(*head, head_after(patient.space, STREAM, &envelopes));
    assert_eq!(*attested, (log_id, *head));
    assert!(bench.committer.is_idle());
}

#[test]
fn nobody_hears_of_a_group_that_failed_and_the_next_succeeds() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let envelopes = patient.write_many(3);
    bench.log.fail(|faults| faults.commits = Some((1, LogError::Full)));
    bench.push(1, &patient, &envelopes);
    let effects = bench.commit();
    assert_eq!(refusals(&outcomes(&effects, 1)), [Refusal::Unavailable; 3]);
    assert_eq!(notices(&effects), 0);
    bench.push(1, &patient, &envelopes);
    assert_eq!(positions(&outcomes(&bench.commit(), 1)), [1, 2, 3]);
}

#[test]
fn one_space_fails_alone() {
    let mut bench = Bench::new();
    let (mut good, mut bad) = (Patient::new(1), Patient::new(2));
    bench.found(&good);
    bench.found(&bad);
    bench.log.fail(|faults| faults.spaces = [bad.space].into());
    let (fine, lost) = (good.write_many(2), bad.write_many(2));
    bench.push(1, &good, &fine);
    bench.push(2, &bad, &lost);
    let rotation = bad.rotate();
    bench.offer(3, bad.space, Offer::Roster(vec![rotation.clone()]));
    let effects = bench.commit();
    assert_eq!(positions(&outcomes(&effects, 1)), [1, 2]);
    assert_eq!(refusals(&outcomes(&effects, 2)), [Refusal::Unavailable; 2]);
    let Some(Effect::Reply(3, Answer::Input(Input::RosterCommitted { state, refused, .. }))) =
        effects.iter().find(|effect| matches!(effect, Effect::Reply(3, _)))
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*refused, Some((rotation.hash(), Refusal::Unavailable)));
    assert_eq!(state.as_ref().unwrap().1.next_seq().0, 1, "the roster as it stands, without the rotation");
}

#[test]
fn what_cannot_be_read_is_refused_and_read_again_later() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let envelopes = patient.write_many(1);
    bench.log.fail(|faults| faults.reads = true);
    let mut fresh = Bench::over(bench.log.clone());
    fresh.push(1, &patient, &envelopes);
    fresh.offer(2, patient.space, Offer::Roster(patient.verified_entries()));
    let effects = fresh.commit();
    assert_eq!(refusals(&outcomes(&effects, 1)), [Refusal::Unavailable]);
    assert!(matches!(effects[1], Effect::Reply(2, Answer::Unavailable)));
    fresh.log.fail(|faults| faults.reads = false);
    fresh.push(1, &patient, &envelopes);
    assert_eq!(positions(&outcomes(&fresh.commit(), 1)), [1]);
}

#[test]
fn rosters_are_compared_and_swapped() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let mut other_phone = patient.clone();
    let (mine, theirs) = (patient.rotate(), other_phone.open(OTHER_STREAM));
    let founding = patient.roster.hash_at(mine.entry().seq).map(|_| mine.entry().prev);
    bench.offer(1, patient.space, Offer::Roster(vec![mine.clone()]));
    bench.offer(2, patient.space, Offer::Roster(vec![theirs.clone()]));
    bench.offer(1, patient.space, Offer::Roster(vec![mine]));
    let effects = bench.commit();
    let refused = |effect: &Effect<usize>| match effect {
        Effect::Reply(_, Answer::Input(Input::RosterCommitted { refused, .. })) => Some(*refused),
        _ => None,
    };
    let told: Vec<_> = effects.iter().filter_map(refused).collect();
    let [None, Some((hash, Refusal::HeadMoved(Some(common)))), None] = told[..] else { panic!("{told:?}") };
    assert_eq!((hash, Some(common.hash)), (theirs.hash(), founding));
    assert_eq!(notices(&effects), 1, "what is known already is acknowledged again and told to nobody");
}

#[test]
fn chains_have_no_gaps_no_forks_and_no_strangers() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let before = patient.device.clone();
    let envelopes = patient.write_many(3);
    bench.push(1, &patient, &envelopes[2..]);
    assert_eq!(refusals(&outcomes(&bench.commit(), 1)), [Refusal::Gap(Seq(1))]);
    bench.push(1, &patient, &envelopes[..1]);
    bench.push(2, &patient, &envelopes[2..]);
    let effects = bench.commit();
    assert_eq!(positions(&outcomes(&effects, 1)), [1]);
    assert_eq!(refusals(&outcomes(&effects, 2)), [Refusal::Gap(Seq(2))]);
    let fork = before.write_changed(&patient.roster, STREAM, |header| header.salt = [8; 16]);
    bench.push(1, &patient, &[before.verified(fork)]);
    assert_eq!(refusals(&outcomes(&bench.commit(), 1)), [Refusal::Fork]);
    let stranger = Device::new(9);
    let forged = stranger.write_changed(&patient.roster, STREAM, |_| {});
    bench.push(1, &patient, &[stranger.verified(forged)]);
    assert_eq!(refusals(&outcomes(&bench.commit(), 1)), [Refusal::Role]);
    let elsewhere = before.write_changed(&patient.roster, OTHER_STREAM, |_| {});
    bench.push(1, &patient, &[before.verified(elsewhere)]);
    assert_eq!(refusals(&outcomes(&bench.commit(), 1)), [Refusal::Role]);
}

#[test]
fn a_rotation_stales_what_waits_behind_it_and_reseals_stand_beside() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let sealed_before = patient.write_many(2);
    bench.push(1, &patient, &sealed_before[..1]);
    bench.commit();
    let device = patient.device.clone();
    let rotation = patient.rotate();
    bench.offer(2, patient.space, Offer::Roster(vec![rotation]));
    bench.push(1, &patient, &sealed_before);
    let outcomes_before = outcomes(&bench.commit(), 1);
    assert_eq!(positions(&outcomes_before[..1]), [1], "what stands is acknowledged at any epoch");
    assert_eq!(refusals(&outcomes_before[1..]), [Refusal::StaleEpoch]);
    let prev = sealed_before[0].hash();
    let resealed = device.write_changed(&patient.roster, STREAM, |header| {
        (header.seq, header.prev) = (Seq(2), prev);
    });
    assert_eq!(resealed.header().epoch, Epoch(2));
    bench.push(1, &patient, &[device.verified(resealed)]);
    assert_eq!(positions(&outcomes(&bench.commit(), 1)), [2]);
}

#[test]
fn a_flooded_space_waits_and_others_do_not() {
    let mut bench = Bench::new();
    let (mut flooding, mut other) = (Patient::new(1), Patient::new(2));
    bench.found(&flooding);
    bench.found(&other);
    let big: Vec<_> = (0..4).map(|_| flooding.write(250_000)).collect();
    let mut taken = 0;
    let quota = loop {
        let envelopes = big.clone();
        let offer = Offer::Envelopes { stream: STREAM, envelopes, refill: false };
        match bench.committer.offer(1, flooding.space, offer) {
            None => taken += 1,
            Some(Effect::Reply(1, Answer::Input(Input::Committed { outcomes, .. }))) => break outcomes,
            Some(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(refusals(&quota), [Refusal::Quota(QUEUE_RETRY_MS); 4]);
    assert_eq!(taken, SPACE_QUEUE_BYTES_MAX / 1_002_000);
    let envelopes = other.write_many(1);
    bench.push(2, &other, &envelopes);
    let effects = bench.commit();
    assert_eq!(positions(&outcomes(&effects, 2)), [1], "in the very next group");
    assert!(!bench.committer.is_idle());
    while !bench.committer.is_idle() {
        bench.commit();
    }
    assert_eq!(bench.log.head(&flooding.space, &STREAM).unwrap().position, Position(4));
}

#[test]
fn a_device_that_writes_too_much_waits() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let envelopes = patient.write_many(1_002);
    bench.push(1, &patient, &envelopes);
    let told = outcomes(&bench.commit(), 1);
    assert_eq!(positions(&told[..1000]).last(), Some(&1000));
    assert_eq!(refusals(&told[1000..1001]), [Refusal::Quota(500)]);
    bench.now = bench.now.plus(1_000);
    bench.push(1, &patient, &envelopes[1000..]);
    assert_eq!(positions(&outcomes(&bench.commit(), 1)), [1001, 1002]);
}

/// What a server signed of a log, before it lost some of it.
fn evidence(bench: &Bench, patient: &Patient, log_id: LogId, head: Head) -> Vec<SignedHeads> {
    let heads = Heads { space: patient.space, log_id, heads: vec![head] };
    vec![SignedHeads::sign(&heads, |message| bench.means.key.sign(message))]
}

#[test]
fn a_restored_log_is_reborn_once_and_refilled() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let envelopes = patient.write_many(6);
    bench.push(1, &patient, &envelopes[..2]);
    bench.commit();
    let backup = bench.log.backup();
    bench.push(1, &patient, &envelopes[2..]);
    bench.commit();
    let old = bench.log.log_id(&patient.space).unwrap().unwrap();
    let signed = evidence(&bench, &patient, old, head_after(patient.space, STREAM, &envelopes));
    let common = vec![head_after(patient.space, STREAM, &envelopes[..2])];
    let refill = |bench: &mut Bench| {
        let envelopes = envelopes.clone();
        bench.offer(2, patient.space, Offer::Envelopes { stream: STREAM, envelopes, refill: true });
        outcomes(&bench.commit(), 2)
    };

    let bear = Offer::Bear { old, evidence: signed.clone(), common: common.clone() };
    bench.offer(3, patient.space, bear);
    let effects = bench.commit();
    assert!(
        matches!(effects[..], [Effect::Reply(3, Answer::Input(Input::Born(_, None)))]),
        "nothing is lost"
    );
    assert_eq!(refusals(&refill(&mut bench)), [Refusal::Role; 6], "nothing is to be refilled");

    let mut restored = Bench::over(backup);
    restored.means.log_id();
    let mut forged = common.clone();
    forged[0].chain = Hash([1; 32]);
    for common in [[common, forged].concat(), Vec::new()] {
        restored.offer(3, patient.space, Offer::Bear { old, evidence: signed.clone(), common });
    }
    let effects = restored.commit();
    let born: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply(3, Answer::Input(Input::Born(_, Some(born)))) => Some(born.content().unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(born.len(), 2);
    assert_eq!(born[0], born[1], "whoever comes second hears of the first birth");
    assert_eq!(notices(&effects), 1);
    assert_eq!(born[0].common, [head_after(patient.space, STREAM, &envelopes[..2])]);
    assert_eq!(restored.log.log_id(&patient.space), Ok(Some(born[0].new)));
    assert_eq!(restored.log.births(&patient.space).unwrap().len(), 1);
    assert_eq!(positions(&refill(&mut restored)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_space_that_is_gone_is_reborn_from_evidence() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    let envelopes = patient.write_many(1);
    let head = head_after(patient.space, STREAM, &envelopes);
    let signed = evidence(&bench, &patient, LogId([9; 16]), head);
    let bear = Offer::Bear { old: LogId([9; 16]), evidence: signed, common: Vec::new() };
    bench.offer(1, patient.space, bear);
    bench.offer(2, patient.space, Offer::Roster(patient.verified_entries()));
    let refill = Offer::Envelopes { stream: STREAM, envelopes: envelopes.clone(), refill: true };
    bench.offer(3, patient.space, refill);
    assert_eq!(positions(&outcomes(&bench.commit(), 3)), [1]);
    let opened = open(
        &bench.log,
        &Arc::default(),
        &patient.device.id(),
        &patient.device.tls.public(),
        &patient.hello(),
    )
    .unwrap()
    .unwrap();
    assert_eq!((opened.births.len(), opened.heads), (1, vec![head]));
}

/// A committer of a space that lost envelopes: its phone, the log that ended and the present one.
fn reborn(lost: usize) -> (Bench, Patient, Vec<Verified<Envelope>>, LogId) {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let backup = bench.log.backup();
    let old = bench.log.log_id(&patient.space).unwrap().unwrap();
    let envelopes = patient.write_many(lost);
    let head = head_after(patient.space, STREAM, &envelopes);
    let evidence = evidence(&bench, &patient, old, head);
    let mut restored = Bench::over(backup);
    restored.means.log_id();
    restored.offer(1, patient.space, Offer::Bear { old, evidence, common: Vec::new() });
    restored.commit();
    let present = restored.log.log_id(&patient.space).unwrap().unwrap();
    assert_ne!(old, present);
    (restored, patient, envelopes, present)
}

fn refill(bench: &mut Bench, patient: &Patient, envelopes: &[Verified<Envelope>]) -> Vec<Appended> {
    let envelopes = envelopes.to_vec();
    bench.offer(2, patient.space, Offer::Envelopes { stream: STREAM, envelopes, refill: true });
    outcomes(&bench.commit(), 2)
}

#[test]
fn what_was_written_after_a_loss_is_no_refill() {
    let (mut bench, patient, lost, present) = reborn(2);
    let device = patient.device.clone();
    let next = |log_id: LogId, seq: u64, prev: Hash| {
        device.verified(device.write_changed(&patient.roster, STREAM, |header| {
            (header.log_id, header.seq, header.prev) = (log_id, Seq(seq), prev);
        }))
    };
    assert_eq!(positions(&refill(&mut bench, &patient, &lost)), [1, 2]);
    let third = next(present, 3, lost[1].hash());
    assert_eq!(refusals(&refill(&mut bench, &patient, std::slice::from_ref(&third))), [Refusal::Role]);
    bench.push(1, &patient, std::slice::from_ref(&third));
    assert_eq!(positions(&outcomes(&bench.commit(), 1)), [3]);
    assert_eq!(
        positions(&refill(&mut bench, &patient, std::slice::from_ref(&third))),
        [3],
        "it stands there"
    );
    // Whoever has seen the present log has nothing older left to give of his own.
    for log_id in [LogId::ZERO, LogId([1; 16])] {
        let fourth = next(log_id, 4, third.hash());
        assert_eq!(refusals(&refill(&mut bench, &patient, &[fourth])), [Refusal::Role]);
    }
}

#[test]
fn refilling_has_an_allowance_of_its_own() {
    let allowance = Allowance { envelopes_per_minute: 60, envelopes_burst: 2, bytes_per_day: 0 };
    let (mut bench, mut patient, mut lost, _) = reborn(20);
    lost.extend(patient.write_many(3));
    bench.committer = Committer::new(Arc::default(), allowance);
    let told = refill(&mut bench, &patient, &lost[..21]);
    assert_eq!(positions(&told[..20]).last(), Some(&20), "ten times as much");
    assert_eq!(refusals(&told[20..]), [Refusal::Quota(100)]);
    bench.push(1, &patient, &lost[20..]);
    let told = outcomes(&bench.commit(), 1);
    assert_eq!(positions(&told[..2]), [21, 22], "and what is new has its own");
    assert_eq!(refusals(&told[2..]), [Refusal::Quota(1_000)]);
}

#[test]
fn a_birth_names_one_head_a_stream_and_one_common_place() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    patient.open(OTHER_STREAM);
    bench.found(&patient);
    let envelopes = patient.write_many(3);
    bench.push(1, &patient, &envelopes);
    bench.commit();
    let old = bench.log.log_id(&patient.space).unwrap().unwrap();
    let beyond = |stream, position| Head { stream, position: Position(position), chain: Hash([7; 32]) };
    let sign = |heads: Vec<Head>| {
        let heads = Heads { space: patient.space, log_id: old, heads };
        SignedHeads::sign(&heads, |message| bench.means.key.sign(message))
    };
    let stands = head_after(patient.space, STREAM, &envelopes);
    let first = sign(vec![beyond(STREAM, 9)]);
    let other = sign(vec![beyond(OTHER_STREAM, 1), stands]);
    let evidence =
        vec![sign(vec![stands]), first.clone(), sign(vec![beyond(STREAM, 10)]), other.clone(), first.clone()];
    let places = (0..=3).map(|upto| head_after(patient.space, STREAM, &envelopes[..upto]));
    let common = places.chain([beyond(STREAM, 4), beyond(OTHER_STREAM, 1)]).collect();
    bench.offer(1, patient.space, Offer::Bear { old, evidence, common });
    let effects = bench.commit();
    let Effect::Reply(1, Answer::Input(Input::Born(_, Some(born)))) = &effects[0] else {
        panic!("{effects:?}")
    };
    let born = born.content().unwrap();
    assert_eq!(born.evidence, [first, other], "what contradicts, once a stream");
    assert_eq!(born.common, [stands]);
}

fn roster_refusal(effects: &[Effect<usize>]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply(_, Answer::Input(Input::RosterCommitted { refused, .. })) => {
            Some(refused.map(|it| it.1))
        }
        _ => None,
    })?
}

#[test]
fn a_device_signs_so_many_entries_a_minute_and_a_roster_has_an_end() {
    let mut bench = Bench::new();
    let mut patient = Patient::new(1);
    bench.found(&patient);
    let mut entries: Vec<_> = (0..256).map(|_| patient.rotate()).collect();
    // One was taken with the founding.
    bench.offer(1, patient.space, Offer::Roster(entries.clone()));
    assert_eq!(roster_refusal(&bench.commit()), Some(Refusal::Quota(1_000)));
    bench.now = bench.now.plus(1_000);
    bench.offer(1, patient.space, Offer::Roster(entries.split_off(255)));
    assert_eq!(roster_refusal(&bench.commit()), None);
    while patient.roster.next_seq().0 < space::ENTRIES_MAX {
        bench.now = bench.now.plus(600_000);
        let left = space::ENTRIES_MAX - patient.roster.next_seq().0;
        let entries = (0..left.min(256)).map(|_| patient.rotate()).collect();
        bench.offer(1, patient.space, Offer::Roster(entries));
        assert_eq!(roster_refusal(&bench.commit()), None);
    }
    bench.now = bench.now.plus(600_000);
    let one_more = patient.rotate();
    bench.offer(1, patient.space, Offer::Roster(vec![one_more]));
    assert_eq!(roster_refusal(&bench.commit()), Some(Refusal::Role));
}

#[test]
fn so_many_spaces_are_founded_a_minute_and_others_go_on() {
    let mut bench = Bench::new();
    bench.committer = Committer::new(Arc::default(), Allowance::default()).with_foundings(2);
    let mut patients: Vec<_> = (1..=3).map(Patient::new).collect();
    let found = |bench: &mut Bench, patient: &Patient| {
        bench.offer(1, patient.space, Offer::Roster(patient.verified_entries()));
        roster_refusal(&bench.commit())
    };
    assert_eq!(found(&mut bench, &patients[0]), None);
    assert_eq!(found(&mut bench, &patients[1]), None);
    assert_eq!(found(&mut bench, &patients[2]), Some(Refusal::Quota(30_000)));
    assert_eq!(bench.log.log_id(&patients[2].space), Ok(None));
    let rotation = patients[0].rotate();
    bench.offer(1, patients[0].space, Offer::Roster(vec![rotation]));
    assert_eq!(roster_refusal(&bench.commit()), None, "a space that stands is none of it");
    bench.now = bench.now.plus(30_000);
    assert_eq!(found(&mut bench, &patients[2]), None);
}

#[test]
fn offers_weigh_what_it_took_to_send_them() {
    let mut patient = Patient::new(1);
    patient.sign_with_note(400_000);
    let entries = patient.verified_entries();
    let roster = Offer::Roster(entries.clone());
    assert!(roster.bytes() > 400_000, "{}", roster.bytes());
    let bench = Bench::new();
    let heads = vec![head_after(patient.space, STREAM, &[]); 1_000];
    let heads = Heads { space: patient.space, log_id: LogId([1; 16]), heads };
    let evidence = vec![SignedHeads::sign(&heads, |message| bench.means.key.sign(message))];
    let bear = Offer::Bear { old: LogId([1; 16]), evidence, common: Vec::new() };
    assert!(bear.bytes() > 40_000, "{}", bear.bytes());

    let mut bench = bench;
    let mut taken = 0;
    while bench.committer.offer(1, patient.space, Offer::Roster(entries.clone())).is_none() {
        taken += 1;
    }
    assert_eq!(taken, SPACE_QUEUE_BYTES_MAX / roster.bytes(), "a flood of rosters is sent away as well");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is pushed, in whatever pieces, again and again, with commits failing between: the log ends
    /// as one chain, and every acknowledgement ever given holds.
    #[test]
    fn appending_is_idempotent(
        pushes in proptest::collection::vec((0usize..12, 1usize..8, 0u8..10), 1..40),
    ) {
        let mut bench = Bench::new();
        let mut patient = Patient::new(1);
        bench.found(&patient);
        let envelopes = patient.write_many(12);
        let mut acked: BTreeMap<Hash, u64> = BTreeMap::new();
        let note = |acked: &mut BTreeMap<Hash, u64>, effects: &[Effect<usize>]| {
            for outcome in outcomes(effects, 1) {
                if let Appended::At(AckedEnvelope { hash, position }) = outcome {
                    assert_eq!(*acked.entry(hash).or_insert(position.0), position.0);
                }
            }
        };
        for (from, count, fate) in pushes {
            bench.push(1, &patient, &envelopes[from..(from + count).min(12)]);
            match fate {
                0 | 1 => bench.log.fail(|faults| faults.commits = Some((1, LogError::Full))),
                2 => bench.log.fail(|faults| faults.spaces = [patient.space].into()),
                // Left for the next group.
                3..=5 => continue,
                _ => {}
            }
            let effects = bench.commit();
            bench.log.fail(|faults| faults.spaces.clear());
            note(&mut acked, &effects);
        }
        bench.log.fail(|faults| faults.commits = None);
        bench.push(1, &patient, &envelopes);
        while !bench.committer.is_idle() {
            let effects = bench.commit();
            note(&mut acked, &effects);
        }
        for (place, envelope) in envelopes.iter().enumerate() {
            assert_eq!(acked.get(&envelope.hash()), Some(&(place as u64 + 1)));
        }
        assert_eq!(bench.log.head(&patient.space, &STREAM), Ok(head_after(patient.space, STREAM, &envelopes)));
    }
}
