-- Schema 1. Never edited: a change is a new file.
--
-- Every key begins with the space, so that a backend may shard by it. All tables are rowid tables: a row
-- is then appended at the right end of its table (SQLite's cheapest write, whatever the table's size and
-- whichever space it is for), its bytes are written once and never moved, and only narrow index entries
-- land in the middle of a tree. WITHOUT ROWID would keep the bytes in key order, and every append to a
-- space would split and rebalance pages full of the envelopes of the space behind it.

CREATE TABLE space (
    space   BLOB NOT NULL PRIMARY KEY,
    log_id  BLOB NOT NULL
);

CREATE TABLE birth (
    space   BLOB    NOT NULL,
    number  INTEGER NOT NULL,
    signed  BLOB    NOT NULL,
    PRIMARY KEY (space, number)
);

CREATE TABLE roster (
    space   BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    hash    BLOB    NOT NULL,
    entry   BLOB    NOT NULL,
    PRIMARY KEY (space, seq)
);

-- The bytes come last: what stands before them is read without their overflow pages.
CREATE TABLE envelope (
    space        BLOB    NOT NULL,
    stream       BLOB    NOT NULL,
    position     INTEGER NOT NULL,
    author       BLOB    NOT NULL,
    seq          INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    hash         BLOB    NOT NULL,
    chain        BLOB    NOT NULL,
    roster_head  BLOB    NOT NULL,
    log_id       BLOB    NOT NULL,
    seen_pos     INTEGER NOT NULL,
    received_ms  INTEGER NOT NULL,
    bytes        BLOB    NOT NULL,
    PRIMARY KEY (space, stream, position),
    -- At one sequence, one envelope of each epoch: a fork cannot be stored, whatever the code does.
    UNIQUE (space, stream, author, seq, epoch)
);

-- One row that is overwritten to learn whether the storage takes writes.
CREATE TABLE probe (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    count   INTEGER NOT NULL
);
INSERT INTO probe (one, count) VALUES (1, 0);
