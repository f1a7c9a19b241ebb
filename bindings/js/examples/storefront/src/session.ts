/** One device's session: the bundle, the shared profile, and what the user does on this device. */

import { Recommender, type Recommendation, type RecommendOptions } from "@xrec/sdk/core";
import { IndexedDbProfile } from "@xrec/sdk/indexeddb";

import { Catalogue, isSold } from "./catalogue";
import { AskedProfile, Store } from "./store";

const MOST_EVENTS = 2000;
const BUNDLE = "/shop.xrec/";
/** The release keys that this build of the shop trusts; the build puts them in. */
declare const TRUSTED_KEYS: readonly string[];

/** A list, and how long it took. */
export interface Listed {
  readonly items: readonly Recommendation[];
  readonly tookMs: number;
}

/** Everything that the pages of one device stand on. */
export class Session {
  private constructor(
    readonly device: string,
    readonly store: Store,
    readonly profile: AskedProfile,
    readonly recommender: Recommender,
    readonly catalogue: Catalogue,
    readonly loadMs: number,
  ) {}

  /** Open the bundle, checked, and the profile. */
  static async open(device: string): Promise<Session> {
    const start = performance.now();
    const store = await Store.open();
    const profile = new AskedProfile(await IndexedDbProfile.open("corner-shop-profile", MOST_EVENTS), store);
    const { release: minimumRelease } = await store.read();
    const recommender = await Recommender.load(BUNDLE, { trustedKeys: TRUSTED_KEYS, minimumRelease, profile });
    const { release } = recommender.bundle.manifest;
    if (release > minimumRelease) await store.change((shared) => ({ release: Math.max(release, shared.release) }));
    const catalogue = new Catalogue(recommender.bundle);
    return new Session(device, store, profile, recommender, catalogue, performance.now() - start);
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

  /** Keep that something was done with an item on this device, as far as the user has agreed to it. */
  async act(event: "view" | "cart" | "purchase", itemId: string): Promise<void> {
    await this.recommender.record(event, itemId, { device: this.device });
    this.store.say({ kind: "changed" });
  }

  /** Buy what lies in the basket. */
  async order(): Promise<void> {
    const { basket } = await this.store.read();
    for (const itemId of Object.keys(basket)) await this.recommender.record("purchase", itemId, { device: this.device });
    await this.store.change(() => ({ basket: {} }));
  }

  /** Put more or less of an item into the basket. */
  async put(itemId: string, more: number): Promise<void> {
    await this.store.change(({ basket }) => {
      const { [itemId]: had = 0, ...rest } = basket;
      return { basket: had + more > 0 ? { ...rest, [itemId]: had + more } : rest };
    });
    if (more > 0) await this.recommender.record("cart", itemId, { device: this.device });
  }

  /** Erase all that is kept of the user. */
  async forget(): Promise<void> {
    await this.recommender.forget();
    await this.store.forget();
  }

  /** Return the ids that were bought, each once, the last first. */
  async bought(): Promise<string[]> {
    const events = await this.profile.events();
    const ids = events.filter(({ event }) => event === "purchase").map(({ itemId }) => itemId);
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
