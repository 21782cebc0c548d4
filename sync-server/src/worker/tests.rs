//! A storage that a test serves by itself.

use super::*;

/// What was offered to a storage without workers.
pub(crate) struct Unserved(Receiver<(Address, SpaceId, Offer)>);

impl Storage {
    /// A storage that does nothing until a test does it.
    pub(crate) fn unserved() -> (Self, Unserved) {
        let (offers, offered) = mpsc::channel();
        let (asks, _) = mpsc::channel();
        let (offered_bytes, writable) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        (Self { offers, asks, offered_bytes, writable }, Unserved(offered))
    }
}

impl Unserved {
    /// Answers the oldest offer of envelopes: nothing of it was taken, nothing refused.
    pub(crate) fn answer_one(&self) {
        let (address, space, offer) = self.0.try_recv().unwrap();
        let Offer::Envelopes { stream, .. } = offer else { panic!("{offer:?}") };
        let committed = Input::Committed { space, stream, outcomes: Vec::new(), head: None };
        address.inbox.answer(Answer::Input(committed), address.bytes);
    }
}
