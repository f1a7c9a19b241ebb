/** A delta makes the next bundle byte for byte, or nothing at all; what is wrong with it is said by Python's codes. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";

import { expect, test } from "vitest";

import { ZipSource } from "../src/archive";
import { Recommender } from "../src/core";
import { applyDelta } from "../src/delta";
import { XrecError } from "../src/errors";
import { INDEX, VECTORS, zipOf } from "./vectors";

interface Stated {
  readonly name: string;
  readonly code: string;
  readonly delta: string;
  readonly base?: string;
  readonly minimum_release?: number;
  readonly trusted_keys?: readonly string[];
}

const STATED = JSON.parse(readFileSync(join(VECTORS, "deltas.json"), "utf8")) as {
  base: string;
  delta: string;
  files: Readonly<Record<string, string>>;
  refused: readonly Stated[];
};
const BASE = zipOf(STATED.base);
const DELTA = new Uint8Array(Buffer.from(STATED.delta, "base64"));
const KEYS = [INDEX.key];

test("the stated delta makes the stated files, in a zip that is a bundle", async () => {
  const zip = await applyDelta(BASE, DELTA, { trustedKeys: KEYS });
  const source = new ZipSource(zip);
  const names = [...(await source.names())];
  expect(names.sort()).toEqual(Object.keys(STATED.files).sort());
  for (const name of names) {
    const content = await source.read(name, Infinity);
    expect(createHash("sha256").update(content).digest("hex"), name).toBe(STATED.files[name]);
  }
  const recommender = await Recommender.load(zip, { trustedKeys: KEYS, minimumRelease: 4 });
  expect(await recommender.recommend({ k: 5 })).toHaveLength(5);
  await recommender.close();
});

test("the next delta may be of what the last one made, and not of what was before", async () => {
  const zip = await applyDelta(BASE, DELTA.buffer, { trustedKeys: KEYS });
  await expect(applyDelta(zip, DELTA, { trustedKeys: KEYS })).rejects.toMatchObject({ code: "bundle.rollback" });
});

test.each(STATED.refused.map((stated) => [stated.name, stated] as const))("refused: %s", async (_, stated) => {
  const { code, delta, base = STATED.base, minimum_release: minimumRelease, trusted_keys: trustedKeys = KEYS } = stated;
  const bytes = new Uint8Array(Buffer.from(delta, "base64"));
  await expect(applyDelta(zipOf(base), bytes, { trustedKeys, minimumRelease })).rejects.toMatchObject({ code });
});

test("a delta that unpacks to more than its bundle is refused", async () => {
  const view = new DataView(DELTA.buffer);
  const head = DELTA.subarray(0, 16 + view.getUint32(8, true) + view.getUint32(12, true));
  const bomb = Buffer.concat([head, deflateSync(Buffer.alloc(2 ** 26 + 2 ** 20))]);
  expect(bomb.length).toBeLessThan(100_000);
  await expect(applyDelta(BASE, bomb, { trustedKeys: KEYS })).rejects.toMatchObject({ code: "bundle.delta_malformed" });
});

test("no change or cut of a delta gives a bundle, or another error (seed 7)", async () => {
  let state = 7;
  const random = (most: number) => (state = (state * 48271) % 2147483647) % most;
  for (let round = 0; round < 150; round++) {
    const isCut = random(3) === 0;
    const changed = isCut ? DELTA.slice(0, random(DELTA.length)) : DELTA.slice();
    if (!isCut) changed[random(changed.length)] ^= 1 << random(8);
    const error: unknown = await applyDelta(BASE, changed, { trustedKeys: KEYS }).then(() => null, (cause: unknown) => cause);
    expect(error, `round ${round}`).toBeInstanceOf(XrecError);
  }
});
