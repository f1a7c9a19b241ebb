/** Products of matrices, float32 and int8. */

// M rows, K inner, N columns

import { binary } from "./elementwise";
import { broadcastDims, broadcastStrides, demand, Type, zeros, type Tensor } from "./tensor";
import { transpose } from "./shapes";


/**
 * Add the product of (M, K) and the transpose of (N, K) to `out` (M, N). Sums run in doubles, two rows by four columns at a
 * time, so that what is read is used several times.
 */
export function addProduct(
  out: Float32Array,
  outAt: number,
  a: Float32Array,
  aAt: number,
  b: Float32Array,
  bAt: number,
  sizes: readonly [number, number, number],
): void {
  // Where V8 has seen a double among the indices, it takes twice as long: these are whole numbers for certain.
  const [m, k, n] = [sizes[0] | 0, sizes[1] | 0, sizes[2] | 0];
  [outAt, aAt, bAt] = [outAt | 0, aAt | 0, bAt | 0];
  for (let row = 0; row < m; row += 2) {
    const hasSecond = row + 1 < m;
    const first = aAt + row * k;
    const second = hasSecond ? first + k : first;
    for (let column = 0; column < n; column += 4) {
      const left = Math.min(4, n - column);
      const b0 = bAt + column * k;
      const b1 = left > 1 ? b0 + k : b0;
      const b2 = left > 2 ? b1 + k : b0;
      const b3 = left > 3 ? b2 + k : b0;
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let t0 = 0;
      let t1 = 0;
      let t2 = 0;
      let t3 = 0;
      for (let i = 0; i < k; i++) {
        const x = a[first + i];
        const y = a[second + i];
        const w0 = b[b0 + i];
        const w1 = b[b1 + i];
        const w2 = b[b2 + i];
        const w3 = b[b3 + i];
        s0 += x * w0;
        s1 += x * w1;
        s2 += x * w2;
        s3 += x * w3;
        t0 += y * w0;
        t1 += y * w1;
        t2 += y * w2;
        t3 += y * w3;
      }
      const at = outAt + row * n + column;
      addUpTo(out, at, left, s0, s1, s2, s3);
      if (hasSecond) addUpTo(out, at + n, left, t0, t1, t2, t3);
    }
  }
}

function addUpTo(out: Float32Array, at: number, count: number, a: number, b: number, c: number, d: number): void {
  out[at] += a;
  if (count > 1) out[at + 1] += b;
  if (count > 2) out[at + 2] += c;
  if (count > 3) out[at + 3] += d;
}

/** Multiply stacks of matrices: (..., M, K) and (..., K, N) -> (..., M, N), or vectors as ONNX's MatMul has them. */
export function matMul(a: Tensor, b: Tensor): Tensor {
  const [aDims, bDims] = [a.dims.length === 1 ? [1, ...a.dims] : a.dims, b.dims.length === 1 ? [...b.dims, 1] : b.dims];
  const out = product({ ...a, dims: aDims }, lastTwoTurned({ ...b, dims: bDims }));
  const [m, n] = out.dims.slice(-2);
  return { ...out, dims: [...out.dims.slice(0, -2), ...(a.dims.length === 1 ? [] : [m]), ...(b.dims.length === 1 ? [] : [n])] };
}

/** Multiply stacks of matrices, (..., M, K) and the transposes of (..., N, K) -> (..., M, N). */
function product(a: Tensor, turned: Tensor): Tensor {
  const [m, k] = a.dims.slice(-2);
  const n = turned.dims[turned.dims.length - 2];
  demand(a.type === Type.float && turned.type === Type.float && turned.dims.at(-1) === k);
  const [aStack, bStack] = [a.dims.slice(0, -2), turned.dims.slice(0, -2)];
  const stack = broadcastDims(aStack, bStack);
  const [aPlaces, bPlaces] = [placesOf(aStack, stack), placesOf(bStack, stack)];
  const out = zeros(Type.float, [...stack, m, n]);
  const [sums, left, right] = [out, a, turned].map(({ data }) => data as Float32Array);
  aPlaces.forEach((aPlace, place) => addProduct(sums, place * m * n, left, aPlace * m * k, right, bPlaces[place] * n * k, [m, k, n]));
  return out;
}

function lastTwoTurned(x: Tensor): Tensor {
  const rank = x.dims.length;
  const order = x.dims.map((_, axis) => axis);
  [order[rank - 2], order[rank - 1]] = [rank - 1, rank - 2];
  return transpose(x, order);
}

/** Return which matrix of a stack stands at each place of the stack that it is broadcast to. */
function placesOf(stack: readonly number[], to: readonly number[]): number[] {
  const strides = broadcastStrides(stack, to);
  let places = [0];
  to.forEach((size, axis) => {
    places = places.flatMap((place) => Array.from({ length: size }, (_, step) => place + step * strides[axis]));
  });
  return places;
}

/** alpha * a' b' + beta * c (ONNX's Gemm): matrices only, c broadcast to (M, N). */
export function gemm(
  a: Tensor,
  b: Tensor,
  c: Tensor | null,
  { alpha, beta, turnA, turnB }: { alpha: number; beta: number; turnA: boolean; turnB: boolean },
): Tensor {
  const [add, multiply] = [binary("Add"), binary("Mul")];
  const scaled = (x: Tensor, by: number) => (by === 1 ? x : multiply(x, { type: Type.float, dims: [], data: Float32Array.of(by) }));
  const out = scaled(product(turnA ? lastTwoTurned(a) : a, turnB ? b : lastTwoTurned(b)), alpha);
  return c ? add(out, scaled(c, beta)) : out;
}

/** Multiply (M, K) uint8 or int8 by int8 (..., K, N) -> int32 (..., M, N), without zero points. */
export function matMulInteger(a: Tensor, b: Tensor): Tensor {
  const rank = b.dims.length;
  const [m, k] = a.dims;
  const n = b.dims[rank - 1];
  demand(a.dims.length === 2 && rank >= 2 && b.dims[rank - 2] === k && b.type === Type.int8);
  const out = zeros(Type.int32, [...b.dims.slice(0, -2), m, n]);
  const [table, sums] = [b.data as Int8Array, out.data as Int32Array];
  const matrices = table.length / (k * n);
  const isPacked = n % 8 === 0 && k % 2 === 0 && table.byteOffset % 4 === 0;
  const words = isPacked ? new Int32Array(table.buffer, table.byteOffset, table.length / 4) : null;
  for (let row = 0; row < m; row++) {
    const levels = Int32Array.from(a.data.subarray(row * k, (row + 1) * k));
    const isSevenBits = levels.every((level) => level >= 0 && level < 128);
    for (let matrix = 0; matrix < matrices; matrix++) {
      const at = (matrix * m + row) * n;
      if (words && isSevenBits) scanWords(sums, at, levels, words, (matrix * k * n) / 4, n / 4);
      else scan(sums, at, levels, table, matrix * k * n, n);
    }
  }
  return out;
}

/**
 * Multiply one row (K,) of 7 bits by (K, N), four int8 a word. Each byte, plus 128, stands alone in half a word; two
 * products of it are at most 2 * 127 * 255 < 2^16, so that one multiplication makes two of them and none spills over.
 */
function scanWords(out: Int32Array, outAt: number, levels: Int32Array, words: Int32Array, from: number, step: number): void {
  let shift = 0;
  for (let i = 0; i < levels.length; i++) shift += 128 * levels[i];
  for (let column = 0; column < step; column += 2) {
    let s0 = -shift;
    let s1 = -shift;
    let s2 = -shift;
    let s3 = -shift;
    let s4 = -shift;
    let s5 = -shift;
    let s6 = -shift;
    let s7 = -shift;
    for (let i = 0, at = from + column; i < levels.length; i += 2, at += 2 * step) {
      const x = levels[i];
      const y = levels[i + 1];
      const a = words[at] ^ 0x80808080;
      const b = words[at + 1] ^ 0x80808080;
      const c = words[at + step] ^ 0x80808080;
      const d = words[at + step + 1] ^ 0x80808080;
      const even = (Math.imul(x, a & 0xff00ff) + Math.imul(y, c & 0xff00ff)) | 0;
      const odd = (Math.imul(x, (a >>> 8) & 0xff00ff) + Math.imul(y, (c >>> 8) & 0xff00ff)) | 0;
      const nextEven = (Math.imul(x, b & 0xff00ff) + Math.imul(y, d & 0xff00ff)) | 0;
      const nextOdd = (Math.imul(x, (b >>> 8) & 0xff00ff) + Math.imul(y, (d >>> 8) & 0xff00ff)) | 0;
      s0 += even & 0xffff;
      s1 += odd & 0xffff;
      s2 += even >>> 16;
      s3 += odd >>> 16;
      s4 += nextEven & 0xffff;
      s5 += nextOdd & 0xffff;
      s6 += nextEven >>> 16;
      s7 += nextOdd >>> 16;
    }
    const place = outAt + 4 * column;
    out[place] = s0;
    out[place + 1] = s1;
    out[place + 2] = s2;
    out[place + 3] = s3;
    out[place + 4] = s4;
    out[place + 5] = s5;
    out[place + 6] = s6;
    out[place + 7] = s7;
  }
}

/** Multiply one row (K,) by (K, N), whatever their numbers. */
function scan(out: Int32Array, outAt: number, levels: Int32Array, table: Int8Array, from: number, n: number): void {
  for (let i = 0; i < levels.length; i++) {
    for (let column = 0; column < n; column++) out[outAt + column] += levels[i] * table[from + i * n + column];
  }
}
