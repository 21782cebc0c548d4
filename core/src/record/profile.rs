//! Who a person is, lives with and is insured by, and what a helper must know.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, each_text, optional_text, text};
use super::{Category, Invalid, Writer};

/// Who a person is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// The full name, as on papers.
    pub name: String,
    /// What to call them.
    #[serde(default)]
    pub called: Option<String>,
    /// Their pronouns.
    #[serde(default)]
    pub pronouns: Option<String>,
    /// The language to speak with them, as a BCP 47 tag such as `es`.
    #[serde(default)]
    pub language: Option<String>,
    /// Their date of birth.
    #[serde(default)]
    pub born: Option<Date>,
}

impl Content for Person {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("name", &self.name)?;
        optional_text("called", self.called.as_deref())?;
        optional_text("pronouns", self.pronouns.as_deref())?;
        optional_text("language", self.language.as_deref())
    }
}

/// Where and with whom a person lives; a newer record is a change, and the older ones are its history.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LivingSituation {
    /// With whom.
    pub arrangement: Arrangement,
    /// Whether it is a place to stay, as far as the person can tell.
    #[serde(default)]
    pub stable: Option<bool>,
}

/// Names with whom, or where, a person lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrangement {
    /// A sober living home.
    SoberLiving,
    /// With family.
    Family,
    /// With friends.
    Friends,
    /// Alone.
    Alone,
    /// A shelter or another place for a time.
    Temporary,
    /// Without a home.
    Unhoused,
    /// Anything else.
    Other,
}

impl Content for LivingSituation {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        Ok(())
    }
}

/// Somebody to call: family, a friend, a sponsor.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    /// Their name.
    pub name: String,
    /// What they are to the person.
    #[serde(default)]
    pub relation: Option<String>,
    /// How to reach them.
    #[serde(default)]
    pub phone: Option<String>,
    /// Whether they support the recovery and may be called in a crisis. What they may *see* is another
    /// matter: nothing, until a consent says so.
    pub supporter: bool,
}

impl Content for Contact {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("name", &self.name)?;
        optional_text("relation", self.relation.as_deref())?;
        optional_text("phone", self.phone.as_deref())
    }
}

/// Who pays.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The insurer or programme.
    pub payer: String,
    /// The kind of plan.
    pub plan: InsurancePlan,
    /// Whether the programme is in the plan's network.
    #[serde(default)]
    pub network: Option<Network>,
    /// The number on the card.
    #[serde(default)]
    pub member: Option<String>,
    /// What the person pays themselves (deductible, copayment, coinsurance), in the plan's words.
    #[serde(default)]
    pub cost_share: Option<String>,
    /// The first day of cover.
    #[serde(default)]
    pub from: Option<Date>,
    /// The last day of cover.
    #[serde(default)]
    pub until: Option<Date>,
}

/// Names a kind of insurance plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InsurancePlan {
    /// Health maintenance organization.
    Hmo,
    /// Exclusive provider organization.
    Epo,
    /// Point of service.
    Pos,
    /// Preferred provider organization.
    Ppo,
    /// Any other, by its name.
    Other(String),
}

/// Tells whether a provider is in a plan's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// It is.
    In,
    /// It is not.
    Out,
}

impl Coverage {
    /// Says whether a referral is needed; `None` where the kind of plan does not tell.
    ///
    /// An HMO asks for one, an EPO and a PPO do not, a POS does within its network.
    #[must_use]
    pub fn needs_referral(&self) -> Option<bool> {
        match (&self.plan, self.network) {
            (InsurancePlan::Hmo, _) | (InsurancePlan::Pos, Some(Network::In)) => Some(true),
            (InsurancePlan::Epo | InsurancePlan::Ppo, _) | (InsurancePlan::Pos, Some(Network::Out)) => {
                Some(false)
            }
            (InsurancePlan::Pos, None) | (InsurancePlan::Other(_), _) => None,
        }
    }

    /// Says whether the plan pays for this provider at all; `None` where that is not known.
    ///
    /// HMO and EPO pay within their network only; POS and PPO pay less outside.
    #[must_use]
    pub fn is_covered(&self) -> Option<bool> {
        match (&self.plan, self.network?) {
            (InsurancePlan::Other(_), Network::Out) => None,
            (InsurancePlan::Hmo | InsurancePlan::Epo, Network::Out) => Some(false),
            _ => Some(true),
        }
    }
}

impl Content for Coverage {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("payer", &self.payer)?;
        if let InsurancePlan::Other(name) = &self.plan {
            text("plan", name)?;
        }
        optional_text("member", self.member.as_deref())?;
        optional_text("cost_share", self.cost_share.as_deref())?;
        let ordered = self.from.zip(self.until).is_none_or(|(from, until)| from <= until);
        check(ordered, "until", "not before from")
    }
}

/// What somebody who helps in an emergency must know.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmergencyCard {
    /// The medicines taken, with doses if known.
    pub medicines: Vec<String>,
    /// Allergies.
    pub allergies: Vec<String>,
    /// Whom to call, with the number.
    pub contacts: Vec<String>,
    /// Whether naloxone is at hand.
    pub naloxone: Option<bool>,
}

impl Content for EmergencyCard {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Emergency])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(*self != Self::default(), "emergency_card", "at least one answer")?;
        each_text("medicines", &self.medicines)?;
        each_text("allergies", &self.allergies)?;
        each_text("contacts", &self.contacts)
    }
}

/// A person's request to restrict how their records are used for treatment, payment or operations
/// (42 CFR 2.26).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RestrictionRequest {
    /// What should be kept back; everything if none is named.
    #[serde(default)]
    pub categories: Vec<Category>,
    /// From whom.
    pub recipient: String,
    /// For which purposes; all if none is named.
    #[serde(default)]
    pub purposes: Vec<Purpose>,
    /// Whether the person paid for the service in full themselves: then a health plan is told nothing, and
    /// the programme must agree.
    pub paid_in_full: bool,
}

/// Names what records are used or disclosed for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Treatment.
    Treatment,
    /// Payment.
    Payment,
    /// Health care operations.
    Operations,
    /// Legal proceedings: never without a consent for nothing else, or a court's order.
    Legal,
    /// Anything else, at the person's request.
    Request,
}

impl Content for RestrictionRequest {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("recipient", &self.recipient)
    }
}
