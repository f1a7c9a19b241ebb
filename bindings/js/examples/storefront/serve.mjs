/**
 * Serve the built storefront at http://localhost:4173, with a sync server of its own beside it for development; the frames
 * share one store where there is no `xrec-server` (`XREC_SERVER`, or that of .venv).
 */

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { preview } from "vite";

const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
const SERVER = process.env.XREC_SERVER ?? join(ROOT, ".venv/bin/xrec-server");
const FOLDER = join(ROOT, "build/storefront");

/** Start the server on a free port, and return its address, a user's token and how to end it. */
async function startServer() {
  mkdirSync(FOLDER, { recursive: true });
  const keys = join(FOLDER, "dev");
  const words = ["keygen-dev", keys, "--subject", "you"];
  const token = execFileSync(SERVER, words, { stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
  const files = ["--database", join(FOLDER, "profiles.db"), "--ledger", join(FOLDER, "ledger.db")];
  const own = ["--keys", join(keys, "jwks.json"), "--secret", join(keys, "secret"), "--port", "0"];
  const child = spawn(SERVER, ["serve", ...files, ...own], { stdio: ["ignore", "pipe", "ignore"] });
  for await (const line of createInterface(child.stdout)) {
    return { url: `http://127.0.0.1:${JSON.parse(line).port}`, token, end: () => child.kill() };
  }
  throw new Error("xrec-server ended before it listened: look at build/storefront");
}

if (existsSync(SERVER)) {
  const server = await startServer();
  process.env.XREC_SYNC_URL = server.url;
  process.env.XREC_SYNC_TOKEN = server.token;
  process.on("exit", server.end);
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit());
  console.log(`each frame is a device of its own; they share a profile through xrec-server at ${server.url}`);
} else {
  console.log(`there is no xrec-server at ${SERVER}: the frames share one store`);
}
const site = await preview({ configFile: fileURLToPath(new URL("vite.config.ts", import.meta.url)), preview: { strictPort: true } });
site.printUrls();
