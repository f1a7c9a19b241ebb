/** The changes of a device as they grow: what was read, what is put over it, and what its user has consented to. */

import { digestChange, isGranted, joinRegisters, registerOfOp, registerOfRow, type Register } from "./merge";
import { CONSENT, ERASE, keyOf, NOP, type Changes, type Dead, type Op, type Queued, type Replica, type Row, type Standing } from "./values";

/** Return what stands in place of an operation that was erased, shed or refused. */
export function nop(dseq: number): Op {
  return { dseq, kind: NOP, id: "", epoch: 0, hlc: [0, 0], contact_ms: 0, purpose: "", body: "" };
}

/** Changes as they grow: what was read, and what is put over it. */
export class Draft {
  readonly rows = new Map<string, Row | null>();
  readonly queue = new Map<number, Queued | null>();
  readonly dead: Dead[] = [];

  constructor(
    readonly replica: Replica,
    public standing: Standing = replica.standing,
  ) {}

  /** Change some of what the device keeps beside rows and queue. */
  set(changed: Partial<Standing>): void {
    this.standing = { ...this.standing, ...changed };
  }

  /** Return the queue as it now is, in order of dseq. */
  queued(): readonly Queued[] {
    if (!this.queue.size) return this.replica.queue;
    const merged = new Map<number, Queued | null>(this.replica.queue.map((one) => [one.op.dseq, one]));
    for (const [dseq, one] of this.queue) merged.set(dseq, one);
    return [...merged.values()].filter((one) => one !== null).sort((a, b) => a.op.dseq - b.op.dseq);
  }

  /** Return the row of a key as it now is. */
  row(key: string): Row | null {
    const put = this.rows.get(key);
    return put === undefined ? (this.replica.rows.get(key) ?? null) : put;
  }

  /** Return the rows as they now are. */
  held(): Row[] {
    const merged = new Map<string, Row | null>([...this.replica.rows, ...this.rows]);
    return [...merged.values()].filter((row) => row !== null);
  }

  putRow(row: Row): void {
    this.rows.set(keyOf(row), row);
  }

  /** Drop every row of which `isGone` is true. */
  dropRows(isGone: (row: Row) => boolean): void {
    for (const row of this.held()) if (isGone(row)) this.rows.set(keyOf(row), null);
  }

  put(one: Queued): void {
    this.queue.set(one.op.dseq, one);
  }

  /** Make a nop of an operation; with a code, keep it among the dead. */
  void(one: Queued, code: string | null = null): void {
    if (code) this.dead.push({ op: one.op, code });
    this.put({ ...one, op: nop(one.op.dseq) });
  }

  /** Return the digest of the rows as they now are. */
  digest(): string {
    const was = [...this.rows.keys()].flatMap((key) => this.replica.rows.get(key) ?? []);
    return digestChange(this.replica.standing.digest, valuesOf(this.rows), was);
  }

  /** Return all of it. */
  changes(): Changes {
    return {
      standing: this.rows.size ? { ...this.standing, digest: this.digest() } : this.standing,
      put_rows: valuesOf(this.rows),
      drop_rows: keysOfNull(this.rows),
      put_queue: valuesOf(this.queue),
      drop_queue: keysOfNull(this.queue),
      dead: this.dead,
    };
  }
}

function valuesOf<T>(map: ReadonlyMap<unknown, T | null>): T[] {
  return [...map.values()].filter((value) => value !== null);
}

function keysOfNull<K>(map: ReadonlyMap<K, unknown>): K[] {
  return [...map].filter(([, value]) => value === null).map(([key]) => key);
}

/** Return the register of a purpose as this device knows it, its own unsent word included. */
export function registerOf({ standing, rows, queue }: Replica, purpose: string): Register {
  let register = registerOfRow(rows.get(keyOf({ kind: CONSENT, id: purpose })));
  for (const { op } of queue) {
    if (op.kind === CONSENT && op.id === purpose) register = joinRegisters(register, registerOfOp(op, standing.device));
  }
  return register;
}

/** Make nops of unsent operations whose purposes are no longer granted. */
export function voidRefused(draft: Draft): void {
  const queue = draft.queued();
  const asking = queue.filter(({ op, seq }) => seq === null && isOfEpoch(op.kind));
  if (!asking.length) return;
  const consents = draft.held().filter((row) => row.kind === CONSENT);
  const now = { standing: draft.standing, rows: new Map(consents.map((row) => [keyOf(row), row])), queue };
  const purposes = new Set(["sync", ...asking.map(({ op }) => op.purpose)]);
  const granted = new Set([...purposes].filter((purpose) => isGranted(registerOf(now, purpose))));
  for (const one of asking) if (!granted.has("sync") || !granted.has(one.op.purpose)) draft.void(one);
}

/** Return whether an erasure of everything takes what is of this kind: all but what the user decided. */
export function isOfEpoch(kind: string): boolean {
  return kind !== CONSENT && kind !== ERASE && kind !== NOP;
}

/** Return the dseq of an erasure that this device asked for; null for another's. */
export function ownErase(draft: Draft, id: string): number | null {
  return draft.queued().find(({ op }) => op.kind === ERASE && op.id === id)?.op.dseq ?? null;
}

/** Return the erasures of this device that no page has brought yet. */
export function pendingErasures(queue: readonly Queued[], cursor: number): Op[] {
  return queue.filter(({ op, seq }) => op.kind === ERASE && (seq === null || seq > cursor)).map(({ op }) => op);
}
