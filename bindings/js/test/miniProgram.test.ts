/** The mini-program's adapter on a fake `wx`, in a realm that has nothing but the language: no fetch, crypto, TextDecoder. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createContext, runInContext } from "node:vm";

import { beforeEach, expect, test } from "vitest";

import type * as Made from "./fakeWeixin";
import { damagedZip, INDEX, VECTORS, type WholeRecipe } from "./vectors";

const SCRIPT = fileURLToPath(new URL("../build/miniProgram.js", import.meta.url));
const OPTIONS = { url: "https://shop.example/shop.xrec.zip", trustedKeys: [INDEX.key] };
const MISSING = ["fetch", "crypto", "TextDecoder", "TextEncoder", "WebAssembly", "URL", "Blob", "setTimeout", "window", "process"];

// A realm of its own: what it makes is of its own kinds, as in a mini-program.
const realm = createContext({ WebAssembly: undefined }, { codeGeneration: { strings: false, wasm: false } });
const wrapped = `(function (exports) {${readFileSync(SCRIPT, "utf8")}; return exports; })({})`;
const { FakeWeixin, fetchUpdate, homePage, openRecommender } = runInContext(wrapped, realm) as typeof Made;

/** Return a signed zip of a release, as bytes of the realm. */
function released(release: number, more: Partial<WholeRecipe> = {}): ArrayBuffer {
  const steps = [{ op: "manifest", path: ["release"], value: release }];
  const zip = damagedZip({ name: "release", code: null, bundle: "ranked.xrec", steps, resign: true, ...more });
  const bytes = (runInContext("(length) => new Uint8Array(length)", realm) as (length: number) => Uint8Array<ArrayBuffer>)(zip.length);
  bytes.set(zip);
  return bytes.buffer;
}

test("items as fp32 leave no operator that WeChat's engine is known to lack; int8 ones have three", async () => {
  const { compare } = (await import(new URL("../examples/mini-program/operators.mjs", import.meta.url).href)) as {
    compare(operators: readonly string[]): Readonly<Record<string, readonly string[]>>;
  };
  const operatorsOf = (bundle: string) => {
    const manifest = readFileSync(join(VECTORS, `${bundle}.xrec`, "manifest.json"), "utf8");
    return (JSON.parse(manifest) as { operators: string[] }).operators;
  };
  expect(compare(operatorsOf("fp32")).missing).toEqual([]);
  for (const bundle of ["pool", "lowpass", "ranked"]) {
    expect(compare(operatorsOf(bundle)).missing).toEqual(["GatherElements", "MatMulInteger", "QuantizeLinear"]);
  }
});

let phone: Made.FakeWeixin;

beforeEach(() => {
  phone = new FakeWeixin();
});

const codeOf = (work: Promise<unknown>) => work.then(() => null, (error: { code?: string }) => error.code ?? String(error));

test("the realm has nothing but the language", () => {
  for (const name of MISSING) expect(runInContext(`typeof ${name}`, realm), name).toBe("undefined");
});

test("the first start fetches, the next one needs no network and knows what was bought", async () => {
  phone.offered = released(3);
  const first = await openRecommender(phone.wx, OPTIONS);
  const popular = await first.recommend({ k: 5 });
  await first.setConsent("personalise", true);
  await first.record("purchase", popular[0].itemId, { device: "mini_program" });
  await first.close();
  phone.offered = null;
  const second = await openRecommender(phone.wx, OPTIONS);
  expect(second.bundle.key).toBe(INDEX.key);
  const list = await second.recommend({ k: 5, explain: true });
  expect(list.map(({ itemId }) => itemId)).not.toContain(popular[0].itemId);
  expect(list[0].probability).toBeGreaterThan(0);
  expect(list[0].reasons[0].text).toContain("on mini program");
  expect(phone.requests).toHaveLength(1);
});

test("a newer release is kept for the next start, an older one never", async () => {
  phone.offered = released(3);
  expect((await openRecommender(phone.wx, OPTIONS)).bundle.manifest.release).toBe(3);
  phone.offered = released(5);
  expect(await fetchUpdate(phone.wx, OPTIONS)).toBe(5);
  expect((await openRecommender(phone.wx, OPTIONS)).bundle.manifest.release).toBe(5);
  phone.offered = released(4);
  expect(await codeOf(fetchUpdate(phone.wx, OPTIONS))).toBe("bundle.rollback");
  phone.files.clear(); // a cleaned phone: the floor stands
  expect(await codeOf(openRecommender(phone.wx, OPTIONS))).toBe("bundle.rollback");
});

test.each([
  ["nothing", null, "bundle.unreadable"],
  ["an error of the server", 500, "bundle.unreadable"],
  ["not there", 404, "bundle.not_found"],
  ["cut", released(4, { zip: { cut: -100 } }), "bundle.zip_malformed"],
  ["not signed for these bytes", released(4, { resign: undefined }), "bundle.signature_invalid"],
])("what the network gives is %s: the code says so, and the bundle on the phone stays", async (_, offered, code) => {
  phone.offered = offered;
  expect(await codeOf(openRecommender(phone.wx, OPTIONS))).toBe(code);
  expect(phone.files.size).toBe(0);
  phone.offered = released(3);
  await openRecommender(phone.wx, OPTIONS);
  phone.offered = offered;
  expect(await codeOf(fetchUpdate(phone.wx, OPTIONS))).toBe(code);
  expect((await openRecommender(phone.wx, OPTIONS)).bundle.manifest.release).toBe(3);
});

test("a damaged file is fetched again", async () => {
  phone.offered = released(3);
  await openRecommender(phone.wx, OPTIONS);
  const [[path, bytes]] = phone.files;
  phone.files.set(path, bytes.slice(0, 1000));
  expect((await openRecommender(phone.wx, OPTIONS)).bundle.manifest.release).toBe(3);
  expect(phone.requests).toHaveLength(2);
  expect(phone.files.get(path)!.byteLength).toBe(bytes.byteLength);
});

test("a full phone recommends; an event that can't be kept says so and is not half kept", async () => {
  phone.offered = released(3);
  phone.isFull = true;
  const recommender = await openRecommender(phone.wx, OPTIONS);
  expect(await recommender.recommend({ k: 3 })).toHaveLength(3);
  expect(await codeOf(recommender.setConsent("personalise", true))).toBe("profile.full");
  expect((await recommender.consent()).personalise).toBe(false);
  phone.isFull = false;
  await recommender.setConsent("personalise", true);
  phone.isFull = true;
  expect(await codeOf(recommender.record("view", "sku-1", { device: "phone" }))).toBe("profile.full");
  expect((await recommender.exportMyData()).events).toHaveLength(0);
  phone.isFull = false;
  const deeds = [1, 2, 3].map((atMs) => recommender.record("view", `sku-${4 - atMs}`, { device: "phone", atMs: 10 - atMs }));
  await Promise.all(deeds);
  const { events } = await (await openRecommender(phone.wx, OPTIONS)).exportMyData();
  expect(events.map((event) => event.item_id)).toEqual(["sku-1", "sku-2", "sku-3"]);
});

test("forgetting leaves no event in the storage, and a damaged profile is said to be one", async () => {
  phone.offered = released(3);
  const recommender = await openRecommender(phone.wx, OPTIONS);
  await recommender.setConsent("personalise", true);
  await recommender.record("view", "sku-1", { device: "phone" });
  expect(await recommender.forget()).toBe(1);
  expect([...phone.storage.keys()]).toEqual(["xrec-release", "xrec-consents"]);
  await recommender.close();
  expect(await codeOf(recommender.recommend())).toBe("profile.closed");
  phone.storage.set("xrec-profile", '[{"id":1}]');
  expect(await codeOf(openRecommender(phone.wx, OPTIONS))).toBe("profile.damaged");
});

test("a page shows a list, follows a tap, and says what failed", async () => {
  const definition = homePage(phone.wx, OPTIONS);
  const page = { data: definition.data, setData: (data: Partial<typeof definition.data>) => void (page.data = { ...page.data, ...data }) };
  await definition.onShow.call(page);
  expect(page.data.failure).toContain("the bundle can't be fetched");
  phone.offered = released(3);
  await definition.onShow.call(page);
  expect(page.data.failure).toBe("");
  expect(page.data.items).toHaveLength(10);
  const [{ itemId, why }] = page.data.items;
  expect(why).toBe("");
  await definition.tap.call(page, { currentTarget: { dataset: { id: itemId } } });
  expect(page.data.items[0]).toEqual({ itemId, why, title: page.data.items[0].title }); // no consent: nothing is kept
  await definition.consent.call(page, { detail: { value: true } });
  expect(page.data.personalises).toBe(true);
  await definition.tap.call(page, { currentTarget: { dataset: { id: itemId } } });
  expect(page.data.items[0].why).toMatch(/^because you bought/);
  expect(page.data.items.map((item) => item.itemId)).not.toContain(itemId);
});
