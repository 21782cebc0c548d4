//! The book's page on instruments, written from the data, so that it cannot say anything else.

use std::fmt::Write as _;

use ebb_core::clinical::instrument::{Bound, Code, CodeSystem, Confidence, Item, LicenceStatus, Scale};

use super::*;

const HEAD: &str = "# Instruments

Questionnaires and rating scales are data: `core/instruments` holds a file for each, and a strict loader (`core/src/clinical/instrument/load.rs`) refuses one that has a gap in its bands, a text missing in one of its languages, or a scale that does not add up. This page is written from those files by `EBB_BLESS=1 cargo test --workspace --test instruments`; the same test fails when it says anything else than they do.

- Answers are stored, scores are computed. A total is there when every item that it counts was answered: a gap is never scored. Where an answer to one question says that the next need not be asked, that one is no gap.
- A value outside of an item's options is refused, with the item and the options.
- A result names the instrument's version and the band table. Several tables may exist; a programme chooses.
- A dangerous answer is heard at once, from an unfinished form as well.
- What only an observer may rate, a person's app cannot log.
- A programme may add files of its own. They pass the same loader and may not take an id that is here.

A code from *one source* stands in a mapping file somewhere and was not confirmed. Where no code stands, none was found; that is no proof that there is none.
";

#[test]
fn the_book_says_what_the_files_say() {
    let path = tests().parent().expect("tests is a folder of the project").join("docs/src/instruments.md");
    let page = page();
    if std::env::var_os("EBB_BLESS").is_some() {
        fs::write(&path, &page).expect("writes");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(page.lines()).find(|(there, meant)| there != meant);
    assert!(committed == page, "EBB_BLESS=1 writes it anew; it differs first at {differs:?}");
}

fn page() -> String {
    let mut page = String::from(HEAD);
    let mut line = |text: String| {
        page.push_str(&text);
        page.push('\n');
    };
    line(
        "\n| id | instrument | answered by | asks about | items | range |\n|---|---|---|---|---|---|".into(),
    );
    for one in Instruments::shipped().iter() {
        let ranges: Vec<_> = one
            .scales
            .iter()
            .map(|scale| {
                let name = if scale.id == "total" { String::new() } else { format!("{} ", scale.id) };
                format!("{name}{}-{}", scale.range.min, scale.range.max)
            })
            .collect();
        let ranges = if ranges.is_empty() { "not summed".to_owned() } else { ranges.join(", ") };
        line(format!(
            "| [`{}`](#{}) | {} | {} | {} | {} | {ranges} |",
            one.id,
            one.id,
            cell(one.title.get("en")),
            raters(one),
            cell(one.window.text.get("en")),
            one.items.len(),
        ));
    }
    for one in Instruments::shipped().iter() {
        line(format!("\n## {}\n\n{}, version {}.", one.id, one.title.get("en"), one.version));
        if !one.on_by_default() {
            line("**Off until a programme turns it on.**".into());
        }
        line(format!("\n> {}\n", one.instructions.get("en")));
        line("| item | question | answers | LOINC |\n|---|---|---|---|".into());
        one.items.iter().enumerate().for_each(|(place, item)| line(row(one, place, item)));
        one.scales.iter().for_each(|scale| line(scored(scale)));
        if !one.safety.is_empty() {
            line("\n**Heard at once:**\n".into());
        }
        for safety in &one.safety {
            let level = format!("{:?}", safety.level).to_lowercase();
            line(format!(
                "- item {}, {} or more: {level} (`{}`). {}",
                safety.item, safety.at_least, safety.code, safety.note
            ));
        }
        let codes: Vec<_> = one.codes.iter().map(code).collect();
        if !codes.is_empty() {
            line(format!("\n**Codes:** {}.", codes.join("; ")));
        }
        let status = match one.licence.status {
            LicenceStatus::Granted => "granted by its holder",
            LicenceStatus::Assumed => "assumed",
            LicenceStatus::Unconfirmed => "unconfirmed",
            LicenceStatus::Own => "our own",
        };
        line(format!(
            "\n**Licence:** {status}. {} ({})",
            one.licence.text,
            one.licence.source.trim_end_matches('.')
        ));
        for language in &one.languages {
            let doubt = if language.unconfirmed { " **Wording unconfirmed.**" } else { "" };
            line(format!("\n**Text ({}):** {}{doubt}", language.code, language.source));
        }
        listed("Sources", &one.sources).map(&mut line);
        listed("Not validated", &one.not_validated).map(&mut line);
        listed("Notes", &one.notes).map(&mut line);
    }
    page
}

fn listed(title: &str, lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| format!("\n**{title}:**\n\n- {}", lines.join("\n- ")))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn rater(who: AnsweredBy) -> &'static str {
    match who {
        AnsweredBy::Person => "the person",
        AnsweredBy::Observer => "an observer",
        AnsweredBy::Either => "the person, or in an interview",
    }
}

fn raters(one: &Instrument) -> String {
    let other: Vec<_> = one.items.iter().filter(|item| item.answered_by.is_some()).collect();
    let Some(item) = other.first() else { return rater(one.answered_by).to_owned() };
    let ids: Vec<_> = other.iter().map(|item| item.id.as_str()).collect();
    format!("{}; {} by {}", rater(one.answered_by), ids.join(", "), rater(one.answered_by(item)))
}

fn values(answer: &Answer) -> String {
    match answer {
        Answer::Options(options) => {
            let each = options.iter().map(|option| {
                let label = option.label.get("en");
                if label == option.value.to_string() {
                    label.to_owned()
                } else {
                    format!("{} {label}", option.value)
                }
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Answer::Range(range) => {
            let (least, most) = (range.min_label.get("en"), range.max_label.get("en"));
            format!("{} {least} ... {} {most}", range.min, range.max)
        }
    }
}

fn row(one: &Instrument, place: usize, item: &Item) -> String {
    let mut values_said = values(&item.answer);
    if place.checked_sub(1).is_some_and(|before| values(&one.items[before].answer) == values_said) {
        values_said = "as above".to_owned();
    }
    let mut text = item.text.get("en").to_owned();
    if let Some(lead) = &item.lead {
        text = format!("*{}* {text}", lead.get("en"));
    }
    let mut said = |holds: bool, what: &str| {
        if holds {
            let _ = write!(text, " *({what})*");
        }
    };
    said(item.answered_by.is_some(), &format!("answered by {}", rater(one.answered_by(item))));
    said(!item.scored && !one.scales.is_empty(), "not counted");
    said(!item.required && item.asked_if.is_none(), "may be left out");
    if let Some(condition) = &item.asked_if {
        said(true, &format!("asked if {} is {} or more", condition.item, condition.at_least));
    }
    said(item.note.is_some(), item.note.as_deref().unwrap_or_default());
    format!(
        "| {} | {} | {} | {} |",
        item.id,
        cell(&text),
        cell(&values_said),
        item.loinc.as_deref().unwrap_or_default()
    )
}

fn scored(scale: &Scale) -> String {
    let mut text = format!(
        "\n**{}** (`{}`): the sum of items {}",
        scale.title.get("en"),
        scale.id,
        scale.items.join(", ")
    );
    let _ = write!(text, ", {} to {}.", scale.range.min, scale.range.max);
    let mut conversions = BTreeMap::<_, Vec<&str>>::new();
    for item in scale.items.iter().filter(|item| scale.conversions.contains_key(*item)) {
        conversions.entry(&scale.conversions[item]).or_default().push(item);
    }
    for (values, items) in conversions {
        let values: Vec<_> = values.iter().map(|(from, to)| format!("{from} counts {to}")).collect();
        let _ = write!(text, " In {}, {}.", items.join(", "), values.join(", "));
    }
    for cutoff in &scale.cutoffs {
        let bound = match cutoff.bound {
            Bound::AtLeast(least) => format!("{least} or more"),
            Bound::AtMost(most) => format!("{most} or less"),
        };
        let _ = write!(text, "\n\nCut-off `{}`: {bound}. {}", cutoff.code, cutoff.source);
    }
    for table in &scale.tables {
        let default = if table.default { ", the default" } else { "" };
        let _ = write!(
            text,
            "\n\nBands `{}`{default}. {}\n\n| from | to | band |\n|---|---|---|",
            table.id, table.source
        );
        for row in &table.rows {
            let _ = write!(text, "\n| {} | {} | {} |", row.from, row.to, row.label.get("en"));
        }
    }
    let codes: Vec<_> = scale.codes.iter().map(code).collect();
    if !codes.is_empty() {
        let _ = write!(text, "\n\nCodes of the score: {}.", codes.join("; "));
    }
    text
}

fn code(code: &Code) -> String {
    let system = match code.system {
        CodeSystem::Loinc => "LOINC",
        CodeSystem::Snomed => "SNOMED CT",
        CodeSystem::Openehr => "openEHR",
    };
    let doubt = match code.confidence {
        Confidence::Verified => "",
        Confidence::OneSource => ", *one source*",
    };
    format!("{system} {} ({}{doubt})", code.code, code.display)
}
