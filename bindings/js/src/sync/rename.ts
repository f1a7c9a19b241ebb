/** A device's new name: what of its queue the former one delivered, what is numbered again from 1, and what is lost. */

import { compactJson, consentSaid, type Vector } from "./body";
import type { Draft } from "./draft";
import { dseqOf, joinRegisters, printOf, registerBody, registerOfOp, registerOfRow } from "./merge";
import { CONSENT, ERASE, keyOf, NOP, type Op, type Queued, type Registered, type Standing } from "./values";

/** Take up the new name; `was` is where the device stood under the former one. */
export function renumber(draft: Draft, was: Standing, answer: Registered): void {
  const prints = new Map(answer.former_prints);
  const kept: Op[] = [];
  for (const one of draft.queued()) {
    const fate = isCovered(draft, one.op, was.device) ? "delivered" : fateOf(one, was, answer, prints);
    if (fate === "lost") draft.dead.push({ op: one.op, code: "sync.copied" });
    else if (fate === "mine" && one.op.kind !== NOP) kept.push(one.op);
    else if (one.op.kind === CONSENT && (one.seq === null || one.seq > was.cursor)) hold(draft, one.op, was.device);
    draft.queue.set(one.op.dseq, null);
  }
  const numbers = new Map(kept.map((op, place) => [op.dseq, place + 1]));
  for (const [place, op] of kept.entries()) {
    const epoch = was.device === "" ? draft.standing.epoch : op.epoch;
    const body = op.kind === CONSENT ? renamed(op, was.device, answer.device, numbers) : op.body;
    draft.put({ op: { ...op, dseq: place + 1, epoch, body }, seq: null });
  }
  draft.set({
    device: answer.device,
    copied_through: -1,
    last_dseq: kept.length,
    sent: 0,
    acked: 0,
    must_register: false,
    must_probe: false,
  });
}

/** Know a decision that the server has until a page brings it: the row stands at seq 0. */
function hold(draft: Draft, op: Op, device: string): void {
  const held = registerOfRow(draft.row(keyOf(op)));
  const joined = joinRegisters(held, registerOfOp(op, device));
  if (compactJson(joined) === compactJson(held)) return;
  const { kind, id, epoch, dseq } = op;
  const row = { seq: 0, kind, id, epoch, hlc: joined.hlc, device: joined.device, dseq, order_ms: 0, received_ms: 0 };
  draft.putRow({ ...row, body: registerBody(joined) });
}

/** Return whether a later grant is known to have seen this refusal, which must not be said again then. */
function isCovered(draft: Draft, op: Op, device: string): boolean {
  const row = op.kind === CONSENT ? draft.row(keyOf(op)) : null;
  return row !== null && dseqOf(registerOfRow(row).over, device) >= op.dseq && !consentSaid(op.body).granted;
}

/** Say whether an operation was delivered under the former name, is "mine" to send, or "lost": nobody can tell. */
function fateOf({ op, seq }: Queued, was: Standing, answer: Registered, prints: ReadonlyMap<number, string>): string {
  const recentFrom = Math.min(...prints.keys(), answer.former_high_water + 1);
  if (op.kind === ERASE) return seq === null || seq > was.checked ? "mine" : "delivered";
  if (op.dseq > answer.former_high_water) return "mine";
  if (op.dseq <= was.acked || op.dseq <= was.copied_through) return "delivered";
  if (op.dseq >= recentFrom) return printOf(op) === prints.get(op.dseq) || op.kind === NOP ? "delivered" : "mine";
  // To say it twice does no harm; an event that may have been retired since must not come again.
  const isSafe = op.kind === CONSENT || (op.dseq > was.sent && was.floor === answer.head.floor);
  return isSafe ? "mine" : "lost";
}

/** Return a consent's body with the device's own refusals under its new name and numbers. */
function renamed(op: Op, old: string, fresh: string, numbers: ReadonlyMap<number, number>): string {
  const body = JSON.parse(op.body) as { readonly over?: Vector };
  const { over = {} } = body;
  if (!Object.hasOwn(over, old)) return compactJson(body);
  const mine = [...numbers].filter(([dseq]) => dseq <= over[old]).map(([, number]) => number);
  return compactJson({ ...body, over: { ...over, [fresh]: Math.max(0, ...mine) } });
}
