/** Operators that read a whole axis: sums, maxima, norms, the best k. */

import { transpose } from "./shapes";
import { axisOf, demand, sizeOf, Type, zeros, type Data, type Tensor } from "./tensor";

const MOST_INSERTED = 512;

/** How a reduction begins, goes on and ends. */
interface Fold {
  readonly start: number;
  next(sum: number, x: number): number;
}

const FOLDS: Readonly<Record<string, Fold>> = {
  ReduceSum: { start: 0, next: (sum, x) => sum + x },
  ReduceMean: { start: 0, next: (sum, x) => sum + x },
  ReduceMax: { start: -Infinity, next: (sum, x) => (x > sum ? x : sum) },
};

/** Reduce along axes, all where none is named; sums before the last axis run in order, rounded to float32 at each step. */
export function reduce(operator: string, x: Tensor, axes: readonly number[], keepsDims: boolean): Tensor {
  const rank = x.dims.length;
  const reduced = new Set(axes.length ? axes.map((axis) => axisOf(axis, rank)) : x.dims.keys());
  const kept = [...x.dims.keys()].filter((axis) => !reduced.has(axis));
  const dims = keepsDims ? x.dims.map((size, axis) => (reduced.has(axis) ? 1 : size)) : kept.map((axis) => x.dims[axis]);
  const [outer, middle, inner, data] = arranged(x, [...reduced].sort((a, b) => a - b), kept);
  const { start, next } = FOLDS[operator];
  const out = zeros(x.type, dims);
  out.data.fill(start);
  for (let row = 0; row < outer; row++) {
    for (let step = 0; step < middle && inner > 1; step++) {
      const at = row * inner;
      const from = (row * middle + step) * inner;
      for (let i = 0; i < inner; i++) out.data[at + i] = next(out.data[at + i], data[from + i]);
    }
    let sum = start;
    for (let from = row * middle; inner === 1 && from < (row + 1) * middle; from++) sum = next(sum, data[from]);
    if (inner === 1) out.data[row] = sum;
  }
  if (operator === "ReduceMean") for (let at = 0; at < out.data.length; at++) out.data[at] /= middle;
  return out;
}

/** Return the sizes before, of and after the reduced axes, which are brought together if they are not. */
function arranged(x: Tensor, reduced: readonly number[], kept: readonly number[]): [number, number, number, Data] {
  const [first, last] = [reduced[0] ?? 0, reduced[reduced.length - 1] ?? -1];
  if (last - first + 1 === reduced.length) {
    return [sizeOf(x.dims, 0, first), sizeOf(x.dims, first, last + 1), sizeOf(x.dims, last + 1), x.data];
  }
  const turned = transpose(x, [...kept, ...reduced]);
  return [sizeOf(turned.dims, 0, kept.length), sizeOf(turned.dims, kept.length), 1, turned.data];
}

/** Return the running sums along an axis. */
export function cumSum(x: Tensor, axis: number): Tensor {
  const place = axisOf(axis, x.dims.length);
  const [size, inner] = [x.dims[place], sizeOf(x.dims, place + 1)];
  const data = x.data.slice();
  for (let at = inner; at < data.length; at++) {
    if (Math.floor(at / inner) % size !== 0) data[at] += data[at - inner];
  }
  return { ...x, data };
}

/** Return e^x over its sum along the last axis. */
export function softmax(x: Tensor, axis: number): Tensor {
  const out = zeros(Type.float, x.dims);
  const size = x.dims[lastAxis(x, axis)];
  for (let from = 0; from < x.data.length; from += size) {
    let most = -Infinity;
    for (let i = from; i < from + size; i++) if (x.data[i] > most) most = x.data[i];
    let sum = 0;
    for (let i = from; i < from + size; i++) sum += out.data[i] = Math.exp(x.data[i] - most);
    for (let i = from; i < from + size; i++) out.data[i] /= sum;
  }
  return out;
}

/** Normalize the last axis to mean 0 and variance 1, then scale and shift (Ba et al., 2016). */
export function layerNorm(x: Tensor, scale: Tensor, shift: Tensor | null, axis: number, epsilon: number): Tensor {
  const out = zeros(Type.float, x.dims);
  const size = x.dims[lastAxis(x, axis)];
  for (let from = 0; from < x.data.length; from += size) {
    let [sum, squares] = [0, 0];
    for (let i = from; i < from + size; i++) sum += x.data[i];
    const mean = sum / size;
    for (let i = from; i < from + size; i++) squares += (x.data[i] - mean) * (x.data[i] - mean);
    const factor = 1 / Math.sqrt(squares / size + epsilon);
    for (let i = 0; i < size; i++) {
      out.data[from + i] = (x.data[from + i] - mean) * factor * scale.data[i] + (shift ? shift.data[i] : 0);
    }
  }
  return out;
}

function lastAxis(x: Tensor, axis: number): number {
  const place = axisOf(axis, x.dims.length);
  demand(place === x.dims.length - 1);
  return place;
}

/** Return the best `k` of (N,), sorted, and where they stand; equal values come by lower place. */
export function topK(x: Tensor, k: number, axis: number, isLargest: boolean): [Tensor, Tensor] {
  demand(x.dims.length === 1 && axisOf(axis, 1) === 0 && Number.isInteger(k) && k >= 0 && k <= x.data.length);
  const places = k <= MOST_INSERTED && k < x.data.length / 2 ? insertBest(x.data, k, isLargest) : sortBest(x.data, k, isLargest);
  const values = zeros(x.type, [k]);
  for (let at = 0; at < k; at++) values.data[at] = x.data[places[at]];
  return [values, { type: Type.int64, dims: [k], data: places }];
}

/** Walk once and keep the best k in order: most elements fail at the first comparison. */
function insertBest(data: Data, k: number, isLargest: boolean): Float64Array {
  const sign = isLargest ? 1 : -1;
  const places = new Float64Array(k);
  const values = new Float64Array(k);
  let count = 0;
  for (let place = 0; place < data.length; place++) {
    const value = sign * data[place];
    if (count === k && !(k > 0 && value > values[k - 1])) continue;
    if (count < k) count++;
    let at = count - 1;
    for (; at > 0 && value > values[at - 1]; at--) {
      values[at] = values[at - 1];
      places[at] = places[at - 1];
    }
    values[at] = value;
    places[at] = place;
  }
  return places;
}

function sortBest(data: Data, k: number, isLargest: boolean): Float64Array {
  const sign = isLargest ? 1 : -1;
  // The difference of two infinities is not a number.
  const order = (a: number, b: number) => (data[a] === data[b] ? a - b : sign * (data[b] - data[a]));
  return Float64Array.from(data.keys()).sort(order).subarray(0, k);
}
