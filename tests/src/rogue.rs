//! A device that left the path: a member's own keys and database, opened by hand, and a bare connection.
//!
//! What a hostile member can do is bounded by its keys, not by our code: so this takes the keys out of a
//! replica's database and seals, signs and says whatever a test wants. A hostile server's part is to put
//! into its log what it should not; and a replica that a test drives by hand may be cut off anywhere.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    path::Path,
};

use ebb_core::{
    Config, Drive, Entry, FileVault, LinkAction, RecordId, Replica,
    keys::{DeviceSecrets, EpochKey},
    link::{self, Identity, Link, LinkError, ServerAddress, Transport},
    record::{Category, Moment, Stamp, Value},
    seal::{self, Payload, RecordChanges},
};
use ebb_protocol::{
    client::Input,
    envelope::{self, Envelope, Header, Kind},
    id::{DeviceId, Epoch, Hash, LogId, Position, Seq, SpaceId, StreamId},
    roster::{EntryWithWraps, Roster},
    verify,
    wire::{self, Acked, FromDevice, FromServer, Hello, Push, Refusal, SignedPins, SpaceHello, Welcome},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::ward::PATIENCE;

/// When what a rogue writes was written down, as it says: 14 November 2023.
pub const RECORDED_MS: i64 = 1_700_000_000_000;

/// The changes of a record as a replica's database has them.
///
/// # Errors
/// Where the database cannot be read.
pub fn changes_of(db: &Connection, record: RecordId) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut query = db.prepare("SELECT bytes FROM change WHERE record = ?1")?;
    query.query_map([record.as_bytes()], |row| row.get(0))?.collect()
}

/// Opens a replica's database by hand; the replica must be closed.
///
/// # Panics
/// Where the folder holds no replica.
#[must_use]
pub fn open_database(dir: &Path) -> Connection {
    let key = std::fs::read(dir.join("vault")).expect("a file vault");
    let hex = key.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let db = Connection::open(dir.join("replica/ebb.db")).expect("the database opens");
    db.execute_batch(&format!("PRAGMA key = \"x'{hex}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256"))
        .expect("takes a key");
    db
}

/// A member's device whose keys are used for whatever a test wants.
pub struct Rogue {
    /// Its secrets.
    pub secrets: DeviceSecrets,
    /// The space it is a member of.
    pub space: SpaceId,
    /// The log it knew.
    pub log_id: LogId,
    /// The roster it knew.
    pub roster: Roster,
    streams: BTreeMap<String, StreamId>,
    keys: BTreeMap<(StreamId, Epoch), EpochKey>,
    /// What it sealed last in each stream.
    chain: BTreeMap<StreamId, Envelope>,
    salt: u8,
}

impl Rogue {
    /// Takes a closed replica's keys, as whoever holds the device can.
    ///
    /// # Panics
    /// Where the folder holds no replica, or it follows no space.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self::read(&open_database(dir)).expect("a replica's database")
    }

    /// The same from an open database. The roster is what the server is known to have of it.
    ///
    /// # Errors
    /// Where the database cannot be read.
    ///
    /// # Panics
    /// Where it holds something else than a replica of this version.
    pub fn read(db: &Connection) -> rusqlite::Result<Self> {
        let blob = |sql: &str| db.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0));
        let secrets = DeviceSecrets::from_bytes(&blob("SELECT value FROM meta WHERE name = 'device'")?);
        let secrets = secrets.expect("of this version");
        let id = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).expect("16 bytes");
        let space = SpaceId(id(&blob("SELECT id FROM space")?));
        let log_id = LogId(id(&blob("SELECT log_id FROM space")?));
        let mut roster = Roster::new(space);
        let mut query = db.prepare("SELECT bytes FROM roster_entry WHERE settled ORDER BY seq")?;
        for bytes in query.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
            let entry: EntryWithWraps = wire::decode(&bytes?).expect("an entry");
            let verified = roster.verify(entry).expect("a sound chain");
            roster.apply(&verified);
        }
        let mut query = db.prepare("SELECT label, id FROM stream WHERE label IS NOT NULL")?;
        let streams = query.query_map([], |row| Ok((row.get(0)?, StreamId(row.get(1)?))))?;
        let streams = streams.collect::<Result<_, _>>()?;
        let mut query = db.prepare("SELECT stream, epoch, key FROM epoch_key")?;
        let keys = query.query_map([], |row| {
            let key = row.get::<_, Vec<u8>>(2)?;
            Ok(((StreamId(row.get(0)?), Epoch(row.get(1)?)), EpochKey::from_bytes(&key).expect("a key")))
        })?;
        let keys = keys.collect::<Result<_, _>>()?;
        let mut query = db.prepare("SELECT bytes FROM envelope WHERE author = ?1 ORDER BY seq, epoch")?;
        let mut chain = BTreeMap::new();
        for bytes in query.query_map([secrets.id().0], |row| row.get::<_, Vec<u8>>(0))? {
            let envelope = Envelope::parse(bytes?).expect("an envelope");
            chain.insert(envelope.header().stream, envelope);
        }
        Ok(Self { secrets, space, log_id, roster, streams, keys, chain, salt: 0 })
    }

    /// Whether an honest device could write in this category now.
    #[must_use]
    pub fn can_write(&self, category: Category) -> bool {
        let Some(stream) = self.streams.get(category.label()) else { return false };
        let is_member = self.roster.device(&self.secrets.id()).is_some();
        let epoch = self.roster.epoch(stream).map(|epoch| epoch.epoch);
        is_member && epoch.is_some_and(|epoch| self.keys.contains_key(&(*stream, epoch)))
    }

    /// Puts an envelope into the replica's own database, as one that it sealed and has yet to send.
    ///
    /// # Errors
    /// Where the database does not take it, as far as it says.
    pub fn slip_in(db: &Connection, envelope: &Envelope) -> rusqlite::Result<()> {
        let header = envelope.header();
        let values = params![
            header.space.0,
            header.stream.0,
            header.author.0,
            header.seq.0,
            header.epoch.0,
            envelope.hash().0,
            header.roster_head.0,
            header.log_id.0,
            header.seen_pos.0,
            envelope.as_bytes(),
        ];
        let insert = "INSERT INTO envelope (space, stream, author, seq, epoch, hash, roster_head, log_id,
                                            seen_pos, verdict, bytes)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'accepted', ?10)";
        db.execute(insert, values).map(drop)
    }

    /// The stream of a category.
    ///
    /// # Panics
    /// Where the device does not know it.
    #[must_use]
    pub fn stream(&self, category: Category) -> StreamId {
        self.streams[category.label()]
    }

    /// Every epoch key that the device holds.
    pub fn epoch_keys(&self) -> impl Iterator<Item = &EpochKey> {
        self.keys.values()
    }

    /// The actor as which this device writes in a category.
    #[must_use]
    pub fn actor(&self, category: Category) -> [u8; 16] {
        verify::actor_id(&self.secrets.id(), &self.stream(category))
    }

    /// A version of a record as this device would honestly write it.
    #[must_use]
    pub fn value(&self, entry: &Entry) -> Vec<u8> {
        Self::value_by(self.secrets.id(), entry)
    }

    /// The same in the name of a device.
    #[must_use]
    pub fn value_by(author: DeviceId, entry: &Entry) -> Vec<u8> {
        let recorded = Moment { millis: RECORDED_MS, offset_minutes: 0 };
        Value::new(entry, &Stamp { recorded, author: author.0, staff: None }).encode()
    }

    /// The header that an honest device would seal next under.
    ///
    /// # Panics
    /// Where the roster does not know the stream.
    #[must_use]
    pub fn header(&mut self, category: Category) -> Header {
        let stream = self.stream(category);
        let before = self.chain.get(&stream).map(|last| (last.header(), last.hash()));
        let (seq, prev) = before.map_or((Seq(0), Hash::ZERO), |(last, hash)| (last.seq, hash));
        // In one log, what was seen never goes back.
        let seen = before.filter(|(last, _)| last.log_id == self.log_id);
        let (seen_pos, seen_hash) =
            seen.map_or((Position(0), Hash::ZERO), |(last, _)| (last.seen_pos, last.seen_hash));
        self.salt = self.salt.wrapping_add(1);
        Header {
            kind: Kind::Changes,
            space: self.space,
            stream,
            author: self.secrets.id(),
            seq: seq.next(),
            prev,
            epoch: self.roster.epoch(&stream).expect("an open stream").epoch,
            roster_head: self.roster.head().expect("a founded space").hash,
            log_id: self.log_id,
            seen_pos,
            seen_hash,
            salt: [self.salt; 16],
        }
    }

    /// Seals a payload under a header; the chain goes on with it only if the test says so.
    ///
    /// # Panics
    /// Where the header is none that can be encoded.
    #[must_use]
    pub fn seal(&self, header: &Header, payload: &[u8]) -> Envelope {
        let newest = (header.stream, self.roster.epoch(&header.stream).expect("an open stream").epoch);
        let key = self.keys.get(&(header.stream, header.epoch)).unwrap_or_else(|| &self.keys[&newest]);
        seal::seal(&self.secrets, key, header, payload).expect("a header that can be encoded")
    }

    /// Notes that the chain goes on behind this envelope.
    pub fn follow(&mut self, envelope: &Envelope) {
        self.chain.insert(envelope.header().stream, envelope.clone());
    }

    /// Seals a payload next in the chain, as an honest device would.
    #[must_use]
    pub fn write(&mut self, category: Category, payload: &[u8]) -> Envelope {
        let header = self.header(category);
        let envelope = self.seal(&header, payload);
        self.follow(&envelope);
        envelope
    }

    /// What an honest device would say of its place in the space.
    #[must_use]
    pub fn hello(&self) -> SpaceHello {
        let (space, log_id, roster) = (self.space, self.log_id, self.roster.head());
        SpaceHello { space, log_id, roster, cursors: Vec::new(), own_in_full: false }
    }
}

/// Puts an envelope next into the log of a server that is not running, as whoever runs it can, and whatever
/// an honest server would say to it: its own heads will cover it. The server itself does not learn who wrote
/// it, so that it judges nothing by it.
///
/// # Panics
/// Where the file holds no log, or the bytes are no envelope.
pub fn smuggle(log: &Path, bytes: &[u8]) {
    let envelope = Envelope::parse(bytes.to_vec()).expect("an envelope");
    let (header, hash) = (envelope.header(), envelope.hash());
    let (space, stream) = (header.space, header.stream);
    let db = Connection::open(log).expect("a log");
    let last = "SELECT position, chain FROM envelope WHERE space = ?1 AND stream = ?2
                ORDER BY position DESC LIMIT 1";
    let last = db.query_row(last, [space.0, stream.0], |row| Ok((row.get(0)?, Hash(row.get(1)?))));
    let (position, chain) =
        last.optional().expect("reads").unwrap_or_else(|| (0_u64, envelope::chain_start(&space, &stream)));
    let values = params![
        space.0,
        stream.0,
        position + 1,
        &hash.0[..16],
        header.seq.0,
        header.epoch.0,
        hash.0,
        envelope::chain_next(&chain, &hash).0,
        header.roster_head.0,
        header.log_id.0,
        header.seen_pos.0,
        0,
        bytes,
    ];
    let insert = "INSERT INTO envelope VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    db.execute(insert, values).expect("takes it");
}

/// A replica without a thread of its own: every frame, over TCP, goes through the test's hands.
pub struct ByHand {
    /// The replica.
    pub replica: Replica,
    /// Every frame that it sent.
    pub sent: Vec<u8>,
    identity: Identity,
    server: ServerAddress,
    pins: SignedPins,
}

impl ByHand {
    /// Opens a device's closed replica.
    ///
    /// # Panics
    /// Where the folder holds no replica.
    #[must_use]
    pub fn open(dir: &Path, server: &ServerAddress, pins: &SignedPins) -> Self {
        let identity = Identity::new(&Rogue::of(dir).secrets);
        let config = Config { drive: Drive::Manual, ..Config::new(dir.join("replica")) };
        let config = config.server(server.clone(), pins.clone());
        let replica = Replica::open(config, &FileVault(dir.join("vault"))).expect("the replica opens");
        Self { replica, sent: Vec::new(), identity, server: server.clone(), pins: pins.clone() }
    }

    /// Syncs until the replica closes the link; or until the server says something that fits, which the
    /// replica still hears, and is cut off. Whether it was.
    ///
    /// # Panics
    /// Where the server does not answer.
    pub async fn sync_until(&mut self, fits: impl Fn(&FromServer) -> bool) -> bool {
        let until = self.replica.with_engine(|engine| Ok(engine.until(PATIENCE))).expect("open");
        let mut link: Option<Link> = None;
        let mut inputs = vec![Input::SyncUntil(until)];
        let mut cut = false;
        loop {
            while let Some(input) = inputs.pop() {
                let actions = self.replica.with_engine(|engine| Ok(engine.handle(input))).expect("open");
                if cut {
                    return true;
                }
                for action in actions {
                    match (action, &mut link) {
                        (LinkAction::Connect, _) => {
                            let pins = self.pins.content().expect("pins").tls;
                            let made =
                                link::connect(&[Transport::Tcp], &self.server, &self.identity, &pins).await;
                            let made = made.expect("the server answers");
                            inputs.push(Input::Connected { exporter: made.exporter });
                            link = Some(made);
                        }
                        (LinkAction::Send(frame), Some(link)) => {
                            self.sent.extend_from_slice(&frame);
                            link.writer.send(frame).await.expect("the server takes it");
                        }
                        (LinkAction::Close, link) => {
                            if let Some(link) = link.take() {
                                link.close().await;
                            }
                            return false;
                        }
                        (LinkAction::Send(_), None) => panic!("a frame without a link"),
                    }
                }
            }
            let reader = &mut link.as_mut().expect("connected").reader;
            let frame = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time");
            let frame: FromServer =
                wire::decode(&frame.expect("heard").expect("not closed")).expect("a frame");
            cut = fits(&frame);
            inputs.push(Input::Frame(frame));
        }
    }
}

/// One payload of some records, each with its changes.
///
/// # Panics
/// Where it is empty or too large.
#[must_use]
pub fn payload(records: &[([u8; 16], &[Vec<u8>])]) -> Vec<u8> {
    let records =
        records.iter().map(|(record, changes)| RecordChanges { record: *record, changes: changes.to_vec() });
    Payload { records: records.collect() }.pack().expect("fits")
}

/// A well-formed Automerge change of some hundred bytes with as many operations as asked, in run lengths:
/// each puts null at the key `k`.
#[must_use]
pub fn bomb(actor: [u8; 16], operations: u64) -> Vec<u8> {
    let run = |value: &[u8]| {
        let mut column = Vec::new();
        put_unsigned(&mut column, operations);
        if let Some(last) = column.last_mut().filter(|last| **last & 0x40 != 0) {
            *last |= 0x80;
            column.push(0);
        }
        column.extend(value);
        column
    };
    let mut booleans = Vec::new();
    put_unsigned(&mut booleans, operations);
    // Key, insert, action, value's metadata, predecessors: the columns of Automerge's binary format.
    let columns: [(u64, Vec<u8>); 5] =
        [(0x15, run(b"\x01k")), (0x34, booleans), (0x42, run(&[1])), (0x56, run(&[0])), (0x70, run(&[0]))];
    let mut content = vec![0, 16];
    content.extend(actor);
    content.extend([1, 1, 0, 0, 0]);
    put_unsigned(&mut content, columns.len() as u64);
    for (column, data) in &columns {
        put_unsigned(&mut content, *column);
        put_unsigned(&mut content, data.len() as u64);
    }
    content.extend(columns.iter().flat_map(|(_, data)| data));
    chunk(&content)
}

/// A change chunk around its content, with the right length and checksum.
#[must_use]
pub fn chunk(content: &[u8]) -> Vec<u8> {
    let mut hashed = vec![1];
    put_unsigned(&mut hashed, content.len() as u64);
    hashed.extend(content);
    let hash = verify::sha256(&[&hashed]);
    [&[0x85, 0x6f, 0x4a, 0x83], &hash.0[..4], &hashed].concat()
}

pub(crate) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A bare connection to a server, which says only what it is told to.
pub struct Wire {
    runtime: tokio::runtime::Runtime,
    link: Link,
    /// What was heard and not asked for yet.
    heard: VecDeque<FromServer>,
}

impl Wire {
    /// Connects with a device's TLS key.
    ///
    /// # Panics
    /// Where the server does not answer.
    #[must_use]
    pub fn connect(address: &ServerAddress, pins: &SignedPins, secrets: &DeviceSecrets) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let pins = pins.content().expect("pins").tls;
        let identity = Identity::new(secrets);
        let link = runtime.block_on(link::connect(&[Transport::Tcp], address, &identity, &pins));
        Self { link: link.expect("the server answers"), runtime, heard: VecDeque::new() }
    }

    /// Connects as a member and introduces itself in its space.
    #[must_use]
    pub fn member(address: &ServerAddress, pins: &SignedPins, rogue: &Rogue) -> (Self, Welcome) {
        let mut wire = Self::connect(address, pins, &rogue.secrets);
        let welcome = wire.hello(rogue.secrets.id(), vec![rogue.hello()]);
        (wire, welcome)
    }

    /// Says Hello and waits for Welcome.
    ///
    /// # Panics
    /// Where the server says something else first.
    pub fn hello(&mut self, device: DeviceId, spaces: Vec<SpaceHello>) -> Welcome {
        self.say(&FromDevice::Hello(Hello { version: wire::VERSION, device, pins_version: 1, spaces }));
        match self.hear() {
            Some(FromServer::Welcome(welcome)) => welcome,
            other => panic!("no welcome, but {other:?}"),
        }
    }

    /// Says a frame; a connection that is gone is noticed when hearing.
    pub fn say(&mut self, frame: &FromDevice) {
        self.say_bytes(wire::encode_frame(frame));
    }

    /// Says any bytes.
    pub fn say_bytes(&mut self, bytes: Vec<u8>) {
        let _ = self.runtime.block_on(self.link.writer.send(bytes));
    }

    /// Hears a frame; `None` once the server has closed.
    ///
    /// # Panics
    /// Where nothing comes in time, or no frame.
    pub fn hear(&mut self) -> Option<FromServer> {
        if let Some(frame) = self.heard.pop_front() {
            return Some(frame);
        }
        let next = async { tokio::time::timeout(PATIENCE, self.link.reader.next()).await };
        match self.runtime.block_on(next).expect("the server says something in time") {
            Ok(Some(frame)) => Some(wire::decode(&frame).expect("a frame of this version")),
            Ok(None) | Err(LinkError::Lost) => None,
            Err(error) => panic!("the server breaks the protocol: {error}"),
        }
    }

    /// Everything that the server says up to the first frame that fits, that one included; ends early if
    /// the server closes.
    pub fn hear_until(&mut self, fits: impl Fn(&FromServer) -> bool) -> Vec<FromServer> {
        let mut heard = Vec::new();
        while let Some(frame) = self.hear() {
            let last = fits(&frame);
            heard.push(frame);
            if last {
                break;
            }
        }
        heard
    }

    /// Everything that the server has to say for now: all that comes before the answer to a ping.
    pub fn hear_all(&mut self) -> Vec<FromServer> {
        self.say(&FromDevice::Ping(7));
        let mut heard = self.hear_until(|frame| *frame == FromServer::Pong(7));
        heard.retain(|frame| *frame != FromServer::Pong(7));
        heard
    }

    /// Pushes envelopes of one stream and says what came of them.
    pub fn push(&mut self, space: SpaceId, stream: StreamId, envelopes: Vec<Vec<u8>>) -> Pushed {
        let envelopes = envelopes.into_iter().map(Into::into).collect();
        self.say(&FromDevice::Push(Push { space, stream, envelopes, refill: false }));
        let answers = |frame: &FromServer| {
            matches!(frame, FromServer::Acked(_) | FromServer::Refused(_) | FromServer::Bye(_))
        };
        match self.hear_until(answers).pop() {
            Some(FromServer::Acked(acked)) => Pushed::Acked(acked),
            Some(FromServer::Refused(refused)) => Pushed::Refused(refused.reason),
            Some(FromServer::Bye(bye)) => Pushed::Bye(bye.reason),
            other => panic!("no answer, but {other:?}"),
        }
    }

    /// Pushes one envelope.
    pub fn push_one(&mut self, envelope: &Envelope) -> Pushed {
        let Header { space, stream, .. } = *envelope.header();
        self.push(space, stream, vec![envelope.as_bytes().to_vec()])
    }
}

/// What came of a push.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is durable.
    Acked(Acked),
    /// It was refused.
    Refused(Refusal),
    /// The connection was ended for it.
    Bye(Refusal),
}

impl Pushed {
    /// Whether it is durable.
    #[must_use]
    pub fn is_acked(&self) -> bool {
        matches!(self, Self::Acked(_))
    }
}
