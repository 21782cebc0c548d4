-- The first schema of a replica. Never edited: changes come as 002.sql and so on.
-- `space` is in every key: a phone holds one space, a desk thousands.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE space (
    id     BLOB PRIMARY KEY,
    own    INTEGER NOT NULL,            -- 1: the patient's own space on the patient's device
    found  BLOB,                        -- hash that the founding entry must have (from the ticket)
    log_id BLOB NOT NULL,               -- the log in which positions count; zero: never met a server
    frozen INTEGER NOT NULL DEFAULT 0   -- 1: this device may not sign here any more
) WITHOUT ROWID;

-- The chain of membership. Settled: delivered or acknowledged by a server. Pending: only here so far.
CREATE TABLE roster_entry (
    space   BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    bytes   BLOB NOT NULL,
    PRIMARY KEY (space, seq)
) WITHOUT ROWID;

CREATE TABLE epoch_key (
    space     BLOB NOT NULL,
    stream    BLOB NOT NULL,
    epoch     INTEGER NOT NULL,
    key_check BLOB NOT NULL,
    key       BLOB NOT NULL,
    PRIMARY KEY (space, stream, epoch, key_check)
) WITHOUT ROWID;

CREATE TABLE stream (
    space    BLOB NOT NULL,
    id       BLOB NOT NULL,
    label    TEXT,                      -- the category; NULL until its label could be opened
    position INTEGER NOT NULL DEFAULT 0,
    chain    BLOB NOT NULL,
    evidence BLOB,                      -- the newest head that the server signed
    PRIMARY KEY (space, id)
) WITHOUT ROWID;

-- Every envelope that this device wrote or was served, for ever: what a server lost is refilled from here.
CREATE TABLE envelope (
    row         INTEGER PRIMARY KEY,
    space       BLOB NOT NULL,
    stream      BLOB NOT NULL,
    author      BLOB NOT NULL,
    seq         INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    roster_head BLOB NOT NULL,
    log_id      BLOB NOT NULL,
    seen_pos    INTEGER NOT NULL,
    verdict     TEXT NOT NULL,          -- accepted, held (roster head unknown), sealed (no key yet),
                                        -- superseded (own, sealed again), or a refusal's code
    position    INTEGER,                -- NULL: the server does not have it in the present log
    chain       BLOB,
    received_ms INTEGER,
    was_placed  INTEGER NOT NULL DEFAULT 0, -- 1: a server had it once; if it lost it, this is given back
    bytes       BLOB NOT NULL
);
CREATE UNIQUE INDEX envelope_hash ON envelope (space, hash);
CREATE INDEX envelope_author ON envelope (space, stream, author, seq);
CREATE UNIQUE INDEX envelope_position ON envelope (space, stream, position) WHERE position IS NOT NULL;
CREATE INDEX envelope_unsent ON envelope (space, stream, author, seq) WHERE position IS NULL;
CREATE INDEX envelope_undecided ON envelope (space, stream) WHERE verdict IN ('held', 'sealed');

-- A record is its changes. Order of arrival is kept: within one author it is causal order.
CREATE TABLE change (
    space    BLOB NOT NULL,
    record   BLOB NOT NULL,
    n        INTEGER NOT NULL,
    hash     BLOB NOT NULL,
    author   BLOB NOT NULL,
    envelope INTEGER,                   -- the envelope's row; NULL: not sealed yet
    bytes    BLOB NOT NULL,
    PRIMARY KEY (space, record, n)
) WITHOUT ROWID;
CREATE INDEX change_unsealed ON change (space, record) WHERE envelope IS NULL;
CREATE INDEX change_sealed ON change (envelope) WHERE envelope IS NOT NULL;

-- Changes whose ancestors are missing: kept outside of Automerge until they come.
CREATE TABLE waiting (
    space    BLOB NOT NULL,
    record   BLOB NOT NULL,
    hash     BLOB NOT NULL,
    stream   BLOB NOT NULL,
    author   BLOB NOT NULL,
    envelope INTEGER NOT NULL,
    bytes    BLOB NOT NULL,
    PRIMARY KEY (space, record, hash)
) WITHOUT ROWID;

-- Content that the gate refused: kept, counted, tried again by newer versions.
CREATE TABLE quarantine (
    space    BLOB NOT NULL,
    envelope INTEGER NOT NULL,
    record   BLOB NOT NULL,             -- zeros: the envelope's whole payload
    n        INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    bytes    BLOB NOT NULL,
    PRIMARY KEY (space, envelope, record, n)
) WITHOUT ROWID;

-- The present version of every record: a cache of `change`, rebuilt when `projection_version` rises.
CREATE TABLE record (
    space       BLOB NOT NULL,
    id          BLOB NOT NULL,
    stream      BLOB NOT NULL,
    category    TEXT NOT NULL,
    kind        TEXT NOT NULL,
    occurred_ms INTEGER NOT NULL,
    value       BLOB NOT NULL,
    note        TEXT NOT NULL,
    author      BLOB NOT NULL,          -- the device that wrote the shown version, as its change proves
    retraction  BLOB,
    conflicts   INTEGER NOT NULL,
    PRIMARY KEY (space, id)
) WITHOUT ROWID;
CREATE INDEX record_by_time ON record (space, occurred_ms);
