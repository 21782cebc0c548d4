//! What should be true, in the plainest code possible.
//!
//! The model knows what calls promised: which versions of which records a device was told are saved, and what was
//! granted. (What the server said is where, the world's server notes.) It knows nothing of documents, envelopes or rosters. A call
//! that failed when the power went may have done its work or not: what it would have done is `maybe`.

use std::collections::{BTreeMap, BTreeSet};

use ebb_core::{Category, RecordId, SpaceId};

/// One version of one record: the number that its text carries.
pub type Mark = u32;

/// A record that was logged, or may have been.
#[derive(Clone, Debug)]
pub struct Written {
    /// The space.
    pub space: SpaceId,
    /// The category.
    pub category: Category,
    /// Which device logged it.
    pub device: usize,
    /// Its id, once a device said it.
    pub id: Option<RecordId>,
    /// Its versions and who wrote each: certainly, or perhaps.
    pub versions: BTreeMap<Mark, (usize, Certainty)>,
    /// Whether somebody retracted it.
    pub retracted: Option<Certainty>,
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The call failed for want of power: perhaps.
    Maybe,
    /// The call returned: for certain, and for ever.
    Sure,
}

/// What a patient has granted the clinic.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// For certain.
    pub sure: BTreeSet<Category>,
    /// Perhaps.
    pub maybe: BTreeSet<Category>,
}

/// Everything that was promised.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Records by the mark of their first version.
    pub records: BTreeMap<Mark, Written>,
    first_of: BTreeMap<RecordId, Mark>,
    granted: BTreeMap<SpaceId, Granted>,
    /// Whether the second phone was added.
    pub second: Option<Certainty>,
    /// Pieces that the second phone sealed, perhaps, and nobody may take up. What is sealed under a key that
    /// was replaced meanwhile vanishes: it is in no record that could be sealed again.
    pub mischief: u64,
    marks: Mark,
}

impl Model {
    /// The next version's mark.
    pub fn mark(&mut self) -> Mark {
        self.marks += 1;
        self.marks
    }

    /// A record was logged; without an id the call failed, and perhaps it was.
    pub fn logged(
        &mut self,
        mark: Mark,
        device: usize,
        space: SpaceId,
        category: Category,
        id: Option<RecordId>,
    ) {
        let certainty = if id.is_some() { Certainty::Sure } else { Certainty::Maybe };
        let versions = BTreeMap::from([(mark, (device, certainty))]);
        self.records.insert(mark, Written { space, category, device, id, versions, retracted: None });
        if let Some(id) = id {
            self.first_of.insert(id, mark);
        }
    }

    /// A record was written again.
    pub fn edited(&mut self, id: &RecordId, mark: Mark, device: usize, certainty: Certainty) {
        if let Some(record) = self.by_id(id) {
            record.versions.insert(mark, (device, certainty));
        }
    }

    /// A record was retracted.
    pub fn retracted(&mut self, id: &RecordId, certainty: Certainty) {
        if let Some(record) = self.by_id(id) {
            record.retracted = record.retracted.max(Some(certainty));
        }
    }

    /// A retraction was taken back, perhaps beside another: either may show.
    pub fn unretracted(&mut self, id: &RecordId) {
        if let Some(record) = self.by_id(id) {
            record.retracted = record.retracted.and(Some(Certainty::Maybe));
        }
    }

    /// A device lost what it did to a record, unless the server has it.
    pub fn forgotten(&mut self, first: Mark, device: usize) {
        let Some(record) = self.records.get_mut(&first) else { return };
        for (_, certainty) in record.versions.values_mut().filter(|(by, _)| *by == device) {
            *certainty = Certainty::Maybe;
        }
        record.retracted = record.retracted.and(Some(Certainty::Maybe));
    }

    /// A patient granted categories.
    pub fn granted(&mut self, space: SpaceId, categories: &[Category], certainty: Certainty) {
        let granted = self.granted.entry(space).or_default();
        granted.maybe.extend(categories);
        if certainty == Certainty::Sure {
            granted.sure.extend(categories);
        }
    }

    /// What a patient has granted.
    #[must_use]
    pub fn grants(&self, space: &SpaceId) -> Granted {
        self.granted.get(space).cloned().unwrap_or_default()
    }

    /// A device lists this record, whose shown version has this mark: which record is it? A record that was
    /// logged perhaps is known from now on.
    ///
    /// # Errors
    /// If nobody ever logged it.
    pub fn recognize(&mut self, id: RecordId, shown: Mark) -> Result<Mark, String> {
        if let Some(first) = self.first_of.get(&id) {
            return match self.records[first].versions.contains_key(&shown) {
                true => Ok(*first),
                false => Err(format!("record {first} shows version {shown}, which is none of its own")),
            };
        }
        let known = self.records.iter_mut().find(|(_, record)| record.versions.contains_key(&shown));
        match known {
            Some((first, record)) if record.id.is_none() => {
                record.id = Some(id);
                self.first_of.insert(id, *first);
                Ok(*first)
            }
            Some((first, _)) => Err(format!("record {first} is there twice")),
            None => Err(format!("a record shows version {shown}, which nobody wrote")),
        }
    }

    fn by_id(&mut self, id: &RecordId) -> Option<&mut Written> {
        self.records.get_mut(self.first_of.get(id)?)
    }
}
