/** How messages of the sync protocol are written as JSON and read again, each field by hand: its type and its range. */

import { decodeUtf8, encodeUtf8 } from "../utf8";
import { compactJson, criteriaOf, isName, isNumber, isObject, isText, readJson, short, type Fields } from "./body";
import { registerOfRow } from "./merge";
import { CONSENT, ERASE, LIMITS, SyncError, type Head, type Hlc, type Page, type Push, type PushAnswer, type Registered, type Row } from "./values";

/** What a device says of itself when it asks for a name: the one that it had, "" for none, and where it stood. */
export interface RegisterRequest {
  readonly v: number;
  readonly device: string;
  readonly checked: number;
  readonly generation: number;
  readonly floor: number;
}

/** A request for the page after `after`; the answer may come `wait` seconds later, once there is something. */
export interface ChangesRequest {
  readonly device: string;
  readonly generation: number;
  readonly after: number;
  readonly wait: number;
}

/** Return a message as UTF-8 JSON: its fields by name, keys sorted, no spaces. */
export function write(message: Push | RegisterRequest): Uint8Array {
  return encodeUtf8(compactJson(message));
}

/** Return a request for changes as the query of its URL. */
export function writeQuery({ device, generation, after, wait }: ChangesRequest): string {
  return `device=${encodeURIComponent(device)}&generation=${generation}&after=${after}&wait=${wait}`;
}

/** Return the answer to a push; SyncError where it is none. */
export function readPushAnswer(bytes: Uint8Array): PushAnswer {
  const fields = read(bytes);
  return {
    head: headOf(fields),
    now_ms: number(fields, "now_ms"),
    high_water: number(fields, "high_water"),
    acks: pairs(fields, "acks", isNumber),
    rejected: pairs(fields, "rejected", isString),
    code: codeOf(fields),
  };
}

/** Return a page of changes; SyncError where it is none, or its rows are not in order within (after, next]. */
export function readPage(bytes: Uint8Array): Page {
  const fields = read(bytes);
  const [head, now_ms, high_water] = [headOf(fields), number(fields, "now_ms"), number(fields, "high_water")];
  const [after, next, code] = [number(fields, "after"), number(fields, "next"), codeOf(fields)];
  const rows = typed(fields, "rows", Array.isArray, "a list").map(rowOf);
  let last = after;
  for (const { seq } of rows) {
    if (seq <= last) throw bad("seq of the rows", seq, `more than ${last}`);
    last = seq;
  }
  if (next < last) throw bad("next", next, `at least ${last}`);
  const [more, digest] = [typed(fields, "more", isBoolean, "true or false"), text(fields, "digest")];
  if (code === null && !more && !/^[0-9a-f]{64}$/.test(digest)) throw bad("digest", digest, "64 hexadecimal digits");
  return { head, now_ms, high_water, after, rows, next, more, digest, code };
}

function rowOf(given: unknown): Row {
  const fields = object(given, "a row");
  const [kind, id] = [name(fields, "kind"), name(fields, "id")];
  const row: Row = {
    seq: number(fields, "seq"),
    kind,
    id,
    epoch: number(fields, "epoch"),
    hlc: hlcOf(fields),
    device: text(fields, "device"),
    dseq: number(fields, "dseq"),
    order_ms: number(fields, "order_ms"),
    received_ms: number(fields, "received_ms"),
    body: text(fields, "body"),
  };
  try {
    // A device obeys these, so it must be able to read them.
    if (kind === ERASE) criteriaOf(row.body);
    else if (kind === CONSENT) registerOfRow(row);
  } catch {
    throw bad(`the body of a row of kind ${kind}`, row.body, "one that can be read");
  }
  return row;
}

/** Return the answer to a device that asked for a name; SyncError where it is none. */
export function readRegistered(bytes: Uint8Array): Registered {
  const fields = read(bytes);
  return {
    head: headOf(fields),
    now_ms: number(fields, "now_ms"),
    device: name(fields, "device"),
    former_high_water: number(fields, "former_high_water"),
    former_prints: pairs(fields, "former_prints", isString),
    is_former_known: typed(fields, "is_former_known", isBoolean, "true or false"),
  };
}

function read(bytes: Uint8Array): Fields {
  if (bytes.length > LIMITS.answer_bytes) throw bad("the message", `${bytes.length} bytes`, `at most ${LIMITS.answer_bytes}`);
  let value: unknown;
  try {
    value = readJson(decodeUtf8(bytes));
  } catch (cause) {
    throw bad("the message", String(cause), "strict JSON");
  }
  return object(value, "the message");
}

function headOf(fields: Fields): Head {
  const head = object(fields.head, "head");
  return {
    generation: number(head, "generation"),
    base: number(head, "base"),
    epoch: number(head, "epoch"),
    erased_by: text(head, "erased_by"),
    seq: number(head, "seq"),
    floor: number(head, "floor"),
    forgotten: number(head, "forgotten"),
  };
}

function hlcOf(fields: Fields): Hlc {
  const isHlc = (value: unknown): value is Hlc => Array.isArray(value) && value.length === 2 && value.every(isNumber);
  return typed(fields, "hlc", isHlc, "[ms, counter]");
}

function pairs<T>(fields: Fields, key: string, isSecond: (value: unknown) => value is T): readonly (readonly [number, T])[] {
  const isPair = (one: unknown): one is readonly [number, T] =>
    Array.isArray(one) && one.length === 2 && isNumber(one[0]) && isSecond(one[1]);
  const isList = (value: unknown): value is (readonly [number, T])[] => Array.isArray(value) && value.every(isPair);
  return typed(fields, key, isList, "a list of pairs");
}

function codeOf(fields: Fields): string | null {
  return fields.code === null ? null : name(fields, "code");
}

function number(fields: Fields, key: string): number {
  return typed(fields, key, isNumber, "a whole number from 0 to 2^53 - 1");
}

function text(fields: Fields, key: string): string {
  return typed(fields, key, isText, "text");
}

function name(fields: Fields, key: string): string {
  const isOne = (value: unknown): value is string => isName(value, LIMITS.id_characters);
  return typed(fields, key, isOne, `text of 1 to ${LIMITS.id_characters} characters`);
}

function isBoolean(value: unknown): value is boolean {
  return typeof value === "boolean";
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function typed<T>(fields: Fields, key: string, is: (value: unknown) => value is T, expected: string): T {
  const value = fields[key];
  if (!is(value)) throw bad(key, value, expected);
  return value;
}

function object(value: unknown, what: string): Fields {
  if (!isObject(value)) throw bad(what, value, "an object");
  return value;
}

function bad(what: string, found: unknown, expected: string): SyncError {
  return new SyncError("sync.bad_answer", `${what} of the server's answer is ${short(found)}; expected ${expected}`);
}
