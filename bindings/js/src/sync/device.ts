/**
 * What a device does: every function takes the replica as committed and returns the changes to commit, whole or not.
 *
 * The rules are those of xrec_sdk/sync_device.py, and the vectors hold both. An answer is given to these functions once, and
 * only by the request that it belongs to; a push and a request for changes may be under way at once, one of each.
 */

import { encodeUtf8 } from "../utf8";
import { check, compactJson, criteriaOf, eventOf, isEverything, takes } from "./body";
import { Draft, isOfEpoch, pendingErasures, registerOf, voidRefused } from "./draft";
import { compare, giveUp, heed, obey, startAnew, takeRows } from "./heed";
import { isGranted, orderMs, tick } from "./merge";
import { renumber } from "./rename";
import {
  CONSENT,
  ERASE,
  EVENT,
  LIMITS,
  NOP,
  PROTOCOL,
  SyncError,
  type Changes,
  type Head,
  type Limits,
  type Op,
  type Page,
  type Push,
  type PushAnswer,
  type Registered,
  type Replica,
} from "./values";

// What a push has beside its operations, at most.
const ENVELOPE_BYTES = 3_400;

/** What is to be said, without what the queue gives it. */
export interface Word {
  readonly kind: string;
  readonly id: string;
  readonly body: string;
  readonly purpose: string;
  readonly contactMs?: number;
}

/** Return the changes where this store is now on another installation than the one that wrote it. */
export function opened({ standing }: Replica, instance: string): Changes {
  const isCopy = standing.device !== "" && standing.instance !== "" && standing.instance !== instance;
  const copied = isCopy ? { copied_through: standing.last_dseq, must_register: true } : {};
  return onlyStanding({ ...standing, ...copied, instance });
}

function onlyStanding(standing: Replica["standing"]): Changes {
  return { standing, put_rows: [], drop_rows: [], put_queue: [], drop_queue: [], dead: [] };
}

/**
 * Queue an event, a preference, an erasure or another operation; SyncError where consent or the bounds forbid it. An event
 * needs consent to its purpose and to sync; an erasure works here at once. A full queue sheds.
 */
export function record(replica: Replica, word: Word, nowMs: number, limits: Limits = LIMITS): Changes {
  return recordAll(replica, [word], nowMs, limits);
}

/** {@link record} for several words, each with the contact that there was when it was said, if not the last one. */
export function recordAll(replica: Replica, words: readonly Word[], nowMs: number, limits: Limits = LIMITS): Changes {
  const needed = words.filter(({ kind }) => kind !== CONSENT && kind !== ERASE).flatMap(({ purpose }) => ["sync", purpose]);
  for (const asked of new Set(needed)) {
    if (isGranted(registerOf(replica, asked))) continue;
    throw new SyncError("sync.no_consent", `there is no consent to ${asked}; ask the user first`);
  }
  const draft = new Draft(replica);
  for (const word of words) {
    const op = append(draft, word, nowMs, limits);
    if (op.kind === ERASE) eraseHere(draft, op);
  }
  shed(draft, limits);
  return draft.changes();
}

/** Queue a grant, which covers the refusals that this device knows, or a refusal, which voids what is unsent. */
export function consentChange(
  replica: Replica,
  purpose: string,
  granted: boolean,
  policy: string,
  nowMs: number,
  limits: Limits = LIMITS,
): Changes {
  const over = granted ? registerOf(replica, purpose).refused : {};
  const draft = new Draft(replica);
  const body = compactJson({ granted, over, policy });
  append(draft, { kind: CONSENT, id: purpose, body, purpose }, nowMs, limits);
  voidRefused(draft);
  return draft.changes();
}

/** Queue what was said under the next number; SyncError where the server would reject it. */
function append(draft: Draft, word: Word, nowMs: number, limits: Limits): Op {
  const { last_dseq, epoch, hlc } = draft.standing;
  const { kind, id, body, purpose, contactMs = draft.standing.contact_ms } = word;
  const op: Op = { dseq: last_dseq + 1, kind, id, epoch, hlc: tick(hlc, nowMs), contact_ms: contactMs, purpose, body };
  check(op, limits);
  draft.set({ last_dseq: op.dseq, hlc: op.hlc });
  draft.put({ op, seq: null });
  return op;
}

function eraseHere(draft: Draft, erase: Op): void {
  const erasure = criteriaOf(erase.body);
  const isTaken = (kind: string, body: string) =>
    isEverything(erasure) ? isOfEpoch(kind) : kind === EVENT && takes(erasure, body);
  draft.dropRows((row) => isTaken(row.kind, row.body));
  for (const one of draft.queued()) if (one.op.dseq < erase.dseq && isTaken(one.op.kind, one.op.body)) draft.void(one);
}

/** Make nops of the oldest views, then of the oldest events, that were never sent, and count them. */
function shed(draft: Draft, limits: Limits): void {
  const { last_dseq, acked, sent } = draft.standing;
  if (last_dseq - acked <= limits.queue_ops) return;
  const full = draft.queued().filter(({ op, seq }) => seq === null && op.kind !== NOP);
  const events = full.filter(({ op }) => op.kind === EVENT && op.dseq > sent);
  const isView = ({ op }: (typeof events)[number]) => eventOf(op.body)?.event === "view";
  const victims = [...events.filter(isView), ...events.filter((one) => !isView(one))];
  const gone = victims.slice(0, Math.max(0, full.length - limits.queue_ops));
  for (const one of gone) draft.void(one);
  draft.set({ shed: draft.standing.shed + gone.length });
}

/** Return the next push and the changes to commit before it is sent; null where there is nothing to say. */
export function nextPush({ standing, queue }: Replica, limits: Limits = LIMITS): readonly [Push, Changes] | null {
  if (standing.must_register || !standing.device || !standing.is_rebuilt) return null;
  const ops: Op[] = [];
  const most = standing.push_ops || limits.push_ops;
  let size = ENVELOPE_BYTES;
  for (const { op } of queue) {
    if (op.dseq <= standing.acked) continue;
    size += encodeUtf8(compactJson(op)).length + 1;
    if (ops.length === most || (ops.length && size > limits.push_bytes)) break;
    ops.push(op);
    if (op.kind === ERASE) break;
  }
  if (!ops.length && !standing.must_probe) return null;
  const { device, generation, checked, acked } = standing;
  const push: Push = { v: PROTOCOL, device, generation, checked, first: acked + 1, ops };
  return [push, onlyStanding({ ...standing, sent: Math.max(standing.sent, acked + ops.length) })];
}

/** Return the changes that an answer to this push asks for. */
export function pushed(replica: Replica, push: Push, answer: PushAnswer, localMs: number, limits: Limits = LIMITS): Changes {
  const draft = new Draft(replica);
  if (answer.code === "sync.unknown_device") return forgotten(draft, answer.head);
  if (!heed(draft, answer.head, answer.now_ms, answer.high_water, localMs)) return draft.changes();
  if (answer.code === "sync.copied") {
    draft.set({ must_register: true });
  } else if (answer.code === "sync.gap") {
    // What is gone must not be said again: it would take what has been said since.
    obey(draft, answer.head);
    resendFrom(draft, answer.high_water);
  } else if (answer.code === "sync.too_large" || answer.code === "sync.malformed") {
    sendLess(draft, push);
  } else if (answer.code === null && push.device === draft.standing.device) {
    acknowledge(draft, push, answer, limits);
  }
  obey(draft, answer.head);
  return draft.changes();
}

function acknowledge(draft: Draft, push: Push, answer: PushAnswer, limits: Limits): void {
  const queue = new Map(draft.queued().map((one) => [one.op.dseq, one]));
  // A push that is not refused says that the server has all below its first.
  const below = [...queue.values()].filter(({ op, seq }) => op.dseq < push.first && seq === null);
  for (const [dseq, seq] of [...below.map(({ op }) => [op.dseq, answer.head.seq] as const), ...answer.acks]) {
    const one = queue.get(dseq);
    if (one) draft.put({ ...one, seq });
  }
  for (const [dseq, code] of answer.rejected) {
    const one = queue.get(dseq);
    if (one && one.seq === null) draft.void({ ...one, seq: answer.head.seq }, one.op.kind === NOP ? null : code);
  }
  const acked = Math.max(draft.standing.acked, push.first + push.ops.length - 1);
  const more = 2 * draft.standing.push_ops;
  draft.set({ acked, must_probe: false, push_ops: more < limits.push_ops ? more : 0 });
  for (const { op, seq } of draft.queued()) {
    // What no page has brought yet is known from the queue alone.
    const isBack = seq !== null && seq <= draft.standing.cursor;
    if (isBack && op.dseq <= acked - limits.window_ops) draft.queue.set(op.dseq, null);
  }
}

/**
 * Return the changes where the server could not read this push. Not for a bare status, which may be a proxy's: operation by
 * operation, it would empty the queue.
 */
export function refused(replica: Replica, push: Push): Changes {
  const draft = new Draft(replica);
  sendLess(draft, push);
  return draft.changes();
}

/** Halve the next push after one that the server can't take; give up an operation that it can't take alone. */
function sendLess(draft: Draft, push: Push): void {
  if (push.ops.length > 1) draft.set({ push_ops: Math.floor(push.ops.length / 2) });
  if (push.ops.length !== 1 || push.ops[0].kind === NOP) return;
  const said = compactJson(push.ops[0]);
  for (const one of draft.queued()) if (compactJson(one.op) === said) draft.void(one, "sync.bad_body");
}

/** Take back what a server restored from a backup no longer has; register anew where the window does not reach. */
function resendFrom(draft: Draft, highWater: number): void {
  const kept = draft.queued();
  if (!kept.some(({ op }) => op.dseq === highWater + 1)) return draft.set({ must_register: true });
  for (const one of kept) if (one.op.dseq > highWater) draft.put({ ...one, seq: null });
  draft.set({ acked: highWater, must_probe: false });
}

/** Return the changes that a page asks for; a page that does not begin at the cursor changes no row. */
export function applyPage(replica: Replica, page: Page, localMs: number): Changes {
  const draft = new Draft(replica);
  if (page.code === "sync.unknown_device") return forgotten(draft, page.head);
  if (!heed(draft, page.head, page.now_ms, page.high_water, localMs)) return draft.changes();
  const { generation, cursor } = draft.standing;
  if (page.code === "sync.generation" && page.head.generation === replica.standing.generation) {
    startAnew(draft);
  } else if (page.code === null && page.after === cursor && page.head.generation === generation) {
    takeRows(draft, page);
  }
  obey(draft, page.head);
  voidRefused(draft);
  if (page.code === null && !page.more && draft.standing.cursor === page.next) compare(draft, page);
  return draft.changes();
}

/** Register anew; give up the profile unless it is the server that lost the device in a restore. */
function forgotten(draft: Draft, head: Head): Changes {
  if (head.generation === draft.standing.generation) giveUp(draft);
  draft.set({ must_register: true });
  return draft.changes();
}

/** Return the changes that give up the profile where the device has not heard from the server for a lease; else null. */
export function leaseEnded(replica: Replica, localMs: number, limits: Limits = LIMITS): Changes | null {
  const { device, contact_local_ms } = replica.standing;
  if (!device || localMs - contact_local_ms <= limits.lease_ms) return null;
  const draft = new Draft(replica);
  draft.set({ contact_local_ms: localMs });
  giveUp(draft);
  draft.set({ must_register: true });
  return draft.changes();
}

/** Return the changes that take up a new name: what the former one did not deliver is numbered again from 1. */
export function registered(replica: Replica, answer: Registered, localMs: number): Changes {
  const was = replica.standing;
  const draft = new Draft(replica);
  heed(draft, answer.head, answer.now_ms, 0, localMs);
  const { epoch, forgotten: checked, generation } = answer.head;
  if (was.device === "") draft.set({ epoch, checked, generation });
  obey(draft, answer.head);
  renumber(draft, was, answer);
  return draft.changes();
}

/** Return [order_ms, id, body] of every event that the user sees on this device, by id. */
export function eventsOf({ standing, rows, queue }: Replica, nowMs: number): [orderMs: number, id: string, body: string][] {
  const seen = new Map<string, [number, string, string]>();
  const hidden = pendingErasures(queue, standing.cursor).map((op) => criteriaOf(op.body));
  const isHidden = (body: string) => hidden.some((erasure) => isEverything(erasure) || takes(erasure, body));
  for (const { kind, id, order_ms, body } of rows.values()) {
    if (kind === EVENT && !isHidden(body)) seen.set(id, [order_ms, id, body]);
  }
  for (const { op, seq } of queue) {
    if (op.kind !== EVENT || seen.has(op.id) || (seq !== null && seq <= standing.cursor)) continue;
    seen.set(op.id, [orderMs(eventOf(op.body)!.at_ms, op.contact_ms, nowMs), op.id, op.body]);
  }
  return [...seen.values()];
}
