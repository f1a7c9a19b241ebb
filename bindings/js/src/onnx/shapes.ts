/** Operators that move elements and change none. */

import { axisOf, demand, placeOf, sizeOf, stridesOf, Type, zeros, type Data, type Tensor } from "./tensor";

/** Return a tensor of whole numbers. */
export function int64(values: readonly number[], dims: readonly number[] = [values.length]): Tensor {
  return { type: Type.int64, dims, data: Float64Array.from(values) };
}

/** Return a shape out of a tensor; sizes that are doubles would make doubles of all indices, at half the speed. */
export function dimsOf(shape: Data): number[] {
  return Array.from(shape, (size) => size | 0);
}

/** View the elements in another shape: -1 is what is left, 0 the old size unless `allowsZero`. */
export function reshape(x: Tensor, shape: Data, allowsZero: boolean): Tensor {
  const dims = dimsOf(shape).map((size, axis) => (size === 0 && !allowsZero ? x.dims[axis] : size));
  const open = dims.indexOf(-1);
  if (open >= 0) {
    dims[open] = 1;
    dims[open] = x.data.length / sizeOf(dims); // not a whole number, where the elements don't fit
  }
  demand(dims.every((size) => Number.isInteger(size) && size >= 0) && sizeOf(dims) === x.data.length);
  return { ...x, dims };
}

/** Insert axes of size 1. */
export function unsqueeze(x: Tensor, axes: Data): Tensor {
  const rank = x.dims.length + axes.length;
  const isNew = new Set(Array.from(axes, (axis) => axisOf(axis, rank)));
  let next = 0;
  return { ...x, dims: Array.from({ length: rank }, (_, axis) => (isNew.has(axis) ? 1 : x.dims[next++])) };
}

/** Take out axes of size 1, all of them where none is named. */
export function squeeze(x: Tensor, axes: Data | null): Tensor {
  const rank = x.dims.length;
  const gone = axes ? new Set(Array.from(axes, (axis) => axisOf(axis, rank))) : null;
  demand(!gone || [...gone].every((axis) => x.dims[axis] === 1));
  return { ...x, dims: x.dims.filter((size, axis) => (gone ? !gone.has(axis) : size !== 1)) };
}

/** Put the axes in another order. */
export function transpose(x: Tensor, order: readonly number[]): Tensor {
  const dims = order.map((axis) => x.dims[axisOf(axis, x.dims.length)]);
  const own = stridesOf(x.dims);
  return copy(x, dims, order.map((axis) => own[axis]), 0);
}

/** Copy elements along strides, which may be negative, from `start`. */
function copy(x: Tensor, dims: readonly number[], strides: readonly number[], start: number): Tensor {
  const out = zeros(x.type, dims);
  const last = dims.length - 1;
  if (last < 0) out.data[0] = x.data[start];
  if (last < 0 || out.data.length === 0) return out;
  const [count, step] = [dims[last], strides[last]];
  const place = new Array<number>(last).fill(0);
  let from = start;
  for (let at = 0; at < out.data.length; at += count) {
    for (let i = 0; i < count; i++) out.data[at + i] = x.data[from + i * step];
    for (let axis = last - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++place[axis] < dims[axis]) break;
      from -= dims[axis] * strides[axis];
      place[axis] = 0;
    }
  }
  return out;
}

/** Cut out a range along some axes (ONNX's Slice, negative steps too). */
export function slice(x: Tensor, starts: Data, ends: Data, axes: Data | null, steps: Data | null): Tensor {
  const [dims, strides] = [[...x.dims], stridesOf(x.dims)];
  let from = 0;
  starts.forEach((start: number, place: number) => {
    const axis = axisOf(axes ? axes[place] : place, dims.length);
    const [size, step] = [x.dims[axis], steps ? steps[place] | 0 : 1];
    const [least, most] = step > 0 ? [0, size] : [-1, size - 1];
    const clamp = (value: number) => Math.min(most, Math.max(least, value < 0 ? value + size : value));
    const [first, end] = [Math.max(0, clamp(start)), clamp(ends[place])];
    dims[axis] = Math.max(0, Math.ceil((end - first) / step)) | 0;
    from += first * strides[axis];
    strides[axis] *= step;
  });
  return copy(x, dims, strides, from);
}

/** Join tensors along an axis. */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const place = axisOf(axis, tensors[0].dims.length);
  const dims = [...tensors[0].dims];
  dims[place] = tensors.reduce((sum, tensor) => sum + tensor.dims[place], 0);
  const out = zeros(tensors[0].type, dims);
  const row = sizeOf(dims, place);
  let offset = 0;
  for (const { data, dims: own } of tensors) {
    const part = sizeOf(own, place);
    for (let outer = 0; outer * row < out.data.length; outer++) {
      out.data.set(data.subarray(outer * part, (outer + 1) * part), outer * row + offset);
    }
    offset += part;
  }
  return out;
}

/** Cut a tensor along an axis into `sizes`, or into `count` parts, the last of which may be smaller. */
export function split(x: Tensor, axis: number, sizes: readonly number[] | null, count: number): Tensor[] {
  const place = axisOf(axis, x.dims.length);
  const size = x.dims[place];
  const part = Math.ceil(size / count);
  const parts = sizes ?? Array.from({ length: count }, (_, at) => Math.min(part, size - at * part));
  let start = 0;
  return parts.map((length) => {
    const cut = slice(x, Int32Array.of(start), Int32Array.of(start + length), Int32Array.of(place), null);
    start += length;
    return cut;
  });
}

/** Take rows along an axis; an index may count from the end, and one that is not there throws. */
export function gather(x: Tensor, indices: Tensor, axis: number): Tensor {
  const place = axisOf(axis, x.dims.length);
  const size = x.dims[place];
  const [outer, inner] = [sizeOf(x.dims, 0, place), sizeOf(x.dims, place + 1)];
  const out = zeros(x.type, [...x.dims.slice(0, place), ...indices.dims, ...x.dims.slice(place + 1)]);
  const count = indices.data.length;
  for (let row = 0; row < outer; row++) {
    for (let at = 0; at < count; at++) {
      const [from, to] = [(row * size + placeOf(indices.data[at], size)) * inner, (row * count + at) * inner];
      for (let i = 0; i < inner; i++) out.data[to + i] = x.data[from + i];
    }
  }
  return out;
}

/** Return a copy of (N,) with `updates` put, or added, at `indices`. */
export function scatter(x: Tensor, indices: Tensor, updates: Tensor, isAdded: boolean): Tensor {
  const data = x.data.slice();
  for (let at = 0; at < indices.data.length; at++) {
    const index = placeOf(indices.data[at], data.length);
    data[index] = isAdded ? data[index] + updates.data[at] : updates.data[at];
  }
  return { ...x, data };
}

/** Keep the triangle of the last two axes above, or below, a diagonal; zero elsewhere. */
export function trilu(x: Tensor, diagonal: number, isUpper: boolean): Tensor {
  const out = zeros(x.type, x.dims);
  const [rows, columns] = x.dims.slice(-2);
  for (let at = 0; at < x.data.length; at++) {
    const [row, column] = [Math.floor(at / columns) % rows, at % columns];
    if (isUpper ? column - row >= diagonal : column - row <= diagonal) out.data[at] = x.data[at];
  }
  return out;
}
