//! The second phone in other hands: it seals, with its own keys, what nobody may take up.

use std::collections::BTreeMap;

use ebb_core::{Category, Query, RecordId, document::Document, record::Value};
use ebb_protocol::id::DeviceId;
use rusqlite::Connection;

use super::{Host, Result, Who, World};
use crate::{
    rogue::{Rogue, changes_of, payload},
    ward::craving,
};

impl World {
    /// Seals a payload of some bad kind behind what the second phone wrote last. It goes out with the rest,
    /// and the server, which sees only that it is sealed and signed, must take it.
    pub(super) fn mischief(&mut self, pick: u8) -> Result {
        let device = Who::Second.index();
        let one = &self.devices[device];
        let Some(replica) = one.replica().filter(|_| !one.is_frozen()) else { return Ok(()) };
        let listed = replica.records(self.spaces[0], &Query::default()).unwrap_or_default();
        // In an order that does not hang on chance: ids are drawn from the seed.
        let listed: BTreeMap<_, _> = listed.into_iter().map(|record| (record.id, record.category)).collect();

        self.close_link(device);
        self.devices[device].close();
        match self.slip_in(pick, &listed) {
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

    fn slip_in(
        &self,
        pick: u8,
        listed: &BTreeMap<RecordId, Category>,
    ) -> rusqlite::Result<Option<&'static str>> {
        let Some(db) = self.devices[Who::Second.index()].database()? else { return Ok(None) };
        let mut rogue = Rogue::read(&db)?;
        let Some((category, what, payload)) = forge(&db, &rogue, pick, self.now(), listed)? else {
            return Ok(None);
        };
        Rogue::slip_in(&db, &rogue.write(category, &payload))?;
        Ok(Some(what))
    }
}

/// A payload of some bad kind, what it is, and the category that it is for.
fn forge(
    db: &Connection,
    rogue: &Rogue,
    pick: u8,
    now_ms: u64,
    listed: &BTreeMap<RecordId, Category>,
) -> rusqlite::Result<Option<(Category, &'static str, Vec<u8>)>> {
    let category = Category::Wellbeing;
    if !rogue.can_write(category) {
        return Ok(None);
    }
    let actor = rogue.actor(category);
    let create = |actor, value: &[u8]| Document::create(actor, 1, value, "").expect("fits");
    let (own, others) = (rogue.value(&craving(1)), Rogue::value_by(DeviceId([9; 16]), &craving(1)));
    let id = RecordId::new(now_ms, &[pick; 10]);
    let one = |id: RecordId, change: Vec<u8>| payload(&[(*id.as_bytes(), &[change])]);
    let (what, payload) = match pick % 7 {
        0 => ("what is no payload", b"no payload at all".to_vec()),
        1 => ("what is no change", one(id, b"no change at all".to_vec())),
        2 => {
            let (mut document, _) = create(actor, &own);
            let edited = document.edit(actor, 2, Some(&rogue.value(&craving(2))), None).expect("fits");
            ("a change without its ancestor", one(id, edited.expect("differs").bytes))
        }
        3 => ("a version in another's name", one(id, create(actor, &others).1.bytes)),
        4 => ("another's change", one(id, create([9; 16], &own).1.bytes)),
        5 => {
            let Some((id, _)) = listed.iter().find(|(_, lives)| **lives != category) else { return Ok(None) };
            // A sound one would keep the id where it is seen first (book, decisions).
            ("a record of another category", one(*id, create(actor, b"no value").1.bytes))
        }
        _ => {
            let Some((id, category)) = listed.first_key_value() else { return Ok(None) };
            if !rogue.can_write(*category) {
                return Ok(None);
            }
            // Beside whatever was written since: most devices do not show it.
            let first = changes_of(db, *id)?.into_iter().next().unwrap_or_default();
            let Ok(mut document) = Document::load([first.as_slice()]) else { return Ok(None) };
            let mut value = Value::decode(&document.state().value).expect("an honest value");
            value.author = [9; 16];
            let forged = document.edit(rogue.actor(*category), 2, Some(&value.encode()), None).expect("fits");
            let payload = one(*id, forged.expect("differs").bytes);
            return Ok(Some((*category, "a version in another's name beside others", payload)));
        }
    };
    Ok(Some((category, what, payload)))
}
