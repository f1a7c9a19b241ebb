/** Bytes that anyone may have written give an XrecError or a right answer, never another error (seeds 1 to 5). */

import { expect, test } from "vitest";

import { Recommender } from "../src/core";
import { BAD, damagedZip, INDEX, readBundle, zipOf, type WholeRecipe } from "./vectors";
import { codeOf } from "./walk";

const ROUNDS = 150;

/** Numbers from 0 to 1 that are the same every time (Park and Miller). */
function seeded(seed: number): () => number {
  let state = seed * 7919;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

test.each([
  ["encoder.onnx", BAD.bundle],
  ["scorer.onnx", BAD.bundle],
  ["ids.bin", BAD.bundle],
  ["catalog.bin", BAD.bundle],
  ["scorer.onnx", "ranked.xrec"],
])(
  "a changed byte of %s in %s under a right signature is refused or does no harm",
  async (file, bundle) => {
    const random = seeded(1 + file.length);
    const bytes = readBundle(bundle).get(file)!.length;
    const codes = new Set<string | null>();
    for (let round = 0; round < ROUNDS; round++) {
      const flip = { op: "flip", file, at: Math.floor(random() * bytes), xor: 1 + Math.floor(random() * 255) };
      const recipe: WholeRecipe = { name: file, code: null, bundle, steps: [flip], resign: true, ask: true, check: true };
      codes.add(await codeOf(Recommender.load, damagedZip(recipe), INDEX.key, recipe));
    }
    expect(codes.size).toBeGreaterThan(1); // some are seen
    for (const code of codes) expect(String(code)).toMatch(/^bundle\.|^null$/);
  },
  60_000,
);

test("a changed byte of a zip is refused or does no harm", async () => {
  const random = seeded(5);
  const zip = zipOf(BAD.bundle);
  // Most of the zip is content, which the hashes guard: aim at the headers too, which are at the end.
  for (let round = 0; round < 4 * ROUNDS; round++) {
    const changed = zip.slice(0, random() < 0.1 ? Math.floor(random() * zip.length) : zip.length);
    const at = Math.floor(changed.length - (random() < 0.7 ? 800 : changed.length) * random());
    if (at >= 0 && at < changed.length) changed[at] ^= 1 + Math.floor(random() * 255);
    expect(String(await codeOf(Recommender.load, changed, INDEX.key, { name: "zip", code: null }))).toMatch(/^bundle\.|^null$/);
  }
}, 300_000);
