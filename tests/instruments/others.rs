//! What others compute: VistA's scoring keys, its routine for BAM-R, HL7's scored example; and the check
//! digits of codes.

use super::*;

/// VistA's entries: its name, ours, how many of its first items are not of the scale, and its scales by
/// their names with ours.
type Entry = (&'static str, &'static str, usize, &'static [(&'static str, &'static str)]);
const ENTRIES: &[Entry] = &[
    ("COWS", "cows", 0, &[("COWS Scale", "total")]),
    // Time, pulse and blood pressure.
    ("CIWA-AR-", "ciwa_ar", 3, &[("Total Score", "total")]),
    // Date and method.
    ("BAM", "bam", 2, &[("Use", "use"), ("Risk Factors", "risk"), ("Protective Factors", "protective")]),
    (
        "BAM-IOP",
        "bam_iop",
        2,
        &[("Use", "use"), ("Risk Factors", "risk"), ("Protective Factors", "protective")],
    ),
    ("PHQ9", "phq9", 0, &[("PHQ9", "total")]),
    ("PHQ-2", "phq2", 0, &[("Depression", "total")]),
    ("PHQ-2+I9", "phq2_i9", 0, &[("Suicide Ideation", "suicide_ideation"), ("Depression", "depression")]),
    ("GAD-7", "gad7", 0, &[("Anxiety", "total")]),
];

/// Where our words are not VistA's: a misspelling, and two of its own.
const REWORDED: &[(&str, &str)] = &[
    ("reportsdifficultysiftingstillbutisabletodoso", "reportsdifficultysittingstillbutisabletodoso"),
    ("showingmildnauseaandnovomiting", "mildnauseawithnovomiting"),
    ("disorientedforplaceorperson", "disorientedforplaceandorperson"),
];

/// Letters and digits alone.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn str_of<'a>(value: &'a serde_json::Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is a text"))
}

fn list<'a>(value: &'a serde_json::Value, field: &str) -> &'a [serde_json::Value] {
    value[field].as_array().unwrap_or_else(|| panic!("{field} is a list"))
}

/// A scale of VistA: for each of its questions, what each answer's words score. Other words score nothing.
struct Keys(BTreeMap<String, BTreeMap<String, i64>>);

impl Keys {
    fn read(scale: &serde_json::Value) -> Self {
        let mut keys = BTreeMap::<String, BTreeMap<String, i64>>::new();
        for key in list(scale, "keys") {
            let words = str_of(key, "answer").split(" (Score").next().expect("words");
            let words = plain(words);
            let words = REWORDED
                .iter()
                .find(|(theirs, _)| *theirs == words)
                .map_or(words, |(_, ours)| (*ours).into());
            let value = str_of(key, "value").parse().expect("a number");
            assert_eq!(keys.entry(str_of(key, "q").into()).or_default().insert(words, value), None);
        }
        Self(keys)
    }

    /// What an answer scores to a question, by its words alone.
    fn score(&self, question: &str, label: &str) -> i64 {
        let named = |words: &str| self.0.get(question).and_then(|keys| keys.get(words)).copied();
        // Between its printed anchors CIWA-Ar has numbers, which VistA calls "nausea 5".
        let numbered = || {
            let keys = self.0.get(question)?.iter();
            keys.into_iter()
                .find(|(words, _)| {
                    words.trim_end_matches(char::is_numeric) != words.as_str()
                        && words.ends_with(label)
                        && label.parse::<i64>().is_ok()
                })
                .map(|(_, value)| *value)
        };
        named(&plain(label)).or_else(numbered).unwrap_or(0)
    }
}

/// An entry of VistA beside ours: for each of our items the id of VistA's question.
struct Pair {
    instrument: &'static Instrument,
    questions: Vec<String>,
    scales: Vec<(&'static str, Keys)>,
    /// VistA's scales of one item each.
    single: Vec<Keys>,
}

fn pairs() -> Vec<Pair> {
    let vista = data("instruments/vista.json.gz");
    let read = ENTRIES.iter().map(|(theirs, ours, skipped, scales)| {
        let (entry, instrument) = (&vista["instruments"][*theirs], get(ours));
        let questions = &list(entry, "items")[*skipped..];
        let own = instrument.items.iter().filter(|item| item.id != "seizure");
        assert_eq!(own.clone().count(), questions.len(), "{ours}");
        for (item, question) in own.zip(questions) {
            assert_eq!(
                plain(item.text.get("en")),
                plain(str_of(question, "text")),
                "{ours} item {}",
                item.id
            );
        }
        let groups = list(entry, "scoring");
        let main = list(&groups[0], "scales");
        assert_eq!(main.len(), scales.len(), "{ours}");
        let keyed = scales.iter().map(|(name, id)| {
            let found = main.iter().find(|scale| str_of(scale, "name") == *name);
            (*id, Keys::read(found.unwrap_or_else(|| panic!("{theirs} has {name}"))))
        });
        Pair {
            instrument,
            questions: questions.iter().map(|question| str_of(question, "id").to_owned()).collect(),
            scales: keyed.collect(),
            single: groups[1..].iter().flat_map(|group| list(group, "scales")).map(Keys::read).collect(),
        }
    });
    read.collect()
}

impl Pair {
    fn question(&self, item: &str) -> &str {
        let place = self.instrument.items.iter().position(|one| one.id == item).expect("an item");
        &self.questions[place]
    }

    /// What VistA makes of answers on a scale, from their words.
    fn score(&self, keys: &Keys, answers: &Answers) -> i64 {
        let of_item = |(item, value): (&String, &i64)| {
            let options = options(self.instrument, item);
            let (_, label) = options.iter().find(|(one, _)| one == value).expect("an option");
            keys.score(self.question(item), label)
        };
        answers.iter().filter(|(item, _)| *item != "seizure").map(of_item).sum()
    }

    fn compare(&self, answers: &Answers) {
        let scores = scores(self.instrument, answers);
        for (id, keys) in &self.scales {
            let theirs = self.score(keys, answers);
            assert_eq!(scale(&scores, id).value, Some(theirs), "{} {id}", self.instrument.id);
        }
    }
}

fn options(instrument: &Instrument, item: &str) -> Vec<(i64, String)> {
    match &instrument.item(item).expect("an item").answer {
        Answer::Options(options) => {
            options.iter().map(|one| (one.value, one.label.get("en").to_owned())).collect()
        }
        Answer::Range(_) => panic!("VistA's keys are of options"),
    }
}

#[test]
fn every_option_scores_what_vista_says() {
    let mut seen = 0;
    for pair in pairs() {
        for (id, keys) in &pair.scales {
            let scale = pair.instrument.scale(id).expect("ours");
            let counted: BTreeSet<_> =
                scale.items.iter().map(|item| pair.question(item).to_owned()).collect();
            let theirs: BTreeSet<_> = keys.0.keys().cloned().collect();
            assert_eq!(counted, theirs, "{} {id} counts the same items", pair.instrument.id);
            for item in &scale.items {
                let question = pair.question(item);
                let mut named = BTreeSet::new();
                for (value, label) in options(pair.instrument, item) {
                    assert_eq!(
                        keys.score(question, &label),
                        value,
                        "{} item {item}: {label}",
                        pair.instrument.id
                    );
                    named.insert(value);
                    seen += 1;
                }
                // What is not listed scores 0, so the sets of values are equal with it.
                let mut theirs: BTreeSet<_> = keys.0[question].values().copied().collect();
                theirs.insert(0);
                assert_eq!(named, theirs, "{} item {item}", pair.instrument.id);
            }
        }
        // Scales of one item score the answer itself.
        for keys in &pair.single {
            assert_eq!(keys.0.len(), 1);
            for item in &pair.instrument.items {
                if keys.0.contains_key(pair.question(&item.id)) {
                    for (value, label) in options(pair.instrument, &item.id) {
                        assert_eq!(keys.score(pair.question(&item.id), &label), value);
                    }
                }
            }
        }
    }
    assert!(seen > 250, "too few options to be all of them: {seen}");
}

#[test]
fn totals_are_those_of_vistas_keys() {
    let pairs = pairs();
    for pair in &pairs {
        let with = |choose: fn(&[i64]) -> i64| -> Answers {
            let items = pair.instrument.items.iter();
            items.map(|item| (item.id.clone(), choose(&item.answer.values().collect::<Vec<_>>()))).collect()
        };
        let least = with(|values| *values.iter().min().unwrap());
        pair.compare(&least);
        pair.compare(&with(|values| *values.iter().max().unwrap()));
        for item in &pair.instrument.items {
            for value in item.answer.values() {
                let mut one = least.clone();
                one.insert(item.id.clone(), value);
                pair.compare(&one);
            }
        }
    }
    proptest!(cases(512), |((instrument, answers) in filled())| {
        if let Some(pair) = pairs.iter().find(|pair| pair.instrument.id == instrument.id) {
            pair.compare(&answers);
        }
    });
}

#[test]
fn the_screener_has_vistas_answers_under_other_numbers() {
    let vista = data("instruments/vista.json.gz");
    let (entry, screener) = (&vista["instruments"]["C-SSRS"], get("cssrs_screener"));
    let scales = list(&list(entry, "scoring")[0], "scales");
    assert_eq!((list(entry, "items").len(), scales.len(), screener.items.len()), (8, 8, 8));
    for ((item, question), theirs) in screener.items.iter().zip(list(entry, "items")).zip(scales) {
        assert_eq!(plain(item.text.get("en")), plain(str_of(question, "text")));
        let keys = Keys::read(theirs);
        for (value, label) in options(screener, &item.id) {
            let (theirs, ours) = (keys.score(str_of(question, "id"), &label), [(1, 1), (2, 0)]);
            assert!(ours.contains(&(theirs, value)), "item {} {label}: {theirs} and {value}", item.id);
        }
    }
}

/// YTSBAMR, VistA's routine for BAM-R, again from its source: sums over what each item, by its printed
/// number, adds. Answers in words are 0 to 4 by their order; item 14 is Y or not.
fn ytsbamr(answers: &Answers) -> [i64; 3] {
    let adjusted = |leg: i64| [0, 8, 15, 22, 30][usize::try_from(leg).expect("0 to 4")];
    let (mut used, mut risk, mut protect) = (0, 0, 0);
    for (item, leg) in answers {
        match item.as_str() {
            "4" | "5" | "6" => used += leg,
            "1" | "8" | "15" => risk += adjusted(*leg),
            "2" | "3" | "11" => risk += leg,
            "9" | "12" => protect += adjusted(*leg),
            "10" | "13" | "16" => protect += leg,
            "14" => protect += if *leg == 4 { 30 } else { 0 },
            _ => {}
        }
    }
    [used, risk, protect]
}

#[test]
fn bam_r_is_that_of_vistas_routine() {
    let bam_r = get("bam_r");
    let vista = data("instruments/vista.json.gz");
    let questions = &list(&vista["instruments"]["BAM-R"], "items")[2..];
    assert_eq!(questions.len(), bam_r.items.len());
    for (item, question) in bam_r.items.iter().zip(questions) {
        assert_eq!(plain(item.text.get("en")), plain(str_of(question, "text")), "item {}", item.id);
    }
    let values = |answers: &Answers| {
        let scores = scores(bam_r, answers);
        ["use", "risk", "protective"].map(|id| scale(&scores, id).value.expect("complete"))
    };
    let choice = prop::collection::vec(any::<prop::sample::Index>(), bam_r.items.len());
    proptest!(cases(512), |(choices in choice)| {
        let chosen = bam_r.items.iter().zip(choices).map(|(item, choice)| {
            (item.id.clone(), *choice.get(&item.answer.values().collect::<Vec<_>>()))
        });
        let answers: Answers = chosen.collect();
        prop_assert_eq!(values(&answers), ytsbamr(&answers));
    });
    let most =
        bam_r.items.iter().map(|item| (item.id.clone(), item.answer.values().max().unwrap())).collect();
    assert_eq!(values(&most), [90, 180, 180]);
}

#[test]
fn hl7s_example_scores_what_it_says() {
    let (phq9, response) = (get("phq9"), data("fhir/QuestionnaireResponse-phq-9-example.json.gz"));
    let by_code = |code: &str| phq9.items.iter().find(|item| item.loinc.as_deref() == Some(code));
    let value_of = |item: &ebb_core::clinical::instrument::Item, code: &str| match &item.answer {
        Answer::Options(options) => {
            let option = options.iter().find(|option| option.loinc.as_deref() == Some(code));
            option.unwrap_or_else(|| panic!("item {} has {code}", item.id)).value
        }
        Answer::Range(_) => panic!("options"),
    };
    let (mut given, mut said) = (Answers::new(), None);
    for one in list(&response, "item") {
        let (code, answer) = (str_of(one, "linkId").trim_start_matches('/'), &list(one, "answer")[0]);
        match by_code(code) {
            Some(item) => {
                let value = value_of(item, str_of(&answer["valueCoding"], "code"));
                assert_eq!(given.insert(item.id.clone(), value), None, "answered once");
            }
            None => said = Some((code.to_owned(), answer["valueDecimal"].as_i64())),
        }
    }
    let scores = scores(phq9, &given);
    let total = scale(&scores, "total");
    assert_eq!((total.value, scores.missing.len()), (Some(12), 0));
    assert_eq!(total.band.as_ref().map(|band| band.code.as_str()), Some("moderate"));
    assert_eq!(given["10"], 1, "somewhat difficult");
    let (code, value) = said.expect("the response holds its own total");
    assert_eq!(value, total.value);
    assert!(phq9.scales[0].codes.iter().any(|one| one.code == code), "{code} is the total's");

    // Every option of the questionnaire has the ordinal value that ours has.
    let questionnaire = data("fhir/Questionnaire-phq-9-example.json.gz");
    let mut compared = 0;
    for one in list(&questionnaire, "item").iter().filter(|one| one["answerOption"].is_array()) {
        let item = by_code(str_of(&one["code"][0], "code")).expect("ours has it");
        let same = plain(str_of(one, "text")).starts_with(&plain(item.text.get("en")));
        assert!(same || item.id == "10", "item {} has another one's code", item.id);
        for option in list(one, "answerOption") {
            let ours = value_of(item, str_of(&option["valueCoding"], "code"));
            let extensions = option["extension"].as_array().into_iter().flatten();
            for extension in extensions.filter(|one| str_of(one, "url").ends_with("ordinalValue")) {
                assert_eq!(extension["valueDecimal"].as_i64(), Some(ours));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 36);
    assert_eq!(str_of(&questionnaire["code"][0], "code"), phq9.codes[0].code);
}

// ------------------------------------------------------------------------------------------------- codes

/// LOINC's check digit: every second digit from the right doubled.
fn loinc_digit(digits: &str) -> u32 {
    let sum: u32 = digits
        .chars()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = digit.to_digit(10).expect("a digit") * if place % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

/// SNOMED CT's check digit, Verhoeff's: whether the whole number comes to 0.
fn verhoeff_holds(number: &str) -> bool {
    const TIMES: [[usize; 10]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
        [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
        [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
        [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const STEP: [usize; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let mut sum = 0;
    for (place, digit) in number.bytes().rev().enumerate() {
        let digit = (0..place % 8).fold(usize::from(digit - b'0'), |digit, _| STEP[digit]);
        sum = TIMES[sum][digit];
    }
    sum == 0
}

#[test]
fn codes_are_where_they_belong() {
    let items: &[(&str, &[&str])] = &[
        (
            "phq9",
            &[
                "44250-9", "44255-8", "44259-0", "44254-1", "44251-7", "44258-2", "44252-5", "44253-3",
                "44260-8", "69722-7",
            ],
        ),
        ("phq2", &["44250-9", "44255-8"]),
        ("phq2_i9", &["44250-9", "44255-8", "44260-8"]),
        ("gad7", &["69725-0", "68509-9", "69733-4", "69734-2", "69735-9", "69689-8", "69736-7"]),
        ("pain", &["72514-3"]),
    ];
    // Of the whole, and of its scores.
    let wholes: &[(&str, &[&str], &[&str])] = &[
        ("cows", &["openEHR-EHR-OBSERVATION.cow_score.v0"], &["763699005"]),
        ("ciwa_ar", &["895761000000107"], &[]),
        ("pain", &[], &["72514-3"]),
        ("phq9", &["44249-1", "758711000000105"], &["44261-6", "720433000"]),
        ("phq2", &["55757-9", "836521000000107"], &["55758-7"]),
        ("gad7", &["69737-5"], &["70274-6", "704501007"]),
        ("cssrs_screener", &["865998003"], &[]),
    ];
    for one in Instruments::shipped().iter() {
        let told: Vec<_> = one.items.iter().filter_map(|item| item.loinc.as_deref()).collect();
        let meant = items.iter().find(|(id, _)| *id == one.id).map_or(&[][..], |(_, codes)| codes);
        assert_eq!(told, meant, "{}", one.id);
        let codes: Vec<_> = one.codes.iter().map(|code| code.code.as_str()).collect();
        let of_scores = one.scales.iter().flat_map(|scale| &scale.codes);
        let of_scores: Vec<_> = of_scores.map(|code| code.code.as_str()).collect();
        let meant = wholes.iter().find(|(id, ..)| *id == one.id);
        let meant = meant.map_or((&[][..], &[][..]), |(_, whole, scores)| (*whole, *scores));
        assert_eq!((&codes[..], &of_scores[..]), meant, "{}", one.id);
    }
}

#[test]
fn no_code_is_misspelt() {
    use ebb_core::clinical::instrument::CodeSystem;
    let mut seen = 0;
    for instrument in Instruments::shipped().iter() {
        let items = instrument.items.iter().filter_map(|item| item.loinc.clone());
        let codes: Vec<_> =
            instrument.codes.iter().chain(instrument.scales.iter().flat_map(|one| &one.codes)).collect();
        let of = |system| codes.iter().filter(move |one| one.system == system).map(|one| one.code.clone());
        for code in items.chain(of(CodeSystem::Loinc)) {
            let (digits, digit) = code.split_once('-').expect("LOINC's form");
            assert_eq!(loinc_digit(digits).to_string(), digit, "{} {code}", instrument.id);
            seen += 1;
        }
        for code in of(CodeSystem::Snomed) {
            assert!(verhoeff_holds(&code), "{} {code}", instrument.id);
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}
