//! Whom to call in a crisis: what a phone shows at once, with or without a network.

use super::chart::Chart;
use crate::record::Helpline;

/// The lines that anybody in the United States can call or text at any hour, by name, call and text numbers.
///
/// 988 Suicide & Crisis Lifeline, the national helpline of SAMHSA, and the emergency services.
pub const NATIONAL: [(&str, Option<&str>, Option<&str>); 3] = [
    ("988 Suicide & Crisis Lifeline", Some("988"), Some("988")),
    ("SAMHSA National Helpline", Some("1-800-662-4357"), None),
    ("Emergency", Some("911"), None),
];

/// Lists whom to call, in the order to show: the programme's own lines, the people whom the person named as
/// supporters, the national lines.
///
/// The list is never empty, whatever is known of the person.
///
/// ```
/// use ebb_core::clinical::{chart::Chart, crisis};
///
/// let lines = crisis::lines(&Chart::default());
/// assert_eq!(lines[0].phone.as_deref(), Some("988"));
/// ```
#[must_use]
pub fn lines(chart: &Chart) -> Vec<Helpline> {
    let programme = chart.plan.programme().map(|programme| programme.helplines.clone()).unwrap_or_default();
    let supporters = chart.contacts.iter().filter(|contact| contact.value.supporter);
    let supporters = supporters
        .filter_map(|contact| Some(Helpline::new(&contact.value.name).phone(contact.value.phone.as_ref()?)));
    let national = NATIONAL.into_iter().map(|(name, phone, text)| Helpline {
        name: name.to_owned(),
        phone: phone.map(str::to_owned),
        text: text.map(str::to_owned),
        hours: Some("24/7".to_owned()),
    });
    programme.into_iter().chain(supporters).chain(national).collect()
}
