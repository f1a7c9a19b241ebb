/** `<xrec-recommendations>` in a real Chromium, under a policy that allows no inline style and no made code. */

import type { Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { hasChromium, Site, STRICT } from "./chromium";
import { INDEX, zipOf } from "./vectors";

interface Said {
  readonly said: (readonly [string, string])[];
  loads(): number;
}

describe.skipIf(!hasChromium())("the element", () => {
  let [site, page]: [Site, Page] = [null!, null!];

  beforeAll(async () => {
    const files = new Map<string, Uint8Array | string>([["/asked.json", JSON.stringify({ key: INDEX.key })]]);
    files.set("/pool.xrec.zip", zipOf("pool.xrec"));
    site = await Site.open("/test/element.mjs", files);
  });
  afterAll(() => site.close());

  beforeEach(async () => {
    page = await site.visit(STRICT, {});
    await page.waitForFunction(() => "loads" in globalThis && customElements.get("xrec-recommendations") !== undefined);
  });

  const put = (attributes: Readonly<Record<string, string>>) =>
    page.evaluate((given) => {
      const element = document.createElement("xrec-recommendations");
      for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
      document.body.append(element);
    }, attributes);
  const names = () => page.locator("xrec-recommendations").first().getByRole("listitem").allTextContents();
  const said = () => page.evaluate(() => (globalThis as unknown as Said).said);

  test("shows a list under its label, says that it is ready and what was chosen, by keyboard too", async () => {
    await put({ bundle: "/pool.xrec.zip", k: "3", label: "Picked for you" });
    await page.getByRole("list", { name: "Picked for you" }).waitFor();
    expect(await page.getByRole("heading", { name: "Picked for you", level: 2 }).count()).toBe(1);
    const shown = await names();
    expect(shown).toHaveLength(3);
    await page.getByRole("button", { name: shown[1], exact: true }).click();
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    const events = await said();
    expect(events.map(([type]) => type)).toEqual(["xrec-ready", "xrec-select", "xrec-select"]);
    expect(new Set(events.slice(1).map(([, id]) => id)).size).toBe(2);
    await page.close();
  });

  test("draws anew when an attribute changes or the profile does, with the reason, and keeps the focus", async () => {
    await put({ bundle: "/pool.xrec.zip", k: "5", explain: "" });
    await page.getByRole("listitem").nth(4).waitFor();
    const before = await names();
    await page.evaluate(() => document.querySelector("xrec-recommendations")!.setAttribute("k", "7"));
    await page.getByRole("listitem").nth(6).waitFor();
    await page.getByRole("button").nth(2).focus();
    await page.evaluate(async () => {
      const { profile } = globalThis as unknown as { profile: import("../src/sync/public").SyncedProfile };
      await profile.setConsent({ purpose: "personalise", granted: true, policy: "" });
      const event = { id: "0197aaaa-0000-7000-8000-000000000001", atMs: Date.now(), event: "view", itemId: "sku-9", device: "pc" };
      await profile.add({ ...event, value: null, recommendationId: null });
    });
    await page.locator('xrec-recommendations [part="reason"]').first().waitFor();
    expect((await names()).slice(0, 5)).not.toEqual(before);
    await page.close();
  });

  test("two of one bundle share a Recommender; an error is said in words and as an event, and goes with its cause", async () => {
    await put({ bundle: "/pool.xrec.zip", k: "2" });
    await put({ bundle: "/pool.xrec.zip", k: "4" });
    await page.locator("xrec-recommendations").nth(1).getByRole("listitem").nth(3).waitFor();
    expect(await page.evaluate(() => (globalThis as unknown as Said).loads())).toBe(1);
    const first = page.locator("xrec-recommendations").first();
    for (const [attribute, value, code] of [
      ["k", "many", "usage.k"],
      ["bundle", "/none.zip", "bundle.not_found"],
    ]) {
      await first.evaluate((element, [name, text]) => element.setAttribute(name, text), [attribute, value] as const);
      await expect.poll(async () => (await said()).at(-1), { timeout: 100_000 }).toEqual(["xrec-error", code]);
      await first.getByRole("status").waitFor();
      await first.evaluate((element, name) => element.setAttribute(name, name === "k" ? "2" : "/pool.xrec.zip"), attribute);
      await first.getByRole("listitem").nth(1).waitFor();
    }
    await page.close();
  });

  test("shows its slot where there is nothing, and takes its looks from the page", async () => {
    await put({ bundle: "/pool.xrec.zip", category: "none of this name" });
    await page.evaluate(() => {
      const element = document.querySelector("xrec-recommendations")!;
      element.append(Object.assign(document.createElement("p"), { slot: "empty", textContent: "Nothing yet." }));
    });
    await page.getByText("Nothing yet.").waitFor();
    const colour = await page.evaluate(async () => {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync("xrec-recommendations::part(select) { color: rgb(1, 2, 3) }");
      document.adoptedStyleSheets = [sheet];
      const element = document.querySelector("xrec-recommendations")!;
      element.removeAttribute("category");
      await (element as unknown as { refresh(): Promise<void> }).refresh();
      return getComputedStyle(element.shadowRoot!.querySelector("button")!).color;
    });
    expect(colour).toBe("rgb(1, 2, 3)");
    await page.close();
  });
});
