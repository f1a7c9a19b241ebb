/** Tensors of the pure-JavaScript engine. An int64 is a float64 that holds a whole number: JavaScript has no other. */

const MAX_ELEMENTS = 2 ** 27;

/** ONNX's numbers of the element types that are understood. */
export enum Type {
  float = 1,
  uint8 = 2,
  int8 = 3,
  int32 = 6,
  int64 = 7,
  bool = 9,
}

export type Data = Float32Array | Uint8Array | Int8Array | Int32Array | Float64Array;

export interface Tensor {
  readonly type: Type;
  readonly dims: readonly number[];
  readonly data: Data;
}

const ARRAYS: Readonly<Record<Type, new (length: number) => Data>> = {
  [Type.float]: Float32Array,
  [Type.uint8]: Uint8Array,
  [Type.int8]: Int8Array,
  [Type.int32]: Int32Array,
  [Type.int64]: Float64Array,
  [Type.bool]: Uint8Array,
};

/** Throw unless the engine, and the manifest, know an operator in the form that is asked for; what calls names it. */
export function demand(isKnown: boolean): asserts isKnown {
  if (!isKnown) throw new Error("not in this form, or the manifest does not name it");
}

/** Return zeros of a type and shape; throw where they are more than any graph of ours makes. */
export function zeros(type: Type, dims: readonly number[]): Tensor {
  demand(sizeOf(dims) <= MAX_ELEMENTS);
  return { type, dims, data: new ARRAYS[type](sizeOf(dims)) };
}

/** Return the number of elements of a shape. */
export function sizeOf(dims: readonly number[], from = 0, to = dims.length): number {
  let size = 1;
  for (let axis = from; axis < to; axis++) size *= dims[axis];
  return size;
}

/** Return whether a number is an element type that is understood. */
export function isType(type: number): type is Type {
  return type in ARRAYS;
}

/** Return the axis counted from the front; throw where there is none. */
export function axisOf(axis: number, rank: number): number {
  const place = axis < 0 ? axis + rank : axis;
  demand(Number.isInteger(place) && place >= 0 && place < Math.max(rank, 1));
  return place;
}

/** Return an index that may count from the end; throw where there is none. */
export function placeOf(index: number, size: number): number {
  const place = index < 0 ? index + size : index;
  if (!(place >= 0 && place < size)) throw new Error(`index ${index} of ${size}`);
  return place;
}

/** Return how far apart neighbours along each axis lie. */
export function stridesOf(dims: readonly number[]): number[] {
  const strides = new Array<number>(dims.length);
  let stride = 1;
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= dims[axis];
  }
  return strides;
}

/** Return the shape that several broadcast to (ONNX, "Broadcasting"); throw where they don't fit. */
export function broadcastDims(...shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((dims) => dims.length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((dims) => dims[axis - rank + dims.length] ?? 1).filter((size) => size !== 1);
    demand(sizes.every((size) => size === sizes[0]));
    return sizes[0] ?? 1;
  });
}

/** Return the strides of a tensor as it is broadcast to a shape: 0 along each axis that repeats it. */
export function broadcastStrides(dims: readonly number[], to: readonly number[]): number[] {
  const own = stridesOf(dims);
  const offset = to.length - dims.length;
  return to.map((_, axis) => (axis < offset || dims[axis - offset] === 1 ? 0 : own[axis - offset]));
}
