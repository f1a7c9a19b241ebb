/** Profiles keep their events, in order and bounded, and a file survives a cut line, a second opening and forget(). */

import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { MemoryProfile, ProfileError, type Event, type ProfileStore } from "../src/core";
import { FileProfile, Recommender } from "../src/node";
import { INDEX, zipOf } from "./vectors";

let folder: string;
let path: string;
const opened: ProfileStore[] = [];

/** Open the file; it is closed when the test ends. */
async function openFile(maxEvents: number, at = path): Promise<FileProfile> {
  const profile = await FileProfile.open(at, maxEvents);
  opened.push(profile);
  return profile;
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "xrec-"));
  path = join(folder, "profile.jsonl");
});
afterEach(async () => {
  for (const profile of opened.splice(0)) await profile.close();
  rmSync(folder, { recursive: true });
});

function event(id: string, atMs: number): Event {
  return { id, atMs, event: "view", itemId: `sku "${id}" ✓`, device: "pc", value: 1.5, recommendationId: null };
}

async function idsOf(profile: ProfileStore): Promise<string> {
  return (await profile.events()).map(({ id }) => id).join("");
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(() => null, (cause: unknown) => cause);
  expect(error).toBeInstanceOf(ProfileError);
  return (error as ProfileError).code;
}

describe.each([
  ["in memory", async () => new MemoryProfile(10)],
  ["in a file", () => openFile(10)],
])("a profile %s", (_, open: () => Promise<ProfileStore>) => {
  test("keeps events by time and then by id, the same array while nothing changes", async () => {
    const profile = await open();
    for (const [id, atMs] of [["c", 5], ["a", 5], ["d", 1], ["b", 5]] as const) await profile.add(event(id, atMs));
    expect(await idsOf(profile)).toBe("dabc");
    expect(await profile.events()).toBe(await profile.events());
    expect((await profile.events())[1]).toEqual(event("a", 5));
  });

  test("sheds the oldest events", async () => {
    const profile = await open();
    for (let place = 0; place < 12; place++) await profile.add(event(String.fromCharCode(97 + place), place));
    expect(await idsOf(profile)).toBe("cdefghijkl"); // eleven were one too many: one is shed beside it
  });

  test("forgets everything, and is closed once closed", async () => {
    const profile = await open();
    await profile.add(event("a", 1));
    expect(await profile.forget()).toBe(1);
    expect(await profile.events()).toEqual([]);
    await profile.close();
    expect(await codeOf(profile.events())).toBe("profile.closed");
    expect(await codeOf(profile.add(event("b", 2)))).toBe("profile.closed");
  });
});

test("a file holds what was recorded when it is opened again", async () => {
  const first = await openFile(10);
  await Promise.all([first.add(event("a", 2)), first.add(event("b", 1))]);
  const second = await openFile(10); // as after a kill: the first has not been closed
  expect(await idsOf(second)).toBe("ba");
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a line that a crash has cut is dropped, and the next event stands on a line of its own", async () => {
  await (await openFile(10)).add(event("a", 1));
  appendFileSync(path, '{"id":"b","at_');
  const profile = await openFile(10);
  await profile.add(event("c", 3));
  expect(await idsOf(await openFile(10))).toBe("ac");
  expect(readFileSync(path, "utf8").split("\n")).toHaveLength(4);
});

test("a file does not grow without end, and leaves nothing beside it", async () => {
  const profile = await openFile(5);
  for (let place = 0; place < 40; place++) await profile.add(event(String(place).padStart(2, "0"), place));
  expect(readFileSync(path, "utf8").split("\n").length).toBeLessThanOrEqual(12);
  expect(await idsOf(await openFile(5))).toBe("3536373839");
  expect(readdirSync(folder)).toEqual(["profile.jsonl"]);
});

test("forget leaves no trace of the events in the file", async () => {
  const profile = await openFile(5);
  await profile.add(event("secret", 1));
  await profile.forget();
  await profile.add(event("z", 2));
  expect(readFileSync(path, "utf8")).not.toContain("secret");
  expect(await idsOf(await openFile(5))).toBe("z");
});

test.each([
  ["another program's text", "hello\n", "profile.not_a_profile"],
  ["another program's JSON", '{"format":"other"}\n', "profile.not_a_profile"],
  ["a newer format", '{"format":"xrec-profile","format_version":2}\n', "profile.newer"],
  ["a line that is no event", '{"format":"xrec-profile","format_version":1}\n{"id":1}\n', "profile.damaged"],
])("%s is refused and left as it is", async (_, text, code) => {
  writeFileSync(path, text);
  expect(await codeOf(openFile(5))).toBe(code);
  expect(readFileSync(path, "utf8")).toBe(text);
});

test("a folder that is not there is said to be unavailable", async () => {
  expect(await codeOf(openFile(5, join(folder, "none", "p")))).toBe("profile.unavailable");
});

test("Recommender.load opens the file, and an app's own store serves too", async () => {
  const first = await Recommender.load(zipOf("pool.xrec"), { trustedKeys: [INDEX.key], profile: path });
  const id = await first.record("view", "sku-3", { device: "pc", atMs: 7, value: 2 });
  await first.feedback("list-1", "sku-4", "view", { atMs: 8 });
  await first.close();
  const own = await openFile(9);
  const second = await Recommender.load(zipOf("pool.xrec"), { trustedKeys: [INDEX.key], profile: own });
  const { format, events } = await second.exportMyData();
  expect(format).toBe("xrec-profile");
  expect(events).toEqual([
    { id, at_ms: 7, event: "view", item_id: "sku-3", device: "pc", value: 2, recommendation_id: null },
    { ...events[1], at_ms: 8, item_id: "sku-4", device: "unknown", value: null, recommendation_id: "list-1" },
  ]);
  expect(id < events[1].id && /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)).toBe(true);
});
