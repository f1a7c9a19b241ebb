/** What a recommendation says. */

import type { Entry } from "./catalog";

/** An event that speaks for an item; `loss` is what the item's score loses when the event is left out. */
export interface Reason {
  readonly itemId: string;
  readonly event: string;
  readonly device: string;
  readonly loss: number;
  readonly text: string;
}

/**
 * One item of a list. `rank` counts from 1. `score` orders one list and means nothing across lists. `probability` is that
 * of the ranker's events within its horizon, null without a ranker or a history. `recommendationId` is the list's, for `feedback`. `item` is the catalogue's
 * entry and `title` its title, or the id where it has none.
 */
export interface Recommendation {
  readonly itemId: string;
  readonly score: number;
  readonly rank: number;
  readonly recommendationId: string;
  readonly probability: number | null;
  readonly reasons: readonly Reason[];
  readonly item: Entry;
  readonly title: string;
}

/** Return the title of an entry, or the id where it has none. */
export function titleOf(entry: Entry | null, itemId: string): string {
  const title = entry?.title;
  return typeof title === "string" && title ? title : itemId;
}
