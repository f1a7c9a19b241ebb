/**
 * The storefront in a real Chromium while the server's build is replaced: whatever is reloaded, cut or mixed meanwhile, a page is
 * made of one whole build and its bundle, the old or the new.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium, type Browser, type Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { CHROMIUM, hasChromium } from "./chromium";
import { buildShop, itemsOf, titlesOf } from "./shop";
import { INDEX, VECTORS } from "./vectors";

const KINDS: Readonly<Record<string, string>> = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
const BIG = "/shop.xrec/items.bin";

describe.skipIf(!hasChromium())("the storefront in the middle of an update", () => {
  let [folder, browser, server]: [string, Browser, Server] = ["", null!, null!];
  let [site, oldList]: [string, string[]] = ["", []];
  /** How the big file is answered, where not as it is. */
  let trouble: ((response: ServerResponse, content: Buffer) => void) | null = null;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "xrec-"));
    for (const [name, bundle] of [["old", "pool.xrec"], ["new", "ranked.xrec"]]) {
      buildShop({ XREC_BUNDLE: join(VECTORS, bundle), XREC_KEY: INDEX.key, XREC_STOREFRONT: join(folder, name) });
    }
    server = createServer((request, response) => {
      const { pathname } = new URL(request.url!, "http://localhost");
      const file = join(folder, site, pathname === "/" ? "index.html" : pathname);
      if (!existsSync(file)) return void response.writeHead(404).end();
      const content = readFileSync(file);
      response.setHeader("Content-Type", KINDS[file.split(".").pop()!] ?? "application/octet-stream");
      response.setHeader("Content-Length", content.length);
      if (pathname === BIG && trouble) trouble(response, content);
      else response.end(content);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  }, 300_000);

  afterAll(async () => {
    await browser.close();
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  });

  let page: Page;
  const shop = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}/shop.html?device=phone`;
  const list = async () => {
    await itemsOf(page).first().waitFor();
    return titlesOf(page);
  };
  /** Return how the worker that answers stands, and the one that waits for its place, once none is on its way. */
  const installed = () => page.evaluate(async () => {
    const { installing } = (await navigator.serviceWorker.getRegistration())!;
    if (installing) await new Promise((resolve) => installing.addEventListener("statechange", resolve, { once: true }));
    const { active, waiting } = (await navigator.serviceWorker.getRegistration())!;
    return [active?.state, waiting?.state];
  });

  /** Visit the old build until it is on the device, and put the new one on the server. */
  beforeEach(async () => {
    [site, trouble] = ["old", null];
    const context = await browser.newContext({ locale: "en-US" });
    context.setDefaultTimeout(120_000);
    page = await context.newPage();
    await page.goto(shop());
    oldList = await list();
    await page.evaluate(async () => {
      await navigator.serviceWorker.ready;
    });
    site = "new";
    return () => context.close();
  }, 300_000);

  /** Reload until the new build's worker asks for the big file, and return its answer, half sent. */
  async function halfSent(): Promise<ServerResponse> {
    const asked = new Promise<ServerResponse>((resolve) => {
      trouble = (response, content) => {
        response.write(content.subarray(0, content.length >> 1));
        resolve(response);
      };
    });
    await page.reload();
    return asked;
  }

  test("a reload while the new bundle is half here answers from the old one, whole, without a network too", async () => {
    const answer = await halfSent();
    await page.reload();
    expect(await list()).toEqual(oldList);
    await page.context().setOffline(true);
    await page.reload();
    expect(await list()).toEqual(oldList);
    answer.destroy();
  }, 300_000);

  test("a download that is cut short leaves the old bundle; the next one is whole, and takes over once no page of the old build is open", async () => {
    (await halfSent()).destroy();
    expect(await installed()).toEqual(["activated", undefined]);
    await page.reload();
    expect(await list()).toEqual(oldList);
    trouble = null;
    await page.reload();
    await expect.poll(installed, { timeout: 120_000 }).toEqual(["activated", "installed"]);
    await page.reload();
    expect(await list()).toEqual(oldList);
    await page.goto("about:blank");
    await page.goto(shop());
    const newList = await list();
    expect(newList).not.toEqual(oldList);
    await page.context().setOffline(true);
    await page.reload();
    expect(await list()).toEqual(newList);
    const kept = await page.evaluate(() => caches.keys());
    expect(kept.filter((name) => name !== "network")).toHaveLength(1);
  }, 300_000);

  test("a file of another build among the new one's is refused with them all", async () => {
    const stale = readFileSync(join(folder, "old", BIG));
    const sent = new Promise<void>((resolve) => {
      trouble = (response) => response.setHeader("Content-Length", stale.length).end(stale, resolve);
    });
    await page.reload();
    await sent;
    expect(await installed()).toEqual(["activated", undefined]);
    await page.context().setOffline(true);
    await page.reload();
    expect(await list()).toEqual(oldList);
  }, 300_000);
});
