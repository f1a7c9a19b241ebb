/** Operators that act element by element, with broadcasting. */

import { broadcastDims, broadcastStrides, demand, sizeOf, Type, zeros, type Data, type Tensor } from "./tensor";

/** Computes `count` elements; a step of 0 repeats one element of an operand. */
type Run = (
  out: Data,
  at: number,
  a: Data,
  aAt: number,
  aStep: number,
  b: Data,
  bAt: number,
  bStep: number,
  count: number,
) => void;

// The two that see most elements have loops of their own, in which V8 makes no call.
const add: Run = (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep] + b[bAt + i * bStep];
};
const multiply: Run = (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep] * b[bAt + i * bStep];
};

/** Return the run of any function of two numbers. */
function each(compute: (a: number, b: number) => number): Run {
  return (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
    for (let i = 0; i < count; i++) out[at + i] = compute(a[aAt + i * aStep], b[bAt + i * bStep]);
  };
}

const divideWhole = each((a, b) => Math.trunc(a / b));
const modulo = each((a, b) => a - b * Math.floor(a / b)); // the sign of the divisor, as fmod = 0 says
export const BINARY: Readonly<Record<string, Run>> = {
  Add: add,
  Sub: each((a, b) => a - b),
  Mul: multiply,
  Div: each((a, b) => a / b),
  Mod: modulo,
  Pow: each(Math.pow),
  Min: each(Math.min),
  Max: each(Math.max),
  Equal: each((a, b) => Number(a === b)),
  Greater: each((a, b) => Number(a > b)),
  GreaterOrEqual: each((a, b) => Number(a >= b)),
};

/** Return the function of two tensors of an operator of {@link BINARY}. */
export function binary(operator: string): (a: Tensor, b: Tensor) => Tensor {
  return (a, b) => {
    const out = zeros(/^(Equal|Greater)/.test(operator) ? Type.bool : a.type, broadcastDims(a.dims, b.dims));
    runBroadcast(operator === "Div" && a.type !== Type.float ? divideWhole : BINARY[operator], out, a, b);
    return out;
  };
}

/** Walk the longest runs along which each operand steps by 1 or stands still. */
function runBroadcast(run: Run, out: Tensor, a: Tensor, b: Tensor): void {
  const { dims } = out;
  const [aStrides, bStrides] = [broadcastStrides(a.dims, dims), broadcastStrides(b.dims, dims)];
  let axis = dims.length - 1;
  while (axis >= 0 && dims[axis] === 1) axis--;
  if (axis < 0) return run(out.data, 0, a.data, 0, 0, b.data, 0, 0, sizeOf(dims));
  const [aStep, bStep] = [aStrides[axis], bStrides[axis]];
  let count = dims[axis];
  while (axis > 0 && continues(aStrides[axis - 1], aStep, count) && continues(bStrides[axis - 1], bStep, count)) {
    count *= dims[--axis];
  }
  const total = sizeOf(dims);
  const place = new Array<number>(axis).fill(0);
  let [aAt, bAt] = [0, 0];
  for (let at = 0; at < total; at += count) {
    run(out.data, at, a.data, aAt, aStep, b.data, bAt, bStep, count);
    for (let outer = axis - 1; outer >= 0; outer--) {
      aAt += aStrides[outer];
      bAt += bStrides[outer];
      if (++place[outer] < dims[outer]) break;
      aAt -= dims[outer] * aStrides[outer];
      bAt -= dims[outer] * bStrides[outer];
      place[outer] = 0;
    }
  }
}

function continues(stride: number, step: number, count: number): boolean {
  return stride === step * count;
}

/** Error function to 1.5e-7, float32's own step near 1 (Abramowitz and Stegun, 7.1.26). */
export function erf(x: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

/** The logistic function. */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

const gelu = (x: number) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));

export const UNARY: Readonly<Record<string, (x: number) => number>> = {
  Abs: Math.abs,
  Exp: Math.exp,
  Gelu: gelu,
  Log: Math.log,
  Relu: (x) => (x > 0 ? x : 0),
  Sigmoid: sigmoid,
  Sin: Math.sin,
  Sqrt: Math.sqrt,
};

/** Return a tensor of what each element becomes. */
function map(x: Tensor, type: Type, compute: (x: number) => number): Tensor {
  const out = zeros(type, x.dims);
  for (let at = 0; at < x.data.length; at++) out.data[at] = compute(x.data[at]);
  return out;
}

/** Return the function of a tensor of an operator of {@link UNARY}. */
export function unary(operator: string): (x: Tensor) => Tensor {
  return (x) => map(x, x.type, UNARY[operator]);
}

/** Convert to another type; a float becomes a whole number by cutting its fraction. */
export function cast(x: Tensor, type: Type): Tensor {
  if (x.type === type) return x;
  if (type === Type.bool) return map(x, type, (value) => Number(value !== 0));
  if (type === Type.int64) return map(x, type, Math.trunc);
  const out = zeros(type, x.dims);
  out.data.set(x.data);
  return out;
}

/** Bound each element; a bound that is left out does not. */
export function clip(x: Tensor, least: Tensor | undefined, most: Tensor | undefined): Tensor {
  const [low, high] = [least?.data[0] ?? -Infinity, most?.data[0] ?? Infinity];
  return map(x, x.type, (value) => Math.min(high, Math.max(low, value)));
}

/** Return whether each element is infinite. */
export function isInf(x: Tensor): Tensor {
  return map(x, Type.bool, (value) => Number(Math.abs(value) === Infinity));
}

/** Return `yes` where the condition holds and `no` elsewhere. */
export function where(condition: Tensor, yes: Tensor, no: Tensor): Tensor {
  const dims = broadcastDims(condition.dims, yes.dims, no.dims);
  const [is, left, right] = [condition, yes, no].map((tensor) => expand(tensor, dims));
  const out = zeros(yes.type, dims);
  for (let at = 0; at < out.data.length; at++) out.data[at] = is.data[at] ? left.data[at] : right.data[at];
  return out;
}

/** Repeat a tensor to the shape that it and `dims` broadcast to. */
export function expand(x: Tensor, dims: readonly number[]): Tensor {
  const out = zeros(x.type, broadcastDims(x.dims, dims));
  runBroadcast(each((value) => value), out, x, { type: x.type, dims: [], data: x.data });
  return out;
}

/** Quantize with one scale: `round(x / scale) + zero point`, half to even, in 0..255 or -128..127. */
export function quantize(x: Tensor, scale: Tensor, zeroPoint: Tensor): Tensor {
  demand(scale.data.length === 1);
  const [least, most] = zeroPoint.type === Type.uint8 ? [0, 255] : [-128, 127];
  return map(x, zeroPoint.type, (value) => {
    const level = halfToEven(Math.fround(value / scale.data[0])) + zeroPoint.data[0];
    return Math.min(most, Math.max(least, level));
  });
}

function halfToEven(x: number): number {
  const up = Math.round(x);
  return up - x === 0.5 && up % 2 !== 0 ? up - 1 : up;
}
