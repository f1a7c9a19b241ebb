/** Walk the vectors with the built core under `node --jitless`; the zips come in a folder. Prints what is wrong. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { walkCase } from "../build/walk.js";
import { Recommender } from "../dist/core.js";

const [, , vectors, zips] = process.argv;
const json = (name) => JSON.parse(readFileSync(join(vectors, name), "utf8"));
const { key, cases } = json("index.json");
if (typeof WebAssembly !== "undefined") console.log("WebAssembly is there: this is not jitless");
let calls = 0;
for (const name of cases) {
  const asked = json(name);
  const bundle = new Uint8Array(readFileSync(join(zips, `${asked.bundle}.zip`)));
  for (const failure of await walkCase(Recommender.load, bundle, key, asked)) console.log(failure);
  calls += asked.calls.length;
}
console.log(`${cases.length} cases, ${calls} calls`);
