/**
 * Build the storefront around a bundle: `XREC_BUNDLE` is its folder, `XREC_KEY` the key to pin. It is served beside the sync
 * server at `XREC_SYNC_URL`, for the user of `XREC_SYNC_TOKEN`, where there is one (serve.mjs).
 */

import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
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

/** Put the bundle beside the pages, and into the service worker the hash of every file that it must keep. */
function withBundle(): Plugin {
  return {
    name: "xrec-bundle",
    apply: "build",
    writeBundle({ dir }) {
      const site = dir!;
      cpSync(BUNDLE, join(site, "shop.xrec"), { recursive: true });
      const written = readdirSync(site, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      const paths = written.map(({ parentPath, name }) => relative(site, join(parentPath, name)).replaceAll("\\", "/")).sort();
      const digest = (content: string | Uint8Array, as: "base64" | "hex") => createHash("sha256").update(content).digest(as);
      const integrity = (path: string) => `sha256-${digest(readFileSync(join(site, path)), "base64")}`;
      const kept = Object.fromEntries([["/", integrity("index.html")], ...paths.map((path) => [`/${path}`, integrity(path)])]);
      const worker = readFileSync(join(HERE, "src/sw.js"), "utf8").replace("__FILES__", JSON.stringify(kept));
      const name = `storefront-${digest(worker, "hex").slice(0, 16)}`;
      writeFileSync(join(site, "sw.js"), worker.replace("__NAME__", name));
      const { release } = JSON.parse(readFileSync(join(BUNDLE, "manifest.json"), "utf8")) as { release: number };
      writeFileSync(join(site, "release.json"), JSON.stringify({ release }));
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
  appType: "mpa", // what is not there is not the first page
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
