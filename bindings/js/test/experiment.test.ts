/** An arm is decided on the device, alike in every language, and the id of a list says it. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "vitest";

import { assign, Recommender, UsageError } from "../src/core";
import { INDEX, VECTORS, zipOf } from "./vectors";

type Shares = readonly (readonly [name: string, share: number])[];
const { assigned, refused } = JSON.parse(readFileSync(join(VECTORS, "experiments.json"), "utf8")) as {
  assigned: readonly { experiment: string; unit: string; arms: Shares; arm: string }[];
  refused: readonly { experiment: string; arms: Shares; code: string }[];
};

test("every unit is in the arm that Python puts it in", async () => {
  expect(assigned.length).toBeGreaterThan(100);
  for (const { experiment, unit, arms, arm } of assigned) {
    const said = JSON.stringify([experiment, unit, arms]);
    expect(await assign(experiment, unit, arms), said).toEqual({ experiment, name: arm });
    expect((await assign(experiment, unit, new Map(arms))).name, said).toBe(arm);
  }
});

test("a plain object is arms in its order", async () => {
  // printf 'xrec-arm\\0rank\\0anna' | sha256sum begins with 57e1, of berta a72e; half is 8000.
  expect((await assign("rank", "anna", { old: 1, new: 1 })).name).toBe("old");
  expect((await assign("rank", "berta", { old: 1, new: 1 })).name).toBe("new");
});

test("what Python refuses is refused by the same code", async () => {
  for (const { experiment, arms, code } of refused) {
    await expect(assign(experiment, "anna", arms), JSON.stringify([experiment, arms])).rejects.toMatchObject({ code });
  }
  await expect(assign("rank", "anna", { a: Number.NaN })).rejects.toThrow(UsageError);
});

test("a list's id says the bundle's release and the arm that it was asked for", async () => {
  const recommender = await Recommender.load(zipOf(INDEX.bundles[0]), { trustedKeys: [INDEX.key] });
  const { release } = recommender.bundle.manifest;
  const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}";
  const arm = await assign("rank", "anna", { old: 1, new: 1 });
  const ids = (await recommender.recommend({ k: 3, arm })).map((one) => one.recommendationId);
  expect(new Set(ids).size).toBe(1);
  expect(ids[0]).toMatch(new RegExp(`^${uuid}\\.${release}\\.rank=old$`));
  expect((await recommender.recommend({ k: 1 }))[0].recommendationId).toMatch(new RegExp(`^${uuid}\\.${release}$`));
  await expect(recommender.recommend({ arm: { experiment: "rank", name: "a.b" } })).rejects.toMatchObject({ code: "usage.arm" });
  await recommender.close();
});
