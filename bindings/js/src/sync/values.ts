/**
 * What device and server say to each other: operations, rows, messages, limits and codes of the sync protocol.
 *
 * Values only, under the names that docs/sync-protocol.md and the vectors give them; xrec_sdk/sync.py says what each is. A
 * body is JSON text: whoever carries an operation carries its body letter for letter.
 */

import { XrecError } from "../errors";

export const PROTOCOL = 1;
export const EVENT = "event";
export const CONSENT = "consent";
export const ERASE = "erase";
export const NOP = "nop";

/** An operation can't be taken up, or an answer can't be used; the code says which, the message what was found. */
export class SyncError extends XrecError {}

/** A hybrid logical clock's time: Unix milliseconds and a counter within them (Kulkarni et al. 2014). */
export type Hlc = readonly [ms: number, counter: number];

/** One thing that a device says; `dseq` counts from 1 without gaps, per registered device. */
export interface Op {
  readonly dseq: number;
  readonly kind: string;
  readonly id: string;
  readonly epoch: number;
  readonly hlc: Hlc;
  readonly contact_ms: number;
  readonly purpose: string;
  readonly body: string;
}

/** One thing that the server holds; `seq` is its place in the profile, `order_ms` its time for ranking. */
export interface Row {
  readonly seq: number;
  readonly kind: string;
  readonly id: string;
  readonly epoch: number;
  readonly hlc: Hlc;
  readonly device: string;
  readonly dseq: number;
  readonly order_ms: number;
  readonly received_ms: number;
  readonly body: string;
}

/** What a row or an operation is about, as one text; a profile holds one row of a key. */
export function keyOf({ kind, id }: { readonly kind: string; readonly id: string }): string {
  return `${kind}\0${id}`;
}

/** Where a profile stands; every answer of the server carries it. */
export interface Head {
  readonly generation: number;
  readonly base: number;
  readonly epoch: number;
  readonly erased_by: string;
  readonly seq: number;
  readonly floor: number;
  readonly forgotten: number;
}

/** A device's operations `first`, `first + 1`...; an erase is the last of its push. */
export interface Push {
  readonly v: number;
  readonly device: string;
  readonly generation: number;
  readonly checked: number;
  readonly first: number;
  readonly ops: readonly Op[];
}

/** What became of a push, or the `code` that refused it whole. */
export interface PushAnswer {
  readonly head: Head;
  readonly now_ms: number;
  readonly high_water: number;
  readonly acks: readonly (readonly [dseq: number, seq: number])[];
  readonly rejected: readonly (readonly [dseq: number, code: string])[];
  readonly code: string | null;
}

/** Rows after `after` by seq; the device stands at `next` once it has them. */
export interface Page {
  readonly head: Head;
  readonly now_ms: number;
  readonly high_water: number;
  readonly after: number;
  readonly rows: readonly Row[];
  readonly next: number;
  readonly more: boolean;
  readonly digest: string;
  readonly code: string | null;
}

/** A device's new name, and what the server has of the one that it had before. */
export interface Registered {
  readonly head: Head;
  readonly now_ms: number;
  readonly device: string;
  readonly former_high_water: number;
  readonly former_prints: readonly (readonly [dseq: number, print: string])[];
  readonly is_former_known: boolean;
}

/** Bounds that device and server share; bytes are those of UTF-8 JSON. */
export const LIMITS = {
  push_ops: 500,
  push_bytes: 256_000,
  answer_bytes: 16_777_216,
  id_characters: 512,
  body_bytes: 16_384,
  ahead_ms: 300_000,
  lease_ms: 90 * 86_400_000,
  queue_ops: 10_000,
  window_ops: 1_000,
};
export type Limits = typeof LIMITS;

/** An operation in a device's queue; `seq` is null until it is acknowledged. Kept after that to be sent again. */
export interface Queued {
  readonly op: Op;
  readonly seq: number | null;
}

/** An operation that will never be part of the profile, and the code that says why. */
export interface Dead {
  readonly op: Op;
  readonly code: string;
}

/** All that a device keeps beside its rows and its queue; `device` is "" before it is first registered. */
export interface Standing {
  readonly device: string;
  readonly instance: string;
  readonly copied_through: number;
  readonly generation: number;
  readonly epoch: number;
  readonly floor: number;
  readonly forgotten: number;
  readonly cursor: number;
  readonly checked: number;
  readonly last_dseq: number;
  readonly sent: number;
  readonly acked: number;
  readonly hlc: Hlc;
  readonly contact_ms: number;
  readonly contact_local_ms: number;
  readonly digest: string;
  readonly shed: number;
  readonly push_ops: number;
  readonly must_register: boolean;
  readonly must_probe: boolean;
  readonly is_rebuilt: boolean;
  readonly is_diverged: boolean;
}

/** Where a device stands before anything was said. */
export const FRESH: Standing = {
  device: "",
  instance: "",
  copied_through: -1,
  generation: 1,
  epoch: 1,
  floor: 0,
  forgotten: 0,
  cursor: 0,
  checked: 0,
  last_dseq: 0,
  sent: 0,
  acked: 0,
  hlc: [0, 0],
  contact_ms: 0,
  contact_local_ms: 0,
  digest: "0".repeat(64),
  shed: 0,
  push_ops: 0,
  must_register: false,
  must_probe: false,
  is_rebuilt: true,
  is_diverged: false,
};

/** A device's whole part of the protocol, as the rules read it; rows by their key, the queue in order of dseq. */
export interface Replica {
  readonly standing: Standing;
  readonly rows: ReadonlyMap<string, Row>;
  readonly queue: readonly Queued[];
}

/** What a device's store writes in one transaction, drops first; rows are dropped by key, the queue by dseq. */
export interface Changes {
  readonly standing: Standing;
  readonly put_rows: readonly Row[];
  readonly drop_rows: readonly string[];
  readonly put_queue: readonly Queued[];
  readonly drop_queue: readonly number[];
  readonly dead: readonly Dead[];
}
