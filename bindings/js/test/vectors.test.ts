/** The shared vectors hold with onnxruntime-node and with core. */

import { describe, expect, test } from "vitest";

import { Recommender as Core } from "../src/core";
import type { History } from "../src/history";
import { Recommender as Native } from "../src/node";
import { createCoreSession } from "../src/onnx/engine";
import { readModel } from "../src/onnx/model";
import { ortSessions, type Ort } from "../src/ort";
import { Runtime, type CreateSession } from "../src/runtime";
import { BAD, damagedZip, ENCODERS, INDEX, readCase, readEncoder, zipOf } from "./vectors";
import { codeOf, differences, walkCase, type Load } from "./walk";

const native = ortSessions(async () => (await import("onnxruntime-node")) as Ort, () => undefined);
const ENGINES: readonly (readonly [string, Load, CreateSession])[] = [
  ["onnxruntime-node", Native.load, native],
  ["core", Core.load, createCoreSession],
];

describe.each(ENGINES)("%s", (_, load, createSession) => {
  test.each(INDEX.cases)("%s is answered as written", async (name) => {
    const asked = readCase(name);
    expect(await walkCase(load, zipOf(asked.bundle), INDEX.key, asked)).toEqual([]);
  });

  test.each(Object.entries(ENCODERS.users))("the encoder %s gives its user vectors", async (name, users) => {
    const { bundle } = await load(zipOf(ENCODERS.bundle), { trustedKeys: [INDEX.key] });
    const encoder = readEncoder(name);
    const operators = [...bundle.manifest.operators, ...readModel(encoder, bundle.items).nodes.map(({ operator }) => operator)];
    const runtime = await Runtime.load({ ...bundle, manifest: { ...bundle.manifest, operators }, encoder }, createSession, 1);
    for (const [place, codes] of ENCODERS.histories.entries()) {
      const history = Object.fromEntries(Object.entries(codes).map(([part, values]) => [part, Int32Array.from(values)]));
      const user = await runtime.encode(history as unknown as History);
      expect(differences([...user], users[place], ENCODERS.tolerance, `${name} ${place}`)).toEqual([]);
    }
    // A batch of one length, as the reasons ask: each history as if it were alone.
    const last = ENCODERS.histories[ENCODERS.histories.length - 1];
    const turned = [last.rows, [...last.rows].reverse()].map((rows) => ({
      rows: Int32Array.from(rows),
      events: Int32Array.from(last.events),
      devices: Int32Array.from(last.devices),
      gaps: Int32Array.from(last.gaps),
      queries: [],
    }));
    const batch = await runtime.encodeBatch(turned);
    for (const [place, history] of turned.entries()) {
      expect(differences([...batch[place]], [...(await runtime.encode(history))], 1e-5, name)).toEqual([]);
    }
    await runtime.close();
  });

  test.each(BAD.recipes.map((recipe) => [recipe.name, recipe] as const))("%s", async (_name, recipe) => {
    expect(await codeOf(load, damagedZip(recipe), INDEX.key, recipe)).toBe(recipe.code);
  });
});

test("a wrong answer is seen", () => {
  const expected = [{ item_id: "a", score: 1.5, rank: 1 }];
  expect(differences([{ item_id: "a", score: 1.5, rank: 1 }], expected, 1e-4, "")).toEqual([]);
  expect(differences([{ item_id: "b", score: 1.5, rank: 1 }], expected, 1e-4, "")).toHaveLength(1);
  expect(differences([{ item_id: "a", score: 1.5002, rank: 1 }], expected, 1e-4, "")).toHaveLength(1);
  expect(differences([], expected, 1e-4, "")).toHaveLength(1);
});
