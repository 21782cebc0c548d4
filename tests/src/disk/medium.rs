//! What lies behind the cache of an operating system: which bytes a power cut leaves, and which it may take.
//!
//! A [`Medium`] is fed with what SQLite did, as [`Event`]s, and knows of every file what is durable and what
//! is not yet. [`Medium::crash`] says what is there after a cut. Live disks and recorded runs go through the
//! same two functions.
//!
//! What is promised is what POSIX and SQLite's documentation ("Atomic Commit In SQLite", sections 2 and 3)
//! leave: a synced write stays; of the others each may be there or not, in any order, and one may be torn
//! between two sectors. A name is in its folder for good once the folder was synced; the main database's
//! never is by itself, only with its journal's or write-ahead log's.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Numbers from a seed, the same each time (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to but not including `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).expect("less than a usize")
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.draw() & 1 == 1
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// A file's body, under whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileNumber(u32);

/// Something that happened to a disk, with success.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file was opened that had been there before, durably.
    Found {
        /// The file.
        file: FileNumber,
        /// Its name.
        path: PathBuf,
        /// What it holds.
        bytes: Arc<[u8]>,
    },
    /// A file was made, empty.
    Created {
        /// The file.
        file: FileNumber,
        /// Its name.
        path: PathBuf,
    },
    /// Bytes were written.
    Written {
        /// The file.
        file: FileNumber,
        /// Where.
        at: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file was cut (or stretched) to a size.
    Truncated {
        /// The file.
        file: FileNumber,
        /// Its size from now on.
        size: u64,
    },
    /// A file was synced: what was written before is durable.
    Synced {
        /// The file.
        file: FileNumber,
    },
    /// A sync failed in a way that forgets: what was not synced counts as clean from now on, wherever it is.
    ///
    /// Linux does so since 4.13: the error is reported once, and the next fsync succeeds
    /// (Rebello and others, "Can Applications Recover from fsync Failures?", 2020).
    Forgotten {
        /// The file.
        file: FileNumber,
        /// Draws what had reached the medium all the same.
        seed: u64,
    },
    /// A file's name was deleted.
    Deleted {
        /// The name.
        path: PathBuf,
    },
    /// A folder was synced: names made and deleted in it are so for good.
    FolderSynced {
        /// The folder.
        folder: PathBuf,
    },
    /// Whoever records says where they are.
    Marked(u64),
}

impl Event {
    /// Whether something became durable by it: just before it, the most can be lost.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::Synced { .. } | Self::FolderSynced { .. })
    }
}

/// What a cut takes of what is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// What comes after some point in time.
    Tail,
    /// Anything, and what stays came in any order.
    Some,
    /// Anything, and of one write some sectors.
    Torn,
    /// One of these for each file, names for themselves.
    Any,
}

/// A change to a file that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Arc<[u8]> },
    Size(usize),
}

#[derive(Clone, Debug, Default)]
struct Body {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// What a name stood for since its folder was last synced, the durable first and the present last.
#[derive(Clone, Debug)]
struct Name(Vec<Option<FileNumber>>);

impl Name {
    fn now(&self) -> Option<FileNumber> {
        self.0.last().copied().flatten()
    }
}

/// A disk's files: what is durable of them, and what came since.
#[derive(Clone, Debug, Default)]
pub struct Medium {
    bodies: BTreeMap<FileNumber, Body>,
    names: BTreeMap<PathBuf, Name>,
    next: u32,
}

impl Medium {
    /// A number for another file.
    pub fn number(&mut self) -> FileNumber {
        self.next += 1;
        FileNumber(self.next)
    }

    /// The file that has a name now.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<FileNumber> {
        self.names.get(path)?.now()
    }

    /// Whether a name is known, even as one that was deleted.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    /// Takes what happened.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Found { file, path, bytes } => {
                self.bodies.insert(*file, Body { durable: bytes.to_vec(), pending: Vec::new() });
                self.names.insert(path.clone(), Name(vec![Some(*file)]));
            }
            Event::Created { file, path } => {
                self.bodies.insert(*file, Body::default());
                self.name(path, Some(*file));
            }
            Event::Written { file, at, bytes } => {
                let at = usize::try_from(*at).expect("a file fits the memory");
                self.change(*file, Change::Write { at, bytes: bytes.clone() });
            }
            Event::Truncated { file, size } => {
                self.change(*file, Change::Size(usize::try_from(*size).expect("a file fits the memory")));
            }
            Event::Synced { file } => self.settle(*file, |_| Loss::Nothing, &mut Random::new(0)),
            Event::Forgotten { file, seed } => self.settle(*file, draw_loss, &mut Random::new(*seed)),
            Event::Deleted { path } => self.name(path, None),
            Event::FolderSynced { folder } => self.settle_names(folder),
            Event::Marked(_) => {}
        }
    }

    /// What is there after a cut at this moment: every file that still has a name.
    #[must_use]
    pub fn crash(&self, loss: Loss, random: &mut Random) -> BTreeMap<PathBuf, Cow<'_, [u8]>> {
        let mut left = BTreeMap::new();
        for (path, name) in &self.names {
            let versions = &name.0;
            let stands = match loss {
                Loss::All => versions[0],
                Loss::Nothing => name.now(),
                _ => versions[random.below(versions.len())],
            };
            if let Some(file) = stands {
                left.insert(path.clone(), self.bodies[&file].crash(loss, random));
            }
        }
        left
    }

    /// Every name that is or was in use, and so may have to be cleared away.
    pub fn names(&self) -> impl Iterator<Item = &PathBuf> {
        self.names.keys()
    }

    /// Forgets what lies in a folder: somebody else changed it.
    pub fn forget(&mut self, folder: &Path) {
        self.names.retain(|path, _| !path.starts_with(folder));
        self.sweep();
    }

    fn name(&mut self, path: &Path, file: Option<FileNumber>) {
        // A name that was never seen before stood for nothing.
        self.names.entry(path.to_owned()).or_insert_with(|| Name(vec![None])).0.push(file);
    }

    fn change(&mut self, file: FileNumber, change: Change) {
        if let Some(body) = self.bodies.get_mut(&file) {
            body.pending.push(change);
        }
    }

    fn settle(&mut self, file: FileNumber, loss: impl Fn(&mut Random) -> Loss, random: &mut Random) {
        let Some(body) = self.bodies.get_mut(&file) else { return };
        let loss = loss(random);
        let pending = std::mem::take(&mut body.pending);
        for change in kept(pending, loss, random) {
            change.apply(&mut body.durable);
        }
    }

    fn settle_names(&mut self, folder: &Path) {
        for (_, name) in self.names.iter_mut().filter(|(path, _)| path.parent() == Some(folder)) {
            name.0 = vec![name.now()];
        }
        self.sweep();
    }

    /// Drops names that stand for nothing for good, and bodies that no name can bring back.
    fn sweep(&mut self) {
        self.names.retain(|_, name| name.0.iter().any(Option::is_some));
        let named: BTreeSet<_> = self.names.values().flat_map(|name| name.0.iter().flatten()).collect();
        self.bodies.retain(|file, _| named.contains(file));
    }
}

impl Body {
    fn crash(&self, loss: Loss, random: &mut Random) -> Cow<'_, [u8]> {
        let loss = if loss == Loss::Any { draw_loss(random) } else { loss };
        let kept = kept(self.pending.clone(), loss, random);
        if kept.is_empty() {
            return Cow::Borrowed(&self.durable);
        }
        let mut bytes = self.durable.clone();
        for change in kept {
            change.apply(&mut bytes);
        }
        Cow::Owned(bytes)
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Size(size) => to.resize(*size, 0),
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
        }
    }

    /// Where a write can be torn: the ends of its sectors, its own end included. None if it cannot.
    fn sectors(&self) -> Vec<(usize, usize)> {
        let Self::Write { at, bytes } = self else { return Vec::new() };
        let mut sectors = Vec::new();
        let mut from = *at;
        while from < at + bytes.len() {
            let until = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(at + bytes.len());
            sectors.push((from, until));
            from = until;
        }
        if sectors.len() > 1 { sectors } else { Vec::new() }
    }

    /// Some of a write's sectors, but neither none nor all: the first, the last, or any.
    fn tear(&self, random: &mut Random) -> Vec<Self> {
        let Self::Write { at, bytes } = self else { return Vec::new() };
        let sectors = self.sectors();
        let cut = 1 + random.below(sectors.len() - 1);
        let way = random.below(3);
        let spared = random.below(sectors.len());
        let stays = |place: usize, random: &mut Random| match way {
            0 => place < cut,
            1 => place >= cut,
            _ => place == spared || (place != (spared + cut) % sectors.len() && random.coin()),
        };
        let mut torn = Vec::new();
        for (place, (from, until)) in sectors.iter().enumerate() {
            if stays(place, random) {
                torn.push(Self::Write { at: *from, bytes: bytes[from - at..until - at].into() });
            }
        }
        torn
    }
}

fn draw_loss(random: &mut Random) -> Loss {
    [Loss::All, Loss::Nothing, Loss::Tail, Loss::Some, Loss::Torn][random.below(5)]
}

/// What stays of changes that are not durable, in the order in which it reached the medium.
fn kept(mut pending: Vec<Change>, loss: Loss, random: &mut Random) -> Vec<Change> {
    match loss {
        Loss::All => return Vec::new(),
        Loss::Nothing => return pending,
        Loss::Tail => pending.truncate(random.below(pending.len() + 1)),
        Loss::Some | Loss::Any => pending.retain(|_| random.coin()),
        Loss::Torn => {
            let tearable: Vec<_> =
                (0..pending.len()).filter(|place| !pending[*place].sectors().is_empty()).collect();
            let torn = (!tearable.is_empty()).then(|| tearable[random.below(tearable.len())]);
            let mut left = Vec::with_capacity(pending.len());
            for (place, change) in pending.into_iter().enumerate() {
                if torn == Some(place) {
                    left.extend(change.tear(random));
                } else if random.coin() {
                    left.push(change);
                }
            }
            pending = left;
        }
    }
    if loss != Loss::Tail {
        random.shuffle(&mut pending);
    }
    pending
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "folder";

    fn path(name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    /// A disk with one file of three sectors of `a`, durable, and then `writes` that are not.
    fn medium(writes: &[(u64, &[u8])]) -> Medium {
        let mut medium = Medium::default();
        let file = medium.number();
        medium.apply(&Event::Found { file, path: path("file"), bytes: vec![b'a'; 1536].into() });
        for (at, bytes) in writes {
            medium.apply(&Event::Written { file, at: *at, bytes: (*bytes).into() });
        }
        medium
    }

    fn after(medium: &Medium, loss: Loss, seed: u64) -> Vec<u8> {
        medium.crash(loss, &mut Random::new(seed))[&path("file")].to_vec()
    }

    /// What cuts under many seeds leave, as the first byte of each sector.
    fn outcomes(medium: &Medium, loss: Loss) -> BTreeSet<Vec<u8>> {
        let sectors = |bytes: Vec<u8>| bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        (0..500).map(|seed| sectors(after(medium, loss, seed))).collect()
    }

    fn set(outcomes: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        outcomes.iter().map(|outcome| outcome.to_vec()).collect()
    }

    #[test]
    fn what_is_not_synced_may_be_lost_and_what_is_may_not() {
        let mut medium = medium(&[(0, &[b'b'; 512]), (1536, &[b'b'; 512])]);
        assert_eq!(outcomes(&medium, Loss::All), set(&[b"aaa"]));
        assert_eq!(outcomes(&medium, Loss::Nothing), set(&[b"baab"]));
        assert_eq!(outcomes(&medium, Loss::Tail), set(&[b"aaa", b"baa", b"baab"]));
        assert_eq!(outcomes(&medium, Loss::Some), set(&[b"aaa", b"baa", b"aaab", b"baab"]));
        let file = medium.file(&path("file")).expect("is there");
        medium.apply(&Event::Synced { file });
        assert_eq!(outcomes(&medium, Loss::Any), set(&[b"baab"]));
        medium.apply(&Event::Truncated { file, size: 512 });
        assert_eq!(outcomes(&medium, Loss::Any), set(&[b"baab", b"b"]));
    }

    #[test]
    fn a_write_is_torn_between_sectors_and_never_within_one() {
        let medium = medium(&[(0, &[b'b'; 1536])]);
        let torn = outcomes(&medium, Loss::Torn);
        assert_eq!(torn, set(&[b"baa", b"bba", b"aab", b"abb", b"aba", b"bab"]), "neither none nor all");
        for seed in 0..500 {
            let bytes = after(&medium, Loss::Torn, seed);
            assert!(bytes.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        }
        // Sectors begin where the disk's do, not where the write does.
        let unaligned = self::medium(&[(500, &[b'b'; 24])]);
        for seed in 0..50 {
            let bytes = after(&unaligned, Loss::Torn, seed);
            assert!([(b'b', b'a'), (b'a', b'b')].contains(&(bytes[511], bytes[512])));
            assert_eq!((bytes[499], bytes[524]), (b'a', b'a'), "what lies beside a write stays");
        }
    }

    #[test]
    fn writes_reach_the_medium_in_any_order() {
        let medium = medium(&[(0, &[b'b'; 512]), (0, &[b'c'; 512])]);
        assert_eq!(outcomes(&medium, Loss::Tail), set(&[b"aaa", b"baa", b"caa"]));
        let both: BTreeSet<_> = (0..100)
            .map(|seed| {
                let mut random = Random::new(seed);
                let mut order = [b'b', b'c'];
                random.shuffle(&mut order);
                order
            })
            .collect();
        assert_eq!(both, [*b"bc", *b"cb"].into());
        assert_eq!(outcomes(&medium, Loss::Some), set(&[b"aaa", b"baa", b"caa"]));
    }

    #[test]
    fn a_failed_sync_may_forget_for_good() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..100 {
            let mut medium = medium(&[(0, &[b'b'; 512]), (512, &[b'b'; 512])]);
            let file = medium.file(&path("file")).expect("is there");
            medium.apply(&Event::Forgotten { file, seed });
            medium.apply(&Event::Written { file, at: 1024, bytes: vec![b'c'; 512].into() });
            medium.apply(&Event::Synced { file });
            let bytes = after(&medium, Loss::Nothing, 0);
            assert_eq!(bytes[1024], b'c', "what was written later is safe");
            assert_eq!(bytes, after(&medium, Loss::All, 0));
            outcomes.insert((bytes[0], bytes[512]));
        }
        assert_eq!(outcomes, [(b'a', b'a'), (b'a', b'b'), (b'b', b'a'), (b'b', b'b')].into());
    }

    #[test]
    fn names_are_for_good_once_their_folder_is_synced() {
        let names = |medium: &Medium, loss| -> BTreeSet<Vec<String>> {
            let name = |path: &PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
            (0..100)
                .map(|seed| medium.crash(loss, &mut Random::new(seed)).keys().map(name).collect())
                .collect()
        };
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut medium = medium(&[]);
        let file = medium.number();
        medium.apply(&Event::Created { file, path: path("journal") });
        medium.apply(&Event::Written { file, at: 0, bytes: vec![b'j'; 10].into() });
        medium.apply(&Event::Synced { file });
        let either = [list(&["file"]), list(&["file", "journal"])];
        assert_eq!(names(&medium, Loss::Any), either.clone().into(), "a synced file's name may vanish");
        let elsewhere = PathBuf::from("elsewhere");
        medium.apply(&Event::FolderSynced { folder: elsewhere });
        assert_eq!(names(&medium, Loss::All), [either[0].clone()].into());
        medium.apply(&Event::FolderSynced { folder: FOLDER.into() });
        assert_eq!(names(&medium, Loss::Any), [either[1].clone()].into());

        medium.apply(&Event::Deleted { path: path("journal") });
        assert_eq!(names(&medium, Loss::Any), either.clone().into(), "a deleted file may come back");
        let back = medium.crash(Loss::All, &mut Random::new(0));
        assert_eq!(back[&path("journal")].as_ref(), [b'j'; 10], "with what it held");
        let anew = medium.number();
        medium.apply(&Event::Created { file: anew, path: path("journal") });
        let sizes: BTreeSet<_> = (0..100)
            .map(|seed| {
                let left = medium.crash(Loss::Any, &mut Random::new(seed));
                left.get(&path("journal")).map(|bytes| bytes.len())
            })
            .collect();
        assert_eq!(sizes, [None, Some(0), Some(10)].into(), "the old one, none, or the new one");
        medium.apply(&Event::Deleted { path: path("journal") });
        medium.apply(&Event::FolderSynced { folder: FOLDER.into() });
        assert_eq!(names(&medium, Loss::Any), [either[0].clone()].into());
        assert_eq!(medium.bodies.len(), 1, "what cannot come back is forgotten");
    }
}
