/** The vectors hold in a real Chromium: WebAssembly and core, the latter under a policy that allows no code to be made. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { hasChromium, Site, SOFTWARE_GPU, STRICT, WITH_WASM } from "./chromium";
import { BAD, damagedZip, INDEX, readBundle, readCase, VECTORS, zipOf } from "./vectors";

describe.skipIf(!hasChromium())("in Chromium", () => {
  let site: Site;
  const files = new Map<string, Uint8Array | string>();

  beforeAll(async () => {
    const cases = INDEX.cases.map(readCase);
    const { delta } = JSON.parse(readFileSync(join(VECTORS, "deltas.json"), "utf8")) as { delta: string };
    files.set("/asked.json", JSON.stringify({ key: INDEX.key, cases, recipes: BAD.recipes, delta }));
    for (const bundle of INDEX.bundles) {
      files.set(`/${bundle}.zip`, zipOf(bundle));
      for (const [name, content] of readBundle(bundle)) files.set(`/${bundle}/${name}`, content);
    }
    files.set("/unsigned.xrec/manifest.json", readBundle("pool.xrec").get("manifest.json")!);
    BAD.recipes.forEach((recipe, place) => files.set(`/bad/${place}.zip`, damagedZip(recipe)));
    site = await Site.open("/test/page.mjs", files);
  }, 300_000);

  afterAll(() => site.close());

  test.each([
    ["browser", WITH_WASM],
    ["core", STRICT],
  ])("%s answers every case and refuses every damaged bundle", async (entry, policy) => {
    const done = `${INDEX.cases.length} cases, ${BAD.recipes.length} recipes`;
    expect(await site.ask(policy, { task: "walk", entry })).toEqual([done]);
  }, 300_000);

  test("WebGPU, by an adapter in software, answers the first cases", async () => {
    const own = await Site.open("/test/page.mjs", files, SOFTWARE_GPU);
    const asked = { task: "walk", entry: "browser", providers: "webgpu", most: "2" };
    expect(await own.ask(WITH_WASM, asked)).toEqual(["2 cases, 2 recipes"]);
    await own.close();
  }, 300_000);

  test("without an adapter WebGPU is refused by its code, or falls back where the app says so", async () => {
    expect(await site.ask(WITH_WASM, { task: "adapter" })).toEqual(["usage.providers", "usage.providers", "usage.providers", true]);
  }, 300_000);

  test("WebAssembly answers several calls at once", async () => {
    expect(await site.ask(WITH_WASM, { task: "together", entry: "browser" })).toEqual([6, 0]);
  }, 300_000);

  test("the strict policy is in force: neither WebAssembly nor code can be made", async () => {
    expect(await site.ask(STRICT, { task: "forbidden" })).toEqual(["bundle.graph_malformed", "EvalError"]);
  }, 300_000);

  test("a bundle loads from the URL of its zip and of its folder", async () => {
    const expected = [140, 140, 300, "bundle.not_found", "bundle.unsigned"];
    expect(await site.ask(STRICT, { task: "urls" })).toEqual(expected);
  }, 300_000);

  test("a delta makes the next bundle in a page", async () => {
    expect(await site.ask(STRICT, { task: "delta" })).toEqual([4, "bundle.delta_malformed", "bundle.delta_base"]);
  }, 300_000);

  test("a profile in IndexedDB holds nothing before consent, is bounded, outlives its page, hides on withdrawal and is forgotten", async () => {
    expect(await site.ask(STRICT, { task: "record" })).toEqual(["profile.no_consent", true, "sku-1", "sku-2", "sku-3"]);
    expect(await site.ask(STRICT, { task: "withdraw" })).toEqual([true, "profile.no_consent", 3, false, 1]);
    expect(await site.ask(STRICT, { task: "forget" })).toEqual([3, 0, "profile.closed"]);
  }, 300_000);

  test("a profile in IndexedDB from before there was consent keeps its events, unread", async () => {
    const [code, { events, consents }] = (await site.ask(STRICT, { task: "older" })) as [string, { events: object[]; consents: object[] }];
    expect([code, events, consents]).toEqual(["profile.no_consent", [expect.objectContaining({ id: "a" })], []]);
  }, 300_000);
});
