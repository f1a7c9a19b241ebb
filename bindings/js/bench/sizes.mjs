/** Print what an app pays for the binding: one minified bundle of what `import { Recommender }` needs, gzipped. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { rolldown } from "rolldown";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));

/** The most bytes that each entry may have, minified and gzipped, without onnxruntime; test/package.test.ts keeps them. */
export const LIMITS = { browser: 15_000, node: 15_000, core: 20_000, syncBrowser: 20_000, sync: 20_000, element: 3_000, delta: 9_000 };

/** Return the gzipped bytes of an app that imports an entry: those that it loads at once, and those that may follow. */
export async function sizeOf(entry) {
  const folder = await mkdtemp(join(tmpdir(), "xrec-"));
  try {
    const app = join(folder, "app.js");
    const name = { sync: "openProfile", syncBrowser: "openProfile", element: "defineRecommendations", delta: "applyDelta" }[entry] ?? "Recommender";
    await writeFile(app, `export { ${name} } from ${JSON.stringify(join(DIST, `${entry}.js`))};\n`);
    // An app's own first file exports to nobody: what it and a later file need stays in it.
    const options = { external: [/^onnxruntime-/, /^node:/], platform: "neutral", preserveEntrySignatures: "allow-extension" };
    const bundle = await rolldown({ input: app, ...options });
    const { output } = await bundle.generate({ minify: true });
    const chunks = output.filter(({ type }) => type === "chunk");
    // What the first file imports comes with it; the rest is imported when it is needed.
    const named = new Map(chunks.map((chunk) => [chunk.fileName, chunk]));
    const atOnce = new Set(chunks.filter(({ isEntry }) => isEntry));
    for (const chunk of atOnce) for (const name of chunk.imports) if (named.has(name)) atOnce.add(named.get(name));
    const [first, later] = [true, false].map((isFirst) => chunks.filter((chunk) => atOnce.has(chunk) === isFirst));
    const bytes = (of) => of.reduce((sum, { code }) => sum + gzipSync(code, { level: 9 }).length, 0);
    return { first: bytes(first), later: bytes(later) };
  } finally {
    await rm(folder, { recursive: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [entry, most] of Object.entries(LIMITS)) {
    const { first, later } = await sizeOf(entry);
    console.log(`${entry.padEnd(11)} ${first} bytes gzipped, at most ${most}; ${later} more for reasons, diversity, searches, or a WebCrypto without Ed25519`);
  }
}
