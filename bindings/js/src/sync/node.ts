/** `@xrec/sdk/sync` in Node: a profile in a file that a user's devices share. */

import { FileDisk } from "./diskFile";
import { SyncedProfile, type ProfileOptions } from "./synced";

export * from "./public";

/** Open the profile in the file at a path, or make it; a FileProfile's is taken up. */
export async function openProfile(path: string, options: ProfileOptions = {}): Promise<SyncedProfile> {
  return new SyncedProfile(await FileDisk.open(path, (options.clockMs ?? Date.now)()), options);
}
