/** What an operation may hold: strict JSON, the body that each kind needs, the bounds; nothing else enters a queue. */

import { encodeUtf8, hasLoneSurrogate } from "../utf8";
import { CONSENT, ERASE, EVENT, NOP, SyncError, type Limits, type Op } from "./values";

const MAX_DEPTH = 32;
export const MAX_COUNTER = 2 ** 31 - 1;

export type Fields = Readonly<Record<string, unknown>>;
/** A dseq for each device. */
export type Vector = Readonly<Record<string, number>>;

/** Return whether this is a whole number that every language holds exactly: 0 to 2^53 - 1. */
export function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Return whether this is text that UTF-8 and every database can hold: no NUL, no half of a surrogate pair. */
export function isText(value: unknown): value is string {
  return typeof value === "string" && !value.includes("\0") && !hasLoneSurrogate(value);
}

/** Return whether this is such text, not empty, and no longer than an id may be. */
export function isName(value: unknown, most: number): value is string {
  return isText(value) && value !== "" && [...value].length <= most;
}

/** Return what strict JSON says, of at most 32 levels, finite numbers and whole letters; SyncError for anything else. */
export function readJson(text: string): unknown {
  let level: unknown[];
  try {
    level = [JSON.parse(text)];
  } catch {
    throw bad("the text is no JSON");
  }
  const [value] = level;
  for (let depth = 0; level.length; depth++) {
    if (depth === MAX_DEPTH) throw bad(`JSON is nested deeper than ${MAX_DEPTH} levels`);
    for (const one of level) {
      if (one === Infinity || one === -Infinity) throw bad("a number is beyond a double's range");
      if (typeof one === "string" && hasLoneSurrogate(one)) throw bad("a text has half of a surrogate pair");
    }
    level = level.flatMap((one) => (Array.isArray(one) ? one : isObject(one) ? [...Object.keys(one), ...Object.values(one)] : []));
  }
  return value;
}

/** Return JSON with keys sorted by code point and no spaces. */
export function compactJson(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    isObject(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => compareText(a, b))) : part,
  );
}

/** Order texts by code points, as Python does. */
export function compareText(one: string, other: string): number {
  const most = Math.min(one.length, other.length);
  for (let at = 0; at < most; at++) {
    if (one[at] !== other[at]) return rank(one.charCodeAt(at)) - rank(other.charCodeAt(at));
  }
  return one.length - other.length;
}

/** Halves of surrogate pairs stand for what comes after U+FFFF. */
function rank(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit;
}

/** Which events an erasure takes: those that meet all that is given, times as claimed in [from_ms, to_ms). */
export interface Criteria {
  readonly item_id?: string | null;
  readonly event?: string | null;
  readonly from_ms?: number | null;
  readonly to_ms?: number | null;
}

const CRITERIA: Readonly<Record<string, (value: unknown) => boolean>> = {
  item_id: isText,
  event: isText,
  from_ms: isNumber,
  to_ms: isNumber,
};

/** Return whether nothing is named: then the erasure takes the whole profile and begins an epoch. */
export function isEverything(erasure: Criteria): boolean {
  return Object.values(erasure).every((value) => value === null);
}

/** Return the criteria of an erase operation; SyncError where its body is malformed. */
export function criteriaOf(body: string): Criteria {
  const fields = objectOf(body);
  for (const [name, value] of Object.entries(fields)) {
    // Never less than what was meant: an erasure that names more than is understood would take too much.
    if (!Object.hasOwn(CRITERIA, name)) throw bad(`an erasure names ${short(name)}`);
    if (value !== null && !CRITERIA[name](value)) throw bad(`${name} of an erasure is ${short(value)}`);
  }
  return fields;
}

/** Return whether an erasure takes the event of this body; an event that can't be read is taken. */
export function takes({ item_id, event, from_ms, to_ms }: Criteria, body: string): boolean {
  const said = eventOf(body);
  if (!said) return true;
  const isNamed = (item_id ?? said.item_id) === said.item_id && (event ?? said.event) === said.event;
  return isNamed && (from_ms ?? 0) <= said.at_ms && said.at_ms < (to_ms ?? Infinity);
}

/** The body of an event. */
export interface EventBody {
  readonly id: string;
  readonly at_ms: number;
  readonly event: string;
  readonly item_id: string;
  readonly device: string;
  readonly value?: number | null;
  readonly recommendation_id?: string | null;
}

/** Return the event that a body says; null where it can't be read. */
export function eventOf(body: string): EventBody | null {
  let said: unknown;
  try {
    said = JSON.parse(body);
  } catch {
    return null;
  }
  if (!isObject(said) || !Number.isInteger(said.at_ms)) return null;
  const isWell = ["id", "event", "item_id", "device"].every((name) => typeof said[name] === "string");
  const isValue = ["number", "undefined"].includes(typeof (said.value ?? undefined));
  const isShown = ["string", "undefined"].includes(typeof (said.recommendation_id ?? undefined));
  return isWell && isValue && isShown ? (said as unknown as EventBody) : null;
}

/** What a consent operation says. */
export interface Said {
  readonly granted: boolean;
  readonly policy: string;
  readonly over: Vector;
}

/** Return what a consent operation says; SyncError where its body is malformed. */
export function consentSaid(body: string): Said {
  const { granted, policy, over = {} } = objectOf(body);
  if (typeof granted !== "boolean" || typeof policy !== "string" || !isVector(over)) {
    throw bad("a consent expects granted (true or false), policy (text) and over (an object of whole numbers)");
  }
  return { granted, policy, over };
}

/** What the row of a purpose says. */
export interface RegisterSaid {
  readonly was_granted: boolean;
  readonly refused: Vector;
  readonly over: Vector;
  readonly policy: string;
}

/** Return what a purpose's row says; SyncError where its body is malformed. */
export function registerSaid(body: string): RegisterSaid {
  const { was_granted, refused, over, policy } = objectOf(body);
  if (typeof was_granted !== "boolean" || !isVector(refused) || !isVector(over) || typeof policy !== "string") {
    throw bad("a register expects was_granted, refused and over (objects of whole numbers) and policy (text)");
  }
  return { was_granted, refused, over, policy };
}

function isVector(value: unknown): value is Vector {
  return isObject(value) && Object.values(value).every(isNumber);
}

/** Throw SyncError, saying what was found, where no profile may hold this operation; a nop always stands. */
export function check(op: Op, limits: Limits): void {
  if (op.kind === NOP) return;
  for (const name of ["kind", "id", "purpose"] as const) {
    if (!isName(op[name], limits.id_characters)) throw bad(`${name} is ${short(op[name])}`);
  }
  if (![op.epoch, op.contact_ms, ...op.hlc].every(isNumber) || op.hlc[1] > MAX_COUNTER) {
    throw bad(`epoch, contact_ms or hlc is ${short([op.epoch, op.contact_ms, op.hlc])}`);
  }
  if (hasLoneSurrogate(op.body)) throw bad("the body has half of a surrogate pair");
  const bytes = encodeUtf8(op.body).length;
  if (bytes > limits.body_bytes) throw bad(`the body has ${bytes} bytes; expected at most ${limits.body_bytes}`);
  if (op.kind === EVENT) checkEvent(op, limits);
  else if (op.kind === CONSENT) consentSaid(op.body);
  else if (op.kind === ERASE) criteriaOf(op.body);
  else readJson(op.body);
}

function checkEvent(op: Op, limits: Limits): void {
  const fields = objectOf(op.body);
  if (fields.id !== op.id) throw bad(`the body of event ${short(op.id)} has the id ${short(fields.id)}`);
  for (const name of ["event", "item_id", "device", "recommendation_id"]) {
    const isAbsent = name === "recommendation_id" && (fields[name] ?? null) === null;
    if (!isAbsent && !isName(fields[name], limits.id_characters)) throw bad(`${name} of an event is ${short(fields[name])}`);
  }
  if (typeof (fields.value ?? 0) !== "number") throw bad(`value of an event is ${short(fields.value)}; expected a number`);
  if (!isNumber(fields.at_ms)) throw bad(`at_ms of an event is ${short(fields.at_ms)}; expected Unix milliseconds`);
}

function objectOf(body: string): Fields {
  const value = readJson(body);
  if (!isObject(value)) throw bad(`the body is ${short(value)}; expected a JSON object`);
  return value;
}

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return a value as it is shown in a message. */
export function short(value: unknown): string {
  return (JSON.stringify(value) ?? "missing").slice(0, 60);
}

function bad(found: string): SyncError {
  return new SyncError("sync.bad_body", `the profile can't hold this: ${found}`);
}
