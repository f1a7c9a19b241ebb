/**
 * The table of ids.bin: row to external id and back, read in place without parsing.
 *
 * Layout (docs/bundle-format.md): magic, N, S, offsets[N + 1], slots[S], text; S slots of an open-addressing hash.
 */

import { crc32 } from "./crc32";
import { BundleDamaged } from "./errors";
import { MAX_ITEMS } from "./manifest";
import { decodeUtf8, encodeUtf8, hasLoneSurrogate } from "./utf8";

const MAX_ID_BYTES = 512;
export const HEADER_BYTES = 16;

/** Return the two numbers that follow the eight letters at the head of a table, of which the first counts its items. */
export function readHeader(bytes: Uint8Array, letters: string, fail: (message: string) => never): [number, number] {
  const isTable = bytes.length >= HEADER_BYTES && String.fromCharCode(...bytes.subarray(0, 8)) === letters;
  if (!isTable) fail(`its ${bytes.length} bytes do not begin with ${letters}`);
  const [count, other] = words(bytes, 8, 2);
  if (count < 1 || count > MAX_ITEMS) fail(`it says ${count} items`);
  return [count, other];
}

/** Return whether bytes are equal. */
export function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

/** Return the bytes as little-endian words: in place where they lie at a multiple of four. */
export function words(bytes: Uint8Array, offset: number, count: number): Uint32Array {
  const at = bytes.byteOffset + offset;
  if (at % 4 === 0) return new Uint32Array(bytes.buffer, at, count);
  return new Uint32Array(bytes.slice(offset, offset + 4 * count).buffer);
}

/** Throw unless the offsets begin at 0, never fall, end with the text and cut it between characters of UTF-8. */
export function checkOffsets(offsets: Uint32Array, text: Uint8Array, fail: (message: string) => never): void {
  let isRight = offsets[0] === 0 && offsets[offsets.length - 1] === text.length;
  for (let place = 1; place < offsets.length; place++) isRight &&= offsets[place - 1] <= offsets[place];
  isRight &&= offsets.every((offset) => offset === text.length || (text[offset] & 0xc0) !== 0x80);
  if (!isRight) fail("an offset cuts a character");
  try {
    decodeUtf8(text);
  } catch {
    fail("the text is not UTF-8");
  }
}

/** The ids of a bundle; opening checks every offset and slot. */
export class IdTable {
  readonly count: number;
  private readonly offsets: Uint32Array;
  private readonly slots: Uint32Array;
  private readonly text: Uint8Array;

  constructor(bytes: Uint8Array) {
    const [count, slotCount] = readHeader(bytes, "XRECIDS1", fail);
    if (slotCount & (slotCount - 1) || slotCount < 2 * count || slotCount > 8 * MAX_ITEMS) {
      fail(`it says ${slotCount} slots for ${count} items`);
    }
    const textAt = HEADER_BYTES + 4 * (count + 1) + 4 * slotCount;
    if (bytes.length < textAt) fail(`${bytes.length} bytes, expected at least ${textAt}`);
    this.count = count;
    this.offsets = words(bytes, HEADER_BYTES, count + 1);
    this.slots = words(bytes, HEADER_BYTES + 4 * (count + 1), slotCount);
    this.text = bytes.subarray(textAt);
    checkOffsets(this.offsets, this.text, fail);
    for (let row = 0; row < count; row++) {
      const length = this.offsets[row + 1] - this.offsets[row];
      if (length < 1 || length > MAX_ID_BYTES) fail(`it holds an id that is not 1 to ${MAX_ID_BYTES} bytes long`);
    }
    this.checkSlots();
  }

  /** Return the row of an id, or -1 where the bundle does not know it. */
  row(itemId: string): number {
    if (hasLoneSurrogate(itemId)) return -1;
    const wanted = encodeUtf8(itemId);
    const mask = this.slots.length - 1;
    // Opening proved that at least half the slots are empty, so that the walk ends.
    for (let slot = crc32(wanted) & mask; this.slots[slot] !== 0; slot = (slot + 1) & mask) {
      const row = this.slots[slot] - 1;
      if (isSame(this.idBytes(row), wanted)) return row;
    }
    return -1;
  }

  /** Return the id of a row from 0 to N - 1. */
  itemId(row: number): string {
    return decodeUtf8(this.idBytes(row));
  }

  private idBytes(row: number): Uint8Array {
    return this.text.subarray(this.offsets[row], this.offsets[row + 1]);
  }

  private checkSlots(): void {
    const isNamed = new Uint8Array(this.count + 1);
    let used = 0;
    for (const entry of this.slots) {
      if (entry) used++;
      isNamed[entry] = 1; // one beyond the end is not kept
    }
    if (used !== this.count || !isNamed.subarray(1).every(Boolean)) fail("the slots name a row twice");
  }
}

function fail(message: string): never {
  throw new BundleDamaged("bundle.ids_malformed", `ids.bin: ${message}`);
}
