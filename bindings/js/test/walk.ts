/** Ask a Recommender what a case asks and compare; needs no test framework, so that it runs in browsers and jitless too. */

import { checkConformance } from "../src/conformance";
import { XrecError } from "../src/errors";
import type { LoadOptions } from "../src/load";
import type { Purpose } from "../src/profile";
import type { Recommender } from "../src/recommender";
import { historyOf, tasteOf } from "../src/taste";

export interface Case {
  readonly about: string;
  readonly bundle: string;
  readonly now_ms: number;
  readonly tolerance: number;
  readonly events: readonly Arguments[];
  readonly calls: readonly { call: string; arguments: Arguments; expect: unknown }[];
}

export interface Recipe {
  readonly name: string;
  readonly code: string | null;
  readonly options?: { trusted_keys?: string[]; allow_unsigned?: boolean; minimum_release?: number };
  readonly check?: boolean;
  readonly ask?: boolean;
}

type Arguments = Readonly<Record<string, unknown>>;
export type Load = (bundle: Uint8Array, options: LoadOptions) => Promise<Recommender>;

/** Return what a case gives that it should not, a line each. */
export async function walkCase(load: Load, bundle: Uint8Array, key: string, asked: Case): Promise<string[]> {
  const recommender = await load(bundle, { trustedKeys: [key], clockMs: () => asked.now_ms });
  try {
    await recommender.setConsent("personalise", true);
    for (const event of asked.events) await record(recommender, event);
    const failures: string[] = [];
    for (const [place, { call, arguments: given, expect }] of asked.calls.entries()) {
      const found = await answer(recommender, call, given);
      failures.push(...differences(found, expect, asked.tolerance, `${asked.about}, call ${place} (${call})`));
    }
    return failures;
  } finally {
    await recommender.close();
  }
}

/** Return the code with which a damaged bundle is refused, null where it is accepted. */
export async function codeOf(load: Load, bundle: Uint8Array, key: string, recipe: Recipe): Promise<string | null> {
  const { trusted_keys: trustedKeys = [key], allow_unsigned, minimum_release } = recipe.options ?? {};
  try {
    const options = { trustedKeys, allowUnsigned: allow_unsigned, minimumRelease: minimum_release };
    const recommender = await load(bundle, options);
    if (recipe.check) await checkConformance(recommender.runtime, recommender.bundle);
    if (recipe.ask) await recommender.recommend({ k: recommender.bundle.manifest.itemCount });
    await recommender.close();
    return null;
  } catch (error) {
    if (isXrecError(error)) return error.code;
    throw error;
  }
}

async function answer(recommender: Recommender, call: string, given: Arguments): Promise<unknown> {
  try {
    return await ask(recommender, call, given);
  } catch (error) {
    if (isXrecError(error)) return { error: error.code };
    throw error;
  }
}

/** The walker may have been bundled apart from the package, whose classes are then others. */
function isXrecError(error: unknown): error is XrecError {
  return error instanceof Error && typeof (error as { code?: unknown }).code === "string";
}

async function ask(recommender: Recommender, call: string, given: Arguments): Promise<unknown> {
  const text = (name: string) => given[name] as string;
  if (call === "recommend") return listed(await recommender.recommend(optionsOf(given)));
  if (call === "similar") return listed(await recommender.similar(text("item_id"), given.k as number | undefined));
  if (call === "score") return scored(await recommender.score(given.items as string[]));
  if (call === "forget") return recommender.forget();
  if (call === "set_consent") return setConsent(recommender, given);
  if (call === "consent") return recommender.consent();
  if (call === "encode") return encoded(recommender);
  if (call === "export_my_data") return (await recommender.exportMyData()).events;
  if (call === "record") return void (await record(recommender, given));
  if (call !== "feedback") throw new Error(`unknown call ${call}`);
  return void (await recommender.feedback(text("recommendation_id"), text("item_id"), text("event")));
}

function scored(scores: Map<string, number>): unknown {
  return { item_ids: [...scores.keys()], scores: [...scores.values()] };
}

function setConsent(recommender: Recommender, { purpose, granted, policy }: Arguments): Promise<void> {
  return recommender.setConsent(purpose as Purpose, granted as boolean, { policy: policy as string | undefined });
}

function record(recommender: Recommender, event: Arguments): Promise<string> {
  const { device, at_ms: atMs, value } = event as { device: string; at_ms?: number; value?: number };
  const item = "query" in event ? { query: event.query as string } : (event.item_id as string);
  return recommender.record(event.event as string, item, { device, atMs, value });
}

function optionsOf({ where_price_below: most, ...given }: Arguments): object {
  const camel = Object.entries(given).map(([name, value]) => [name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()), value]);
  const where = (entry: { price?: unknown }) => (entry.price as number) < (most as number);
  return { ...Object.fromEntries(camel), ...(most === undefined ? {} : { where }) };
}

function listed(items: Awaited<ReturnType<Recommender["recommend"]>>): unknown {
  return items.map(({ itemId, score, rank, title, item, reasons, probability }) => ({
    item_id: itemId,
    score,
    rank,
    probability,
    title,
    item,
    reasons: reasons.map(({ itemId: id, ...reason }) => ({ item_id: id, ...reason })),
  }));
}

async function encoded(recommender: Recommender): Promise<unknown> {
  const { bundle } = recommender;
  const { events } = await recommender.profile.read();
  const history = historyOf(tasteOf(events, bundle, (itemId) => bundle.ids.row(itemId), recommender.runtime.queries), bundle);
  const codes = Object.fromEntries(Object.entries(history).map(([name, values]) => [name, Array.from<unknown>(values)]));
  return { ...codes, user: Array.from(await recommender.runtime.encode(history)) };
}

/** Return where an answer is not the expected one: numbers may differ by the tolerance, all else must be equal. */
export function differences(found: unknown, expected: unknown, tolerance: number, at: string): string[] {
  const unlike = [`${at}: ${JSON.stringify(found)?.slice(0, 200)} instead of ${JSON.stringify(expected)?.slice(0, 200)}`];
  if (typeof expected === "number" && typeof found === "number") {
    const most = Number.isInteger(expected) ? 0 : tolerance;
    return Math.abs(found - expected) <= most || (expected === 0 && Math.abs(found) <= tolerance) ? [] : unlike;
  }
  if (expected === null || typeof expected !== "object") return (found ?? null) === (expected ?? null) ? [] : unlike;
  if (typeof found !== "object" || found === null) return unlike;
  if (Array.isArray(expected) && (!Array.isArray(found) || found.length !== expected.length)) return unlike;
  return Object.entries(expected).flatMap(([key, value]) =>
    differences((found as Record<string, unknown>)[key], value, tolerance, `${at}.${key}`),
  );
}
