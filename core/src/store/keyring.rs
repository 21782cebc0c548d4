//! What the replica knows of itself and of others: secrets, spaces, rosters, keys, streams.

use ebb_protocol::{
    id::{Epoch, Hash, LogId, Position, RosterSeq, SpaceId, StreamId},
    roster::EntryWithWraps,
    wire::{self, Head, SignedHeads},
};
use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::{SqlResult, Tx, id};

/// A space as the store knows it.
#[derive(Clone, Debug)]
pub(crate) struct SpaceRow {
    pub(crate) id: SpaceId,
    pub(crate) own: bool,
    pub(crate) found: Option<Hash>,
    pub(crate) log_id: LogId,
    pub(crate) frozen: bool,
}

/// A stream as the store knows it.
#[derive(Clone, Debug)]
pub(crate) struct StreamRow {
    pub(crate) id: StreamId,
    pub(crate) label: Option<String>,
    pub(crate) cursor: Head,
}

pub(crate) fn meta(db: &Connection, name: &str) -> SqlResult<Option<Zeroizing<Vec<u8>>>> {
    let mut query = db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    query.query_row([name], |row| row.get(0).map(Zeroizing::new)).optional()
}

pub(crate) fn set_meta(tx: &Tx<'_>, name: &str, value: &[u8]) -> SqlResult<()> {
    tx.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    Ok(())
}

pub(crate) fn add_space(tx: &Tx<'_>, space: &SpaceId, own: bool, found: Option<&Hash>) -> SqlResult<bool> {
    let added = tx.execute(
        "INSERT OR IGNORE INTO space (id, own, found, log_id) VALUES (?1, ?2, ?3, ?4)",
        params![space.0, own, found.map(|hash| hash.0), LogId::ZERO.0],
    )?;
    Ok(added > 0)
}

pub(crate) fn spaces(db: &Connection) -> SqlResult<Vec<SpaceRow>> {
    let mut query = db.prepare_cached("SELECT id, own, found, log_id, frozen FROM space ORDER BY id")?;
    let rows = query.query_map([], |row| {
        Ok(SpaceRow {
            id: SpaceId(id(row, 0)?),
            own: row.get(1)?,
            found: row.get::<_, Option<[u8; 32]>>(2)?.map(Hash),
            log_id: LogId(id(row, 3)?),
            frozen: row.get(4)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn set_log_id(tx: &Tx<'_>, space: &SpaceId, log_id: &LogId) -> SqlResult<()> {
    tx.prepare_cached("UPDATE space SET log_id = ?2 WHERE id = ?1 AND log_id <> ?2")?
        .execute(params![space.0, log_id.0])?;
    Ok(())
}

pub(crate) fn freeze(tx: &Tx<'_>, space: &SpaceId) -> SqlResult<()> {
    tx.execute("UPDATE space SET frozen = 1 WHERE id = ?1", [space.0])?;
    Ok(())
}

/// The entries of a space's roster in order, each with whether it is settled.
pub(crate) fn roster_entries(db: &Connection, space: &SpaceId) -> SqlResult<Vec<(EntryWithWraps, bool)>> {
    let mut query =
        db.prepare_cached("SELECT bytes, settled FROM roster_entry WHERE space = ?1 ORDER BY seq")?;
    let rows = query.query_map([space.0], |row| {
        let bytes: Vec<u8> = row.get(0)?;
        let entry = wire::decode(&bytes).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
        })?;
        Ok((entry, row.get(1)?))
    })?;
    rows.collect()
}

pub(crate) fn put_roster_entry(
    tx: &Tx<'_>,
    space: &SpaceId,
    seq: RosterSeq,
    entry: &EntryWithWraps,
    settled: bool,
) -> SqlResult<()> {
    tx.execute(
        "INSERT OR REPLACE INTO roster_entry (space, seq, settled, bytes) VALUES (?1, ?2, ?3, ?4)",
        params![space.0, seq.0, settled, wire::encode(entry)],
    )?;
    Ok(())
}

pub(crate) fn settle_roster(tx: &Tx<'_>, space: &SpaceId, up_to: RosterSeq) -> SqlResult<()> {
    tx.execute(
        "UPDATE roster_entry SET settled = 1 WHERE space = ?1 AND seq <= ?2",
        params![space.0, up_to.0],
    )?;
    Ok(())
}

pub(crate) fn drop_pending_roster(tx: &Tx<'_>, space: &SpaceId) -> SqlResult<()> {
    tx.execute("DELETE FROM roster_entry WHERE space = ?1 AND settled = 0", [space.0])?;
    Ok(())
}

pub(crate) fn put_epoch_key(
    tx: &Tx<'_>,
    space: &SpaceId,
    stream: &StreamId,
    epoch: Epoch,
    key_check: &Hash,
    key: &[u8],
) -> SqlResult<()> {
    tx.execute(
        "INSERT OR IGNORE INTO epoch_key (space, stream, epoch, key_check, key) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![space.0, stream.0, epoch.0, key_check.0, key],
    )?;
    Ok(())
}

pub(crate) fn epoch_key(
    db: &Connection,
    space: &SpaceId,
    stream: &StreamId,
    epoch: Epoch,
    key_check: &Hash,
) -> SqlResult<Option<Zeroizing<Vec<u8>>>> {
    let mut query = db.prepare_cached(
        "SELECT key FROM epoch_key WHERE space = ?1 AND stream = ?2 AND epoch = ?3 AND key_check = ?4",
    )?;
    query
        .query_row(params![space.0, stream.0, epoch.0, key_check.0], |row| row.get(0).map(Zeroizing::new))
        .optional()
}

pub(crate) fn add_stream(tx: &Tx<'_>, space: &SpaceId, stream: &StreamId, chain: &Hash) -> SqlResult<()> {
    tx.execute(
        "INSERT OR IGNORE INTO stream (space, id, chain) VALUES (?1, ?2, ?3)",
        params![space.0, stream.0, chain.0],
    )?;
    Ok(())
}

pub(crate) fn set_label(tx: &Tx<'_>, space: &SpaceId, stream: &StreamId, label: &str) -> SqlResult<()> {
    tx.execute(
        "UPDATE stream SET label = ?3 WHERE space = ?1 AND id = ?2",
        params![space.0, stream.0, label],
    )?;
    Ok(())
}

pub(crate) fn streams(db: &Connection, space: &SpaceId) -> SqlResult<Vec<StreamRow>> {
    let mut query =
        db.prepare_cached("SELECT id, label, position, chain FROM stream WHERE space = ?1 ORDER BY id")?;
    let rows = query.query_map([space.0], |row| {
        let stream = StreamId(id(row, 0)?);
        let cursor = Head { stream, position: Position(row.get(2)?), chain: Hash(id(row, 3)?) };
        Ok(StreamRow { id: stream, label: row.get(1)?, cursor })
    })?;
    rows.collect()
}

pub(crate) fn set_cursor(tx: &Tx<'_>, space: &SpaceId, cursor: &Head) -> SqlResult<()> {
    tx.prepare_cached("UPDATE stream SET position = ?3, chain = ?4 WHERE space = ?1 AND id = ?2")?
        .execute(params![space.0, cursor.stream.0, cursor.position.0, cursor.chain.0])?;
    Ok(())
}

pub(crate) fn set_evidence(
    tx: &Tx<'_>,
    space: &SpaceId,
    stream: &StreamId,
    evidence: &SignedHeads,
) -> SqlResult<()> {
    tx.prepare_cached("UPDATE stream SET evidence = ?3 WHERE space = ?1 AND id = ?2")?.execute(params![
        space.0,
        stream.0,
        wire::encode(evidence)
    ])?;
    Ok(())
}

pub(crate) fn evidence_of(
    db: &Connection,
    space: &SpaceId,
    stream: &StreamId,
) -> SqlResult<Option<SignedHeads>> {
    let mut query = db.prepare_cached("SELECT evidence FROM stream WHERE space = ?1 AND id = ?2")?;
    let kept =
        query.query_row(params![space.0, stream.0], |row| row.get::<_, Option<Vec<u8>>>(0)).optional()?;
    Ok(kept.flatten().and_then(|bytes| wire::decode(&bytes).ok()))
}

pub(crate) fn evidence(db: &Connection, space: &SpaceId) -> SqlResult<Vec<SignedHeads>> {
    let mut query =
        db.prepare_cached("SELECT DISTINCT evidence FROM stream WHERE space = ?1 AND evidence IS NOT NULL")?;
    let rows = query.query_map([space.0], |row| row.get::<_, Vec<u8>>(0))?;
    let mut heads = Vec::new();
    for bytes in rows {
        heads.extend(wire::decode::<SignedHeads>(&bytes?));
    }
    Ok(heads)
}
