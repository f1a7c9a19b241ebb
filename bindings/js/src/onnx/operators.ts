/** The operators that the engine knows: those of the exporter's graphs and their next of kin. */

import { BINARY, binary, cast, clip, expand, isInf, quantize, UNARY, unary, where } from "./elementwise";
import type { Attribute, Node } from "./model";
import { gemm, matMul, matMulInteger } from "./products";
import { cumSum, layerNorm, reduce, softmax, topK } from "./reductions";
import { convolve, gatherEach, gru, maxPool, pad } from "./sequences";
import {
  concat,
  dimsOf,
  gather,
  int64,
  reshape,
  scatter,
  slice,
  split,
  squeeze,
  transpose,
  trilu,
  unsqueeze,
} from "./shapes";
import { demand, isType, type Tensor } from "./tensor";

/** Computes a node's outputs; an input that is left out is undefined. */
export type Kernel = (...inputs: (Tensor | undefined)[]) => Tensor | Tensor[];

/** Reads an attribute; what is not there, or of another kind, is the default of the standard. */
type Read = <T extends Attribute>(name: string, otherwise: T) => T;
type Make = (attribute: Read, node: Node) => (...inputs: Tensor[]) => Tensor | Tensor[];

const reduction: Make = (attribute, { operator }) => {
  const [keepsDims, isNothing] = [attribute<number>("keepdims", 1) !== 0, attribute<number>("noop_with_empty_axes", 0) !== 0];
  return (x, axes) => (isNothing && !axes?.data.length ? x : reduce(operator, x, axes ? [...axes.data] : [], keepsDims));
};

/** Attributes of which one value alone is understood, of whatever operator; in a list each number must be it. */
const PLAIN: Readonly<Record<string, number | string>> = {
  approximate: "none",
  auto_pad: "NOTSET",
  batch_dims: 0,
  dilations: 1,
  direction: "forward",
  exclusive: 0,
  fmod: 0,
  group: 1,
  layout: 0,
  mode: "constant",
  pads: 0,
  reverse: 0,
  strides: 1,
};

function demandPlain({ attributes }: Node): void {
  for (const [name, value] of attributes) {
    demand(!Object.hasOwn(PLAIN, name) || [value].flat().every((one) => one === PLAIN[name]));
  }
}

const MAKERS: Readonly<Record<string, Make>> = {
  Cast: (attribute) => {
    const type = attribute<number>("to", 0);
    demand(isType(type));
    return (x) => cast(x, type);
  },
  Clip: () => clip,
  Concat: (attribute) => (...tensors) => concat(tensors, attribute<number>("axis", 0)),
  Conv: () => (x, weights, bias) => convolve(x, weights, bias ?? null),
  CumSum: () => (x, axis) => cumSum(x, axis.data[0]),
  Expand: () => (x, shape) => expand(x, dimsOf(shape.data)),
  Gather: (attribute) => (x, indices) => gather(x, indices, attribute<number>("axis", 0)),
  GatherND: () => gatherEach,
  GatherElements: (attribute) => (x, indices) => {
    demand(x.dims.length === 1); // there it is Gather
    return gather(x, indices, attribute<number>("axis", 0));
  },
  Gemm: (attribute) => {
    const [alpha, beta] = [attribute<number>("alpha", 1), attribute<number>("beta", 1)];
    const [turnA, turnB] = [attribute<number>("transA", 0) !== 0, attribute<number>("transB", 0) !== 0];
    return (a, b, c) => gemm(a, b, c ?? null, { alpha, beta, turnA, turnB });
  },
  GRU: (attribute) => {
    demand(attribute<number>("linear_before_reset", 0) === 1);
    return (x, input, hidden, bias, lengths, start) => {
      demand(!lengths);
      return gru(x, input, hidden, bias ?? null, start ?? null);
    };
  },
  Identity: () => (x) => x,
  IsInf: () => isInf,
  LayerNormalization: (attribute) => (x, scale, shift) =>
    layerNorm(x, scale, shift ?? null, attribute<number>("axis", -1), attribute<number>("epsilon", 1e-5)),
  MatMul: () => matMul,
  MatMulInteger: (_, node) => {
    demand(node.inputs.length === 2); // without zero points
    return matMulInteger;
  },
  MaxPool: (attribute) => {
    const window = attribute<readonly number[]>("kernel_shape", []);
    demand(window.length === 1);
    return (x) => maxPool(x, window[0]);
  },
  Pad: () => (x, pads, value) => pad(x, pads.data, value ? value.data[0] : 0),
  QuantizeLinear: () => quantize,
  ReduceMax: reduction,
  ReduceMean: reduction,
  ReduceSum: reduction,
  Reshape: (attribute) => (x, shape) => reshape(x, shape.data, attribute<number>("allowzero", 0) !== 0),
  ScatterElements: (attribute) => {
    const reductionName = attribute<string>("reduction", "none");
    demand(reductionName === "none" || reductionName === "add");
    return (x, indices, updates) => {
      demand(x.dims.length === 1);
      return scatter(x, indices, updates, reductionName === "add");
    };
  },
  Shape: (attribute) => (x) => int64(x.dims.slice(attribute<number>("start", 0), attribute<number>("end", x.dims.length))),
  Slice: () => (x, starts, ends, axes, steps) =>
    slice(x, starts.data, ends.data, axes?.data ?? null, steps?.data ?? null),
  Softmax: (attribute) => (x) => softmax(x, attribute<number>("axis", -1)),
  Split: (attribute, node) => (x, sizes) =>
    split(x, attribute<number>("axis", 0), sizes ? [...sizes.data] : null, node.outputs.length),
  Squeeze: () => (x, axes) => squeeze(x, axes?.data ?? null),
  TopK: (attribute) => {
    const [axis, isLargest] = [attribute<number>("axis", -1), attribute<number>("largest", 1) !== 0];
    return (x, k) => topK(x, k.data[0], axis, isLargest);
  },
  Transpose: (attribute) => (x) => transpose(x, attribute("perm", [...x.dims.keys()].reverse())),
  Trilu: (attribute) => (x, diagonal) => trilu(x, diagonal?.data[0] ?? 0, attribute<number>("upper", 1) !== 0),
  Unsqueeze: () => (x, axes) => unsqueeze(x, axes.data),
  Where: () => where,
};

/** Return the kernel of a node, or null where the engine doesn't know the operator. */
export function kernelOf(node: Node): Kernel | null {
  const { operator } = node;
  demandPlain(node);
  const attribute: Read = (name, otherwise) => {
    const value = node.attributes.get(name);
    const isAlike = typeof value === typeof otherwise && Array.isArray(value) === Array.isArray(otherwise);
    return isAlike ? (value as typeof otherwise) : otherwise;
  };
  if (Object.hasOwn(MAKERS, operator)) return MAKERS[operator](attribute, node) as Kernel;
  if (Object.hasOwn(UNARY, operator)) return unary(operator) as Kernel;
  if (!Object.hasOwn(BINARY, operator)) return null;
  const compute = binary(operator);
  return ((...inputs: Tensor[]) => inputs.reduce(compute)) as Kernel; // Min and Max take any number
}
