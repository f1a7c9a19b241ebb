-- What another device left for this one while the two are paired (docs/sync-protocol.md, "End to end"); "" for nothing.
ALTER TABLE devices ADD COLUMN letter TEXT NOT NULL DEFAULT '';
