//! Connections: a device's end, the server's end, and what comes between.

use std::sync::atomic::Ordering;

use ebb_core::{LinkAction, NetworkId, link::Transport};
use ebb_protocol::client::Input;
use ebb_sync_server::connection::{End, Step};

use super::{
    Fault, Happening, Host, Result, Who, World,
    server::{first_frames, frames},
};
use crate::{
    net::{Arrival, LinkId, Way},
    scenario::Udp,
};

/// A connection that cannot be made fails after this.
const REFUSED_MS: u64 = 300;
/// How often a log that failed is tried while nobody appends.
const PROBE_MS: u64 = 1_000;

impl World {
    /// Hands a device's connection what happened, and carries out what it says.
    pub(super) fn drive(&mut self, device: usize, input: Input) -> Result {
        let Some(replica) = self.devices[device].replica() else { return Ok(()) };
        let actions = replica.drive(input).map_err(|error| Fault(format!("locked: {error}")))?;
        self.after(device)?;
        for action in actions {
            if let Some((outputs, ms)) = &mut self.devices[device].output_until_crash {
                if *outputs == 0 {
                    let ms = *ms;
                    return self.crash(Host::Device(Who::ALL[device]), ms);
                }
                *outputs -= 1;
            }
            self.carry_out(device, action)?;
        }
        self.await_tick(device);
        Ok(())
    }

    fn carry_out(&mut self, device: usize, action: LinkAction) -> Result {
        match action {
            LinkAction::Connect => {
                let one = &mut self.devices[device];
                one.attempt += 1;
                one.connecting = true;
                let (over, after) = one.race().unwrap_or((Transport::Quic, REFUSED_MS));
                one.over = over;
                let attempt = one.attempt;
                self.close_link(device);
                self.due(self.now() + after, Happening::Connects(device, attempt));
            }
            LinkAction::Send(frame) => {
                if let Some(link) = self.devices[device].link {
                    frames(&frame).iter().for_each(|frame| self.note_said(link, frame));
                    let slow_ms = std::mem::take(&mut self.devices[device].slow_ms);
                    self.send(slow_ms, link, Way::Up, &frame);
                }
            }
            LinkAction::Close => {
                self.devices[device].connecting = false;
                self.close_link(device);
            }
        }
        Ok(())
    }

    /// A device comes to another network: what it had on the way is lost without a word.
    pub(super) fn roam(&mut self, who: Who, udp: Udp, is_named: bool) -> Result {
        let one = &mut self.devices[who.index()];
        one.udp = udp;
        let Some(replica) = one.replica() else { return Ok(()) };
        let network = is_named.then(|| NetworkId::of(&format!("{udp:?}")));
        // With a disk that fails nothing is remembered, and nothing else happens.
        let _ = replica.with_engine(|engine| {
            engine.moved(network);
            Ok(())
        });
        if let Some(link) = one.link {
            self.net.black_hole(link);
        }
        self.tally.count("networks");
        self.drive(who.index(), Input::NetworkChanged)
    }

    /// The device closes its link: what was sent still arrives, and the end behind it.
    pub(super) fn close_link(&mut self, device: usize) {
        self.devices[device].forget_incoming();
        if let Some(link) = self.devices[device].link.take() {
            self.send(0, link, Way::Up, &[]);
        }
    }

    /// Asks for a tick when the device's deadline has come.
    fn await_tick(&mut self, device: usize) {
        let one = &self.devices[device];
        let Some(replica) = one.replica() else { return };
        let Ok(Some(deadline)) = replica.deadline() else { return };
        let at_ms = deadline.0.max(self.now() + 1);
        if one.tick_ms.is_none_or(|tick_ms| tick_ms <= self.now() || at_ms < tick_ms) {
            self.devices[device].tick_ms = Some(at_ms);
            self.due(at_ms, Happening::DeviceTick(device));
        }
    }

    pub(super) fn device_tick(&mut self, device: usize) -> Result {
        let one = &mut self.devices[device];
        if one.tick_ms != Some(self.now_ms.load(Ordering::Relaxed)) {
            return Ok(());
        }
        one.tick_ms = None;
        self.drive(device, Input::Tick)
    }

    pub(super) fn connects(&mut self, device: usize, attempt: u32) -> Result {
        let one = &mut self.devices[device];
        if !one.connecting || one.attempt != attempt || one.replica().is_none() {
            return Ok(());
        }
        one.connecting = false;
        let Some(network_ms) = one.network_ms.filter(|_| self.server.is_up()) else {
            return self.drive(device, Input::Closed);
        };
        let Some(tls) = one.card.as_ref().map(|card| card.device.tls) else { return Ok(()) };
        let link = self.net.connect(device, network_ms);
        let mut exporter = [0; 32];
        exporter[..4].copy_from_slice(&link.0.to_be_bytes());
        self.devices[device].link = Some(link);
        self.devices[device].forget_incoming();
        self.server.connect(link, tls, exporter);
        self.tally.count("connections");
        self.line(|| format!("{:?} is connected by {}", Who::ALL[device], link.0));
        self.await_session_tick(link);
        let over = self.devices[device].over;
        if over == Transport::Tcp {
            self.tally.count("links over TCP");
        } else if self.devices[device].udp == Udp::Strangled {
            self.tally.count("strangled");
            self.net.black_hole(link);
        }
        if let Some(replica) = self.devices[device].replica() {
            // Locked only when the power is off, and then nobody asks.
            let _ = replica.with_engine(|engine| {
                engine.linked(over);
                Ok(())
            });
        }
        self.drive(device, Input::Connected { exporter })
    }

    pub(super) fn link_gone(&mut self, device: usize, link: LinkId) -> Result {
        if self.devices[device].link != Some(link) {
            return Ok(());
        }
        self.devices[device].link = None;
        self.devices[device].forget_incoming();
        self.drive(device, Input::Closed)
    }

    /// Breaks a device's link: with a delay, both ends notice, and what was under way up may come that late;
    /// without, nobody does.
    pub(super) fn break_link(&mut self, who: Who, what: &'static str, late_ms: Option<u64>) -> Result {
        let device = who.index();
        let Some(link) = self.devices[device].link else { return Ok(()) };
        self.tally.count(what);
        let Some(late_ms) = late_ms else {
            self.net.black_hole(link);
            return Ok(());
        };
        if late_ms == 0 {
            self.net.black_hole(link);
        } else {
            self.net.deafen(link);
            self.delay_up(link, late_ms);
        }
        let ends_at = self.now() + late_ms + self.random.below(300) as u64;
        let end = Arrival { at_ms: ends_at, link, way: Way::Up, bytes: Vec::new() };
        self.due(ends_at, Happening::Arrives(end));
        let notices_at = self.now() + self.random.below(300) as u64;
        self.due(notices_at, Happening::LinkGone(device, link));
        Ok(())
    }

    /// What is under way to the server arrives later, in the same order.
    fn delay_up(&mut self, link: LinkId, late_ms: u64) {
        let is_up = |happening: &Happening| matches!(happening, Happening::Arrives(arrival) if arrival.link == link && arrival.way == Way::Up);
        let keys: Vec<_> = self.due.iter().filter(|(_, due)| is_up(due)).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(Happening::Arrives(arrival)) = self.due.remove(&key) {
                self.due(key.0 + late_ms, Happening::Arrives(arrival));
            }
        }
    }

    /// What the device pushed over its connection before arrives again over this one.
    pub(super) fn send_twice(&mut self, who: Who) -> Result {
        let Some(link) = self.devices[who.index()].link else { return Ok(()) };
        let again: Vec<_> = self.net.pushed_before(link).iter().skip(1).cloned().collect();
        for frame in again {
            self.tally.count("twice");
            self.send(0, link, Way::Up, &frame);
        }
        Ok(())
    }

    pub(super) fn arrives(&mut self, arrival: Arrival) -> Result {
        let Arrival { link, way, bytes, .. } = arrival;
        let ends = bytes.is_empty();
        if !ends && !self.net.delivers(link, way) {
            return Ok(());
        }
        match way {
            Way::Up => {
                let Some(exchange) = self.server.exchanges.get_mut(&link) else { return Ok(()) };
                if ends {
                    self.server.exchanges.remove(&link);
                    return Ok(());
                }
                exchange.incoming().extend_from_slice(&bytes);
                self.serve(link)?;
                self.log_is_asked()
            }
            Way::Down => {
                let Some(device) = self.net.device(link) else { return Ok(()) };
                if self.devices[device].link != Some(link) {
                    return Ok(());
                }
                if ends {
                    return self.link_gone(device, link);
                }
                for input in self.devices[device].takes(&bytes) {
                    if self.devices[device].link == Some(link) {
                        self.drive(device, input)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Lets a connection at the server do what it can, and sends what it says.
    fn serve(&mut self, link: LinkId) -> Result {
        let Some(exchange) = self.server.exchanges.get_mut(&link) else { return Ok(()) };
        let ended = loop {
            match exchange.step() {
                Ok(Step::Went | Step::Took) => {}
                Ok(Step::Idle | Step::Opens) => break None,
                Err(end) => break Some(end),
            }
        };
        let bytes = exchange.unwritten().to_vec();
        exchange.wrote(bytes.len());
        if ended.is_some() {
            self.server.exchanges.remove(&link);
        }
        if self.server.disk.is_off() {
            return self.power_went(Host::Server);
        }
        if !bytes.is_empty() && ended != Some(End::Gone) {
            let frames = frames(&bytes);
            let mut said = frames.len();
            if let Some((outputs, _)) = &mut self.server.output_until_crash {
                match usize::from(*outputs).checked_sub(frames.len()) {
                    Some(left) => *outputs = u8::try_from(left).expect("less than before"),
                    None => said = usize::from(*outputs),
                }
            }
            for frame in &frames[..said] {
                self.note(link, frame);
                self.server.says(frame)?;
            }
            // Nothing at all would be the end of the connection.
            if said > 0 {
                self.send(0, link, Way::Down, first_frames(&bytes, said));
            }
            if said < frames.len()
                && let Some((_, ms)) = self.server.output_until_crash
            {
                return self.crash(Host::Server, ms);
            }
        }
        if ended.is_some() {
            self.send(0, link, Way::Down, &[]);
        } else {
            self.await_session_tick(link);
        }
        Ok(())
    }

    fn await_session_tick(&mut self, link: LinkId) {
        let Some(exchange) = self.server.exchanges.get(&link) else { return };
        let Some(deadline) = exchange.deadline() else { return };
        let wait_ms = deadline.since(self.server.watch.shows()).max(1);
        self.due(self.now() + wait_ms, Happening::SessionTick(link));
    }

    pub(super) fn session_tick(&mut self, link: LinkId) -> Result {
        let shows = self.server.watch.shows();
        let Some(exchange) = self.server.exchanges.get_mut(&link) else { return Ok(()) };
        if exchange.deadline().is_none_or(|deadline| deadline > shows) {
            return Ok(());
        }
        if exchange.tick().is_err() {
            self.server.exchanges.remove(&link);
            self.send(0, link, Way::Down, &[]);
            return Ok(());
        }
        self.serve(link)
    }

    /// Something may wait for the log: it comes round to it soon.
    pub(super) fn log_is_asked(&mut self) -> Result {
        if self.server.is_up() && !self.server.works {
            self.server.works = true;
            let cost = self.server.disk.sync_cost_ms();
            let slow = cost - std::mem::replace(&mut self.server.slow_ms, cost).min(cost);
            let after = self.random.below(4) as u64 + slow;
            self.due(self.now() + after, Happening::LogWorks);
        }
        Ok(())
    }

    pub(super) fn log_works(&mut self) -> Result {
        self.server.works = false;
        let reads_first = self.random.coin();
        let worked = self.server.work(reads_first);
        // Now and then something more happens before anybody hears of it.
        while worked && self.random.below(3) == 0 {
            let reads_first = self.random.coin();
            self.server.work(reads_first);
        }
        if self.server.disk.is_off() {
            return self.power_went(Host::Server);
        }
        if worked {
            let links: Vec<_> = self.server.exchanges.keys().copied().collect();
            for link in links {
                self.serve(link)?;
            }
            self.log_is_asked()
        } else if self.server.probe() {
            self.server.works = true;
            self.due(self.now() + PROBE_MS, Happening::LogWorks);
            Ok(())
        } else {
            Ok(())
        }
    }
}
