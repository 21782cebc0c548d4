//! Automerge's own sync protocol over the same QUIC, the document held by a server.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use automerge::{
    AutoCommit, Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
    sync::{Message, State, SyncDoc},
    transaction::Transactable,
};
use ebb_core::{
    Entry,
    keys::{DeviceSecrets, OsEntropy},
    link::{self, Identity, Link, ServerAddress, Transport},
    record::{Body, Moment, Stamp, Value},
};
use ebb_sync_server::{signing::SigningKey, tls};
use quinn::crypto::rustls::QuicServerConfig;
use serde_json::Value as Json;

use super::kit::{diary::Diary, median, settled_cpu};
use ebb_core::Clock;

/// How records are written into the document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Fields,
    Bytes,
}

impl Variant {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Fields => "Automerge's sync, A: a record is nested maps of fields",
            Self::Bytes => "Automerge's sync, B: a record is one value of bytes",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Fields => "fields",
            Self::Bytes => "bytes",
        }
    }
}

pub(crate) struct Figures {
    pub(crate) document_bytes: usize,
    pub(crate) round_trips: usize,
    pub(crate) bytes_up: usize,
    pub(crate) bytes_down: usize,
    pub(crate) handshake: Duration,
    pub(crate) cpu: Duration,
}

/// Syncs the new records of one document, several times from the same start.
pub(crate) async fn measure(variant: Variant, old: usize, new: usize, rounds: usize, root: &Path) -> Figures {
    let dir = root.join(variant.name());
    fs::create_dir_all(&dir).unwrap();
    let (mut ours, mut state, theirs_saved) = before(variant, old, &dir);
    let mut diary = Diary::new(1_000);
    for _ in 0..new {
        write(&mut ours, variant, &mut diary);
    }
    let kept = state.encode();

    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["rival", &dir.to_string_lossy()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let address = ServerAddress { quic: port.trim().to_owned(), tcp: String::new() };
    let identity = Identity::new(&DeviceSecrets::make_device(&mut OsEntropy));

    let (mut connects, mut syncs) = (Vec::new(), Vec::new());
    let mut figures = Figures {
        document_bytes: theirs_saved,
        round_trips: 0,
        bytes_up: 0,
        bytes_down: 0,
        handshake: Duration::ZERO,
        cpu: Duration::ZERO,
    };
    for _ in 0..rounds {
        for _ in 0..5 {
            let before = settled_cpu(process.id());
            connect(&address, &identity).await.close().await;
            connects.push(settled_cpu(process.id()) - before);
        }
        let before = settled_cpu(process.id());
        let mut link = connect(&address, &identity).await;
        state = State::decode(&kept).unwrap();
        figures.round_trips = 0;
        while let Some(message) = next_message(&mut ours, &mut state) {
            send(&mut link, &message.encode()).await;
            figures.round_trips += 1;
            let answer = link.reader.next().await.unwrap().expect("it answers");
            if !answer.is_empty() {
                let message = Message::decode(&answer).unwrap();
                ours.sync().receive_sync_message(&mut state, message).unwrap();
            }
        }
        assert_eq!(state.shared_heads, ours.get_heads(), "the server has all of it");
        (figures.bytes_up, figures.bytes_down) = (link.writer.bytes() as usize, link.reader.bytes() as usize);
        link.close().await;
        syncs.push(settled_cpu(process.id()) - before);
    }
    drop(process.stdin.take());
    process.wait().unwrap();
    figures.handshake = median(&connects);
    figures.cpu = median(&syncs).saturating_sub(figures.handshake);
    figures
}

fn next_message(doc: &mut AutoCommit, state: &mut State) -> Option<Message> {
    doc.sync().generate_sync_message(state)
}

async fn connect(address: &ServerAddress, identity: &Identity) -> Link {
    link::connect(&[Transport::Quic], address, identity, &[key().public()]).await.expect("the rival is there")
}

async fn send(link: &mut Link, bytes: &[u8]) {
    link.writer.send(framed(bytes)).await.unwrap();
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// Both sides in sync over the old records; the server's is on disk, with its sync state.
fn before(variant: Variant, old: usize, dir: &Path) -> (AutoCommit, State, usize) {
    let mut ours = AutoCommit::new();
    ours.put_object(ROOT, "records", ObjType::Map).unwrap();
    ours.commit();
    let mut diary = Diary::new(1);
    for _ in 0..old {
        write(&mut ours, variant, &mut diary);
    }
    let mut theirs = AutoCommit::new();
    let (mut our_state, mut their_state) = (State::new(), State::new());
    loop {
        let up = ours.sync().generate_sync_message(&mut our_state);
        if let Some(message) = up.clone() {
            theirs.sync().receive_sync_message(&mut their_state, message).unwrap();
        }
        let down = theirs.sync().generate_sync_message(&mut their_state);
        if let Some(message) = down.clone() {
            ours.sync().receive_sync_message(&mut our_state, message).unwrap();
        }
        if up.is_none() && down.is_none() {
            break;
        }
    }
    let saved = theirs.save();
    fs::write(dir.join("document"), &saved).unwrap();
    fs::write(dir.join("state"), their_state.encode()).unwrap();
    (ours, our_state, saved.len())
}

/// One record, one transaction.
fn write(doc: &mut AutoCommit, variant: Variant, diary: &mut Diary) {
    let entry = diary.entry();
    let now = i64::try_from(diary.clock.now().0).unwrap();
    let recorded = Moment { millis: now, offset_minutes: diary.clock.offset_minutes() };
    let stamp = Stamp { recorded, author: [7; 16], staff: None };
    let (_, records) = doc.get(ROOT, "records").unwrap().unwrap();
    // As random as a UUIDv7 is, in the 22 characters that applications give their keys.
    let hash = ebb_protocol::verify::sha256(&[&now.to_be_bytes()]);
    let id: String = hash.0[..11].iter().map(|byte| format!("{byte:02x}")).collect();
    match variant {
        Variant::Bytes => {
            let value = [Value::new(&entry, &stamp).encode(), entry.note.into_bytes()].concat();
            doc.put(&records, id, value).unwrap();
        }
        Variant::Fields => {
            let record = doc.put_object(&records, id, ObjType::Map).unwrap();
            let occurred = entry.occurred.unwrap_or(recorded);
            doc.put(&record, "kind", entry.body.kind().label()).unwrap();
            doc.put(&record, "at", ScalarValue::Timestamp(occurred.millis)).unwrap();
            doc.put(&record, "tz", i64::from(occurred.offset_minutes)).unwrap();
            doc.put(&record, "recorded", ScalarValue::Timestamp(now)).unwrap();
            doc.put(&record, "author", stamp.author.to_vec()).unwrap();
            doc.put(&record, "source", "self").unwrap();
            // Text that merges, as a note is with us.
            let note = doc.put_object(&record, "note", ObjType::Text).unwrap();
            doc.splice_text(&note, 0, 0, &entry.note).unwrap();
            let body = doc.put_object(&record, "body", ObjType::Map).unwrap();
            put_fields(doc, &body, fields(&entry));
        }
    }
    doc.commit();
}

fn fields(entry: &Entry) -> Json {
    let json = match &entry.body {
        Body::Dose(body) => serde_json::to_value(body),
        Body::CheckIn(body) => serde_json::to_value(body),
        Body::UseEvent(body) => serde_json::to_value(body),
        Body::Answers(body) => {
            let (instrument, version, answers) = (&body.instrument, &body.version, &body.answers);
            Ok(serde_json::json!({ "instrument": instrument, "version": version, "answers": answers }))
        }
        _ => unreachable!("not in the diary"),
    };
    json.unwrap()
}

fn put_fields(doc: &mut AutoCommit, into: &ObjId, fields: Json) {
    let Json::Object(fields) = fields else { unreachable!("bodies are maps") };
    for (name, value) in fields {
        match value {
            Json::Null => {}
            Json::Bool(value) => doc.put(into, name, value).unwrap(),
            Json::String(value) => doc.put(into, name, value).unwrap(),
            Json::Number(value) => match value.as_i64() {
                Some(value) => doc.put(into, name, value).unwrap(),
                None => doc.put(into, name, value.as_f64().unwrap()).unwrap(),
            },
            value @ Json::Object(_) => {
                let inner = doc.put_object(into, name, ObjType::Map).unwrap();
                put_fields(doc, &inner, value);
            }
            Json::Array(_) => unreachable!("no body has a list"),
        }
    }
}

/// The server's process: every connection syncs the document as it was before, and makes it durable.
pub(crate) fn serve(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let crypto = QuicServerConfig::try_from(tls::server_config(&key()).unwrap()).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = quinn::Endpoint::server(config, any).unwrap();
        println!("{}", endpoint.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let (ended, mut end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {}
            let _ = ended.send(());
        });
        loop {
            tokio::select! {
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { return };
                    let dir = dir.to_owned();
                    tokio::spawn(async move { session(incoming, &dir).await });
                }
                _ = &mut end => return,
            }
        }
    });
}

async fn session(incoming: quinn::Incoming, dir: &Path) -> Option<()> {
    let connection = incoming.accept().ok()?.await.ok()?;
    let (mut to, mut from) = connection.accept_bi().await.ok()?;
    let mut loaded: Option<(Automerge, State)> = None;
    let mut length = [0; 4];
    while from.read_exact(&mut length).await.is_ok() {
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut body).await.ok()?;
        let (doc, state) = loaded.get_or_insert_with(|| {
            let doc = Automerge::load(&fs::read(dir.join("document")).unwrap()).unwrap();
            (doc, State::decode(&fs::read(dir.join("state")).unwrap()).unwrap())
        });
        let before = doc.get_heads();
        doc.receive_sync_message(state, Message::decode(&body).unwrap()).unwrap();
        let answer = doc.generate_sync_message(state).map(Message::encode).unwrap_or_default();
        if doc.get_heads() != before {
            durably(&dir.join("saved"), &doc.save());
            durably(&dir.join("saved-state"), &state.encode());
        }
        to.write_all(&framed(&answer)).await.ok()?;
    }
    let _ = to.finish();
    let _ = to.stopped().await;
    Some(())
}

fn durably(path: &Path, bytes: &[u8]) {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    fs::rename(&fresh, path).unwrap();
}
