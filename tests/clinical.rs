//! Clinical knowledge through replicas: alerts on a phone and at a desk, a plan that refuses what must not be,
//! and the book's page on rules.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::{
    fmt::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use ebb_core::{
    AlertView, Category, Clock, Config, Entry, Error, FileVault, Observer, Replica, Start,
    clinical::{
        crisis,
        plan::{
            PlanChanges,
            taper::{Fall, Taper},
        },
        rules::{AlertState, Change, RULES, Severity},
        today::What,
    },
    record::{
        AlertAction, AlertId, DoseRoute, DoseStep, Helpline, Level, LevelMove, Moment, PlanSignOff,
        Programme, ProgrammeInstrument, Regimen, SessionKind, SessionSeries, Thresholds, Unit, Weekday,
    },
};
use ebb_protocol::id::{Millis, SpaceId};
use ebb_tests::ward::{TestDevice, TestServer};
use jiff::civil::{date, time};
use tempfile::TempDir;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");
const DAY_MS: i64 = 86_400_000;
/// 2024-01-01 00:00 UTC.
const START_MS: i64 = 1_704_067_200_000;

/// A clock that a test sets.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START_MS)))
    }

    fn set(&self, day: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "days of a test")]
        let millis = START_MS + (day * 86_400_000.0) as i64;
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.0.load(Ordering::Relaxed)).unwrap())
    }
}

/// What an observer was told of alerts.
#[derive(Default)]
struct Heard(Mutex<Vec<AlertId>>);

impl Observer for Heard {
    fn alerts_changed(&self, _: SpaceId, alerts: &[AlertId]) {
        self.0.lock().unwrap().extend(alerts);
    }
}

fn offline(root: &TempDir, start: Start, hand: &Hand) -> Replica {
    let dir = root.path().join("device");
    let config = Config { clock: Arc::new(hand.clone()), ..Config::new(dir.join("replica")).start(start) };
    std::fs::create_dir_all(&dir).unwrap();
    Replica::open(config, &FileVault(dir.join("vault.key"))).unwrap()
}

fn standing(replica: &Replica, space: SpaceId) -> Vec<AlertView> {
    let mut alerts = replica.alerts(space).unwrap();
    alerts.retain(|view| view.state != AlertState::Withdrawn);
    alerts
}

fn refused(outcome: Result<impl Sized, Error>) -> (String, String) {
    match outcome.map(drop) {
        Err(Error::FixInput { field, allowed }) => (field, allowed),
        other => panic!("must be refused by field, was {other:?}"),
    }
}

#[test]
fn a_phone_without_a_network_raises_an_emergency_at_once_and_keeps_it() {
    let root = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    hand.set(10.0);
    let phone = offline(&root, Start::Found, &hand);
    let own = phone.own().unwrap();
    let heard = Arc::new(Heard::default());
    phone.watch(heard.clone());
    let record = phone.log(own, &Entry::phq9([0, 0, 0, 0, 0, 0, 0, 0, 2])).unwrap();
    let alerts = standing(&phone, own);
    let [AlertView { alert, state }] = alerts.as_slice() else { panic!("one alert") };
    assert_eq!(*state, AlertState::Open);
    assert_eq!((alert.finding.rule.as_ref(), alert.finding.severity), ("R1", Severity::Emergency));
    assert_eq!((alert.finding.inputs.as_slice(), alert.late_ms()), (&[record][..], 0));
    assert_eq!(
        *heard.0.lock().unwrap(),
        [alert.finding.id],
        "told when it was logged, not when it was asked for"
    );
    assert!(!phone.chart(own, crisis::lines).unwrap().is_empty());

    let id = alert.finding.id;
    phone.lock();
    drop(phone);
    hand.set(12.0);
    let phone = offline(&root, Start::Found, &hand);
    let again = standing(&phone, own);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].alert.finding.id, id);
    assert_eq!(
        again[0].alert.raised_ms(),
        START_MS + 10 * DAY_MS,
        "found when it was found, not when it was opened"
    );
    phone.retract(own, record, "wrong person").unwrap();
    assert_eq!(standing(&phone, own), []);
    let alert = phone.alerts(own).unwrap().remove(0).alert;
    assert_eq!(alert.history.last().map(|event| &event.change), Some(&Change::Withdrawn));
}

#[test]
fn phone_and_desk_find_the_same_and_the_desk_says_how_late() {
    let root = tempfile::tempdir().unwrap();
    let server = TestServer::start(&root.path().join("server"), NODE);
    let hands = (Hand::new(), Hand::new());
    let open = |name: &str, start, hand: &Hand| {
        let dir = root.path().join(name);
        let config = TestDevice::config(&dir, &server.address, &server.pins).start(start);
        TestDevice::open_with(&dir, Config { clock: Arc::new(hand.clone()), ..config })
    };
    hands.0.set(10.0);
    hands.1.set(10.0);
    let phone = open("phone", Start::Found, &hands.0);
    let desk = open("desk", Start::Clinic, &hands.1);
    let shared = [Category::Wellbeing, Category::Symptoms, Category::Plan, Category::Observations];
    phone.replica.grant(&desk.replica.card().unwrap(), &shared).unwrap();
    let space = desk.replica.follow(&phone.replica.ticket().unwrap()).unwrap();
    phone.sync();
    desk.sync();
    let heard = Arc::new(Heard::default());
    desk.replica.watch(heard.clone());

    // Two days without a network.
    phone.replica.log(space, &Entry::sows([3; 16])).unwrap();
    hands.0.set(12.0);
    hands.1.set(12.0);
    phone.sync();
    desk.sync();
    let told = std::mem::take(&mut *heard.0.lock().unwrap());
    let (at_phone, at_desk) = (standing(&phone.replica, space), standing(&desk.replica, space));
    let [AlertView { alert: mine, .. }] = at_phone.as_slice() else { panic!("one at the phone") };
    let [AlertView { alert: theirs, .. }] = at_desk.as_slice() else { panic!("one at the desk") };
    assert_eq!(told, [theirs.finding.id], "a desk that nobody looks at tells of it");
    assert_eq!(mine.finding, theirs.finding, "the same code finds the same");
    assert_eq!((mine.late_ms(), theirs.late_ms()), (0, 2 * DAY_MS));

    let action = AlertAction::acknowledged(theirs.finding.id);
    desk.replica.log(space, &Entry::new(action).note("called her")).unwrap();
    desk.sync();
    phone.sync();
    for replica in [&phone.replica, &desk.replica] {
        assert_eq!(standing(replica, space)[0].state, AlertState::Acknowledged);
    }
    drop(server);
}

fn regimen(drug: &str, steps: &[(i16, i8, i8, f64)]) -> Regimen {
    let steps = steps.iter().map(|(year, month, day, amount)| {
        DoseStep::daily(date(*year, *month, *day), [(time(8, 0, 0, 0), *amount)])
    });
    Regimen::scheduled(drug, DoseRoute::Oral, Unit::Mg, steps)
        .zone("America/New_York")
        .prescribed_by("Dr Okafor")
}

/// A desk that follows a patient, and the patient's phone, so that the desk may write.
fn clinic(root: &TempDir) -> (TestServer, TestDevice, TestDevice, SpaceId) {
    let server = TestServer::start(&root.path().join("server"), NODE);
    let phone = TestDevice::open(root, "phone", &server, Start::Found);
    let desk = TestDevice::open(root, "desk", &server, Start::Clinic);
    let shared: Vec<_> =
        Category::ALL.into_iter().filter(|category| *category != Category::Private).collect();
    phone.replica.grant(&desk.replica.card().unwrap(), &shared).unwrap();
    let space = desk.replica.follow(&phone.replica.ticket().unwrap()).unwrap();
    phone.sync();
    desk.sync();
    (server, phone, desk, space)
}

#[test]
fn a_plan_refuses_what_must_not_be_and_names_field_and_values() {
    let root = tempfile::tempdir().unwrap();
    let (_server, phone, desk, space) = clinic(&root);
    let log = |entry: Entry| desk.replica.log(space, &entry);
    let rising = regimen("diazepam", &[(2026, 1, 1, 10.0), (2026, 2, 1, 12.0)]).tapering();
    assert_eq!(refused(log(Entry::new(rising))).0, "steps.doses.amount");
    let steep = regimen("diazepam", &[(2026, 1, 1, 20.0), (2026, 1, 5, 10.0)]).tapering();
    let (field, allowed) = refused(log(Entry::new(steep.clone())));
    assert!(!field.is_empty() && !allowed.is_empty());
    log(Entry::new(steep.although("moving away"))).unwrap();
    let beside = regimen("Valium (diazepam)", &[(2026, 3, 1, 5.0)]);
    refused(log(Entry::new(beside)));
    let nowhere = regimen("methadone", &[(2026, 1, 1, 60.0)]).zone("Mars/Olympus");
    assert_eq!(refused(log(Entry::new(nowhere))).0, "zone");
    let taper = Taper::of("buprenorphine", Unit::Mg, 16.0, date(2026, 1, 1))
        .route(DoseRoute::Sublingual)
        .zone("America/New_York")
        .prescribed_by("Dr Okafor")
        .by(Fall::OfStart(12.5), 7)
        .in_multiples_of(2.0)
        .at([time(8, 0, 0, 0)])
        .regimen()
        .unwrap();
    log(Entry::new(taper)).unwrap();

    let admission = LevelMove::to(Level::IntensiveOutpatient, "referred").decided_by("Dr Okafor");
    let discharge = LevelMove::to(Level::Discharged, "completed").decided_by("Dr Okafor");
    log(Entry::new(admission)).unwrap();
    assert_eq!(refused(log(Entry::new(discharge.clone()))).0, "without_aftercare");
    log(Entry::new(discharge.without_aftercare("left the country"))).unwrap();
    let own = |name: &str, value: f64| Thresholds::default().values([(name, value)]);
    assert_eq!(refused(log(Entry::new(own("R6.sum", 20.0)))).0, "values");
    assert_eq!(
        refused(log(Entry::new(own("R6.total", 99.0)))),
        ("values.R6.total".into(), "0 to 64 points".into())
    );
    let gap = r#"{"id": "own", "bands": []}"#;
    assert_eq!(refused(log(Entry::new(ProgrammeInstrument { json: gap.into() }))).0, "json");

    // An observer's scale, a value that an item does not have, an instrument that is off, a dose to come.
    let cows = |value| Entry::answers("cows", [("1", value)]);
    assert_eq!(refused(log(cows(3))), ("answers.1".into(), "0, 1, 2, 4".into()));
    assert_eq!(refused(phone.replica.log(space, &cows(4))).0, "instrument");
    let benzo = Entry::answers("ciwa_b", [("1", 1)]);
    assert_eq!(refused(phone.replica.log(space, &benzo)).0, "instrument");
    log(Entry::new(Thresholds::default().instruments_on(["ciwa_b"]))).unwrap();
    desk.sync();
    phone.sync();
    phone.replica.log(space, &benzo).unwrap();
    let far = Moment { millis: i64::from(u32::MAX) * 1_000 - 400_000_000_000, offset_minutes: 0 };
    assert_eq!(
        refused(phone.replica.log(space, &Entry::dose("methadone", 60.0, Unit::Mg).at(far))).0,
        "occurred"
    );
}

#[test]
fn a_programme_brings_its_own_questionnaire_in_the_plan() {
    let root = tempfile::tempdir().unwrap();
    let (_server, phone, desk, space) = clinic(&root);
    let shipped = include_str!("../core/instruments/pain.json");
    let json = shipped.replacen("\"pain\"", "\"riverside_pain\"", 1);
    let answers = |value| Entry::answers_to("riverside_pain", pain_version(&json), [("1", value)]);
    refused(phone.replica.log(space, &answers(4)));
    desk.replica.log(space, &Entry::new(ProgrammeInstrument { json: json.clone() })).unwrap();
    desk.sync();
    phone.sync();
    let id = phone.replica.log(space, &answers(4)).unwrap();
    refused(phone.replica.log(space, &answers(11)));
    phone.sync();
    desk.sync();
    let scored = desk.replica.chart(space, |chart| {
        let series = chart.readings.iter().find(|(measure, _)| measure.name().starts_with("riverside_pain"));
        series.and_then(|(_, series)| series.iter().next().map(|point| (point.record, point.value.value)))
    });
    assert_eq!(scored.unwrap(), Some((id, 4.0)));
}

fn pain_version(json: &str) -> String {
    let file: serde_json::Value = serde_json::from_str(json).unwrap();
    file["version"].as_str().unwrap().to_owned()
}

#[test]
fn today_and_the_reminders_come_from_the_plan() {
    let root = tempfile::tempdir().unwrap();
    let (_server, phone, desk, space) = clinic(&root);
    let programme = Programme::new("Riverside")
        .zone("America/New_York")
        .helplines([Helpline::new("Riverside").phone("555 0100")]);
    desk.replica.log(space, &Entry::new(programme)).unwrap();
    let (first, at) = (date(2026, 1, 1), time(18, 0, 0, 0));
    let series = SessionSeries::weekly(SessionKind::Group, "evening group", first, Weekday::ALL, at, 180)
        .zone("America/New_York");
    desk.replica.log(space, &Entry::new(series)).unwrap();
    let daily = regimen("buprenorphine", &[(2026, 1, 1, 16.0)]);
    desk.replica.log(space, &Entry::new(daily)).unwrap();
    desk.sync();
    phone.sync();
    assert!(phone.replica.today(space).unwrap().items.len() >= 2, "a dose and a session a day");
    let reminders = phone.replica.notifications(space, 48).unwrap();
    assert!(reminders.len() >= 3, "two days of doses and sessions");
    assert_eq!(phone.replica.notifications(space, 48).unwrap(), reminders, "asked again, the same ones");
    assert_eq!(phone.replica.chart(space, crisis::lines).unwrap()[0].name, "Riverside");
}

#[test]
fn a_version_of_the_plan_awaits_the_persons_word() {
    let root = tempfile::tempdir().unwrap();
    let (_server, phone, desk, space) = clinic(&root);
    refused(phone.replica.publish_plan(space, "mine"));
    refused(desk.replica.publish_plan(space, "of nothing"));
    let methadone = |mg| Entry::new(regimen("methadone", &[(2026, 1, 1, mg)]));
    let order = desk.replica.log(space, &methadone(60.0)).unwrap();
    assert_eq!(desk.replica.plan_changes(space).unwrap().added, [order]);
    let version = desk.replica.publish_plan(space, "begins").unwrap();
    assert_eq!(desk.replica.plan_changes(space).unwrap(), PlanChanges::default());
    desk.replica.edit(space, order, &methadone(50.0)).unwrap();
    assert_eq!(desk.replica.plan_changes(space).unwrap().changed, [order]);
    desk.sync();
    phone.sync();
    assert_eq!(phone.replica.plan_changes(space).unwrap().changed, [order], "the phone sees the same");

    let asked = |agreed| {
        let items = phone.replica.today(space).unwrap().items;
        items.iter().any(|item| item.what == What::SignOff { number: 1, agreed } && item.record == version)
    };
    assert!(asked(None));
    let word = PlanSignOff { version, number: 1, agreed: true };
    phone.replica.log(space, &Entry::new(word.clone())).unwrap();
    assert!(asked(Some(true)));
    assert_eq!(
        refused(desk.replica.log(space, &Entry::new(word))).0,
        "kind",
        "nobody signs for somebody else"
    );
    assert_eq!(desk.replica.publish_plan(space, "less").map(|second| second > version).ok(), Some(true));
}

const HEAD: &str = "# Rules

What calls for attention is found by 28 rules, each a small function of chart and time (`core/src/clinical/rules`). This page is written from their table by `EBB_BLESS=1 cargo test --workspace --test clinical`; the same test fails when it says anything else than the table does. How findings become alerts is in [Clinical knowledge](clinical.md#alerts).

None of these rules has been validated in a study. Sources say where a figure comes from, not that it is right for a programme: thresholds are the programme's own, and a clinician must look at each before use. *Own default* means that nobody but Ebb says so.
";

#[test]
fn the_book_says_what_the_rules_are() {
    let mut page = String::from(HEAD);
    for rule in RULES {
        let _ = write!(page, "\n## {}: {}\n\n{}\n", rule.id, rule.title, rule.source);
        let clock = if rule.by_clock { " Time alone can raise it." } else { "" };
        let _ = writeln!(page, "\nVersion {}. Reads {}.{clock}", rule.version, topics(rule.reads));
        if !rule.parameters.is_empty() {
            page.push_str("\n| threshold | default | may be |\n|---|---|---|\n");
        }
        for one in rule.parameters {
            let _ = writeln!(
                page,
                "| `{}.{}` | {} {} | {} to {} |",
                rule.id, one.name, one.default, one.unit, one.min, one.max
            );
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/src/rules.md");
    if std::env::var_os("EBB_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "EBB_BLESS=1 writes docs/src/rules.md anew");
}

fn topics(topics: &[ebb_core::clinical::chart::Topic]) -> String {
    let names: Vec<_> = topics.iter().map(|topic| format!("{topic:?}").to_lowercase()).collect();
    names.join(", ")
}
