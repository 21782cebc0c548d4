//! Automerge: one record and its changes.
//!
//! Every record is one small document whose few changes *are* the record; nothing else is saved.
//! The root holds three keys, and keeps any other that a newer version adds:
//!
//! - `v`, the value, one register: a score must never mix two devices' answers. Versions written
//!   at the same time are both kept, one is shown, and choosing one resolves;
//! - `n`, the note, text made with the record and merged character by character;
//! - `x`, while the record is retracted. A retraction wins over an edit, and over taking back an
//!   earlier retraction at the same time.
//!
//! Nothing here reads a clock or draws a random number that could reach a change: the same inputs
//! give the same bytes.

pub mod gate;
mod graph;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, ObjId as ExId, ROOT, ReadDoc, ScalarValue, Value,
    transaction::{CommitOptions, Transactable, Transaction},
};

pub use self::gate::Refusal;
use self::gate::{CHANGES_PER_AUTHOR_AND_RECORD_MAX, Inspected, contained};
use self::graph::Graph;

/// Counts how often Automerge was called upon since the process began; reading lists never does.
pub fn automerge_calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// A change to be stored and sent.
#[derive(Clone, PartialEq, Eq)]
pub struct NewChange {
    /// The SHA-256 by which other changes name it.
    pub hash: [u8; 32],
    /// One uncompressed Automerge change chunk.
    pub bytes: Vec<u8>,
}

/// Shows the length alone: contents stay out of logs.
impl fmt::Debug for NewChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewChange({} bytes)", self.bytes.len())
    }
}

/// What a change says by itself, whatever it builds upon.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// The SHA-256 by which other changes name it.
    pub hash: [u8; 32],
    /// The actor that wrote it.
    pub actor: [u8; 16],
    /// Its place in the actor's changes to this record, from 1.
    pub seq: u64,
    /// The value that it leaves, if it writes one.
    pub value: Option<Vec<u8>>,
}

/// Shows whether there is a value: contents stay out of logs.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written(number {}, a value: {})", self.seq, self.value.is_some())
    }
}

impl Written {
    /// Reads a change as its author wrote it.
    ///
    /// # Errors
    ///
    /// Says why no device would apply the change, whatever its ancestors.
    pub fn read(change: &[u8]) -> Result<Self, Refusal> {
        let (Inspected { hash, actor, seq, .. }, change) = gate::parse(change)?;
        if seq > CHANGES_PER_AUTHOR_AND_RECORD_MAX {
            return Err(Refusal::Inconsistent);
        }
        let value = contained(|| graph::written_value(&change)).unwrap_or(Err(Refusal::Malformed))?;
        Ok(Self { hash, actor, seq, value })
    }
}

/// What a record says at one point of its history.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The shown value; empty only for a record that no change has created yet.
    pub value: Vec<u8>,
    /// The actor that wrote the shown value.
    pub actor: [u8; 16],
    /// The different values written at the same time, which await a choice.
    pub conflicting: Vec<Vec<u8>>,
    /// The note.
    pub note: String,
    /// The payload of the retraction, if the record is retracted.
    pub retraction: Option<Vec<u8>>,
}

/// Shows counts alone: contents stay out of logs.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retracted = self.retraction.is_some();
        write!(f, "State({} conflicting, retracted: {retracted})", self.conflicting.len())
    }
}

/// A record as one change left it.
#[derive(Clone, PartialEq, Eq)]
pub struct Version {
    /// The change's hash.
    pub change: [u8; 32],
    /// The actor that wrote it.
    pub actor: [u8; 16],
    /// When, in ms since the Unix epoch by the author's clock.
    pub time: i64,
    /// The value after it.
    pub value: Vec<u8>,
    /// The note after it.
    pub note: String,
    /// The payload of the retraction after it, if the record was retracted.
    pub retraction: Option<Vec<u8>>,
}

/// Shows the time alone: contents stay out of logs.
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version(at {} ms)", self.time)
    }
}

/// One record: the document that its changes make.
#[derive(Clone)]
pub struct Document {
    doc: Automerge,
    graph: Graph,
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").finish_non_exhaustive()
    }
}

/// What became of changes that arrived together.
#[derive(Debug)]
pub struct Admitted {
    /// The document with every change that fits.
    pub document: Document,
    /// The places of the others, ascending, and why.
    pub refused: Vec<(usize, Refusal)>,
}

impl Document {
    /// Creates a record; `time` is in ms since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Refuses a value or note too large for one change.
    pub fn create(
        actor: [u8; 16],
        time: i64,
        value: &[u8],
        note: &str,
    ) -> Result<(Self, NewChange), Refusal> {
        let mut document = Self::empty();
        let created = document.commit(actor, time, |tx| {
            tx.put(ROOT, "v", value.to_vec())?;
            let text = tx.put_object(ROOT, "n", automerge::ObjType::Text)?;
            tx.splice_text(&text, 0, 0, note)
        })?;
        let change = created.expect("making a text object is a change");
        Ok((document, change))
    }

    /// Makes the document of a record that no change has created yet, to admit changes to.
    pub fn empty() -> Self {
        CALLS.fetch_add(1, Ordering::Relaxed);
        Self { doc: Automerge::new(), graph: Graph::default() }
    }

    /// Loads a record from all its changes, in any order, each admitted before.
    ///
    /// # Errors
    ///
    /// Fails when a change is damaged or absent.
    pub fn load<'a>(changes: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        let mut arrived = Vec::new();
        for (place, bytes) in changes.into_iter().enumerate() {
            let (inspected, change) = gate::parse(bytes)?;
            arrived.push(Arrived { place, inspected, change });
        }
        let mut document = Self::empty();
        let (fitting, refused) = sort_out(&mut document.graph, arrived);
        if let Some((_, refusal)) = refused.into_iter().next() {
            return Err(refusal);
        }
        let changes: Vec<_> = fitting.into_iter().map(|arrived| arrived.change).collect();
        contained(|| document.doc.apply_changes(changes).is_ok())
            .filter(|applied| *applied)
            .ok_or(Refusal::Inapplicable)?;
        Ok(document)
    }

    /// Writes a new value, a new note or both; `None` when nothing differs.
    ///
    /// The note's characters that stay are kept, so that edits made at the same time merge.
    ///
    /// # Errors
    ///
    /// Refuses a value or note too large for one change; the document then stays as it was.
    pub fn edit(
        &mut self,
        actor: [u8; 16],
        time: i64,
        value: Option<&[u8]>,
        note: Option<&str>,
    ) -> Result<Option<NewChange>, Refusal> {
        self.commit(actor, time, |tx| {
            if let Some(value) = value {
                put_value(tx, value)?;
            }
            match (note, tx.get(ROOT, "n")?) {
                (Some(note), Some((_, text))) => tx.update_text(&text, note),
                _ => Ok(()),
            }
        })
    }

    /// Retracts the record, or gives another reason; `None` when nothing differs.
    ///
    /// # Errors
    ///
    /// Refuses a payload too large for one change; the document then stays as it was.
    pub fn retract(
        &mut self,
        actor: [u8; 16],
        time: i64,
        payload: &[u8],
    ) -> Result<Option<NewChange>, Refusal> {
        self.commit(actor, time, |tx| tx.put(ROOT, "x", payload.to_vec()))
    }

    /// Takes every retraction back that is known here; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Fails as [`Document::edit`] does.
    pub fn unretract(&mut self, actor: [u8; 16], time: i64) -> Result<Option<NewChange>, Refusal> {
        self.commit(actor, time, |tx| match tx.get(ROOT, "x")? {
            Some(_) => tx.delete(ROOT, "x"),
            None => Ok(()),
        })
    }

    /// Chooses the value that stands for all that were written at the same time; `None` when it
    /// already does.
    ///
    /// # Errors
    ///
    /// Fails as [`Document::edit`] does.
    pub fn resolve(
        &mut self,
        actor: [u8; 16],
        time: i64,
        chosen: &[u8],
    ) -> Result<Option<NewChange>, Refusal> {
        self.edit(actor, time, Some(chosen), None)
    }

    /// Reads the present state.
    pub fn state(&self) -> State {
        state_at(&self.doc, &self.doc.get_heads())
    }

    /// Lists every version, each after those it builds upon, else by time.
    pub fn history(&self) -> Vec<Version> {
        let version = |(change, actor, time)| {
            let State { value, note, retraction, .. } = state_at(&self.doc, &[ChangeHash(change)]);
            Version { change, actor, time, value, note, retraction }
        };
        self.graph.causal_order().into_iter().map(version).collect()
    }

    /// Whether an actor's change with this number is there.
    pub fn has(&self, actor: &[u8; 16], seq: u64) -> bool {
        self.graph.has(actor, seq)
    }

    /// Lists the changes that no other builds upon, sorted.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        let mut heads: Vec<_> = self.doc.get_heads().into_iter().map(|head| head.0).collect();
        heads.sort_unstable();
        heads
    }

    /// Admits a change that its author wrote as `expected_actor`; one already there is no change.
    ///
    /// # Errors
    ///
    /// Says why the change is not applied; [`Refusal::Waiting`] asks for it again later.
    pub fn admit(&self, change: &[u8], expected_actor: [u8; 16]) -> Result<Self, Refusal> {
        let Admitted { document, refused } = self.admit_all([(change, expected_actor)]);
        refused.into_iter().next().map_or(Ok(document), |(_, refusal)| Err(refusal))
    }

    /// Admits changes of this record, in any order, each with the actor its author writes as.
    ///
    /// The good ones arrive whatever the others are.
    pub fn admit_all<'a>(&self, changes: impl IntoIterator<Item = (&'a [u8], [u8; 16])>) -> Admitted {
        let mut arrived = Vec::new();
        let mut refused = Vec::new();
        for (place, (bytes, expected_actor)) in changes.into_iter().enumerate() {
            match gate::parse(bytes) {
                Ok((inspected, _)) if inspected.actor != expected_actor => {
                    refused.push((place, Refusal::WrongActor));
                }
                Ok((inspected, change)) => arrived.push(Arrived { place, inspected, change }),
                Err(refusal) => refused.push((place, refusal)),
            }
        }
        let mut graph = self.graph.clone();
        let (fitting, unfitting) = sort_out(&mut graph, arrived);
        refused.extend(unfitting);
        let document = match apply(&self.doc, &fitting).and_then(|doc| reloads(doc, &fitting)) {
            Ok(doc) => Self { doc, graph },
            Err(refusal) if fitting.len() == 1 => {
                refused.push((fitting[0].place, refusal));
                self.clone()
            }
            Err(_) => self.admit_singly(&fitting, &mut refused),
        };
        refused.sort_unstable_by_key(|(place, _)| *place);
        Admitted { document, refused }
    }

    /// Finds the bad ones among changes that fail together; ancestors come first.
    fn admit_singly(&self, changes: &[Arrived], refused: &mut Vec<(usize, Refusal)>) -> Self {
        let mut document = self.clone();
        for Arrived { place, inspected, change } in changes {
            match document.admit(change.raw_bytes(), inspected.actor) {
                Ok(next) => document = next,
                Err(refusal) => refused.push((*place, refusal)),
            }
        }
        document
    }

    /// Commits what `write` writes, if the gate that every other device will hold it against lets it pass.
    ///
    /// That Automerge can apply and load what it wrote itself is not proven each time: that would take a third
    /// of the time that logging a record takes.
    fn commit(
        &mut self,
        actor: [u8; 16],
        time: i64,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Option<NewChange>, Refusal> {
        let written = contained(|| {
            let mut doc = self.doc.clone().with_actor(ActorId::from(actor));
            let mut tx = doc.transaction();
            write(&mut tx).ok()?;
            let (hash, _) = tx.commit_with(CommitOptions::default().with_time(time));
            let change = hash.and_then(|_| doc.get_last_local_change());
            Some((doc, change))
        });
        let (doc, change) = written.flatten().ok_or(Refusal::Inapplicable)?;
        let Some(change) = change else { return Ok(None) };
        let bytes = change.raw_bytes().to_vec();
        let (inspected, parsed) = gate::parse(&bytes)?;
        if inspected.actor != actor {
            return Err(Refusal::WrongActor);
        }
        let mut graph = self.graph.clone();
        let (_, refused) = sort_out(&mut graph, vec![Arrived { place: 0, inspected, change: parsed }]);
        if let Some((_, refusal)) = refused.into_iter().next() {
            return Err(refusal);
        }
        *self = Self { doc, graph };
        Ok(Some(NewChange { hash: change.hash().0, bytes }))
    }
}

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Writes the value in place of all that were written at the same time.
///
/// Told to write the one that is shown, Automerge would only delete the others. Deletions by two
/// devices could leave none, so the gate refuses them; another value in between avoids them.
fn put_value(tx: &mut Transaction<'_>, value: &[u8]) -> Result<(), AutomergeError> {
    if tx.get_all(ROOT, "v")?.len() > 1 {
        let between = if value.is_empty() { vec![0] } else { Vec::new() };
        tx.put(ROOT, "v", between)?;
    }
    tx.put(ROOT, "v", value.to_vec())
}

/// A change that passed the gate alone, and its place among those it came with.
struct Arrived {
    place: usize,
    inspected: Inspected,
    change: Change,
}

/// Adds to the graph what fits, ancestors first, and says why the rest does not.
fn sort_out(graph: &mut Graph, arrived: Vec<Arrived>) -> (Vec<Arrived>, Vec<(usize, Refusal)>) {
    let mut fitting = Vec::new();
    let mut refused = Vec::new();
    let mut waiting = arrived;
    loop {
        let before = waiting.len();
        for arrived in std::mem::take(&mut waiting) {
            let Arrived { place, inspected, change } = &arrived;
            if graph.contains(&inspected.hash) {
                continue;
            }
            if !graph.missing(&inspected.deps).is_empty() {
                waiting.push(arrived);
                continue;
            }
            match graph.add(inspected, change) {
                Ok(()) => fitting.push(arrived),
                Err(refusal) => refused.push((*place, refusal)),
            }
        }
        if waiting.len() == before {
            break;
        }
    }
    refused.extend(waiting.iter().map(|Arrived { place, inspected, .. }| {
        (*place, Refusal::Waiting { missing: graph.missing(&inspected.deps) })
    }));
    (fitting, refused)
}

/// Applies changes to a copy, and proves that the copy can be read.
fn apply(doc: &Automerge, arrived: &[Arrived]) -> Result<Automerge, Refusal> {
    if arrived.is_empty() {
        return Ok(doc.clone());
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
    let changes = arrived.iter().map(|arrived| arrived.change.clone());
    contained(|| {
        let mut copy = doc.clone();
        copy.apply_changes(changes).map_err(|_| Refusal::Inapplicable)?;
        for Arrived { change, .. } in arrived {
            state_at(&copy, &[change.hash()]);
        }
        Ok(copy)
    })
    .unwrap_or(Err(Refusal::Inapplicable))
}

/// Gives a document back if it proves to be the same when it is loaded again: changes that others made
/// may be such that it is not.
fn reloads(doc: Automerge, arrived: &[Arrived]) -> Result<Automerge, Refusal> {
    if arrived.is_empty() {
        return Ok(doc);
    }
    contained(|| {
        let heads = doc.get_heads();
        let loaded = Automerge::load(&doc.save()).map_err(|_| Refusal::Poisonous)?;
        let same = loaded.get_heads() == heads && state_at(&loaded, &heads) == state_at(&doc, &heads);
        if same { Ok(doc) } else { Err(Refusal::Poisonous) }
    })
    .unwrap_or(Err(Refusal::Inapplicable))
}

/// Reads what stood after the given changes.
fn state_at(doc: &Automerge, heads: &[ChangeHash]) -> State {
    let mut written = registers(doc, "v", heads);
    let (value, actor) = written.pop().unwrap_or_default();
    let mut values: Vec<_> = written.into_iter().map(|(value, _)| value).collect();
    values.retain(|other| *other != value);
    values.sort_unstable();
    values.dedup();
    let note = match doc.get_at(ROOT, "n", heads) {
        Ok(Some((_, text))) => doc.text_at(&text, heads).unwrap_or_default(),
        _ => String::new(),
    };
    let retraction = registers(doc, "x", heads).pop().map(|(retraction, _)| retraction);
    State { value, actor, conflicting: values, note, retraction }
}

/// Lists the concurrent values of a register and their actors; the last is the one every device shows.
fn registers(doc: &Automerge, key: &str, heads: &[ChangeHash]) -> Vec<(Vec<u8>, [u8; 16])> {
    let values = doc.get_all_at(ROOT, key, heads).unwrap_or_default();
    let actor = |id: &ExId| match id {
        ExId::Id(_, actor, _) => actor.to_bytes().try_into().unwrap_or_default(),
        ExId::Root => [0; 16],
    };
    let bytes = values.into_iter().filter_map(|(value, id)| match value {
        Value::Scalar(scalar) => match scalar.into_owned() {
            ScalarValue::Bytes(bytes) => Some((bytes, actor(&id))),
            _ => None,
        },
        Value::Object(_) => None,
    });
    bytes.collect()
}
