/** Build the storefront, serve it, and visit it in a real Chromium. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium, type Browser, type FrameLocator, type Page } from "playwright-core";
import { preview, type PreviewServer } from "vite";

import { CHROMIUM } from "./chromium";
import { INDEX, VECTORS } from "./vectors";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const CONFIG = join(PACKAGE, "examples/storefront/vite.config.ts");

/** Build it as the environment says: XREC_BUNDLE, XREC_KEY and XREC_STOREFRONT, the folder that it goes to. */
export function buildShop(environment: Readonly<Record<string, string>> = {}): void {
  const vite = join(PACKAGE, "node_modules/vite/bin/vite.js");
  const words = [vite, "build", "--logLevel", "error", "--config", CONFIG];
  execFileSync(process.execPath, words, { cwd: PACKAGE, env: { ...process.env, ...environment } });
}

/** The built storefront, served, and a browser for it. */
export class Storefront {
  private constructor(
    readonly folder: string,
    readonly site: PreviewServer,
    private readonly browser: Browser,
  ) {}

  /** Build it around a bundle of the vectors, or around the one that XREC_BUNDLE and XREC_KEY name, and serve it. */
  static async open(): Promise<Storefront> {
    const folder = mkdtempSync(join(tmpdir(), "xrec-"));
    process.env.XREC_BUNDLE ??= join(VECTORS, "ranked.xrec");
    process.env.XREC_KEY ??= INDEX.key;
    process.env.XREC_STOREFRONT = join(folder, "site");
    buildShop();
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
    return new Storefront(folder, await serve(), browser);
  }

  /** Serve it once more, as the environment says: XREC_SYNC_URL and XREC_SYNC_TOKEN. */
  async serve(environment: Readonly<Record<string, string>> = {}): Promise<PreviewServer> {
    Object.assign(process.env, environment);
    const site = await serve();
    for (const name of Object.keys(environment)) delete process.env[name];
    return site;
  }

  /** Open a page as a new user; what goes wrong in it is in `errors`. */
  async visit(path: string, at = this.site): Promise<{ page: Page; errors: string[] }> {
    const context = await this.browser.newContext({ locale: "en-US", viewport: { width: 1500, height: 900 } });
    context.setDefaultTimeout(120_000);
    const [page, errors]: [Page, string[]] = [await context.newPage(), []];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(urlOf(at, path));
    return { page, errors };
  }

  async close(): Promise<void> {
    await this.browser.close();
    await this.site.close();
    rmSync(this.folder, { recursive: true });
  }
}

function serve(): Promise<PreviewServer> {
  return preview({ configFile: CONFIG, logLevel: "error", preview: { port: 0, host: "127.0.0.1" } });
}

export const urlOf = (site: PreviewServer, path = "") => site.resolvedUrls!.local[0] + path;

export type Shop = Page | FrameLocator;

export const frameOf = (page: Page, device: string) => page.frameLocator(`iframe[name="${device}"]`);
export const itemsOf = (shop: Shop) => shop.locator('[data-shelf="picked"] [data-item]');
export const titlesOf = (shop: Shop) => shop.locator('[data-shelf="picked"] .title').allTextContents();
export const buy = (shop: Shop, place: number) => itemsOf(shop).nth(place).getByRole("button", { name: "Buy now" }).click();

/** Say yes to being remembered. */
export async function agree(shop: Shop): Promise<void> {
  const button = shop.getByRole("button", { name: "Yes, remember" });
  await button.click();
  await button.waitFor({ state: "hidden" }); // the answer is kept
}
