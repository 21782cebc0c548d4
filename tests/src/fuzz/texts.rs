//! What people copy, scan and type: cards, tickets, pins, labels, a server's configuration.

use std::{fmt::Display, str::FromStr};

use ebb_core::{Card, Category, Ticket, record::Kind};
use ebb_protocol::wire::{self, SignedPins};
use ebb_sync_server::config::Config;

use super::frames::again;

/// Parses. A text that is taken holds nothing but its prefix and hexadecimal digits (blanks around them
/// aside), and what it says is written and read again as the same. The bytes within are tried without
/// their digits too, which no fuzzer gets right by chance.
pub fn texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    code::<Card>(&text, "ebb-card-1-");
    code::<Ticket>(&text, "ebb-ticket-1-");
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    code::<Card>(&format!("ebb-card-1-{digits}"), "ebb-card-1-");
    code::<Ticket>(&format!("ebb-ticket-1-{digits}"), "ebb-ticket-1-");
    again::<Card>(bytes);
    if let Some(ticket) = again::<Ticket>(bytes) {
        assert_eq!(wire::encode(&ticket), bytes, "a ticket is written in one way");
    }
    for text in [text.as_ref(), &format!("ebb1-{digits}")] {
        if let Ok(pins) = SignedPins::from_text(text) {
            is_plain(text, "ebb1-");
            assert_eq!(SignedPins::from_text(&pins.to_text()), Ok(pins));
        }
    }
    if let Some(category) = Category::from_label(&text) {
        assert_eq!(category.label(), text);
    }
    assert_eq!(Kind::from_label(&text).label(), text);
    if let Ok(config) = Config::parse(&text, []) {
        config.check().expect("what is read makes sense");
    }
}

fn code<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str, prefix: &str) {
    let Ok(code) = text.parse::<T>() else { return };
    is_plain(text, prefix);
    let again = code.to_string();
    is_plain(&again, prefix);
    assert_eq!(again.parse::<T>().ok().as_ref(), Some(&code), "{again} is something else");
}

fn is_plain(text: &str, prefix: &str) {
    let digits = text.trim().strip_prefix(prefix).expect("it begins with its prefix");
    assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{text:?} is taken");
}
