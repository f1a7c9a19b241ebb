/** The profile of a device: its own, in step with the others' through the server, or one for all where no server is. */

import { openProfile, type SyncedProfile } from "@xrec/sdk/sync";

import type { Store } from "./store";

const MOST_EVENTS = 2000;

/** Return the token of the development server; null where the shop is served without one. */
async function tokenOf(): Promise<string | null> {
  return ((await (await fetch("/session.json", { cache: "no-store" })).json()) as { token: string | null }).token;
}

/** Open the profile of a device, and sync it where there is a server; offline as it was when the shop was last reached. */
export async function openDeviceProfile(device: string, store: Store): Promise<SyncedProfile> {
  const { isServed: wasServed } = await store.read();
  const isServed = await tokenOf().then((token) => token !== null, () => wasServed);
  if (isServed !== wasServed) await store.change(() => ({ isServed }));
  const profile = await openProfile(isServed ? `corner-shop-${device}` : "corner-shop-profile", { maxEvents: MOST_EVENTS });
  if (isServed) await reconnect(profile);
  return profile;
}

/** Sync, from now on over a fresh line. */
export function reconnect(profile: SyncedProfile): Promise<void> {
  return profile.startSync(location.origin, async () => (await tokenOf()) ?? "");
}
