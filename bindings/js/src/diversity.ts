/** Choose a list whose items are unlike each other. Loaded where it is first asked for; it imports nothing, as queries.ts does not. */

import type { Scored } from "./runtime";

type Product = (left: Float32Array, right: Float32Array) => number;

/**
 * Return `k` of the pool by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), ties to the first.
 *
 * Each step takes the largest `(1 - diversity) * relevance - diversity * similarity`: relevance is the score on a scale
 * from 0 to 1, similarity the largest cosine with an item taken before. Each vector belongs to one of the pool; `dot` is the
 * product of two.
 */
export function diversify(
  pool: readonly Scored[],
  vectors: readonly Float32Array[],
  category: Int32Array,
  k: number,
  cap: number,
  diversity: number,
  dot: Product,
): Scored[] {
  const relevance = relevances(pool);
  const directions = vectors.map((vector) => direction(vector, dot));
  const similarity = new Float32Array(pool.length).fill(-Infinity);
  const counts = new Map<number, number>();
  const free = new Set(pool.keys());
  const chosen: Scored[] = [];
  while (chosen.length < k) {
    let [best, gain] = [-1, -Infinity];
    for (const place of free) {
      const code = category[pool[place].row];
      if (code >= 0 && (counts.get(code) ?? 0) >= cap) continue;
      const likeness = chosen.length ? similarity[place] : 0;
      const value = Math.fround(Math.fround((1 - diversity) * relevance[place]) - Math.fround(diversity * likeness));
      if (best < 0 || value > gain) [best, gain] = [place, value];
    }
    if (best < 0) break;
    chosen.push(pool[best]);
    free.delete(best);
    const code = category[pool[best].row];
    counts.set(code, (counts.get(code) ?? 0) + 1);
    for (const place of free) similarity[place] = Math.max(similarity[place], dot(directions[place], directions[best]));
  }
  return chosen;
}

function relevances(pool: readonly Scored[]): number[] {
  const last = pool.length ? pool[pool.length - 1].score : 0;
  const spread = pool.length ? pool[0].score - last : 0;
  // Equal scores, as with an empty history, are in order of popularity: then the place stands for the relevance.
  return pool.map(({ score }, place) => Math.fround(spread > 0 ? (score - last) / spread : 1 - place / pool.length));
}

function direction(vector: Float32Array, dot: Product): Float32Array {
  const length = Math.max(Math.sqrt(dot(vector, vector)), 1e-12);
  return vector.map((value) => value / length);
}
