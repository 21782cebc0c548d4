//! Nothing that the server stores, logs or receives holds a word of what a person wrote, nor a key (G5).
//!
//! A phone logs records full of canaries and syncs through a real server that logs at trace level. What is
//! searched: every file of the server, its log, every frame that it received (taken at the phone's end of
//! the very link, so as the server's decryption yields them), and every byte on the wire. The same search
//! finds the canary in a control, however it is encoded there.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use base64::Engine as _;
use ebb_core::{
    Category, Entry, Start, link,
    record::{CheckIn, Moment, Unit},
};
use ebb_tests::{
    rogue::{ByHand, Rogue},
    ward::{TestDevice, TestServer, assert_no_errors, block_on},
};
use flate2::{Decompress, FlushDecompress};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");
const CANARY: &str = "Kanarienvogel-7261-in-der-Grube";
/// How much of a deflated stream is looked at: far more than any record.
const INFLATED_MAX: usize = 4 << 10;

/// What to look for, in every form in which it could stand somewhere.
struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    fn of_text(text: &str) -> Self {
        let mut needles = Self::of_bytes("text", text.as_bytes());
        let utf16: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        needles.0.push(("UTF-16LE".into(), little));
        needles.0.push(("UTF-16BE".into(), big));
        needles
    }

    fn of_bytes(name: &str, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // As Debug and JSON print a list of bytes.
        let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
        let mut needles = vec![
            (name.to_owned(), bytes.to_vec()),
            (format!("{name} in hex"), hex.to_ascii_uppercase().into_bytes()),
            (format!("{name} in HEX"), hex.into_bytes()),
            (format!("{name} as a list"), list.join(", ").into_bytes()),
            (format!("{name} as a dense list"), list.join(",").into_bytes()),
        ];
        // Base64 depends on where in a group of three a text begins; the ends depend on its neighbours.
        for shift in 0..3 {
            let shifted = [&vec![0; shift][..], bytes].concat();
            for (alphabet, engine) in [
                ("base64", base64::engine::general_purpose::STANDARD_NO_PAD),
                ("base64url", base64::engine::general_purpose::URL_SAFE_NO_PAD),
            ] {
                let text = engine.encode(&shifted);
                let whole = &text[(shift * 8).div_ceil(6)..text.len() - 2];
                needles.push((format!("{name} in {alphabet}, shifted by {shift}"), whole.into()));
            }
        }
        Self(needles)
    }

    fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The forms that stand in these bytes, as they are or inside of a deflated stream at any place.
    fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let mut found = self.plainly_in(bytes);
        for place in 0..bytes.len() {
            for zlib in [false, true] {
                // Most bytes begin no stream, which shows at once; 0x78 begins nearly every zlib stream.
                if zlib && bytes[place] & 0x0f != 8 {
                    continue;
                }
                let inflated = inflate(&bytes[place..], zlib);
                found.extend(self.plainly_in(&inflated).into_iter().map(|name| format!("{name}, deflated")));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    fn plainly_in(&self, bytes: &[u8]) -> Vec<String> {
        let stands = |needle: &[u8]| {
            let mut rest = bytes;
            while let Some(place) = rest.iter().position(|byte| *byte == needle[0]) {
                rest = &rest[place..];
                if rest.starts_with(needle) {
                    return true;
                }
                rest = &rest[1..];
            }
            false
        };
        self.0.iter().filter(|(_, needle)| stands(needle)).map(|(name, _)| name.clone()).collect()
    }
}

/// What a deflated stream that begins here yields, as far as it can be read.
fn inflate(bytes: &[u8], zlib: bool) -> Vec<u8> {
    thread_local! {
        static DECOMPRESS: [std::cell::RefCell<Decompress>; 2] =
            [false, true].map(|zlib| std::cell::RefCell::new(Decompress::new(zlib)));
    }
    DECOMPRESS.with(|both| {
        let mut decompress = both[usize::from(zlib)].borrow_mut();
        decompress.reset(zlib);
        let mut out = vec![0; INFLATED_MAX];
        let _ = decompress.decompress(bytes, &mut out, FlushDecompress::None);
        let len = usize::try_from(decompress.total_out()).unwrap_or(0).min(INFLATED_MAX);
        out.truncate(len);
        out
    })
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_search_finds_what_there_is() {
    let needles = Needles::of_text(CANARY);
    let utf16: Vec<u8> = CANARY.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let (standard, url) =
        (base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE_NO_PAD);
    let sentence = format!("she said {CANARY}, and then nothing");
    let surrounded = |inner: Vec<u8>| [&[0xd5; 97][..], &inner, &[0x3a; 31]].concat();
    let controls = [
        ("UTF-8", sentence.clone().into_bytes()),
        ("UTF-16", utf16),
        ("base64", standard.encode(CANARY).into_bytes()),
        ("base64, shifted by 1", standard.encode(format!("x{CANARY}y")).into_bytes()),
        ("base64, shifted by 2", url.encode(format!("xy{CANARY}z")).into_bytes()),
        ("hex", CANARY.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()),
        ("a list", format!("{:?}", CANARY.as_bytes()).into_bytes()),
        ("deflated", deflate(sentence.as_bytes())),
        ("zlib", zlib(sentence.repeat(3).as_bytes())),
    ];
    for (name, control) in controls {
        assert!(!needles.found_in(&surrounded(control)).is_empty(), "{name}");
    }
    // And in a file of the kind that is searched, unencrypted.
    let dir = tempfile::tempdir().unwrap();
    let db = rusqlite::Connection::open(dir.path().join("control")).unwrap();
    db.execute_batch("CREATE TABLE t (note)").unwrap();
    db.execute("INSERT INTO t VALUES (?1)", [&sentence]).unwrap();
    assert_eq!(needles.found_in(&std::fs::read(dir.path().join("control")).unwrap()), ["text"]);
    assert!(needles.found_in(&[7; 5_000]).is_empty());
    // What a phone logs is found where it is not sealed: in the payload that goes into an envelope.
    let (_, change) = ebb_core::document::Document::create([1; 16], 1, b"value", CANARY).unwrap();
    let payload = ebb_tests::rogue::payload(&[([1; 16], &[change.bytes])]);
    assert!(!needles.found_in(&payload).is_empty());
}

fn entries() -> Vec<Entry> {
    let moment = Moment { millis: 1_700_000_000_000, offset_minutes: 60 };
    vec![
        Entry::private_note(CANARY),
        Entry::note_to_care_team(format!("{CANARY} {CANARY}")),
        Entry::dose(CANARY, 7.25, Unit::Mg).at(moment),
        Entry::dose_not_taken("buprenorphine", 8.0, Unit::Mg, Some(CANARY)),
        Entry::use_event(CANARY),
        Entry::message(CANARY, None),
        Entry::sows([3; 16]).note(CANARY),
        Entry::check_in(CheckIn { craving: Some(9), ..CheckIn::default() }).note(CANARY),
    ]
}

/// Passes connections on and keeps every byte of both directions.
async fn record(listener: TcpListener, to: String, seen: Arc<Mutex<Vec<u8>>>) {
    while let Ok((from, _)) = listener.accept().await {
        let to = TcpStream::connect(&to).await.expect("the server listens");
        let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
        for (mut read, mut write) in [(from_read, to_write), (to_read, from_write)] {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 16 << 10];
                while let Ok(len @ 1..) = read.read(&mut bytes).await {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..len]);
                    if write.write_all(&bytes[..len]).await.is_err() {
                        break;
                    }
                }
                let _ = write.shutdown().await;
            });
        }
    }
}

fn every_file(dir: &Path, seen: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => every_file(&path, seen),
            false => seen.push((path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
}

#[test]
fn the_server_sees_no_word_and_no_key() {
    let root = tempfile::tempdir().unwrap();
    let log = root.path().join("server.log");
    let mut server = TestServer::start_traced(&root.path().join("server"), NODE, &log);
    let phone = TestDevice::open(&root, "phone", &server, Start::Found);
    let clinic = TestDevice::open(&root, "clinic", &server, Start::Clinic);
    let shared = [Category::Medication, Category::Symptoms, Category::Messages, Category::SubstanceUse];
    phone.replica.grant(&clinic.replica.card().unwrap(), &shared).unwrap();
    let space = clinic.replica.follow(&phone.replica.ticket().unwrap()).unwrap();
    phone.replica.lock();
    let keys = Rogue::of(&phone.dir);
    let mut needles = Needles::of_text(CANARY)
        .and(Needles::of_bytes("the database's key", &std::fs::read(phone.dir.join("vault")).unwrap()));
    let secrets = keys.secrets.to_bytes();
    for (name, seed) in
        ["the signing seed", "the TLS seed", "the KEM scalar"].iter().zip(secrets[1..].chunks(32))
    {
        needles = needles.and(Needles::of_bytes(name, seed));
    }
    for key in keys.epoch_keys() {
        needles = needles.and(Needles::of_bytes("an epoch key", &key.to_bytes()[..]));
    }

    let wired = Arc::new(Mutex::new(Vec::new()));
    let sent = block_on(async {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address =
            link::ServerAddress { quic: String::new(), tcp: proxy.local_addr().unwrap().to_string() };
        tokio::spawn(record(proxy, server.address.tcp.clone(), wired.clone()));
        let mut recorder = ByHand::open(&phone.dir, &address, &server.pins);
        for _ in 0..2 {
            for entry in entries() {
                let id = recorder.replica.log(space, &entry).unwrap();
                recorder.replica.retract(space, id, CANARY).unwrap();
                recorder.replica.edit(space, id, &entry.note(format!("again {CANARY}"))).unwrap();
            }
            recorder.replica.rotate(Category::Medication).unwrap();
            recorder.sync_until(|_| false).await;
            // What a new key needs goes out after the roster's own round trip.
            recorder.sync_until(|_| false).await;
        }
        let (_, undelivered) = recorder.replica.with_engine(|engine| engine.count(&space)).unwrap();
        assert_eq!(undelivered, 0);
        recorder.sent
    });
    clinic.sync();
    let read = clinic.records(space);
    assert!(read.iter().filter(|record| record.note.contains(CANARY)).count() >= 8, "it did arrive");
    server.stop();

    let mut seen = vec![
        ("what it received".to_owned(), sent),
        ("the wire".to_owned(), wired.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        ("what it logged".to_owned(), std::fs::read(&log).unwrap()),
    ];
    let trace = String::from_utf8_lossy(&seen[2].1);
    assert!(trace.contains("TRACE") && trace.contains("ebb_sync_server"), "it logged all it could");
    every_file(&server.dir, &mut seen);
    let bytes: usize = seen.iter().map(|(_, bytes)| bytes.len()).sum();
    eprintln!("{bytes} bytes in {} places searched for {} forms", seen.len(), needles.0.len());
    assert!(seen.iter().all(|(name, bytes)| !bytes.is_empty() || name.ends_with("lock")), "all is there");
    for (name, bytes) in &seen {
        let found = needles.found_in(bytes);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    assert_no_errors();
}
