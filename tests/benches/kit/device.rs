//! A device written by hand: it signs envelopes of any size without a replica behind it.

use ebb_core::keys::{DeviceSecrets, OsEntropy};
use ebb_protocol::{
    envelope::{Envelope, Header, Kind},
    id::{Epoch, Hash, LogId, Millis, Position, Seq, SpaceId, StreamId},
    roster::{
        self, Entry, EntryWithWraps, KeyHandout, Operation, Recipient, Roster, SignedEntry, Wrap, wraps_hash,
    },
    verify,
    wire::{FromDevice, Head, Hello, Push, PushRoster, SpaceHello, VERSION, encode_frame},
};

/// The four streams that a patient's mixed records touch.
pub(crate) const STREAMS: [StreamId; 4] =
    [StreamId([0xa1; 16]), StreamId([0xa2; 16]), StreamId([0xa3; 16]), StreamId([0xa4; 16])];
/// Ciphertext of a day or two of records: the least that is sealed is 256 bytes and a tag.
pub(crate) const SMALL_BODY_BYTES: usize = 272;

pub(crate) struct Device {
    pub(crate) secrets: DeviceSecrets,
    pub(crate) space: SpaceId,
    pub(crate) roster: Roster,
    pub(crate) founding: EntryWithWraps,
    /// The newest envelope of each stream.
    pub(crate) chains: [(Seq, Hash); 4],
}

impl Device {
    /// A phone that founded a space with four streams, which no server has seen yet.
    pub(crate) fn found() -> Self {
        Self::of(DeviceSecrets::make_device(&mut OsEntropy))
    }

    /// The same device again: its founding is the same each time.
    pub(crate) fn of(secrets: DeviceSecrets) -> Self {
        let nonce = [4; 16];
        let space = verify::space_id(&secrets.id(), &nonce);
        let mut operations = vec![Operation::Found { nonce, device: secrets.public().clone() }];
        let mut wraps = Vec::new();
        for (place, stream) in (0..).zip(STREAMS) {
            let recipient = Recipient::Device(secrets.id());
            let wrap = Wrap { handout: place, recipient, bytes: vec![6; 113] };
            let key_check = verify::sha256(&[&stream.0]);
            let wraps_hash = wraps_hash(std::iter::once(&wrap));
            let key = KeyHandout { stream, epoch: Epoch(1), key_check, wraps_hash };
            operations.push(Operation::OpenStream { stream, owner_writes: true, key });
            wraps.push(wrap);
        }
        let mut roster = Roster::new(space);
        let entry = Entry {
            version: roster::VERSION,
            space,
            seq: roster.next_seq(),
            prev: roster.prev(),
            author: secrets.id(),
            time: Millis(1),
            operations,
            sealed: Vec::new(),
        };
        let entry = SignedEntry::sign(&entry, |message| secrets.sign(message));
        let founding = EntryWithWraps { entry, wraps };
        let verified = roster.verify(founding.clone()).expect("it founds the space");
        roster.apply(&verified);
        Self { secrets, space, roster, founding, chains: [(Seq(0), Hash::ZERO); 4] }
    }

    /// The next envelope of a stream, with so many bytes of ciphertext.
    pub(crate) fn write(&mut self, stream: usize, body_bytes: usize) -> Envelope {
        let (seq, prev) = self.chains[stream];
        let header = Header {
            kind: Kind::Changes,
            space: self.space,
            stream: STREAMS[stream],
            author: self.secrets.id(),
            seq: seq.next(),
            prev,
            epoch: Epoch(1),
            roster_head: self.roster.prev(),
            log_id: LogId::ZERO,
            seen_pos: Position(0),
            seen_hash: Hash::ZERO,
            salt: [9; 16],
        };
        let bytes = header.encode(u32::try_from(body_bytes).expect("small"));
        // Like any ciphertext, it does not repeat itself.
        let mut body = Vec::with_capacity(body_bytes + 32);
        let mut block = verify::sha256(&[&bytes]);
        while body.len() < body_bytes {
            body.extend_from_slice(&block.0);
            block = verify::sha256(&[&block.0]);
        }
        body.truncate(body_bytes);
        let envelope = Envelope::assemble(&bytes, &[3; 32], &body, |message| self.secrets.sign(message))
            .expect("well formed");
        self.chains[stream] = (header.seq, envelope.hash());
        envelope
    }

    pub(crate) fn push(&mut self, stream: usize, body_bytes: usize) -> Vec<u8> {
        let envelope = self.write(stream, body_bytes).into_bytes();
        let (space, stream) = (self.space, STREAMS[stream]);
        encode_frame(&FromDevice::Push(Push {
            space,
            stream,
            envelopes: vec![envelope.into()],
            refill: false,
        }))
    }

    pub(crate) fn push_roster(&self) -> Vec<u8> {
        let entries = vec![self.founding.clone()];
        encode_frame(&FromDevice::PushRoster(PushRoster { space: self.space, entries }))
    }

    /// Hello of a device that knows this log up to these heads.
    pub(crate) fn hello(&self, log_id: LogId, cursors: Vec<Head>) -> Vec<u8> {
        let roster = if log_id.is_zero() { None } else { self.roster.head() };
        let space = SpaceHello { space: self.space, log_id, roster, cursors, own_in_full: false };
        let hello = Hello {
            version: VERSION,
            device: self.secrets.id(),
            pins_version: u32::MAX,
            spaces: vec![space],
        };
        encode_frame(&FromDevice::Hello(hello))
    }
}
