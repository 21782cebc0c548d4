//! Power that goes and comes back, files that are put back, apps that are updated.

use ebb_core::Delivery;

use super::{Fault, Happening, Host, Result, Who, World};
use crate::{model::Written, net::Way};

/// How often a host that does not start is started again.
const RETRY_MS: u64 = 700;

impl World {
    /// Every place of the server's file takes what is written again.
    pub(super) fn space_recovers(&mut self) -> Result {
        // With a disk that fails nothing changes, and its next start makes it good.
        if self.server.is_up() && self.server.fails(None).is_ok() {
            self.log_is_asked()?;
        }
        self.server_was_touched()
    }

    /// The server's file was written to by hand: that may have been the sync at which the power goes.
    pub(super) fn server_was_touched(&mut self) -> Result {
        if self.server.is_up() && self.server.disk.is_off() {
            return self.power_went(Host::Server);
        }
        Ok(())
    }

    /// The power of a host goes off.
    pub(super) fn crash(&mut self, host: Host, off_ms: u16) -> Result {
        if !self.is_up(host) {
            return Ok(());
        }
        self.line(|| format!("{host:?} loses its power"));
        self.disk(host).cut();
        match host {
            Host::Server => {
                self.tally.count("server crashes");
                self.server.end();
                for device in 0..self.devices.len() {
                    let Some(link) = self.devices[device].link else { continue };
                    // A process that died says so, a machine that lost its power does not.
                    if self.random.coin() || self.heals {
                        self.due(self.now() + 100, Happening::LinkGone(device, link));
                    } else {
                        self.net.black_hole(link);
                    }
                }
            }
            Host::Device(who) => {
                self.tally.count("device crashes");
                let link = self.devices[who.index()].link;
                // What was listed and never promised may go with the power.
                self.devices[who.index()].counted = [(0, 0); 2];
                self.devices[who.index()].close();
                if let Some(link) = link.filter(|_| self.random.coin()) {
                    self.send(0, link, Way::Up, &[]);
                }
            }
        }
        self.due(self.now() + 1 + u64::from(off_ms), Happening::PowerOn(host));
        Ok(())
    }

    /// The power went at a sync: it comes back when the scenario says.
    pub(super) fn power_went(&mut self, host: Host) -> Result {
        let off_ms = self.off_ms.remove(&host).unwrap_or(500);
        self.crash(host, off_ms)
    }

    pub(super) fn power_on(&mut self, host: Host) -> Result {
        if self.is_up(host) {
            return Ok(());
        }
        let disk = self.disk(host);
        if disk.is_off() {
            disk.power_on();
        }
        self.line(|| format!("{host:?} starts"));
        match host {
            Host::Server => match self.server.start() {
                Ok(()) => {
                    self.server.check()?;
                    self.log_is_asked()?;
                }
                Err(ebb_sync_server::log::LogError::Damaged(why)) => {
                    return Err(Fault(format!("the server's log is damaged: {why}")));
                }
                Err(_) => return self.start_later(host),
            },
            Host::Device(who) => {
                match self.devices[who.index()].open() {
                    Ok(()) => {}
                    Err(
                        error @ (ebb_core::Error::Bug(_)
                        | ebb_core::Error::Unlock(_)
                        | ebb_core::Error::Update(_)),
                    ) if !disk.is_off() => {
                        return Err(Fault(format!("{who:?} does not open: {error} ({error:?})")));
                    }
                    Err(_) => return self.start_later(host),
                }
                if disk.is_off() {
                    return self.power_went(host);
                }
                self.check_device(who.index())?;
                self.come_to_the_front(who.index())?;
            }
        }
        Ok(())
    }

    /// The power went while files were opened by hand.
    pub(super) fn power_on_later(&mut self, host: Host) {
        self.due(self.now() + 500, Happening::PowerOn(host));
    }

    fn start_later(&mut self, host: Host) -> Result {
        self.line(|| format!("{host:?} does not start yet"));
        if let Host::Device(who) = host {
            self.devices[who.index()].close();
        }
        self.due(self.now() + RETRY_MS, Happening::PowerOn(host));
        Ok(())
    }

    pub(super) fn restore(&mut self, pick: u8, ms: u16) -> Result {
        if !self.server.is_up() || self.heals {
            return Ok(());
        }
        self.crash(Host::Server, ms)?;
        self.server.disk.power_on();
        let backup = self.server.restore(pick);
        self.line(|| format!("the server's file is that of backup {backup:?}"));
        self.tally.count("restores");
        Ok(())
    }

    /// A device's files are those of an earlier day: what it alone had since then is gone.
    pub(super) fn put_back(&mut self, who: Who, pick: u8, ms: u16) -> Result {
        let device = who.index();
        let Some(replica) = self.devices[device].replica().cloned() else { return Ok(()) };
        if !self.devices[device].has_copies() {
            return Ok(());
        }
        let is_safe = |written: &Written| {
            let delivery = written.id.map(|id| replica.delivery(written.space, id));
            matches!(delivery, Some(Ok(Delivery::OnServer)))
        };
        let unsafe_ones = self.model.records.iter().filter(|(_, written)| !is_safe(written));
        let unsafe_ones: Vec<_> = unsafe_ones.map(|(first, _)| *first).collect();
        unsafe_ones.iter().for_each(|first| self.model.forgotten(*first, device));
        self.crash(Host::Device(who), ms)?;
        let one = &mut self.devices[device];
        one.disk.power_on();
        let copy = one.put_back(pick);
        self.line(|| format!("{who:?} has the files of copy {copy:?}"));
        self.tally.count("devices put back");
        Ok(())
    }

    pub(super) fn upgrade(&mut self, who: Who) -> Result {
        let device = who.index();
        if self.devices[device].replica().is_none() {
            return Ok(());
        }
        self.close_link(device);
        self.devices[device].close();
        match self.devices[device].age_lists() {
            Ok(()) => self.tally.count("upgrades"),
            // A disk that fails keeps the old lists.
            Err(error) => self.line(|| format!("not updated: {:?}", error.sqlite_error_code())),
        }
        if self.devices[device].disk.is_off() {
            self.power_on_later(Host::Device(who));
            return Ok(());
        }
        self.power_on(Host::Device(who))
    }
}
