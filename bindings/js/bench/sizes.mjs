/** Print what an app pays for the binding: one minified bundle of what `import { Recommender }` needs, gzipped. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { rolldown } from "rolldown";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));

/** Return the chunks of an app that imports an entry, without onnxruntime: the first is loaded at once. */
async function chunksOf(entry) {
  const folder = await mkdtemp(join(tmpdir(), "xrec-"));
  try {
    const app = join(folder, "app.js");
    await writeFile(app, `export { Recommender } from ${JSON.stringify(join(DIST, `${entry}.js`))};\n`);
    const bundle = await rolldown({ input: app, external: [/^onnxruntime-/, /^node:/], platform: "neutral" });
    const { output } = await bundle.generate({ minify: true });
    return output.filter(({ type }) => type === "chunk").map(({ code }) => gzipSync(code, { level: 9 }).length);
  } finally {
    await rm(folder, { recursive: true });
  }
}

for (const entry of ["browser", "node", "core"]) {
  const [first, ...later] = await chunksOf(entry);
  console.log(`${entry.padEnd(8)} ${first} bytes gzipped; ${later} more only where WebCrypto lacks Ed25519`);
}
