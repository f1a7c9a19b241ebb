-- A profile's one row: its head, the digest of its rows (32 bytes, big-endian) and how many events it holds.
CREATE TABLE profiles (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    generation INTEGER NOT NULL,
    base INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    erased_by TEXT NOT NULL,
    seq INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    forgotten INTEGER NOT NULL,
    digest BLOB NOT NULL,
    events INTEGER NOT NULL
);
-- recent is JSON: [[dseq, print, code or null], ...], from the device's last push on.
CREATE TABLE devices (
    profile INTEGER NOT NULL REFERENCES profiles (number),
    id TEXT NOT NULL,
    high_water INTEGER NOT NULL,
    first INTEGER NOT NULL,
    recent TEXT NOT NULL,
    passed INTEGER NOT NULL,
    contact_ms INTEGER NOT NULL,
    copied_ms INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    PRIMARY KEY (profile, id)
) WITHOUT ROWID;
CREATE TABLE rows (
    profile INTEGER NOT NULL REFERENCES profiles (number),
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    hlc_ms INTEGER NOT NULL,
    hlc_counter INTEGER NOT NULL,
    device TEXT NOT NULL,
    dseq INTEGER NOT NULL,
    order_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (profile, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX rows_by_key ON rows (profile, kind, id);
-- Append-only: what a user said about each purpose, and when.
CREATE TABLE history (
    profile INTEGER NOT NULL REFERENCES profiles (number),
    received_ms INTEGER NOT NULL,
    device TEXT NOT NULL,
    dseq INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX history_by_profile ON history (profile);
CREATE TRIGGER history_is_not_changed BEFORE UPDATE ON history BEGIN
    SELECT RAISE(ABORT, 'the history of consent is append-only');
END;
-- How far the ledger may have got: a database whose mark is behind the ledger's was restored from a backup.
-- erased_s is when the first erasure was since the file was written anew (Unix seconds), 0 for none.
CREATE TABLE mark (mark INTEGER NOT NULL, erased_s INTEGER NOT NULL);
INSERT INTO mark VALUES (0, 0);
