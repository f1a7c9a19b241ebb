-- A profile's one row: its head, the digest of its rows (32 bytes, big-endian) and how many events it holds.
CREATE TABLE profiles (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    generation bigint NOT NULL,
    base bigint NOT NULL,
    epoch bigint NOT NULL,
    erased_by text NOT NULL,
    seq bigint NOT NULL,
    floor bigint NOT NULL,
    forgotten bigint NOT NULL,
    digest bytea NOT NULL,
    events bigint NOT NULL
) WITH (fillfactor = 50);
-- recent is JSON: [[dseq, print, code or null], ...], from the device's last push on.
CREATE TABLE devices (
    profile bigint NOT NULL REFERENCES profiles (number),
    id text COLLATE "C" NOT NULL,
    high_water bigint NOT NULL,
    first bigint NOT NULL,
    recent text NOT NULL,
    passed bigint NOT NULL,
    contact_ms bigint NOT NULL,
    copied_ms bigint NOT NULL,
    floor bigint NOT NULL,
    PRIMARY KEY (profile, id)
) WITH (fillfactor = 50);
CREATE TABLE rows (
    profile bigint NOT NULL REFERENCES profiles (number),
    seq bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    hlc_ms bigint NOT NULL,
    hlc_counter bigint NOT NULL,
    device text NOT NULL,
    dseq bigint NOT NULL,
    order_ms bigint NOT NULL,
    received_ms bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (profile, kind, id)
);
CREATE INDEX rows_by_seq ON rows (profile, seq);
-- Append-only: what a user said about each purpose, and when.
CREATE TABLE history (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    profile bigint NOT NULL REFERENCES profiles (number),
    received_ms bigint NOT NULL,
    device text NOT NULL,
    dseq bigint NOT NULL,
    purpose text NOT NULL,
    body text NOT NULL
);
CREATE INDEX history_by_profile ON history (profile);
CREATE FUNCTION history_is_not_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the history of consent is append-only';
END $$;
CREATE TRIGGER history_is_not_changed BEFORE UPDATE ON history EXECUTE FUNCTION history_is_not_changed();
-- How far the ledger may have got: a database whose mark is behind the ledger's was restored from a backup.
CREATE TABLE mark (mark bigint NOT NULL);
INSERT INTO mark VALUES (0);
