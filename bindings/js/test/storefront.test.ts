/**
 * The storefront in a real Chromium: lists, frames that follow each other, offline, consent, policy. It is built around
 * a bundle of the vectors, or around the one that XREC_BUNDLE and XREC_KEY name.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { hasChromium } from "./chromium";
import { agree, buy, frameOf, itemsOf, Storefront, titlesOf, urlOf } from "./shop";

describe.skipIf(!hasChromium())("the storefront", () => {
  let storefront: Storefront;
  beforeAll(async () => {
    storefront = await Storefront.open();
  }, 300_000);
  afterAll(() => storefront.close());

  test("a new user sees the first list, and how long it took is said", async () => {
    const { page, errors } = await storefront.visit("shop.html?device=phone");
    await itemsOf(page).first().waitFor();
    console.log(`first list ${Math.round(await page.evaluate(() => performance.now()))} ms after the navigation began`);
    expect(errors).toEqual([]);
    await page.context().close();
  }, 300_000);

  test("nothing is kept before the user agrees, and a withdrawal keeps what there is and uses it for nothing", async () => {
    const { page, errors } = await storefront.visit("shop.html?device=phone");
    await itemsOf(page).first().waitFor();
    expect(await page.getByRole("heading", { name: "Popular now" }).count()).toBe(1);
    await buy(page, 0);
    await page.getByText("Nothing was kept").waitFor();
    await page.getByRole("link", { name: "Your data" }).click();
    await page.getByText("0 events are kept.").waitFor();
    await page.getByRole("switch", { name: "Remember what I buy" }).click();
    await page.getByRole("link", { name: "Home", exact: true }).click();
    await buy(page, 0);
    await page.getByRole("link", { name: "Your data" }).click();
    await page.getByText("1 event is kept.").waitFor();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download my data" }).click()]);
    const { events, consent } = JSON.parse(readFileSync((await download.path())!, "utf8")) as {
      events: object[];
      consent: { personalise: boolean };
    };
    expect(events).toMatchObject([{ event: "purchase", device: "phone" }]);
    expect(consent.personalise).toBe(true);
    await page.getByRole("switch", { name: "Remember what I buy" }).click();
    await page.getByRole("link", { name: "Home", exact: true }).click();
    await page.getByRole("heading", { name: "Popular now" }).waitFor();
    expect(await page.locator(".why").count()).toBe(0);
    await buy(page, 1);
    await page.getByText("Nothing was kept").waitFor();
    await page.getByRole("link", { name: "Your data" }).click();
    await page.getByText("1 event is kept.").waitFor();
    expect(errors).toEqual([]);
    await page.context().close();
  }, 300_000);

  test("a tap on the phone changes the PC's list, with the reason, without a reload; so do being forgotten and Chinese", async () => {
    const { page, errors } = await storefront.visit("");
    const [phone, pc] = [frameOf(page, "phone"), frameOf(page, "pc")];
    await itemsOf(pc).first().waitFor();
    await itemsOf(phone).first().waitFor();
    await pc.locator("body").evaluate((body) => body.setAttribute("data-mark", "the same document"));
    const before = await titlesOf(pc);
    await agree(phone);
    await buy(phone, 0);
    await pc.locator(".why", { hasText: `Because you bought ${before[0]}` }).first().waitFor();
    expect(await pc.locator(".why").first().textContent()).toContain("on your phone");
    expect(await titlesOf(pc)).not.toEqual(before);
    expect(await titlesOf(pc)).not.toContain(before[0]);
    await page.locator('[data-fact="events"]', { hasText: "1 (Phone 1" }).waitFor();
    expect(await page.locator('[data-fact="signature"]').textContent()).toMatch(/^✓ valid/);
    expect(await page.locator('[data-fact="last"]').textContent()).toMatch(/^[\d.]+ ms/);

    await page.getByRole("banner").getByRole("button", { name: "中文" }).click();
    await pc.getByRole("heading", { name: "再次购买" }).waitFor();
    expect(await pc.locator("html").getAttribute("lang")).toBe("zh");
    await page.getByRole("banner").getByRole("button", { name: "忘记我" }).click();
    await pc.getByRole("heading", { name: "大家都在买" }).waitFor();
    await phone.getByRole("button", { name: "同意" }).waitFor();
    expect(await titlesOf(pc)).toEqual(before);
    expect(await pc.locator("body").getAttribute("data-mark")).toBe("the same document");
    expect(errors).toEqual([]);
    await page.context().close();
  }, 300_000);

  test("a notice that is open when the language changes is said in the new one", async () => {
    const { page } = await storefront.visit("shop.html?device=phone");
    await itemsOf(page).first().waitFor();
    await agree(page);
    await page.clock.install();
    await page.clock.pauseAt(Date.now() + 3_600_000); // no notice ends by itself
    const title = (await titlesOf(page))[0];
    await buy(page, 0);
    await page.getByText(`Bought: ${title}.`).waitFor();
    await page.getByRole("button", { name: "中文" }).click();
    await page.getByText(`已购买：${title}。`).waitFor();
    await page.context().close();
  }, 300_000);

  test("two tabs share history and basket", async () => {
    const { page: first } = await storefront.visit("shop.html?device=pc");
    await itemsOf(first).first().waitFor();
    const second = await first.context().newPage();
    await second.goto(urlOf(storefront.site, "shop.html?device=mini_program"));
    await itemsOf(second).first().waitFor();
    await first.bringToFront(); // a tab behind another is drawn rarely, and what is not drawn can't be clicked
    await agree(first);
    await second.bringToFront();
    await second.getByRole("button", { name: "Yes, remember" }).waitFor({ state: "hidden" });
    await itemsOf(second).nth(2).getByRole("button", { name: "Add to basket" }).click();
    await first.bringToFront();
    await first.getByRole("link", { name: "Basket 1" }).click();
    await first.getByRole("button", { name: "One more" }).click();
    await second.getByRole("link", { name: "Basket 2" }).waitFor();
    await first.getByRole("button", { name: "Place the order" }).click();
    await second.getByRole("heading", { name: "Buy again" }).waitFor();
    expect(await second.locator(".why").first().textContent()).toContain("on your PC");
    await first.context().close();
  }, 300_000);

  test("once visited it opens without a server, and goes on recommending", async () => {
    const own = await storefront.serve();
    const { page } = await storefront.visit("shop.html?device=phone", own);
    await itemsOf(page).first().waitFor();
    await page.evaluate(async () => {
      await navigator.serviceWorker.ready;
    });
    await agree(page);
    await own.close();
    await page.context().setOffline(true);
    await page.reload();
    await itemsOf(page).first().waitFor();
    await page.getByText("Everything still works.").waitFor();
    const before = await titlesOf(page);
    await buy(page, 0);
    await page.locator(".why", { hasText: before[0] }).first().waitFor();
    await page.context().close();
  }, 300_000);

  const offered = () => {
    const manifest = readFileSync(join(process.env.XREC_BUNDLE!, "manifest.json"), "utf8");
    return `has release ${(JSON.parse(manifest) as { release: number }).release}`;
  };

  test("the switch cuts the network off for every page, and lets it in again", async () => {
    const { page } = await storefront.visit("");
    await itemsOf(frameOf(page, "phone")).first().waitFor();
    await page.locator('[data-fact="server"]', { hasText: offered() }).waitFor();
    await page.evaluate(async () => {
      await navigator.serviceWorker.ready;
    });
    await page.getByRole("switch", { name: "Cut the network" }).click();
    await page.locator('[data-fact="server"]', { hasText: "not reached" }).waitFor();
    await frameOf(page, "phone").getByText("Everything still works.").waitFor();
    await page.reload();
    await itemsOf(frameOf(page, "pc")).first().waitFor();
    await page.getByRole("switch", { name: "Cut the network" }).click();
    await page.locator('[data-fact="server"]', { hasText: offered() }).waitFor();
    await page.context().close();
  }, 300_000);

  test("the policy allows no code but the build's, and nothing from elsewhere", async () => {
    const { page, errors } = await storefront.visit("shop.html");
    await itemsOf(page).first().waitFor();
    const policy = (await (await fetch(urlOf(storefront.site, "shop.html"))).headers.get("content-security-policy"))!;
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("unsafe");
    const made = await page.evaluate(async () => {
      const script = document.createElement("script");
      script.textContent = "window.made = true";
      document.body.append(script);
      const outside = await fetch("https://example.org/").then(() => "fetched", () => "refused");
      return { made: "made" in window, outside };
    });
    expect(made).toEqual({ made: false, outside: "refused" });
    expect(errors.length).toBeGreaterThanOrEqual(2);
    expect(errors.every((text) => text.includes("Content Security Policy"))).toBe(true);
    await page.context().close();
  }, 300_000);

  test("the keyboard alone buys, keeps its place, searches and reaches every page; each control has a name", async () => {
    const { page } = await storefront.visit("shop.html?device=pc");
    await itemsOf(page).first().waitFor();
    await agree(page);
    await itemsOf(page).nth(1).getByRole("button", { name: "Add to basket" }).focus();
    const key = await page.evaluate(() => document.activeElement!.getAttribute("data-key"));
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "Basket 1" }).waitFor();
    expect(await page.evaluate(() => document.activeElement!.getAttribute("data-key"))).toBe(key);
    await page.getByRole("searchbox").focus();
    await page.keyboard.type("zzz");
    await page.keyboard.press("Enter");
    await page.getByText("Nothing found for “zzz”").waitFor();
    await page.getByRole("link", { name: "Your data" }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download my data" }).click()]);
    const { events } = JSON.parse(readFileSync((await download.path())!, "utf8")) as { events: { event: string; item_id: string }[] };
    expect(events.filter(({ event }) => event === "search")).toMatchObject([{ item_id: expect.stringMatching(/^query~./) as string }]);
    for (const name of ["Home", "Basket 1", "Your data"]) {
      await page.getByRole("link", { name, exact: true }).focus();
      await page.keyboard.press("Enter");
      await page.getByRole("link", { name, exact: true }).and(page.locator("[aria-current]")).waitFor();
      const nameless = await page.evaluate(() => {
        const nameOf = (one: Element) => one.getAttribute("aria-label") ?? one.textContent ?? "";
        const controls = [...document.querySelectorAll("a, button, input")];
        const isNamed = (one: Element) => nameOf(one).trim() !== "" || document.querySelector(`label[for="${one.id}"]`) !== null;
        return controls.filter((one) => !isNamed(one)).map((one) => one.outerHTML);
      });
      expect(nameless).toEqual([]);
    }
    await page.context().close();
  }, 300_000);
});
