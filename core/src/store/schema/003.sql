-- What an author offered to a record before is looked up for each change that comes.
CREATE INDEX quarantine_record ON quarantine (space, record);
