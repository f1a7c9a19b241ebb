-- What must survive a restore of the database from a backup; docs/sync-protocol.md, "A server", rule 9.
CREATE TABLE ledger_profiles (
    id text COLLATE "C" PRIMARY KEY,
    generation bigint NOT NULL,
    epoch bigint NOT NULL,
    erased_by text NOT NULL,
    forgotten bigint NOT NULL
);
CREATE TABLE ledger_removed (
    profile text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    PRIMARY KEY (profile, device)
);
-- Raised at each start of a server and by its upkeep, in the database first: one that is behind is a backup's.
CREATE TABLE ledger_mark (mark bigint NOT NULL);
INSERT INTO ledger_mark VALUES (0);
CREATE TABLE ledger_rows (
    profile text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
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
