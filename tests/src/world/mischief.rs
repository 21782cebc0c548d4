//! The second phone in other hands: it seals, with its own keys, what nobody may take up.

use ebb_core::{Category, Query, RecordId, document::Document};

use super::{Host, Result, Who, World};
use crate::rogue::{Rogue, payload};

impl World {
    /// Seals a payload of some bad kind behind what the second phone wrote last. It goes out with the rest,
    /// and the server, which sees only that it is sealed and signed, must take it.
    pub(super) fn mischief(&mut self, pick: u8) -> Result {
        let device = Who::Second.index();
        let one = &self.devices[device];
        let Some(replica) = one.replica().filter(|_| !one.is_frozen()) else { return Ok(()) };
        // Of another category than the one that is written in now.
        let listed = replica.records(self.spaces[0], &Query::default()).unwrap_or_default();
        let elsewhere = listed.iter().filter(|record| record.category != Category::Wellbeing);
        let elsewhere = elsewhere.map(|record| record.id).min();

        self.close_link(device);
        self.devices[device].close();
        match self.slip_in(pick, elsewhere) {
            Ok(None) => {}
            Ok(Some(what)) => {
                self.line(|| format!("the second phone seals {what}"));
                self.model.mischief += 1;
            }
            Err(error) => {
                self.line(|| format!("no mischief, perhaps: {:?}", error.sqlite_error_code()));
                self.model.mischief += 1;
            }
        }
        if self.devices[device].disk.is_off() {
            self.power_on_later(Host::Device(Who::Second));
            return Ok(());
        }
        self.power_on(Host::Device(Who::Second))
    }

    fn slip_in(&self, pick: u8, elsewhere: Option<RecordId>) -> rusqlite::Result<Option<&'static str>> {
        let Some(db) = self.devices[Who::Second.index()].database()? else { return Ok(None) };
        let mut rogue = Rogue::read(&db)?;
        let category = Category::Wellbeing;
        if !rogue.can_write(category) {
            return Ok(None);
        }
        let actor = rogue.actor(category);
        let create = |actor| Document::create(actor, 1, b"value", "").expect("fits");
        let id = RecordId::new(self.now(), &[pick; 10]);
        let one = |id: RecordId, change: Vec<u8>| payload(&[(*id.as_bytes(), &[change])]);
        let (what, payload) = match (pick % 5, elsewhere) {
            (0, _) => ("what is no payload", b"no payload at all".to_vec()),
            (1, _) => ("what is no change", one(id, b"no change at all".to_vec())),
            (2, _) => {
                let (mut document, _) = create(actor);
                let edited = document.edit(actor, 2, Some(b"other"), None).expect("fits").expect("differs");
                ("a change without its ancestor", one(id, edited.bytes))
            }
            (3, Some(elsewhere)) => ("a record of another category", one(elsewhere, create(actor).1.bytes)),
            _ => ("another's change", one(id, create([9; 16]).1.bytes)),
        };
        Rogue::slip_in(&db, &rogue.write(category, &payload))?;
        Ok(Some(what))
    }
}
