//! What this device found by the clinical rules, and when.

use ebb_protocol::id::SpaceId;
use rusqlite::{Connection, params};

use super::{SqlResult, Tx, id};
use crate::record::{AlertId, RecordId};

pub(crate) fn put(tx: &Tx<'_>, space: &SpaceId, alert: &AlertId, value: &[u8]) -> SqlResult<()> {
    tx.prepare_cached(
        "INSERT INTO alert (space, id, value) VALUES (?1, ?2, ?3) ON CONFLICT (space, id) DO UPDATE SET value = ?3",
    )?
    .execute(params![space.0, alert.0, value])?;
    Ok(())
}

pub(crate) fn all(db: &Connection, space: &SpaceId) -> SqlResult<Vec<Vec<u8>>> {
    let mut query = db.prepare_cached("SELECT value FROM alert WHERE space = ?1 ORDER BY id")?;
    let rows = query.query_map([space.0], |row| row.get(0))?;
    rows.collect()
}

/// When the server first received each record that others wrote, in ms since the Unix epoch by its clock.
pub(crate) fn received(db: &Connection, space: &SpaceId) -> SqlResult<Vec<(RecordId, i64)>> {
    let mut query = db.prepare_cached(
        "SELECT c.record, min(e.received_ms) FROM change c JOIN envelope e ON e.row = c.envelope
         WHERE c.space = ?1 AND e.received_ms IS NOT NULL GROUP BY c.record",
    )?;
    let rows = query.query_map([space.0], |row| Ok((RecordId::from_bytes(id(row, 0)?), row.get(1)?)))?;
    rows.collect()
}

/// The same of one record; `None` if it is not there, or not known.
pub(crate) fn received_of(db: &Connection, space: &SpaceId, record: &RecordId) -> SqlResult<Option<i64>> {
    let mut query = db.prepare_cached(
        "SELECT min(e.received_ms) FROM change c JOIN envelope e ON e.row = c.envelope
         WHERE c.space = ?1 AND c.record = ?2",
    )?;
    query.query_row(params![space.0, record.as_bytes()], |row| row.get(0))
}
