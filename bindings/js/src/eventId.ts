/** Make event ids: UUIDv7 (RFC 9562, section 5.7), which sort by the time they were made. */

// An id is a time in milliseconds and 74 random bits, kept here as 12, 31 and 31 of them.
let last = { ms: 0, high: 0, middle: 0, low: 0 };

/** Return a new id that sorts after every id that this program has made. */
export function newEventId(): string {
  const random = randomWords();
  const fresh = { ms: Date.now(), high: random[0] & 0xfff, middle: random[1] >>> 1, low: random[2] >>> 1 };
  // A clock that stands still or steps back must not break the order.
  last = isAfter(fresh, last) ? fresh : next(last);
  const time = hex(last.ms, 12);
  const bits = hex(2 ** 31 + (last.middle >>> 1), 8) + hex((last.middle & 1) * 2 ** 31 + last.low, 8);
  const digits = `${time}7${hex(last.high, 3)}${bits}`;
  return [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join("-");
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function isAfter(left: typeof last, right: typeof last): boolean {
  if (left.ms !== right.ms) return left.ms > right.ms;
  if (left.high !== right.high) return left.high > right.high;
  return left.middle !== right.middle ? left.middle > right.middle : left.low > right.low;
}

function next({ ms, high, middle, low }: typeof last): typeof last {
  if (low < 2 ** 31 - 1) return { ms, high, middle, low: low + 1 };
  if (middle < 2 ** 31 - 1) return { ms, high, middle: middle + 1, low: 0 };
  return high < 0xfff ? { ms, high: high + 1, middle: 0, low: 0 } : { ms: ms + 1, high: 0, middle: 0, low: 0 };
}

function randomWords(): Uint32Array {
  const words = new Uint32Array(3);
  if (typeof globalThis.crypto?.getRandomValues === "function") return globalThis.crypto.getRandomValues(words);
  // Mini-programs have no crypto; an id needs to differ, not to be secret.
  return words.map(() => Math.floor(Math.random() * 2 ** 32));
}
