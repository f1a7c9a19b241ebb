/** Build the storefront, and read its first list. */

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import type { FrameLocator, Page } from "playwright-core";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
export const CONFIG = join(PACKAGE, "examples/storefront/vite.config.ts");

/** Build it as the environment says: XREC_BUNDLE, XREC_KEY and XREC_STOREFRONT, the folder that it goes to. */
export function buildShop(environment: Readonly<Record<string, string>> = {}): void {
  const vite = join(PACKAGE, "node_modules/vite/bin/vite.js");
  const words = [vite, "build", "--logLevel", "error", "--config", CONFIG];
  execFileSync(process.execPath, words, { cwd: PACKAGE, env: { ...process.env, ...environment } });
}

export type Shop = Page | FrameLocator;

export const itemsOf = (shop: Shop) => shop.locator('[data-shelf="picked"] [data-item]');
export const titlesOf = (shop: Shop) => shop.locator('[data-shelf="picked"] .title').allTextContents();
