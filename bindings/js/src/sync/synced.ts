/** A profile that a user's devices share: a ProfileStore whose events and consents are also the sync protocol's. */

import { checkWhole } from "../arguments";
import { newEventId } from "../eventId";
import { checkConsented, checkedConsent, isGranted, MAX_EVENTS, type Consent, type Event, type Kept, type ProfileStore, type Purpose } from "../profile";
import { UsageError } from "../errors";
import { criteriaOf, isNumber, isText, type Criteria } from "./body";
import { SyncClient, statusOf, type SyncOptions, type SyncStatus } from "./client";
import { after, type Disk, type Written } from "./disk";
import type { TokenProvider } from "./line";
import { committed, consented, forgot, freshErasures, keptOf, recorded, type State } from "./state";
import type { Changes, Replica } from "./values";

/** What an app decides when it opens a profile. */
export interface ProfileOptions {
  /** How many events are kept. */
  readonly maxEvents?: number;
  /** Gives the time in UTC milliseconds. */
  readonly clockMs?: () => number;
}

/** Which events to erase: those that meet all that is given, times from inclusive, to exclusive; without any, all. */
export interface Erasure {
  readonly itemId?: string;
  readonly event?: string;
  readonly fromMs?: number;
  readonly toMs?: number;
}

/** The events of one user on this device and, once they have agreed to `sync`, on their others. */
export class SyncedProfile implements ProfileStore {
  readonly clockMs: () => number;
  private readonly maxEvents: number;
  private last: { readonly state: State; readonly kept: Kept } | null = null;
  private client: SyncClient | null = null;
  private readonly hearers = new Set<() => void>();
  private readonly channel: BroadcastChannel | null = null;

  /** Stand on an open disk. */
  constructor(
    private readonly disk: Disk,
    { maxEvents = MAX_EVENTS, clockMs = Date.now }: ProfileOptions = {},
  ) {
    checkWhole("max_events", maxEvents, 1);
    [this.maxEvents, this.clockMs] = [maxEvents, clockMs];
    if (disk.name === null || typeof BroadcastChannel !== "function") return;
    this.channel = new BroadcastChannel(`xrec:${disk.name}`);
    this.channel.onmessage = () => this.tell();
  }

  /** What names the profile among the tabs that share it; null where there are none. */
  get name(): string | null {
    return this.disk.name;
  }

  /** What tells this installation from a copy of its files; null where the disk can't say. */
  get installation(): string | null {
    return this.disk.installation;
  }

  add(event: Event): Promise<void> {
    return this.write((state) => {
      checkConsented(this.keptOf(state).consents);
      return { steps: recorded(state, event, this.clockMs(), this.maxEvents), answer: undefined };
    });
  }

  /** Keep what was said to a purpose. A grant of `sync` sends what this device has recorded until then. */
  async setConsent(consent: Consent): Promise<void> {
    const checked = checkedConsent(consent);
    return this.write((state) => ({ steps: consented(state, checked, this.clockMs()), answer: undefined }));
  }

  async read(): Promise<Kept> {
    return this.keptOf(await this.disk.read());
  }

  /** Erase events, on every device of the user where the profile is synced, and return how many this one showed. */
  async forget(erasure: Erasure = {}): Promise<number> {
    const criteria = checkedErasure(erasure);
    return this.write((state) => {
      const steps = forgot(state, criteria, newEventId(), this.clockMs());
      const left = new Set(keptOf(after(state, steps), this.clockMs(), this.maxEvents).events.map(({ id }) => id));
      const taken = this.keptOf(state).events.filter(({ id }) => !left.has(id));
      return { steps, answer: taken.length, erases: true };
    });
  }

  async close(): Promise<void> {
    await this.stopSync();
    this.channel?.close();
    await this.disk.close();
  }

  /**
   * Keep the profile in step with the server at `url` (https, or http to this machine) until {@link stopSync}; a second call
   * takes over. Before `sync` is granted nothing is sent, not even a token is asked for.
   */
  async startSync(url: string, tokenProvider: TokenProvider, { installation, timing = {} }: SyncOptions = {}): Promise<void> {
    await this.stopSync();
    this.client = new SyncClient(this, url, tokenProvider, installation, timing);
  }

  /** End the sync; what is queued goes out the next time. */
  async stopSync(): Promise<void> {
    const client = this.client;
    this.client = null;
    await client?.close();
  }

  /** Return how the sync stands; asks nobody. */
  syncStatus(): Promise<SyncStatus> {
    return this.client ? this.client.status() : statusOf(this);
  }

  /** Hear whenever the profile has changed, here, in another tab or on another device; returns how to stop hearing. */
  onChange(hear: () => void): () => void {
    this.hearers.add(hear);
    return () => void this.hearers.delete(hear);
  }

  /** Return whether the consent to a purpose stands. */
  async isConsented(purpose: Purpose): Promise<boolean> {
    return isGranted((await this.read()).consents, purpose);
  }

  /** Return all that is kept, as last committed. */
  state(): Promise<State> {
    return this.disk.read();
  }

  /** Commit what a rule of the protocol makes of the replica, if anything; the user hears of it where they see it. */
  async commit(rule: (replica: Replica) => Changes | null): Promise<void> {
    const before = await this.read();
    await this.disk.change((state) => {
      const changes = rule(state);
      if (!changes) return { steps: [], answer: undefined };
      const erases = freshErasures(state, changes).length > 0 || changes.standing.epoch > state.standing.epoch;
      return { steps: committed(state, changes, this.clockMs()), answer: undefined, erases };
    });
    if ((await this.read()) !== before) this.say();
  }

  /** Commit what the user said or did, and let everyone know. */
  private async write<T>(rule: (state: State) => Written<T>): Promise<T> {
    const before = await this.disk.read();
    const answer = await this.disk.change(rule);
    if ((await this.disk.read()) !== before) this.say();
    return answer;
  }

  private say(): void {
    this.tell();
    this.channel?.postMessage(null);
  }

  private tell(): void {
    this.client?.wake();
    for (const hear of this.hearers) hear();
  }

  /** Return what the user sees of a state: the same object where it shows the same. */
  private keptOf(state: State): Kept {
    if (this.last?.state !== state) {
      const { events, consents } = keptOf(state, this.clockMs(), this.maxEvents);
      const was = this.last?.kept;
      this.last = { state, kept: was && isAlike(was, { events, consents }) ? was : { events, consents } };
    }
    return this.last.kept;
  }
}

function checkedErasure({ itemId, event, fromMs, toMs }: Erasure): Criteria {
  const named = { item_id: itemId, event, from_ms: fromMs, to_ms: toMs };
  for (const [name, value] of Object.entries(named)) {
    if (value === undefined) continue;
    const isRight = name.endsWith("_ms") ? isNumber(value) : isText(value) && value !== "";
    if (isRight) continue;
    throw new UsageError(`usage.${name.endsWith("_ms") ? "at_ms" : name}`, `${name} is ${JSON.stringify(value)}; expected text, or UTC milliseconds`);
  }
  return criteriaOf(JSON.stringify(named));
}

/** An event of an id never changes but for its time. */
function isAlike(one: Kept, other: Kept): boolean {
  const isAt = ({ id, atMs }: Event, place: number) => id === other.events[place].id && atMs === other.events[place].atMs;
  const isSaid = JSON.stringify(one.consents) === JSON.stringify(other.consents);
  return isSaid && one.events.length === other.events.length && one.events.every(isAt);
}
