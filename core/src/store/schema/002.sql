-- What this device found by the clinical rules, and when: the findings follow from the records, their
-- history does not.
CREATE TABLE alert (
    space BLOB NOT NULL,
    id    BLOB NOT NULL,
    value BLOB NOT NULL,                -- CBOR
    PRIMARY KEY (space, id)
) WITHOUT ROWID;
