//! Envelopes: what goes out, what came in, and where each stands in the server's log.

use ebb_protocol::{
    envelope::Envelope,
    id::{DeviceId, Epoch, Hash, LogId, Millis, Position, Seq, SpaceId, StreamId},
    judge::{Chain, Link},
    wire::Head,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqlResult, Tx, id};

/// An envelope's chain and signature are in order.
pub(crate) const ACCEPTED: &str = "accepted";
/// An envelope names a roster entry that is not known yet.
pub(crate) const HELD: &str = "held";
/// An envelope is in order, but its key (or its stream's label) is not known yet.
pub(crate) const SEALED: &str = "sealed";

/// Where an envelope that is known stands.
pub(crate) struct Known {
    pub(crate) row: i64,
    pub(crate) stream: StreamId,
    pub(crate) position: Option<Position>,
    /// Whether this device took it apart, to seal its content anew or not at all.
    pub(crate) is_superseded: bool,
}

/// An envelope that the server does not have, or whose content could not be looked at yet.
pub(crate) struct Stored {
    pub(crate) row: i64,
    pub(crate) stream: StreamId,
    pub(crate) author: DeviceId,
    pub(crate) seq: Seq,
    pub(crate) hash: Hash,
    pub(crate) is_refill: bool,
    pub(crate) bytes: Vec<u8>,
}

/// What the server said of an envelope's place.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) chain: Option<Hash>,
    pub(crate) received: Option<Millis>,
}

/// A server may say any time; a database holds signed ones.
fn stored_ms(received: Millis) -> i64 {
    i64::try_from(received.0).unwrap_or(i64::MAX)
}

/// Stores an envelope; its place is `None` until the server has it.
pub(crate) fn put(tx: &Tx<'_>, envelope: &Envelope, verdict: &str, place: Option<Place>) -> SqlResult<i64> {
    let header = envelope.header();
    tx.prepare_cached(
        "INSERT INTO envelope (space, stream, author, seq, epoch, hash, roster_head, log_id, seen_pos,
                               verdict, position, chain, received_ms, was_placed, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?11 IS NOT NULL, ?14)",
    )?
    .execute(params![
        header.space.0,
        header.stream.0,
        header.author.0,
        header.seq.0,
        header.epoch.0,
        envelope.hash().0,
        header.roster_head.0,
        header.log_id.0,
        header.seen_pos.0,
        verdict,
        place.map(|place| place.position.0),
        place.and_then(|place| place.chain).map(|chain| chain.0),
        place.and_then(|place| place.received).map(stored_ms),
        envelope.as_bytes(),
    ])?;
    Ok(tx.last_insert_rowid())
}

/// Keeps bytes from the log that are no envelope of this stream: evidence, and a place in the chain.
pub(crate) fn put_malformed(
    tx: &Tx<'_>,
    space: &SpaceId,
    stream: &StreamId,
    hash: &Hash,
    place: Place,
    bytes: &[u8],
) -> SqlResult<()> {
    tx.execute(
        "INSERT INTO envelope (space, stream, author, seq, epoch, hash, roster_head, log_id, seen_pos,
                               verdict, position, chain, received_ms, bytes)
         VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, 0, 'malformed', ?7, ?8, ?9, ?10)",
        params![
            space.0,
            stream.0,
            DeviceId::ZERO.0,
            hash.0,
            Hash::ZERO.0,
            LogId::ZERO.0,
            place.position.0,
            place.chain.map(|chain| chain.0),
            place.received.map(stored_ms),
            bytes
        ],
    )?;
    Ok(())
}

pub(crate) fn known(db: &Connection, space: &SpaceId, hash: &Hash) -> SqlResult<Option<Known>> {
    let mut query = db.prepare_cached(
        "SELECT row, position, stream, verdict FROM envelope WHERE space = ?1 AND hash = ?2",
    )?;
    query
        .query_row(params![space.0, hash.0], |row| {
            let position = row.get::<_, Option<u64>>(1)?.map(Position);
            let is_superseded = row.get_ref(3)?.as_str()? == "superseded";
            Ok(Known { row: row.get(0)?, position, stream: StreamId(id(row, 2)?), is_superseded })
        })
        .optional()
}

/// The bytes of a stored envelope.
pub(crate) fn bytes(db: &Connection, envelope: i64) -> SqlResult<Vec<u8>> {
    db.prepare_cached("SELECT bytes FROM envelope WHERE row = ?1")?.query_row([envelope], |row| row.get(0))
}

/// Notes where the server has an envelope.
pub(crate) fn set_place(tx: &Tx<'_>, envelope: i64, place: Place) -> SqlResult<()> {
    tx.prepare_cached(
        "UPDATE envelope SET position = ?2, was_placed = 1, chain = coalesce(?3, chain),
                received_ms = coalesce(received_ms, ?4) WHERE row = ?1",
    )?
    .execute(params![
        envelope,
        place.position.0,
        place.chain.map(|chain| chain.0),
        place.received.map(stored_ms)
    ])?;
    Ok(())
}

/// Takes back that the server has anything else at a position than what it shows there now: it lost what
/// it once acknowledged, and that goes out again.
pub(crate) fn vacate(tx: &Tx<'_>, space: &SpaceId, stream: &StreamId, position: Position) -> SqlResult<()> {
    tx.prepare_cached(
        "UPDATE envelope SET position = NULL, chain = NULL
         WHERE space = ?1 AND stream = ?2 AND position = ?3",
    )?
    .execute(params![space.0, stream.0, position.0])?;
    Ok(())
}

/// This device's newest envelope in each stream that the server is taken to have.
pub(crate) fn newest_placed(
    db: &Connection,
    space: &SpaceId,
    own: &DeviceId,
) -> SqlResult<Vec<(StreamId, Seq)>> {
    let mut query = db.prepare_cached(
        "SELECT stream, max(seq) FROM envelope
         WHERE space = ?1 AND author = ?2 AND position IS NOT NULL GROUP BY stream",
    )?;
    let rows =
        query.query_map(params![space.0, own.0], |row| Ok((StreamId(id(row, 0)?), Seq(row.get(1)?))))?;
    rows.collect()
}

pub(crate) fn set_verdict(tx: &Tx<'_>, envelope: i64, verdict: &str) -> SqlResult<()> {
    tx.prepare_cached("UPDATE envelope SET verdict = ?2 WHERE row = ?1")?
        .execute(params![envelope, verdict])?;
    Ok(())
}

/// The chain hash at a position of the present log, where this device holds it.
pub(crate) fn chain_at(
    db: &Connection,
    space: &SpaceId,
    stream: &StreamId,
    position: Position,
) -> SqlResult<Option<Hash>> {
    let mut query = db.prepare_cached(
        "SELECT chain FROM envelope WHERE space = ?1 AND stream = ?2 AND position = ?3 AND chain IS NOT NULL",
    )?;
    query.query_row(params![space.0, stream.0, position.0], |row| id(row, 0).map(Hash)).optional()
}

/// The newest envelope of an author in a stream.
pub(crate) fn newest_of(
    db: &Connection,
    space: &SpaceId,
    stream: &StreamId,
    author: &DeviceId,
) -> SqlResult<Option<(Seq, Hash)>> {
    let mut query = db.prepare_cached(
        "SELECT seq, hash FROM envelope WHERE space = ?1 AND stream = ?2 AND author = ?3
           AND verdict IN ('accepted', 'sealed')
         ORDER BY seq DESC, epoch DESC LIMIT 1",
    )?;
    query
        .query_row(params![space.0, stream.0, author.0], |row| Ok((Seq(row.get(0)?), Hash(id(row, 1)?))))
        .optional()
}

/// Envelopes that the server does not have and that are to be sent: this device's own, and after a loss
/// also others'. Streams sealed last come first. As many as `bytes_max` holds, and whether there are more.
pub(crate) fn unsent(
    db: &Connection,
    space: &SpaceId,
    own: &DeviceId,
    others: bool,
    bytes_max: usize,
    wanted: impl Fn(&StreamId, &DeviceId, &Hash) -> bool,
) -> SqlResult<(Vec<Stored>, bool)> {
    let mut query = db.prepare_cached(
        "SELECT row, stream, author, seq, hash, was_placed, bytes FROM envelope
         WHERE space = ?1 AND position IS NULL AND stream = ?4 AND (?3 OR author = ?2)
           AND verdict IN ('accepted', 'sealed', 'held')
         ORDER BY author, seq, epoch",
    )?;
    let (mut unsent, mut bytes) = (Vec::new(), 0);
    for stream in unsent_streams(db, space)? {
        let mut rows = query.query(params![space.0, own.0, others, stream.0])?;
        while let Some(row) = rows.next()? {
            if !wanted(&stream, &DeviceId(id(row, 2)?), &Hash(id(row, 4)?)) {
                continue;
            }
            let envelope = stored(row)?;
            bytes += envelope.bytes.len();
            if bytes > bytes_max {
                return Ok((unsent, true));
            }
            unsent.push(envelope);
        }
    }
    Ok((unsent, false))
}

/// The streams of which the server lacks envelopes, those sealed last first.
fn unsent_streams(db: &Connection, space: &SpaceId) -> SqlResult<Vec<StreamId>> {
    let mut query = db.prepare_cached(
        "SELECT stream FROM envelope WHERE space = ?1 AND position IS NULL
         GROUP BY stream ORDER BY max(row) DESC",
    )?;
    query.query_map([space.0], |row| id(row, 0).map(StreamId))?.collect()
}

/// How many envelopes of a space are at the server, as far as this device knows.
pub(crate) fn count(db: &Connection, space: &SpaceId) -> SqlResult<u64> {
    let mut query =
        db.prepare_cached("SELECT count(*) FROM envelope WHERE space = ?1 AND position IS NOT NULL")?;
    query.query_row([space.0], |row| row.get(0))
}

/// Envelopes behind a row whose content could not be looked at yet, as they arrived, which is the order of every
/// author's chain. As many as `bytes_max` holds, one at least.
pub(crate) fn undecided(
    db: &Connection,
    space: &SpaceId,
    behind: i64,
    bytes_max: usize,
) -> SqlResult<Vec<(Stored, String)>> {
    let mut query = db.prepare_cached(
        "SELECT row, stream, author, seq, hash, was_placed, bytes, verdict FROM envelope
         WHERE space = ?1 AND verdict IN ('held', 'sealed') AND row > ?2 ORDER BY row",
    )?;
    let mut rows = query.query(params![space.0, behind])?;
    let (mut undecided, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let envelope = stored(row)?;
        bytes += envelope.bytes.len();
        if bytes > bytes_max && !undecided.is_empty() {
            break;
        }
        undecided.push((envelope, row.get(7)?));
    }
    Ok(undecided)
}

fn stored(row: &Row<'_>) -> SqlResult<Stored> {
    Ok(Stored {
        row: row.get(0)?,
        stream: StreamId(id(row, 1)?),
        author: DeviceId(id(row, 2)?),
        seq: Seq(row.get(3)?),
        hash: Hash(id(row, 4)?),
        is_refill: row.get(5)?,
        bytes: row.get(6)?,
    })
}

/// Gives the changes of this device's unacknowledged envelopes from a sequence on back to be sealed
/// again; the sequences are used again too.
pub(crate) fn unseal(
    tx: &Tx<'_>,
    space: &SpaceId,
    stream: &StreamId,
    own: &DeviceId,
    from: Seq,
    newest: Epoch,
) -> SqlResult<()> {
    let refused: Option<u32> = tx.query_row(
        "SELECT max(epoch) FROM envelope WHERE space = ?1 AND stream = ?2 AND author = ?3 AND seq = ?4
                AND position IS NULL AND verdict = 'accepted'",
        params![space.0, stream.0, own.0, from.0],
        |row| row.get(0),
    )?;
    // Under the same epoch it would be another envelope at the same place: a fork of one's own. What stands behind
    // under the newest was sealed while all before it was at the server, and others may hold it: it waits for a
    // newer epoch, or for the loss to be proven.
    let others_may_hold: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM envelope WHERE space = ?1 AND stream = ?2 AND author = ?3 AND seq > ?4
                AND position IS NULL AND verdict IN ('accepted', 'sealed') AND epoch >= ?5)",
        params![space.0, stream.0, own.0, from.0, newest.0],
        |row| row.get(0),
    )?;
    if others_may_hold || refused.is_none_or(|epoch| epoch >= newest.0) {
        return Ok(());
    }
    tx.execute(
        "UPDATE change SET envelope = NULL WHERE envelope IN (
             SELECT row FROM envelope WHERE space = ?1 AND stream = ?2 AND author = ?3 AND seq >= ?4
                AND position IS NULL)",
        params![space.0, stream.0, own.0, from.0],
    )?;
    // Kept, though never sent again: others may hold it and give it back to a server that lost it.
    tx.execute(
        "UPDATE envelope SET verdict = 'superseded' WHERE space = ?1 AND stream = ?2 AND author = ?3
            AND seq >= ?4 AND position IS NULL",
        params![space.0, stream.0, own.0, from.0],
    )?;
    Ok(())
}

/// Takes this device's envelopes apart that no server ever had: where it may sign no more, they would only
/// stand in the way of what it once wrote at the same places and forgot.
pub(crate) fn unseal_unplaced(tx: &Tx<'_>, space: &SpaceId, own: &DeviceId) -> SqlResult<()> {
    tx.execute(
        "UPDATE change SET envelope = NULL WHERE envelope IN (
             SELECT row FROM envelope WHERE space = ?1 AND author = ?2 AND position IS NULL AND was_placed = 0)",
        params![space.0, own.0],
    )?;
    tx.execute(
        "UPDATE envelope SET verdict = 'superseded'
         WHERE space = ?1 AND author = ?2 AND position IS NULL AND was_placed = 0",
        params![space.0, own.0],
    )?;
    Ok(())
}

/// Takes back that the server has this device's envelopes from a sequence on.
pub(crate) fn rewind(
    tx: &Tx<'_>,
    space: &SpaceId,
    stream: &StreamId,
    own: &DeviceId,
    from: Seq,
) -> SqlResult<()> {
    tx.execute(
        "UPDATE envelope SET position = NULL, chain = NULL
         WHERE space = ?1 AND stream = ?2 AND author = ?3 AND seq >= ?4",
        params![space.0, stream.0, own.0, from.0],
    )?;
    Ok(())
}

/// Whether this device sealed something in a stream under an older epoch that is not at the server. What it seals
/// next under the newest would stand behind that, and could not be sealed again where that is.
pub(crate) fn awaits_older_epoch(
    db: &Connection,
    space: &SpaceId,
    stream: &StreamId,
    own: &DeviceId,
    newest: Epoch,
) -> SqlResult<bool> {
    let mut query = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM envelope WHERE space = ?1 AND stream = ?2 AND author = ?3
                AND position IS NULL AND verdict IN ('accepted', 'sealed') AND epoch < ?4)",
    )?;
    query.query_row(params![space.0, stream.0, own.0, newest.0], |row| row.get(0))
}

/// Takes back that the server has anything of a stream beyond a position.
pub(crate) fn forget_places(tx: &Tx<'_>, space: &SpaceId, after: &Head) -> SqlResult<()> {
    tx.execute(
        "UPDATE envelope SET position = NULL, chain = NULL
         WHERE space = ?1 AND stream = ?2 AND position > ?3",
        params![space.0, after.stream.0, after.position.0],
    )?;
    Ok(())
}

/// The accepted chain of a space's authors, for judging what follows on it.
pub(crate) struct Accepted<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) space: SpaceId,
}

impl Chain for Accepted<'_> {
    type Error = rusqlite::Error;

    fn at(&self, author: &DeviceId, stream: &StreamId, seq: Seq) -> SqlResult<Vec<Link>> {
        let mut query = self.db.prepare_cached(
            "SELECT hash, epoch, roster_head, log_id, seen_pos FROM envelope
             WHERE space = ?1 AND stream = ?2 AND author = ?3 AND seq = ?4
               AND verdict IN ('accepted', 'sealed')",
        )?;
        let rows = query.query_map(params![self.space.0, stream.0, author.0, seq.0], |row| {
            Ok(Link {
                hash: Hash(id(row, 0)?),
                epoch: Epoch(row.get(1)?),
                roster_head: Hash(id(row, 2)?),
                log_id: LogId(id(row, 3)?),
                seen_pos: Position(row.get(4)?),
            })
        })?;
        rows.collect()
    }

    fn last(&self, author: &DeviceId, stream: &StreamId) -> SqlResult<Seq> {
        Ok(newest_of(self.db, &self.space, stream, author)?.map_or(Seq(0), |(seq, _)| seq))
    }
}
