/** Ask a device's rules what Python's were asked (tests/sync/recorded.py), and compare what they say. */

import { SyncError } from "../src/sync/values";
import * as rules from "../src/sync/device";
import { keyOf, LIMITS, type Changes, type Limits, type Page, type Push, type PushAnswer, type Queued, type Registered, type Replica, type Row, type Standing } from "../src/sync/values";

/** One call, as it was recorded. */
export interface Call {
  readonly rule: string;
  readonly given: Given;
  readonly said?: unknown;
  readonly error?: string;
}

interface Given {
  readonly replica: { readonly standing: Standing; readonly rows: readonly Row[]; readonly queue: readonly Queued[] };
  readonly limits?: Partial<Limits>;
  readonly [name: string]: unknown;
}

type Said = readonly [Push, Changes] | Changes | [number, string, string][] | null;

/** What Python calls with these names. */
const RULES: Readonly<Record<string, (replica: Replica, given: Given, limits: Limits) => Said>> = {
  opened: (replica, { instance }) => rules.opened(replica, instance as string),
  record: (replica, { kind, id, body, purpose, now_ms }, limits) =>
    rules.record(replica, { kind, id, body, purpose } as rules.Word, now_ms as number, limits),
  consent_change: (replica, { purpose, is_granted, policy, now_ms }, limits) =>
    rules.consentChange(replica, purpose as string, is_granted as boolean, policy as string, now_ms as number, limits),
  next_push: (replica, _, limits) => rules.nextPush(replica, limits),
  pushed: (replica, { push, answer, local_ms }, limits) =>
    rules.pushed(replica, push as Push, answer as PushAnswer, local_ms as number, limits),
  refused: (replica, { push }) => rules.refused(replica, push as Push),
  apply_page: (replica, { page, local_ms }) => rules.applyPage(replica, page as Page, local_ms as number),
  lease_ended: (replica, { local_ms }, limits) => rules.leaseEnded(replica, local_ms as number, limits),
  registered: (replica, { answer, local_ms }) => rules.registered(replica, answer as Registered, local_ms as number),
  events: (replica, { now_ms }) => rules.eventsOf(replica, now_ms as number).sort(([, a], [, b]) => (a < b ? -1 : 1)),
};

/** Return what a rule says of a recorded call and what it said in Python, in one shape. */
export function repeat({ rule, given, said, error }: Call): { found: unknown; expected: unknown } {
  const { replica, limits } = given;
  const whole: Replica = { ...replica, rows: new Map(replica.rows.map((row) => [keyOf(row), row])) };
  const expected = error ? { error } : ordered(rule, said);
  try {
    const found = RULES[rule](whole, given, { ...LIMITS, ...limits });
    return { found: ordered(rule, JSON.parse(JSON.stringify(found, withKeys))), expected };
  } catch (failure) {
    if (failure instanceof SyncError) return { found: { error: failure.code }, expected };
    throw failure;
  }
}

/** A key is one text here, and a pair in Python. */
function withKeys(name: string, value: unknown): unknown {
  return name === "drop_rows" ? (value as string[]).map((key) => key.split("\0")) : value;
}

/** Rows and operations are written together: their order says nothing. */
function ordered(rule: string, said: unknown): unknown {
  if (said === null || said === undefined) return null;
  if (rule === "next_push") {
    const [push, changes] = said as [Push, Changes];
    return [push, ordered("", changes)];
  }
  if (rule === "events") return (said as [number, string, string][]).sort(([, a], [, b]) => (a < b ? -1 : 1));
  const lists = Object.entries(said).map(([name, value]) => [name, Array.isArray(value) ? sorted(value) : value]);
  return Object.fromEntries(lists) as object;
}

function sorted(list: readonly unknown[]): unknown[] {
  return [...list].sort((a, b) => (textOf(a) < textOf(b) ? -1 : 1));
}

function textOf(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort()) : part,
  );
}
