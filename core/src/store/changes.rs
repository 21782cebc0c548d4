//! Records as their changes: sealed or not, waiting for ancestors, or in quarantine.

use ebb_protocol::id::{DeviceId, SpaceId, StreamId};
use rusqlite::{Connection, params};

use super::{SqlResult, Tx, id};
use crate::record::RecordId;

/// One change of a record.
#[derive(Clone)]
pub(crate) struct ChangeRow {
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: Vec<u8>,
}

/// A change that no envelope carries yet.
pub(crate) struct Unsealed {
    pub(crate) record: RecordId,
    pub(crate) n: i64,
    pub(crate) bytes: Vec<u8>,
}

/// A change whose ancestors are missing.
pub(crate) struct Waiting {
    pub(crate) hash: [u8; 32],
    pub(crate) seq: u64,
    pub(crate) author: DeviceId,
    pub(crate) envelope: i64,
    pub(crate) bytes: Vec<u8>,
}

/// Adds a change to a record; `envelope` is the row of the one that carries it, if any does yet.
pub(crate) fn insert(
    tx: &Tx<'_>,
    space: &SpaceId,
    record: &RecordId,
    hash: &[u8; 32],
    author: &DeviceId,
    envelope: Option<i64>,
    bytes: &[u8],
) -> SqlResult<()> {
    tx.prepare_cached(
        "INSERT INTO change (space, record, n, hash, author, envelope, bytes)
         VALUES (?1, ?2, (SELECT coalesce(max(n), 0) + 1 FROM change WHERE space = ?1 AND record = ?2),
                 ?3, ?4, ?5, ?6)",
    )?
    .execute(params![space.0, record.as_bytes(), hash, author.0, envelope, bytes])?;
    Ok(())
}

/// Notes that an envelope carries a change that was there already, but in none that the server has.
pub(crate) fn link(
    tx: &Tx<'_>,
    space: &SpaceId,
    record: &RecordId,
    hash: &[u8; 32],
    envelope: i64,
) -> SqlResult<()> {
    tx.prepare_cached(
        "UPDATE change SET envelope = ?4 WHERE space = ?1 AND record = ?2 AND hash = ?3
            AND (envelope IS NULL
                 OR (EXISTS (SELECT 1 FROM envelope WHERE row = ?4 AND position IS NOT NULL)
                     AND EXISTS (SELECT 1 FROM envelope WHERE row = change.envelope AND position IS NULL)))",
    )?
    .execute(params![space.0, record.as_bytes(), hash, envelope])?;
    Ok(())
}

/// The changes of a record, in order of arrival.
pub(crate) fn of_record(db: &Connection, space: &SpaceId, record: &RecordId) -> SqlResult<Vec<ChangeRow>> {
    let mut query =
        db.prepare_cached("SELECT hash, bytes FROM change WHERE space = ?1 AND record = ?2 ORDER BY n")?;
    let rows = query.query_map(params![space.0, record.as_bytes()], |row| {
        Ok(ChangeRow { hash: id(row, 0)?, bytes: row.get(1)? })
    })?;
    rows.collect()
}

/// Changes of a stream that no envelope carries yet: newest records first, each in causal order.
pub(crate) fn unsealed(
    db: &Connection,
    space: &SpaceId,
    stream: &StreamId,
    limit: usize,
) -> SqlResult<Vec<Unsealed>> {
    let mut query = db.prepare_cached(
        "SELECT c.record, c.n, c.bytes FROM change c JOIN record r ON r.space = c.space AND r.id = c.record
         WHERE c.space = ?1 AND c.envelope IS NULL AND r.stream = ?2
         ORDER BY c.record DESC, c.n LIMIT ?3",
    )?;
    let rows = query.query_map(params![space.0, stream.0, limit], |row| {
        Ok(Unsealed { record: RecordId::from_bytes(id(row, 0)?), n: row.get(1)?, bytes: row.get(2)? })
    })?;
    rows.collect()
}

/// The streams of a space that hold changes which no envelope carries yet, that of the newest record last:
/// what is sealed last is sent first.
pub(crate) fn unsealed_streams(db: &Connection, space: &SpaceId) -> SqlResult<Vec<StreamId>> {
    let mut query = db.prepare_cached(
        "SELECT r.stream, max(c.record) AS newest FROM change c
         JOIN record r ON r.space = c.space AND r.id = c.record
         WHERE c.space = ?1 AND c.envelope IS NULL GROUP BY r.stream ORDER BY newest",
    )?;
    let rows = query.query_map([space.0], |row| id(row, 0).map(StreamId))?;
    rows.collect()
}

pub(crate) fn set_sealed(
    tx: &Tx<'_>,
    space: &SpaceId,
    record: &RecordId,
    n: i64,
    envelope: i64,
) -> SqlResult<()> {
    tx.prepare_cached("UPDATE change SET envelope = ?4 WHERE space = ?1 AND record = ?2 AND n = ?3")?
        .execute(params![space.0, record.as_bytes(), n, envelope])?;
    Ok(())
}

/// Where an author's changes to a record come from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) space: &'a SpaceId,
    pub(crate) record: &'a RecordId,
    pub(crate) stream: &'a StreamId,
    pub(crate) author: &'a DeviceId,
}

/// How many changes came from there, whatever became of them; from `max` on, at least `max`.
pub(crate) fn offered(db: &Connection, of: Origin<'_>, max: u64) -> SqlResult<u64> {
    let mut query = db.prepare_cached(
        "SELECT (SELECT count(*) FROM change WHERE space = ?1 AND record = ?2 AND author = ?4)
              + (SELECT count(*) FROM (SELECT 1 FROM waiting
                 WHERE space = ?1 AND record = ?2 AND stream = ?3 AND author = ?4 LIMIT ?5))
              + (SELECT count(*) FROM (SELECT 1 FROM quarantine
                 WHERE space = ?1 AND record = ?2 AND stream = ?3 AND author = ?4 LIMIT ?5))",
    )?;
    let Origin { space, record, stream, author } = of;
    query.query_row(params![space.0, record.as_bytes(), stream.0, author.0, max], |row| row.get(0))
}

/// What came from there and does not count: each by its name, and the place that it keeps, if it keeps one.
pub(crate) fn parked(db: &Connection, of: Origin<'_>) -> SqlResult<Vec<([u8; 32], Option<u64>)>> {
    let mut query = db.prepare_cached(
        "SELECT name, seq FROM waiting WHERE space = ?1 AND record = ?2 AND stream = ?3 AND author = ?4
         UNION ALL
         SELECT name, seq FROM quarantine WHERE space = ?1 AND record = ?2 AND stream = ?3 AND author = ?4",
    )?;
    let Origin { space, record, stream, author } = of;
    let rows = query.query_map(params![space.0, record.as_bytes(), stream.0, author.0], |row| {
        Ok((id(row, 0)?, row.get(1)?))
    })?;
    rows.collect()
}

pub(crate) fn put_waiting(
    tx: &Tx<'_>,
    space: &SpaceId,
    record: &RecordId,
    stream: &StreamId,
    waiting: &Waiting,
) -> SqlResult<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO waiting (space, record, stream, author, name, seq, envelope, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        space.0,
        record.as_bytes(),
        stream.0,
        waiting.author.0,
        waiting.hash,
        waiting.seq,
        waiting.envelope,
        waiting.bytes
    ])?;
    Ok(())
}

/// Takes out what waits in a stream for a record's ancestors: to be offered again, or put back.
pub(crate) fn take_waiting(
    tx: &Tx<'_>,
    space: &SpaceId,
    record: &RecordId,
    stream: &StreamId,
) -> SqlResult<Vec<Waiting>> {
    let rows = {
        let mut query = tx.prepare_cached(
            "DELETE FROM waiting WHERE space = ?1 AND record = ?2 AND stream = ?3
             RETURNING author, name, seq, envelope, bytes",
        )?;
        let rows = query.query_map(params![space.0, record.as_bytes(), stream.0], |row| {
            Ok(Waiting {
                author: DeviceId(id(row, 0)?),
                hash: id(row, 1)?,
                seq: row.get(2)?,
                envelope: row.get(3)?,
                bytes: row.get(4)?,
            })
        })?;
        rows.collect::<SqlResult<Vec<_>>>()?
    };
    Ok(rows)
}

/// Notes that the gate refused content: a change by its name with the place that it keeps, if it keeps one; a
/// record of zeros stands for an envelope's whole payload.
pub(crate) fn quarantine(
    tx: &Tx<'_>,
    of: Origin<'_>,
    (name, seq): (&[u8; 32], Option<u64>),
    envelope: i64,
    reason: &str,
) -> SqlResult<()> {
    let Origin { space, record, stream, author } = of;
    tx.prepare_cached(
        "INSERT OR IGNORE INTO quarantine (space, record, stream, author, name, seq, envelope, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![space.0, record.as_bytes(), stream.0, author.0, name, seq, envelope, reason])?;
    Ok(())
}

/// Forgets what the gate refused, so that the envelopes that brought it are looked at again.
pub(crate) fn release_quarantine(tx: &Tx<'_>, space: &SpaceId) -> SqlResult<()> {
    tx.execute(
        "UPDATE envelope SET verdict = 'sealed'
         WHERE verdict = 'accepted' AND row IN (SELECT envelope FROM quarantine WHERE space = ?1)",
        [space.0],
    )?;
    tx.execute("DELETE FROM quarantine WHERE space = ?1", [space.0])?;
    Ok(())
}

/// How many changes wait for ancestors, and how many the gate refused, over all spaces.
pub(crate) fn set_aside(db: &Connection) -> SqlResult<(u64, u64)> {
    db.query_row("SELECT (SELECT count(*) FROM waiting), (SELECT count(*) FROM quarantine)", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}
