/** The shared vectors hold with onnxruntime-node and with core. */

import { describe, expect, test } from "vitest";

import { Recommender as Core } from "../src/core";
import { Recommender as Native } from "../src/node";
import { BAD, damagedZip, INDEX, readCase, zipOf } from "./vectors";
import { codeOf, differences, walkCase, type Load } from "./walk";

const ENGINES: Readonly<Record<string, Load>> = { "onnxruntime-node": Native.load, core: Core.load };

describe.each(Object.entries(ENGINES))("%s", (_, load) => {
  test.each(INDEX.cases)("%s is answered as written", async (name) => {
    const asked = readCase(name);
    expect(await walkCase(load, zipOf(asked.bundle), INDEX.key, asked)).toEqual([]);
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
