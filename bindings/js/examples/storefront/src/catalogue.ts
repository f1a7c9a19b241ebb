/** The shop's own view of the bundle's catalogue: cards, aisles, and a search over titles. */

import type { Recommender } from "@xrec/sdk/core";

import { aisleOf, AISLES, type Aisle } from "./aisles";

const MOST_FOUND = 400;

/** What the shop shows of an item. */
export interface Card {
  readonly itemId: string;
  readonly title: string;
  /** Brand and size, as far as they are known. */
  readonly detail: readonly string[];
  readonly aisle: Aisle;
}

/** What is known once every item has been read. */
interface Index {
  readonly aisles: ReadonlyMap<Aisle, readonly string[]>;
  readonly words: readonly (readonly [itemId: string, words: string])[];
}

/** Return whether the shop sells an item; the data hold fuel, coupons and gift cards too. */
export function isSold(entry: Readonly<Record<string, unknown>>): boolean {
  return typeof entry.title === "string" && aisleOf(entry) !== null;
}

/** The items of a bundle. A card is made when it is shown; the index of all items when it is first asked for. */
export class Catalogue {
  readonly #cards = new Map<string, Card | null>();
  #index: Index | null = null;

  constructor(private readonly bundle: Recommender["bundle"]) {}

  card(itemId: string): Card | null {
    let card = this.#cards.get(itemId);
    if (card === undefined) this.#cards.set(itemId, (card = this.#read(itemId)));
    return card;
  }

  /** Return the ids of an aisle, the most popular first. */
  inAisle(aisle: Aisle): readonly string[] {
    return this.index().aisles.get(aisle) ?? [];
  }

  /** Return the ids of the items in which every word begins a word, the most popular first. */
  search(query: string): string[] {
    const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
    if (!wanted.length) return [];
    const found = this.index().words.filter(([, words]) => wanted.every((word) => words.includes(` ${word}`)));
    return found.slice(0, MOST_FOUND).map(([itemId]) => itemId);
  }

  /** Read every item; a tenth of a second, which a page may spend while nothing else is to be done. */
  index(): Index {
    if (this.#index) return this.#index;
    const { ids, catalog, manifest } = this.bundle;
    const aisles = new Map<Aisle, string[]>(AISLES.map((aisle) => [aisle, []]));
    const words: [string, string][] = [];
    for (let row = 0; row < manifest.itemCount; row++) {
      const entry = catalog.entry(row);
      const [aisle, itemId] = [aisleOf(entry), ids.itemId(row)];
      if (!aisle || !isSold(entry)) continue;
      aisles.get(aisle)!.push(itemId);
      words.push([itemId, ` ${String(entry.title)} ${String(entry.category)}`.toLowerCase()]);
    }
    return (this.#index = { aisles, words });
  }

  #read(itemId: string): Card | null {
    const row = this.bundle.ids.row(itemId);
    if (row < 0) return null;
    const entry = this.bundle.catalog.entry(row);
    const aisle = aisleOf(entry);
    const detail = [entry.brand, entry.size].filter((text): text is string => typeof text === "string");
    return aisle && isSold(entry) ? { itemId, title: String(entry.title), detail, aisle } : null;
  }
}
