/** Operators that act element by element, with broadcasting. */

import { broadcastDims, broadcastStrides, isWhole, sizeOf, Type, zeros, type Data, type Tensor } from "./tensor";

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

const add: Run = (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep] + b[bAt + i * bStep];
};
const subtract: Run = (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep] - b[bAt + i * bStep];
};
const multiply: Run = (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep] * b[bAt + i * bStep];
};
const divide: Run = (out, at, a, aAt, aStep, b, bAt, bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep] / b[bAt + i * bStep];
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
  Sub: subtract,
  Mul: multiply,
  Div: divide,
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
    runBroadcast(operator === "Div" && isWhole(a.type) ? divideWhole : BINARY[operator], out, a, b);
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

/** Error function to 1.2e-7, float32's own step (a series for small, Abramowitz and Stegun 7.1.26 for other arguments). */
export function erf(x: number): number {
  const size = Math.abs(x);
  if (size < 0.5) {
    const square = x * x;
    const series = 1 - square * (1 / 3 - square * (1 / 10 - square * (1 / 42 - square * (1 / 216 - square / 1320))));
    return 1.1283791670955126 * x * series;
  }
  const t = 1 / (1 + 0.3275911 * size);
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-size * size));
}

const gelu = (x: number) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));

export const UNARY: Readonly<Record<string, (x: number) => number>> = {
  Abs: Math.abs,
  Erf: erf,
  Exp: Math.exp,
  Gelu: gelu,
  Log: Math.log,
  Neg: (x) => -x,
  Relu: (x) => (x > 0 ? x : 0),
  Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  Sin: Math.sin,
  Sqrt: Math.sqrt,
  Tanh: Math.tanh,
};

/** Return the function of a tensor of an operator of {@link UNARY}. */
export function unary(operator: string): (x: Tensor) => Tensor {
  const compute = UNARY[operator];
  return (x) => {
    const out = zeros(x.type, x.dims);
    for (let at = 0; at < x.data.length; at++) out.data[at] = compute(x.data[at]);
    return out;
  };
}

/** Convert to another type; a float becomes a whole number by cutting its fraction. */
export function cast(x: Tensor, type: Type): Tensor {
  if (x.type === type) return x;
  const out = zeros(type, x.dims);
  if (type === Type.bool) for (let at = 0; at < x.data.length; at++) out.data[at] = Number(x.data[at] !== 0);
  else if (type === Type.int64 && !isWhole(x.type)) {
    for (let at = 0; at < x.data.length; at++) out.data[at] = Math.trunc(x.data[at]);
  } else out.data.set(x.data);
  return out;
}

/** Bound each element; a bound that is left out does not. */
export function clip(x: Tensor, least: Tensor | undefined, most: Tensor | undefined): Tensor {
  const [low, high] = [least?.data[0] ?? -Infinity, most?.data[0] ?? Infinity];
  const out = zeros(x.type, x.dims);
  for (let at = 0; at < x.data.length; at++) out.data[at] = Math.min(high, Math.max(low, x.data[at]));
  return out;
}

/** Return whether each element is infinite. */
export function isInf(x: Tensor): Tensor {
  const out = zeros(Type.bool, x.dims);
  for (let at = 0; at < x.data.length; at++) out.data[at] = Number(Math.abs(x.data[at]) === Infinity);
  return out;
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
  runBroadcast(first, out, x, { type: x.type, dims: [], data: x.data });
  return out;
}

const first: Run = (out, at, a, aAt, aStep, _b, _bAt, _bStep, count) => {
  for (let i = 0; i < count; i++) out[at + i] = a[aAt + i * aStep];
};

/** Quantize with one scale: `round(x / scale) + zero point`, half to even, in 0..255 or -128..127. */
export function quantize(x: Tensor, scale: Tensor, zeroPoint: Tensor): Tensor {
  if (scale.data.length !== 1) throw new Error("QuantizeLinear with more than one scale");
  const out = zeros(zeroPoint.type, x.dims);
  const [least, most] = zeroPoint.type === Type.uint8 ? [0, 255] : [-128, 127];
  for (let at = 0; at < x.data.length; at++) {
    const level = halfToEven(Math.fround(x.data[at] / scale.data[0])) + zeroPoint.data[0];
    out.data[at] = Math.min(most, Math.max(least, level));
  }
  return out;
}

function halfToEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}
