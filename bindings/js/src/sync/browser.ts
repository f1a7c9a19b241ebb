/** `@xrec/sdk/sync` in browsers: a profile in IndexedDB that a user's devices share. */

import { IndexedDbDisk } from "./diskIndexedDb";
import { SyncedProfile, type ProfileOptions } from "./synced";

export * from "./public";

/** Open the profile in the database of a name, or make it; an IndexedDbProfile's is taken up. */
export async function openProfile(name: string, options: ProfileOptions = {}): Promise<SyncedProfile> {
  return new SyncedProfile(await IndexedDbDisk.open(name, (options.clockMs ?? Date.now)()), options);
}
