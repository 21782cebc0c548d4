//! What a replica is made of, without threads, sockets or clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ebb_protocol::{
    client::{Client, Input, Report},
    envelope,
    id::{DeviceId, Epoch, Hash, LogId, MemberId, Millis, RosterSeq, Seq, SpaceId, StreamId},
    roster::{EntryWithWraps, Roster},
    verify,
    wire::{self, Pins, SignedPins},
};
use zeroize::Zeroizing;

use super::{Clock, Config, NetworkId, Start, Writer, care::Cares, checked_pins, networks::Networks};
use crate::{
    error::{Cause, Error, Result},
    keys::{DeviceSecrets, Entropy, EpochKey, KemSecret},
    link::{Identity, ServerAddress, Transport},
    record::{AlertId, Category, Moment, RecordId},
    store::{FolderLock, PROJECTION_VERSION, Store, Tx, keyring},
};

/// Under this name the store keeps what is remembered of networks.
const NETWORKS: &str = "networks";

/// What the driver of a replica does with its link.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Open a link to the server.
    Connect,
    /// Send these bytes (a frame with its length).
    Send(Vec<u8>),
    /// Close the link after what was sent before.
    Close,
}

/// Something that observers are told after the transaction that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Records changed, here or elsewhere; which, if that is known.
    Records(SpaceId, Vec<RecordId>),
    /// Where records are may have changed.
    Delivery(SpaceId),
    /// The connection changed its state.
    Status(Report),
    /// The server lost data and started over; this device helps to refill it.
    ServerRestored(SpaceId),
    /// The device may no longer write in this space.
    Frozen(SpaceId),
    /// What the rules find changed.
    Alerts(SpaceId, Vec<AlertId>),
}

/// A replica without threads, sockets or clock.
pub struct Engine {
    pub(super) store: Store,
    pub(super) secrets: DeviceSecrets,
    pub(super) clinic: Option<(MemberId, KemSecret)>,
    pub(super) spaces: BTreeMap<SpaceId, Space>,
    /// What is known of spaces, of those that were busy last.
    pub(super) cares: Cares,
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) server: Option<ServerAddress>,
    pub(super) pins: Option<SignedPins>,
    transport: Option<Transport>,
    networks: Networks,
    pub(super) events: Vec<Event>,
    /// From which of its own envelopes on a stream goes out as new in this connection, though a server had them.
    pub(super) as_new: BTreeMap<(SpaceId, StreamId), Seq>,
    /// Whether it was last said that everything is where it should be.
    pub(super) called_in_sync: bool,
    /// Whether the database was opened anew, and the connection has yet to hear of it.
    renewed: bool,
    /// How far the server's clock is ahead of this device's, by the last Welcome.
    pub(super) skew_ms: Option<i64>,
}

/// A space in memory: what its rows amount to.
pub(super) struct Space {
    pub(super) id: SpaceId,
    pub(super) own: bool,
    pub(super) found: Option<Hash>,
    pub(super) log_id: LogId,
    pub(super) frozen: bool,
    /// What a server delivered or acknowledged.
    pub(super) settled: Roster,
    /// The same, and on top of it what only this device has so far.
    pub(super) roster: Roster,
    pub(super) pending: Vec<EntryWithWraps>,
    pub(super) labels: BTreeMap<StreamId, String>,
    /// The newest entry that the server said it holds, in this connection; `None` before it said so.
    pub(super) server_roster: Option<Option<RosterSeq>>,
    pub(super) own_in_full: bool,
}

impl Engine {
    /// Opens the database and loads what is kept in memory.
    pub(crate) fn open(config: Config, lock: FolderLock, key: &Zeroizing<[u8; 32]>) -> Result<Self> {
        let Config { dir: _, server, pins, start, clock, mut entropy, vfs, drive: _, transport } = config;
        let given = pins.as_ref().map(checked_pins).transpose()?;
        let mut store = Store::open(lock, key, vfs.as_deref())?;
        let secrets = match keyring::meta(store.read(), "device")? {
            Some(bytes) => {
                DeviceSecrets::from_bytes(&bytes).map_err(|error| Error::Update(Cause::new(error)))?
            }
            None => begin(&mut store, &start, clock.now(), entropy.as_mut())?,
        };
        let clinic = match keyring::meta(store.read(), "clinic")? {
            Some(bytes) => Some(clinic_from_bytes(&bytes)?),
            None => None,
        };
        let networks = keyring::meta(store.read(), NETWORKS)?;
        let networks = networks.map(|bytes| Networks::from_bytes(&bytes)).unwrap_or_default();
        let pins = newest_pins(&store, pins, given)?;
        if server.is_some() && pins.is_none() {
            return Err(Error::fix("pins", "given together with the server: without them nobody is trusted"));
        }
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        let client = Client::new(u64::from_be_bytes(seed));
        let mut engine = Self {
            store,
            secrets,
            clinic,
            spaces: BTreeMap::new(),
            cares: Cares::default(),
            client,
            clock,
            entropy,
            server,
            pins,
            transport,
            networks,
            events: Vec::new(),
            as_new: BTreeMap::new(),
            called_in_sync: false,
            renewed: false,
            skew_ms: None,
        };
        engine.load_spaces()?;
        engine.rebuild_views()?;
        engine.retry_after_update()?;
        Ok(engine)
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.secrets.id()
    }

    /// The server's keys, if any are known.
    #[must_use]
    pub fn pins(&self) -> Option<Pins> {
        self.pins.as_ref()?.content().ok()
    }

    /// The server's address, if one is known.
    #[must_use]
    pub fn server(&self) -> Option<&ServerAddress> {
        self.server.as_ref()
    }

    /// The key by which the link authenticates this device, for whoever drives it by hand.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::new(&self.secrets)
    }

    /// The transports to race, the one that begins first; for whoever drives the link by hand.
    #[must_use]
    pub fn transports(&self) -> Vec<Transport> {
        match (self.transport, self.networks.first(self.clock.now())) {
            (Some(only), _) => vec![only],
            (None, Transport::Quic) => vec![Transport::Quic, Transport::Tcp],
            (None, Transport::Tcp) => vec![Transport::Tcp, Transport::Quic],
        }
    }

    /// Says over which transport the link stands that the next input tells of.
    pub fn linked(&mut self, transport: Transport) {
        // Where there is one transport alone, there is no other to go first.
        if self.transport.is_none() {
            self.networks.linked(transport);
        }
    }

    /// Says which network the device is on, before an input says that it changed.
    pub fn moved(&mut self, here: Option<NetworkId>) {
        self.networks.moved(here);
    }

    /// What the connection has yet to hear of: that there may be changes which no call told of, and that there
    /// is another way to the server which was not tried yet.
    pub(super) fn untold(&mut self) -> Option<Input> {
        if std::mem::take(&mut self.renewed) {
            return Some(Input::LocalChange);
        }
        self.networks.take_untried().then_some(Input::OtherWay)
    }

    /// The server answered over the link.
    pub(super) fn link_answered(&mut self) {
        let news = self.networks.answered(self.clock.now());
        self.keep_networks(news);
    }

    /// The link ended, by whichever side.
    pub(super) fn link_ended(&mut self) {
        let news = self.networks.ended(self.clock.now());
        self.keep_networks(news);
    }

    fn keep_networks(&mut self, news: bool) {
        if !news {
            return;
        }
        let bytes = self.networks.to_bytes();
        if let Err(error) = self.store.write(|tx| Ok(keyring::set_meta(tx, NETWORKS, &bytes)?)) {
            tracing::warn!(?error, "which transport gets through here is not remembered");
        }
    }

    /// How far the server's clock is ahead of this device's, in ms; `None` before the first contact.
    #[must_use]
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.skew_ms
    }

    /// How many changes wait for ancestors, and how many were refused by the gate.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn set_aside(&self) -> Result<(u64, u64)> {
        Ok(crate::store::changes::set_aside(self.store.read())?)
    }

    /// How many records a space holds, and how many of those the server does not have whole.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count(&self, space: &SpaceId) -> Result<(u64, u64)> {
        Ok(crate::store::views::count(self.store.read(), space)?)
    }

    /// How many envelopes of a space are at the server, as far as this device knows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn envelopes(&self, space: &SpaceId) -> Result<u64> {
        Ok(crate::store::outbox::count(self.store.read(), space)?)
    }

    pub(super) fn own(&self) -> Result<SpaceId> {
        let own = self.spaces.values().find(|space| space.own).map(|space| space.id);
        own.ok_or_else(|| Error::fix("replica", "a patient's: a clinic has no space of its own"))
    }

    pub(super) fn spaces(&self) -> Vec<SpaceId> {
        self.spaces.keys().copied().collect()
    }

    pub(super) fn space(&self, id: &SpaceId) -> Result<&Space> {
        self.spaces.get(id).ok_or_else(|| Error::fix("space", "one that this replica follows"))
    }

    pub(super) fn writer(&self) -> Writer {
        if self.clinic.is_some() { Writer::Clinic } else { Writer::Patient }
    }

    pub(super) fn now(&self) -> Moment {
        let millis = i64::try_from(self.clock.now().0).unwrap_or(i64::MAX);
        Moment { millis, offset_minutes: self.clock.offset_minutes() }
    }

    /// Takes what observers are to be told, each thing once.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn load_spaces(&mut self) -> Result<()> {
        let rows = keyring::spaces(self.store.read())?;
        for row in rows {
            let space = load_space(&self.store, &row)?;
            self.spaces.insert(row.id, space);
        }
        Ok(())
    }

    /// After a failure to read, opens the database anew: a connection that met one cannot be asked again.
    pub(super) fn sobered(&mut self, error: Error) -> Error {
        if let Error::Retry(cause) = &error
            && cause.is_unread()
            && let Err(error) = self.renew()
        {
            tracing::warn!(?error, "the database does not open again yet");
        }
        error
    }

    /// Sees to it that there is a database to ask.
    pub(super) fn whole(&mut self) -> Result<()> {
        if self.store.is_out() { self.renew() } else { Ok(()) }
    }

    /// Opens the database anew, and takes from it what is kept in memory: what failed before may be in it.
    fn renew(&mut self) -> Result<()> {
        self.store.renew()?;
        self.cares.clear();
        let loaded = self.spaces().iter().try_for_each(|id| self.reload_space(id));
        match &loaded {
            Ok(()) => {
                // What a call could not save for certain may be there now: to be shown, and to be sent.
                self.renewed = true;
                let changed = self.spaces().into_iter().map(|id| Event::Records(id, Vec::new()));
                self.events.extend(changed);
            }
            Err(_) => self.store.give_up(),
        }
        loaded
    }

    /// Loads a space anew, after a transaction that changed it or failed to.
    pub(super) fn reload_space(&mut self, id: &SpaceId) -> Result<()> {
        let rows = keyring::spaces(self.store.read())?;
        let Some(row) = rows.iter().find(|row| row.id == *id) else { return Ok(()) };
        let before = self.spaces.get(id).map(|space| (space.server_roster, space.own_in_full));
        let mut space = load_space(&self.store, row)?;
        if let Some((server_roster, own_in_full)) = before {
            (space.server_roster, space.own_in_full) = (server_roster, own_in_full);
        }
        self.spaces.insert(*id, space);
        Ok(())
    }

    /// The key of a stream's epoch, if this device was given it.
    pub(super) fn epoch_key(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        epoch: Epoch,
        key_check: &Hash,
    ) -> Result<Option<EpochKey>> {
        let bytes = keyring::epoch_key(self.store.read(), space, stream, epoch, key_check)?;
        bytes.map(|bytes| EpochKey::from_bytes(&bytes).map_err(Error::bug)).transpose()
    }

    /// Views of an older way to compute them are computed anew from the changes.
    fn rebuild_views(&mut self) -> Result<()> {
        let known = keyring::meta(self.store.read(), "projection_version")?;
        if known.as_deref().map(Vec::as_slice) == Some(&PROJECTION_VERSION.to_be_bytes()[..]) {
            return Ok(());
        }
        for space in self.spaces() {
            self.reproject(&space)?;
        }
        self.store.write(|tx| {
            keyring::set_meta(tx, "projection_version", &PROJECTION_VERSION.to_be_bytes())?;
            Ok(())
        })
    }
}

impl Space {
    /// The roster of the founding entry alone: the one pending entry that nothing can overtake, and so the
    /// only one that an envelope may name.
    pub(super) fn founding(&self) -> Result<Roster> {
        let mut roster = Roster::new(self.id);
        if let Some(entry) = self.pending.first() {
            let founding = roster.verify(entry.clone()).map_err(Error::bug)?;
            roster.apply(&founding);
        }
        Ok(roster)
    }

    /// The stream of a category.
    pub(super) fn stream(&self, category: Category) -> Option<StreamId> {
        self.labels.iter().find(|(_, label)| *label == category.label()).map(|(stream, _)| *stream)
    }

    /// The device that writes as this actor in a stream; zero for one that the roster does not know.
    pub(super) fn device_of(&self, actor: &[u8; 16], stream: &StreamId) -> DeviceId {
        let writes = |device: &&DeviceId| verify::actor_id(device, stream) == *actor;
        let device = self.roster.devices().map(|(device, _)| device).find(writes);
        device.copied().unwrap_or(DeviceId::ZERO)
    }

    /// Whether a device writes here as the patient or as a clinic.
    pub(super) fn writes_as(&self, device: &DeviceId) -> Writer {
        let owners = self.roster.device(device).is_some_and(|device| device.member == self.roster.owner());
        if owners { Writer::Patient } else { Writer::Clinic }
    }

    /// The category of a stream, if its label is known and means something to this version.
    pub(super) fn category(&self, stream: &StreamId) -> Option<Category> {
        Category::from_label(self.labels.get(stream)?)
    }
}

/// Makes a new device, and what it begins as, in one transaction.
fn begin(store: &mut Store, start: &Start, now: Millis, entropy: &mut dyn Entropy) -> Result<DeviceSecrets> {
    let secrets = DeviceSecrets::make_device(entropy);
    store.write(|tx| {
        keyring::set_meta(tx, "device", &secrets.to_bytes())?;
        keyring::set_meta(tx, "projection_version", &PROJECTION_VERSION.to_be_bytes())?;
        match start {
            Start::Found => super::sharing::found(tx, &secrets, now, entropy)?,
            Start::Join(ticket) => {
                keyring::add_space(tx, &ticket.space, true, Some(&ticket.found))?;
            }
            Start::Clinic => {
                let mut member = [0; 16];
                entropy.fill(&mut member);
                let kem = KemSecret::make_kem(entropy);
                let bytes = Zeroizing::new([&member[..], &kem.to_bytes()].concat());
                keyring::set_meta(tx, "clinic", &bytes)?;
            }
        }
        Ok(())
    })?;
    Ok(secrets)
}

fn clinic_from_bytes(bytes: &[u8]) -> Result<(MemberId, KemSecret)> {
    let damaged = || Error::bug("the clinic's keys are damaged");
    let (member, kem) = bytes.split_first_chunk::<16>().ok_or_else(damaged)?;
    Ok((MemberId(*member), KemSecret::from_bytes(kem).map_err(|_| damaged())?))
}

/// Of the pins given and the pins stored, those of the same root with the higher version; given ones
/// of another root replace the stored ones, since the app was pointed at another deployment.
fn newest_pins(
    store: &Store,
    given: Option<SignedPins>,
    content: Option<Pins>,
) -> Result<Option<SignedPins>> {
    let stored = keyring::meta(store.read(), "pins")?;
    let stored = stored.and_then(|bytes| wire::decode::<SignedPins>(&bytes).ok());
    Ok(match (given, content, stored) {
        (Some(given), Some(new), Some(stored)) => match checked_pins(&stored) {
            Ok(old) if old.root == new.root && old.version > new.version => Some(stored),
            _ => Some(given),
        },
        (given, _, stored) => given.or(stored),
    })
}

fn load_space(store: &Store, row: &keyring::SpaceRow) -> Result<Space> {
    let mut settled = Roster::new(row.id);
    let mut roster = Roster::new(row.id);
    let mut pending = Vec::new();
    for (entry, is_settled) in keyring::roster_entries(store.read(), &row.id)? {
        let verified = roster.verify(entry.clone()).map_err(Error::bug)?;
        roster.apply(&verified);
        if is_settled {
            settled.clone_from(&roster);
        } else {
            pending.push(entry);
        }
    }
    let streams = keyring::streams(store.read(), &row.id)?;
    let labels = streams.into_iter().filter_map(|stream| Some((stream.id, stream.label?))).collect();
    Ok(Space {
        id: row.id,
        own: row.own,
        found: row.found,
        log_id: row.log_id,
        frozen: row.frozen,
        settled,
        roster,
        pending,
        labels,
        server_roster: None,
        own_in_full: false,
    })
}

/// Makes rows for streams that a roster has and the store does not.
pub(super) fn add_streams(tx: &Tx<'_>, roster: &Roster) -> Result<()> {
    let space = roster.space();
    for stream in roster.streams().collect::<BTreeSet<_>>() {
        keyring::add_stream(tx, &space, &stream, &envelope::chain_start(&space, &stream))?;
    }
    Ok(())
}
