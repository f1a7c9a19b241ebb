/** Make event ids: UUIDv7 (RFC 9562, section 5.7), which sort by the time they were made. */

const MOST = 2 ** 42 - 1;

// Of an id's 74 bits beside the time, 42 count on from a random number within a millisecond (RFC 9562, section 6.2).
let last = { ms: 0, count: 0 };

/** Return a new id that sorts after every id that this program has made. */
export function newEventId(): string {
  const [high, middle, low] = randomWords();
  const fresh = { ms: Date.now(), count: (high & 0xfff) * 2 ** 30 + (middle >>> 2) };
  // A clock that stands still or steps back must not break the order.
  last = fresh.ms > last.ms ? fresh : next(last);
  const count = hex(Math.floor(last.count / 2 ** 30), 3) + hex(2 ** 31 + (last.count % 2 ** 30), 8);
  return `${hex(last.ms, 12)}7${count}${hex(low, 8)}`.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function next({ ms, count }: typeof last): typeof last {
  return count < MOST ? { ms, count: count + 1 } : { ms: ms + 1, count: 0 };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function randomWords(): Uint32Array {
  const words = new Uint32Array(3);
  if (typeof globalThis.crypto?.getRandomValues === "function") return globalThis.crypto.getRandomValues(words);
  // Mini-programs have no crypto; an id needs to differ, not to be secret.
  return words.map(() => Math.floor(Math.random() * 2 ** 32));
}
