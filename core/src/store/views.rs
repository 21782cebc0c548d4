//! The present version of every record, ready to be listed: reading never touches Automerge.

use ebb_protocol::id::{DeviceId, SpaceId, StreamId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqlResult, Tx, id};
use crate::record::RecordId;

/// A record's present version, as stored.
#[derive(Clone)]
pub(crate) struct ViewRow {
    pub(crate) id: RecordId,
    pub(crate) stream: StreamId,
    pub(crate) category: String,
    pub(crate) kind: String,
    pub(crate) occurred_ms: i64,
    pub(crate) value: Vec<u8>,
    pub(crate) author: DeviceId,
    pub(crate) note: String,
    pub(crate) retraction: Option<Vec<u8>>,
    pub(crate) conflicts: u32,
}

/// Which records to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) from_ms: Option<i64>,
    pub(crate) until_ms: Option<i64>,
    pub(crate) kind: Option<&'a str>,
    pub(crate) category: Option<&'a str>,
    pub(crate) limit: Option<usize>,
}

const COLUMNS: &str = "id, stream, category, kind, occurred_ms, value, note, retraction, conflicts, author";

pub(crate) fn put(tx: &Tx<'_>, space: &SpaceId, view: &ViewRow) -> SqlResult<()> {
    tx.prepare_cached(
        "INSERT INTO record (space, id, stream, category, kind, occurred_ms, value, note, retraction, conflicts,
                             author)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (space, id) DO UPDATE SET
             kind = ?5, occurred_ms = ?6, value = ?7, note = ?8, retraction = ?9, conflicts = ?10, author = ?11",
    )?
    .execute(params![
        space.0,
        view.id.as_bytes(),
        view.stream.0,
        view.category,
        view.kind,
        view.occurred_ms,
        view.value,
        view.note,
        view.retraction,
        view.conflicts,
        view.author.0
    ])?;
    Ok(())
}

pub(crate) fn get(db: &Connection, space: &SpaceId, record: &RecordId) -> SqlResult<Option<ViewRow>> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM record WHERE space = ?1 AND id = ?2"))?;
    query.query_row(params![space.0, record.as_bytes()], view).optional()
}

/// Lists records by the time they happened, newest first.
pub(crate) fn list(db: &Connection, space: &SpaceId, filter: &Filter<'_>) -> SqlResult<Vec<ViewRow>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM record
         WHERE space = ?1 AND occurred_ms >= ?2 AND occurred_ms < ?3
           AND (?4 IS NULL OR kind = ?4) AND (?5 IS NULL OR category = ?5)
         ORDER BY occurred_ms DESC, id DESC LIMIT ?6"
    ))?;
    let rows = query.query_map(
        params![
            space.0,
            filter.from_ms.unwrap_or(i64::MIN),
            filter.until_ms.unwrap_or(i64::MAX),
            filter.kind,
            filter.category,
            filter.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)),
        ],
        view,
    )?;
    rows.collect()
}

/// Ids of records in order, after one of them: for rebuilding views piece by piece.
pub(crate) fn ids_after(
    db: &Connection,
    space: &SpaceId,
    after: &[u8; 16],
    limit: usize,
) -> SqlResult<Vec<RecordId>> {
    let mut query =
        db.prepare_cached("SELECT id FROM record WHERE space = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
    let rows = query.query_map(params![space.0, after, limit], |row| id(row, 0).map(RecordId::from_bytes))?;
    rows.collect()
}

/// Whether every change of a record is at the server; `None` for an unknown record.
pub(crate) fn is_on_server(db: &Connection, space: &SpaceId, record: &RecordId) -> SqlResult<Option<bool>> {
    let mut query = db.prepare_cached(
        "SELECT count(*), sum(e.position IS NOT NULL) FROM change c LEFT JOIN envelope e ON e.row = c.envelope
         WHERE c.space = ?1 AND c.record = ?2",
    )?;
    query.query_row(params![space.0, record.as_bytes()], |row| {
        let (changes, there): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
        Ok((changes > 0).then_some(Some(changes) == there))
    })
}

/// How many records a space holds, and how many of them the server does not have whole.
pub(crate) fn count(db: &Connection, space: &SpaceId) -> SqlResult<(u64, u64)> {
    let mut all = db.prepare_cached("SELECT count(*) FROM record WHERE space = ?1")?;
    let all = all.query_row([space.0], |row| row.get(0))?;
    let mut unsent = db.prepare_cached(
        "SELECT count(*) FROM (
             SELECT record FROM change WHERE space = ?1 AND envelope IS NULL
             UNION SELECT c.record FROM envelope e JOIN change c ON c.envelope = e.row
             WHERE e.space = ?1 AND e.position IS NULL)",
    )?;
    let unsent = unsent.query_row([space.0], |row| row.get(0))?;
    Ok((all, unsent))
}

fn view(row: &Row<'_>) -> SqlResult<ViewRow> {
    Ok(ViewRow {
        id: RecordId::from_bytes(id(row, 0)?),
        stream: StreamId(id(row, 1)?),
        category: row.get(2)?,
        kind: row.get(3)?,
        occurred_ms: row.get(4)?,
        value: row.get(5)?,
        note: row.get(6)?,
        retraction: row.get(7)?,
        conflicts: row.get(8)?,
        author: DeviceId(id(row, 9)?),
    })
}
