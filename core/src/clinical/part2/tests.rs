use ebb_protocol::verify::sha256;
use jiff::civil::date;

use super::*;

const CONSENT: RecordId = RecordId::from_bytes([1; 16]);
const REQUEST: RecordId = RecordId::from_bytes([2; 16]);
const CLINIC: Recipient<'_> = Recipient { name: "Northside Clinic", is_health_plan: false };
const PLAN: Recipient<'_> = Recipient { name: "Acme Health", is_health_plan: true };

fn consent() -> Consent {
    let shared = [Category::Symptoms, Category::Medication];
    Consent::signed("Ann Lee", date(2024, 3, 4), shared, [Purpose::Treatment])
        .discloser("Harbor Programme")
        .description("how I feel, and what I take")
        .recipient(CLINIC.name)
        .told_of_revocation()
        .expires(date(2024, 12, 31))
}

/// Noon in New York.
fn on(day: Date) -> Moment {
    let noon = jiff::tz::Offset::constant(-5).to_timestamp(day.at(12, 0, 0, 0)).unwrap();
    Moment { millis: noon.as_millisecond(), offset_minutes: -300 }
}

fn summer() -> Moment {
    on(date(2024, 7, 1))
}

#[test]
fn the_statements_are_those_of_2024_word_for_word() {
    // Counted and hashed by other tools over the text that two codifications agree on.
    for (notice, characters, digest) in [
        (Notice::Full, 1_325, "d82205a18044f9f45776343d91e26d8ddb44bf13e136af169ec73d755facd9a8"),
        (Notice::Short, 72, "79fee3d6dff7e052183c61b66bfed589f0f45dcf330bb277e07b396bd12e9774"),
    ] {
        assert_eq!(notice.text().chars().count(), characters);
        let hash = sha256(&[notice.text().as_bytes()]).0;
        assert_eq!(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), digest);
    }
}

#[test]
fn nothing_of_the_older_statements_is_left() {
    for notice in Notice::ALL {
        let text = notice.text().to_lowercase();
        for old in [
            "this information has been disclosed to you",
            "from records protected by federal confidentiality rules",
            "criminally investigate or prosecute",
            "restrict any use of the information",
            "prohibits unauthorized disclosure of these records",
            "further disclosure of information in this record",
        ] {
            assert!(!text.contains(old), "{old}");
        }
    }
}

#[test]
fn all_but_private_is_protected() {
    for category in Category::ALL {
        let found = label(category, &Kind::Note);
        assert_eq!(found.part2, category != Category::Private);
        assert_eq!(found.codes().len(), if found.part2 { 3 } else { 0 });
        assert!(!found.counselling_note && !found.third_party);
    }
    assert!(label(Category::Profile, &Kind::Contact).third_party);
    assert!(label(Category::Emergency, &Kind::EmergencyCard).third_party);
    let codes: Vec<_> = Label::COUNSELLING_NOTE.codes().iter().map(|code| code.code).collect();
    assert_eq!(codes, ["ETH", "RedisclosureProhibitionMark", "R"]);
}

#[test]
fn a_consent_holds_from_its_signature_to_its_last_day() {
    for (day, expected) in [
        (date(2024, 3, 3), Validity::NotYetSigned),
        (date(2024, 3, 4), Validity::Valid),
        (date(2024, 12, 31), Validity::Valid),
        (date(2025, 1, 1), Validity::Expired { on: date(2024, 12, 31) }),
    ] {
        assert_eq!(validity(&consent(), on(day)), expected, "{day}");
    }
    // In New York it is still the last day.
    let late = Moment { millis: on(date(2024, 12, 31)).millis + 11 * 3_600_000, offset_minutes: -300 };
    assert_eq!(validity(&consent(), late), Validity::Valid);
}

#[test]
fn a_revocation_ends_it_at_once_and_leaves_what_was() {
    let at = summer();
    let revoked = consent().revoked_ms(at.millis);
    assert_eq!(validity(&revoked, at), Validity::Revoked { at_ms: at.millis });
    let before = Moment { millis: at.millis - 1, ..at };
    assert!(permits(&revoked, Category::Symptoms, Purpose::Treatment, before));
    assert!(!permits(&revoked, Category::Symptoms, Purpose::Treatment, at));
}

#[test]
fn each_element_is_needed() {
    let legal = vec![Purpose::Legal, Purpose::Treatment];
    let none = Some("None".to_owned());
    for (lacking, consent) in [
        (Deficiency::Patient, Consent { patient: String::new(), ..consent() }),
        (Deficiency::Discloser, consent().discloser(" ")),
        (Deficiency::Description, consent().description("")),
        (Deficiency::Description, Consent { categories: vec![], ..consent() }),
        (Deficiency::Description, Consent { categories: vec![Category::Private], ..consent() }),
        (Deficiency::Recipient, consent().recipient("")),
        (Deficiency::Purpose, Consent { purposes: vec![], ..consent() }),
        (Deficiency::RightToRevoke, Consent { told_of_revocation: false, ..consent() }),
        (Deficiency::Expiry, Consent { expires: None, ..consent() }),
        (
            Deficiency::Expiry,
            Consent { ends_when: none.clone(), purposes: vec![Purpose::Request], ..consent() },
        ),
        (Deficiency::Signature, consent().signed_by("")),
        (Deficiency::NotesCombined, Consent { counselling_notes: true, ..consent() }),
        (Deficiency::ProceedingsCombined, Consent { purposes: legal.clone(), ..consent() }),
    ] {
        assert_eq!(validity(&consent, summer()), Validity::Deficient(lacking));
        for (category, purpose) in consent.categories.iter().zip(&consent.purposes) {
            assert!(!permits(&consent, *category, *purpose, summer()));
        }
    }
    let unending = Consent { expires: None, ends_when: none, ..consent() };
    assert_eq!(validity(&unending, on(date(2050, 1, 1))), Validity::Valid);
}

#[test]
fn a_consent_permits_what_it_names_and_nothing_else() {
    let permitted = |consent: &Consent, category, purpose| permits(consent, category, purpose, summer());
    assert!(permitted(&consent(), Category::Medication, Purpose::Treatment));
    assert!(!permitted(&consent(), Category::Wellbeing, Purpose::Treatment));
    assert!(!permitted(&consent(), Category::Medication, Purpose::Payment));
    assert!(!permitted(&consent(), Category::Medication, Purpose::Legal));
    let legal = Consent { purposes: vec![Purpose::Legal], ..consent() };
    assert!(permitted(&legal, Category::Medication, Purpose::Legal));
    assert!(!permitted(&legal, Category::Medication, Purpose::Treatment));
    let notes = Consent { categories: vec![], counselling_notes: true, ..consent() };
    assert!(permits_counselling_notes(&notes, Purpose::Treatment, summer()));
    assert!(!permits_counselling_notes(&notes, Purpose::Payment, summer()));
    assert!(!permits_counselling_notes(&consent(), Purpose::Treatment, summer()));
    assert!(Category::ALL.iter().all(|category| !permitted(&notes, *category, Purpose::Treatment)));
}

fn request(recipient: Recipient<'_>) -> RestrictionRequest {
    RestrictionRequest::new(recipient.name).categories([Category::Medication])
}

#[test]
fn a_restriction_binds_once_agreed() {
    let request = request(CLINIC);
    let ask = |answers: &[RestrictionAnswer], category, recipient, purpose| {
        let restrictions = [Restriction { record: REQUEST, request: &request, answers }];
        restriction(&restrictions, category, recipient, purpose)
    };
    let [yes, no] = [[RestrictionAnswer::agreed(REQUEST)], [RestrictionAnswer::refused(REQUEST, "too wide")]];
    let (medication, treatment) = (Category::Medication, Purpose::Treatment);
    assert_eq!(ask(&yes, medication, CLINIC, treatment), Some(REQUEST));
    let spelled = Recipient { name: " northside CLINIC", ..CLINIC };
    assert_eq!(ask(&yes, medication, spelled, treatment), Some(REQUEST));
    assert_eq!(ask(&[], medication, CLINIC, treatment), None);
    assert_eq!(ask(&no, medication, CLINIC, treatment), None);
    assert_eq!(ask(&[yes.clone(), no].concat(), medication, CLINIC, treatment), None, "the last word");
    let other = [RestrictionAnswer::agreed(CONSENT)];
    assert_eq!(ask(&other, medication, CLINIC, treatment), None, "an answer to another");
    assert_eq!(ask(&yes, Category::Symptoms, CLINIC, treatment), None);
    assert_eq!(ask(&yes, medication, PLAN, treatment), None);
    assert_eq!(ask(&yes, medication, CLINIC, Purpose::Request), None, "beyond care it does not reach");
}

#[test]
fn what_was_paid_in_full_no_health_plan_is_told() {
    let request = request(PLAN).paid_in_full();
    let answers = [RestrictionAnswer::refused(REQUEST, "it was not paid in full")];
    let restrictions = [Restriction { record: REQUEST, request: &request, answers: &answers }];
    let ask = |recipient, purpose| restriction(&restrictions, Category::Medication, recipient, purpose);
    assert_eq!(ask(PLAN, Purpose::Payment), Some(REQUEST));
    assert_eq!(ask(PLAN, Purpose::Operations), Some(REQUEST));
    assert_eq!(ask(PLAN, Purpose::Treatment), None);
    assert_eq!(ask(Recipient { is_health_plan: false, ..PLAN }, Purpose::Payment), None);
}

#[test]
fn a_disclosure_is_accounted_for_and_carries_its_statement() {
    let consent = consent();
    let proposal = Proposal {
        consent: (CONSENT, &consent),
        categories: &[Category::Symptoms, Category::Medication],
        recipient: CLINIC,
        purpose: Purpose::Treatment,
        discloser: "Dr. Ito",
        at: summer(),
    };
    let made = disclose(&proposal, &[]).expect("it is covered");
    assert_eq!((made.basis, made.notice, made.at), (CONSENT, Notice::Full, summer()));
    assert_eq!((made.discloser.as_str(), made.recipient.as_str()), ("Dr. Ito", CLINIC.name));
    assert_eq!(format!("{made:?}"), "Disclosure(Treatment)");
    let late = Proposal { at: on(date(2025, 1, 1)), ..proposal };
    let over = Validity::Expired { on: date(2024, 12, 31) };
    assert_eq!(disclose(&late, &[]), Err(Refused::Consent(over)));
    let more = Proposal { categories: &[Category::Symptoms, Category::Wellbeing], ..proposal };
    assert_eq!(disclose(&more, &[]), Err(Refused::NotCovered(Category::Wellbeing, Purpose::Treatment)));
    assert_eq!(disclose(&Proposal { categories: &[], ..proposal }, &[]), Err(Refused::Nothing));
    let (request, answers) = (request(CLINIC), [RestrictionAnswer::agreed(REQUEST)]);
    let restrictions = [Restriction { record: REQUEST, request: &request, answers: &answers }];
    assert_eq!(disclose(&proposal, &restrictions), Err(Refused::Restricted(Category::Medication, REQUEST)));
}
