//! Instruments against what others say of them: VistA's scoring keys, HL7's scored example, and tables
//! typed by hand from the publications; and against properties that any of them must have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use ebb_core::clinical::instrument::{
    Answer, AnsweredBy, Answers, Instrument, Instruments, SafetyLevel, ScaleScore, ScoreError, Scores,
};
use ebb_core::record::{Category, Writer};
use flate2::read::GzDecoder;
use proptest::prelude::*;

#[path = "instruments/book.rs"]
mod book;
#[path = "instruments/loader.rs"]
mod loader;
#[path = "instruments/others.rs"]
mod others;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The JSON of a compressed file under `tests/data`.
fn data(path: &str) -> serde_json::Value {
    let file = fs::File::open(tests().join("data").join(path)).expect("lies in the project");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("gzip of text");
    serde_json::from_str(&text).expect("JSON")
}

fn get(id: &str) -> &'static Instrument {
    Instruments::shipped().get(id).unwrap_or_else(|| panic!("{id} is shipped"))
}

fn answers<'a>(given: impl IntoIterator<Item = (&'a str, i64)>) -> Answers {
    given.into_iter().map(|(item, value)| (item.to_owned(), value)).collect()
}

fn scores(instrument: &Instrument, answers: &Answers) -> Scores {
    instrument.score(answers, None).unwrap_or_else(|error| panic!("{}: {error}", instrument.id))
}

fn scale<'a>(scores: &'a Scores, id: &str) -> &'a ScaleScore {
    scores.scales.iter().find(|scale| scale.scale == id).unwrap_or_else(|| panic!("has {id}"))
}

/// Answers to the items of a scale that add up to a value, if any do.
fn adding_up_to(instrument: &Instrument, scale: &str, value: i64) -> Option<Answers> {
    let scale = instrument.scale(scale).expect("the scale is there");
    let mut reached = BTreeMap::from([(0, Answers::new())]);
    for id in &scale.items {
        let mut further = BTreeMap::new();
        for (sum, answers) in &reached {
            for answer in instrument.item(id).expect("counted").answer.values() {
                let counts = scale.conversions.get(id).map_or(answer, |values| values[&answer]);
                let sum = sum + counts;
                if sum <= value {
                    further.entry(sum).or_insert_with(|| {
                        let mut answers: Answers = answers.clone();
                        answers.insert(id.clone(), answer);
                        answers
                    });
                }
            }
        }
        reached = further;
    }
    reached.remove(&value)
}

// ---------------------------------------------------------------------------------- what publications say

/// Bands as the publications print them: instrument, table, rows.
type Bands = (&'static str, &'static str, &'static [(i64, i64, &'static str)]);
const BANDS: &[Bands] = &[
    (
        "cows",
        "wesson-ling-2003",
        &[
            (0, 4, "none"),
            (5, 12, "mild"),
            (13, 24, "moderate"),
            (25, 36, "moderately_severe"),
            (37, 48, "severe"),
        ],
    ),
    ("sows16", "ctn-0094", &[(0, 0, "none"), (1, 10, "mild"), (11, 20, "moderate"), (21, 64, "severe")]),
    ("ciwa_ar", "asam-2020", &[(0, 9, "mild"), (10, 18, "moderate"), (19, 67, "severe")]),
    ("ciwa_ar", "va", &[(0, 7, "mild"), (8, 14, "moderate"), (15, 67, "severe")]),
    (
        "ciwa_b",
        "busto-1989",
        &[(0, 0, "none"), (1, 20, "mild"), (21, 40, "moderate"), (41, 60, "severe"), (61, 80, "very_severe")],
    ),
    (
        "phq9",
        "kroenke-2001",
        &[
            (0, 4, "minimal"),
            (5, 9, "mild"),
            (10, 14, "moderate"),
            (15, 19, "moderately_severe"),
            (20, 27, "severe"),
        ],
    ),
    ("gad7", "spitzer-2006", &[(0, 4, "minimal"), (5, 9, "mild"), (10, 14, "moderate"), (15, 21, "severe")]),
];

#[test]
fn every_total_has_the_band_that_publications_print() {
    for (id, table, rows) in BANDS {
        let instrument = get(id);
        for (severity, (from, to, code)) in rows.iter().enumerate() {
            for total in *from..=*to {
                let answers = adding_up_to(instrument, "total", total);
                let answers = answers.unwrap_or_else(|| panic!("{id}: nothing adds up to {total}"));
                let scores = instrument.score(&answers, Some(table)).expect("fits");
                let score = scale(&scores, "total");
                let band = score.band.as_ref().expect("every total has a band");
                assert_eq!(score.value, Some(total), "{id}");
                assert_eq!(
                    (band.code.as_str(), score.table.as_deref()),
                    (*code, Some(*table)),
                    "{id} {total}"
                );
                assert_eq!(usize::from(band.severity), severity, "{id} {total}");
            }
        }
    }
    let known: BTreeSet<_> = BANDS.iter().map(|(id, table, _)| (*id, *table)).collect();
    for instrument in Instruments::shipped().iter() {
        for table in instrument.scales.iter().flat_map(|scale| &scale.tables) {
            assert!(known.contains(&(&*instrument.id, &*table.id)), "{} {}", instrument.id, table.id);
        }
    }
}

#[test]
fn a_programme_chooses_its_bands_and_the_result_names_them() {
    let ciwa = get("ciwa_ar");
    let answers = adding_up_to(ciwa, "total", 8).expect("8 is possible");
    let by = |table| {
        let scores = ciwa.score(&answers, table).expect("fits");
        let total = scale(&scores, "total").clone();
        (total.band.expect("a band").code, total.table.expect("its table"))
    };
    assert_eq!(by(None), ("mild".into(), "asam-2020".into()));
    assert_eq!(by(Some("va")), ("moderate".into(), "va".into()));
    let refused = ciwa.score(&answers, Some("wikipedia")).expect_err("no such table");
    assert_eq!(refused, ScoreError::Table { allowed: "one of: asam-2020, va".into() });
}

#[test]
fn cut_offs_are_reached_where_publications_say() {
    let phq2 = |total| {
        scale(&scores(get("phq2"), &adding_up_to(get("phq2"), "total", total).unwrap()), "total").clone()
    };
    assert!(phq2(2).cutoffs.is_empty());
    assert_eq!(phq2(3).cutoffs, ["positive"]);
    for id in ["bam", "bam_iop"] {
        let at = |name: &str, value| {
            let answers = adding_up_to(get(id), name, value).unwrap();
            scale(&scores(get(id), &answers), name).cutoffs.clone()
        };
        assert_eq!((at("use", 0).len(), at("use", 1)), (0, vec!["assess".to_owned()]));
        assert_eq!((at("risk", 11).len(), at("risk", 12)), (0, vec!["significant".to_owned()]));
        assert_eq!((at("protective", 13).len(), at("protective", 12)), (0, vec!["significant".to_owned()]));
    }
    assert!(get("bam_r").scales.iter().all(|scale| scale.cutoffs.is_empty()), "none were published");
}

/// Every safety answer: instrument, item, the answers that are urgent, those that are an emergency.
const SAFETY: &[(&str, &str, &[i64], &[i64])] = &[
    ("phq9", "9", &[1], &[2, 3]),
    ("phq2_i9", "3", &[1], &[2, 3]),
    ("cssrs_screener", "3", &[], &[1]),
    ("cssrs_screener", "4", &[], &[1]),
    ("cssrs_screener", "5", &[], &[1]),
    ("cssrs_screener", "6", &[], &[1]),
    ("cssrs_screener", "8", &[], &[1]),
    ("ciwa_ar", "6", &[], &[4, 5, 6, 7]),
    ("ciwa_ar", "7", &[], &[4, 5, 6, 7]),
    ("ciwa_ar", "8", &[], &[4, 5, 6, 7]),
    ("ciwa_ar", "10", &[], &[2, 3, 4]),
    ("ciwa_ar", "seizure", &[], &[1]),
];

#[test]
fn a_single_dangerous_answer_is_heard_and_no_other() {
    for instrument in Instruments::shipped().iter() {
        for item in &instrument.items {
            let row = SAFETY.iter().find(|(id, name, ..)| (*id, *name) == (&*instrument.id, &*item.id));
            for value in item.answer.values() {
                let level = row.and_then(|(_, _, urgent, emergency)| {
                    let urgent = urgent.contains(&value).then_some(SafetyLevel::Urgent);
                    emergency.contains(&value).then_some(SafetyLevel::Emergency).or(urgent)
                });
                let hits = scores(instrument, &answers([(item.id.as_str(), value)])).safety;
                let heard: Vec<_> = hits.iter().map(|hit| (&*hit.item, hit.value, hit.level)).collect();
                let meant: Vec<_> = level.into_iter().map(|level| (&*item.id, value, level)).collect();
                assert_eq!(heard, meant, "{} item {}", instrument.id, item.id);
            }
        }
    }
}

#[test]
fn a_dangerous_answer_is_heard_among_others_that_do_not_fit() {
    let given = answers([("1", 0), ("9", 3), ("11", 4), ("seizure", 1)]);
    assert!(get("phq9").score(&given, None).is_err());
    let heard = get("phq9").safety_hits(&given);
    assert_eq!(
        (heard.len(), heard[0].level, &*heard[0].code),
        (1, SafetyLevel::Emergency, "self_harm_thoughts_often")
    );
}

// ----------------------------------------------------------------------------------- answers and their gaps

#[test]
fn an_answer_that_does_not_exist_is_refused_with_those_that_do() {
    let refused = |id, item, value| get(id).check(&answers([(item, value)])).expect_err("no such answer");
    let cows = refused("cows", "1", 3);
    assert_eq!((cows.item.as_str(), cows.allowed.as_str()), ("1", "0, 1, 2, 4"));
    assert_eq!(cows.to_string(), "item 1 must be 0, 1, 2, 4");
    assert_eq!(refused("cows", "3", 2).allowed, "0, 1, 3, 5");
    assert_eq!(refused("pain", "1", 11).allowed, "0 to 10");
    assert_eq!(refused("bam_r", "14", 1).allowed, "0, 4");
    assert_eq!(refused("gad7", "8", 0).allowed, "one of 1, 2, 3, 4, 5, 6, 7");
    let scored = get("cows").score(&answers([("1", 3)]), None).expect_err("nor is it scored");
    assert_eq!(scored, ScoreError::Answer(cows));
}

#[test]
fn what_is_observed_comes_from_the_clinic() {
    for (id, item) in [("cows", "1"), ("ciwa_ar", "10"), ("ciwa_ar", "seizure"), ("ciwa_b", "18")] {
        let given = answers([(item, 0)]);
        let refused = get(id).check_from(Writer::Patient, &given).expect_err("not the person's to answer");
        assert_eq!((&*refused.item, &*refused.allowed), (item, "answered by an observer"));
        assert_eq!(get(id).check_from(Writer::Clinic, &given), Ok(()));
    }
    for (id, item) in [("ciwa_b", "17"), ("sows16", "1"), ("phq9", "9"), ("cssrs_screener", "2")] {
        assert_eq!(get(id).check_from(Writer::Patient, &answers([(item, 0)])), Ok(()));
    }
    assert!(!get("ciwa_b").on_by_default(), "nobody may turn it on but a programme with the right to");
    let off = Instruments::shipped().iter().filter(|one| !one.on_by_default()).count();
    assert_eq!(off, 1);
}

#[test]
fn each_has_its_rater_and_its_place() {
    let (person, observer, either) = (AnsweredBy::Person, AnsweredBy::Observer, AnsweredBy::Either);
    let (symptoms, wellbeing) = (Category::Symptoms, Category::Wellbeing);
    let meant = [
        ("sows16", person, symptoms, 0),
        ("cows", observer, symptoms, 0),
        ("ciwa_ar", observer, symptoms, 0),
        ("ciwa_b", person, symptoms, 0),
        ("craving", person, symptoms, 0),
        ("pain", person, symptoms, 0),
        ("phq9", person, wellbeing, 14),
        ("phq2", person, wellbeing, 14),
        ("phq2_i9", person, wellbeing, 14),
        ("gad7", person, wellbeing, 14),
        ("cssrs_screener", either, wellbeing, 30),
        ("bam", either, wellbeing, 30),
        ("bam_iop", either, wellbeing, 7),
        ("bam_r", either, wellbeing, 30),
    ];
    let shipped = Instruments::shipped().iter();
    let told: Vec<_> =
        shipped.map(|one| (one.id.as_str(), one.answered_by, one.category, one.window.days)).collect();
    assert_eq!(told, meant);
}

#[test]
fn the_persons_part_of_ciwa_b_has_no_total() {
    let ciwa_b = get("ciwa_b");
    let mut given: Answers = (1..=17).map(|item| (item.to_string(), 4)).collect();
    let part = scores(ciwa_b, &given);
    assert_eq!(
        (scale(&part, "total").value, &part.missing[..]),
        (None, &["18", "19", "20"].map(String::from)[..])
    );
    given.extend(answers([("18", 0), ("19", 1), ("20", 2)]));
    assert_eq!(scale(&scores(ciwa_b, &given), "total").value, Some(71));
    // Two questions are put positively. Their anchors are printed the other way round, and summed as they are.
    for item in &ciwa_b.items {
        let Answer::Options(options) = &item.answer else { panic!("options") };
        let values: Vec<_> = options.iter().map(|option| option.value).collect();
        let ends = [0, 4].map(|place: usize| options[place].label.get("en"));
        let turned = ["12", "14"].contains(&item.id.as_str());
        let meant = if turned { ["Very much so", "Not at all"] } else { ["Not at all", "Very much so"] };
        assert_eq!((&values[..], ends), (&[0, 1, 2, 3, 4][..], meant), "item {}", item.id);
    }
}

#[test]
fn questions_follow_from_answers() {
    let screener = get("cssrs_screener");
    let next = |given: &[(&str, i64)]| {
        let items = screener.next_items(&answers(given.iter().copied()));
        items.into_iter().map(|item| item.id.as_str()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(next(&[]), "1 2 7");
    assert_eq!(next(&[("1", 1), ("2", 0)]), "7");
    assert_eq!(next(&[("1", 1), ("2", 1)]), "3 4 5 7");
    assert_eq!(next(&[("1", 1), ("2", 1), ("3", 0), ("4", 0), ("5", 1)]), "6 7");
    assert_eq!(next(&[("1", 0), ("2", 0), ("7", 1)]), "8");
    // 6 follows 5, which is not asked any more once 2 is no.
    assert_eq!(next(&[("1", 0), ("2", 0), ("5", 1), ("7", 0)]), "");
    let done = scores(screener, &answers([("1", 0), ("2", 0), ("7", 0)]));
    assert!(done.missing.is_empty() && done.scales.is_empty() && done.safety.is_empty());
    let open = scores(screener, &answers([("1", 0), ("2", 1), ("4", 1), ("7", 0)]));
    assert_eq!(open.missing, ["3", "5"]);
    assert_eq!(open.safety.len(), 1, "an emergency does not wait for the rest");
    let changed = scores(screener, &answers([("1", 0), ("2", 0), ("4", 1), ("7", 0)]));
    assert_eq!(changed.safety.len(), 1, "and is heard where the question was not to be asked");
}

#[test]
fn what_an_answer_already_says_is_no_gap() {
    for id in ["bam", "bam_iop", "bam_r"] {
        let bam = get(id);
        let value = |given: &[(&str, i64)]| {
            let scores = scores(bam, &answers(given.iter().copied()));
            (scale(&scores, "use").value, scores.missing.contains(&"5".to_owned()))
        };
        assert_eq!(value(&[("4", 0), ("6", 3)]), (Some(3), false), "no drinking is no heavy drinking");
        assert_eq!(value(&[("4", 1), ("6", 3)]), (None, true));
        assert_eq!(value(&[("6", 3)]), (None, false), "4 comes first");
        assert_eq!(value(&[("4", 0), ("5", 2), ("6", 3)]), (Some(5), false), "what was answered counts");
        let next = bam.next_items(&answers([("4", 0), ("6", 0)]));
        assert!(next.iter().all(|item| item.id != "5" && !item.id.starts_with('7')));
        let next = bam.next_items(&answers([("6", 1)]));
        assert_eq!(next.iter().filter(|item| item.id.starts_with('7')).count(), 7);
    }
}

#[test]
fn subscales_are_complete_without_one_another() {
    let bam = get("bam");
    let given = answers([("1", 4), ("2", 4), ("3", 4), ("8", 4), ("11", 4), ("15", 4), ("14", 0)]);
    let scores = scores(bam, &given);
    let values: Vec<_> = scores.scales.iter().map(|scale| scale.value).collect();
    assert_eq!(values, [None, Some(24), None]);
    assert_eq!(scores.missing, ["4", "6", "9", "10", "12", "13", "16", "17"]);
}

// ---------------------------------------------------------------------------------------------- properties

/// An instrument, and for each of its items a number that chooses an answer.
fn filled() -> impl Strategy<Value = (&'static Instrument, Answers)> {
    let all: Vec<_> = Instruments::shipped().iter().collect();
    let choice = prop::collection::vec(any::<prop::sample::Index>(), 40);
    (prop::sample::select(all), choice).prop_map(|(instrument, choices)| {
        let answers = instrument.items.iter().zip(choices).map(|(item, choice)| {
            let values: Vec<_> = item.answer.values().collect();
            (item.id.clone(), *choice.get(&values))
        });
        (instrument, answers.collect())
    })
}

/// Failures are told, not filed away.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn complete_answers_have_values_within_range((instrument, answers) in filled()) {
        let scores = scores(instrument, &answers);
        prop_assert!(scores.missing.is_empty());
        prop_assert_eq!((&scores.instrument, &scores.version), (&instrument.id, &instrument.version));
        for (score, scale) in scores.scales.iter().zip(&instrument.scales) {
            let value = score.value.expect("complete");
            prop_assert!((scale.range.min..=scale.range.max).contains(&value));
            prop_assert_eq!(score.range, scale.range);
            prop_assert_eq!(score.band.is_some(), !scale.tables.is_empty());
            prop_assert!(score.band.iter().all(|band| (band.from..=band.to).contains(&value)));
        }
    }

    #[test]
    fn a_draft_has_no_total_names_what_misses_and_ends_the_same_in_any_order(
        (instrument, answers) in filled(),
        keys in prop::collection::vec(any::<u32>(), 40),
    ) {
        let mut order: Vec<_> = answers.iter().zip(keys).collect();
        order.sort_by_key(|(_, key)| *key);
        let (mut draft, mut heard) = (Answers::new(), 0);
        for ((item, value), _) in order {
            let before = scores(instrument, &draft);
            for (score, scale) in before.scales.iter().zip(&instrument.scales) {
                let open = scale.items.iter().any(|id| {
                    // The one item that another answer may speak for.
                    let spoken = id == "5" && instrument.id.starts_with("bam") && draft.get("4") == Some(&0);
                    !draft.contains_key(id) && !spoken
                });
                prop_assert_eq!(score.value.is_none(), open);
                prop_assert!(!open || score.band.is_none() && score.cutoffs.is_empty());
            }
            for id in &before.missing {
                prop_assert!(!draft.contains_key(id) && instrument.item(id).expect("an item").required);
            }
            prop_assert!(before.safety.len() >= heard, "what was heard is not unheard");
            heard = before.safety.len();
            draft.insert(item.clone(), *value);
        }
        let end = scores(instrument, &draft);
        prop_assert!(end.missing.is_empty());
        prop_assert!(end == scores(instrument, &answers));
    }

    #[test]
    fn an_answer_is_taken_if_it_is_among_the_values(
        (instrument, mut answers) in filled(),
        which in any::<prop::sample::Index>(),
        value in -3_i64..35,
    ) {
        let item = which.get(&instrument.items);
        answers.insert(item.id.clone(), value);
        let taken = instrument.check(&answers);
        prop_assert_eq!(taken.is_ok(), item.answer.values().any(|one| one == value));
        prop_assert!(taken.err().is_none_or(|refused| refused.item == item.id));
    }
}
