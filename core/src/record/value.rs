//! A record's value on disk: header and body as one CBOR map.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use ciborium::Value as Cbor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Body, Entry, Moment, RecordId, Source, Stamp};

/// The register `v` of a record: header and body.
#[derive(Clone, PartialEq)]
pub struct Value {
    /// When it happened.
    pub occurred: Moment,
    /// When it was written down, in ms since the Unix epoch by the author's clock.
    pub recorded_at: i64,
    /// The device that wrote this version.
    pub author: [u8; 16],
    /// The member of staff who wrote this version, in a clinic.
    pub staff: Option<String>,
    /// How it is known.
    pub source: Source,
    /// What it says.
    pub body: Body,
    /// The record it stands in for, one the author could not edit.
    pub replaces: Option<RecordId>,
    header_extra: Extra,
    body_extra: Extra,
}

impl Value {
    /// Makes the first version of a record.
    pub fn new(entry: &Entry, stamp: &Stamp) -> Self {
        Self {
            occurred: entry.occurred.unwrap_or(stamp.recorded),
            recorded_at: stamp.recorded.millis,
            author: stamp.author,
            staff: stamp.staff.clone(),
            source: entry.source,
            body: entry.body.clone(),
            replaces: None,
            header_extra: Extra::new(),
            body_extra: Extra::new(),
        }
    }

    /// Makes the next version, which keeps every field this version of the library does not know.
    ///
    /// A body of another kind keeps the header's unknown fields alone.
    pub fn edited(&self, entry: &Entry, stamp: &Stamp) -> Self {
        let same_kind = self.body.kind() == entry.body.kind();
        Self {
            occurred: entry.occurred.unwrap_or(self.occurred),
            replaces: self.replaces,
            header_extra: self.header_extra.clone(),
            body_extra: if same_kind { self.body_extra.clone() } else { Extra::new() },
            ..Self::new(entry, stamp)
        }
    }

    /// Says whether a newer version wrote something that this one does not know.
    pub fn from_newer_version(&self) -> bool {
        let unknown_body = matches!(self.body, Body::Unknown { .. });
        unknown_body || !self.header_extra.is_empty() || !self.body_extra.is_empty()
    }

    /// Encodes it as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let header = Header {
            kind: self.body.kind().label().to_owned(),
            at: self.occurred,
            rec: self.recorded_at,
            by: self.author,
            src: self.source,
            staff: self.staff.clone(),
            replaces: self.replaces,
            body: self.body.close(&self.body_extra),
        };
        to_bytes(&close(&header, &self.header_extra))
    }

    /// Decodes it from CBOR; never fails for a kind, or a body, it does not know.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are no CBOR map or the header misses a field.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        static NAMES: Names = Names::new();
        let mut map = from_bytes(bytes).and_then(|cbor| cbor.into_map().ok()).ok_or(Undecodable)?;
        // Taken out before the header is read, which would copy it.
        let body = map.iter_mut().find(|(name, _)| name.as_text() == Some("body")).ok_or(Undecodable)?;
        let body = std::mem::replace(&mut body.1, Cbor::Null);
        let (header, header_extra) = open::<Header>(&Cbor::Map(map), &NAMES).ok_or(Undecodable)?;
        let (body, body_extra) = Body::open(&header.kind, body);
        Ok(Self {
            occurred: header.at,
            recorded_at: header.rec,
            author: header.by,
            staff: header.staff,
            source: header.src,
            body,
            replaces: header.replaces,
            header_extra,
            body_extra,
        })
    }
}

/// Shows the kind alone: contents stay out of logs.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.body.kind().label())
    }
}

/// Says that bytes are not a record's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a record's value")]
pub struct Undecodable;

/// Fields that this version does not know, kept as they came.
pub(super) type Extra = BTreeMap<String, Cbor>;

/// The header on disk.
///
/// Short keys, because every record carries them, and what differs between records side by side,
/// because each change from same to different costs a deflated batch of them a few bytes.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(with = "serde_bytes")]
    by: [u8; 16],
    #[serde(default)]
    staff: Option<String>,
    #[serde(default)]
    replaces: Option<RecordId>,
    src: Source,
    at: Moment,
    rec: i64,
    kind: String,
    body: Cbor,
}

/// The names of a struct's fields, as it writes them: always all of them.
pub(super) type Names = OnceLock<Vec<Cbor>>;

/// Splits a CBOR map into the fields a struct knows and those it does not.
///
/// What a struct writes tells what it knows, so no list of names can fall behind; it is asked once.
pub(super) fn open<T: Serialize + DeserializeOwned>(cbor: &Cbor, names: &Names) -> Option<(T, Extra)> {
    let known: T = cbor.deserialized().ok()?;
    let names = names.get_or_init(|| written(&known).into_iter().map(|(name, _)| name).collect());
    let knows = |name: &Cbor| names.contains(name);
    let extra = cbor
        .as_map()?
        .iter()
        .filter(|(key, _)| !knows(key))
        .map(|(key, value)| Some((key.as_text()?.to_owned(), value.clone())))
        .collect::<Option<Extra>>()?;
    Some((known, extra))
}

/// Joins them again; absent fields are left out.
pub(super) fn close<T: Serialize>(known: &T, extra: &Extra) -> Cbor {
    let mut map = written(known);
    map.retain(|(_, value)| !value.is_null());
    map.extend(extra.iter().map(|(key, value)| (Cbor::Text(key.clone()), value.clone())));
    Cbor::Map(map)
}

fn written(known: &impl Serialize) -> Vec<(Cbor, Cbor)> {
    Cbor::serialized(known)
        .expect("records are plain structs with text keys")
        .into_map()
        .expect("a struct is written as a map")
}

pub(super) fn to_bytes(cbor: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(cbor, &mut bytes).expect("writing to memory cannot fail");
    bytes
}

pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Cbor> {
    let cbor = ciborium::from_reader(&mut bytes).ok()?;
    bytes.is_empty().then_some(cbor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail")]
mod tests {
    use super::super::*;
    use super::*;

    fn stamp() -> Stamp {
        let recorded = Moment { millis: 1_700_000_000_000, offset_minutes: -300 };
        Stamp { recorded, author: [7; 16], staff: None }
    }

    fn entries() -> Vec<Entry> {
        vec![
            Entry::dose("buprenorphine", 16.0, Unit::Mg),
            Entry::dose_not_taken("buprenorphine", 0.7, Unit::Mg, Some("felt unwell")),
            Entry::answers_to("sows16", "1", [("1", 3), ("2", 0)]),
            Entry::withdrawal_band(BandInstrument::Sows16, Band::Severe, Phase::AfterFirstDose),
            Entry::drug_screen(Specimen::Urine, "opioid", ScreenResult::Negative),
            Entry::use_event("opioid"),
            Entry::visit("group", "week 3", Attendance::Missed { reason: None }),
            Entry::visit("group", "week 4", Attendance::Kept),
            Entry::check_in(CheckIn { mood: Some(4), sleep_hours: Some(6.5), ..CheckIn::default() }),
            Entry::note_to_care_team("hello"),
        ]
    }

    /// Changes the CBOR of a value as another version of this library might.
    fn rewrite(bytes: &[u8], with: impl FnOnce(&mut Vec<(Cbor, Cbor)>)) -> Vec<u8> {
        let mut map = from_bytes(bytes).unwrap().into_map().unwrap();
        with(&mut map);
        to_bytes(&Cbor::Map(map))
    }

    fn field<'a>(map: &'a mut [(Cbor, Cbor)], name: &str) -> &'a mut Cbor {
        map.iter_mut().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).unwrap()
    }

    #[test]
    fn every_kind_survives_encoding() {
        for entry in entries() {
            let mut value = Value::new(&entry, &stamp());
            value.staff = Some("nurse".to_owned());
            value.replaces = Some(RecordId::new(1_700_000_000_000, &[3; 10]));
            let bytes = value.encode();
            let decoded = Value::decode(&bytes).unwrap();
            assert!(decoded == value, "{value:?}");
            assert!(!decoded.from_newer_version());
            assert_eq!(decoded.encode(), bytes);
        }
    }

    #[test]
    fn unknown_fields_survive_an_edit() {
        let tagged = Cbor::Tag(4, Box::new(Cbor::Array(vec![Cbor::from(-1), Cbor::Null])));
        let written = Value::new(&entries()[0], &stamp()).encode();
        let newer = rewrite(&written, |map| {
            map.push((Cbor::from("mood_ring"), tagged.clone()));
            let body = field(map, "body").as_map_mut().unwrap();
            body.push((Cbor::from("site"), Cbor::from("left arm")));
        });

        let value = Value::decode(&newer).unwrap();
        assert!(value.from_newer_version());
        let edited = value.edited(&Entry::dose("buprenorphine", 8.0, Unit::Mg), &stamp());
        let mut map = from_bytes(&edited.encode()).unwrap().into_map().unwrap();
        assert_eq!(*field(&mut map, "mood_ring"), tagged);
        let body = field(&mut map, "body").as_map_mut().unwrap();
        assert_eq!(*field(body, "site"), Cbor::from("left arm"));
        assert_eq!(*field(body, "amount"), Cbor::from(8.0));

        let other_kind = value.edited(&Entry::use_event("opioid"), &stamp());
        assert!(other_kind.body_extra.is_empty() && !other_kind.header_extra.is_empty());
    }

    #[test]
    fn unknown_kinds_are_kept_whole() {
        let fields = Cbor::Map(vec![(Cbor::from("steps"), Cbor::from(4_000))]);
        let written = Value::new(&entries()[0], &stamp()).encode();
        let newer = rewrite(&written, |map| {
            *field(map, "kind") = Cbor::from("walk");
            *field(map, "body") = fields.clone();
        });
        let value = Value::decode(&newer).unwrap();
        assert_eq!(value.body.kind(), Kind::Unknown("walk".to_owned()));
        assert!(value.from_newer_version());
        assert_eq!(value.encode(), newer);
        assert!(value.body.belongs(Writer::Patient).is_empty());
    }

    #[test]
    fn a_known_kind_that_cannot_be_read_is_kept_whole() {
        let written = Value::new(&entries()[0], &stamp()).encode();
        for (name, strange) in [
            ("unit", Cbor::from("drops")),
            ("taking", Cbor::Map(vec![(Cbor::from("half_taken"), Cbor::Map(vec![]))])),
            ("amount", Cbor::from("much")),
        ] {
            let newer = rewrite(&written, |map| {
                *field(field(map, "body").as_map_mut().unwrap(), name) = strange;
            });
            let value = Value::decode(&newer).unwrap();
            assert!(matches!(value.body, Body::Unknown { .. }), "{name}");
            assert_eq!(value.body.kind(), Kind::Dose);
            assert_eq!(value.encode(), newer);
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let written = Value::new(&entries()[0], &stamp()).encode();
        let mut trailing = written.clone();
        trailing.push(0);
        let headless = rewrite(&written, |map| map.retain(|(key, _)| key.as_text() != Some("by")));
        let numbered = rewrite(&written, |map| map.push((Cbor::from(1), Cbor::from(1))));
        for bytes in [&b""[..], b"\xff", &written[..20], &trailing, &headless, &numbered] {
            assert_eq!(Value::decode(bytes), Err(Undecodable));
        }
    }

    #[test]
    fn an_edit_without_a_time_keeps_when_it_happened() {
        let lived = Moment { millis: 1_600_000_000_000, offset_minutes: 60 };
        let value = Value::new(&Entry::use_event("opioid").at(lived), &stamp());
        let edited = value.edited(&Entry::use_event("alcohol"), &stamp());
        assert_eq!((value.occurred, edited.occurred), (lived, lived));
        assert_eq!(edited.recorded_at, stamp().recorded.millis);
    }
}
