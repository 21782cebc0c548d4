//! Which transport goes first: QUIC, but TCP on networks where QUIC did not get through.
//!
//! The first to finish its handshake wins a race (see [`link::connect`](crate::link::connect)). A network
//! may also let a handshake pass and swallow what follows, so a link has shown its worth only once the
//! server has answered over it.

use ebb_protocol::{id::Millis, verify, wire};
use serde::{Deserialize, Serialize};

use crate::link::Transport;

/// So long TCP goes first where it won the race; then QUIC is given another chance.
pub(super) const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;
/// So long it goes first where QUIC got no further than its handshake: that may have been bad luck.
pub(super) const SUSPECTED_MS: u64 = 10 * 60 * 1_000;
/// Networks remembered; of more, those met longest ago are forgotten.
pub(super) const NETWORKS_MAX: usize = 32;

const VERSION: u8 = 1;

/// A network as the app tells it from others. Only a hash of what the app calls it is kept, and it never
/// leaves the device.
///
/// ```
/// use ebb_core::NetworkId;
///
/// assert_eq!(NetworkId::of("home"), NetworkId::of("home"));
/// assert_ne!(NetworkId::of("home"), NetworkId::of("clinic"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId([u8; 16]);

impl NetworkId {
    /// The network of this name, whatever a name is on this platform: an SSID, a handle, a carrier.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let hash = verify::sha256(&[b"ebb network", name.as_bytes()]);
        Self(*hash.0.first_chunk().expect("a hash is longer"))
    }
}

/// What is remembered of networks, and of the link that stands.
#[derive(Default)]
pub(super) struct Networks {
    /// Where the device is, if the app said so.
    here: Option<NetworkId>,
    /// Where QUIC did not get through, and until when that counts; the newest last.
    without_quic: Vec<(Option<NetworkId>, Millis)>,
    /// The link that stands while the server has not answered over it.
    unproven: Option<Transport>,
    /// Whether TCP has just come to go first, and was not tried yet.
    untried: bool,
}

impl Networks {
    /// What was kept; nothing, if another version kept it: it is only a hint.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let without_quic = match bytes.split_first() {
            Some((&VERSION, list)) => wire::decode(list).unwrap_or_default(),
            _ => Vec::new(),
        };
        Self { without_quic, ..Self::default() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION][..], &wire::encode(&self.without_quic)].concat()
    }

    /// Which transport goes first.
    pub(super) fn first(&self, now: Millis) -> Transport {
        let counts = |(network, until): &(_, Millis)| *network == self.here && now < *until;
        if self.without_quic.iter().any(counts) { Transport::Tcp } else { Transport::Quic }
    }

    /// The device is on another network, or on an unknown one. The link that stood says nothing about it.
    pub(super) fn moved(&mut self, here: Option<NetworkId>) {
        self.here = here;
        self.unproven = None;
    }

    /// A link stands.
    pub(super) fn linked(&mut self, transport: Transport) {
        self.unproven = Some(transport);
    }

    /// The server answered over the link. Says whether there is something new to keep.
    #[must_use]
    pub(super) fn answered(&mut self, now: Millis) -> bool {
        match self.unproven.take() {
            Some(worked) => self.put_first(worked, now, REMEMBERED_MS),
            None => false,
        }
    }

    /// The link ended. Says whether there is something new to keep: if the server never answered, the
    /// other transport goes first next time.
    #[must_use]
    pub(super) fn ended(&mut self, now: Millis) -> bool {
        match self.unproven.take() {
            Some(Transport::Quic) => {
                self.untried = self.put_first(Transport::Tcp, now, SUSPECTED_MS);
                self.untried
            }
            Some(Transport::Tcp) => self.put_first(Transport::Quic, now, 0),
            None => false,
        }
    }

    /// Whether there is another way that was not tried yet; said once.
    pub(super) fn take_untried(&mut self) -> bool {
        std::mem::take(&mut self.untried)
    }

    fn put_first(&mut self, transport: Transport, now: Millis, for_ms: u64) -> bool {
        if transport == self.first(now) {
            return false;
        }
        self.without_quic.retain(|(network, _)| *network != self.here);
        if transport == Transport::Tcp {
            self.without_quic.push((self.here, now.plus(for_ms)));
            let surplus = self.without_quic.len().saturating_sub(NETWORKS_MAX);
            self.without_quic.drain(..surplus);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    fn answered_over(networks: &mut Networks, transport: Transport) -> bool {
        networks.linked(transport);
        networks.answered(NOW)
    }

    #[test]
    fn what_got_through_goes_first_on_that_network_and_is_tried_again_after_a_day() {
        let mut networks = Networks::default();
        assert_eq!(networks.first(NOW), Transport::Quic);
        assert!(!answered_over(&mut networks, Transport::Quic), "as expected: nothing to keep");
        assert!(answered_over(&mut networks, Transport::Tcp));
        assert!(!answered_over(&mut networks, Transport::Tcp), "known: not written again");
        assert_eq!(networks.first(NOW), Transport::Tcp);

        networks.moved(Some(NetworkId::of("home")));
        assert_eq!(networks.first(NOW), Transport::Quic, "another network");
        networks.moved(None);
        assert_eq!(networks.first(NOW.plus(REMEMBERED_MS - 1)), Transport::Tcp);
        assert_eq!(networks.first(NOW.plus(REMEMBERED_MS)), Transport::Quic);

        assert!(answered_over(&mut networks, Transport::Quic), "it gets through again");
        assert_eq!(networks.first(NOW), Transport::Quic);
    }

    #[test]
    fn a_link_without_an_answer_makes_way_for_the_other_transport() {
        let mut networks = Networks::default();
        assert!(!networks.ended(NOW), "there was none");
        for (failed, next) in [(Transport::Quic, Transport::Tcp), (Transport::Tcp, Transport::Quic)] {
            networks.linked(failed);
            assert!(networks.ended(NOW));
            assert_eq!(networks.take_untried(), next == Transport::Tcp, "else it would go on for ever");
            assert!(!networks.take_untried(), "said once");
            assert_eq!(networks.first(NOW), next);
            assert!(!networks.ended(NOW), "each link is judged once");
        }
        networks.linked(Transport::Quic);
        assert!(networks.ended(NOW));
        assert!(!answered_over(&mut networks, Transport::Tcp), "first it was: that proves nothing of QUIC");
        assert_eq!(networks.first(NOW.plus(SUSPECTED_MS)), Transport::Quic, "which may have had bad luck");
        assert!(answered_over(&mut networks, Transport::Quic));
        assert!(!answered_over(&mut networks, Transport::Quic));
        assert!(!networks.ended(NOW), "it was of use: how it ends says nothing");
        networks.linked(Transport::Quic);
        networks.moved(None);
        assert!(!networks.ended(NOW), "it broke because the device moved");
    }

    #[test]
    fn what_is_kept_is_read_again_and_has_a_limit() {
        let mut networks = Networks::default();
        let name = |number: usize| Some(NetworkId::of(&number.to_string()));
        for number in 0..=NETWORKS_MAX {
            networks.moved(name(number));
            assert!(answered_over(&mut networks, Transport::Tcp));
        }
        let mut again = Networks::from_bytes(&networks.to_bytes());
        for (number, first) in [(0, Transport::Quic), (1, Transport::Tcp), (NETWORKS_MAX, Transport::Tcp)] {
            again.moved(name(number));
            assert_eq!(again.first(NOW), first, "{number}");
        }
        for unreadable in [&[][..], &[VERSION + 1, 0], &[VERSION, 9, 9]] {
            assert_eq!(Networks::from_bytes(unreadable).first(NOW), Transport::Quic);
        }
    }
}
