/** A query gives the n-grams, the reduced form, the buckets and the row that Python gives it. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "vitest";

import { crc32OfText } from "../src/crc32";
import type { History } from "../src/history";
import { bucketsOf, bucketTable, grams, queryRow, reduceQuery } from "../src/queries";
import { VECTORS } from "./vectors";

const { queries } = JSON.parse(readFileSync(join(VECTORS, "queries.json"), "utf8")) as {
  queries: readonly { text: string; grams: string[]; reduced: string; buckets: number[]; row: number }[];
};

test("every query is what Python makes of it", () => {
  expect(queries.length).toBeGreaterThan(10);
  for (const { text, grams: expected, reduced, buckets, row } of queries) {
    expect([...new Set(grams(text))].sort(), text).toEqual([...expected].sort());
    expect(reduceQuery(text, crc32OfText), text).toBe(reduced);
    expect(bucketsOf(reduced), text).toEqual(buckets);
    expect(queryRow(reduced, crc32OfText), text).toBe(row);
  }
});

test("letters of any case are one, as Unicode's full folding says", () => {
  // Each pair by CaseFolding.txt: C and F; dotless i has none, Cherokee folds to its capitals.
  for (const [one, other] of [["STRASSE", "straße"], ["ΣΊΣΥΦΟΣ", "σίσυφος"], ["ﬃ", "ffi"], ["ꭰꭱꭲ", "ᎠᎡᎢ"], ["Ⅷ", "viii"], ["ᾳα", "αια"]]) {
    expect(grams(one), one).toEqual(grams(other));
  }
  expect(grams("ı")).not.toEqual(grams("i"));
});

test("the longest query fits where an item id does", () => {
  const text = Array.from({ length: 60 }, (_, number) => `word${number}`).join(" ");
  const reduced = reduceQuery(text.slice(0, 512), crc32OfText);
  expect(bucketsOf(reduced)).toHaveLength(250);
  expect(reduced.length).toBeLessThanOrEqual(512);
});

test("what is not written so has no buckets", () => {
  for (const text of ["query~A", "query~!!", "query~ABAA", "query~AAAA", `query~${"AB".repeat(300)}`, "query~é", "query~"]) {
    expect(bucketsOf(text), text).toEqual([]);
  }
  expect(queryRow("tea", crc32OfText)).toBeNull();
  const history = { rows: Int32Array.of(3, -1, -2), queries: ["query~ABAD", "query~"] } as unknown as History;
  expect(bucketTable([history])).toEqual({ data: Int32Array.of(-1, -1, 1, 3, -1, -1), dims: [1, 3, 2] });
});
