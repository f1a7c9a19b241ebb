/**
 * All that a synced profile keeps, and what the user sees of it: rows of the server, over them what this device said and has
 * not seen come back, and what it never queued.
 *
 * Every function takes the state as committed and returns the steps to commit, all in one transaction; xrec_sdk/sync_view.py
 * does the same in SQL.
 */

import { inTime, PURPOSES, shed, type Consent, type Event, type Kept } from "../profile";
import { compactJson, criteriaOf, eventOf, isEverything, takes, type Criteria } from "./body";
import { consentChange, eventsOf, recordAll, type Word } from "./device";
import { registerOf } from "./draft";
import { isGranted } from "./merge";
import { CONSENT, ERASE, EVENT, FRESH, keyOf, type Changes, type Dead, type Queued, type Replica, type Row } from "./values";

const KEPT_DEAD = 1000;
const ERASED_CODES = ["sync.erased", "sync.old_epoch", "sync.behind", "sync.too_old"];

/** An event that was never queued for other devices, and the server's time when it was last heard before. */
export type Local = Event & { readonly contactMs: number };

/** A replica, and what is this device's alone. */
export interface State extends Replica {
  readonly local: ReadonlyMap<string, Local>;
  /** Operations that will never be part of the profile, oldest first, the last thousand. */
  readonly dead: readonly Dead[];
}

/** What is written of one rule's changes; the dead are all that there now are. */
export interface Step extends Changes {
  readonly put_local: readonly Local[];
  readonly drop_local: readonly string[];
}

export const EMPTY: State = { standing: FRESH, rows: new Map(), queue: [], local: new Map(), dead: [] };

/** Return the step that makes a state of {@link EMPTY}. */
export function wholeOf({ standing, rows, queue, local, dead }: State): Step {
  const put = { put_rows: [...rows.values()], put_queue: queue, put_local: [...local.values()] };
  return { standing, dead, ...put, drop_rows: [], drop_queue: [], drop_local: [] };
}

/** Return the state after a step. */
export function applied(state: State, step: Step): State {
  return {
    standing: step.standing,
    rows: changed(state.rows, step.drop_rows, step.put_rows.map((row) => [keyOf(row), row])),
    queue: queueAfter(state.queue, step),
    local: changed(state.local, step.drop_local, step.put_local.map((event) => [event.id, event])),
    dead: step.dead,
  };
}

function changed<K, V>(was: ReadonlyMap<K, V>, drop: readonly K[], put: readonly (readonly [K, V])[]): ReadonlyMap<K, V> {
  if (!drop.length && !put.length) return was;
  const map = new Map(was);
  for (const key of drop) map.delete(key);
  for (const [key, value] of put) map.set(key, value);
  return map;
}

function queueAfter(was: readonly Queued[], { drop_queue, put_queue }: Changes): readonly Queued[] {
  if (!drop_queue.length && !put_queue.length) return was;
  const queue = changed(new Map(was.map((one) => [one.op.dseq, one])), drop_queue, put_queue.map((one) => [one.op.dseq, one]));
  return [...queue.values()].sort((a, b) => a.op.dseq - b.op.dseq);
}

/** Return what the user sees: the newest `maxEvents`, and the last word of each purpose of which something was said. */
export function keptOf(state: State, nowMs: number, maxEvents: number): Kept {
  const seen = eventsOf(state, nowMs).flatMap(([atMs, , body]) => eventSaid(body, atMs) ?? []);
  const events = [...seen, ...[...state.local.values()].map(({ contactMs: _, ...event }) => event)].sort(inTime);
  return { events: events.slice(-maxEvents), consents: consentsOf(state) };
}

function eventSaid(body: string, atMs?: number): Event | null {
  const said = eventOf(body);
  if (!said) return null;
  const { id, at_ms, event, item_id: itemId, device, value = null, recommendation_id: recommendationId = null } = said;
  const shown = { id, atMs: atMs ?? at_ms, event, itemId, device, value, recommendationId };
  return shown.atMs === at_ms ? shown : { ...shown, claimedMs: at_ms };
}

function consentsOf(replica: Replica): Consent[] {
  return PURPOSES.flatMap((purpose) => {
    const register = registerOf(replica, purpose);
    const isSaid = register.was_granted || Object.keys(register.refused).length > 0;
    return isSaid ? { purpose, granted: isGranted(register), policy: register.policy } : [];
  });
}

function isConsented(replica: Replica, ...purposes: string[]): boolean {
  return purposes.every((purpose) => isGranted(registerOf(replica, purpose)));
}

/**
 * Return the steps that keep an event: queued where the user's devices share it, else among the newest `maxEvents` that stay
 * here. Its consent is the caller's to check.
 */
export function recorded(state: State, event: Event, nowMs: number, maxEvents: number): Step[] {
  if (isConsented(state, "sync")) return committed(state, recordAll(state, [wordOf(event)], nowMs), nowMs);
  const { standing, dead } = state;
  const local = [...state.local.values(), { ...event, contactMs: standing.contact_ms }];
  const kept = local.length > maxEvents ? new Set(shed([...local].sort(inTime), maxEvents)) : new Set(local);
  const step = wholeOf({ ...EMPTY, standing, dead });
  return [{ ...step, put_local: local.slice(-1), drop_local: local.filter((one) => !kept.has(one)).map(({ id }) => id) }];
}

function wordOf({ id, atMs, event, itemId, device, value, recommendationId }: Event, contactMs?: number): Word {
  const optional = { ...(value !== null && { value }), ...(recommendationId !== null && { recommendation_id: recommendationId }) };
  const body = JSON.stringify({ id, at_ms: atMs, event, item_id: itemId, device, ...optional });
  return { kind: EVENT, id, body, purpose: "personalise", contactMs };
}

/** Return the steps that keep what was said to a purpose; saying again what stands, of the same policy, says nothing. */
export function consented(state: State, { purpose, granted, policy }: Consent, nowMs: number): Step[] {
  const was = consentsOf(state).find((one) => one.purpose === purpose);
  if (was?.granted === granted && was.policy === policy) return [];
  return committed(state, consentChange(state, purpose, granted, policy, nowMs), nowMs);
}

/** Return the steps that erase events here, and everywhere where the profile is synced or may be. */
export function forgot(state: State, erasure: Criteria, id: string, nowMs: number): Step[] {
  const { standing } = state;
  const taken = [...state.local.values()].filter((event) => isTaken(erasure, wordOf(event).body)).map((event) => event.id);
  const step = { ...wholeOf({ ...EMPTY, standing, dead: deadWithout(state.dead, erasure) }), drop_local: taken };
  if (!isConsented(state, "sync") && !standing.device) return [step];
  const word = { kind: ERASE, id, body: compactJson(erasure), purpose: "personalise" };
  const after = applied(state, step);
  return [step, ...committed(after, recordAll(after, [word], nowMs), nowMs)];
}

/** Return whether an erasure takes the event of this body. */
export function isTaken(erasure: Criteria, body: string): boolean {
  return isEverything(erasure) || takes(erasure, body);
}

/** Return the steps of a rule's changes: what other devices erased goes, what only lacks consent stays here, unsent. */
export function committed(state: State, changes: Changes, nowMs: number): Step[] {
  const [was, now] = [state.standing, changes.standing];
  const own = new Set(state.queue.filter(({ op }) => op.kind === ERASE).map(({ op }) => op.id));
  const isOwnEpoch = state.queue.some(({ op }) => op.kind === ERASE && isEverything(criteriaOf(op.body)));
  const isGivenUp = was.is_rebuilt && !now.is_rebuilt && (now.checked > was.checked || now.must_register);
  // What a device said after its own erasure stands; a device that gives up its rows gives up all.
  const isAllTaken = isGivenUp || (now.epoch > was.epoch && !isOwnEpoch && was.device !== "");
  const others = freshErasures(state, changes).filter(({ id }) => !own.has(id)).map(({ body }) => criteriaOf(body));
  const some = others.filter((erasure) => !isEverything(erasure));
  const isLocalTaken = (event: Event) => isAllTaken || some.some((erasure) => takes(erasure, wordOf(event).body));
  const gone = isGivenUp || now.epoch > was.epoch ? [{}, ...some] : some;
  const dead = [...gone.reduce(deadWithout, state.dead), ...changes.dead.map(withoutErased)].slice(-KEPT_DEAD);
  const step: Step = {
    ...changes,
    dead: changes.dead.length || gone.length ? dead : state.dead,
    put_local: [],
    drop_local: [...state.local.values()].filter(isLocalTaken).map(({ id }) => id),
  };
  const after = applied(state, step);
  const whole = { ...step, put_local: keptUnsent(state, changes, after) };
  return [whole, ...queuedLocal(applied(state, whole), changes, nowMs)];
}

/** Return the erase rows that these changes bring and that were not held. */
export function freshErasures(state: State, changes: Changes): Row[] {
  return changes.put_rows.filter((row) => row.kind === ERASE && !state.rows.has(keyOf(row)));
}

/** Return the events that are no longer queued for want of consent. */
function keptUnsent(state: State, changes: Changes, after: State): Local[] {
  if (changes.standing.epoch !== state.standing.epoch) return [];
  const touched = new Set([...changes.drop_queue, ...changes.put_queue.map(({ op }) => op.dseq)]);
  const queued = new Set(after.queue.map(({ op }) => keyOf(op)));
  const codes = new Map(changes.dead.map(({ op, code }) => [op.id, code]));
  const words = [...changes.put_rows, ...changes.put_queue.map(({ op }) => op)];
  const erasures = words.filter(({ kind }) => kind === ERASE).map(({ body }) => criteriaOf(body));
  const isGrantedNow = isConsented(after, "personalise", "sync");
  const isUnsent = ({ op, seq }: Queued) => {
    const key = keyOf(op);
    if (op.kind !== EVENT || seq !== null || !touched.has(op.dseq) || queued.has(key) || after.rows.has(key)) return false;
    const code = codes.get(op.id);
    if (code !== undefined || isGrantedNow) return code === "sync.no_consent";
    return !erasures.some((erasure) => isTaken(erasure, op.body));
  };
  return state.queue.filter(isUnsent).flatMap(({ op }) => {
    const event = eventSaid(op.body);
    return event ? { ...event, contactMs: op.contact_ms } : [];
  });
}

/** Queue what this device kept to itself, where these changes have granted sync. */
function queuedLocal(state: State, changes: Changes, nowMs: number): Step[] {
  const rows = [...changes.put_rows, ...changes.put_queue.map(({ op }) => op)];
  if (!state.local.size || !rows.some(({ kind }) => kind === CONSENT) || !isConsented(state, "personalise", "sync")) return [];
  const words = [...state.local.values()].map((event) => wordOf(event, event.contactMs));
  const changed = recordAll(state, words, nowMs);
  return [{ ...changed, dead: state.dead, put_local: [], drop_local: [...state.local.keys()] }];
}

function withoutErased(one: Dead): Dead {
  return ERASED_CODES.includes(one.code) ? { ...one, op: { ...one.op, body: "" } } : one;
}

function deadWithout(dead: readonly Dead[], erasure: Criteria): readonly Dead[] {
  return dead.filter(({ op }) =>
    isEverything(erasure) ? op.kind === CONSENT || op.kind === ERASE : op.kind !== EVENT || !takes(erasure, op.body),
  );
}
