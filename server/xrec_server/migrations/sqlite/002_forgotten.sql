-- Ids of erasures that nobody holds any more: they are not done again (docs/sync-protocol.md, "A server", rule 7).
CREATE TABLE forgotten (
    profile INTEGER NOT NULL REFERENCES profiles (number),
    id TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    PRIMARY KEY (profile, id)
) WITHOUT ROWID;
