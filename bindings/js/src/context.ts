/** Say when and where a recommendation is asked for, as the ranker reads it; xrec_sdk/context.py does the same. */

import { UsageError } from "./errors";
import type { Coded, Vocabulary } from "./history";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** What the ranker reads of the moment where the app knows better: the device in hand, else the last event's, and the hour. */
export interface Context {
  readonly device?: string;
  /** From 0 up to 24, in UTC; the clock's where it is left out. */
  readonly hour?: number;
}

/** The names of the context vector (docs/bundle-format.md). */
export const CONTEXT = ["device", "hour", "history_events", "days_since_last_event", "days_since_first_event"];

/** Return the context vector (5,) of a call; `history` holds the encoded events, oldest first, one at least. */
export function contextVector(given: Context, history: readonly Coded[], { devices }: Vocabulary, nowMs: number): Float32Array {
  const last = history[history.length - 1];
  const device = given.device === undefined ? last.device : devices.indexOf(given.device) + 1;
  const hour = given.hour ?? (nowMs % DAY_MS) / HOUR_MS;
  // An event of the future, from a clock that ran ahead, counts as now.
  const [sinceLast, sinceFirst] = [last, history[0]].map(({ atMs }) => Math.max(nowMs - atMs, 0) / DAY_MS);
  return Float32Array.of(device, hour, history.length, sinceLast, sinceFirst);
}

/** Throw UsageError unless a context is one. */
export function checkContext(given: Context): void {
  const isObject = typeof given === "object" && given !== null;
  const { device = "", hour = 0, ...rest } = isObject ? given : { rest: given };
  const isRight = typeof device === "string" && typeof hour === "number" && hour >= 0 && hour < 24;
  if (!isRight || Object.keys(rest).length) {
    throw new UsageError("usage.context", `context is ${JSON.stringify(given)}; expected {device: name, hour: 0 up to 24}`);
  }
}
