/** Time every engine of the binding on the zip and the cases in a folder, and print one JSON object. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { hasChromium, Site, STRICT, WITH_WASM } from "../test/chromium";

const folder = process.argv[2];
const asked = JSON.parse(readFileSync(join(folder, "asked.json"), "utf8"));
const bundle = new Uint8Array(readFileSync(join(folder, "bundle.zip")));
const { measure } = await import(new URL("../bench/ask.mjs", import.meta.url).href);
const dist = (entry: string) => import(new URL(`../dist/${entry}.js`, import.meta.url).href);

const found: Record<string, unknown> = {};
for (const [name, entry] of [["Node, onnxruntime-node", "node"], ["Node, core", "core"]]) {
  found[name] = await measure((await dist(entry)).Recommender.load, bundle, asked.key, asked.cases, asked.rounds);
}
if (hasChromium()) {
  const files = new Map<string, Uint8Array | string>();
  files.set("/asked.json", JSON.stringify(asked)).set("/bundle.zip", bundle);
  const site = await Site.open("/bench/page.mjs", files);
  found["Chromium, onnxruntime-web"] = await site.ask(WITH_WASM, { entry: "browser" });
  found["Chromium, core"] = await site.ask(STRICT, { entry: "core" });
  await site.close();
}
console.log(JSON.stringify(found));
