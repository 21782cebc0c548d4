//! Who a person is, lives with and is insured by, and what a helper must know.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, each_text, lines, optional_text, text};
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

impl Person {
    /// Says who a person is by their full name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), called: None, pronouns: None, language: None, born: None }
    }

    /// Says what to call them.
    #[must_use]
    pub fn called(mut self, called: impl Into<String>) -> Self {
        self.called = Some(called.into());
        self
    }

    /// Gives their pronouns.
    #[must_use]
    pub fn pronouns(mut self, pronouns: impl Into<String>) -> Self {
        self.pronouns = Some(pronouns.into());
        self
    }

    /// Gives the language to speak with them, as a BCP 47 tag.
    #[must_use]
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.language = Some(language.into());
        self
    }

    /// Gives their date of birth.
    #[must_use]
    pub fn born(mut self, on: Date) -> Self {
        self.born = Some(on);
        self
    }
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

impl Contact {
    /// Makes a contact who is no supporter, unless it is said.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), relation: None, phone: None, supporter: false }
    }

    /// Says what they are to the person.
    #[must_use]
    pub fn relation(mut self, relation: impl Into<String>) -> Self {
        self.relation = Some(relation.into());
        self
    }

    /// Says how to reach them.
    #[must_use]
    pub fn phone(mut self, phone: impl Into<String>) -> Self {
        self.phone = Some(phone.into());
        self
    }

    /// Says that they support the recovery and may be called in a crisis.
    #[must_use]
    pub fn supporter(mut self) -> Self {
        self.supporter = true;
        self
    }
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
///
/// ```
/// use ebb_core::record::{Coverage, Entry, InsurancePlan, Network, Writer};
///
/// let coverage = Coverage::new(InsurancePlan::Hmo, "Acme").network(Network::In).member("M-1");
/// assert_eq!((coverage.needs_referral(), coverage.is_covered()), (Some(true), Some(true)));
/// assert!(Entry::new(coverage).validate(Writer::Patient).is_ok());
/// ```
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
    /// Says by what kind of plan, and who the payer is.
    pub fn new(plan: InsurancePlan, payer: impl Into<String>) -> Self {
        let payer = payer.into();
        Self { payer, plan, network: None, member: None, cost_share: None, from: None, until: None }
    }

    /// Says whether the programme is in the plan's network.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Gives the number on the card.
    #[must_use]
    pub fn member(mut self, number: impl Into<String>) -> Self {
        self.member = Some(number.into());
        self
    }

    /// Says what the person pays themselves.
    #[must_use]
    pub fn cost_share(mut self, cost_share: impl Into<String>) -> Self {
        self.cost_share = Some(cost_share.into());
        self
    }

    /// Says which day of cover is the first.
    #[must_use]
    pub fn from(mut self, from: Date) -> Self {
        self.from = Some(from);
        self
    }

    /// Says which day of cover is the last.
    #[must_use]
    pub fn until(mut self, until: Date) -> Self {
        self.until = Some(until);
        self
    }

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

impl EmergencyCard {
    /// Says which medicines are taken.
    #[must_use]
    pub fn medicines(mut self, medicines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.medicines = lines(medicines);
        self
    }

    /// Says what the person is allergic to.
    #[must_use]
    pub fn allergies(mut self, allergies: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allergies = lines(allergies);
        self
    }

    /// Says whom to call, with the number.
    #[must_use]
    pub fn contacts(mut self, contacts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.contacts = lines(contacts);
        self
    }

    /// Says whether naloxone is at hand.
    #[must_use]
    pub fn naloxone(mut self, at_hand: bool) -> Self {
        self.naloxone = Some(at_hand);
        self
    }
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

impl RestrictionRequest {
    /// Asks to keep everything back from somebody, for all purposes, unless less is named.
    pub fn new(recipient: impl Into<String>) -> Self {
        let recipient = recipient.into();
        Self { categories: Vec::new(), recipient, purposes: Vec::new(), paid_in_full: false }
    }

    /// Says what should be kept back.
    #[must_use]
    pub fn categories(mut self, categories: impl IntoIterator<Item = Category>) -> Self {
        self.categories = categories.into_iter().collect();
        self
    }

    /// Says for which purposes.
    #[must_use]
    pub fn purposes(mut self, purposes: impl IntoIterator<Item = Purpose>) -> Self {
        self.purposes = purposes.into_iter().collect();
        self
    }

    /// Says that the person paid for the service in full themselves.
    #[must_use]
    pub fn paid_in_full(mut self) -> Self {
        self.paid_in_full = true;
        self
    }
}

impl Content for RestrictionRequest {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("recipient", &self.recipient)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::record::tests::refused_by_patient;

    const DAY: Date = date(2026, 3, 2);

    #[test]
    fn people_fit_by_their_names() {
        let person = |name| Person::new(name).called("Al").pronouns("they/them").language("es").born(DAY);
        assert_eq!(refused_by_patient(person("A. Person")), None);
        assert_eq!(refused_by_patient(person("")).as_deref(), Some("name"));
        let contact = Contact::new("B. Friend").relation("sister").phone("555 0101");
        assert!(!contact.supporter && contact.clone().supporter().supporter);
        assert_eq!(refused_by_patient(contact), None);
        assert_eq!(refused_by_patient(Contact::new("").supporter()).as_deref(), Some("name"));
    }

    #[test]
    fn a_cover_has_a_payer_and_a_plan() {
        let by = |plan| Coverage::new(plan, "Acme").network(Network::Out).member("M-1").cost_share("20 %");
        assert_eq!(refused_by_patient(by(InsurancePlan::Ppo).from(DAY).until(DAY)), None);
        let unnamed = by(InsurancePlan::Other(String::new()));
        assert_eq!(refused_by_patient(unnamed).as_deref(), Some("plan"));
        let nobody = Coverage::new(InsurancePlan::Hmo, "");
        assert_eq!(refused_by_patient(nobody).as_deref(), Some("payer"));
        let over = by(InsurancePlan::Epo).from(DAY).until(date(2026, 3, 1));
        assert_eq!(refused_by_patient(over).as_deref(), Some("until"));
    }

    #[test]
    fn an_emergency_card_says_something_and_a_restriction_whom() {
        assert_eq!(refused_by_patient(EmergencyCard::default()).as_deref(), Some("emergency_card"));
        let card = EmergencyCard::default()
            .medicines(["buprenorphine 16 mg"])
            .allergies(["penicillin"])
            .contacts(["B. Friend 555 0101"])
            .naloxone(true);
        assert_eq!(refused_by_patient(card), None);
        assert_eq!(refused_by_patient(EmergencyCard::default().naloxone(false)), None);
        let request = |recipient| {
            let request = RestrictionRequest::new(recipient).categories([Category::SubstanceUse]);
            request.purposes([Purpose::Operations]).paid_in_full()
        };
        assert_eq!(refused_by_patient(request("Acme")), None);
        assert_eq!(refused_by_patient(request("")).as_deref(), Some("recipient"));
    }
}
