/** Products of matrices, float32 and int8. */

// M rows, K inner, N columns

import { broadcastDims, broadcastStrides, sizeOf, Type, zeros, type Tensor } from "./tensor";
import { transpose } from "./shapes";

/**
 * Add the product of (M, K) and the transpose of (N, K) to `out` (M, N). Sums run in doubles, two rows by four columns at a
 * time, so that what is read is used several times.
 */
function addProduct(
  out: Float32Array,
  outAt: number,
  a: Float32Array,
  aAt: number,
  b: Float32Array,
  bAt: number,
  [m, k, n]: readonly [number, number, number],
): void {
  for (let row = 0; row < m; row += 2) {
    const hasSecond = row + 1 < m;
    const [first, second] = [aAt + row * k, aAt + (hasSecond ? row + 1 : row) * k];
    for (let column = 0; column < n; column += 4) {
      const left = Math.min(4, n - column);
      const b0 = bAt + column * k;
      const b1 = left > 1 ? b0 + k : b0;
      const b2 = left > 2 ? b1 + k : b0;
      const b3 = left > 3 ? b2 + k : b0;
      let [s0, s1, s2, s3, t0, t1, t2, t3] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let i = 0; i < k; i++) {
        const x = a[first + i];
        const y = a[second + i];
        const [w0, w1, w2, w3] = [b[b0 + i], b[b1 + i], b[b2 + i], b[b3 + i]];
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
  const [aRank, bRank] = [aDims.length, bDims.length];
  const [m, k, n] = [aDims[aRank - 2], aDims[aRank - 1], bDims[bRank - 1]];
  if (a.type !== Type.float || b.type !== Type.float || bDims[bRank - 2] !== k) throw new Error("matrices don't fit");
  const turned = lastTwoTurned({ ...b, dims: bDims });
  const [aStack, bStack] = [aDims.slice(0, -2), bDims.slice(0, -2)];
  const stack = broadcastDims(aStack, bStack);
  const [aPlaces, bPlaces] = [placesOf(aStack, stack), placesOf(bStack, stack)];
  const out = zeros(Type.float, [...stack, m, n]);
  aPlaces.forEach((aPlace, place) => {
    addProduct(
      out.data as Float32Array,
      place * m * n,
      a.data as Float32Array,
      aPlace * m * k,
      turned.data as Float32Array,
      bPlaces[place] * n * k,
      [m, k, n],
    );
  });
  const dims = [...stack, ...(a.dims.length === 1 ? [] : [m]), ...(b.dims.length === 1 ? [] : [n])];
  return { ...out, dims };
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
  const left = turnA ? lastTwoTurned(a) : a;
  const right = turnB ? b : lastTwoTurned(b); // (N, K)
  const [m, k] = left.dims;
  const n = right.dims[0];
  if (left.dims.length !== 2 || right.dims.length !== 2 || right.dims[1] !== k) throw new Error("matrices don't fit");
  const out = zeros(Type.float, [m, n]);
  const data = out.data as Float32Array;
  addProduct(data, 0, left.data as Float32Array, 0, right.data as Float32Array, 0, [m, k, n]);
  if (alpha !== 1) for (let at = 0; at < data.length; at++) data[at] *= alpha;
  if (c) {
    const [rowStep, columnStep] = broadcastStrides(c.dims, [m, n]);
    for (let at = 0; at < data.length; at++) {
      data[at] += beta * c.data[Math.floor(at / n) * rowStep + (at % n) * columnStep];
    }
  }
  return out;
}

/** Multiply (M, K) uint8 or int8 by int8 (..., K, N) -> int32 (..., M, N), without zero points. */
export function matMulInteger(a: Tensor, b: Tensor): Tensor {
  const rank = b.dims.length;
  const [m, k] = a.dims;
  const n = b.dims[rank - 1];
  if (a.dims.length !== 2 || rank < 2 || b.dims[rank - 2] !== k) throw new Error("matrices don't fit");
  const stack = b.dims.slice(0, -2);
  const out = zeros(Type.int32, [...stack, m, n]);
  const levels = Int32Array.from(a.data);
  const matrices = sizeOf(stack);
  for (let matrix = 0; matrix < matrices; matrix++) {
    for (let row = 0; row < m; row++) {
      scan(out.data as Int32Array, (matrix * m + row) * n, levels, row * k, b.data as Int8Array, matrix * k * n, k, n);
    }
  }
  return out;
}

/** Multiply one row (K,) by (K, N), eight columns at a time, whose sums stay in registers. */
function scan(
  out: Int32Array,
  outAt: number,
  levels: Int32Array,
  levelsAt: number,
  table: Int8Array,
  tableAt: number,
  k: number,
  n: number,
): void {
  let column = 0;
  for (; column + 8 <= n; column += 8) {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    let s4 = 0;
    let s5 = 0;
    let s6 = 0;
    let s7 = 0;
    let at = tableAt + column;
    for (let i = 0; i < k; i++, at += n) {
      const level = levels[levelsAt + i];
      s0 = (s0 + Math.imul(level, table[at])) | 0;
      s1 = (s1 + Math.imul(level, table[at + 1])) | 0;
      s2 = (s2 + Math.imul(level, table[at + 2])) | 0;
      s3 = (s3 + Math.imul(level, table[at + 3])) | 0;
      s4 = (s4 + Math.imul(level, table[at + 4])) | 0;
      s5 = (s5 + Math.imul(level, table[at + 5])) | 0;
      s6 = (s6 + Math.imul(level, table[at + 6])) | 0;
      s7 = (s7 + Math.imul(level, table[at + 7])) | 0;
    }
    const place = outAt + column;
    out[place] = s0;
    out[place + 1] = s1;
    out[place + 2] = s2;
    out[place + 3] = s3;
    out[place + 4] = s4;
    out[place + 5] = s5;
    out[place + 6] = s6;
    out[place + 7] = s7;
  }
  for (; column < n; column++) {
    let sum = 0;
    for (let i = 0; i < k; i++) sum = (sum + Math.imul(levels[levelsAt + i], table[tableAt + i * n + column])) | 0;
    out[outAt + column] = sum;
  }
}
