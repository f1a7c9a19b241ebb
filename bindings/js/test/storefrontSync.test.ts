/** The storefront in a real Chromium with the reference server beside it: each frame is a device of the one user. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import type { PreviewServer } from "vite";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import { hasChromium } from "./chromium";
import { Server } from "./devices";
import { hasPython } from "./python";
import { agree, buy, frameOf, itemsOf, Storefront, titlesOf } from "./shop";

describe.skipIf(!hasChromium() || !hasPython())("the storefront beside a sync server", () => {
  let storefront: Storefront;
  let [sync, own]: [Server, PreviewServer] = [null!, null!];

  beforeAll(async () => {
    storefront = await Storefront.open();
  }, 300_000);
  afterAll(() => storefront.close());
  afterEach(async () => {
    await own.close();
    await sync.kill();
  });

  /** Serve the pages with a sync server beside them, whose one user is new. */
  async function synced(name: string): Promise<PreviewServer> {
    const folder = join(storefront.folder, name);
    mkdirSync(folder);
    sync = new Server(folder, []);
    const token = sync.token();
    await sync.start();
    own = await storefront.serve({ XREC_SYNC_URL: sync.url, XREC_SYNC_TOKEN: token });
    return own;
  }

  test("beside a sync server each frame is a device: a tap reaches the others, offline too once they are back, and so does being forgotten", async () => {
    const { page, errors } = await storefront.visit("", await synced("everything"));
    const [phone, pc, mini] = ["phone", "pc", "mini_program"].map((device) => frameOf(page, device));
    for (const shop of [phone, pc, mini]) await itemsOf(shop).first().waitFor();
    const first = (await titlesOf(phone))[0];
    await agree(phone);
    await page.locator('[data-fact="sync"]', { hasText: "Phone ✓, PC ✓, Mini-program ✓" }).waitFor();
    await buy(phone, 0);
    for (const shop of [pc, mini]) await shop.locator(".why", { hasText: `Because you bought ${first} on your phone` }).first().waitFor();
    const databases = await page.evaluate(async () => (await indexedDB.databases()).map(({ name }) => name!).sort());
    expect(databases).toEqual(["corner-shop", "corner-shop-mini_program", "corner-shop-pc", "corner-shop-phone"]);

    await page.evaluate(async () => {
      await navigator.serviceWorker.ready;
    });
    await page.reload(); // from now on the worker stands between the pages and the network
    await itemsOf(mini).first().waitFor();
    await page.locator('[data-fact="sync"]', { hasText: "Phone ✓, PC ✓, Mini-program ✓" }).waitFor();
    await page.getByRole("switch", { name: "Cut the network" }).click();
    await mini.getByText("Everything still works.").waitFor();
    const second = (await titlesOf(mini))[0];
    await buy(mini, 0);
    await mini.locator(".why", { hasText: second }).first().waitFor();
    await page.locator('[data-fact="sync"]', { hasText: "Mini-program … 1" }).waitFor();
    await page.locator('[data-fact="events"]', { hasText: "1 (Phone 1" }).waitFor(); // the phone has not heard of it
    await page.getByRole("switch", { name: "Cut the network" }).click();
    await phone.locator(".why", { hasText: `Because you bought ${second} in the mini-program` }).first().waitFor();

    await page.getByRole("button", { name: "Forget me" }).click();
    for (const shop of [phone, pc, mini]) await shop.getByRole("heading", { name: "Popular now" }).waitFor();
    await page.locator('[data-fact="events"]', { hasText: "0 (Phone 0" }).waitFor();
    expect(errors.filter((text) => !text.includes("Failed to load resource"))).toEqual([]); // the cut network says so
    await page.context().close();
  }, 300_000);

  test("a yes in a new browser that did not know of an earlier refusal is asked for again, and then holds on all devices", async () => {
    const site = await synced("refused before");
    const { page: before } = await storefront.visit("", site);
    const inStep = before.locator("[data-fact=\"sync\"]", { hasText: "Phone ✓, PC ✓, Mini-program ✓" });
    for (const device of ["phone", "pc", "mini_program"]) await itemsOf(frameOf(before, device)).first().waitFor();
    await agree(frameOf(before, "phone"));
    await inStep.waitFor();
    await before.getByRole("button", { name: "Forget me" }).click();
    await frameOf(before, "phone").getByRole("button", { name: "Yes, remember" }).waitFor();
    await inStep.waitFor();

    const { page: fresh, errors } = await storefront.visit("shop.html?device=phone", site);
    await itemsOf(fresh).first().waitFor();
    await fresh.getByText("May the shop remember what you buy?").waitFor();
    await fresh.getByRole("button", { name: "Yes, remember" }).click();
    await fresh.getByText("Another of your devices said no").waitFor();
    await fresh.getByRole("button", { name: "中文" }).click();
    await fresh.getByText("你在另一台设备上选择了不保存").waitFor();
    await fresh.getByRole("button", { name: "English" }).click();
    await fresh.getByText("Another of your devices said no").waitFor(); // the language is kept by then
    await fresh.reload(); // the yes that it knows of is not said again by itself
    await fresh.getByText("Another of your devices said no").waitFor();
    await buy(fresh, 0);
    await fresh.getByText("Nothing was kept").waitFor();
    await agree(fresh);
    const title = (await titlesOf(fresh))[0];
    await buy(fresh, 0);
    await fresh.locator(".why", { hasText: `Because you bought ${title}` }).first().waitFor();

    for (const device of ["phone", "pc"]) {
      await frameOf(before, device).locator(".why", { hasText: `Because you bought ${title} on your phone` }).first().waitFor();
    }
    expect(await frameOf(before, "pc").getByRole("button", { name: "Yes, remember" }).isVisible()).toBe(false);
    expect(errors).toEqual([]);
    for (const page of [before, fresh]) await page.context().close();
  }, 300_000);
});
