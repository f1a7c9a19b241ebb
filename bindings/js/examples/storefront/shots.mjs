/**
 * Take a picture of each state of the built storefront (`npm run storefront` builds it), with `xrec-server` beside it where there
 * is one; each state has a user of its own.
 *
 *     npm run shots ../../build/shots
 *     npm run shots ../../build/shots tapped offline
 *
 * `everywhere` is the picture of the README (docs/storefront.png).
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { isServed, serveShop, SERVER } from "./serving.mjs";

const DEVICES = ["phone", "pc", "mini_program"];
const WIDE = { width: 1680, height: 1040 };
const DESK = { width: 1180, height: 860 };
const NARROW = { width: 390, height: 844 };
const SETTLE_MS = 1000;
const NOTICE_MS = 4000;
const THERE = { state: "attached" }; // a narrow page shows one device at a time

const frameOf = (page, device) => page.frameLocator(`iframe[name="${device}"]`);
const itemsOf = (shop, shelf = "picked") => shop.locator(`[data-shelf="${shelf}"] [data-item]`);
const button = (shop, name) => shop.getByRole("button", { name });
const heading = (shop, name) => shop.getByRole("heading", { name }).waitFor();

async function agree(shop) {
  await button(shop, "Yes, remember").click();
  await button(shop, "Yes, remember").waitFor({ state: "hidden" });
}

/** Agree in a shop, and buy the first item of its list. */
async function agreeAndBuy(shop) {
  await agree(shop);
  await button(itemsOf(shop).first(), "Buy now").click();
  await shop.locator(".why").first().waitFor();
}

/** Agree on the phone and buy there; the PC's list has followed. */
async function tap(page) {
  await agree(frameOf(page, "phone"));
  await inStep(page);
  await button(itemsOf(frameOf(page, "phone")).first(), "Buy now").click();
  await frameOf(page, "pc").locator(".why", { hasText: "on your phone" }).first().waitFor(THERE);
}

const inStep = (page) => page.locator('[data-fact="sync"]', { hasText: /✓.*✓.*✓|one store/ }).waitFor();

async function forget(page) {
  await button(page, "Forget me").click();
  for (const device of DEVICES) await heading(frameOf(page, device), "Popular now");
  await page.locator('[data-fact="events"]', { hasText: /^0 \(/ }).waitFor();
}

async function cut(page) {
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => null));
  await page.getByRole("switch", { name: "Cut the network" }).click();
  await frameOf(page, "phone").getByText("Everything still works.").waitFor();
}

const SHOWCASE = { viewport: WIDE, path: "/", first: (page) => frameOf(page, "phone") };
const PC = { viewport: DESK, path: "/shop.html?device=pc", first: (page) => page };
const PHONE = { viewport: NARROW, path: "/shop.html?device=phone", first: (page) => page };

/** Where each picture is taken, and what is done on the fresh page before it. */
const STATES = {
  fresh: { ...SHOWCASE, act: async () => {} },
  tapped: { ...SHOWCASE, act: tap },
  everywhere: {
    ...SHOWCASE,
    async act(page) {
      await tap(page);
      const [pc, mini] = [frameOf(page, "pc"), frameOf(page, "mini_program")];
      await button(itemsOf(pc).nth(1), "Buy now").click();
      await mini.locator(".why", { hasText: "on your PC" }).first().waitFor();
      await button(itemsOf(mini).filter({ hasText: "Wheat" }).first(), "Buy now").click();
      await pc.locator(".why", { hasText: "in the mini-program" }).first().waitFor();
      await mini.locator("body").evaluate(() => scrollTo(0, 0));
      await page.waitForTimeout(NOTICE_MS);
    },
  },
  offline: {
    ...SHOWCASE,
    async act(page) {
      await tap(page);
      await cut(page);
      await page.reload();
      const mini = frameOf(page, "mini_program");
      await mini.locator(".why").first().waitFor();
      await button(itemsOf(mini).first(), "Buy now").click();
      await mini.locator(".why", { hasText: "in the mini-program" }).first().waitFor();
    },
  },
  refused: {
    ...SHOWCASE,
    async act(page) {
      const phone = frameOf(page, "phone");
      await button(phone, "No, thanks").click();
      await button(phone, "No, thanks").waitFor({ state: "hidden" });
      await button(itemsOf(phone).first(), "Buy now").click();
      await phone.getByText("Nothing was kept").waitFor();
      await frameOf(page, "pc").getByRole("link", { name: "Your data" }).click();
      await frameOf(page, "pc").getByText("0 events are kept.").waitFor();
    },
  },
  withdrawn: {
    ...SHOWCASE,
    async act(page) {
      await tap(page);
      const pc = frameOf(page, "pc");
      await pc.getByRole("link", { name: "Your data" }).click();
      await pc.getByRole("switch").click();
      await heading(frameOf(page, "phone"), "Popular now");
      await heading(frameOf(page, "mini_program"), "Popular now");
    },
  },
  forgotten: {
    ...SHOWCASE,
    async act(page) {
      await tap(page);
      await forget(page);
    },
  },
  chinese: {
    ...SHOWCASE,
    async act(page) {
      await tap(page);
      await button(page.getByRole("banner"), "中文").click();
      await heading(frameOf(page, "pc"), "再次购买");
    },
  },
  narrow: {
    ...SHOWCASE,
    viewport: NARROW,
    async act(page) {
      await page.locator("figure").first().evaluate((device) => device.scrollIntoView({ block: "end" }));
      await tap(page);
      await button(page, "PC").click();
      await page.evaluate(() => scrollTo(0, 0));
    },
  },
  asked: { ...PHONE, act: async () => {} },
  picked: { ...PHONE, act: agreeAndBuy },
  search: {
    ...PC,
    async act(page) {
      await agreeAndBuy(page);
      await page.getByRole("searchbox").fill("milk");
      await page.keyboard.press("Enter");
      await itemsOf(page, "found").first().waitFor();
    },
  },
  aisle: {
    ...PC,
    async act(page) {
      await agreeAndBuy(page);
      await page.getByRole("link", { name: "Bread & cakes" }).click();
      await itemsOf(page, "aisle").first().waitFor();
    },
  },
  product: {
    ...PC,
    async act(page) {
      await agreeAndBuy(page);
      await itemsOf(page).nth(3).getByRole("link").click();
      await itemsOf(page, "alike").first().waitFor();
      await button(page, "Add to basket").first().click();
      await page.getByText("1 in the basket").waitFor();
    },
  },
  basket: {
    ...PC,
    async act(page) {
      await agree(page);
      for (const place of [0, 2, 5]) await button(itemsOf(page).nth(place), "Add to basket").click();
      await page.getByRole("link", { name: "Basket 3" }).click();
      await button(page, "One more").first().click();
      await page.getByRole("link", { name: "Basket 4" }).waitFor();
    },
  },
  data: {
    ...PC,
    async act(page) {
      await agreeAndBuy(page);
      await page.getByRole("link", { name: "Your data" }).click();
      await page.getByText("1 event is kept.").waitFor();
    },
  },
};
if (isServed) {
  STATES["asked-again"] = {
    ...PHONE,
    async act(page, visit) {
      const other = await visit(SHOWCASE);
      await tap(other);
      await forget(other);
      await inStep(other);
      await button(page, "Yes, remember").click();
      await page.getByText("Another of your devices said no").waitFor();
    },
  };
} else {
  console.log(`SKIPPED asked-again: there is no xrec-server at ${SERVER}; the frames of each picture share one store`);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** Open a page in a browser profile of its own. */
async function visit(url, { viewport, path, first }) {
  const context = await browser.newContext({ viewport, locale: "en-US" });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(new URL(path, url).href);
  await itemsOf(first(page)).first().waitFor();
  if (path === "/") for (const device of DEVICES) await itemsOf(frameOf(page, device)).first().waitFor(THERE);
  return page;
}

const [folder = "../../build/shots", ...wanted] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
for (const [name, state] of Object.entries(STATES)) {
  if (wanted.length && !wanted.includes(name)) continue;
  const files = mkdtempSync(join(tmpdir(), "xrec-"));
  const shop = await serveShop(files, { logLevel: "error", preview: { port: 0, host: "127.0.0.1" } });
  const open = (where) => visit(shop.site.resolvedUrls.local[0], where);
  const page = await open(state);
  await state.act(page, open);
  await page.waitForTimeout(SETTLE_MS); // what is under way is drawn
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: state.viewport !== NARROW });
  for (const context of browser.contexts()) await context.close();
  await shop.close();
  rmSync(files, { recursive: true });
  console.log(join(folder, `${name}.png`));
}
await browser.close();
