/** Recommend: one bundle, one user's profile, the rules of the app. */

import { checkText, checkWhole } from "./arguments";
import { itemVector, type Bundle } from "./bundle";
import type { Entry } from "./catalog";
import { crc32OfText } from "./crc32";
import { checkContext, contextVector, type Context } from "./context";
import { UsageError } from "./errors";
import { newEventId } from "./eventId";
import { listId, type Arm } from "./experiment";
import {
  checkedConsent,
  checkedEvent,
  isGranted,
  PURPOSES,
  toRecord,
  type Event,
  type EventRecord,
  type Kept,
  type ProfileStore,
  type Purpose,
} from "./profile";
import { titleOf, type Reason, type Recommendation } from "./results";
import { capCategories, dot } from "./rules";
import type { Runtime, Scored } from "./runtime";
import { againBias, historyOf, tasteOf, type Bias, type Taste } from "./taste";

const LEAST_POOL = 64;
const POOL_PER_ANSWER = 4;
const UNKNOWN_DEVICE = "unknown";
const MOST_KEPT_ROWS = 20_000;

/** A rule on what may be recommended: categories by name, or a function of a catalogue entry. */
export type Where = { readonly category: string | Iterable<string> } | ((entry: Entry) => boolean);

/** What the user did; `atMs` is UTC milliseconds, now where it is left out. */
export interface Deed {
  readonly device: string;
  readonly atMs?: number;
  readonly value?: number | null;
}

/** The rules of one call of `recommend`. */
export interface RecommendOptions {
  /** How many items; 10 where it is left out. */
  readonly k?: number;
  /** Restrict the catalogue to these ids; ids that the bundle does not know are ignored. */
  readonly candidates?: Iterable<string> | null;
  /** Take these ids out; ids that the bundle does not know are ignored. */
  readonly exclude?: Iterable<string>;
  readonly where?: Where | null;
  /** Cap each category; items of none are free. */
  readonly maxPerCategory?: number | null;
  /** True leaves out what the user has seen, false adds the bundle's rule for buying again; null: the bundle's default. */
  readonly filterSeen?: boolean | null;
  /** From 0 to 1: trade score for unlikeness. */
  readonly diversity?: number;
  /**
   * False does not read the profile: the popular items, the rules of the call applied; so it is without consent to
   * `personalise`.
   */
  readonly personalised?: boolean;
  /** What the ranker reads of the moment, where the app knows better. */
  readonly context?: Context | null;
  /** Add reasons. */
  readonly explain?: boolean;
  /** What `assign` gave: the list's id says it, so that what comes back is counted for it. */
  readonly arm?: Arm | null;
}

/** All that is kept of a user, the same in every language. */
export interface Exported {
  readonly format: "xrec-profile";
  readonly format_version: 1;
  readonly events: readonly EventRecord[];
  readonly consent: Readonly<Record<Purpose, boolean>>;
}

/** What was last read of the profile, and the user vector (d,) that follows from it. */
interface Known {
  readonly kept: Kept;
  readonly taste: Taste;
  readonly user: Float32Array;
}

/** The rules that act on the scored list. */
interface Choice {
  readonly k: number;
  readonly allows: ((entry: Entry) => boolean) | null;
  readonly cap: number;
  readonly diversity: number;
  readonly withPrior?: boolean;
  readonly context?: Float32Array | null;
}

/** Recommend to one user from one bundle. Made by `Recommender.load`; nothing here waits for a network. */
export class Recommender {
  private last: Known | null = null;
  private readonly rowOfId = new Map<string, number>();

  constructor(
    readonly bundle: Bundle,
    readonly runtime: Runtime,
    readonly profile: ProfileStore,
    private readonly clockMs: () => number,
  ) {}

  /**
   * Keep what the user did and return the event's id. Throws ProfileError `profile.no_consent` before the user has
   * consented to `personalise`: nothing is kept. Items and event types that the bundle does not know are kept too: a later
   * bundle may know them. A `query` stands in the place of an item. Its text is not kept: what is are the buckets of its hashed
   * n-grams (queries.ts), as the event's `itemId`.
   */
  async record(event: string, item: string | { readonly query: string }, deed: Deed): Promise<string> {
    const itemId = typeof item === "object" ? await reduced(item?.query) : item;
    return this.keep({ ...deed, event, itemId, recommendationId: null });
  }

  /**
   * Keep what the user did with a recommended item (or an `impression` of it) and return the event's id. Needs consent as
   * `record` does.
   */
  feedback(recommendationId: string, itemId: string, event: string, deed: Partial<Deed> = {}): Promise<string> {
    return this.keep({ device: UNKNOWN_DEVICE, ...deed, event, itemId, recommendationId });
  }

  /** Return the best `k` items, best first, fewer where the rules allow fewer; ties go to the more popular. */
  async recommend(options: RecommendOptions = {}): Promise<Recommendation[]> {
    const { candidates = null, where = null, personalised = true, explain = false, arm = null } = options;
    const choice = readChoice(options);
    const excluded = this.rows("exclude", options.exclude ?? []);
    const itemBias = this.itemBias(candidates, where);
    if (choice.k === 0) return [];
    const known = personalised ? await this.known() : null;
    const bias = forbid(this.bias(known, options.filterSeen ?? null), excluded);
    const user = known ? known.user : new Float32Array(this.bundle.manifest.width);
    const context = this.context(known, options.context ?? {});
    return this.results(await this.choose(user, itemBias, bias, { ...choice, context }), explain ? known : null, arm);
  }

  /**
   * Return the `k` items that score best for someone whose taste is this item, itself left out. Throws UsageError
   * `usage.item_id` where the bundle does not know the item.
   */
  async similar(itemId: string, k = 10): Promise<Recommendation[]> {
    checkWhole("k", k, 0);
    const row = typeof itemId === "string" ? this.row(itemId) : -1;
    if (row < 0) throw new UsageError("usage.item_id", `the bundle does not know the item ${JSON.stringify(itemId)}`);
    if (k === 0) return [];
    const choice = { k, allows: null, cap: Infinity, diversity: 0, withPrior: false };
    const bias = forbid(new Map(), [row]);
    return this.results(await this.choose(itemVector(this.bundle, row), this.bundle.bias, bias, choice), null);
  }

  /**
   * Return the score of each item as `recommend` with the bundle's default would rank it. Ids that the bundle does not
   * know or does not offer are left out, as no list holds them; seen items have their score too.
   */
  async score(items: Iterable<string>): Promise<Map<string, number>> {
    const ids = new Set(texts("items", items));
    const known = await this.known();
    const gains = this.bias(known, null);
    const scores = new Map<string, number>();
    for (const itemId of ids) {
      const row = this.row(itemId);
      if (row < 0 || this.bundle.bias[row] === -Infinity) continue;
      const product = Math.fround(dot(itemVector(this.bundle, row), known.user));
      const gain = gains.get(row) ?? 0;
      scores.set(itemId, Math.fround(product + this.bundle.prior[row]) + (gain === -Infinity ? 0 : gain));
    }
    return scores;
  }

  /**
   * Keep what the user said to a purpose: `personalise`, `sync`, `train` or `analytics`; `policy` names the text that they
   * saw. It holds at once, offline too. A withdrawal keeps what is on the device, and uses it for nothing, until `forget`.
   */
  async setConsent(purpose: Purpose, granted: boolean, { policy = "" }: { readonly policy?: string } = {}): Promise<void> {
    await this.profile.setConsent(checkedConsent({ purpose, granted, policy }));
  }

  /** Return for each purpose whether the user's consent to it stands; false before anything was said. */
  async consent(): Promise<Record<Purpose, boolean>> {
    return consentOf(await this.profile.read());
  }

  /** Erase the events of the profile and return how many it held; the consents stay. */
  forget(): Promise<number> {
    return this.profile.forget();
  }

  /** Return all that is kept of the user, as JSON values. */
  async exportMyData(): Promise<Exported> {
    const kept = await this.profile.read();
    return { format: "xrec-profile", format_version: 1, events: kept.events.map(toRecord), consent: consentOf(kept) };
  }

  /** Close the profile and let go of the graphs; later calls that need the profile throw `profile.closed`. */
  async close(): Promise<void> {
    await this.profile.close();
    await this.runtime.close();
  }

  private async keep(deed: Pick<Event, "event" | "itemId" | "recommendationId"> & Deed): Promise<string> {
    const { event, itemId, device, recommendationId } = deed;
    const [id, atMs, value] = [newEventId(), deed.atMs ?? this.clockMs(), deed.value ?? null];
    await this.profile.add(checkedEvent({ id, atMs, event, itemId, device, value, recommendationId }));
    return id;
  }

  private async known(): Promise<Known> {
    const kept = await this.profile.read();
    const last = this.last;
    if (last?.kept === kept) return last;
    const events = isGranted(kept.consents, "personalise") ? kept.events : [];
    const taste = tasteOf(events, this.bundle, (itemId) => this.row(itemId), this.runtime.queries);
    const user = await this.runtime.encode(historyOf(taste, this.bundle));
    this.last = { kept, taste, user };
    return this.last;
  }

  private bias(known: Known | null, filterSeen: boolean | null): Bias {
    if (!known) return new Map();
    return (filterSeen ?? this.bundle.manifest.filterSeen)
      ? known.taste.seen
      : againBias(known.taste, this.bundle, this.clockMs());
  }

  /** Return the context of the call; null where there is no ranker, or no history for it to stand on. */
  private context(known: Known | null, given: Context): Float32Array | null {
    checkContext(given);
    const { ranker, vocabulary } = this.bundle.manifest;
    const history = known?.taste.events.slice(-vocabulary.maxHistory) ?? [];
    return ranker && history.length ? contextVector(given, history, vocabulary, this.clockMs()) : null;
  }

  /** Return the item bias (Np,) of the call. */
  private itemBias(candidates: Iterable<string> | null, where: Where | null): Float32Array {
    const { bias, catalog } = this.bundle;
    const codes = where === null || typeof where === "function" ? null : this.categoryCodes(where);
    const rows = candidates === null ? null : new Set(this.rows("candidates", candidates));
    if (!rows && !codes) return bias;
    const isAllowed = (row: number) => (!rows || rows.has(row)) && (!codes || codes.has(catalog.category[row]));
    return bias.map((value, row) => (isAllowed(row) ? value : -Infinity));
  }

  private categoryCodes(where: { readonly category: string | Iterable<string> }): Set<number> {
    if (typeof where !== "object" || Object.keys(where).join() !== "category") {
      throw new UsageError("usage.where", "where must be {category: names} or a function");
    }
    const names = typeof where.category === "string" ? [where.category] : texts("where", where.category);
    const codes = new Set(names.map((name) => this.bundle.catalog.categoryNames.indexOf(name)));
    codes.delete(-1);
    return codes;
  }

  private row(itemId: string): number {
    let row = this.rowOfId.get(itemId);
    if (row === undefined) {
      row = this.bundle.ids.row(itemId);
      if (this.rowOfId.size >= MOST_KEPT_ROWS) this.rowOfId.clear();
      this.rowOfId.set(itemId, row);
    }
    return row;
  }

  private rows(name: string, itemIds: Iterable<string>): number[] {
    return texts(name, itemIds)
      .map((itemId) => this.row(itemId))
      .filter((row) => row >= 0);
  }

  /** Return the chosen rows; the pool grows until the rules are satisfied or the catalogue ends. */
  private async choose(user: Float32Array, itemBias: Float32Array, bias: Bias, choice: Choice): Promise<Scored[]> {
    const { itemCount } = this.bundle.manifest;
    const wanted = Math.min(choice.k, itemCount);
    const isPlain = !choice.allows && choice.cap === Infinity && choice.diversity === 0;
    let depth = isPlain ? wanted : Math.min(itemCount, Math.max(LEAST_POOL, POOL_PER_ANSWER * wanted));
    for (;;) {
      const { withPrior, context } = choice;
      const top = await this.runtime.top({ user, k: depth, itemBias, bias, withPrior, context });
      if (isPlain) return top;
      const { allows } = choice;
      const pool = allows ? top.filter(({ row }) => allows(this.bundle.catalog.entry(row))) : top;
      const chosen = await this.apply(pool, wanted, choice);
      if (top.length < depth || depth === itemCount || chosen.length === wanted) return chosen;
      depth = Math.min(itemCount, POOL_PER_ANSWER * depth);
    }
  }

  private async apply(pool: readonly Scored[], wanted: number, { cap, diversity }: Choice): Promise<Scored[]> {
    const { category } = this.bundle.catalog;
    if (diversity === 0) return capCategories(pool, category, wanted, cap);
    const vectors = pool.map(({ row }) => itemVector(this.bundle, row));
    const { diversify } = await import("./diversity");
    return diversify(pool, vectors, category, wanted, cap, diversity, dot);
  }

  private async results(chosen: readonly Scored[], explained: Known | null, arm: Arm | null = null): Promise<Recommendation[]> {
    const recommendationId = listId(this.bundle.manifest.release, arm);
    const rows = chosen.map(({ row }) => row);
    const reasons = explained ? await this.reasons(rows, explained) : [];
    return chosen.map(({ row, score, probability }, place) => {
      const [itemId, item] = [this.bundle.ids.itemId(row), this.bundle.catalog.entry(row)];
      const scored = { itemId, score, rank: place + 1, recommendationId, probability };
      return { ...scored, reasons: reasons[place] ?? [], item, title: titleOf(item, itemId) };
    });
  }

  /** Reasons are a file of their own, loaded when they are first asked for: not every app does. */
  private async reasons(rows: readonly number[], { user, taste }: Known): Promise<Reason[][]> {
    const { findReasons } = await import("./reasons");
    return findReasons(rows, user, taste, this.bundle, this.runtime);
  }
}

/** Return what is kept of a query; what reduces it is loaded when the first one comes. */
async function reduced(query: unknown): Promise<string> {
  checkText("query", query);
  return (await import("./queries")).reduceQuery(query as string, crc32OfText);
}

function consentOf({ consents }: Kept): Record<Purpose, boolean> {
  const said = PURPOSES.map((purpose) => [purpose, isGranted(consents, purpose)]);
  return Object.fromEntries(said) as Record<Purpose, boolean>;
}

function readChoice({ k = 10, where, maxPerCategory = null, filterSeen = null, diversity = 0 }: RecommendOptions): Choice {
  checkWhole("k", k, 0);
  if (maxPerCategory !== null) checkWhole("max_per_category", maxPerCategory, 0);
  if (typeof diversity !== "number" || !(diversity >= 0 && diversity <= 1)) {
    throw new UsageError("usage.diversity", `diversity is ${String(diversity)}; expected a number from 0 to 1`);
  }
  if (filterSeen !== null && typeof filterSeen !== "boolean") {
    throw new UsageError("usage.filter_seen", `filterSeen is ${String(filterSeen)}; expected true or false or null`);
  }
  return { k, allows: typeof where === "function" ? where : null, cap: maxPerCategory ?? Infinity, diversity };
}

function forbid(bias: Bias, rows: readonly number[]): Bias {
  return rows.length ? new Map([...bias, ...rows.map((row): [number, number] => [row, -Infinity])]) : bias;
}

function texts(name: string, values: Iterable<string>): string[] {
  const isSeveral = typeof values === "object" && values !== null && Symbol.iterator in values;
  const listed = isSeveral ? [...values] : [];
  if (!isSeveral || !listed.every((text) => typeof text === "string")) {
    throw new UsageError(`usage.${name}`, `${name} must be several texts`);
  }
  return listed;
}
