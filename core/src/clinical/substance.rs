//! Drugs by what rules must know of them: which medicine a dose is of, which class a substance is of.
//!
//! People and programmes write names; rules ask for classes. A name that is not in these tables is kept as it
//! is and belongs to no class: rules that ask for one stay silent about it.

/// Names a medicine that rules know, or one that they do not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Medicine {
    /// Buprenorphine, with naloxone or without, by mouth.
    Buprenorphine,
    /// Buprenorphine that lasts weeks, under the skin.
    BuprenorphineDepot,
    /// Methadone.
    Methadone,
    /// Naltrexone by mouth.
    Naltrexone,
    /// Naltrexone that lasts four weeks, into a muscle.
    NaltrexoneDepot,
    /// Naloxone.
    Naloxone,
    /// A benzodiazepine, by its name.
    Benzodiazepine(String),
    /// Any other, by its name in lower case.
    Other(String),
}

/// RxNorm concepts and their medicines, from the value sets of `cqframework/opioid-cds-r4`.
const RXNORM: &[(&str, Medicine)] = &[
    ("1819", Medicine::Buprenorphine),
    ("351264", Medicine::Buprenorphine),
    ("351265", Medicine::Buprenorphine),
    ("351266", Medicine::Buprenorphine),
    ("351267", Medicine::Buprenorphine),
    ("1010600", Medicine::Buprenorphine),
    ("1010604", Medicine::Buprenorphine),
    ("1307056", Medicine::Buprenorphine),
    ("1307061", Medicine::Buprenorphine),
    ("1431102", Medicine::Buprenorphine),
    ("1996184", Medicine::BuprenorphineDepot),
    ("1996192", Medicine::BuprenorphineDepot),
    ("6813", Medicine::Methadone),
    ("864706", Medicine::Methadone),
    ("864718", Medicine::Methadone),
    ("864761", Medicine::Methadone),
    ("864978", Medicine::Methadone),
    ("991147", Medicine::Methadone),
    ("7243", Medicine::Naltrexone),
    ("637213", Medicine::NaltrexoneDepot),
    ("7242", Medicine::Naloxone),
    ("1725059", Medicine::Naloxone),
];

const BENZODIAZEPINES: &[&str] = &[
    "alprazolam",
    "chlordiazepoxide",
    "clonazepam",
    "clorazepate",
    "diazepam",
    "lorazepam",
    "oxazepam",
    "temazepam",
    "triazolam",
];

impl Medicine {
    /// Finds the medicine of a name or an RxNorm concept; the concept decides where it is known.
    ///
    /// ```
    /// use ebb_core::clinical::substance::Medicine;
    ///
    /// assert_eq!(Medicine::of("Buprenorphine/naloxone", None), Medicine::Buprenorphine);
    /// assert_eq!(Medicine::of("naltrexone extended-release", None), Medicine::NaltrexoneDepot);
    /// ```
    #[must_use]
    pub fn of(drug: &str, rxnorm: Option<&str>) -> Self {
        if let Some((_, known)) = RXNORM.iter().find(|(code, _)| Some(*code) == rxnorm) {
            return known.clone();
        }
        let name = drug.to_lowercase();
        let depot = ["extended-release", "depot", "injection", "sublocade", "vivitrol", "brixadi", "xr-"]
            .iter()
            .any(|word| name.contains(word));
        let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if is(&["buprenorphine", "suboxone", "subutex", "zubsolv", "sublocade", "brixadi"]) {
            return if depot { Self::BuprenorphineDepot } else { Self::Buprenorphine };
        }
        if is(&["naltrexone", "vivitrol", "revia"]) {
            return if depot { Self::NaltrexoneDepot } else { Self::Naltrexone };
        }
        if is(&["methadone", "dolophine"]) {
            return Self::Methadone;
        }
        if is(&["naloxone", "narcan"]) {
            return Self::Naloxone;
        }
        match BENZODIAZEPINES.iter().find(|known| name.contains(*known)) {
            Some(known) => Self::Benzodiazepine((*known).to_owned()),
            None => Self::Other(name),
        }
    }

    /// Returns the name under which series and alerts speak of it.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Buprenorphine => "buprenorphine",
            Self::BuprenorphineDepot => "buprenorphine extended-release",
            Self::Methadone => "methadone",
            Self::Naltrexone => "naltrexone",
            Self::NaltrexoneDepot => "naltrexone extended-release",
            Self::Naloxone => "naloxone",
            Self::Benzodiazepine(name) | Self::Other(name) => name,
        }
    }

    /// Says whether it acts on opioid receptors as an opioid does.
    #[must_use]
    pub fn is_opioid_agonist(&self) -> bool {
        matches!(self, Self::Buprenorphine | Self::BuprenorphineDepot | Self::Methadone)
    }

    /// Says whether it may bring on withdrawal in somebody who has an opioid in the body.
    #[must_use]
    pub fn may_precipitate(&self) -> bool {
        matches!(
            self,
            Self::Buprenorphine
                | Self::BuprenorphineDepot
                | Self::Naltrexone
                | Self::NaltrexoneDepot
                | Self::Naloxone
        )
    }

    /// Says whether it is a medication for opioid use disorder.
    #[must_use]
    pub fn treats_opioid_use(&self) -> bool {
        self.is_opioid_agonist() || matches!(self, Self::Naltrexone | Self::NaltrexoneDepot)
    }
}

/// Names the class of a substance that people use or screens look for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Substance {
    /// An opioid that leaves the body within a day: heroin, most prescription painkillers, fentanyl.
    Opioid,
    /// An opioid made to be released slowly.
    OpioidExtendedRelease,
    /// Methadone.
    Methadone,
    /// Buprenorphine.
    Buprenorphine,
    /// A benzodiazepine.
    Benzodiazepine,
    /// Another sedative.
    Sedative,
    /// Alcohol.
    Alcohol,
    /// Cocaine.
    Cocaine,
    /// Another stimulant.
    Stimulant,
    /// Cannabis.
    Cannabis,
}

/// Words by which a substance is known, the first that fits.
const SUBSTANCES: &[(Substance, &[&str])] = &[
    (Substance::Methadone, &["methadone"]),
    (Substance::Buprenorphine, &["buprenorphine", "suboxone", "subutex"]),
    (
        Substance::OpioidExtendedRelease,
        &[
            "oxycontin",
            "ms contin",
            "opioid extended-release",
            "extended-release oxycodone",
            "fentanyl patch",
        ],
    ),
    (
        Substance::Opioid,
        &[
            "opioid",
            "opiate",
            "heroin",
            "fentanyl",
            "oxycodone",
            "hydrocodone",
            "morphine",
            "codeine",
            "hydromorphone",
            "tramadol",
            "percocet",
            "vicodin",
            "painkiller",
        ],
    ),
    (
        Substance::Benzodiazepine,
        &[
            "benzo",
            "xanax",
            "valium",
            "klonopin",
            "ativan",
            "alprazolam",
            "diazepam",
            "clonazepam",
            "lorazepam",
            "temazepam",
            "chlordiazepoxide",
            "oxazepam",
        ],
    ),
    (Substance::Sedative, &["sedative", "barbiturate", "zolpidem", "gabapentin", "pregabalin", "xylazine"]),
    (Substance::Alcohol, &["alcohol", "beer", "wine", "liquor", "ethanol", "drink"]),
    (Substance::Cocaine, &["cocaine", "crack"]),
    (Substance::Stimulant, &["amphetamine", "stimulant", "mdma", "ecstasy"]),
    (Substance::Cannabis, &["cannabis", "marijuana", "thc", "weed"]),
];

impl Substance {
    /// Finds the class of a substance by its name; `None` for one that is not known.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let known = |words: &&[&str]| words.iter().any(|word| name.contains(word));
        SUBSTANCES.iter().find(|(_, words)| known(words)).map(|(class, _)| *class)
    }

    /// Says whether it is an opioid of any kind, treatment's own among them.
    #[must_use]
    pub fn is_opioid(self) -> bool {
        matches!(self, Self::Opioid | Self::OpioidExtendedRelease | Self::Methadone | Self::Buprenorphine)
    }

    /// Says whether it makes an opioid more dangerous to breathing.
    #[must_use]
    pub fn is_sedating(self) -> bool {
        matches!(self, Self::Benzodiazepine | Self::Sedative | Self::Alcohol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_medicine() {
        for (drug, rxnorm, medicine) in [
            ("buprenorphine-naloxone", None, Medicine::Buprenorphine),
            ("Suboxone film", None, Medicine::Buprenorphine),
            ("Sublocade", None, Medicine::BuprenorphineDepot),
            ("anything", Some("6813"), Medicine::Methadone),
            ("anything", Some("1996192"), Medicine::BuprenorphineDepot),
            ("naltrexone", None, Medicine::Naltrexone),
            ("Vivitrol", None, Medicine::NaltrexoneDepot),
            ("Narcan", None, Medicine::Naloxone),
            ("Diazepam 5 mg", None, Medicine::Benzodiazepine("diazepam".to_owned())),
            ("Study medication", None, Medicine::Other("study medication".to_owned())),
        ] {
            assert_eq!(Medicine::of(drug, rxnorm), medicine, "{drug}");
        }
    }

    #[test]
    fn names_find_their_class() {
        for (name, class) in [
            ("Heroin", Some(Substance::Opioid)),
            ("Methadone", Some(Substance::Methadone)),
            ("fentanyl", Some(Substance::Opioid)),
            ("OxyContin", Some(Substance::OpioidExtendedRelease)),
            ("Benzodiazepine", Some(Substance::Benzodiazepine)),
            ("Sedatives", Some(Substance::Sedative)),
            ("Alcohol", Some(Substance::Alcohol)),
            ("Thc", Some(Substance::Cannabis)),
            ("Crack", Some(Substance::Cocaine)),
            ("Amphetamine", Some(Substance::Stimulant)),
            ("nutmeg", None),
        ] {
            assert_eq!(Substance::of(name), class, "{name}");
        }
    }
}
