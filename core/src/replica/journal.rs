//! Logging, editing and reading records.

use ebb_protocol::{
    id::{DeviceId, SpaceId, StreamId},
    verify,
};

use super::{
    care::put_alerts,
    engine::{Engine, Space},
};
use crate::{
    document::{Document, NewChange, State, gate::CHANGES_PER_AUTHOR_AND_RECORD_MAX},
    error::{Cause, Error, Result},
    record::{Category, Entry, Kind, Record, RecordId, Retraction, Stamp, Value},
    store::{
        Tx, changes,
        views::{self, Filter, ViewRow},
    },
};

/// How many views are rebuilt in one transaction.
const REBUILD_BATCH: usize = 500;

/// Which records to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only what happened from this moment on, in ms since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Only what happened before this moment, in ms since the Unix epoch.
    pub until_ms: Option<i64>,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this category.
    pub category: Option<Category>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl Query {
    /// Every record of a kind.
    #[must_use]
    pub fn kind(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// The same, of so many days up to `now_ms` (ms since the Unix epoch).
    #[must_use]
    pub fn last_days(mut self, days: u32, now_ms: i64) -> Self {
        self.from_ms = Some(now_ms - i64::from(days) * 86_400_000);
        self
    }
}

/// A record as it was after one change.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// When it was written, in ms since the Unix epoch by its author's clock.
    pub written_ms: i64,
    /// Who wrote it, as far as the roster knows; zero for a device that it does not.
    pub author: DeviceId,
    /// The record as it then was.
    pub record: Record,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// On this device only.
    OnPhone,
    /// Every change of it is durable on the server.
    OnServer,
}

impl Engine {
    pub(super) fn log(&mut self, id: &SpaceId, entry: &Entry) -> Result<RecordId> {
        self.check_entry(id, entry, None)?;
        let category = self.category_of(id, entry)?;
        let stamp = self.stamp();
        let stream = self.place_for(self.space(id)?, category)?;
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        let record = RecordId::new(self.clock.now().0, &random);
        let value = Value::new(entry, &stamp);
        let author = self.secrets.id();
        let actor = verify::actor_id(&author, &stream);
        let (document, change) = Document::create(actor, stamp.recorded.millis, &value.encode(), &entry.note)
            .map_err(|_| too_long())?;
        let view = shown(record, stream, category, author, &value, &document.state());
        let found = self.foresee(id, view.clone())?;
        let kept = self.store.write(|tx| {
            changes::insert(tx, id, &record, &change.hash, &author, None, &change.bytes)?;
            views::put(tx, id, &view)?;
            put_alerts(tx, id, &found)
        });
        if let Err(error) = kept {
            self.unforesee(id);
            return Err(error);
        }
        self.kept(*id, record, found);
        Ok(record)
    }

    pub(super) fn edit(&mut self, id: &SpaceId, record: &RecordId, entry: &Entry) -> Result<()> {
        self.check_entry(id, entry, Some(*record))?;
        let stamp = self.stamp();
        self.rewrite(id, record, |document, actor, category| {
            if !entry.body.belongs(category.0).contains(&category.1) {
                return Err(Error::fix("body", "of the record's own category: log another record instead"));
            }
            let present = Value::decode(&document.state().value).map_err(|_| unreadable())?;
            entry.body.may_follow(&present.body).map_err(invalid)?;
            let value = present.edited(entry, &stamp).encode();
            document
                .edit(actor, stamp.recorded.millis, Some(&value), Some(&entry.note))
                .map_err(|_| too_long())
        })
    }

    pub(super) fn retract(&mut self, id: &SpaceId, record: &RecordId, reason: &str) -> Result<()> {
        if reason.trim().is_empty() || reason.chars().count() > crate::record::TEXT_CHARS_MAX {
            let allowed = format!("1 to {} characters", crate::record::TEXT_CHARS_MAX);
            return Err(Error::fix("reason", allowed));
        }
        let at_millis = self.now().millis;
        let payload = Retraction { reason: reason.to_owned(), at_millis }.encode();
        self.rewrite(id, record, |document, actor, _| {
            document.retract(actor, at_millis, &payload).map_err(|_| too_long())
        })
    }

    pub(super) fn unretract(&mut self, id: &SpaceId, record: &RecordId) -> Result<()> {
        let at_millis = self.now().millis;
        self.rewrite(id, record, |document, actor, _| {
            document.unretract(actor, at_millis).map_err(|_| too_long())
        })
    }

    pub(super) fn resolve(&mut self, id: &SpaceId, chosen: &Record) -> Result<()> {
        let versions = self.conflicts(id, &chosen.id)?;
        let place = versions.iter().position(|version| version == chosen);
        let place =
            place.ok_or_else(|| Error::fix("version", "one that stands now: read the conflicts again"))?;
        if versions.len() == 1 {
            return Ok(());
        }
        let stamp = self.stamp();
        self.rewrite(id, &chosen.id, |document, actor, _| {
            let State { value, conflicting, .. } = document.state();
            let chosen = std::iter::once(value).chain(conflicting).nth(place);
            let chosen = chosen.ok_or_else(|| Error::bug("a version in conflict is gone"))?;
            // Whoever chooses writes the version that stands from now on.
            let mut value = Value::decode(&chosen).map_err(|_| unreadable())?;
            (value.author, value.recorded_at) = (stamp.author, stamp.recorded.millis);
            value.staff.clone_from(&stamp.staff);
            document.resolve(actor, stamp.recorded.millis, &value.encode()).map_err(|_| too_long())
        })
    }

    pub(super) fn record(&self, id: &SpaceId, record: &RecordId) -> Result<Record> {
        let view = views::get(self.store.read(), id, record)?.ok_or_else(unknown_record)?;
        record_of(view)
    }

    pub(super) fn records(&self, id: &SpaceId, query: &Query) -> Result<Vec<Record>> {
        self.space(id)?;
        let filter = Filter {
            from_ms: query.from_ms,
            until_ms: query.until_ms,
            kind: query.kind.as_ref().map(Kind::label),
            category: query.category.map(Category::label),
            limit: query.limit,
        };
        views::list(self.store.read(), id, &filter)?.into_iter().map(record_of).collect()
    }

    pub(super) fn history(&self, id: &SpaceId, record: &RecordId) -> Result<Vec<Version>> {
        let view = views::get(self.store.read(), id, record)?.ok_or_else(unknown_record)?;
        let space = self.space(id)?;
        let category = category_of(&view)?;
        let document = self.document(id, record)?;
        let versions = document.history().into_iter().filter_map(|version| {
            let value = Value::decode(&version.value).ok()?;
            let retracted = version.retraction.as_deref().map(Retraction::decode);
            let past = Record::new(*record, category, value, version.note, retracted, 0);
            let author = space.device_of(&version.actor, &view.stream);
            Some(Version { written_ms: version.time, author, record: past })
        });
        Ok(versions.collect())
    }

    pub(super) fn conflicts(&self, id: &SpaceId, record: &RecordId) -> Result<Vec<Record>> {
        let view = views::get(self.store.read(), id, record)?.ok_or_else(unknown_record)?;
        let category = category_of(&view)?;
        let State { value, conflicting, note, retraction, .. } = self.document(id, record)?.state();
        let count = u32::try_from(conflicting.len()).unwrap_or(u32::MAX);
        let versions = std::iter::once(value).chain(conflicting).map(|value| {
            let value = Value::decode(&value).map_err(|_| unreadable())?;
            let retracted = retraction.as_deref().map(Retraction::decode);
            Ok(Record::new(*record, category, value, note.clone(), retracted, count))
        });
        versions.collect()
    }

    pub(super) fn delivery(&self, id: &SpaceId, record: &RecordId) -> Result<Delivery> {
        match views::is_on_server(self.store.read(), id, record)? {
            None => Err(unknown_record()),
            Some(true) => Ok(Delivery::OnServer),
            Some(false) => Ok(Delivery::OnPhone),
        }
    }

    /// Computes every view of a space anew from the changes, a batch at a time.
    pub(super) fn reproject(&mut self, id: &SpaceId) -> Result<()> {
        let mut after = [0; 16];
        loop {
            let batch = views::ids_after(self.store.read(), id, &after, REBUILD_BATCH)?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = *last.as_bytes();
            let space = self.spaces.get(id).ok_or_else(|| Error::bug("a space is gone"))?;
            self.store.write(|tx| {
                for record in &batch {
                    let Some(view) = views::get(tx, id, record)? else { continue };
                    let state = load(&changes::of_record(tx, id, record)?)?.state();
                    let category = category_of(&view)?;
                    let author = space.device_of(&state.actor, &view.stream);
                    views::put(tx, id, &view_of(*record, view.stream, category, author, &state)?)?;
                }
                Ok(())
            })?;
        }
    }

    /// Loads a record, changes it, and stores the change with its view in one transaction.
    fn rewrite(
        &mut self,
        id: &SpaceId,
        record: &RecordId,
        change: impl FnOnce(
            &mut Document,
            [u8; 16],
            (crate::record::Writer, Category),
        ) -> Result<Option<NewChange>>,
    ) -> Result<()> {
        let view = views::get(self.store.read(), id, record)?.ok_or_else(unknown_record)?;
        let author = self.secrets.id();
        self.may_write(self.space(id)?, &view.stream)?;
        // Others count the same, and would set aside what goes beyond.
        let of = changes::Origin { space: id, record, stream: &view.stream, author: &author };
        let max = CHANGES_PER_AUTHOR_AND_RECORD_MAX;
        if changes::offered(self.store.read(), of, max)? >= max {
            let allowed = format!("one that this device changed less than {max} times");
            return Err(Error::fix("record", allowed));
        }
        let category = category_of(&view)?;
        let mut document = self.document(id, record)?;
        let actor = verify::actor_id(&author, &view.stream);
        let Some(new) = change(&mut document, actor, (self.writer(), category))? else { return Ok(()) };
        let state = document.state();
        let shown = self.space(id)?.device_of(&state.actor, &view.stream);
        let view = view_of(*record, view.stream, category, shown, &state)?;
        self.store.write(|tx| {
            changes::insert(tx, id, record, &new.hash, &author, None, &new.bytes)?;
            views::put(tx, id, &view)?;
            Ok(())
        })?;
        self.records_changed(*id, vec![*record]);
        Ok(())
    }

    fn document(&self, id: &SpaceId, record: &RecordId) -> Result<Document> {
        load(&changes::of_record(self.store.read(), id, record)?)
    }

    fn place_for(&self, space: &Space, category: Category) -> Result<StreamId> {
        let stream = space.stream(category).ok_or_else(|| {
            Error::retry("this device has not been given the category's key yet: sync first")
        })?;
        self.may_write(space, &stream)?;
        Ok(stream)
    }

    fn may_write(&self, space: &Space, stream: &StreamId) -> Result<()> {
        let at = space.roster.next_seq();
        if space.roster.may_write(&self.secrets.id(), stream, at) {
            return Ok(());
        }
        Err(Error::fix("record", "of a category that this device may write"))
    }

    fn stamp(&self) -> Stamp {
        Stamp { recorded: self.now(), author: self.secrets.id().0, staff: None }
    }
}

pub(super) fn load(changes: &[changes::ChangeRow]) -> Result<Document> {
    Document::load(changes.iter().map(|change| change.bytes.as_slice())).map_err(Error::bug)
}

/// What a document's state looks like in lists.
pub(super) fn view_of(
    record: RecordId,
    stream: StreamId,
    category: Category,
    author: DeviceId,
    state: &State,
) -> Result<ViewRow> {
    let value = Value::decode(&state.value).map_err(|_| unreadable())?;
    Ok(shown(record, stream, category, author, &value, state))
}

/// The same, of a value that is decoded already.
fn shown(
    record: RecordId,
    stream: StreamId,
    category: Category,
    author: DeviceId,
    value: &Value,
    state: &State,
) -> ViewRow {
    ViewRow {
        id: record,
        stream,
        category: category.label().to_owned(),
        kind: value.body.kind().label().to_owned(),
        occurred_ms: value.occurred.millis,
        value: state.value.clone(),
        author,
        note: state.note.clone(),
        retraction: state.retraction.clone(),
        conflicts: u32::try_from(state.conflicting.len()).unwrap_or(u32::MAX),
    }
}

/// Stores the present view of a record.
pub(super) fn put_view(tx: &Tx<'_>, id: &SpaceId, view: &ViewRow) -> Result<()> {
    Ok(views::put(tx, id, view)?)
}

pub(super) fn record_of(view: ViewRow) -> Result<Record> {
    let category = category_of(&view)?;
    let value = Value::decode(&view.value).map_err(|_| unreadable())?;
    let retracted = view.retraction.as_deref().map(Retraction::decode);
    let record = Record::new(view.id, category, value, view.note, retracted, view.conflicts);
    Ok(Record { author: view.author.0, ..record })
}

fn category_of(view: &ViewRow) -> Result<Category> {
    Category::from_label(&view.category)
        .ok_or_else(|| Error::Update(Cause::new("a category of a newer version")))
}

pub(super) fn invalid(invalid: crate::record::Invalid) -> Error {
    Error::fix(invalid.field, invalid.allowed)
}

fn unknown_record() -> Error {
    Error::fix("record", "one of this space")
}

fn too_long() -> Error {
    Error::fix("note", "shorter: a record fits 256 KiB")
}

fn unreadable() -> Error {
    Error::bug("a stored record does not decode")
}
