-- What does not count is known by its author and name, for the next that comes from there, and what was refused
-- keeps no bytes: the envelope that brought it has them. What was parked until now is looked at again.
UPDATE envelope SET verdict = 'sealed'
WHERE verdict = 'accepted' AND row IN (SELECT envelope FROM waiting UNION SELECT envelope FROM quarantine);
DROP TABLE waiting;
DROP TABLE quarantine;
DELETE FROM meta WHERE name = 'quarantine_tried_by';

-- Changes whose ancestors are missing: kept outside of Automerge until they come.
CREATE TABLE waiting (
    space    BLOB NOT NULL,
    record   BLOB NOT NULL,
    stream   BLOB NOT NULL,
    author   BLOB NOT NULL,
    name     BLOB NOT NULL,             -- the change's hash
    seq      INTEGER NOT NULL,          -- its place in the author's changes to the record
    envelope INTEGER NOT NULL,
    bytes    BLOB NOT NULL,
    PRIMARY KEY (space, record, stream, author, name)
) WITHOUT ROWID;

-- Content that the gate refused: counted, tried again by newer versions.
CREATE TABLE quarantine (
    space    BLOB NOT NULL,
    record   BLOB NOT NULL,             -- zeros: the envelope's whole payload
    stream   BLOB NOT NULL,
    author   BLOB NOT NULL,
    name     BLOB NOT NULL,             -- the change's hash; that of the bytes, or of the envelope, where there is none
    seq      INTEGER,                   -- the place that it keeps from others; NULL: none
    envelope INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    PRIMARY KEY (space, record, stream, author, name)
) WITHOUT ROWID;
