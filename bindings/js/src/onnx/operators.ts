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
  range,
  reshape,
  scatter,
  slice,
  split,
  squeeze,
  transpose,
  trilu,
  unsqueeze,
} from "./shapes";
import { isType, type Tensor } from "./tensor";

/** Computes a node's outputs; an input that is left out is undefined. */
export type Kernel = (...inputs: (Tensor | undefined)[]) => Tensor | Tensor[];

/** The attributes of a node, read with the defaults of the standard. */
class Attributes {
  constructor(private readonly values: ReadonlyMap<string, Attribute>) {}

  number(name: string, otherwise: number): number {
    const value = this.values.get(name);
    return typeof value === "number" ? value : otherwise;
  }

  text(name: string, otherwise: string): string {
    const value = this.values.get(name);
    return typeof value === "string" ? value : otherwise;
  }

  numbers(name: string): readonly number[] | null {
    const value = this.values.get(name);
    return Array.isArray(value) ? value : null;
  }
}

type Make = (attributes: Attributes, node: Node) => (...inputs: Tensor[]) => Tensor | Tensor[];

const reduction: Make = (attributes, { operator }) => {
  const [keepsDims, isNothing] = [attributes.number("keepdims", 1) !== 0, attributes.number("noop_with_empty_axes", 0) !== 0];
  return (x, axes) => (isNothing && !axes?.data.length ? x : reduce(operator, x, axes ? [...axes.data] : [], keepsDims));
};

/** Throw where an attribute of windows is not 1 everywhere, or the windows reach past the ends. */
function requireOnes(attributes: Attributes, names: readonly string[]): void {
  const isPlain = names.every((name) => (attributes.numbers(name) ?? []).every((value) => value === 1));
  const hasPads = (attributes.numbers("pads") ?? []).some((value) => value !== 0);
  if (!isPlain || hasPads || attributes.text("auto_pad", "NOTSET") !== "NOTSET") throw new Error("windows with steps or pads");
}

const MAKERS: Readonly<Record<string, Make>> = {
  Cast: (attributes) => {
    const type = attributes.number("to", 0);
    if (!isType(type)) throw new Error(`Cast to element type ${type}`);
    return (x) => cast(x, type);
  },
  Clip: () => clip,
  Concat: (attributes) => (...tensors) => concat(tensors, attributes.number("axis", 0)),
  Conv: (attributes) => {
    requireOnes(attributes, ["strides", "dilations"]);
    if (attributes.number("group", 1) !== 1) throw new Error("Conv in groups");
    return (x, weights, bias) => convolve(x, weights, bias ?? null);
  },
  CumSum: (attributes) => {
    if (attributes.number("exclusive", 0) || attributes.number("reverse", 0)) throw new Error("CumSum from the end");
    return (x, axis) => cumSum(x, axis.data[0]);
  },
  Expand: () => (x, shape) => expand(x, dimsOf(shape.data)),
  Gather: (attributes) => (x, indices) => gather(x, indices, attributes.number("axis", 0)),
  GatherND: (attributes) => {
    if (attributes.number("batch_dims", 0)) throw new Error("GatherND in batches");
    return gatherEach;
  },
  GatherElements: (attributes) => (x, indices) => {
    if (x.dims.length !== 1) throw new Error("GatherElements of more than one axis"); // there it is Gather
    return gather(x, indices, attributes.number("axis", 0));
  },
  Gelu: (attributes) => {
    if (attributes.text("approximate", "none") !== "none") throw new Error("Gelu that is approximate");
    return unary("Gelu");
  },
  Gemm: (attributes) => {
    const [alpha, beta] = [attributes.number("alpha", 1), attributes.number("beta", 1)];
    const [turnA, turnB] = [attributes.number("transA", 0) !== 0, attributes.number("transB", 0) !== 0];
    return (a, b, c) => gemm(a, b, c ?? null, { alpha, beta, turnA, turnB });
  },
  GRU: (attributes) => {
    const isForward = attributes.text("direction", "forward") === "forward" && attributes.number("layout", 0) === 0;
    if (!isForward || !attributes.number("linear_before_reset", 0)) throw new Error("GRU of another form");
    return (x, input, hidden, bias, lengths, start) => {
      if (lengths) throw new Error("GRU of sequences that differ in length");
      return gru(x, input, hidden, bias ?? null, start ?? null);
    };
  },
  Identity: () => (x) => x,
  IsInf: () => isInf,
  LayerNormalization: (attributes) => (x, scale, shift) =>
    layerNorm(x, scale, shift ?? null, attributes.number("axis", -1), attributes.number("epsilon", 1e-5)),
  MatMul: () => matMul,
  MatMulInteger: (_, node) => {
    if (node.inputs.length > 2) throw new Error("MatMulInteger with zero points");
    return matMulInteger;
  },
  MaxPool: (attributes) => {
    requireOnes(attributes, ["strides", "dilations"]);
    const window = attributes.numbers("kernel_shape") ?? [];
    if (window.length !== 1) throw new Error("MaxPool of more than one axis");
    return (x) => maxPool(x, window[0]);
  },
  Pad: (attributes) => {
    if (attributes.text("mode", "constant") !== "constant") throw new Error("Pad by what is there");
    return (x, pads, value) => pad(x, pads.data, value ? value.data[0] : 0);
  },
  QuantizeLinear: () => quantize,
  Range: () => range,
  ReduceMax: reduction,
  ReduceMean: reduction,
  ReduceSum: reduction,
  Reshape: (attributes) => (x, shape) => reshape(x, shape.data, attributes.number("allowzero", 0) !== 0),
  ScatterElements: (attributes) => {
    const reductionName = attributes.text("reduction", "none");
    if (reductionName !== "none" && reductionName !== "add") throw new Error(`ScatterElements by ${reductionName}`);
    return (x, indices, updates) => {
      if (x.dims.length !== 1) throw new Error("ScatterElements of more than one axis");
      return scatter(x, indices, updates, reductionName === "add");
    };
  },
  Shape: (attributes) => (x) => int64(x.dims.slice(attributes.number("start", 0), attributes.number("end", x.dims.length))),
  Slice: () => (x, starts, ends, axes, steps) =>
    slice(x, starts.data, ends.data, axes?.data ?? null, steps?.data ?? null),
  Softmax: (attributes) => (x) => softmax(x, attributes.number("axis", -1)),
  Split: (attributes, node) => (x, sizes) =>
    split(x, attributes.number("axis", 0), sizes ? [...sizes.data] : null, node.outputs.length),
  Squeeze: () => (x, axes) => squeeze(x, axes?.data ?? null),
  TopK: (attributes) => {
    const [axis, isLargest] = [attributes.number("axis", -1), attributes.number("largest", 1) !== 0];
    return (x, k) => topK(x, k.data[0], axis, isLargest);
  },
  Transpose: (attributes) => (x) => transpose(x, attributes.numbers("perm") ?? [...x.dims.keys()].reverse()),
  Trilu: (attributes) => (x, diagonal) => trilu(x, diagonal?.data[0] ?? 0, attributes.number("upper", 1) !== 0),
  Unsqueeze: () => (x, axes) => unsqueeze(x, axes.data),
  Where: () => where,
};

/** Return the kernel of a node, or null where the engine doesn't know the operator. */
export function kernelOf(node: Node): Kernel | null {
  const { operator } = node;
  const attributes = new Attributes(node.attributes);
  if (Object.hasOwn(MAKERS, operator)) return MAKERS[operator](attributes, node) as Kernel;
  if (Object.hasOwn(UNARY, operator)) return unary(operator) as Kernel;
  if (!Object.hasOwn(BINARY, operator)) return null;
  if (attributes.number("fmod", 0)) throw new Error("Mod with the sign of the dividend");
  const compute = binary(operator);
  return ((...inputs: Tensor[]) => inputs.reduce(compute)) as Kernel; // Min and Max take any number
}
