//! Records that carry the number of the version that they are, so that anybody who sees one knows which.

use ebb_core::{
    Entry,
    record::{Attendance, Body, Fellowship, Meeting, ScreenResult, Specimen, Unit},
};

use crate::model::Mark;

/// What a mark looks like in a record.
pub(super) fn text(mark: Mark) -> String {
    format!("m{mark}")
}

/// The mark of a record's shown version.
pub(super) fn mark_of(record: &ebb_core::Record) -> Option<Mark> {
    let text = match &record.body {
        Body::Dose(dose) => &dose.drug,
        Body::UseEvent(used) => &used.substance,
        Body::Visit(visit) => &visit.label,
        Body::Meeting(meeting) => meeting.label.as_ref()?,
        Body::DrugScreen(screen) => &screen.substance,
        Body::Resource(resource) => &resource.name,
        Body::PlanVersion(version) => &version.summary,
        Body::Note(_) | Body::Answers(_) => &record.note,
        _ => return None,
    };
    text.strip_prefix('m')?.parse().ok()
}

/// A record of one of several kinds with a mark.
pub(super) fn entry(kind: u8, mark: Mark) -> Entry {
    let entry = match kind / 2 % 7 {
        0 => Entry::dose(text(mark), 8.0, Unit::Mg),
        1 => Entry::use_event(text(mark)),
        2 => Entry::visit("group", text(mark), Attendance::Kept),
        3 => Entry::new(Meeting::new(Fellowship::Smart).label(text(mark))),
        4 => Entry::drug_screen(Specimen::Urine, text(mark), ScreenResult::Negative),
        5 => return Entry::private_note(text(mark)),
        // Every other one is severe, and found to be.
        _ => return Entry::sows([1 + kind % 2; 16]).note(text(mark)),
    };
    entry.note(format!("as of {mark}"))
}

/// The same record with another mark; `None` for one whose mark is a note, which merges.
pub(super) fn rewritten(body: &Body, mark: Mark) -> Option<Entry> {
    let kind = match body {
        Body::Dose(_) => 0,
        Body::UseEvent(_) => 2,
        Body::Visit(_) => 4,
        Body::Meeting(_) => 6,
        Body::DrugScreen(_) => 8,
        _ => return None,
    };
    Some(entry(kind, mark))
}
