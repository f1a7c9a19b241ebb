/** Check a runtime against the golden cases of its bundle, on the device itself. */

import type { Bundle } from "./bundle";
import { BundleDamaged, XrecError } from "./errors";
import type { Runtime, Scored } from "./runtime";
import { decodeUtf8 } from "./utf8";

interface Case {
  readonly rows: number[];
  readonly events: number[];
  readonly devices: number[];
  readonly gaps: number[];
  readonly queries?: string[];
  readonly k: number;
  readonly bias_rows?: number[];
  readonly bias_values?: number[];
  readonly top_rows: number[];
  readonly top_scores: number[];
  readonly context?: number[];
  readonly top_probabilities?: number[];
}

const PROBABILITY_TOLERANCE = 1e-5;

/**
 * Run every golden case and return how many there are; throw BundleDamaged where one gives another list. Scores may
 * differ by the tolerance of the file, and rows may change places only where their scores are that close.
 */
export async function checkConformance(runtime: Runtime, bundle: Bundle): Promise<number> {
  try {
    const document = JSON.parse(decodeUtf8(bundle.conformance)) as { tolerance: number; cases: Case[] };
    for (const [place, golden] of document.cases.entries()) {
      const top = await answer(runtime, bundle, golden);
      if (agree(top, golden, document.tolerance)) continue;
      const message = `case ${place} of conformance.json gives another list here`;
      throw new BundleDamaged("bundle.conformance_failed", message);
    }
    return document.cases.length;
  } catch (cause) {
    if (cause instanceof XrecError) throw cause;
    const message = `conformance.json is not as described: ${String(cause)}`;
    throw new BundleDamaged("bundle.conformance_malformed", message, { cause });
  }
}

async function answer(runtime: Runtime, bundle: Bundle, golden: Case): Promise<Scored[]> {
  const [rows, events, devices, gaps] = [golden.rows, golden.events, golden.devices, golden.gaps].map(
    (codes) => Int32Array.from(codes),
  );
  const user = await runtime.encode({ rows, events, devices, gaps, queries: golden.queries ?? [] });
  const bias = new Map((golden.bias_rows ?? []).map((row, place) => [row, golden.bias_values![place]]));
  const context = golden.context ? Float32Array.from(golden.context) : null;
  return runtime.top({ user, k: golden.k, itemBias: bundle.bias, bias, context });
}

function agree(top: readonly Scored[], golden: Case, tolerance: number): boolean {
  const scores = golden.top_scores;
  const isNear = (left: number, right: number, most: number) => Math.abs(left - right) <= most;
  if (top.length !== scores.length) return false;
  if (!top.every(({ score }, place) => isNear(score, scores[place], tolerance))) return false;
  const scoreOf = new Map(golden.top_rows.map((row, place) => [row, scores[place]]));
  const last = scores[scores.length - 1];
  const probabilities = new Map(golden.top_probabilities?.map((one, place) => [golden.top_rows[place], one]));
  // Rows of like scores may change places, and one may come in for another at the last.
  const isProbable = ({ row, probability }: Scored) => {
    const expected = probabilities.get(row) ?? probability;
    return probability === expected || isNear(probability ?? NaN, expected ?? NaN, PROBABILITY_TOLERANCE);
  };
  if (golden.top_probabilities && !(top.length && top.every(isProbable))) return false;
  // A row that is not in the expected list can only have come in at the score of the last place.
  return top.every(({ row, score }) => isNear(score, scoreOf.get(row) ?? last, 2 * tolerance));
}
