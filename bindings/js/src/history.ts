/**
 * Turn a user's events into the arrays that the encoder reads, as xrec_sdk/history.py does.
 *
 * Rules: events are in time order; an event whose item or type the bundle does not know is left out by the caller; the row of
 * a search, where the model reads searches, is below 0 and the same for equal queries; an unknown device is code 0; with `distinctItems` only the last event of each item counts; the gap of an event is the
 * time since the counted event before it, in buckets; the last `maxHistory` of these events count.
 */

import type { Event } from "./profile";

/** What a model knows besides items. Codes are positions plus one; 0 is "unknown" (of gaps: "no event before"). */
export interface Vocabulary {
  readonly events: readonly string[];
  readonly devices: readonly string[];
  readonly gapEdgesMs: readonly number[];
  readonly maxHistory: number;
  readonly distinctItems: boolean;
  /** In how many buckets searches are read (queries.ts); 0 where they are not read. */
  readonly queryBuckets: number;
}

/** An event that the bundle knows, as codes. */
export interface Coded {
  readonly row: number;
  readonly event: number;
  readonly device: number;
  readonly atMs: number;
}

/** An event that counts, with its codes. */
export interface KnownEvent extends Coded {
  readonly source: Event;
}

/**
 * One user's encoded history, oldest first: four int32 arrays of the same length L <= maxHistory. `queries` are the reduced
 * queries of the rows below 0, in their order.
 */
export interface History {
  readonly queries: readonly string[];
  readonly rows: Int32Array;
  readonly events: Int32Array;
  readonly devices: Int32Array;
  readonly gaps: Int32Array;
}

/** How much an item gains for having been bought before: `weight * log1p(decayed count)`, added to its score. */
export interface RepeatRule {
  readonly weight: number;
  readonly halfLifeMs: number;
  readonly events: readonly string[];
}

/** Return the last event of each item, in order. */
export function lastOfEach<T extends { readonly row: number }>(events: readonly T[]): T[] {
  const lastPlace = new Map(events.map((event, place) => [event.row, place]));
  return events.filter((event, place) => lastPlace.get(event.row) === place);
}

/** Encode the known events of one user that count, oldest first, and keep the last `maxHistory`. */
export function encodeHistory(events: readonly KnownEvent[], vocabulary: Vocabulary): History {
  const gaps = events.map((event, place) => gapCode(event.atMs, events[place - 1]?.atMs, vocabulary.gapEdgesMs));
  const kept = events.slice(-vocabulary.maxHistory);
  return {
    rows: Int32Array.from(kept, (event) => event.row),
    events: Int32Array.from(kept, (event) => event.event),
    devices: Int32Array.from(kept, (event) => event.device),
    gaps: Int32Array.from(gaps.slice(-vocabulary.maxHistory)),
    queries: kept.filter(({ row }) => row < 0).map(({ source }) => source.itemId),
  };
}

/** A gap equal to an edge falls in the bucket below it; a negative gap (clock skew) counts as zero. */
function gapCode(atMs: number, beforeMs: number | undefined, edgesMs: readonly number[]): number {
  if (beforeMs === undefined) return 0;
  const gap = Math.max(0, atMs - beforeMs);
  const place = edgesMs.findIndex((edge) => gap <= edge);
  return 1 + (place < 0 ? edgesMs.length : place);
}

/** Return what each row gains for having been bought at these times; events in the future count as now. */
export function repeatGains(
  bought: readonly { readonly row: number; readonly atMs: number }[],
  nowMs: number,
  rule: RepeatRule,
): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { row, atMs } of bought) {
    const age = Math.max(nowMs - atMs, 0) / rule.halfLifeMs;
    counts.set(row, (counts.get(row) ?? 0) + 2 ** -age);
  }
  return new Map(Array.from(counts, ([row, count]) => [row, Math.fround(rule.weight * Math.log1p(count))]));
}
