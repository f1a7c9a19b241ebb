/** A bundle opens from a folder, a zip and a URL; a folder that holds anything but plain files is refused. */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { afterEach, beforeEach, expect, test } from "vitest";

import { BundleDamaged, checkConformance, Recommender, UsageError } from "../src/node";
import { INDEX, VECTORS, zipOf } from "./vectors";

const OPTIONS = { trustedKeys: [INDEX.key] };
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "xrec-"));
  path = join(folder, "pool.xrec");
  cpSync(join(VECTORS, "pool.xrec"), path, { recursive: true });
});
afterEach(() => rmSync(folder, { recursive: true }));

async function codeOf(bundle: string): Promise<string> {
  const error = await Recommender.load(bundle, OPTIONS).then(() => null, (cause: unknown) => cause);
  expect(error).toBeInstanceOf(BundleDamaged);
  return (error as BundleDamaged).code;
}

test("a folder and a zip give the same bundle, and the golden cases pass", async () => {
  writeFileSync(join(folder, "pool.zip"), zipOf("pool.xrec"));
  for (const bundle of [path, join(folder, "pool.zip"), pathToFileURL(path), zipOf("pool.xrec"), zipOf("pool.xrec").buffer]) {
    const recommender = await Recommender.load(bundle as Uint8Array, OPTIONS);
    expect(recommender.bundle.key).toBe(INDEX.key);
    expect(await checkConformance(recommender.runtime, recommender.bundle)).toBe(6);
    await recommender.close();
  }
});

test("links, folders and pipes in a bundle, and a link to one, are refused", async () => {
  symlinkSync(path, join(folder, "link"));
  expect(await codeOf(join(folder, "link"))).toBe("bundle.not_plain");
  mkdirSync(join(path, "inner"));
  expect(await codeOf(path)).toBe("bundle.not_plain");
  rmSync(join(path, "inner"), { recursive: true });
  renameSync(join(path, "card.md"), join(folder, "elsewhere"));
  symlinkSync(join(folder, "elsewhere"), join(path, "card.md"));
  expect(await codeOf(path)).toBe("bundle.not_plain");
  unlinkSync(join(path, "card.md"));
  execFileSync("mkfifo", [join(path, "card.md")]);
  expect(await codeOf(path)).toBe("bundle.not_plain");
});

test("nothing at the path, and a file too many, have their codes", async () => {
  expect(await codeOf(join(folder, "none"))).toBe("bundle.not_found");
  writeFileSync(join(path, "extra"), "");
  expect(await codeOf(path)).toBe("bundle.file_extra");
});

test("threads must be a whole number", async () => {
  const error = await Recommender.load(path, { ...OPTIONS, threads: 1.5 }).catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(UsageError);
  expect((error as UsageError).code).toBe("usage.num_threads");
});

test("calls at the same time give the lists that calls one after the other give", async () => {
  const recommender = await Recommender.load(path, OPTIONS);
  await recommender.setConsent("personalise", true);
  await recommender.record("view", "sku-9", { device: "pc", atMs: 5 });
  const list = async (k: number) => (await recommender.recommend({ k, explain: true })).map(({ itemId }) => itemId);
  const sizes = [3, 30, 7, 140, 1, 12];
  const together = await Promise.all(sizes.map(list));
  for (const [place, k] of sizes.entries()) expect(together[place]).toEqual(await list(k));
  await recommender.close();
});

test("two threads give the list that one gives", async () => {
  const lists = [];
  for (const threads of [1, 2]) {
    const recommender = await Recommender.load(path, { ...OPTIONS, threads });
    await recommender.setConsent("personalise", true);
    await recommender.record("view", "sku-9", { device: "pc", atMs: 5 });
    lists.push((await recommender.recommend({ k: 20 })).map(({ itemId }) => itemId));
    await recommender.close();
  }
  expect(lists[0]).toHaveLength(20);
  expect(lists[1]).toEqual(lists[0]);
});
