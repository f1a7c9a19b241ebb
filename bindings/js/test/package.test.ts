/** The packed package works in an empty project, by import and by require, with its types; publint finds nothing. */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { publint } from "publint";
import { afterAll, beforeAll, expect, test } from "vitest";

import { INDEX, zipOf } from "./vectors";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const PEERS = ["onnxruntime-node", "onnxruntime-common", "@types"];
const USE = `(async () => {
  const bundle = new Uint8Array(readFileSync("pool.zip"));
  const recommender = await Recommender.load(bundle, { trustedKeys: ["${INDEX.key}"] });
  await recommender.setConsent("personalise", true);
  await recommender.record("view", "sku-1", { device: "pc", atMs: 1 });
  console.log((await recommender.recommend({ k: 3 })).map((item) => item.itemId).join(" "));
  await recommender.close();
})();`;
let project: string;

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), "xrec-"));
  run("npm", ["pack", "--ignore-scripts", "--pack-destination", project], PACKAGE);
  const packed = readdirSync(project).find((name) => name.endsWith(".tgz"))!;
  writeFileSync(join(project, "package.json"), '{"name":"app","private":true}');
  run("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", `./${packed}`], project);
  // The peer that an app installs beside it, from the copy that is here: a test needs no network.
  for (const peer of PEERS) symlinkSync(join(PACKAGE, "node_modules", peer), join(project, "node_modules", peer));
  writeFileSync(join(project, "pool.zip"), zipOf("pool.xrec"));
}, 300_000);
afterAll(() => rmSync(project, { recursive: true }));

function run(command: string, words: readonly string[], cwd: string): string {
  return execFileSync(command, words, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

function listOf(file: string, script: string): string {
  writeFileSync(join(project, file), script);
  return run(process.execPath, [file], project).trim();
}

test("import and require give the same list, with onnxruntime-node and with core", () => {
  const lists = ["@xrec/sdk", "@xrec/sdk/core"].flatMap((name) => [
    listOf("app.mjs", `import { readFileSync } from "node:fs"; import { Recommender } from "${name}"; ${USE}`),
    listOf("app.cjs", `const { readFileSync } = require("node:fs"); const { Recommender } = require("${name}"); ${USE}`),
  ]);
  expect(lists[0].split(" ")).toHaveLength(3);
  expect(new Set(lists).size).toBe(1);
}, 300_000);

test.each(["nodenext", "bundler"])("an app type-checks with module resolution %s, and a wrong call does not", (resolution) => {
  const lines = [
    'import { Recommender, UsageError, type Recommendation } from "@xrec/sdk";',
    'import { Recommender as Core } from "@xrec/sdk/core"; import { IndexedDbProfile } from "@xrec/sdk/indexeddb";',
    'import { openProfile, type SyncStatus } from "@xrec/sdk/sync";',
    'import { applyDelta } from "@xrec/sdk/delta"; applyDelta(new Uint8Array(), new Uint8Array(), { trustedKeys: [] });',
    'import { defineRecommendations } from "@xrec/sdk/element"; defineRecommendations(Core, { trustedKeys: [] });',
    "export async function first(bytes: Uint8Array): Promise<Recommendation | undefined> {",
    '  const one: Recommender = await Recommender.load(bytes, { trustedKeys: ["ed25519:..."], threads: 2 });',
    "  const two = await Core.load(bytes, { allowUnsigned: true });",
    '  await two.setConsent("personalise", true, { policy: "1" }); await two.record("view", "sku-1", { device: "phone" }); console.log(IndexedDbProfile);',
    '  const profile = await openProfile("shared"); await profile.startSync("https://sync.example", async () => "token");',
    '  const status: SyncStatus = await profile.syncStatus(); if (status.state === "up_to_date") await Recommender.load(bytes, { profile });',
    "  try { return (await one.recommend({ k: 1, where: (entry) => entry.price === 3 }))[0]; }",
    "  catch (error) { if (error instanceof UsageError) console.log(error.code); return undefined; }",
    "}",
  ];
  const files = ["app.mts", ...(resolution === "nodenext" ? ["app.cts"] : [])];
  for (const file of files) writeFileSync(join(project, file), lines.join("\n"));
  writeFileSync(join(project, "wrong.mts"), [...lines, 'void Recommender.load("x", { trustedKeys: "one" });'].join("\n"));
  const module = resolution === "bundler" ? "esnext" : "nodenext";
  const words = ["--noEmit", "--strict", "--target", "es2022", "--module", module, "--moduleResolution", resolution];
  const tsc = join(PACKAGE, "node_modules/typescript/bin/tsc");
  const said = spawnSync(process.execPath, [tsc, ...words, "--types", "node", ...files, "wrong.mts"], { cwd: project });
  const errors = said.stdout.toString().split("\n").filter((line) => line.includes("error TS"));
  expect(errors).toEqual([expect.stringMatching(/^wrong\.mts\(15,\d+\): error TS2322/)]);
}, 300_000);

test("a profile that devices share is opened by import and by require", () => {
  const use = '(async () => { const profile = await openProfile("p.profile"); console.log((await profile.syncStatus()).state); await profile.close(); })();';
  expect(listOf("sync.mjs", `import { openProfile } from "@xrec/sdk/sync"; ${use}`)).toBe("off");
  expect(listOf("sync.cjs", `const { openProfile } = require("@xrec/sdk/sync"); ${use}`)).toBe("off");
});

test("what is packed is the build, the README and the licences of others, and nothing of this machine", () => {
  const home = join(project, "node_modules/@xrec/sdk");
  expect(readdirSync(home).sort()).toEqual(["README.md", "THIRD-PARTY.md", "dist", "package.json"]);
  for (const name of readdirSync(join(home, "dist"))) {
    const text = readFileSync(join(home, "dist", name), "utf8");
    expect(text.includes(PACKAGE), `${name} names a path`).toBe(false);
    if (/\.c?js$/.test(name)) expect(/\beval\(|new Function/.test(text), `${name} makes code`).toBe(false);
  }
});

test("the README's map says of each file what its first sentence says", () => {
  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  const files = ["src", "src/onnx", "src/sync"].flatMap((home) => readdirSync(join(PACKAGE, home)).map((name) => `${home}/${name}`));
  for (const file of files.filter((name) => name.endsWith(".ts"))) {
    const [, comment] = /^\/\*\*([^]*?)\*\//.exec(readFileSync(join(PACKAGE, file), "utf8"))!;
    const [sentence] = comment.replace(/\n \* ?/g, " ").trim().split(/(?<=[.]) /);
    expect(readme).toContain(`| ${file} | ${sentence} |`);
  }
});

test.each(["browser", "node", "core", "syncBrowser", "sync", "element", "delta"])("what an app pays for %s stays within its bound", async (entry) => {
  // A script without types: it runs alone too.
  const { LIMITS, sizeOf } = (await import(new URL("../bench/sizes.mjs", import.meta.url).href)) as {
    LIMITS: Record<string, number>;
    sizeOf(entry: string): Promise<{ first: number; later: number }>;
  };
  const { first, later } = await sizeOf(entry);
  expect(first).toBeGreaterThan(1_000);
  expect(first).toBeLessThanOrEqual(LIMITS[entry]);
  expect(later).toBeLessThan(11_000); // Ed25519 by hand, reasons, searches, diversity: each is loaded by itself
}, 300_000);

test("publint finds nothing", async () => {
  const { messages } = await publint({ pkgDir: PACKAGE, strict: true });
  expect(messages).toEqual([]);
}, 300_000);
