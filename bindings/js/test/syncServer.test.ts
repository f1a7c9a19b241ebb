/** Devices of both languages, in Node and in a real Chromium, share one profile through the real server. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { hasChromium, Site } from "./chromium";
import { areAlike, areInStep, nodeDevice, pageDevice, PythonDevice, Server, until, type Device, type Look } from "./devices";
import { hasPython } from "./python";

const itemsOf = ({ events }: Look) => events.map(([, , item]) => item).sort();
const hasBrowser = hasChromium();

describe.skipIf(!hasPython())("through the real server", () => {
  let [folder, server, site]: [string, Server, Site | null] = ["", null!, null];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "xrec-"));
    site = hasBrowser ? await Site.open("/test/device.mjs", new Map()) : null;
  }, 300_000);

  afterAll(async () => {
    await site?.close();
    rmSync(folder, { recursive: true });
  });

  /** Start a new server, and on it a Python device, a Node device and, where there is a Chromium, one in a page. */
  async function openAll(name: string): Promise<Device[]> {
    const home = mkdtempSync(join(folder, name));
    server = new Server(home, site ? [site.origin] : []);
    server.token(); // makes the keys
    await server.start();
    const devices: Device[] = [new PythonDevice(server, join(home, "python.db")), await nodeDevice(server, join(home, "node.profile"))];
    if (site) devices.push(await pageDevice(server, site, `connect-src 'self' ${server.url}; script-src 'self' 'nonce-map'`, name));
    for (const device of devices.slice(1)) for (const purpose of ["personalise", "sync"]) await device.consent(purpose, true);
    return devices;
  }

  async function closeAll(devices: readonly Device[]): Promise<void> {
    for (const device of devices) await device.close();
    await server.kill();
  }

  test("events go both ways, offline and over a killed server; an erasure reaches all; digests and times are equal", async () => {
    const devices = await openAll("share");
    for (const [place, device] of devices.entries()) await device.record(`d${place}`, 3);
    let looks = await until(devices, (all) => areAlike(all) && all[0].events.length === 3 * devices.length);
    expect(looks.every(({ dead }) => dead === 0)).toBe(true);

    await server.kill();
    for (const [place, device] of devices.entries()) await device.record(`offline${place}`, 2);
    looks = await until(devices, (all) => all.every(({ state }) => state === "retrying"));
    expect(looks.map(({ queued }) => queued)).toEqual(devices.map(() => 2));
    expect(looks.map(({ events }) => events.length)).toEqual(devices.map(() => 3 * devices.length + 2));
    await server.start();
    await until(devices, (all) => areAlike(all) && all[0].events.length === 5 * devices.length);

    // Of one item, from JavaScript; then of everything, from each.
    await devices[1].forget("d0-0");
    await until(devices, (all) => areAlike(all) && all.every((look) => !itemsOf(look).includes("d0-0")));
    for (const [place, device] of devices.entries()) {
      await device.forget();
      const { epoch } = (await until(devices, (all) => areAlike(all) && all.every(({ events }) => events.length === 0)))[0];
      expect(epoch).toBe(place + 2);
      await device.record(`after${place}`, 1);
      await until(devices, (all) => areAlike(all) && all.every((look) => itemsOf(look).join() === `after${place}-0`));
    }
    expect(readFileSync(join(server.folder, "node.profile"), "utf8")).not.toMatch(/d1-0|offline/);
    await closeAll(devices);
  }, 300_000);

  test("a withdrawal on one device stops all, keeps what was recorded since, and a grant sends it", async () => {
    const devices = await openAll("consent");
    await devices[0].record("before", 1);
    await until(devices, (all) => areAlike(all) && all[0].events.length === 1);
    const last = devices[devices.length - 1];
    await last.consent("sync", false);
    await until(devices, (all) => all.every(({ consent, state }) => consent.sync === false && state === "up_to_date"));
    for (const [place, device] of devices.entries()) await device.record(`own${place}`, 1);
    const looks = await until(devices, (all) => all.every(({ queued }) => queued === 0));
    expect(looks.map(itemsOf)).toEqual(devices.map((_, place) => ["before-0", `own${place}-0`]));
    await devices[0].consent("sync", true);
    const expected = ["before-0", ...devices.map((_, place) => `own${place}-0`)];
    await until(devices, (all) => areAlike(all) && itemsOf(all[0]).join() === expected.join());
    // A refusal of `personalise` reaches all: nothing is recorded any more.
    await devices[1].consent("personalise", false);
    await until(devices, (all) => all.every(({ consent }) => consent.personalise === false));
    await expect(last.record("never", 1)).rejects.toThrow(/no_consent|nothing was recorded/);
    await closeAll(devices);
  }, 300_000);

  test.skipIf(!hasBrowser)("of two tabs one syncs, and the other sees what comes; its turn comes when the first is closed", async () => {
    const devices = await openAll("tabs");
    const policy = `connect-src 'self' ${server.url}; script-src 'self' 'nonce-map'`;
    const second = await pageDevice(server, site!, policy, "tabs");
    await until([second], ([{ state }]) => state === "elsewhere");
    await devices[0].record("far", 1);
    await until([second], ([look]) => itemsOf(look).join() === "far-0");
    await second.record("near", 1);
    await until(devices, (all) => areAlike(all) && itemsOf(all[0]).join() === "far-0,near-0");
    await devices[2].close();
    devices[2] = second;
    await until(devices, areAlike);
    await devices[1].record("later", 1);
    await until(devices, (all) => areAlike(all) && all[0].events.length === 3);
    await closeAll(devices);
  }, 300_000);

  test("a random history of devices of both languages ends alike (seed 7)", async () => {
    const devices = await openAll("random");
    devices.push(await nodeDevice(server, null));
    for (const purpose of ["personalise", "sync"]) await devices[devices.length - 1].consent(purpose, true);
    const random = generator(7);
    const counts = new Map<string, number>();
    let isServed = true;
    for (let step = 0; step < 120; step++) {
      const device = devices[Math.floor(random() * devices.length)];
      const deeds: [string, number, () => Promise<unknown>][] = [
        ["record", 0.55, () => device.record(`item${Math.floor(random() * 9)}`, 1 + Math.floor(random() * 3)).catch(noConsent)],
        ["forget an item", 0.65, () => device.forget(`item${Math.floor(random() * 9)}-0`)],
        ["forget", 0.68, () => device.forget()],
        ["withdraw", 0.73, () => device.consent(random() < 0.5 ? "sync" : "personalise", false)],
        ["grant", 0.83, async () => (await device.consent("personalise", true), device.consent("sync", true))],
        ["offline", 0.87, async () => device.stop?.()],
        ["online", 0.92, async () => (await device.stop?.(), device.start?.())],
        ["server", 0.96, async () => ((isServed = !isServed), isServed ? server.start() : server.kill())],
        ["wait", 1, () => new Promise((resolve) => setTimeout(resolve, 150))],
      ];
      const luck = random();
      const [name, , act] = deeds.find(([, most]) => luck < most)!;
      counts.set(name, (counts.get(name) ?? 0) + 1);
      await act();
    }
    if (!isServed) await server.start();
    for (const device of devices) await device.stop?.();
    for (const device of devices) await device.start?.();
    // Whoever knows of every refusal, and then grants, has the last word.
    await until(devices, areInStep);
    for (const purpose of ["personalise", "sync"]) await devices[0].consent(purpose, true);
    await until(devices, (all) => all.every(({ consent }) => consent.personalise && consent.sync));
    await devices[0].record("last", 1);
    const [look] = await until(devices, (all) => areAlike(all) && itemsOf(all[0]).includes("last-0"));
    console.log(`seed 7: ${JSON.stringify(Object.fromEntries(counts))}; ${look.events.length} events, epoch ${look.epoch}`);
    expect(counts.size).toBe(9);
    await closeAll(devices);
  }, 300_000);
});

function noConsent(failure: Error): void {
  if (!/no_consent|nothing was recorded/.test(failure.message)) throw failure;
}

/** Return numbers in [0, 1) by mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
