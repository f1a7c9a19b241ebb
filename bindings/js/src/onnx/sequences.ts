/** Operators along a sequence: padding, one-dimensional convolution and pooling, the gated recurrent unit. */

// B histories, C and O channels in and out, L places, K places of a window, H hidden

import { sigmoid } from "./elementwise";
import { addProduct } from "./products";
import { demand, placeOf, sizeOf, stridesOf, Type, zeros, type Data, type Tensor } from "./tensor";

/** Put `value` before and after the elements along each axis; `pads` are all begins, then all ends. */
export function pad(x: Tensor, pads: Data, value: number): Tensor {
  const rank = x.dims.length;
  demand(pads.length === 2 * rank && pads.every((count) => count >= 0));
  const out = zeros(x.type, x.dims.map((size, axis) => (size + pads[axis] + pads[rank + axis]) | 0));
  out.data.fill(value);
  const [from, to] = [stridesOf(x.dims), stridesOf(out.dims)];
  const row = x.dims[rank - 1];
  for (let at = 0; at < x.data.length; at += row) {
    let place = 0;
    for (let axis = 0; axis < rank; axis++) place += ((Math.floor(at / from[axis]) % x.dims[axis]) + pads[axis]) * to[axis];
    out.data.set(x.data.subarray(at, at + row), place);
  }
  return out;
}

/** Slide O windows of K places over (B, C, L) -> (B, O, L - K + 1). */
export function convolve(x: Tensor, weights: Tensor, bias: Tensor | null): Tensor {
  const [[batch, channels, length], [outputs, inputs, window]] = [x.dims, weights.dims];
  demand(x.dims.length === 3 && inputs === channels);
  const places = length - window + 1;
  const out = zeros(Type.float, [batch, outputs, places]);
  for (let row = 0; row < batch * outputs; row++) {
    const [first, output] = [Math.floor(row / outputs) * channels, row % outputs];
    for (let place = 0; place < places; place++) {
      let sum = bias ? bias.data[output] : 0;
      for (let channel = 0; channel < channels; channel++) {
        const [at, weight] = [(first + channel) * length + place, (output * channels + channel) * window];
        for (let i = 0; i < window; i++) sum += x.data[at + i] * weights.data[weight + i];
      }
      out.data[row * places + place] = sum;
    }
  }
  return out;
}

/** Take the largest of each window along the last axis, (B, C, L) -> (B, C, L - K + 1). */
export function maxPool(x: Tensor, window: number): Tensor {
  const length = x.dims[x.dims.length - 1];
  const places = length - window + 1;
  const out = zeros(x.type, [...x.dims.slice(0, -1), places]);
  for (let at = 0; at < out.data.length; at++) {
    const from = Math.floor(at / places) * length + (at % places);
    out.data[at] = Math.max(...x.data.subarray(from, from + window));
  }
  return out;
}

/**
 * Walk (L, B, I) and return every state (L, 1, B, H) and the last (1, B, H): ONNX's GRU, forward, the gates in the order
 * update, reset, candidate, and the reset gate after the product (Cho et al., 2014, in cuDNN's form).
 */
export function gru(x: Tensor, input: Tensor, hidden: Tensor, bias: Tensor | null, start: Tensor | null): Tensor[] {
  const [length, batch, width] = x.dims;
  const size = hidden.dims[2];
  const states = zeros(Type.float, [length, 1, batch, size]);
  let state = start ? (start.data as Float32Array) : new Float32Array(batch * size);
  const given = new Float32Array(length * batch * 3 * size);
  addProduct(given, 0, x.data as Float32Array, 0, input.data as Float32Array, 0, [length * batch, width, 3 * size]);
  const of = (gate: number, i: number) => (bias ? bias.data[gate * size + i] : 0);
  for (let step = 0; step < length; step++) {
    const kept = new Float32Array(batch * 3 * size);
    addProduct(kept, 0, state, 0, hidden.data as Float32Array, 0, [batch, size, 3 * size]);
    const next = new Float32Array(batch * size);
    for (let at = 0; at < next.length; at++) {
      const [row, i] = [Math.floor(at / size), at % size];
      const [from, own] = [(step * batch + row) * 3 * size + i, row * 3 * size + i];
      const sum = (gate: number) => given[from + gate * size] + of(gate, i) + kept[own + gate * size] + of(3 + gate, i);
      const [update, reset] = [sigmoid(sum(0)), sigmoid(sum(1))];
      const wish = given[from + 2 * size] + of(2, i) + reset * (kept[own + 2 * size] + of(5, i));
      next[at] = (1 - update) * Math.tanh(wish) + update * state[at];
    }
    states.data.set(next, step * batch * size);
    state = next;
  }
  return [states, { type: Type.float, dims: [1, batch, size], data: state }];
}

/** Take elements, or rows, by whole indices: (..., Q) over the first Q axes (ONNX's GatherND without batches). */
export function gatherEach(x: Tensor, indices: Tensor): Tensor {
  const count = indices.dims[indices.dims.length - 1];
  const [strides, inner] = [stridesOf(x.dims), sizeOf(x.dims, count)];
  const out = zeros(x.type, [...indices.dims.slice(0, -1), ...x.dims.slice(count)]);
  for (let at = 0, place = 0; at < indices.data.length; at += count, place += inner) {
    let from = 0;
    for (let axis = 0; axis < count; axis++) from += placeOf(indices.data[at + axis], x.dims[axis]) * strides[axis];
    out.data.set(x.data.subarray(from, from + inner), place);
  }
  return out;
}
