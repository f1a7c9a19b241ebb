/** What a profile means to a bundle: the known events as codes, the seen items, what buying again adds. */

import type { Bundle } from "./bundle";
import { crc32OfText } from "./crc32";
import { encodeHistory, lastOfEach, repeatGains, type Coded, type History, type KnownEvent } from "./history";
import type { Event } from "./profile";
import type * as Queries from "./queries";

/** What is added to the score of a row; -Infinity forbids it. */
export type Bias = ReadonlyMap<number, number>;

/**
 * What a bundle knows of the user. `events` are the last known ones that count, oldest first, one more than the history
 * holds.
 */
export interface Taste {
  readonly events: readonly KnownEvent[];
  readonly seen: Bias;
  readonly bought: readonly Coded[];
}

/**
 * Return what these events, oldest first, mean; those of unknown items or types are left out of the history. `queries` is there
 * where the bundle reads searches.
 */
export function tasteOf(
  events: readonly Event[],
  bundle: Bundle,
  rowOf: (itemId: string) => number,
  queries: typeof Queries | null,
): Taste {
  const { vocabulary, seenEvents, repeat } = bundle.manifest;
  const all = events.flatMap((source) => {
    const own = rowOf(source.itemId);
    const row = own < 0 ? queries?.queryRow(source.itemId, crc32OfText) : own;
    if (row == null) return [];
    const event = vocabulary.events.indexOf(source.event) + 1;
    return { source, row, event, device: vocabulary.devices.indexOf(source.device) + 1, atMs: source.atMs };
  });
  const onItems = all.filter(({ row }) => row >= 0);
  const known = all.filter(({ event }) => event > 0);
  const counted = vocabulary.distinctItems ? lastOfEach(known) : known;
  const seen = onItems.filter(({ source }) => seenEvents.includes(source.event));
  return {
    events: counted.slice(-vocabulary.maxHistory - 1),
    seen: new Map(seen.map(({ row }) => [row, -Infinity])),
    bought: repeat ? onItems.filter(({ source }) => repeat.events.includes(source.event)) : [],
  };
}

/** Return the encoded history, the last `maxHistory` known events. */
export function historyOf(taste: Taste, bundle: Bundle): History {
  return encodeHistory(taste.events, bundle.manifest.vocabulary);
}

/** Return what items gain for having been bought before; nothing where the bundle has no such rule. */
export function againBias(taste: Taste, bundle: Bundle, nowMs: number): Bias {
  const { repeat } = bundle.manifest;
  return repeat ? repeatGains(taste.bought, nowMs, repeat) : new Map();
}
