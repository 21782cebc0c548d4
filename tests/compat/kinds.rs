//! The kinds of records that came after the first ones, each with every field in use; and a database with an
//! alert in it. Never edited: a kind that changes its form gets another entry.

use std::collections::BTreeMap;

use ebb_core::{
    Config, Entry, RecordId, Start,
    clinical::rules::Severity,
    record::{
        Activity, ActivitySort, Aftercare, AlertAction, AlertId, Answers, Arrangement, Ask, Attendance,
        Authorization, AuthorizationState, Body, Cadence, Category, Condition, Consent, Contact, Coping,
        Course, Coverage, Criterion, CriterionOutcome, CriterionSort, Distortion, Domain, Dose, DoseRoute,
        DoseStep, DrugScreen, Eligibility, EmergencyCard, Fellowship, Goal, GoalState, Handling, Helpline,
        InsurancePlan, Intervention, Kind, Level, LevelMove, LivingSituation, Meeting, Message, Mode,
        MovedSession, Network, Person, PlanGoal, PlanPart, PlanSignOff, PlanVersion, PlannedDose, Problem,
        Programme, ProgrammeInstrument, Purpose, Referral, ReferralOutcome, Regimen, RelapsePrevention,
        Resource, RestrictionAnswer, RestrictionRequest, Role, ScreenResult, Seen, ServiceUnit,
        SessionSeries, Specimen, Taking, Task, TeamMember, TestPlace, Thresholds, TimedDose, Trigger, Unit,
        Value, Visit, Vitals, Weekday,
    },
};
use ebb_protocol::id::MemberId;
use ebb_tests::ward::TestDevice;
use jiff::civil::{date, time};

use super::{AT, RECORD, copy_all, entries, fixture, fixtures, stamp};

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn kinds() -> Vec<(&'static str, Body)> {
    let other = RecordId::from_bytes(RECORD);
    let day = date(2026, 2, 28);
    let vitals = Vitals {
        pulse: Some(92),
        systolic: Some(128),
        diastolic: Some(84),
        temperature: Some(37.5),
        respiration: Some(16),
        oxygen_saturation: Some(97),
        weight: Some(71.5),
    };
    let coping = Coping {
        situation: some("alone at home"),
        trigger: Some(Trigger::Feeling),
        thought: some("just this once"),
        distortion: Some(Distortion::PermissionGiving),
        emotion: some("restless"),
        urge: Some(8),
        skill: some("urge_surfing"),
        urge_after: Some(3),
    };
    let consent = Consent {
        patient: "A. Person".to_owned(),
        discloser: "Riverside".to_owned(),
        categories: vec![Category::Symptoms, Category::Medication],
        description: "withdrawal scales and doses".to_owned(),
        recipient: "Riverside care team".to_owned(),
        member: Some(MemberId([9; 16])),
        purposes: vec![Purpose::Treatment, Purpose::Payment],
        told_of_revocation: true,
        expires: Some(date(2027, 2, 28)),
        ends_when: some("the end of treatment"),
        signed_by: "A. Person".to_owned(),
        signed_on: day,
        counselling_notes: false,
        revoked_ms: Some(1_800_000_000_000),
    };
    let regimen = Regimen {
        drug: "buprenorphine".to_owned(),
        product: some("buprenorphine/naloxone film 8/2 mg"),
        rxnorm: some("1010604"),
        route: DoseRoute::Sublingual,
        course: Course::Taper,
        unit: Unit::Mg,
        zone: "America/New_York".to_owned(),
        steps: vec![
            DoseStep {
                from: day,
                every_days: 1,
                doses: vec![
                    TimedDose { at: time(8, 0, 0, 0), amount: 8.0 },
                    TimedDose { at: time(20, 30, 0, 0), amount: 8.25 },
                ],
            },
            DoseStep { from: date(2026, 3, 14), every_days: 2, doses: Vec::new() },
        ],
        prescriber: "Dr Okafor".to_owned(),
        override_reason: some("moving away"),
        until: Some(date(2026, 4, 1)),
    };
    let series = SessionSeries {
        session: "group".into(),
        title: "evening group".to_owned(),
        zone: "America/New_York".to_owned(),
        first: day,
        last: Some(date(2026, 12, 31)),
        weekdays: vec![Weekday::Monday, Weekday::Thursday],
        every_weeks: 2,
        start: time(18, 0, 0, 0),
        minutes: 180,
        mode: Mode::Video,
        led_by: some("L. Chen"),
        cancelled: vec![date(2026, 7, 4)],
        moved: vec![MovedSession { from: date(2026, 3, 5), to: date(2026, 3, 6), start: time(9, 15, 0, 0) }],
    };
    let authorization = Authorization {
        payer: "Acme".to_owned(),
        level: Level::IntensiveOutpatient,
        state: AuthorizationState::PartlyApproved,
        unit: ServiceUnit::Day,
        sessions: vec!["group".into(), "art".into()],
        requested: Some(20),
        approved: Some(10),
        from: Some(day),
        until: Some(date(2026, 4, 30)),
        review: Some(date(2026, 4, 15)),
        reference: some("A-17"),
        reason: some("ten now, ten on review"),
    };
    let screen = DrugScreen {
        specimen: Specimen::Urine,
        substance: "buprenorphine".to_owned(),
        result: ScreenResult::Positive,
        temperature_ok: Some(true),
        expected: Some(true),
        place: Some(TestPlace::Laboratory),
    };
    let planned = PlannedDose { regimen: other, due_ms: 1_700_000_000_000 };
    let visit =
        Visit::new("group", "week 3", Attendance::Kept).attended(Mode::InPerson, 170).with_participants(5);
    vec![
        (
            "dose-planned",
            Dose {
                drug: "buprenorphine".to_owned(),
                rxnorm: some("1819"),
                amount: 8.0,
                unit: Unit::Mg,
                taking: Taking::Taken,
                observed: true,
                planned: Some(planned),
            }
            .into(),
        ),
        (
            "answers",
            Answers {
                instrument: "gad7".to_owned(),
                version: "2006".to_owned(),
                answers: [("1".to_owned(), 2), ("2".to_owned(), 0)].into(),
                draft: true,
            }
            .into(),
        ),
        ("vitals", vitals.into()),
        ("drug-screen-judged", screen.into()),
        ("visit-attended", visit.of(other, day).into()),
        ("coping", coping.into()),
        (
            "meeting",
            Meeting {
                fellowship: Fellowship::Smart,
                label: some("Tuesday room"),
                mode: Some(Mode::Audio),
                minutes: Some(60),
            }
            .into(),
        ),
        (
            "activity",
            Activity { sort: ActivitySort::Mindfulness, label: some("a walk"), minutes: Some(25) }.into(),
        ),
        ("goal", Goal { text: "see my sister".to_owned(), target: Some(day), state: GoalState::Open }.into()),
        ("plan-sign-off", PlanSignOff { version: other, number: 3, agreed: true }.into()),
        ("message", Message { text: "on my way".to_owned(), reply_to: Some(other) }.into()),
        (
            "person",
            Person {
                name: "A. Person".to_owned(),
                called: some("Al"),
                pronouns: some("they/them"),
                language: some("es"),
                born: Some(date(1990, 1, 31)),
            }
            .into(),
        ),
        (
            "living-situation",
            LivingSituation { arrangement: Arrangement::SoberLiving, stable: Some(true) }.into(),
        ),
        (
            "contact",
            Contact {
                name: "B. Friend".to_owned(),
                relation: some("sister"),
                phone: some("555 0101"),
                supporter: true,
            }
            .into(),
        ),
        (
            "coverage",
            Coverage {
                payer: "Acme".to_owned(),
                plan: InsurancePlan::Other("Tribal".to_owned()),
                network: Some(Network::Out),
                member: some("M-1"),
                cost_share: some("20 % after the deductible"),
                from: Some(day),
                until: Some(date(2027, 1, 1)),
            }
            .into(),
        ),
        (
            "emergency-card",
            EmergencyCard {
                medicines: texts(&["buprenorphine 16 mg"]),
                allergies: texts(&["penicillin"]),
                contacts: texts(&["B. Friend 555 0101"]),
                naloxone: Some(true),
            }
            .into(),
        ),
        ("consent", consent.into()),
        (
            "restriction-request",
            RestrictionRequest {
                categories: vec![Category::SubstanceUse],
                recipient: "Acme".to_owned(),
                purposes: vec![Purpose::Operations],
                paid_in_full: true,
            }
            .into(),
        ),
        (
            "programme",
            Programme {
                name: "Riverside".to_owned(),
                zone: "America/New_York".to_owned(),
                week_starts: Weekday::Sunday,
                hours_min: 9.0,
                hours_max: 20.0,
                opioid_treatment_programme: true,
                helplines: vec![Helpline {
                    name: "Riverside".to_owned(),
                    phone: some("555 0100"),
                    text: some("555 0102"),
                    hours: some("day and night"),
                }],
            }
            .into(),
        ),
        (
            "problem",
            Problem {
                domain: Domain::Social,
                statement: "no place of one's own".to_owned(),
                goals: vec![PlanGoal {
                    text: "a lease".to_owned(),
                    target: Some(day),
                    state: GoalState::SetAside,
                }],
                interventions: vec![Intervention {
                    text: "housing office".to_owned(),
                    who: some("L. Chen"),
                    frequency: some("weekly"),
                }],
                review: Some(date(2026, 5, 1)),
            }
            .into(),
        ),
        (
            "condition",
            Condition { label: "Opioid dependence".to_owned(), code: some("ICD-10-CM F11.20"), active: true }
                .into(),
        ),
        (
            "team-member",
            TeamMember {
                name: "L. Chen".to_owned(),
                role: Role::Psychotherapist,
                primary: true,
                active: true,
            }
            .into(),
        ),
        ("regimen", regimen.into()),
        ("session-series", series.into()),
        (
            "cadence",
            Cadence {
                ask: Ask::Instrument("sows16".to_owned()),
                zone: "America/New_York".to_owned(),
                first: day,
                last: Some(date(2026, 3, 31)),
                every_days: 7,
                times: vec![time(9, 0, 0, 0)],
            }
            .into(),
        ),
        (
            "thresholds",
            Thresholds {
                values: [("R6.total".to_owned(), 18.5)].into(),
                rules_off: texts(&["R24"]),
                bands: BTreeMap::from([("ciwa_ar".to_owned(), "va".to_owned())]),
                instruments_on: texts(&["ciwa_b"]),
            }
            .into(),
        ),
        ("programme-instrument", ProgrammeInstrument { json: "{}".to_owned() }.into()),
        (
            "level-move",
            LevelMove {
                to: Level::Discharged,
                reason: "completed".to_owned(),
                decided_by: "Dr Okafor".to_owned(),
                referred_by: some("a hospital"),
                without_aftercare: some("left the country"),
            }
            .into(),
        ),
        (
            "eligibility",
            Eligibility {
                criteria: vec![Criterion {
                    what: CriterionSort::StableLiving,
                    outcome: CriterionOutcome::Met,
                    evidence: some("lives with family"),
                    assessor: some("L. Chen"),
                    on: Some(day),
                }],
            }
            .into(),
        ),
        ("authorization", authorization.into()),
        (
            "relapse-prevention",
            RelapsePrevention {
                warning_signs: texts(&["no sleep"]),
                triggers: texts(&["payday"]),
                strategies: texts(&["call"]),
                people: texts(&["B. Friend"]),
                review: Some(day),
            }
            .into(),
        ),
        (
            "aftercare",
            Aftercare {
                from: day,
                tasks: vec![Task { text: "see a doctor".to_owned(), due: Some(day), done: true }],
                check_in_days: Some(7),
            }
            .into(),
        ),
        (
            "resource",
            Resource {
                name: "Legal aid".to_owned(),
                sort: "law".to_owned(),
                phone: some("555 0103"),
                place: some("Main Street 1"),
                hours: some("9 to 5"),
            }
            .into(),
        ),
        (
            "referral",
            Referral {
                to: "Legal aid".to_owned(),
                reason: "custody".to_owned(),
                resource: Some(other),
                outcome: ReferralOutcome::Accepted,
            }
            .into(),
        ),
        (
            "plan-version",
            PlanVersion {
                number: 3,
                parts: vec![PlanPart { record: other, digest: [12; 16] }],
                summary: "less on Sundays".to_owned(),
            }
            .into(),
        ),
        ("seen", Seen { records: vec![other] }.into()),
        (
            "alert-action",
            AlertAction { alert: AlertId([13; 16]), action: Handling::Escalated, owner: some("Dr Okafor") }
                .into(),
        ),
        (
            "restriction-answer",
            RestrictionAnswer { request: other, agreed: false, reason: some("the plan must be told") }.into(),
        ),
    ]
}

#[test]
fn values_of_every_later_kind_are_read() {
    for (name, body) in kinds() {
        let entry = Entry::new(body).at(AT);
        let bytes = fixture(&format!("kind-{name}.cbor"), || Value::new(&entry, &stamp()).encode());
        let value = Value::decode(&bytes).expect(name);
        assert!(value.body == entry.body, "{name}");
        assert!(!value.from_newer_version(), "{name}");
        assert_eq!(Value::new(&entry, &stamp()).encode(), bytes, "{name}: written as it was");
    }
}

#[test]
fn every_kind_has_its_bytes_here() {
    let mut kept: Vec<_> = kinds().into_iter().map(|(_, body)| body.kind()).collect();
    kept.extend(entries().into_iter().map(|(_, entry)| entry.body.kind()));
    let missing: Vec<_> = Kind::KNOWN.iter().filter(|kind| !kept.contains(kind)).collect();
    assert!(missing.is_empty(), "write an entry for {missing:?}");
}

#[test]
fn a_database_with_an_alert_is_read() {
    let files = fixtures().join("phone-with-alert");
    if !files.exists() && std::env::var_os("EBB_WRITE_FIXTURES").is_some() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let dir = root.path().join("phone");
        let phone = TestDevice::open_with(&dir, Config::new(dir.join("replica")).start(Start::Found));
        let own = phone.replica.own().expect("a patient's");
        phone.replica.log(own, &Entry::phq9([0, 0, 0, 0, 0, 0, 0, 0, 3]).at(AT)).expect("logs");
        phone.replica.lock();
        std::fs::remove_file(dir.join("replica/ebb.lock")).expect("ours");
        copy_all(&dir, &files);
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let dir = root.path().join("phone");
    copy_all(&files, &dir);
    let phone = TestDevice::open_with(&dir, Config::new(dir.join("replica")));
    let own = phone.replica.own().expect("a patient's");
    let alerts = phone.replica.alerts(own).expect("reads");
    let [view] = alerts.as_slice() else { panic!("one alert") };
    assert_eq!((view.alert.finding.rule.as_ref(), view.alert.finding.severity), ("R1", Severity::Emergency));
    assert_eq!(view.alert.finding.observed_ms, AT.millis);
    assert_eq!(view.alert.history.len(), 1, "raised when it was logged, and not again");
}
