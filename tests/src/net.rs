//! A cruel network: what it carries arrives in order and late, or not at all.
//!
//! A [`Net`] only says when bytes arrive, and whether; whoever owns the clock carries it out. Bytes of one
//! direction keep their order, as over QUIC and TCP, but come in any pieces.

use std::collections::BTreeMap;

use crate::disk::medium::Random;

/// A connection, by its number since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the device to the server.
    Up,
    /// From the server to the device.
    Down,
}

/// Bytes (or with none, the end) and when they arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Virtual milliseconds since the beginning.
    pub at_ms: u64,
    /// The connection.
    pub link: LinkId,
    /// The direction.
    pub way: Way,
    /// What arrives; nothing is the end.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
struct Link {
    device: usize,
    latency_ms: u64,
    /// When the last bytes of each direction arrive.
    last_ms: [u64; 2],
    /// Whether each direction still delivers.
    delivers: [bool; 2],
    /// What is added to the way up, once the device was cut off.
    late_ms: u64,
    pushed: Vec<Vec<u8>>,
}

/// Every connection that stands, or once stood.
#[derive(Debug)]
pub struct Net {
    random: Random,
    links: BTreeMap<LinkId, Link>,
    next: u32,
}

/// Frames kept of a connection to be delivered again.
const PUSHED_MAX: usize = 8;

impl Net {
    /// A network without connections.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), links: BTreeMap::new(), next: 0 }
    }

    /// A device connects, `latency_ms` away from the server.
    pub fn connect(&mut self, device: usize, latency_ms: u64) -> LinkId {
        let id = LinkId(self.next);
        self.next += 1;
        let link =
            Link { device, latency_ms, last_ms: [0; 2], delivers: [true; 2], late_ms: 0, pushed: Vec::new() };
        self.links.insert(id, link);
        id
    }

    /// Whose connection it is.
    #[must_use]
    pub fn device(&self, link: LinkId) -> Option<usize> {
        self.links.get(&link).map(|link| link.device)
    }

    /// Says in which pieces bytes arrive, and when. No bytes are the end.
    pub fn send(&mut self, now_ms: u64, link: LinkId, way: Way, bytes: &[u8]) -> Vec<Arrival> {
        let Some(state) = self.links.get_mut(&link) else { return Vec::new() };
        if way == Way::Up && !bytes.is_empty() && state.pushed.len() < PUSHED_MAX {
            state.pushed.push(bytes.to_vec());
        }
        let cut = if self.random.below(4) == 0 { self.random.below(bytes.len() + 1) } else { bytes.len() };
        let (head, tail) = bytes.split_at(cut);
        let mut arrivals = Vec::new();
        for piece in [head, tail] {
            if piece.is_empty() && !(bytes.is_empty() && arrivals.is_empty()) {
                continue;
            }
            let jitter = self.random.below(1 + usize::try_from(state.latency_ms / 2).unwrap_or(0)) as u64;
            let last = &mut state.last_ms[way as usize];
            *last = (*last).max(now_ms + state.latency_ms + jitter + state.late_ms);
            arrivals.push(Arrival { at_ms: *last, link, way, bytes: piece.to_vec() });
        }
        arrivals
    }

    /// Whether something that was sent does arrive.
    #[must_use]
    pub fn delivers(&self, link: LinkId, way: Way) -> bool {
        self.links.get(&link).is_some_and(|link| link.delivers[way as usize])
    }

    /// From now on nothing arrives any more, either way.
    pub fn black_hole(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.delivers = [false; 2];
        }
    }

    /// From now on nothing arrives at the device any more.
    pub fn deafen(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.delivers[Way::Down as usize] = false;
        }
    }

    /// What the device once sent over its connection before this one, frame by frame.
    #[must_use]
    pub fn pushed_before(&self, link: LinkId) -> &[Vec<u8>] {
        let device = self.device(link);
        let before = self.links.range(..link).rev().find(|(_, other)| Some(other.device) == device);
        before.map_or(&[], |(_, other)| &other.pushed)
    }
}
