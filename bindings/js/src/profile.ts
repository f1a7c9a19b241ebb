/** What is kept of the user on the device: a bounded set of events behind a small interface, here in memory. */

import { ProfileError, UsageError } from "./errors";
import { hasLoneSurrogate } from "./utf8";

/** How many events a profile keeps, where the app says nothing else. */
export const MAX_EVENTS = 5000;
const MAX_TEXT = 512;
const MAX_AT_MS = 2 ** 53;
// Shed this many events at once, so that a full profile does not delete at every write.
const SHED = 64;

/** One thing that the user did. */
export interface Event {
  readonly id: string;
  readonly atMs: number;
  readonly event: string;
  readonly itemId: string;
  readonly device: string;
  readonly value: number | null;
  readonly recommendationId: string | null;
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

/** Where the events of one user are kept; an app may bring its own. Failures are ProfileErrors. */
export interface ProfileStore {
  /** Keep an event; it is durable, as far as the store can, once this resolves. */
  add(event: Event): Promise<void>;
  /** Return every event by time and then by id, oldest first: the same array as long as nothing has changed. */
  events(): Promise<readonly Event[]>;
  /** Erase every event and return how many there were. */
  forget(): Promise<number>;
  /** Let go of the store; later calls throw ProfileError `profile.closed`. */
  close(): Promise<void>;
}

/** A profile that ends with the program. */
export class MemoryProfile implements ProfileStore {
  private kept: readonly Event[] = [];
  private isClosed = false;

  constructor(private readonly maxEvents: number = MAX_EVENTS) {
    checkMaxEvents(maxEvents);
  }

  async add(event: Event): Promise<void> {
    this.kept = shed(insert(await this.events(), event), this.maxEvents);
  }

  async events(): Promise<readonly Event[]> {
    if (this.isClosed) throw closedError();
    return this.kept;
  }

  async forget(): Promise<number> {
    const count = (await this.events()).length;
    this.kept = [];
    return count;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.kept = [];
  }
}

/** Return the error of a call after close(). */
export function closedError(): ProfileError {
  return new ProfileError("profile.closed", "the profile is closed; open it again");
}

/** Return the events, in order, with one more in its place. */
export function insert(events: readonly Event[], event: Event): Event[] {
  let place = events.length;
  while (place > 0 && isBefore(event, events[place - 1])) place--;
  return [...events.slice(0, place), event, ...events.slice(place)];
}

/** Return the newest events, where there are more than `maxEvents` somewhat fewer than that. */
export function shed(events: readonly Event[], maxEvents: number): readonly Event[] {
  const spare = events.length - maxEvents;
  return spare <= 0 ? events : events.slice(spare + Math.min(SHED, Math.floor(maxEvents / 10)));
}

/** Return whether an event comes before another: by time, then by id. */
export function isBefore(left: Event, right: Event): boolean {
  return left.atMs !== right.atMs ? left.atMs < right.atMs : left.id < right.id;
}

/** Return an event as JSON. */
export function toRecord(event: Event): EventRecord {
  const { id, atMs, event: name, itemId, device, value, recommendationId } = event;
  return { id, at_ms: atMs, event: name, item_id: itemId, device, value, recommendation_id: recommendationId };
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
  const { atMs, value } = event;
  if (!Number.isInteger(atMs) || atMs < 0 || atMs > MAX_AT_MS) {
    throw new UsageError("usage.at_ms", `atMs is ${String(atMs)}; expected UTC milliseconds as a whole number`);
  }
  if (value !== null && !Number.isFinite(value)) {
    throw new UsageError("usage.value", `value is ${String(value)}; expected a finite number or null`);
  }
  return event;
}

/** Throw UsageError unless the bound of a profile is a whole number from 1. */
export function checkMaxEvents(maxEvents: number): void {
  if (!Number.isInteger(maxEvents) || maxEvents < 1) {
    throw new UsageError("usage.max_events", `maxEvents is ${String(maxEvents)}; expected a whole number from 1`);
  }
}

function checkText(name: string, text: unknown): void {
  const isRight = typeof text === "string" && text !== "" && [...text].length <= MAX_TEXT;
  if (!isRight || text.includes("\0") || hasLoneSurrogate(text)) {
    const message = `${name} is ${JSON.stringify(text)}; expected a text of 1 to ${MAX_TEXT} characters`;
    throw new UsageError(`usage.${name}`, message);
  }
}
