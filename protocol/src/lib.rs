//! What both ends of Ebb speak, as bytes and state machines: no clock, no randomness, no I/O, no secrets.
//!
//! Core (a device) and the sync server both stand on this crate, and only on what it says of the other.
//! It can check signatures but not make them, and it cannot open anything: that the server is blind is a
//! line that is missing in its `Cargo.toml`.
//!
//! # Who takes part
//!
//! A **device** has three key pairs of its own: one signs, one authenticates its connections, one receives
//! stream keys. Its id is a hash of the public ones. A **space** belongs to one patient, and its id is a
//! hash that names the founding device: nobody else can found it. A space holds **streams**, one per
//! category of consent, each with its own key, which changes from **epoch** to epoch. **Members** other
//! than the owner are clinics and supporters; a stream's key is wrapped to each member once, however many
//! devices it has, and to each of the owner's devices.
//!
//! # The envelope
//!
//! What a device writes travels in an [envelope](envelope::Envelope): a fixed header, a ciphertext, a
//! signature. Within a stream each author counts its envelopes and names the hash of the one before, so
//! nothing of an author's can be left out, doubled or exchanged unnoticed. The header also names the
//! newest roster entry that the author knew, and how far it had read the stream: whoever shows different
//! histories to different devices is found out as soon as one of them writes.
//!
//! # The roster
//!
//! Who is in a space and may do what is a [chain of signed entries](roster::Roster). Each entry is a list
//! of operations that hold together or not at all, and it carries the keys it hands out, wrapped to
//! exactly those who shall have them. Everybody replays the chain and comes to the same state; nobody
//! takes the server's word for it. The chain is strictly linear: an entry names the one before it, the
//! server appends it only if that is its newest, and of two devices that are equally fast one hears
//! [`HeadMoved`](wire::Refusal::HeadMoved) and signs its intent again on top of the other's.
//!
//! # The log
//!
//! The server appends envelopes to a log, one per stream, with positions from 1 and a chain hash at each.
//! What it acknowledges is durable, and it signs the head to prove it. A server that was restored from
//! a backup is shown its own signature, begins a new log in public ([`wire::LogBorn`]), and is given back
//! what it lost by those who have it.
//!
//! [`judge::admit`] decides for both ends whether an envelope may stand: it is there already (acknowledge
//! it again), the roster knows the entry that it names, its author may write, its epoch is the right one,
//! and it continues its author's chain. A second envelope at the same sequence *and* epoch is a fork; one of
//! a higher epoch is the same changes sealed again after a rotation, and stands beside the first.
//!
//! # A connection
//!
//! ```text
//! device                                          server
//!   Hello, PushRoster*, Push*       ->                    everything unsent, without waiting
//!                                   <-  Welcome           echoes keying material of this connection
//!                                   <-  Roster*           entries that the device lacks
//!                                   <-  RosterAcked, Acked, Refused
//!                                   <-  Entries*          each stream's log after the device's cursor
//!                                   <-  CaughtUp          heads, signed
//!   Seen                            ->                    it is stored
//!   ... either side goes on as things happen
//! ```
//!
//! A reconnect that carries changes both ways is one round trip: after its first flight the device has
//! nothing to say before it is caught up. [`client::Client`] and [`session::Session`] are the two sides.
//! Each takes an input and answers with outputs, to be carried out in order; what must outlive a crash is
//! durable before the next is carried out. Whoever drives them owns sockets, storage and keys, and says what
//! time it is. So whole days run in a test within milliseconds, cut wherever it hurts.
//!
//! # What is refused
//!
//! Every [`wire::Refusal`] has one remedy, which the client asks for: seal again, push the roster, sign again,
//! send from an earlier sequence, wait, stop. One that does not help is tried three times in a connection;
//! then that stream is left alone, and the app is told. One refusal ends its author's run in the stream,
//! so that nothing behind a gap is judged. Bytes that are no frame end the connection.
//!
//! Limits are named in [`wire`], each with its reason; a roster or a log of any size comes in frames of at
//! most a mebibyte.
//!
//! # What the server sees
//!
//! Random ids, who of them reads and writes which stream, when, from which address, and padded sizes.
//! Neither names of streams nor of people, and nothing of what is written.
//!
//! # Both sides at work
//!
//! A device that founded its space offline meets a server for the first time: its roster and its first
//! envelope leave with Hello. (Core seals real ciphertext; here any bytes will do.)
//!
//! ```
//! # use std::{collections::VecDeque, sync::Arc};
//! # use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
//! # use ebb_protocol::{client::{self, Client, Outgoing, OutgoingEnvelope, Report}, envelope::{self, Envelope, Header, Kind},
//! #     id::*, roster::{self, *}, session::{self, Appended, Attest, Run, Session}, verify::{self, PublicKey, Signature}, wire::{self, *}};
//! let key = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
//! let public = |key: &Ed25519KeyPair| PublicKey(key.public_key().as_ref().try_into().unwrap());
//! let sign = |key: &Ed25519KeyPair, message: &[u8]| Signature::from_bytes(key.sign(message).as_ref().try_into().unwrap());
//! let (sig, tls, root) = (key(1), key(2), key(3));
//!
//! // The device founds a space and opens a stream, whose key is wrapped to itself.
//! let keys = DeviceKeys { sig: public(&sig), tls: public(&tls), kem: KemKey(vec![4; KEM_KEY_BYTES]) };
//! let (me, stream, log_id) = (keys.id(), StreamId([5; 16]), LogId([6; 16]));
//! let space = verify::space_id(&me, &[7; 16]);
//! let wraps = vec![Wrap { handout: 0, recipient: Recipient::Device(me), bytes: vec![8; 113] }];
//! let first_key = KeyHandout { stream, epoch: Epoch(1), key_check: Hash([9; 32]), wraps_hash: wraps_hash(&wraps) };
//! let operations = vec![
//!     Operation::Found { nonce: [7; 16], device: keys.clone() },
//!     Operation::OpenStream { stream, owner_writes: true, key: first_key },
//! ];
//! let (seq, prev, time) = (RosterSeq(0), Hash::ZERO, Millis(1));
//! let entry = Entry { version: roster::VERSION, space, seq, prev, author: me, time, operations, sealed: vec![] };
//! let founding = EntryWithWraps { entry: SignedEntry::sign(&entry, |message| sign(&sig, message)), wraps };
//! let mut chain = Roster::new(space);
//! let verified = chain.verify(founding.clone())?;
//! chain.apply(&verified);
//!
//! // It seals its first envelope.
//! let header = Header {
//!     kind: Kind::Changes, space, stream, author: me, seq: Seq(1), prev, epoch: Epoch(1),
//!     roster_head: chain.prev(), log_id: LogId::ZERO, seen_pos: Position(0), seen_hash: Hash::ZERO, salt: [10; 16],
//! };
//! let sealed = Envelope::assemble(&header.encode(32), &[11; 32], &[12; 32], |message| sign(&sig, message))?;
//! let outgoing = OutgoingEnvelope { hash: sealed.hash(), author: me, seq: Seq(1), bytes: sealed.as_bytes().to_vec() };
//! let mut outbox = vec![
//!     Outgoing::Roster(space, vec![founding]),
//!     Outgoing::Envelopes { space, stream, envelopes: vec![outgoing], refill: false },
//! ];
//!
//! // The two sides, and what is on its way to each.
//! let (now, exporter) = (Millis(1_000), [13; 32]);
//! let pins = Pins { version: 1, root: public(&root), tls: vec![], heads: vec![public(&root)] };
//! let pins = SignedPins::sign(&pins, |message| sign(&root, message));
//! let config = session::Config { open_registration: true, pins, heads_keys: vec![public(&root)], back_off_ms: 0 };
//! let mut server = Session::new(now, Arc::new(config), public(&tls), exporter);
//! let mut device = Client::new(14);
//! let mut to_device = VecDeque::from([client::Input::SyncUntil(now.plus(25_000))]);
//! let mut to_server = VecDeque::new();
//! let attest = |heads: &Heads| SignedHeads::sign(heads, |message| sign(&root, message));
//! let start = Head { stream, position: Position(0), chain: envelope::chain_start(&space, &stream) };
//! let end = Head { stream, position: Position(1), chain: envelope::chain_next(&start.chain, &sealed.hash()) };
//! let mut reports = Vec::new();
//! loop {
//!     if let Some(input) = to_device.pop_front() {
//!         for output in device.handle(now, input) {
//!             to_device.extend(match output {
//!                 client::Output::Connect => Some(client::Input::Connected { exporter }),
//!                 client::Output::Greet => {
//!                     let hello = SpaceHello { space, log_id: LogId::ZERO, roster: None, cursors: vec![], own_in_full: false };
//!                     Some(client::Input::Greeting(Hello { version: wire::VERSION, device: me, pins_version: 1, spaces: vec![hello] }))
//!                 }
//!                 client::Output::Gather { .. } => Some(client::Input::Outbox { items: std::mem::take(&mut outbox), more: false }),
//!                 client::Output::Keep(run) => {
//!                     assert_eq!(run.items[0].content, ItemContent::Own(sealed.hash()));
//!                     Some(client::Input::Kept(space, Some(end)))
//!                 }
//!                 client::Output::Send(frame) => { to_server.push_back(session::Input::Frame(frame)); None }
//!                 client::Output::Report(report) => { reports.push(report); None }
//!                 _ => None, // A real device stores what it is told.
//!             });
//!         }
//!     } else if let Some(input) = to_server.pop_front() {
//!         for output in server.handle(now, input) {
//!             match output {
//!                 session::Output::Open(_, hello) => to_server.push_front(session::Input::Opened(hello.space, None)),
//!                 session::Output::AppendRoster(..) => {
//!                     let state = Some((log_id, Arc::new(chain.clone())));
//!                     to_server.push_back(session::Input::RosterCommitted { space, state, refused: None });
//!                 }
//!                 session::Output::Append { envelopes, .. } => {
//!                     let acked = AckedEnvelope { hash: envelopes[0].hash(), position: end.position };
//!                     let (outcomes, head) = (vec![Appended::At(acked)], Some((log_id, end)));
//!                     to_server.push_back(session::Input::Grew(space, log_id, vec![end]));
//!                     to_server.push_back(session::Input::Committed { space, stream, outcomes, head });
//!                 }
//!                 session::Output::Read { after, .. } => {
//!                     let items = vec![Item { received_ms: now, content: ItemContent::Own(sealed.hash()) }];
//!                     to_server.push_back(session::Input::Run(Run { space, log_id, first: after.next(), items, end }));
//!                     to_server.push_back(session::Input::Drained);
//!                 }
//!                 session::Output::Send(frame) => to_device.push_back(client::Input::Frame(frame)),
//!                 session::Output::Attest(Attest::Acked(envelopes, heads)) => {
//!                     to_device.push_back(client::Input::Frame(FromServer::Acked(Acked { envelopes, head: attest(&heads) })));
//!                 }
//!                 session::Output::Attest(Attest::CaughtUp(heads)) => {
//!                     to_device.push_back(client::Input::Frame(FromServer::CaughtUp(heads.iter().map(attest).collect())));
//!                 }
//!                 session::Output::Bear { .. } | session::Output::Close => unreachable!("nothing was lost, nobody misbehaves"),
//!             }
//!         }
//!     } else {
//!         break;
//!     }
//! }
//! assert_eq!(reports, [Report::Connecting, Report::Syncing, Report::InSync, Report::Waiting(None)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod client;
pub mod envelope;
pub mod id;
pub mod judge;
pub mod roster;
pub mod session;
pub mod verify;
pub mod wire;
