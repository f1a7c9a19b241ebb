-- Ids of erasures that nobody holds any more: they are not done again (docs/sync-protocol.md, "A server", rule 7).
CREATE TABLE forgotten (
    profile bigint NOT NULL REFERENCES profiles (number),
    id text COLLATE "C" NOT NULL,
    received_ms bigint NOT NULL,
    PRIMARY KEY (profile, id)
);
