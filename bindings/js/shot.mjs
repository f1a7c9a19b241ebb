import { chromium } from "playwright-core";
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
const mode = process.argv[2];
for (let turn = 0; turn < (mode === "shot" ? 1 : 3); turn++) {
  const context = await browser.newContext({ locale: "en-US", viewport: { width: 1500, height: 1085 } });
  const page = await context.newPage();
  page.on("console", (m) => m.type() === "error" && console.log("console", m.text()));
  page.on("pageerror", (e) => console.log("pageerror", e.message));
  await page.goto("http://localhost:4173/");
  const frames = ["phone", "pc", "mini_program"].map((d) => page.frameLocator(`iframe[name="${d}"]`));
  const times = [];
  await Promise.all(frames.map(async (f) => { await f.locator('[data-shelf="picked"] [data-item]').first().waitFor(); times.push(Math.round(await page.evaluate(() => performance.now()))); }));
  console.log("three frames: first lists at", times.join(" "), "ms;", await page.locator('[data-fact="load"]').textContent());
  const own = await context.newPage();
  await context.newCDPSession(own);
  if (mode === "shot") {
    const [phone, pc, mini] = frames;
    const buy = (shop, n) => shop.locator('[data-shelf="picked"] [data-item]').nth(n).getByRole("button", { name: "Buy now" }).click();
    await own.close();
    await phone.getByRole("button", { name: "Yes, remember" }).click();
    await page.locator('[data-fact="sync"]', { hasText: "Phone ✓, PC ✓, Mini-program ✓" }).waitFor();
    await buy(phone, 0); await page.waitForTimeout(1200); await buy(pc, 1); await page.waitForTimeout(1200); await buy(mini, 2);
    await page.waitForTimeout(5000);
    for (const f of frames) await f.locator("body").evaluate(() => scrollTo(0, 0));
    await page.waitForTimeout(500);
    await page.screenshot({ path: process.argv[3] });
  } else {
    await page.close(); await own.close();
    const c2 = await browser.newContext({ locale: "en-US" });
    const p2 = await c2.newPage();
    await p2.goto("http://localhost:4173/shop.html?device=phone");
    await p2.locator('[data-shelf="picked"] [data-item]').first().waitFor();
    console.log("one page: first list at", Math.round(await p2.evaluate(() => performance.now())), "ms");
    await c2.close();
  }
  await context.close();
}
process.exit(0);
