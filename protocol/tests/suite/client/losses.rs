//! A server that lost data: what is shown, and what is made of a refusal of what is given back.

use super::*;

#[test]
fn evidence_that_does_not_convince_is_not_shown_for_ever() {
    let mut phone = Phone::in_sync();
    let space = phone.space();
    let away = |reason| FromServer::Bye(Bye { reason, retry_ms: 0 });
    let begins_anew =
        |out: &[Output]| out.iter().any(|output| matches!(output, Output::BeginAnew(of) if *of == space));
    assert!(!begins_anew(&phone.frame(away(Refusal::Malformed))), "nothing was asked");

    let mut phone = Phone::in_sync();
    phone.frame(FromServer::NeedEvidence(NeedEvidence { space, samples: Vec::new() }));
    phone.show(space);
    assert!(begins_anew(&phone.frame(away(Refusal::Malformed))));
}

/// Which of several spaces did not convince the server is not known: they are shown one by one then.
#[test]
fn no_space_is_begun_anew_for_anothers_evidence() {
    let mut phone = Phone::in_sync();
    let spaces = [phone.space(), SpaceId([9; 16])];
    let anew = |out: &[Output]| {
        let anew = out.iter().filter_map(|output| match output {
            Output::BeginAnew(space) => Some(*space),
            _ => None,
        });
        Vec::from_iter(anew)
    };
    let asked = |phone: &mut Phone| {
        spaces.map(|space| {
            let need = NeedEvidence { space, samples: Vec::new() };
            let out = phone.frame(FromServer::NeedEvidence(need));
            matches!(out[..], [Output::Recall(_)])
        })
    };
    let malformed = || FromServer::Bye(Bye { reason: Refusal::Malformed, retry_ms: 0 });
    let again = |phone: &mut Phone| {
        phone.wait(BACK_OFF_MS_MIN);
        phone.greet();
        phone.outbox(Vec::new());
        phone.frame(welcome(EXPORTER, 0));
        phone.outbox(Vec::new());
    };
    assert_eq!(asked(&mut phone), [true, true]);
    spaces.iter().for_each(|space| phone.show(*space));
    assert_eq!(anew(&phone.frame(malformed())), []);
    again(&mut phone);
    assert_eq!(asked(&mut phone), [true, false]);
    phone.show(spaces[0]);
    assert_eq!(anew(&phone.frame(malformed())), spaces[..1]);
    again(&mut phone);
    let other = NeedEvidence { space: spaces[1], samples: Vec::new() };
    assert!(matches!(phone.frame(FromServer::NeedEvidence(other))[..], [Output::Recall(_)]));
    phone.show(spaces[1]);
    assert_eq!(anew(&phone.frame(malformed())), spaces[1..]);
    // Once in sync, all that is asked for is shown again.
    phone.wait(BACK_OFF_MS_MIN);
    phone.arrive_again();
    assert_eq!(asked(&mut phone), [true, true]);
}

#[test]
fn what_a_server_has_that_asks_what_it_had_is_no_evidence() {
    for asks in [false, true] {
        let mut phone = Phone::in_sync();
        if asks {
            phone.frame(FromServer::NeedEvidence(NeedEvidence { space: phone.space(), samples: Vec::new() }));
        }
        phone.push(1, 1);
        let out = phone.frame(phone.acked(&[(1, 1)]));
        let kept = out.iter().find_map(|output| match output {
            Output::KeepAcked { is_evidence, .. } => Some(*is_evidence),
            _ => None,
        });
        assert_eq!(kept, Some(!asks));
    }
}

/// And what is not, does not go out again in this connection.
#[test]
fn a_refused_refill_goes_out_as_new_if_it_is_ones_own_and_the_server_knows_of_no_loss() {
    let (own, other) = (Phone::new().patient.phone.id(), Device::new(3).id());
    for (author, reason, is_asked, as_new, is_rejected) in [
        (own, Refusal::Role, false, true, false),
        (own, Refusal::Role, true, false, false),
        (other, Refusal::Role, false, false, false),
        (other, Refusal::Malformed, false, false, false),
        // Nobody else can give what it lacks, and it is not where it should be.
        (own, Refusal::Malformed, false, false, true),
        (own, Refusal::Fork, false, false, true),
        (own, Refusal::Malformed, true, false, false),
        (own, Refusal::Gap(Seq(1)), false, false, false),
    ] {
        let mut phone = Phone::in_sync();
        if is_asked {
            // It is about to learn of the loss, and takes no refill before.
            phone.frame(FromServer::NeedEvidence(NeedEvidence { space: phone.space(), samples: Vec::new() }));
        }
        let Outgoing::Envelopes { space, stream, mut envelopes, .. } = phone.envelopes(1, 3) else {
            unreachable!()
        };
        envelopes.iter_mut().for_each(|envelope| envelope.author = author);
        phone.input(Input::LocalChange);
        // The last of them is new, and ends with what it stands on.
        let new = envelopes.split_off(2);
        phone.outbox(vec![
            Outgoing::Envelopes { space, stream, envelopes, refill: true },
            Outgoing::Envelopes { space, stream, envelopes: new, refill: false },
        ]);
        let what = RefusedWhat::Envelope { stream, author, seq: Seq(2) };
        let mut out = phone.frame(FromServer::Refused(Refused { space, what, reason }));
        out.extend(phone.input(Input::LocalChange));
        let rewound = out.iter().any(|output| matches!(output, Output::SendAsNew(_, _, Seq(2))));
        let rejected = Vec::from_iter(is_rejected.then_some(Report::Rejected(space, reason)));
        assert_eq!((rewound, reports(&out)), (as_new, rejected), "{author} {reason:?}: {out:?}");
        let (kept_back, blocked) = gathers(&out).unwrap();
        assert_eq!(kept_back.len(), if as_new { 1 } else { 3 }, "{author} {reason:?}: {out:?}");
        assert_eq!(
            blocked.contains(&(space, Some((stream, author)))),
            is_rejected,
            "{author} {reason:?}: {out:?}"
        );
        let looks = out.iter().filter(|output| matches!(output, Output::Gather { .. })).count();
        (0..looks).for_each(|_| drop(phone.outbox(Vec::new())));
        phone.frame(phone.acked(&[(1, 1)]));
        phone.kept(1);
        assert_eq!(phone.client.is_in_sync(), !is_rejected, "{author} {reason:?}");
    }
}

#[test]
fn evidence_is_given_to_whoever_asked() {
    let mut phone = Phone::in_sync();
    let need = NeedEvidence { space: phone.space(), samples: Vec::new() };
    assert!(matches!(phone.frame(FromServer::NeedEvidence(need))[..], [Output::Recall(_)]));
    let heads = Heads { space: phone.space(), log_id: LOG, heads: Vec::new() };
    let heads = vec![SignedHeads::sign(&heads, |message| heads_key().sign(message))];
    let evidence = Evidence { space: phone.space(), heads, common: Vec::new() };
    let out = phone.input(Input::Evidence(evidence.clone()));
    assert!(matches!(sent(&out)[..], [FromDevice::Evidence(_)]));
    assert!(phone.input(Input::Evidence(evidence)).is_empty(), "once");
}

#[test]
fn who_has_no_evidence_meets_the_server_anew_and_soon() {
    let mut phone = Phone::in_sync();
    let need = NeedEvidence { space: phone.space(), samples: Vec::new() };
    for _ in 0..8 {
        phone.frame(FromServer::NeedEvidence(need.clone()));
        let none = Evidence { space: phone.space(), heads: Vec::new(), common: Vec::new() };
        let out = phone.input(Input::Evidence(none));
        assert!(hangs_up(&out) && sent(&out).is_empty());
        let pause_ms = phone.client.deadline().unwrap().since(phone.now);
        assert!(pause_ms <= BACK_OFF_MS_MIN, "a log that begins anew is no failure: {pause_ms} ms");
        phone.wait(BACK_OFF_MS_MIN);
        phone.arrive_again();
    }
}
