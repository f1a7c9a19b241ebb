/**
 * Sync a profile in the background: one loop asks for changes and waits for news, one says what is queued.
 *
 * Nothing here is on the way of `record()` or `recommend()`: they touch the disk alone, and the loops look at the disk. One
 * tab at a time syncs a profile, under a Web Lock; the others wait for their turn.
 */

import { ProfileError, XrecError } from "../errors";
import { applyPage, leaseEnded, nextPush, opened, pushed, refused, registered } from "./device";
import { AskError, checkUrl, Line, UNAUTHORISED, UNREACHABLE, type TokenProvider } from "./line";
import { readPage, readPushAnswer, readRegistered, write, writeQuery } from "./messages";
import type { SyncedProfile } from "./synced";
import { LIMITS, NOP, PROTOCOL, type Changes, type Push, type Replica, type Standing } from "./values";

const PATH = "/v1/profile";

/** How long the client waits for what, in milliseconds. */
export interface Timing {
  /** The long poll. */
  readonly waitMs: number;
  /** How long words are gathered before a push. */
  readonly gatherMs: number;
  /** How often it looks for what others recorded. */
  readonly lookEveryMs: number;
  /** What follows a failure, doubled each time up to the longest, of which a random half is waited at least. */
  readonly firstDelayMs: number;
  readonly longestDelayMs: number;
}

const TIMING: Timing = { waitMs: 25_000, gatherMs: 300, lookEveryMs: 5_000, firstDelayMs: 1_000, longestDelayMs: 300_000 };

/** `no_consent`: nothing was ever sent; `elsewhere`: another tab syncs this profile. */
export type SyncState = "off" | "no_consent" | "elsewhere" | "catching_up" | "up_to_date" | "retrying" | "unauthorised";

/** How the sync of a profile stands. */
export interface SyncStatus {
  readonly state: SyncState;
  /** The server's time when it was last heard, 0 for never. */
  readonly lastContactMs: number;
  /** Operations that are to be sent. */
  readonly queued: number;
  /** Operations that were given up. */
  readonly dead: number;
  /** The code of the last failure, null once a request has succeeded. */
  readonly lastError: string | null;
}

/** What an app may say about its sync. */
export interface SyncOptions {
  /** Tells this installation from a copy of its files, kept where neither backups nor clones take it. */
  readonly installation?: string;
  readonly timing?: Partial<Timing>;
}

/** Keep a profile in step with the server at `url` until {@link close}. */
export class SyncClient {
  private state: SyncState = "catching_up";
  private lastError: string | null = null;
  private isCut = false;
  private isOpened = false;
  private readonly closing = new AbortController();
  private readonly news = new Bell();
  private readonly words = new Bell();
  private readonly asking: Line;
  private readonly telling: Line;
  private readonly timing: Timing;
  private readonly running: Promise<void>;

  constructor(
    private readonly profile: SyncedProfile,
    url: string,
    tokenProvider: TokenProvider,
    private readonly installation: string | undefined,
    timing: Partial<Timing>,
  ) {
    this.timing = { ...TIMING, ...timing };
    const address = checkUrl(url);
    [this.asking, this.telling] = [new Line(address, tokenProvider), new Line(address, tokenProvider)];
    this.running = this.run();
  }

  async status(): Promise<SyncStatus> {
    return { ...(await statusOf(this.profile)), state: this.state, lastError: this.lastError };
  }

  /** Something was recorded or said, here or in another tab. */
  wake(): void {
    this.news.ring();
    this.words.ring();
  }

  /** End the loops; what is queued goes out the next time. */
  async close(): Promise<void> {
    this.closing.abort();
    this.wake();
    this.asking.cut();
    this.telling.cut();
    await this.running;
    this.state = "off";
  }

  /** Wait for this profile's turn among the tabs, then sync until the end. */
  private async run(): Promise<void> {
    const locks = (globalThis.navigator as Navigator | undefined)?.locks;
    const { name } = this.profile;
    if (!locks || name === null) return this.sync();
    this.state = "elsewhere";
    try {
      await locks.request(`xrec-sync:${name}`, { signal: this.closing.signal }, () => this.sync());
    } catch (failure) {
      if (!this.closing.signal.aborted) throw failure;
    }
  }

  private async sync(): Promise<void> {
    this.state = "catching_up";
    await Promise.all([this.keep(() => this.ask()), this.keep(() => this.tell())]);
  }

  /** Repeat a step until the end, each failure followed by a longer rest. */
  private async keep(step: () => Promise<void>): Promise<void> {
    for (let failures = 0; !this.closing.signal.aborted; ) {
      try {
        await step();
        failures = 0;
      } catch (failure) {
        if (failure instanceof ProfileError && failure.code === "profile.closed") return;
        if (failure instanceof AskError && failure.code === UNREACHABLE && this.isCut) this.isCut = false;
        else await this.rest(failures++, failure);
      }
    }
  }

  private async rest(failures: number, failure: unknown): Promise<void> {
    if (this.closing.signal.aborted) return;
    // A server that makes the client stumble must not end its sync; the status says what it was.
    this.lastError = failure instanceof XrecError ? failure.code : `sync.failed: ${(failure as Error)?.name}`;
    this.state = this.lastError === UNAUTHORISED ? "unauthorised" : "retrying";
    const longestMs = Math.min(this.timing.longestDelayMs, this.timing.firstDelayMs * 2 ** Math.min(failures, 20));
    const retryAfterMs = failure instanceof AskError ? failure.retryAfterMs : 0;
    await this.sleep(Math.max(retryAfterMs, longestMs * (0.5 + Math.random() / 2)));
  }

  /** Sleep, but not beyond the end, nor beyond the moment when the network comes back. */
  private sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.closing.signal.removeEventListener("abort", end);
        globalThis.removeEventListener?.("online", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.closing.signal.addEventListener("abort", end);
      globalThis.addEventListener?.("online", end);
    });
  }

  // Ask for changes.

  private async ask(): Promise<void> {
    if (!this.isOpened) {
      const own = this.installation ?? this.profile.installation;
      await this.profile.commit((replica) => opened(replica, own ?? (replica.standing.instance || randomId())));
      this.isOpened = true;
    }
    let standing = (await this.profile.state()).standing;
    if (!standing.device && !(await this.profile.isConsented("sync"))) {
      this.state = "no_consent";
      return this.news.wait(this.timing.lookEveryMs);
    }
    const nowMs = this.profile.clockMs();
    if (standing.device && nowMs - standing.contact_local_ms > LIMITS.lease_ms) {
      await this.profile.commit((replica) => leaseEnded(replica, nowMs));
      standing = (await this.profile.state()).standing;
    }
    if (standing.must_register || !standing.device) return this.register(standing);
    const { device, generation, cursor } = standing;
    const waitMs = this.state === "up_to_date" && standing.is_rebuilt ? this.timing.waitMs : 0;
    const query = writeQuery({ device, generation, after: cursor, wait: Math.round(waitMs / 1000) });
    const page = readPage(await this.asking.ask("GET", `${PATH}/changes?${query}`, null, waitMs));
    const now = await this.apply(standing, (replica) => applyPage(replica, page, this.profile.clockMs()));
    const isDone = page.code === null && !page.more && now.is_rebuilt && !now.must_register;
    this.heard(isDone ? "up_to_date" : "catching_up", now.is_diverged ? "sync.diverged" : null);
    if (isDone && !waitMs) this.words.ring(); // the other loop may push now
  }

  private async register({ device, checked, generation, floor }: Standing): Promise<void> {
    const asked = write({ v: PROTOCOL, device, checked, generation, floor });
    const answer = readRegistered(await this.asking.ask("POST", `${PATH}/register`, asked));
    await this.profile.commit((replica) =>
      replica.standing.device === device ? registered(replica, answer, this.profile.clockMs()) : null,
    );
    this.heard("catching_up", null);
  }

  // Tell what is queued.

  private async tell(): Promise<void> {
    const { standing } = await this.profile.state();
    if (!this.isOpened || (standing.last_dseq === standing.acked && !standing.must_probe)) return this.pause();
    const push = await this.nextPush();
    if (!push) return this.pause();
    let answer: Uint8Array;
    try {
      answer = await this.telling.ask("POST", `${PATH}/push`, write(push));
    } catch (failure) {
      // A bare status may be a proxy's. Its bound on bytes is met by less; nothing is given up on its word.
      const isOurs = failure instanceof AskError && ["sync.too_large", "sync.malformed"].includes(failure.code);
      if (isOurs || (failure instanceof AskError && failure.status === 413 && push.ops.length > 1)) {
        await this.apply(standing, (replica) => refused(replica, push));
      }
      throw failure;
    }
    const said = readPushAnswer(answer);
    const now = await this.apply(standing, (replica) => pushed(replica, push, said, this.profile.clockMs()));
    this.heard(this.state, null);
    if (!now.must_register && now.is_rebuilt) return;
    // Only the other loop can help: it must not wait for news.
    [this.state, this.isCut] = ["catching_up", true];
    this.asking.cut();
    await this.pause();
  }

  private async nextPush(): Promise<Push | null> {
    let push: Push | null = null;
    await this.profile.commit((replica) => {
      // Whichever loop comes first after a long silence: what the lease ended must not be sent.
      const ended = leaseEnded(replica, this.profile.clockMs());
      if (ended) return ended;
      const next = nextPush(replica);
      push = next && next[0];
      return next && next[1];
    });
    return push;
  }

  /** Wait until something was recorded here, or perhaps elsewhere. */
  private async pause(): Promise<void> {
    await this.words.wait(this.timing.lookEveryMs);
    if (!this.closing.signal.aborted) await this.sleep(this.timing.gatherMs);
  }

  /** Commit what an answer asks for, unless the device has got another name since it asked; return where it now stands. */
  private async apply(askedAs: Standing, rule: (replica: Replica) => Changes): Promise<Standing> {
    await this.profile.commit((replica) => (replica.standing.device === askedAs.device ? rule(replica) : null));
    return (await this.profile.state()).standing;
  }

  private heard(state: SyncState, error: string | null): void {
    [this.state, this.lastError] = [state, error];
  }
}

/** Return how the sync of a profile stands that no client is at work on. */
export async function statusOf(profile: SyncedProfile): Promise<SyncStatus> {
  const { standing, queue, dead } = await profile.state();
  const queued = queue.filter(({ op, seq }) => seq === null && op.kind !== NOP).length;
  return { state: "off", lastContactMs: standing.contact_ms, queued, dead: dead.length, lastError: null };
}

/** Who waits is woken; a ring that nobody heard is heard by the next who waits. */
class Bell {
  private isRung = false;
  private hear: (() => void) | null = null;

  ring(): void {
    this.isRung = true;
    this.hear?.();
  }

  async wait(ms: number): Promise<void> {
    if (!this.isRung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.hear = () => (clearTimeout(timer), resolve());
      });
      this.hear = null;
    }
    this.isRung = false;
  }
}

function randomId(): string {
  return Array.from({ length: 4 }, () => Math.floor(Math.random() * 2 ** 16).toString(16).padStart(4, "0")).join("");
}
