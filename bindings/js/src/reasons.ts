/** Say why an item is in the list: the events whose absence would cost it most. */

import { itemVector, type Bundle } from "./bundle";
import type { KnownEvent } from "./history";
import type { Event } from "./profile";
import { titleOf, type Reason } from "./results";
import { dot } from "./rules";
import type { Runtime } from "./runtime";
import { historyOf, type Taste } from "./taste";

const MOST_REASONS = 3;
const MOST_ASKED = 8;
const DONE = new Map([
  ["view", "viewed {}"],
  ["purchase", "bought {}"],
  ["cart", "put {} in the cart"],
  ["favorite", "marked {} as a favourite"],
  ["rate", "rated {}"],
  ["search", "searched for {}"],
]);
const PLACES = new Map([
  ["phone", "on your phone"],
  ["tablet", "on your tablet"],
  ["pc", "on your PC"],
  ["store", "in the store"],
]);

/**
 * Return for each row the at most three events that cost its score most when left out, the costliest first. The history
 * is encoded anew without an event at most `MOST_ASKED` times, for those most like the list as a whole.
 */
export async function findReasons(
  rows: readonly number[],
  user: Float32Array,
  taste: Taste,
  bundle: Bundle,
  runtime: Runtime,
): Promise<Reason[][]> {
  const vectors = rows.map((row) => itemVector(bundle, row));
  const whole = user.map((_, place) => vectors.reduce((sum, vector) => sum + vector[place], 0));
  const likeness = ({ row }: KnownEvent): number => dot(itemVector(bundle, row), whole);
  const asked = taste.events
    .slice(-bundle.manifest.vocabulary.maxHistory)
    .sort((left, right) => likeness(right) - likeness(left))
    .slice(0, MOST_ASKED);
  // Where the profile holds more events that count than the history, the next older one takes the free place.
  const without = asked.map((one) => historyOf({ ...taste, events: taste.events.filter((event) => event !== one) }, bundle));
  const users = await runtime.encodeBatch(without);
  const changes = users.map((other) => user.map((value, place) => value - other[place]));
  const titleOfRow = (row: number, itemId: string) => (row < 0 ? "something like it" : titleOf(bundle.catalog.entry(row), itemId));
  return vectors.map((vector) => {
    const reasons = new Map<string, Reason>();
    const losses = asked.map(({ source, row }, place) => ({ source, row, loss: Math.fround(dot(vector, changes[place])) }));
    for (const { source, row, loss } of losses.sort((left, right) => right.loss - left.loss)) {
      const { itemId, event, device } = source;
      // The same thing done to the same item twice is one reason.
      const deed = JSON.stringify([itemId, event]);
      if (loss > 0 && reasons.size < MOST_REASONS && !reasons.has(deed)) {
        reasons.set(deed, { itemId, event, device, loss, text: textOf(source, titleOfRow(row, itemId)) });
      }
    }
    return [...reasons.values()];
  });
}

function textOf(event: Event, title: string): string {
  const done = DONE.get(event.event) ?? `${event.event.replaceAll("_", " ")} {}`;
  const where = PLACES.get(event.device) ?? `on ${event.device.replaceAll("_", " ")}`;
  return `because you ${done.replace("{}", () => title)} ${where}`;
}
