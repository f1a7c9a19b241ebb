/** Say why an item is in the list: the events whose absence would cost it most. */

import { itemVector, type Bundle } from "./bundle";
import type { Event } from "./profile";
import { titleOf, type Reason } from "./results";
import { dot } from "./rules";
import type { Runtime } from "./runtime";
import { historiesWithoutOne, type Taste } from "./taste";

const MOST_REASONS = 3;
const DONE: Readonly<Record<string, string>> = {
  view: "viewed {}",
  purchase: "bought {}",
  cart: "put {} in the cart",
  favorite: "marked {} as a favourite",
  rate: "rated {}",
  search: "searched for {}",
};
const PLACES: Readonly<Record<string, string>> = {
  phone: "on your phone",
  tablet: "on your tablet",
  pc: "on your PC",
  store: "in the store",
};

/** Return for each row the at most three events that cost its score most when left out, the costliest first. */
export async function findReasons(
  rows: readonly number[],
  user: Float32Array,
  taste: Taste,
  bundle: Bundle,
  runtime: Runtime,
): Promise<Reason[][]> {
  const without = historiesWithoutOne(taste, bundle);
  const users = await runtime.encodeBatch(without.map(({ history }) => history));
  const changes = users.map((other) => user.map((value, place) => value - other[place]));
  return rows.map((row) => {
    const vector = itemVector(bundle, row);
    const losses = without.map(({ event }, place) => ({ event, loss: Math.fround(dot(vector, changes[place])) }));
    return pick(losses, bundle);
  });
}

function pick(losses: readonly { event: Event; loss: number }[], bundle: Bundle): Reason[] {
  const reasons = new Map<string, Reason>();
  for (const { event, loss } of [...losses].sort((left, right) => right.loss - left.loss)) {
    if (loss <= 0 || reasons.size === MOST_REASONS) break;
    // The same thing done to the same item twice is one reason.
    const deed = JSON.stringify([event.itemId, event.event]);
    if (reasons.has(deed)) continue;
    const { itemId, event: name, device } = event;
    reasons.set(deed, { itemId, event: name, device, loss, text: textOf(event, titleIn(bundle, itemId)) });
  }
  return [...reasons.values()];
}

function titleIn(bundle: Bundle, itemId: string): string {
  const row = bundle.ids.row(itemId);
  return titleOf(row < 0 ? null : bundle.catalog.entry(row), itemId);
}

function textOf(event: Event, title: string): string {
  const done = named(DONE, event.event) ?? `${event.event.replaceAll("_", " ")} {}`;
  const where = named(PLACES, event.device) ?? `on ${event.device.replaceAll("_", " ")}`;
  return `because you ${done.replace("{}", () => title)} ${where}`;
}

function named(texts: Readonly<Record<string, string>>, name: string): string | null {
  return Object.hasOwn(texts, name) ? texts[name] : null;
}
