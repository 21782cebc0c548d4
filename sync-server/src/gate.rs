//! Who may be connected, and who gives way when there are too many.
//!
//! Nobody is known before a roster names him: until then a peer, whatever it has proven of its key, is a
//! stranger, and strangers of a transport share a budget of memory. When it is used up, one of those gives way
//! whose address takes most of it (`places.rs`); the newest always gets in. A device that a roster names leaves
//! the strangers, and counts by itself from then on.

use std::{net::IpAddr, sync::Arc};

use ebb_protocol::id::DeviceId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::places::{Places, Ticket};

/// Strangers over QUIC above which a client must first prove its address (a Retry): forged packets then cost
/// one answer each and no memory.
pub const STRANGERS_BEFORE_RETRY: usize = 500;
/// Bytes that all strangers of one transport may hold: with those of the other one, and what a server needs
/// besides, well under 256 MiB.
pub const STRANGERS_BYTES_MAX: usize = 64 << 20;
/// Bytes that a handshake over QUIC counts for. Measured: 55 to 60 KiB.
pub const QUIC_HANDSHAKE_BYTES: usize = 64 << 10;
/// The same over TLS. Measured: 11 KiB while the peer says nothing, 17 KiB where one in five says Hello or half
/// of it.
pub const TCP_HANDSHAKE_BYTES: usize = 32 << 10;

/// How a peer came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Quic,
    Tcp,
}

impl Way {
    /// Bytes that a handshake counts for.
    fn handshake_bytes(self) -> usize {
        match self {
            Self::Quic => QUIC_HANDSHAKE_BYTES,
            Self::Tcp => TCP_HANDSHAKE_BYTES,
        }
    }
}

/// Where a peer came from: an address of IPv4, or a /64 of IPv6: who has one address of it has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let octets = address.octets();
                Self::V6(*octets.first_chunk().expect("8 of 16 bytes"))
            }
        }
    }
}

/// Who is connected. A place is lost when its sender is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    strangers: [Mutex<Places<Source, oneshot::Sender<()>>>; 2],
    devices: Mutex<Places<DeviceId, oneshot::Sender<()>>>,
}

impl Gate {
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        let strangers = || Mutex::new(Places::new(STRANGERS_BYTES_MAX));
        let devices = Mutex::new(Places::new(connections_max));
        Arc::new(Self { strangers: [strangers(), strangers()], devices })
    }

    /// Whether whoever has yet to prove his address must do so.
    pub(crate) fn is_crowded(&self) -> bool {
        self.strangers[Way::Quic as usize].lock().len() >= STRANGERS_BEFORE_RETRY
    }

    /// Whether a stranger from there is here already.
    pub(crate) fn has(&self, way: Way, from: IpAddr) -> bool {
        self.strangers[way as usize].lock().has(&Source::of(from))
    }

    /// Lets a stranger in, for whom another may have to give way.
    pub(crate) fn enter(self: &Arc<Self>, way: Way, from: IpAddr) -> Pass {
        let (sender, lost) = oneshot::channel();
        let entered =
            self.strangers[way as usize].lock().enter(Source::of(from), way.handshake_bytes(), sender);
        Pass {
            gate: self.clone(),
            way,
            ticket: entered.0,
            reserved: way.handshake_bytes(),
            device: None,
            lost,
            widen: None,
        }
    }

    /// Somebody among the strangers of a transport gives way: the system has no room for another.
    pub(crate) fn relieve(&self, way: Way) {
        drop(self.strangers[way as usize].lock().relieve());
    }
}

/// A place, until dropped.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    way: Way,
    ticket: Ticket,
    reserved: usize,
    device: Option<DeviceId>,
    lost: oneshot::Receiver<()>,
    widen: Option<Box<dyn FnOnce() + Send>>,
}

impl Pass {
    /// Waits until the place is lost to another. May be dropped and called again.
    pub(crate) async fn lost(&mut self) {
        // Nobody sends: it ends when the sender is dropped.
        let _ = (&mut self.lost).await;
    }

    /// Does this once the peer is known: a stranger is given little, a device more.
    pub(crate) fn widen(&mut self, widen: impl FnOnce() + Send + 'static) {
        self.widen = Some(Box::new(widen));
    }

    pub(crate) fn is_stranger(&self) -> bool {
        self.device.is_none()
    }

    /// So many bytes may be held for a stranger from now on, whatever it does.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.reserved = self.way.handshake_bytes() + bytes;
        self.weigh(0);
    }

    /// So many bytes are held for a stranger, besides what is reserved.
    pub(crate) fn weigh(&self, bytes: usize) {
        if self.is_stranger() {
            drop(self.strangers().lock().weigh(self.ticket, self.reserved + bytes));
        }
    }

    /// The peer is a device that a roster names. Where there is no place for a further one, the device that
    /// has most gives one of its own up, the oldest; `false` if all have but one.
    pub(crate) fn know(&mut self, device: DeviceId) -> bool {
        let (sender, lost) = oneshot::channel();
        let mut devices = self.gate.devices.lock();
        if !devices.has_room(1) && devices.heaviest() <= 1 {
            return false;
        }
        let (ticket, _) = devices.enter(device, 1, sender);
        drop(devices);
        drop(self.strangers().lock().leave(self.ticket));
        (self.ticket, self.device, self.lost) = (ticket, Some(device), lost);
        if let Some(widen) = self.widen.take() {
            widen();
        }
        true
    }

    fn strangers(&self) -> &Mutex<Places<Source, oneshot::Sender<()>>> {
        &self.gate.strangers[self.way as usize]
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        drop(match self.device {
            Some(_) => self.gate.devices.lock().leave(self.ticket),
            None => self.strangers().lock().leave(self.ticket),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        task::{Context, Waker},
    };

    use super::*;

    const QUIC_MAX: usize = STRANGERS_BYTES_MAX / QUIC_HANDSHAKE_BYTES;
    const TCP_MAX: usize = STRANGERS_BYTES_MAX / TCP_HANDSHAKE_BYTES;

    fn is_lost(pass: &mut Pass) -> bool {
        std::pin::pin!(pass.lost()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn address(number: usize) -> IpAddr {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    #[test]
    fn a_silent_crowd_from_one_address_keeps_nobody_else_out() {
        let gate = Gate::new(1);
        let mut crowd: Vec<_> = (0..TCP_MAX).map(|_| gate.enter(Way::Tcp, address(1))).collect();
        assert!(gate.has(Way::Tcp, address(1)) && !gate.has(Way::Tcp, address(2)));
        let mut honest = gate.enter(Way::Tcp, address(2));
        assert!(!is_lost(&mut honest));
        assert!(is_lost(&mut crowd[0]) && !is_lost(&mut crowd[1]));
        crowd.extend((0..TCP_MAX).map(|_| gate.enter(Way::Tcp, address(1))));
        assert!(!is_lost(&mut honest));
        assert!(!is_lost(&mut gate.enter(Way::Quic, address(1))), "the other transport has its own");
    }

    #[test]
    fn a_crowd_from_everywhere_gives_way_to_the_newest() {
        let gate = Gate::new(1);
        let mut crowd: Vec<_> = (0..QUIC_MAX).map(|number| gate.enter(Way::Quic, address(number))).collect();
        assert!(gate.is_crowded());
        let mut honest = gate.enter(Way::Quic, address(QUIC_MAX));
        assert!(is_lost(&mut crowd[0]) && !is_lost(&mut crowd[1]) && !is_lost(&mut honest));
        // Those that hold most go before those that came first.
        crowd[7].weigh(1 << 20);
        assert!(is_lost(&mut crowd[7]) && !is_lost(&mut crowd[1]));
        crowd.truncate(STRANGERS_BEFORE_RETRY);
        drop(honest);
        assert!(!gate.is_crowded(), "those that went are not counted");
    }

    #[test]
    fn a_device_that_is_known_is_no_stranger_any_more() {
        let gate = Gate::new(2);
        let mut first = gate.enter(Way::Tcp, address(1));
        assert!(first.know(DeviceId([1; 16])));
        let crowd: Vec<_> = (0..=TCP_MAX).map(|_| gate.enter(Way::Tcp, address(1))).collect();
        assert!(!is_lost(&mut first), "strangers push each other alone");
        drop(crowd);
        let mut again = gate.enter(Way::Quic, address(1));
        assert!(again.know(DeviceId([1; 16])));
        let mut other = gate.enter(Way::Tcp, address(1));
        assert!(other.know(DeviceId([2; 16])), "who is there twice gives way");
        assert!(is_lost(&mut first) && !is_lost(&mut again));
        let mut third = gate.enter(Way::Tcp, address(1));
        assert!(!third.know(DeviceId([3; 16])), "all others are there once");
        drop(other);
        assert!(third.know(DeviceId([3; 16])));
    }

    #[test]
    fn a_network_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(Source::of(Ipv6Addr::LOCALHOST.into()), Source::V6([0; 8]));
    }
}
