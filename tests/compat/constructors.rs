//! What constructors make is what is kept: each of them makes the record whose bytes lie in the fixtures, with
//! every field in use, so none puts a word into another's place.

use ebb_core::{
    RecordId,
    record::{
        Activity, ActivitySort, Aftercare, AlertAction, AlertId, Ask, Authorization, Body, Cadence, Category,
        Condition, Consent, Contact, Coping, Coverage, Criterion, CriterionSort, Distortion, Domain, Dose,
        DoseRoute, DoseStep, DrugScreen, Eligibility, EmergencyCard, Fellowship, Goal, GoalState, Helpline,
        InsurancePlan, Intervention, Level, LevelMove, Meeting, Mode, MovedSession, Network, Person,
        PlanGoal, PlannedDose, Problem, Programme, Purpose, Referral, ReferralOutcome, Regimen,
        RelapsePrevention, Resource, RestrictionAnswer, RestrictionRequest, Role, ScreenResult, ServiceUnit,
        SessionKind, SessionSeries, Specimen, Task, TeamMember, TestPlace, Thresholds, Trigger, Unit, Value,
        Weekday,
    },
};
use ebb_protocol::id::MemberId;
use jiff::civil::{Date, date, time};

use super::{RECORD, fixture};

const OTHER: RecordId = RecordId::from_bytes(RECORD);
const DAY: Date = date(2026, 2, 28);
const ZONE: &str = "America/New_York";

fn of_the_patient() -> Vec<(&'static str, Body)> {
    let planned = PlannedDose { regimen: OTHER, due_ms: 1_700_000_000_000 };
    let dose = Dose::taken("buprenorphine", 8.0, Unit::Mg).rxnorm("1819").planned(planned);
    let screen = DrugScreen::new(Specimen::Urine, "buprenorphine", ScreenResult::Positive)
        .temperature_ok(true)
        .expected(true)
        .place(TestPlace::Laboratory);
    let coping = Coping::default()
        .situation("alone at home")
        .trigger(Trigger::Feeling)
        .thought("just this once")
        .distortion(Distortion::PermissionGiving)
        .emotion("restless")
        .urge(8)
        .skill("urge_surfing")
        .urge_after(3);
    let (shared, purposes) =
        ([Category::Symptoms, Category::Medication], [Purpose::Treatment, Purpose::Payment]);
    let consent = Consent::signed("A. Person", DAY, shared, purposes)
        .discloser("Riverside")
        .description("withdrawal scales and doses")
        .recipient("Riverside care team")
        .member(MemberId([9; 16]))
        .told_of_revocation()
        .expires(date(2027, 2, 28))
        .ends_when("the end of treatment")
        .revoked_ms(1_800_000_000_000);
    let person =
        Person::new("A. Person").called("Al").pronouns("they/them").language("es").born(date(1990, 1, 31));
    let coverage = Coverage::new(InsurancePlan::Other("Tribal".to_owned()), "Acme")
        .network(Network::Out)
        .member("M-1")
        .cost_share("20 % after the deductible")
        .from(DAY)
        .until(date(2027, 1, 1));
    let card = EmergencyCard::default()
        .medicines(["buprenorphine 16 mg"])
        .allergies(["penicillin"])
        .contacts(["B. Friend 555 0101"])
        .naloxone(true);
    let request = RestrictionRequest::new("Acme")
        .categories([Category::SubstanceUse])
        .purposes([Purpose::Operations])
        .paid_in_full();
    let meeting = Meeting::new(Fellowship::Smart).label("Tuesday room").mode(Mode::Audio).minutes(60);
    vec![
        ("dose-planned", Dose { observed: true, ..dose }.into()),
        ("drug-screen-judged", screen.into()),
        ("coping", coping.into()),
        ("meeting", meeting.into()),
        ("activity", Activity::new(ActivitySort::Mindfulness).label("a walk").minutes(25).into()),
        ("goal", Goal::open("see my sister").target(DAY).into()),
        ("person", person.into()),
        ("contact", Contact::new("B. Friend").relation("sister").phone("555 0101").supporter().into()),
        ("coverage", coverage.into()),
        ("emergency-card", card.into()),
        ("consent", consent.into()),
        ("restriction-request", request.into()),
    ]
}

fn of_the_clinic() -> Vec<(&'static str, Body)> {
    let line = Helpline::new("Riverside").phone("555 0100").text("555 0102").hours("day and night");
    let programme = Programme::new("Riverside")
        .zone(ZONE)
        .week_starts(Weekday::Sunday)
        .hours(9.0, 20.0)
        .opioid_treatment_programme()
        .helplines([line]);
    let problem = Problem::new(Domain::Social, "no place of one's own")
        .goals([PlanGoal::open("a lease").target(DAY).state(GoalState::SetAside)])
        .interventions([Intervention::new("housing office").who("L. Chen").frequency("weekly")])
        .review(date(2026, 5, 1));
    let steps = [
        DoseStep::daily(DAY, [(time(8, 0, 0, 0), 8.0), (time(20, 30, 0, 0), 8.25)]),
        DoseStep::every_days(2, date(2026, 3, 14), []),
    ];
    let regimen = Regimen::scheduled("buprenorphine", DoseRoute::Sublingual, Unit::Mg, steps)
        .tapering()
        .product("buprenorphine/naloxone film 8/2 mg")
        .rxnorm("1010604")
        .zone(ZONE)
        .prescribed_by("Dr Okafor")
        .although("moving away")
        .until(date(2026, 4, 1));
    let moved = MovedSession { from: date(2026, 3, 5), to: date(2026, 3, 6), start: time(9, 15, 0, 0) };
    let (days, six) = ([Weekday::Monday, Weekday::Thursday], time(18, 0, 0, 0));
    let series = SessionSeries::weekly(SessionKind::Group, "evening group", DAY, days, six, 180)
        .zone(ZONE)
        .last(date(2026, 12, 31))
        .every_weeks(2)
        .mode(Mode::Video)
        .led_by("L. Chen")
        .cancelled([date(2026, 7, 4)])
        .moved([moved]);
    let cadence = Cadence::every_days(7, Ask::instrument("sows16"), DAY, [time(9, 0, 0, 0)])
        .zone(ZONE)
        .last(date(2026, 3, 31));
    let thresholds = Thresholds::default()
        .values([("R6.total", 18.5)])
        .rules_off(["R24"])
        .bands([("ciwa_ar", "va")])
        .instruments_on(["ciwa_b"]);
    let discharge = LevelMove::to(Level::Discharged, "completed")
        .decided_by("Dr Okafor")
        .referred_by("a hospital")
        .without_aftercare("left the country");
    let met = Criterion::met(CriterionSort::StableLiving, "L. Chen", DAY).evidence("lives with family");
    let authorization = Authorization::draft("Acme", Level::IntensiveOutpatient, ServiceUnit::Day)
        .sessions([SessionKind::Group, "art".into()])
        .requested(20)
        .partly_approved(10, DAY, date(2026, 4, 30))
        .review(date(2026, 4, 15))
        .reference("A-17")
        .reason("ten now, ten on review");
    let relapse = RelapsePrevention::default()
        .warning_signs(["no sleep"])
        .triggers(["payday"])
        .strategies(["call"])
        .people(["B. Friend"])
        .review(DAY);
    let aftercare = Aftercare::new(DAY, [Task::new("see a doctor").due(DAY).done()]).check_in_days(7);
    let resource =
        Resource::new("Legal aid").sort("law").phone("555 0103").place("Main Street 1").hours("9 to 5");
    let referral =
        Referral::to("Legal aid").reason("custody").resource(OTHER).outcome(ReferralOutcome::Accepted);
    vec![
        ("programme", programme.into()),
        ("problem", problem.into()),
        ("condition", Condition::active("Opioid dependence").code("ICD-10-CM F11.20").into()),
        ("team-member", TeamMember::new("L. Chen", Role::Psychotherapist).primary().into()),
        ("regimen", regimen.into()),
        ("session-series", series.into()),
        ("cadence", cadence.into()),
        ("thresholds", thresholds.into()),
        ("level-move", discharge.into()),
        ("eligibility", Eligibility { criteria: vec![met] }.into()),
        ("authorization", authorization.into()),
        ("relapse-prevention", relapse.into()),
        ("aftercare", aftercare.into()),
        ("resource", resource.into()),
        ("referral", referral.into()),
        ("alert-action", AlertAction::escalated(AlertId([13; 16]), "Dr Okafor").into()),
        ("restriction-answer", RestrictionAnswer::refused(OTHER, "the plan must be told").into()),
    ]
}

#[test]
fn constructors_make_what_is_kept() {
    for (name, body) in of_the_patient().into_iter().chain(of_the_clinic()) {
        let bytes = fixture(&format!("kind-{name}.cbor"), || panic!("{name} is kept by kinds.rs"));
        assert!(Value::decode(&bytes).expect(name).body == body, "{name}");
    }
}
