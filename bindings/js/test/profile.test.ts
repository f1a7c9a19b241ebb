/** Profiles keep consents and events, in order, bounded and none before consent; a file survives a cut line, a second opening and forget(). */

import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { MemoryProfile, XrecError, type Event, type ProfileStore, type Purpose } from "../src/core";
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
const CONSENT = { purpose: "personalise", granted: true, policy: "2026-11" } as const;

/** Open the file and grant what recording needs. */
async function openGranted(maxEvents: number): Promise<FileProfile> {
  const profile = await openFile(maxEvents);
  await profile.setConsent(CONSENT);
  return profile;
}

afterEach(async () => {
  for (const profile of opened.splice(0)) await profile.close();
  rmSync(folder, { recursive: true });
});

function event(id: string, atMs: number): Event {
  return { id, atMs, event: "view", itemId: `sku "${id}" ✓`, device: "pc", value: 1.5, recommendationId: null };
}

async function idsOf(profile: ProfileStore): Promise<string> {
  return (await profile.read()).events.map(({ id }) => id).join("");
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(() => null, (cause: unknown) => cause);
  expect(error).toBeInstanceOf(XrecError);
  return (error as XrecError).code;
}

describe.each([
  ["in memory", async () => new MemoryProfile(10)],
  ["in a file", () => openFile(10)],
])("a profile %s", (_, open: () => Promise<ProfileStore>) => {
  test("keeps events by time and then by id, the same array while nothing changes", async () => {
    const profile = await open();
    await profile.setConsent(CONSENT);
    for (const [id, atMs] of [["c", 5], ["a", 5], ["d", 1], ["b", 5]] as const) await profile.add(event(id, atMs));
    expect(await idsOf(profile)).toBe("dabc");
    const kept = await profile.read();
    expect(await profile.read()).toBe(kept);
    expect(kept.events[1]).toEqual(event("a", 5));
  });

  test("sheds the oldest events", async () => {
    const profile = await open();
    await profile.setConsent(CONSENT);
    for (let place = 0; place < 12; place++) await profile.add(event(String.fromCharCode(97 + place), place));
    expect(await idsOf(profile)).toBe("cdefghijkl"); // eleven were one too many: one is shed beside it
  });

  test("forgets everything, and is closed once closed", async () => {
    const profile = await open();
    await profile.setConsent(CONSENT);
    await profile.add(event("a", 1));
    expect(await profile.forget()).toBe(1);
    expect(await profile.read()).toEqual({ events: [], consents: [CONSENT] });
    await profile.close();
    expect(await codeOf(profile.read())).toBe("profile.closed");
    expect(await codeOf(profile.add(event("b", 2)))).toBe("profile.closed");
    expect(await codeOf(profile.setConsent(CONSENT))).toBe("profile.closed");
  });

  test("keeps nothing before consent, and what it has after a withdrawal", async () => {
    const profile = await open();
    for (const purpose of ["sync", "train", "analytics"] as const) await profile.setConsent({ ...CONSENT, purpose });
    expect(await codeOf(profile.add(event("a", 1)))).toBe("profile.no_consent");
    await profile.setConsent(CONSENT);
    await Promise.all([profile.add(event("b", 2)), profile.add(event("a", 1))]);
    await profile.setConsent({ ...CONSENT, granted: false });
    expect(await codeOf(profile.add(event("c", 3)))).toBe("profile.no_consent");
    expect(await idsOf(profile)).toBe("ab");
    expect((await profile.read()).consents).toHaveLength(4);
  });
});

test("a file holds what was recorded when it is opened again", async () => {
  const first = await openGranted(10);
  await Promise.all([first.add(event("a", 2)), first.add(event("b", 1))]);
  const second = await openFile(10); // as after a kill: the first has not been closed
  expect(await idsOf(second)).toBe("ba");
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a line that a crash has cut is dropped, and the next event stands on a line of its own", async () => {
  await (await openGranted(10)).add(event("a", 1));
  appendFileSync(path, '{"id":"b","at_');
  const profile = await openFile(10);
  await profile.add(event("c", 3));
  expect(await idsOf(await openFile(10))).toBe("ac");
  expect(readFileSync(path, "utf8").split("\n")).toHaveLength(5);
});

test("a file does not grow without end, and leaves nothing beside it", async () => {
  const profile = await openGranted(5);
  for (let place = 0; place < 40; place++) await profile.add(event(String(place).padStart(2, "0"), place));
  expect(readFileSync(path, "utf8").split("\n").length).toBeLessThanOrEqual(12);
  expect(await idsOf(await openFile(5))).toBe("3536373839");
  expect(readdirSync(folder)).toEqual(["profile.jsonl"]);
});

test("forget leaves no trace of the events in the file", async () => {
  const profile = await openGranted(5);
  await profile.add(event("secret", 1));
  await profile.forget();
  await profile.add(event("z", 2));
  expect(readFileSync(path, "utf8")).not.toContain("secret");
  expect(await idsOf(await openFile(5))).toBe("z");
});

test.each([
  ["another program's text", "hello\n", "profile.not_a_profile"],
  ["another program's JSON", '{"format":"other"}\n', "profile.not_a_profile"],
  ["a newer format", '{"format":"xrec-profile","format_version":3}\n', "profile.newer"],
  ["a line that is no event", '{"format":"xrec-profile","format_version":1}\n{"id":1}\n', "profile.damaged"],
  ["a consent to no purpose", '{"format":"xrec-profile","format_version":2}\n{"purpose":"ads","granted":true,"policy":""}\n', "profile.damaged"],
])("%s is refused and left as it is", async (_, text, code) => {
  writeFileSync(path, text);
  expect(await codeOf(openFile(5))).toBe(code);
  expect(readFileSync(path, "utf8")).toBe(text);
});

test("what was said is in the file when it is opened again, after a kill and after it was written anew", async () => {
  const first = await openGranted(2);
  for (const [id, atMs] of [["a", 1], ["b", 2], ["c", 3], ["d", 4]] as const) await first.add(event(id, atMs));
  await first.setConsent({ purpose: "personalise", granted: false, policy: "" });
  const second = await openFile(2);
  expect((await second.read()).consents).toEqual([{ purpose: "personalise", granted: false, policy: "" }]);
  expect(await codeOf(second.add(event("e", 5)))).toBe("profile.no_consent");
  expect(await idsOf(second)).toBe("cd");
});

test("a file from before there was consent keeps its events, unread, until the user consents", async () => {
  const record = { id: "a", at_ms: 1, event: "purchase", item_id: "sku-3", device: "pc", value: null, recommendation_id: null };
  writeFileSync(path, `{"format":"xrec-profile","format_version":1}\n${JSON.stringify(record)}\n`);
  const recommender = await Recommender.load(zipOf("ranked.xrec"), { trustedKeys: [INDEX.key], profile: path });
  const list = async (personalised: boolean) => (await recommender.recommend({ k: 9, personalised })).map(({ itemId, score }) => [itemId, score]);
  const plain = await list(false);
  expect(await list(true)).toEqual(plain);
  expect(await codeOf(recommender.record("view", "sku-4", { device: "pc" }))).toBe("profile.no_consent");
  expect(await recommender.exportMyData()).toMatchObject({ events: [record], consent: { personalise: false } });
  await recommender.setConsent("personalise", true);
  expect(await list(true)).not.toEqual(plain);
  await recommender.close();
  expect(readFileSync(path, "utf8")).toContain('"format_version":2}');
});

test("without consent a list is the one that is not personalised, and a grant brings the history back", async () => {
  const recommender = await Recommender.load(zipOf("lowpass.xrec"), { trustedKeys: [INDEX.key] });
  const none = { personalise: false, sync: false, train: false, analytics: false };
  expect(await recommender.consent()).toEqual(none);
  await recommender.setConsent("personalise", true);
  await recommender.record("purchase", "sku-0", { device: "phone" });
  await recommender.record("view", "sku-30", { device: "phone" });
  const list = async (options: object) =>
    (await recommender.recommend({ k: 5, explain: true, ...options })).map(({ itemId, score, reasons }) => ({ itemId, score, reasons }));
  const own = await list({});
  await recommender.setConsent("personalise", false);
  for (const filterSeen of [null, true, false]) {
    expect(await list({ filterSeen })).toEqual(await list({ filterSeen, personalised: false }));
  }
  expect(await codeOf(recommender.feedback("r", "sku-1", "impression"))).toBe("profile.no_consent");
  expect(await recommender.exportMyData()).toMatchObject({ events: [{ item_id: "sku-0" }, { item_id: "sku-30" }], consent: none });
  await recommender.setConsent("personalise", true);
  expect(await list({})).toEqual(own);
  await recommender.close();
});

test.each([
  [["ads", true, ""], "usage.purpose"],
  [["sync", 1, ""], "usage.granted"],
  [["sync", true, 7], "usage.policy"],
  [["sync", true, "x".repeat(513)], "usage.policy"],
])("a wrong word %j is a usage error", async ([purpose, granted, policy], code) => {
  const recommender = await Recommender.load(zipOf("pool.xrec"), { trustedKeys: [INDEX.key] });
  const said = recommender.setConsent(purpose as Purpose, granted as boolean, { policy: policy as string });
  expect(await codeOf(said)).toBe(code);
  expect(Object.values(await recommender.consent())).toEqual([false, false, false, false]);
  await recommender.close();
});

test("a folder that is not there is said to be unavailable", async () => {
  expect(await codeOf(openFile(5, join(folder, "none", "p")))).toBe("profile.unavailable");
});

test("Recommender.load opens the file, and an app's own store serves too", async () => {
  const first = await Recommender.load(zipOf("pool.xrec"), { trustedKeys: [INDEX.key], profile: path });
  await first.setConsent("personalise", true);
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
