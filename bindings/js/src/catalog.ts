/**
 * The catalogue of catalog.bin: what the app shows of an item, and the category column, read in place.
 *
 * Layout (docs/bundle-format.md): magic, N, C, category[N], offsets[N + C + 1], text.
 */

import { BundleDamaged } from "./errors";
import { checkOffsets, HEADER_BYTES, readHeader, words } from "./idTable";
import { isObject } from "./manifest";
import { decodeUtf8 } from "./utf8";

const MAX_CATEGORIES = 1_000_000;

/** What the app shows of an item. */
export type Entry = Readonly<Record<string, unknown>>;

/** The catalogue of a bundle; `category` holds for each row a position in `categoryNames`, or -1 for none. */
export class Catalog {
  readonly count: number;
  readonly category: Int32Array;
  readonly categoryNames: readonly string[];
  private readonly offsets: Uint32Array;
  private readonly text: Uint8Array;

  constructor(bytes: Uint8Array) {
    const [count, categoryCount] = readHeader(bytes, "XRECCAT1", fail);
    if (categoryCount > MAX_CATEGORIES) fail(`it says ${categoryCount} categories`);
    const offsetsAt = HEADER_BYTES + 4 * count;
    const textAt = offsetsAt + 4 * (count + categoryCount + 1);
    if (bytes.length < textAt) fail(`${bytes.length} bytes, expected at least ${textAt}`);
    const column = words(bytes, HEADER_BYTES, count);
    this.count = count;
    this.category = new Int32Array(column.buffer, column.byteOffset, count);
    this.offsets = words(bytes, offsetsAt, count + categoryCount + 1);
    this.text = bytes.subarray(textAt);
    checkOffsets(this.offsets, this.text, fail);
    if (this.category.some((code) => code < -1 || code >= categoryCount)) fail("a category has no name");
    this.categoryNames = Array.from({ length: categoryCount }, (_, code) => this.string(count + code));
  }

  /** Return the entry of a row; throw BundleDamaged where it isn't a JSON object. */
  entry(row: number): Entry {
    let entry: unknown;
    try {
      entry = JSON.parse(this.string(row));
    } catch {
      fail(`the entry of row ${row} is not JSON`);
    }
    return isObject(entry) ? entry : fail(`the entry of row ${row} is not a JSON object`);
  }

  private string(position: number): string {
    return decodeUtf8(this.text.subarray(this.offsets[position], this.offsets[position + 1]));
  }
}

function fail(message: string): never {
  throw new BundleDamaged("bundle.catalog_malformed", `catalog.bin: ${message}`);
}
