//! One stored field changed behind a replica's back, to show that the verdict sees it.

use std::path::Path;

use anyhow::{Context, bail};
use rusqlite::Connection;

/// Fields of which the demo changes the first that some stored record has.
const FIELDS: [&str; 2] = ["amount", "substance"];

/// Opens a replica's database with its key, flips one bit of one field of one record, and closes it.
///
/// # Errors
/// If the database does not open, or holds no record with such a field.
pub(crate) fn flip_one_field(database: &Path, key: &Path) -> anyhow::Result<()> {
    let key = std::fs::read(key).context("there is no key")?;
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let database = Connection::open(database)?;
    database
        .execute_batch(&format!("PRAGMA key = \"x'{key}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256"))?;
    let mut select = database.prepare(
        // What the clinic did not write itself: of that, its copy is the far side's.
        "SELECT space, id, value FROM record WHERE category <> 'observations' ORDER BY occurred_ms, id",
    )?;
    let records = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let records: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> = records.collect::<Result<_, _>>()?;
    for field in FIELDS {
        for (space, id, value) in &records {
            let Some(value) = flipped(value, field) else { continue };
            let update = "UPDATE record SET value = ?3 WHERE space = ?1 AND id = ?2";
            let changed = database.execute(update, (space, id, value))?;
            anyhow::ensure!(changed == 1, "no record was changed");
            return Ok(());
        }
    }
    bail!("no stored record has a field to change")
}

/// The CBOR value with the lowest bit of the first byte of a field's content flipped: 16 mg become 20,
/// and `Opioid` becomes `Npioid`.
fn flipped(value: &[u8], field: &str) -> Option<Vec<u8>> {
    let at = value.windows(field.len()).position(|window| window == field.as_bytes())?;
    let content = at + field.len() + 1; // after the one byte that says what the content is
    let mut value = value.to_vec();
    *value.get_mut(content)? ^= 1;
    Some(value)
}
