//! Whether an envelope may stand in a stream: the rules that both ends apply, in one place.
//!
//! The signature was checked before ([`Verified`]); what the body says is judged later and elsewhere,
//! by those who can open it. Neither verdict depends on the other.

use crate::{
    envelope::Envelope,
    id::{DeviceId, Epoch, Hash, LogId, Position, RosterSeq, Seq, StreamId},
    roster::Roster,
    verify::Verified,
    wire::Refusal,
};

/// What judging needs to know of an envelope that was accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its hash.
    pub hash: Hash,
    /// The epoch it is sealed under.
    pub epoch: Epoch,
    /// The roster entry that it names.
    pub roster_head: Hash,
    /// The log that its author had seen.
    pub log_id: LogId,
    /// How far its author had seen this stream there.
    pub seen_pos: Position,
}

impl Link {
    /// What judging needs to know of this envelope, once it is accepted.
    #[must_use]
    pub fn of(envelope: &Verified<Envelope>) -> Self {
        let header = envelope.header();
        Self {
            hash: envelope.hash(),
            epoch: header.epoch,
            roster_head: header.roster_head,
            log_id: header.log_id,
            seen_pos: header.seen_pos,
        }
    }
}

/// An author's chain in one stream, as accepted so far.
pub trait Chain {
    /// What reading it may fail with.
    type Error;

    /// The accepted envelopes at a sequence: one, or several of different epochs.
    ///
    /// # Errors
    /// Where the chain could not be read; nothing was judged.
    fn at(&self, author: &DeviceId, stream: &StreamId, seq: Seq) -> Result<Vec<Link>, Self::Error>;

    /// The highest accepted sequence; 0 where there is none.
    ///
    /// # Errors
    /// Where the chain could not be read; nothing was judged.
    fn last(&self, author: &DeviceId, stream: &StreamId) -> Result<Seq, Self::Error>;
}

/// At which state of the roster role and epoch are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgedAt {
    /// At the newest entry: a server, on what is new to it.
    Current,
    /// At the entry that the envelope names: receivers, and a server that is being refilled.
    Named,
}

/// What judging came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It continues its author's chain: append it.
    Fresh,
    /// It stands there already: acknowledge it again.
    Duplicate,
    /// It may not stand here. A receiver holds what names an unknown head until it knows it.
    Refused(Refusal),
}

/// Judges an envelope: known already, roster head, role, epoch, the author's chain.
///
/// What stands there already is recognised first, at any epoch: an acknowledgement that was lost is
/// given again, whatever happened to the roster meanwhile.
///
/// # Errors
/// Where the chain could not be read; nothing was judged.
pub fn admit<C: Chain>(
    roster: &Roster,
    chain: &C,
    envelope: &Verified<Envelope>,
    judged_at: JudgedAt,
) -> Result<Admission, C::Error> {
    let header = envelope.header();
    let hash = envelope.hash();
    let same_seq = chain.at(&header.author, &header.stream, header.seq)?;
    if same_seq.iter().any(|link| link.hash == hash) {
        return Ok(Admission::Duplicate);
    }
    let (Some(named), Some(head)) = (roster.place(&header.roster_head), roster.head()) else {
        return Ok(Admission::Refused(Refusal::UnknownHead));
    };
    let at = match judged_at {
        JudgedAt::Current => head.seq,
        JudgedAt::Named => named,
    };
    if !roster.may_write(&header.author, &header.stream, at) {
        return Ok(Admission::Refused(Refusal::Role));
    }
    match roster.epoch_at(&header.stream, at) {
        Some(newest) if header.epoch < newest.epoch => {
            return Ok(Admission::Refused(Refusal::StaleEpoch));
        }
        Some(newest) if header.epoch == newest.epoch => {}
        _ => return Ok(Admission::Refused(Refusal::Malformed)),
    }
    if same_seq.iter().any(|link| link.epoch == header.epoch) {
        return Ok(Admission::Refused(Refusal::Fork));
    }
    continue_chain(roster, chain, envelope, named)
}

fn continue_chain<C: Chain>(
    roster: &Roster,
    chain: &C,
    envelope: &Verified<Envelope>,
    named: RosterSeq,
) -> Result<Admission, C::Error> {
    let header = envelope.header();
    if header.seq == Seq(1) {
        return Ok(Admission::Fresh);
    }
    let before = Seq(header.seq.0 - 1);
    let candidates = chain.at(&header.author, &header.stream, before)?;
    let Some(link) = candidates.iter().find(|link| link.hash == header.prev) else {
        let expected = match candidates.as_slice() {
            [] => chain.last(&header.author, &header.stream)?.next(),
            _ => before,
        };
        return Ok(Admission::Refused(Refusal::Gap(expected)));
    };
    let roster_went_back = roster.place(&link.roster_head).is_some_and(|place| place > named);
    let cursor_went_back = link.log_id == header.log_id && link.seen_pos > header.seen_pos;
    if roster_went_back || cursor_went_back {
        return Ok(Admission::Refused(Refusal::Malformed));
    }
    Ok(Admission::Fresh)
}
