/** How values of the profile are joined, in any order and any number of times: clocks, registers, digests. */

import { sha256 } from "@noble/hashes/sha2.js";

import { encodeUtf8 } from "../utf8";
import { compactJson, compareText, consentSaid, MAX_COUNTER, registerSaid, type Vector } from "./body";
import { NOP, type Hlc, type Op, type Row } from "./values";

/** Order clocks. */
export function compareHlc(one: Hlc, other: Hlc): number {
  return one[0] - other[0] || one[1] - other[1];
}

/** Return the clock's next time: greater than `hlc` and not before `nowMs`. */
export function tick(hlc: Hlc, nowMs: number): Hlc {
  if (nowMs > hlc[0]) return [nowMs, 0];
  return hlc[1] < MAX_COUNTER ? [hlc[0], hlc[1] + 1] : [hlc[0] + 1, 0];
}

/** Return the clock, or the latest that is allowed where it runs more than `aheadMs` before `nowMs`. */
export function clamp(hlc: Hlc, nowMs: number, aheadMs: number): Hlc {
  return hlc[0] <= nowMs + aheadMs ? hlc : [nowMs + aheadMs, 0];
}

/** Return an event's time for ranking: the claimed one, within [last contact, now]. */
export function orderMs(atMs: number, contactMs: number, nowMs: number): number {
  return Math.min(Math.max(atMs, contactMs), nowMs);
}

/**
 * The register of one purpose: `refused` and `over` give a dseq for each device, of its last refusal, and of the last of its
 * refusals that a later grant was given in sight of.
 */
export interface Register {
  readonly was_granted: boolean;
  readonly refused: Vector;
  readonly over: Vector;
  readonly policy: string;
  readonly hlc: Hlc;
  readonly device: string;
}

const SILENT: Register = { was_granted: false, refused: {}, over: {}, policy: "", hlc: [0, 0], device: "" };

/** Return the dseq that a vector gives a device, 0 for none. */
export function dseqOf(vector: Vector, device: string): number {
  return Object.hasOwn(vector, device) ? vector[device] : 0;
}

/** Return whether the purpose may be pursued now: of a grant and a refusal that did not know each other, the refusal holds. */
export function isGranted({ was_granted, refused, over }: Register): boolean {
  return was_granted && Object.entries(refused).every(([device, dseq]) => dseqOf(over, device) >= dseq);
}

/** Return the join of two registers: commutative, associative and idempotent. */
export function joinRegisters(one: Register, other: Register): Register {
  const order = compareHlc(one.hlc, other.hlc) || compareText(one.device, other.device) || compareText(one.policy, other.policy);
  const { policy, hlc, device } = order >= 0 ? one : other;
  return {
    was_granted: one.was_granted || other.was_granted,
    refused: joinVectors(one.refused, other.refused),
    over: joinVectors(one.over, other.over),
    policy,
    hlc,
    device,
  };
}

function joinVectors(one: Vector, other: Vector): Vector {
  const devices = [...new Set([...Object.keys(one), ...Object.keys(other)])].sort(compareText);
  return Object.fromEntries(devices.map((device) => [device, Math.max(dseqOf(one, device), dseqOf(other, device))]));
}

/** Return what one consent operation of a device says. */
export function registerOfOp(op: Op, device: string): Register {
  const { granted, policy, over } = consentSaid(op.body);
  if (granted) return { was_granted: true, refused: {}, over, policy, hlc: op.hlc, device };
  return { was_granted: false, refused: { [device]: op.dseq }, over: {}, policy, hlc: op.hlc, device };
}

/** Return the register that a row holds; an empty one where there is none. */
export function registerOfRow(row: Row | undefined | null): Register {
  return row ? { ...registerSaid(row.body), hlc: row.hlc, device: row.device } : SILENT;
}

/** Return the body of a register's row. */
export function registerBody(register: Register): string {
  const { was_granted, refused, over, policy } = register;
  return compactJson({ granted: isGranted(register), over, policy, refused, was_granted });
}

/** Return each field's UTF-8 text as a netstring `length:bytes,` (Bernstein 1997), one after the other. */
function netstrings(fields: readonly (string | number)[]): Uint8Array {
  const texts = fields.map((field) => encodeUtf8(String(field)));
  const parts = texts.flatMap((text) => [encodeUtf8(`${text.length}:`), text, encodeUtf8(",")]);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Return the bytes of a row that its digest is taken of. */
export function rowBytes({ seq, kind, id, epoch, hlc, device, dseq, order_ms, body }: Row): Uint8Array {
  return netstrings(["xrec-row", seq, kind, id, epoch, ...hlc, device, dseq, order_ms, body]);
}

/**
 * Return the digest after rows have come and gone, 64 hexadecimal digits: the sum of the rows' SHA-256 as big-endian numbers
 * modulo 2^256, in any order (AdHash, Bellare and Micciancio 1997).
 */
export function digestChange(digest: string, put: Iterable<Row>, dropped: Iterable<Row>): string {
  // Eight words of 32 bits: a double holds the sum of two million of each.
  const words = Array.from({ length: 8 }, (_, place) => parseInt(digest.slice(8 * place, 8 * place + 8), 16));
  const add = (row: Row, sign: number) => {
    const hash = sha256(rowBytes(row));
    const view = new DataView(hash.buffer, hash.byteOffset);
    for (let place = 0; place < 8; place++) words[place] += sign * view.getUint32(4 * place);
  };
  for (const row of put) add(row, 1);
  for (const row of dropped) add(row, -1);
  let carry = 0;
  for (let place = 7; place >= 0; place--) {
    const sum = words[place] + carry;
    carry = Math.floor(sum / 2 ** 32);
    words[place] = sum - carry * 2 ** 32;
  }
  return words.map((word) => word.toString(16).padStart(8, "0")).join("");
}

/** Return 16 hexadecimal digits that tell an operation from another of its dseq; "" of a nop. */
export function printOf({ kind, id, hlc, body }: Op): string {
  if (kind === NOP) return "";
  const hash = sha256(netstrings(["xrec-op", kind, id, ...hlc, body]));
  return Array.from(hash.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
