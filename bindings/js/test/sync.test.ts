/** The sync protocol's vectors hold, and a device's rules say what Python's say over whole simulated histories. */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { describe, expect, test } from "vitest";

import { check, compactJson, compareText, criteriaOf, takes } from "../src/sync/body";
import { clamp, digestChange, isGranted, joinRegisters, orderMs, printOf, rowBytes, tick, type Register } from "../src/sync/merge";
import { readPage, readPushAnswer, readRegistered, write, writeQuery } from "../src/sync/messages";
import { LIMITS, SyncError, type Hlc, type Op, type Push, type Row } from "../src/sync/values";
import { hasPython, PYTHON, PYTHON_PATH } from "./python";
import { repeat, type Call } from "./rules";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const FOLDER = join(ROOT, "tests/vectors/sync");
const EMPTY = "0".repeat(64);
const INDEX = read<{ files: { file: string; cases: number }[] }>("index.json");
/** Messages that a device reads. */
const READERS: Readonly<Record<string, (bytes: Uint8Array) => unknown>> = {
  page: readPage,
  push_answer: readPushAnswer,
  registered: readRegistered,
};

function read<T>(name: string): T {
  return JSON.parse(readFileSync(join(FOLDER, name), "utf8")) as T;
}

/** Return the cases of a file, as many as the index says. */
function casesOf<T>(name: string): T[] {
  const cases = read<T[]>(name);
  expect(cases).toHaveLength(INDEX.files.find(({ file }) => file === name)!.cases);
  return cases;
}

function stands(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(SyncError);
    return false;
  }
}

test("every file of the index is walked here", () => {
  const source = readFileSync(fileURLToPath(import.meta.url), "utf8");
  for (const { file } of INDEX.files) expect(source, file).toContain(`"${file}"`);
});

test("clocks", () => {
  for (const one of casesOf<{ hlc: Hlc; now_ms: number; tick: Hlc; clamp: Hlc }>("01-hlc.json")) {
    expect(tick(one.hlc, one.now_ms)).toEqual(one.tick);
    expect(clamp(one.hlc, one.now_ms, LIMITS.ahead_ms)).toEqual(one.clamp);
  }
});

test("consents are joined", () => {
  type Written = Register & { granted: boolean };
  for (const { one, other, join: joined } of casesOf<Record<"one" | "other" | "join", Written>>("02-consent.json")) {
    const { granted, ...expected } = joined;
    for (const [left, right] of [[one, other], [other, one]]) {
      expect(joinRegisters(left, right)).toEqual(expected);
      expect(isGranted(joinRegisters(left, right))).toBe(granted);
    }
  }
});

test("the last writer of two is the server's to say: a device only carries its word", () => {
  // What a device needs of the rule is how it orders clocks and texts.
  for (const { one, other, later } of casesOf<Record<"one" | "other" | "later", Row>>("03-last-writer.json")) {
    const order = one.hlc[0] - other.hlc[0] || one.hlc[1] - other.hlc[1] || compareText(one.device, other.device) || compareText(one.body, other.body);
    expect(order >= 0 ? one : other).toEqual(later);
  }
});

test("times for ranking", () => {
  for (const one of casesOf<Record<"at_ms" | "contact_ms" | "now_ms" | "order_ms", number>>("04-order.json")) {
    expect(orderMs(one.at_ms, one.contact_ms, one.now_ms)).toBe(one.order_ms);
  }
});

test("digests, taken and given back in any order", () => {
  for (const { rows, digest } of casesOf<{ rows: Row[]; digest: string }>("05-digest.json")) {
    expect(digestChange(EMPTY, rows, [])).toBe(digest);
    expect(digestChange(digest, [], [...rows].reverse())).toBe(EMPTY);
  }
  for (const { row, bytes } of casesOf<{ row: Row; bytes: string }>("06-row-bytes.json")) {
    expect(Buffer.from(rowBytes(row)).toString()).toBe(bytes);
  }
  for (const { op, print } of casesOf<{ op: Op; print: string }>("08-print.json")) expect(printOf(op)).toBe(print);
});

test("what an erasure takes", () => {
  for (const one of casesOf<{ erase: object; body: string; takes: boolean }>("07-erasure.json")) {
    expect(takes(criteriaOf(JSON.stringify(one.erase)), one.body)).toBe(one.takes);
  }
});

test("messages are written and read as Python does, and damaged ones are refused", () => {
  let walked = 0;
  for (const { type, json, query } of casesOf<{ type: string; json?: string; query?: string }>("09-messages.json")) {
    if (type === "changes_request") {
      expect(writeQuery({ device: "d-7f3a", generation: 2, after: 41, wait: 25 })).toBe(query);
    } else if (READERS[type]) {
      expect(compactJson(READERS[type](Buffer.from(json!)))).toBe(json);
    } else if (type === "push" || type === "register_request") {
      expect(Buffer.from(write(JSON.parse(json!) as Push)).toString()).toBe(json);
    } else continue; // the account's erasure and its receipt are no device's
    walked++;
  }
  expect(walked).toBe(6);
  const bad = casesOf<{ type: string; json: string }>("10-bad-messages.json").filter(({ type }) => READERS[type]);
  expect(bad.length).toBeGreaterThan(40);
  for (const { type, json } of bad) expect(stands(() => READERS[type](Buffer.from(json))), `${type} ${json}`).toBe(false);
});

test("bodies", () => {
  for (const one of casesOf<{ kind: string; body: string; stands: boolean }>("11-bodies.json")) {
    const op: Op = { dseq: 1, kind: one.kind, id: "i", epoch: 1, hlc: [1, 0], contact_ms: 0, purpose: "sync", body: one.body };
    expect(stands(() => check(op, LIMITS)), one.body).toBe(one.stands);
  }
});

test("texts are ordered by code points, as Python orders them", () => {
  const texts = ["", "a", "aa", "b", "é", "\ud7ff", "\ue000", "\uffff", "\u{10000}", "\u{1f600}"];
  for (const [left, one] of texts.entries()) {
    for (const [right, other] of texts.entries()) expect(Math.sign(compareText(one, other))).toBe(Math.sign(left - right));
  }
});

const calls = casesOf<Call>("12-device.json");
test.each(calls.map((call, place) => [`${place} ${call.rule}`, call] as const))("a device's rule says what Python's said: %s", (_, call) => {
  const { found, expected } = repeat(call);
  expect(found).toEqual(expected);
});

test("a rule that says something else is seen", () => {
  const call = calls.find(({ rule }) => rule === "registered")!;
  const { found, expected } = repeat({ ...call, given: { ...call.given, local_ms: 1 } });
  expect(found).not.toEqual(expected);
});

describe.skipIf(!hasPython())("Python's simulator", () => {
  test("asks 40 whole histories of either language's rules (seeds 501 to 540): each call is answered alike", () => {
    const words = [join(ROOT, "tests/sync/recorded.py"), "--seed", "501", "--histories", "40"];
    const env = { ...process.env, PYTHONPATH: PYTHON_PATH };
    const { stdout, stderr, status } = spawnSync(PYTHON, words, { env, maxBuffer: 2 ** 30 });
    expect(stderr.toString()).toBe("");
    expect(status).toBe(0);
    const asked = new Map<string, number>();
    for (let at = 0; at < stdout.length; ) {
      const end = stdout.indexOf("\n", at);
      const call = JSON.parse(stdout.toString("utf8", at, end)) as Call;
      const { found, expected } = repeat(call);
      if (JSON.stringify(found) !== JSON.stringify(expected)) expect(found, `call ${at}: ${call.rule}`).toEqual(expected);
      asked.set(call.rule, (asked.get(call.rule) ?? 0) + 1);
      at = end + 1;
    }
    console.log(`rules asked in both languages: ${JSON.stringify(Object.fromEntries(asked))}`);
    expect(asked.size).toBe(10);
  }, 300_000);
});
