-- What must survive a restore of the database from a backup; docs/sync-protocol.md, "A server", rule 9.
CREATE TABLE profiles (
    id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    erased_by TEXT NOT NULL,
    forgotten INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE removed (profile TEXT NOT NULL, device TEXT NOT NULL, PRIMARY KEY (profile, device)) WITHOUT ROWID;
-- Raised at each start of a server and by its upkeep, in the database first: one that is behind is a backup's.
CREATE TABLE mark (mark INTEGER NOT NULL);
INSERT INTO mark VALUES (0);
CREATE TABLE rows (
    profile TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    hlc_ms INTEGER NOT NULL,
    hlc_counter INTEGER NOT NULL,
    device TEXT NOT NULL,
    dseq INTEGER NOT NULL,
    order_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (profile, kind, id)
) WITHOUT ROWID;
