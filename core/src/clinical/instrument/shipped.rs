//! The instruments that Ebb ships, and sets of them with a programme's own.

use std::sync::{Arc, LazyLock};

use super::{Instrument, SchemaError};

macro_rules! files {
    ($($id:literal),* $(,)?) => {
        &[$(($id, include_str!(concat!("../../../instruments/", $id, ".json")))),*]
    };
}

/// Every shipped file by its id, in the order in which lists show them.
const FILES: &[(&str, &str)] = files![
    "sows16",
    "cows",
    "ciwa_ar",
    "ciwa_b",
    "craving",
    "pain",
    "phq9",
    "phq2",
    "phq2_i9",
    "gad7",
    "cssrs_screener",
    "bam",
    "bam_iop",
    "bam_r",
];

/// A set of instruments: those that Ebb ships, and what a programme added.
#[derive(Clone, Debug)]
pub struct Instruments {
    list: Vec<Arc<Instrument>>,
}

impl Instruments {
    /// Returns the instruments that Ebb ships, read once.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Instruments> = LazyLock::new(|| {
            let read = FILES.iter().map(|(id, text)| Instrument::from_json(&format!("{id}.json"), text));
            let list = read.map(|file| file.map(Arc::new)).collect::<Result<_, _>>();
            Instruments { list: list.expect("a test reads every file that is compiled in") }
        });
        &SHIPPED
    }

    /// Finds an instrument by its id, in the version that was added last.
    pub fn get(&self, id: &str) -> Option<&Instrument> {
        self.iter().rev().find(|one| one.id == id)
    }

    /// Finds the version of an instrument that a record was answered with.
    pub fn get_version(&self, id: &str, version: &str) -> Option<&Instrument> {
        self.iter().find(|one| one.id == id && one.version == version)
    }

    /// Returns the set with a programme's own instrument added.
    ///
    /// An own instrument may come in several versions, so that older answers keep theirs.
    ///
    /// # Errors
    ///
    /// Its id is that of a shipped one, or this version of it is there already: records would be scored by
    /// something else than what was answered.
    pub fn with(&self, more: Instrument) -> Result<Self, SchemaError> {
        let refused = if FILES.iter().any(|(id, _)| *id == more.id) {
            Some("the id of an instrument that Ebb ships is not free")
        } else if self.get_version(&more.id, &more.version).is_some() {
            Some("this version of it is there already")
        } else {
            None
        };
        if let Some(rule) = refused {
            return Err(SchemaError {
                file: more.id.clone(),
                place: format!("version {}", more.version),
                rule: rule.into(),
            });
        }
        let mut list = self.list.clone();
        list.push(Arc::new(more));
        Ok(Self { list })
    }

    /// Lists them: the shipped ones in the order of the book, then what was added, in that order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Instrument> {
        self.list.iter().map(Arc::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_read() {
        for (id, text) in FILES {
            let read = Instrument::from_json(&format!("{id}.json"), text);
            let instrument = read.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(instrument.id, *id, "a file is named after its instrument");
        }
        assert_eq!(Instruments::shipped().iter().count(), FILES.len());
    }
}
