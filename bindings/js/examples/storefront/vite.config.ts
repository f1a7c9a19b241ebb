/**
 * Build the storefront around a bundle: `XREC_BUNDLE` is its folder, `XREC_KEY` the key to pin. It is served beside the sync
 * server at `XREC_SYNC_URL`, for the user of `XREC_SYNC_TOKEN`, where there is one (serve.mjs).
 */

import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { defineConfig, type Plugin } from "vite";

const HERE = dirname(fileURLToPath(import.meta.url));
const SDK = resolve(HERE, "../..");
const BUNDLE = resolve(process.env.XREC_BUNDLE ?? join(SDK, "../../build/demo/shop.xrec"));
if (!existsSync(join(BUNDLE, "manifest.json"))) {
  throw new Error(`there is no bundle at ${BUNDLE}: \`make demo\` makes one, or set XREC_BUNDLE`);
}

/** Nothing runs that the build did not write, and nothing is fetched from elsewhere. */
export const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "frame-src 'self'",
  "worker-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'self'",
].join("; ");

/** The key that the app pins comes from who released the bundle, not from the bundle. */
function releaseKey(): string {
  if (process.env.XREC_KEY) return process.env.XREC_KEY;
  const pem = readFileSync(join(BUNDLE, "../release.pem"));
  const der = createPublicKey(createPrivateKey(pem)).export({ format: "der", type: "spki" });
  return `ed25519:${der.subarray(-32).toString("base64")}`;
}

/** Put the bundle beside the pages, and into the service worker the names of all that it must keep. */
function withBundle(): Plugin {
  return {
    name: "xrec-bundle",
    apply: "build",
    generateBundle(_, made) {
      const emit = (fileName: string, source: string | Uint8Array) => this.emitFile({ type: "asset", fileName, source });
      const names = readdirSync(BUNDLE);
      const manifest = readFileSync(join(BUNDLE, "manifest.json"), "utf8");
      for (const name of names) emit(`shop.xrec/${name}`, readFileSync(join(BUNDLE, name)));
      emit("release.json", JSON.stringify({ release: (JSON.parse(manifest) as { release: number }).release }));
      const pages = ["index.html", "shop.html", "icon.svg"];
      const files = [...new Set([...Object.keys(made), ...pages, ...names.map((name) => `shop.xrec/${name}`)])];
      const kept = ["/", ...files.filter((name) => name !== "release.json").map((name) => `/${name}`)].sort();
      const worker = readFileSync(join(HERE, "src/sw.js"), "utf8");
      const sources = Object.values(made).map((file) => (file.type === "chunk" ? file.code : Buffer.from(file.source)));
      const hash = createHash("sha256");
      for (const part of [worker, manifest, ...kept, ...sources]) hash.update(part);
      const name = `storefront-${hash.digest("hex").slice(0, 16)}`;
      emit("sw.js", worker.replace("__FILES__", JSON.stringify(kept)).replace("__NAME__", name));
    },
  };
}

/** Tell the pages whose they are: the token of the development server's one user, null without a server. */
function withSession(): Plugin {
  const token = process.env.XREC_SYNC_TOKEN ?? null;
  return {
    name: "xrec-session",
    configurePreviewServer({ middlewares }) {
      middlewares.use("/session.json", (_, response) => {
        response.setHeader("Content-Type", "application/json");
        response.setHeader("Cache-Control", "no-store");
        response.end(JSON.stringify({ token }));
      });
    },
  };
}

export default defineConfig({
  root: HERE,
  cacheDir: join(SDK, "node_modules/.vite"),
  define: { TRUSTED_KEYS: JSON.stringify([releaseKey()]) },
  resolve: { alias: { "@xrec/sdk/core": join(SDK, "dist/core.js"), "@xrec/sdk/sync": join(SDK, "dist/syncBrowser.js") } },
  build: {
    outDir: process.env.XREC_STOREFRONT ?? join(HERE, "dist"),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 150,
    rolldownOptions: { input: { index: join(HERE, "index.html"), shop: join(HERE, "shop.html") } },
  },
  preview: {
    port: 4173,
    proxy: process.env.XREC_SYNC_URL ? { "/v1": process.env.XREC_SYNC_URL } : {},
    headers: { "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer" },
  },
  plugins: [withBundle(), withSession()],
});
