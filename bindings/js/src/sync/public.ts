/** What `@xrec/sdk/sync` shows on every platform. */

export type { SyncOptions, SyncState, SyncStatus, Timing } from "./client";
export { MemoryDisk, type Disk, type Written } from "./disk";
export { AskError, type TokenProvider } from "./line";
export type { State, Step } from "./state";
export { SyncedProfile, type Erasure, type ProfileOptions } from "./synced";
export { SyncError } from "./values";
