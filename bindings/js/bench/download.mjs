/**
 * Print what a page downloads until its first lists, with WebAssembly and without, and how long it takes once all is cached:
 *
 *     npm run build && npm run download ../../build/demo/shop.xrec
 *     npm run download ../../build/demo/shop.xrec cached    # the times alone
 *
 * Each page is an app as Vite builds it, over a server on the loopback; Chromium keeps an HTTP cache on disk.
 */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

import { chromium } from "playwright-core";
import { build } from "vite";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const KINDS = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };
const VISITS = 11;
const COMPRESS = { none: (content) => content, gzip: (content) => gzipSync(content, { level: 9 }), br: (content) => brotliCompressSync(content) };

/** The app: `start` is when it begins to load the bundle, in milliseconds after the navigation began. */
const app = (entry, key) => `
import { Recommender } from ${JSON.stringify(join(DIST, `${entry}.js`))};
const start = performance.now();
const recommender = await Recommender.load("/shop.xrec/", { trustedKeys: [${JSON.stringify(key)}] });
const loaded = performance.now();
const [{ itemId }] = await recommender.recommend({ k: 10 });
const first = performance.now();
await recommender.setConsent("personalise", true);
await recommender.record("purchase", itemId, { device: "pc" });
const count = (await recommender.recommend({ k: 10 })).length;
document.body.textContent = JSON.stringify({ start, loaded, first, own: performance.now(), count });`;

/** Return the files of the app that loads the bundle by an entry, by path. */
async function appFiles(entry, bundle, folder) {
  const root = join(folder, entry);
  mkdirSync(root);
  const { key } = JSON.parse(readFileSync(join(bundle, "manifest.sig"), "utf8"));
  writeFileSync(join(root, "index.html"), '<!doctype html><title>xrec</title><body><script type="module" src="/app.js"></script>');
  writeFileSync(join(root, "app.js"), app(entry, key));
  const { output } = await build({ root, configFile: false, logLevel: "error", build: { target: "es2022", write: false, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 500 } });
  const files = new Map(output.map((made) => [`/${made.fileName}`, Buffer.from(made.code ?? made.source)]));
  files.set("/", files.get("/index.html"));
  for (const name of readdirSync(bundle)) files.set(`/shop.xrec/${name}`, readFileSync(join(bundle, name)));
  return files;
}

/** Visit the app in a browser of its own; return the bytes of each file that was asked for, and the times of the visits after the first. */
async function visit(files, encoding, visits, folder) {
  const bytes = new Map();
  const server = createServer((request, response) => {
    const content = files.get(request.url);
    if (!content) return void response.writeHead(404).end();
    const sent = COMPRESS[encoding](content);
    bytes.set(request.url, sent.length);
    const headers = { "content-type": KINDS[request.url.split(".").pop()] ?? (request.url === "/" ? "text/html" : "application/octet-stream") };
    if (encoding !== "none") headers["content-encoding"] = encoding;
    response.writeHead(200, { ...headers, "cache-control": "max-age=31536000, immutable" }).end(sent);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const context = await chromium.launchPersistentContext(mkdtempSync(join(folder, "chromium-")), { executablePath: CHROMIUM, args: ["--no-sandbox"] });
  const times = [];
  for (let place = 0; place < visits; place++) {
    const page = await context.newPage();
    page.setDefaultTimeout(120_000);
    const failed = new Promise((_, reject) => page.once("pageerror", reject));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await Promise.race([page.waitForFunction(() => document.body.textContent.startsWith("{")), failed]);
    const said = JSON.parse(await page.textContent("body"));
    if (said.count !== 10) throw new Error(`the list has ${said.count} items`);
    if (place) times.push(said);
    await page.close();
  }
  await context.close();
  server.closeAllConnections();
  server.close();
  return { bytes, times };
}

const [bundle, only] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "xrec-"));
const kb = (count) => `${(count / 1000).toFixed(0)} kB`.padStart(9);
const loads = () => loadavg().map((load) => load.toFixed(1)).join(" ");
console.log(`${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}; ${bundle.split("/").pop()}: ${readdirSync(bundle).length} files`);
try {
  for (const [label, entry] of [["core", "core"], ["WebAssembly", "browser"]]) {
    const files = await appFiles(entry, bundle, folder);
    for (const encoding of only === "cached" ? [] : Object.keys(COMPRESS)) {
      const { bytes } = await visit(files, encoding, 1, folder);
      const of = (pattern) => [...bytes].filter(([path]) => pattern.test(path)).reduce((sum, [, count]) => sum + count, 0);
      const parts = `page and scripts ${kb(of(/^(\/|.*\.js)$/))}, .wasm ${kb(of(/\.wasm$/))}, bundle ${kb(of(/^\/shop\.xrec\//))}`;
      console.log(`${label.padEnd(11)} ${encoding.padEnd(4)} ${kb(of(/./))}: ${parts}`);
    }
    const { times } = await visit(files, "gzip", VISITS, folder);
    const spread = (of) => {
      const sorted = times.map(of).toSorted((a, b) => a - b);
      return `${sorted[sorted.length >> 1].toFixed(0)} (${sorted[0].toFixed(0)})`;
    };
    console.log(`${label.padEnd(11)} cached, ${times.length} visits, p50 (least) ms, load average ${loads()}:`);
    console.log(`  load() ${spread((one) => one.loaded - one.start)}; to the first list ${spread((one) => one.first - one.start)}; to the first list by a purchase ${spread((one) => one.own - one.start)}; from the navigation ${spread((one) => one.own)}`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
