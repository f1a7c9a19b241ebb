/**
 * Serve the built storefront, with a sync server of its own beside it for development; the frames share one store where there is
 * no `xrec-server` (`XREC_SERVER`, or that of .venv).
 */

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { preview } from "vite";

const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
const CONFIG = fileURLToPath(new URL("vite.config.ts", import.meta.url));
export const SERVER = process.env.XREC_SERVER ?? join(ROOT, ".venv/bin/xrec-server");
export const isServed = existsSync(SERVER);

/** Start the sync server over files in a folder, on a free port, and return its address, a user's token and how to end it. */
async function startServer(folder) {
  mkdirSync(folder, { recursive: true });
  const keys = join(folder, "dev");
  const words = ["keygen-dev", keys, "--subject", "you"];
  const token = execFileSync(SERVER, words, { stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
  const files = ["--database", join(folder, "profiles.db"), "--ledger", join(folder, "ledger.db")];
  const own = ["--keys", join(keys, "jwks.json"), "--secret", join(keys, "secret"), "--port", "0"];
  const child = spawn(SERVER, ["serve", ...files, ...own], { stdio: ["ignore", "pipe", "ignore"] });
  for await (const line of createInterface(child.stdout)) {
    return { url: `http://127.0.0.1:${JSON.parse(line).port}`, token, end: () => child.kill() };
  }
  throw new Error(`xrec-server ended before it listened: look at ${folder}`);
}

/** Serve the pages, by what `options` says to Vite, and what the user's devices share out of a folder; return both and how to end them. */
export async function serveShop(folder, options) {
  const server = isServed ? await startServer(folder) : null;
  if (server) Object.assign(process.env, { XREC_SYNC_URL: server.url, XREC_SYNC_TOKEN: server.token });
  const end = () => server?.end();
  process.on("exit", end);
  const site = await preview({ configFile: CONFIG, ...options });
  return {
    site,
    server,
    async close() {
      await site.close();
      end();
      process.off("exit", end);
    },
  };
}
