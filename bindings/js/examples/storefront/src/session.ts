/** One device's session: the bundle, its profile, and what the user does on this device. */

import { ProfileError, Recommender, type Recommendation, type RecommendOptions } from "@xrec/sdk/core";
import type { SyncedProfile } from "@xrec/sdk/sync";

import { Catalogue, isSold } from "./catalogue";
import { openDeviceProfile, reconnect } from "./device";
import { Store, type Standing } from "./store";

const BUNDLE = "/shop.xrec/";
/** The text that the user agrees to (texts.ts). */
const POLICY = "2026-11";
/** The release keys that this build of the shop trusts; the build puts them in. */
declare const TRUSTED_KEYS: readonly string[];

type Deed = "view" | "cart" | "purchase" | "search";
/** What the user is asked: for the first time, or whether their yes is to hold against a refusal that it did not know of. */
export type Question = "first" | "again";

/** A list, and how long it took. */
export interface Listed {
  readonly items: readonly Recommendation[];
  readonly tookMs: number;
}

/** Everything that the pages of one device stand on. */
export class Session {
  #following: Promise<void> = Promise.resolve();

  private constructor(
    readonly device: string,
    readonly store: Store,
    readonly profile: SyncedProfile,
    readonly recommender: Recommender,
    readonly catalogue: Catalogue,
    readonly loadMs: number,
  ) {}

  /** Open the bundle, checked, and the profile. */
  static async open(device: string): Promise<Session> {
    const start = performance.now();
    const store = await Store.open();
    const profile = await openDeviceProfile(device, store);
    const { release: minimumRelease } = await store.read();
    const recommender = await Recommender.load(BUNDLE, { trustedKeys: TRUSTED_KEYS, minimumRelease, profile });
    const { release } = recommender.bundle.manifest;
    if (release > minimumRelease) await store.change((shared) => ({ release: Math.max(release, shared.release) }));
    const catalogue = new Catalogue(recommender.bundle);
    const session = new Session(device, store, profile, recommender, catalogue, performance.now() - start);
    await session.follow();
    return session;
  }

  /** Recommend among the items that the shop can show, and tell who watches how long it took. */
  async list(options: RecommendOptions): Promise<Listed> {
    const start = performance.now();
    const where = options.candidates ? null : isSold;
    const items = await this.recommender.recommend({ where, context: { device: this.device }, ...options });
    const tookMs = performance.now() - start;
    this.#report(tookMs);
    return { items, tookMs };
  }

  /** Say whether the shop may remember what the user does, on all their devices, and choose by it. */
  async consent(granted: boolean): Promise<void> {
    await this.store.change(({ answers }) => ({ agreed: granted, answers: answers + 1 }));
    await this.follow();
  }

  /**
   * Say to this device's profile what was last answered, once: what comes from other devices later stands over it. One turn
   * waits for the other, since an answer said by two at once may stand over what came in between.
   */
  follow(): Promise<void> {
    return (this.#following = this.#following.catch(() => undefined).then(() => this.#sayAnswer()));
  }

  async #sayAnswer(): Promise<void> {
    const { agreed, answers, said } = await this.store.read();
    if (answers === (said[this.device] ?? 0)) return;
    for (const purpose of ["personalise", "sync"] as const) {
      await this.recommender.setConsent(purpose, agreed === true, { policy: POLICY });
    }
    await this.store.change(({ said }) => ({ said: { ...said, [this.device]: answers } }));
  }

  /**
   * Return what is to be asked. A yes that was said before this device heard of the user's others gives way to a refusal on
   * one of them; said again, it covers what is known by now.
   */
  async question(): Promise<Question | null> {
    const [{ agreed, answers, said }, { personalise }] = [await this.store.read(), await this.recommender.consent()];
    if (personalise || agreed === false || answers !== (said[this.device] ?? 0)) return null;
    return agreed ? "again" : "first";
  }

  /** Keep that something was done with an item on this device, or searched; return false, and keep nothing, without consent. */
  async act(event: Deed, item: string | { readonly query: string }): Promise<boolean> {
    try {
      await this.recommender.record(event, item, { device: this.device });
      return true;
    } catch (error) {
      if (error instanceof ProfileError && error.code === "profile.no_consent") return false;
      throw error;
    }
  }

  /** Buy what lies in the basket; return whether it was kept. */
  async order(): Promise<boolean> {
    const { basket } = await this.store.read();
    let isKept = false;
    for (const itemId of Object.keys(basket)) isKept = await this.act("purchase", itemId);
    await this.store.change(() => ({ basket: {} }));
    return isKept;
  }

  /** Put more or less of an item into the basket. */
  async put(itemId: string, more: number): Promise<void> {
    await this.store.change(({ basket }) => {
      const { [itemId]: had = 0, ...rest } = basket;
      return { basket: had + more > 0 ? { ...rest, [itemId]: had + more } : rest };
    });
    if (more > 0) await this.act("cart", itemId);
  }

  /** Erase all that is kept of the user, on every device, what they agreed to as well. */
  async forget(): Promise<void> {
    await this.recommender.forget();
    await this.store.forget();
    await this.follow();
  }

  /** The network is back: ask again at once. */
  async reconnect(): Promise<void> {
    if ((await this.store.read()).isServed) await reconnect(this.profile);
  }

  /** Return how this device stands. */
  async standing(): Promise<Standing> {
    const [{ events }, { state: sync, queued }] = [await this.profile.read(), await this.profile.syncStatus()];
    const counts: Record<string, number> = {};
    for (const { device } of events) counts[device] = (counts[device] ?? 0) + 1;
    return { device: this.device, events: counts, sync, queued };
  }

  /** Return the ids that were bought, each once, the last first. */
  async bought(): Promise<string[]> {
    const { events, consent } = await this.recommender.exportMyData();
    if (!consent.personalise) return [];
    const ids = events.filter(({ event }) => event === "purchase").map((record) => record.item_id);
    return [...new Set(ids.reverse())];
  }

  #report(listMs: number): void {
    const { manifest, key } = this.recommender.bundle;
    const bytes = [...manifest.files.values()].reduce((sum, file) => sum + file.bytes, 0);
    const { device, loadMs } = this;
    const { itemCount: items, release } = manifest;
    this.store.say({ kind: "measured", measured: { device, listMs, loadMs, items, release, bytes, key: key ?? "" } });
  }
}
