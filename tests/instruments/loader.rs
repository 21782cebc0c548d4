//! The strict loader: one broken file for each rule, refused with the file, the place and the rule.

use ebb_core::clinical::instrument::{FILE_BYTES_MAX, SchemaError};
use serde_json::{Value, json};

use super::*;

/// A file in two languages that uses everything there is.
fn sound() -> Value {
    let text = |words: &str| json!({ "en": words, "es": words });
    let options = json!({ "options": [
        { "value": 0, "label": text("no") },
        { "value": 3, "label": text("yes"), "loinc": "LA33-6" },
    ] });
    json!({
        "id": "own", "version": "1", "title": text("Own"),
        "languages": [{ "code": "en", "source": "own" }, { "code": "es", "source": "own", "unconfirmed": true }],
        "answered_by": "self", "category": "wellbeing",
        "window": { "days": 7, "text": text("the past week") },
        "instructions": text("Answer."),
        "items": [
            { "id": "1", "text": text("One?"), "answer": options, "lead": text("First") },
            { "id": "2", "text": text("Two?"), "answer": options,
              "asked_if": { "item": "1", "at_least": 3 }, "when_not_asked": 0 },
            { "id": "3", "text": text("Three?"), "scored": false, "required": false, "answered_by": "observer",
              "answer": { "range": { "min": 0, "max": 10, "min_label": text("none"), "max_label": text("all") } } },
        ],
        "scales": [{
            "id": "total", "title": text("Total"), "kind": "sum", "items": ["1", "2"],
            "conversions": { "2": { "0": 0, "3": 7 } },
            "range": { "min": 0, "max": 10 },
            "tables": [
                { "id": "a", "default": true, "source": "own", "rows": [
                    { "from": 0, "to": 4, "code": "low", "label": text("low"), "severity": 0 },
                    { "from": 5, "to": 10, "code": "high", "label": text("high"), "severity": 1 },
                ] },
                { "id": "b", "source": "own", "rows": [
                    { "from": 0, "to": 10, "code": "any", "label": text("any"), "severity": 0 },
                ] },
            ],
            "cutoffs": [{ "code": "positive", "bound": { "at_least": 3 }, "source": "own" }],
        }],
        "safety": [
            { "item": "3", "at_least": 5, "code": "some", "level": "urgent", "note": "some" },
            { "item": "3", "at_least": 9, "code": "all", "level": "emergency", "note": "all" },
        ],
        "codes": [{ "system": "loinc", "code": "72514-3", "display": "pain", "confidence": "one_source" }],
        "licence": { "status": "own", "text": "own", "source": "own" },
        "sources": ["own"], "not_validated": ["all of it"],
    })
}

fn load(file: &Value) -> Result<Instrument, SchemaError> {
    Instrument::from_json("own.json", &file.to_string())
}

/// The file with one place set; a key or an element that is not there is added.
fn with(pointer: &str, value: Value) -> Value {
    let mut file = sound();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match file.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} is there")) {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(list) => match key.parse::<usize>() {
            Ok(place) => list[place] = value,
            Err(_) => list.push(value),
        },
        _ => panic!("{parent} holds nothing"),
    }
    file
}

fn without(pointer: &str) -> Value {
    let mut file = sound();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match file.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} is there")) {
        Value::Object(map) => drop(map.remove(key).expect("is there")),
        Value::Array(list) => drop(list.remove(key.parse().expect("a place"))),
        _ => panic!("{parent} holds nothing"),
    }
    file
}

#[test]
fn a_sound_file_is_taken_and_says_what_it_says() {
    let own = load(&sound()).expect("sound");
    let scores = own.score(&answers([("1", 3), ("2", 3), ("3", 9)]), None).expect("fits");
    let total = scale(&scores, "total");
    assert_eq!((total.value, total.cutoffs.len()), (Some(10), 1));
    assert_eq!(total.band.as_ref().map(|band| band.code.as_str()), Some("high"));
    assert_eq!(scores.safety.iter().map(|hit| hit.code.as_str()).collect::<Vec<_>>(), ["all"]);
    assert_eq!(
        format!("{scores:?}{total:?}{:?}", scores.safety),
        "Scores(own 1)ScaleScore(total)[SafetyHit { .. }]"
    );
    let skipped = own.score(&answers([("1", 0)]), Some("b")).expect("fits");
    assert_eq!((scale(&skipped, "total").value, skipped.missing.len()), (Some(0), 0));
    assert_eq!(scale(&skipped, "total").table.as_deref(), Some("b"));
}

#[test]
fn what_was_not_asked_yet_is_a_gap_where_only_it_is_counted() {
    let mut file = sound();
    file["items"][0]["scored"] = json!(false);
    file["scales"][0] = json!({
        "id": "second", "title": { "en": "a", "es": "a" }, "kind": "sum", "items": ["2"],
        "range": { "min": 0, "max": 3 },
    });
    let own = load(&file).expect("sound");
    let value = |given: Answers| scores(&own, &given).scales[0].value;
    assert_eq!(value(answers([])), None, "nobody said yet that it need not be asked");
    assert_eq!(value(answers([("1", 0)])), Some(0));
    assert_eq!(value(answers([("1", 3)])), None);
    assert_eq!(value(answers([("1", 3), ("2", 3)])), Some(3));
}

#[test]
fn texts_fall_back_to_english() {
    let title = &get("phq9").title;
    assert!(title.get("es").starts_with("Cuestionario"));
    assert_eq!((title.get("es-US"), title.get("es_MX")), (title.get("es"), title.get("es")));
    assert_eq!((title.get("fr"), title.get("")), (title.get("en"), title.get("en")));
    assert_eq!(title.languages().collect::<Vec<_>>(), ["en", "es"]);
    for id in ["phq9", "phq2", "phq2_i9", "gad7"] {
        let languages: Vec<_> = get(id).languages.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(languages, ["en", "es"], "{id}");
    }
}

#[test]
fn each_rule_is_kept() {
    let row = |from: i64, to: i64, code: &str, severity: i64| json!({ "from": from, "to": to, "code": code, "label": { "en": "a", "es": "a" }, "severity": severity });
    let rows = "/scales/0/tables/0/rows";
    let option = |value: i64| json!({ "value": value, "label": { "en": "a", "es": "a" } });
    let safety = |at_least: i64, code: &str, level: &str| json!({ "item": "3", "at_least": at_least, "code": code, "level": level, "note": "a" });
    let condition = |item: &str, at_least: i64| json!({ "item": item, "at_least": at_least });
    let after_an_optional_one = json!({
        "id": "4", "text": { "en": "a", "es": "a" }, "answer": sound()["items"][0]["answer"],
        "scored": false, "asked_if": condition("3", 5),
    });
    let cases: Vec<(Value, &str, &str)> = vec![
        // What it is made of.
        (with("/colour", json!("red")), "line 1", "unknown field `colour`"),
        (with("/items/0/colour", json!("red")), "line 1", "unknown field `colour`"),
        (without("/version"), "line 1", "missing field `version`"),
        (without("/licence"), "line 1", "missing field `licence`"),
        (with("/category", json!("sleep")), "line 1", "unknown variant `sleep`"),
        (with("/category", json!("plan")), "category", "symptoms or wellbeing"),
        (with("/answered_by", json!("nurse")), "line 1", "unknown variant `nurse`"),
        (with("/licence/status", json!("fine")), "line 1", "unknown variant `fine`"),
        (with("/scales/0/kind", json!("mean")), "line 1", "unknown variant `mean`"),
        (with("/items/0/answer/options/0/value", json!(0.5)), "line 1", "expected i64"),
        (with("/items/0/answer/range", json!({})), "line 1", "expected value"),
        (with("/scales/0/cutoffs/0/bound/at_most", json!(4)), "line 1", "expected value"),
        (with("/id", json!("Own scale")), "id", "of a-z"),
        (with("/id", json!("a".repeat(41))), "id", "1 to 40"),
        (with("/version", json!(" ")), "version", "not empty"),
        (with("/licence/text", json!("")), "licence.text", "not empty"),
        (with("/licence/source", json!("")), "licence.source", "not empty"),
        (with("/sources", json!([])), "sources", "at least one"),
        (with("/sources/0", json!("")), "sources", "not empty"),
        (with("/codes/0/code", json!("")), "codes", "not empty"),
        (with("/instructions/en", json!("a".repeat(FILE_BYTES_MAX))), "file", "at most 262144 bytes"),
        // Languages.
        (without("/languages/0"), "languages", "English"),
        (with("/languages/1/code", json!("en")), "language en", "differ"),
        (with("/languages/1/source", json!("")), "language es", "not empty"),
        (without("/items/0/text/es"), "item 1", "no text in es"),
        (without("/items/0/text/en"), "item 1", "no text in en"),
        (without("/items/0/lead/es"), "item 1", "no text in es"),
        (without("/items/0/answer/options/1/label/es"), "item 1, option 3", "no text in es"),
        (without("/items/2/answer/range/max_label/es"), "item 3", "no text in es"),
        (without("/window/text/es"), "window", "no text in es"),
        (with("/title/fr", json!("a")), "title", "fr, which is not declared"),
        (with("/instructions/es", json!(" ")), "instructions", "not empty"),
        (without("/scales/0/title/es"), "scale total", "no text in es"),
        (without(&format!("{rows}/0/label/es")), "scale total, table a, band low", "no text in es"),
        // Items.
        (with("/items", json!([])), "items", "1 to 200"),
        (with("/items/1/id", json!("1")), "item 1", "ids of items differ"),
        (with("/items/1/id", json!("")), "item ", "an id is"),
        (with("/items/0/answer/options/1/value", json!(0)), "item 1, option 0", "values of options differ"),
        (with("/items/0/answer/options/1/value", json!(1_000_001)), "item 1, option 1000001", "1000000"),
        (without("/items/0/answer/options/1"), "item 1", "two options"),
        (with("/items/2/answer/range/max", json!(0)), "item 3", "min is less than its max"),
        (with("/items/2/answer/range/max", json!(1_000_001)), "item 3", "-1000000 to 1000000"),
        (with("/items/2/answer/range/min", json!(-1_000_001)), "item 3", "-1000000 to 1000000"),
        (with("/items/-", after_an_optional_one), "item 4", "names a required item"),
        (with("/items/0/required", json!(false)), "item 1", "scored item is required"),
        (with("/items/0/scored", json!(false)), "item 1", "if, and only if"),
        (with("/items/2/scored", json!(true)), "item 3", "scored item is required"),
        (with("/items/1/asked_if", condition("3", 3)), "item 2", "an item before it"),
        (with("/items/1/asked_if", condition("2", 3)), "item 2", "an item before it"),
        (with("/items/1/asked_if", condition("1", 4)), "item 2, asked_if", "they are 0, 3"),
        (with("/items/1/asked_if", condition("1", 0)), "item 2, asked_if", "they are 0, 3"),
        (without("/items/1/when_not_asked"), "item 2", "when_not_asked stands with"),
        (with("/items/2/when_not_asked", json!(0)), "item 3", "when_not_asked stands with"),
        (with("/items/1/when_not_asked", json!(1)), "item 2", "a value of the item"),
        // Scales.
        (with("/scales/-", sound()["scales"][0].clone()), "scale total", "ids of scales differ"),
        (with("/scales/0/id", json!("The total")), "scale The total", "an id is"),
        (with("/scales/0/conversions/2/3", json!(1_000_001)), "scale total, item 2", "-1000000 to 1000000"),
        (with("/scales/0/cutoffs/0/code", json!("")), "scale total, cutoff ", "an id is"),
        (with("/scales/0/tables/0/id", json!("A")), "scale total, table A", "an id is"),
        (with(&format!("{rows}/0/code"), json!("Low")), "scale total, table a, band Low", "an id is"),
        (with("/safety/0/code", json!("so me")), "safety so me of item 3", "an id is"),
        (with("/scales/0/items", json!([])), "scale total", "at least one item"),
        (with("/scales/0/items/-", json!("4")), "scale total, item 4", "items of the file"),
        (with("/scales/0/items/-", json!("1")), "scale total, item 1", "an item once"),
        (with("/scales/0/range/max", json!(11)), "scale total", "range is 0 to 10"),
        (with("/scales/0/range/min", json!(1)), "scale total", "range is 0 to 10"),
        (with("/scales/0/conversions/2/1", json!(1)), "scale total, item 2", "every value"),
        (without("/scales/0/conversions/2/3"), "scale total, item 2", "every value"),
        (with("/scales/0/conversions/3", json!({ "0": 0 })), "scale total, conversion of item 3", "counts"),
        (with("/scales/0/cutoffs/0/bound", json!({ "at_least": 11 })), "cutoff positive", "within the range"),
        (with("/scales/0/cutoffs/0/bound", json!({ "at_least": 0 })), "cutoff positive", "within the range"),
        (with("/scales/0/cutoffs/0/source", json!("")), "cutoff positive", "not empty"),
        (
            with("/scales/0/cutoffs/-", sound()["scales"][0]["cutoffs"][0].clone()),
            "cutoff positive",
            "differ",
        ),
        // Bands.
        (with("/scales/0/tables/0/default", json!(false)), "scale total", "is the default"),
        (with("/scales/0/tables/1/default", json!(true)), "scale total", "is the default"),
        (with("/scales/0/tables/1/id", json!("a")), "table a", "band tables differ"),
        (with("/scales/0/tables/0/source", json!("")), "table a", "not empty"),
        (with(rows, json!([])), "table a", "ends at 10"),
        (with(&format!("{rows}/1"), row(6, 10, "high", 1)), "table a, band high", "gap: it begins at 5"),
        (with(&format!("{rows}/1"), row(4, 10, "high", 1)), "table a, band high", "overlaps"),
        (with(&format!("{rows}/0"), row(1, 4, "low", 0)), "table a, band low", "gap: it begins at 0"),
        (with(&format!("{rows}/0"), row(-1, 4, "low", 0)), "table a, band low", "overlaps"),
        (with(&format!("{rows}/1"), row(5, 9, "high", 1)), "table a", "ends at 10"),
        (with(&format!("{rows}/1"), row(5, 11, "high", 1)), "table a", "ends at 10"),
        (with(&format!("{rows}/1"), row(5, 4, "high", 1)), "table a, band high", "no earlier"),
        (with(&format!("{rows}/1"), row(5, 10, "low", 1)), "table a, band low", "codes of bands differ"),
        (with(&format!("{rows}/1"), row(5, 10, "high", 2)), "table a, band high", "severity 1"),
        // Safety.
        (with("/safety/0/item", json!("4")), "safety some of item 4", "an item of the file"),
        (with("/safety/0/at_least", json!(11)), "safety some of item 3", "0 to 10"),
        (with("/safety/0/at_least", json!(0)), "safety some of item 3", "0 to 10"),
        (with("/safety/1", safety(5, "all", "emergency")), "safety some of item 3", "one rule for each"),
        (with("/safety/1", safety(4, "all", "emergency")), "safety some of item 3", "no less pressing"),
        (with("/safety/1", safety(9, "some", "emergency")), "safety some of item 3", "codes of safety"),
        (with("/safety/0/note", json!("")), "safety some of item 3", "not empty"),
        (with("/items/0/answer/options/-", option(0)), "item 1, option 0", "values of options differ"),
    ];
    for (file, place, rule) in cases {
        assert_ne!(file, sound(), "nothing was broken for {rule}");
        let Err(refused) = load(&file) else { panic!("taken against the rule: {place}: {rule}") };
        assert_eq!(refused.file, "own.json");
        assert!(refused.place.contains(place), "{rule}: at {}", refused.place);
        assert!(refused.rule.contains(rule), "{}: {}", refused.place, refused.rule);
        assert_eq!(refused.to_string(), format!("own.json: {}: {}", refused.place, refused.rule));
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let text = sound().to_string();
    let doubled = |of: &str, by: &str| {
        assert!(text.contains(of), "{of}");
        Instrument::from_json("own.json", &text.replacen(of, by, 1)).expect_err("refused").rule
    };
    assert!(doubled(r#""0":0,"3":7"#, r#""0":0,"3":7,"3":8"#).contains("stands twice"));
    assert!(doubled(r#"{"en":"Own","#, r#"{"en":"Owner","en":"Own","#).contains("stands twice"));
    assert!(doubled(r#"{"2":{"0":0"#, r#"{"2":{"0":1,"3":7},"2":{"0":0"#).contains("stands twice"));
    assert!(doubled(r#""version":"1""#, r#""version":"1","version":"2""#).contains("duplicate field"));
    assert!(Instrument::from_json("own.json", &text[..text.len() - 1]).is_err(), "cut short");
    assert!(Instrument::from_json("own.json", "").is_err());
}

#[test]
fn a_programme_adds_its_own() {
    let own = |version: &str| load(&with("/version", json!(version))).expect("sound");
    let shipped = Instruments::shipped();
    let set = shipped.with(own("1")).expect("a new id").with(own("2")).expect("a new version");
    assert_eq!(set.get("own").map(|one| one.version.as_str()), Some("2"), "what was added last");
    assert_eq!(
        set.get_version("own", "1").map(|one| one.version.as_str()),
        Some("1"),
        "older answers keep theirs"
    );
    assert!(set.get_version("own", "3").is_none() && shipped.get("own").is_none());
    assert_eq!(set.iter().count(), shipped.iter().count() + 2);
    let first: Vec<_> = set.iter().map(|one| one.id.as_str()).take(3).collect();
    assert_eq!(first, ["sows16", "cows", "ciwa_ar"]);
    assert!(set.with(own("2")).is_err_and(|error| error.rule.contains("there already")));
    let taken = load(&with("/id", json!("cows"))).expect("sound in itself");
    assert!(shipped.with(taken).is_err_and(|error| error.rule.contains("ships is not free")));
}
