/** A profile that devices share, with no server: consent, what is kept, files that are cut, damaged or of an older SDK. */

import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { Recommender as Core, XrecError, type Event } from "../src/core";
import { FileProfile } from "../src/node";
import { openProfile } from "../src/sync/node";
import { MemoryDisk, SyncedProfile } from "../src/sync/public";
import { newEventId } from "../src/eventId";
import { INDEX, readCase, zipOf } from "./vectors";
import { walkCase, type Load } from "./walk";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "xrec-"));
  path = join(folder, "node.profile");
});
afterEach(() => rmSync(folder, { recursive: true }));

function event(itemId: string, atMs: number, name = "view"): Event {
  return { id: newEventId(), atMs, event: name, itemId, device: "pc", value: 1.5, recommendationId: null };
}

const grant = (profile: SyncedProfile, purpose: "personalise" | "sync", granted = true) =>
  profile.setConsent({ purpose, granted, policy: "1" });
const itemsOf = async (profile: SyncedProfile) => (await profile.read()).events.map(({ itemId }) => itemId).join(" ");
const queuedOf = async (profile: SyncedProfile) =>
  (await profile.state()).queue.filter(({ op, seq }) => seq === null && op.kind === "event").length;

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(() => null, (cause: unknown) => cause);
  expect(error).toBeInstanceOf(XrecError);
  return (error as XrecError).code;
}

test.each(INDEX.cases)("%s is answered as written by a profile that is synced, and by one that is not", async (name) => {
  const asked = readCase(name);
  for (const isShared of [false, true]) {
    const load: Load = async (bundle, options) => {
      const profile = new SyncedProfile(new MemoryDisk(), { clockMs: options.clockMs });
      if (isShared && !name.includes("consent")) await grant(profile, "sync");
      return Core.load(bundle, { ...options, profile });
    };
    expect(await walkCase(load, zipOf(asked.bundle), INDEX.key, asked)).toEqual([]);
  }
});

describe.each([
  ["in memory", async (maxEvents: number) => new SyncedProfile(new MemoryDisk(), { maxEvents })],
  ["in a file", (maxEvents: number) => openProfile(path, { maxEvents })],
])("a profile %s", (_, open) => {
  test("keeps nothing before consent, queues once sync is granted, and takes back what was not sent", async () => {
    const profile = await open(10);
    expect(await codeOf(profile.add(event("a", 1)))).toBe("profile.no_consent");
    await grant(profile, "personalise");
    await profile.add(event("a", 1));
    expect([await itemsOf(profile), await queuedOf(profile)]).toEqual(["a", 0]);
    await grant(profile, "sync");
    await profile.add(event("b", 2));
    expect([await itemsOf(profile), await queuedOf(profile)]).toEqual(["a b", 2]);
    await grant(profile, "sync", false);
    await profile.add(event("c", 3));
    expect([await itemsOf(profile), await queuedOf(profile)]).toEqual(["a b c", 0]);
    const kept = await profile.read();
    expect(await profile.read()).toBe(kept);
    await profile.close();
    expect(await codeOf(profile.read())).toBe("profile.closed");
  });

  test("is bounded, forgets what meets all that is asked, or everything, and hears of itself", async () => {
    const profile = await open(3);
    await grant(profile, "personalise");
    await grant(profile, "sync");
    let heard = 0;
    const stop = profile.onChange(() => heard++);
    for (const [place, item] of ["a", "b", "c", "d"].entries()) await profile.add(event(item, place, place % 2 ? "cart" : "view"));
    expect(await itemsOf(profile)).toBe("b c d");
    expect(await profile.forget({ event: "cart", fromMs: 2 })).toBe(1);
    expect(await profile.forget({ itemId: "x" })).toBe(0);
    expect(await itemsOf(profile)).toBe("a b c");
    expect(await codeOf(profile.forget({ fromMs: 0.5 }))).toBe("usage.at_ms");
    expect(await profile.forget()).toBe(3);
    expect([await itemsOf(profile), heard]).toEqual(["", 7]);
    stop();
    expect((await profile.syncStatus())).toEqual({ state: "off", lastContactMs: 0, queued: 5, dead: 0, lastError: null });
    await profile.close();
  });

  test("asks for no token before sync is granted, and only https or this machine", async () => {
    const profile = await open(10);
    for (const url of ["http://sync.example", "https://sync.example/?x=1", "ftp://localhost", "nothing"]) {
      expect(await codeOf(profile.startSync(url, () => "token"))).toBe("usage.sync_url");
    }
    let asked = 0;
    await profile.startSync("http://127.0.0.1:9", () => `token${asked++}`, { timing: { firstDelayMs: 5, longestDelayMs: 5, lookEveryMs: 5 } });
    await grant(profile, "personalise");
    await profile.add(event("a", 1));
    while ((await profile.syncStatus()).state !== "no_consent") await new Promise((resolve) => setTimeout(resolve, 5));
    expect(asked).toBe(0);
    await grant(profile, "sync");
    while ((await profile.syncStatus()).lastError !== "sync.unreachable") await new Promise((resolve) => setTimeout(resolve, 5));
    expect(asked).toBeGreaterThan(0);
    expect(await itemsOf(profile)).toBe("a");
    await profile.close();
  });
});

test("a file is as it was when it is opened again, also where its last line was cut, and another program's is refused", async () => {
  const first = await openProfile(path);
  await grant(first, "personalise");
  await grant(first, "sync");
  await first.add(event("a", 1));
  const state = await first.state();
  await first.close();
  appendFileSync(path, '[{"standing":{"device"');
  const second = await openProfile(path);
  expect(await second.state()).toEqual(state);
  await second.add(event("b", 2));
  await second.close();
  const third = await openProfile(path);
  expect(await itemsOf(third)).toBe("a b");
  await third.close();

  const text = readFileSync(path, "utf8");
  for (const [damaged, code] of [
    [text.replace('"format_version":3', '"format_version":4'), "profile.newer"],
    [text.replace('[{"standing"', '[{"standing'), "profile.damaged"],
    [text.replace('"put_queue":[', '"put_queue":7,"x":['), "profile.damaged"],
    ["{}\n", "profile.not_a_profile"],
    ["SQLite format 3", "profile.not_a_profile"],
  ]) {
    writeFileSync(path, damaged);
    expect(await codeOf(openProfile(path))).toBe(code);
  }
  expect(await codeOf(openProfile(join(folder, "none", "x")))).toBe("profile.unavailable");
});

test("a FileProfile's file is taken up: its events go out once sync is granted, and the old SDK refuses it from then on", async () => {
  const old = await FileProfile.open(path, 10);
  await old.setConsent({ purpose: "personalise", granted: true, policy: "1" });
  await old.add(event("a", 1));
  await old.close();
  const profile = await openProfile(path);
  expect([await itemsOf(profile), await profile.isConsented("personalise"), await queuedOf(profile)]).toEqual(["a", true, 0]);
  await grant(profile, "sync");
  expect(await queuedOf(profile)).toBe(1);
  await profile.close();
  expect(await codeOf(FileProfile.open(path, 10))).toBe("profile.newer");
});

test("a file that has grown is written anew, and nothing of what was forgotten is left in it", async () => {
  const profile = await openProfile(path, { maxEvents: 5 });
  await grant(profile, "personalise");
  const long = "x".repeat(500);
  for (let place = 0; place < 700; place++) await profile.add(event(`${long}${place}`, place));
  expect(readFileSync(path, "utf8").length).toBeLessThan(300_000);
  await profile.forget();
  expect(readFileSync(path, "utf8")).not.toContain(long);
  await profile.close();
}, 300_000);
