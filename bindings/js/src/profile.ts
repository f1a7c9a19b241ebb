/** What is kept of the user on the device: a bounded set of events and consents behind a small interface, here in memory. */

import { checkText, checkWhole } from "./arguments";
import { ProfileError, UsageError } from "./errors";

/** How many events a profile keeps, where the app says nothing else. */
export const MAX_EVENTS = 5000;
const MAX_AT_MS = 2 ** 53 - 1;
// Shed this many events at once, so that a full profile does not delete at every write.
const SHED = 64;

/** What a user can consent to; docs/privacy.md says what each is. */
export const PURPOSES = ["personalise", "sync", "train", "analytics"] as const;
export type Purpose = (typeof PURPOSES)[number];

/** What the user said to a purpose; `policy` names the text that they saw. */
export interface Consent {
  readonly purpose: Purpose;
  readonly granted: boolean;
  readonly policy: string;
}

/** One thing that the user did. */
export interface Event {
  readonly id: string;
  readonly atMs: number;
  readonly event: string;
  readonly itemId: string;
  readonly device: string;
  readonly value: number | null;
  readonly recommendationId: string | null;
  /** The time that the app claimed, where `atMs`, the one for ranking, is another. */
  readonly claimedMs?: number;
}

/** An event as JSON, the same in every language. */
export interface EventRecord {
  readonly id: string;
  readonly at_ms: number;
  readonly event: string;
  readonly item_id: string;
  readonly device: string;
  readonly value: number | null;
  readonly recommendation_id: string | null;
}

/** All that is kept of a user. */
export interface Kept {
  /** By time and then by id, oldest first. */
  readonly events: readonly Event[];
  /** The last one of each purpose of which something was said. */
  readonly consents: readonly Consent[];
}

/** Where what is kept of one user is; an app may bring its own. Failures are ProfileErrors. */
export interface ProfileStore {
  /**
   * Keep an event; it is durable, as far as the store can, once this resolves. Throws ProfileError `profile.no_consent`,
   * and keeps nothing, unless the consent to `personalise` stands.
   */
  add(event: Event): Promise<void>;
  /** Keep what was said to a purpose in the place of what was said before; durable as an event is. */
  setConsent(consent: Consent): Promise<void>;
  /** Return what is kept, whatever was consented to: the same object as long as nothing has changed. */
  read(): Promise<Kept>;
  /** Erase every event and return how many there were; the consents stay. */
  forget(): Promise<number>;
  /** Let go of the store; later calls throw ProfileError `profile.closed`. */
  close(): Promise<void>;
}

/** A profile that ends with the program. */
export class MemoryProfile implements ProfileStore {
  private kept: Kept | null = { events: [], consents: [] };

  constructor(private readonly maxEvents: number = MAX_EVENTS) {
    checkWhole("max_events", maxEvents, 1);
  }

  async add(event: Event): Promise<void> {
    this.kept = withEvent(this.open(), event, this.maxEvents);
  }

  async setConsent(consent: Consent): Promise<void> {
    this.kept = withConsent(this.open(), consent);
  }

  async read(): Promise<Kept> {
    return this.open();
  }

  async forget(): Promise<number> {
    const { events, consents } = this.open();
    this.kept = { events: [], consents };
    return events.length;
  }

  async close(): Promise<void> {
    this.kept = null;
  }

  private open(): Kept {
    if (!this.kept) throw closedError();
    return this.kept;
  }
}

/** Return the error of a call after close(). */
export function closedError(): ProfileError {
  return new ProfileError("profile.closed", "the profile is closed; open it again");
}

/** Return what is kept with one more event in its place; throw ProfileError `profile.no_consent` as a store does. */
export function withEvent({ events, consents }: Kept, event: Event, maxEvents: number): Kept {
  checkConsented(consents);
  return { events: shed([...events, event].sort(inTime), maxEvents), consents };
}

/** Return what is kept with the consent in the place of the one before. */
export function withConsent({ events, consents }: Kept, consent: Consent): Kept {
  return { events, consents: [...consents.filter(({ purpose }) => purpose !== consent.purpose), consent] };
}

/** Throw ProfileError `profile.no_consent` unless the consent to `personalise` stands. */
export function checkConsented(consents: readonly Consent[]): void {
  if (isGranted(consents, "personalise")) return;
  const message = 'nothing was recorded: ask, then setConsent("personalise", true)';
  throw new ProfileError("profile.no_consent", message);
}

/** Return whether the consent to a purpose stands; not so before anything was said. */
export function isGranted(consents: readonly Consent[], purpose: Purpose): boolean {
  return consents.some((consent) => consent.purpose === purpose && consent.granted);
}

/** Return the newest events, where there are more than `maxEvents` somewhat fewer than that. */
export function shed(events: readonly Event[], maxEvents: number): readonly Event[] {
  const spare = events.length - maxEvents;
  return spare <= 0 ? events : events.slice(spare + Math.min(SHED, Math.floor(maxEvents / 10)));
}

/** Order events by time, then by id. */
export function inTime(left: Event, right: Event): number {
  return left.atMs - right.atMs || (left.id < right.id ? -1 : 1);
}

/** Return an event as JSON. */
export function toRecord(event: Event): EventRecord {
  const { id, atMs, claimedMs = atMs, event: name, itemId, device, value, recommendationId } = event;
  return { id, at_ms: claimedMs, event: name, item_id: itemId, device, value, recommendation_id: recommendationId };
}

/** Return the event of its JSON; throw UsageError where a value can't be. */
export function fromRecord(record: EventRecord): Event {
  return checkedEvent({
    id: record.id,
    atMs: record.at_ms,
    event: record.event,
    itemId: record.item_id,
    device: record.device,
    value: record.value,
    recommendationId: record.recommendation_id,
  });
}

/** Return the event; throw UsageError where a value can't be. */
export function checkedEvent(event: Event): Event {
  checkText("event", event.event);
  checkText("item_id", event.itemId);
  checkText("device", event.device);
  if (event.recommendationId !== null) checkText("recommendation_id", event.recommendationId);
  checkWhole("at_ms", event.atMs, 0, MAX_AT_MS);
  const { value } = event;
  if (value !== null && !Number.isFinite(value)) {
    throw new UsageError("usage.value", `value is ${String(value)}; expected a finite number or null`);
  }
  return event;
}

/** Return the consent; throw UsageError where a value can't be. */
export function checkedConsent(consent: Consent): Consent {
  const { purpose, granted, policy } = consent;
  if (!PURPOSES.includes(purpose)) {
    throw new UsageError("usage.purpose", `purpose is ${JSON.stringify(purpose)}; expected one of ${PURPOSES.join(", ")}`);
  }
  if (typeof granted !== "boolean") {
    throw new UsageError("usage.granted", `granted is ${JSON.stringify(granted)}; expected true or false`);
  }
  if (policy !== "") checkText("policy", policy);
  return consent;
}
