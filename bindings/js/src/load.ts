/** Load a Recommender on a host: what differs between the browser, Node and mini-programs comes in as a few functions. */

import { checkTrust, openBundle, type TrustOptions } from "./bundle";
import type { Crypto } from "./crypto";
import { MAX_EVENTS, MemoryProfile, type ProfileStore } from "./profile";
import { Recommender } from "./recommender";
import { Runtime, type CreateSession } from "./runtime";
import type { Source } from "./source";

/** What the app decides when it loads a bundle. */
export interface LoadOptions extends TrustOptions {
  /** Where the user's events are kept: a ProfileStore, or a name that the host understands; in memory if left out. */
  readonly profile?: ProfileStore | string;
  /** How many events a profile that is opened here keeps. */
  readonly maxEvents?: number;
  /** Threads of onnxruntime; 1 where it is left out, 0 for all cores. */
  readonly threads?: number;
  /** Gives the time in UTC milliseconds. */
  readonly clockMs?: () => number;
}

/** What a platform brings: `B` is what stands for a bundle there. */
export interface Host<B> {
  readonly crypto: Crypto;
  readonly createSession: CreateSession;
  openSource(bundle: B): Promise<Source>;
  openProfile(name: string, maxEvents: number): Promise<ProfileStore>;
}

/** Open the bundle, checked, and the profile, and return the Recommender. */
export async function load<B>(host: Host<B>, bundle: B, options: LoadOptions): Promise<Recommender> {
  checkTrust(options);
  const { maxEvents = MAX_EVENTS, threads = 1, clockMs = Date.now } = options;
  const opened = await openBundle(await host.openSource(bundle), options, host.crypto);
  const runtime = await Runtime.load(opened, host.createSession, threads);
  try {
    const { profile = new MemoryProfile(maxEvents) } = options;
    const store = typeof profile === "string" ? await host.openProfile(profile, maxEvents) : profile;
    return new Recommender(opened, runtime, store, clockMs);
  } catch (cause) {
    await runtime.close();
    throw cause;
  }
}
