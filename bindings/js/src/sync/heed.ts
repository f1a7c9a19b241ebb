/**
 * What an answer of the server makes of a device: its head obeyed, its rows taken, its digest compared.
 *
 * An older answer than what the device knows changes nothing. Whatever has been missed for good ends in a snapshot from 0.
 */

import { criteriaOf, isEverything, takes } from "./body";
import { isOfEpoch, ownErase, pendingErasures, type Draft } from "./draft";
import { clamp, compareHlc } from "./merge";
import { CONSENT, ERASE, EVENT, keyOf, LIMITS, type Head, type Page, type Row } from "./values";

/** Note the contact; return false where the answer is older than what the device knows. */
export function heed(draft: Draft, head: Head, nowMs: number, highWater: number, localMs: number): boolean {
  const was = draft.standing;
  if (head.generation < was.generation || (head.generation === was.generation && head.epoch < was.epoch)) return false;
  const contactMs = Math.max(was.contact_ms, nowMs);
  // The server clamps what runs ahead, and a device always wins over itself there.
  draft.set({ hlc: clamp(was.hlc, contactMs, LIMITS.ahead_ms), contact_ms: contactMs, contact_local_ms: localMs });
  if (highWater > was.sent) draft.set({ must_register: true });
  if (head.generation > was.generation) {
    startAnew(draft);
    doubt(draft, head.generation === was.generation + 1 ? head.base : 0);
    draft.set({ generation: head.generation, floor: 0, forgotten: 0 });
  }
  if (was.device && head.forgotten > draft.standing.checked) fallBehind(draft, head);
  return true;
}

/** Take back what was acknowledged after the backup; consents and erases outlive a restore in the ledger. */
function doubt(draft: Draft, base: number): void {
  for (const one of draft.queued()) {
    const outlives = one.op.kind === CONSENT || one.op.kind === ERASE;
    if (one.seq !== null && one.seq > base && !outlives) draft.put({ ...one, seq: null });
  }
}

/** Give up events that were not checked against erasures that nobody remembers, and take a snapshot. */
function fallBehind(draft: Draft, head: Head): void {
  for (const one of draft.queued()) {
    // What was acknowledged too: a server that was restored may ask for it again.
    if (one.op.kind === EVENT) draft.void(one, one.seq === null ? "sync.behind" : null);
  }
  startAnew(draft);
  draft.set({ checked: head.forgotten });
}

/** Drop the rows and take a snapshot from 0; a push must then say again where the queue stands. */
export function startAnew(draft: Draft): void {
  dropAll(draft);
  draft.set({ cursor: 0, is_rebuilt: false, must_probe: true });
}

/** Drop all rows, but know what was refused and erased until the snapshot says it: such rows stand at seq 0. */
function dropAll(draft: Draft): void {
  draft.dropRows(({ kind }) => kind !== CONSENT && kind !== ERASE);
  for (const row of draft.held()) draft.putRow({ ...row, seq: 0 });
}

/** Drop the profile; what the user decided and the server does not know is still said. */
export function giveUp(draft: Draft): void {
  dropAll(draft);
  for (const one of draft.queued()) if (isOfEpoch(one.op.kind)) draft.void(one, one.seq === null ? "sync.behind" : null);
  draft.set({ cursor: 0, is_rebuilt: false });
}

/** Drop what the head says is gone: older epochs, retired events, forgotten erasures. */
export function obey(draft: Draft, head: Head): void {
  const was = draft.standing;
  if (head.generation !== was.generation) return;
  if (head.epoch > was.epoch) purge(draft, head);
  const [floor, forgotten] = [Math.max(was.floor, head.floor), Math.max(was.forgotten, head.forgotten)];
  if (floor === was.floor && forgotten === was.forgotten) return;
  draft.dropRows((row) => isRetired(row.kind, row.seq, floor, forgotten));
  for (const one of draft.queued()) {
    if (one.seq !== null && isRetired(one.op.kind, one.seq, floor, forgotten)) draft.void(one);
  }
  draft.set({ floor, forgotten });
}

/** Return whether nobody holds such a row any more. */
function isRetired(kind: string, seq: number, floor: number, forgotten: number): boolean {
  return (kind === EVENT && seq <= floor) || (kind === ERASE && seq <= forgotten);
}

function purge(draft: Draft, head: Head): void {
  draft.dropRows((row) => isOfEpoch(row.kind) && row.epoch < head.epoch);
  // What was said after the device's own erasure stands, unless another erasure or a restore came between.
  const isNext = head.epoch === draft.standing.epoch + 1 && head.generation === draft.replica.standing.generation;
  const own = isNext ? ownErase(draft, head.erased_by) : null;
  for (const one of draft.queued()) {
    const { op } = one;
    if (own !== null && op.dseq > own) draft.put({ ...one, op: { ...op, epoch: head.epoch } });
    else if (op.epoch < head.epoch && isOfEpoch(op.kind)) draft.void(one);
  }
  draft.set({ epoch: head.epoch });
}

/** Put a page's rows and move the cursor; an erase row takes what it finds in rows and queue. */
export function takeRows(draft: Draft, page: Page): void {
  let { hlc } = draft.standing;
  for (const row of page.rows) {
    if (isRetired(row.kind, row.seq, draft.standing.floor, draft.standing.forgotten)) continue;
    if (compareHlc(row.hlc, hlc) > 0) hlc = row.hlc;
    if (row.kind === ERASE) eraseByRow(draft, row);
    draft.putRow(row);
  }
  draft.set({ hlc, cursor: page.next, checked: Math.max(draft.standing.checked, page.next) });
}

function eraseByRow(draft: Draft, erase: Row): void {
  const erasure = criteriaOf(erase.body);
  for (const one of draft.queued()) {
    if (keyOf(one.op) === keyOf(erase) && one.seq === null) draft.put({ ...one, seq: erase.seq });
  }
  if (isEverything(erasure)) return;
  draft.dropRows((row) => row.kind === EVENT && row.seq < erase.seq && takes(erasure, row.body));
  if (erase.seq <= draft.standing.checked) return;
  const own = ownErase(draft, erase.id);
  for (const one of draft.queued()) {
    const isOwnLater = own !== null && one.op.dseq > own;
    if (one.op.kind === EVENT && !isOwnLater && takes(erasure, one.op.body)) draft.void(one);
  }
}

/**
 * Compare digests at the end of the changes; start anew where they differ, and say so if that did not help. Not while an
 * erasure of this device is on its way, nor with a page that is older than what the device obeys.
 */
export function compare(draft: Draft, { head, digest }: Page): void {
  draft.dropRows((row) => row.seq === 0);
  const was = draft.standing;
  const isCurrent = head.epoch === was.epoch && head.floor === was.floor && head.forgotten === was.forgotten;
  const isErasing = pendingErasures(draft.queued(), was.cursor).length > 0;
  if (!isCurrent || isErasing) draft.set({ is_rebuilt: true });
  else if (digest === draft.digest()) draft.set({ is_rebuilt: true, is_diverged: false });
  else if (was.is_rebuilt) startAnew(draft);
  else draft.set({ is_rebuilt: true, is_diverged: true });
}
