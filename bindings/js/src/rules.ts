/** Choose the list out of the best rows: a cap per category, best first. */

import type { Scored } from "./runtime";

/** Return the first `k` of which no category has more than `cap`; items of no category (-1) are free. */
export function capCategories(pool: readonly Scored[], category: Int32Array, k: number, cap: number): Scored[] {
  const counts = new Map<number, number>();
  const isFree = ({ row }: Scored) => {
    const count = (counts.get(category[row]) ?? 0) + 1;
    counts.set(category[row], count);
    return category[row] < 0 || count <= cap;
  };
  return pool.filter(isFree).slice(0, k);
}

/** Return the product of two vectors of one width. */
export function dot(left: Float32Array, right: Float32Array): number {
  let sum = 0;
  for (let place = 0; place < left.length; place++) sum += left[place] * right[place];
  return sum;
}
