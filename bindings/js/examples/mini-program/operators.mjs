/**
 * Compare a bundle's operators with WeChat's list of what `wx.createInferenceSession` runs on the CPU:
 *
 *     node operators.mjs shop-fp32.xrec
 *
 * The list (developers.weixin.qq.com/miniprogram/dev/framework/open-ability/inference/supports.html) has names of its own, in
 * order of the alphabet; it was read as far as "Reduce", in November 2026. What would stand after it is to be looked up there.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** The rows that were read and that an encoder or a scorer may need, by the ONNX operators that they stand for. */
const ROWS = {
  ArgMax: ["ArgMax"],
  Cast: ["Cast"],
  Concat: ["Concat"],
  Const: ["Constant"],
  ConstOfShape: ["ConstantOfShape"],
  Conv1D: ["Conv"],
  CumSum: ["CumSum"],
  Expand: ["Expand"],
  Gather: ["Gather"],
  GatherND: ["GatherND"],
  Gemm: ["Gemm"],
  Gru: ["GRU"],
  LayerNorm: ["LayerNormalization"],
  MatMul: ["MatMul"],
  Pad: ["Pad"],
  Permute: ["Transpose"],
  Pooling1D: ["AveragePool", "MaxPool"],
  Range: ["Range"],
  Reduce: ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"],
};

/** Rows of many operators, whose own lists were not read. */
const GROUPS = {
  Activation: ["Clip", "Gelu", "Relu", "Sigmoid", "Softplus", "Tanh"],
  Binary: ["Add", "And", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub"],
  ElementWise: ["Abs", "Ceil", "Erf", "Exp", "Floor", "IsInf", "Log", "Neg", "Not", "Round", "Sin", "Sqrt"],
};
const LAST_READ = "Reduce";
/** What a converter leaves out. */
const NOTHING = ["Identity"];

/** Sort operators by what the list says: a row, a row of many, no row where one would stand, or the part that was not read. */
export function compare(operators) {
  const isIn = (rows, name) => Object.values(rows).some((names) => names.includes(name));
  const found = { listed: [], grouped: [], missing: [], unread: [] };
  for (const name of operators) {
    if (isIn(ROWS, name) || NOTHING.includes(name)) found.listed.push(name);
    else if (isIn(GROUPS, name)) found.grouped.push(name);
    else found[name < LAST_READ ? "missing" : "unread"].push(name);
  }
  return found;
}

const isAsked = process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href;
if (isAsked) {
  const { operators, opset } = JSON.parse(readFileSync(join(process.argv[2], "manifest.json"), "utf8"));
  const { listed, grouped, missing, unread } = compare(operators);
  console.log(`opset ${opset}; ${operators.length} operators`);
  console.log(`in the list: ${listed.join(", ")}`);
  console.log(`in a row of many, to be looked up: ${grouped.join(", ")}`);
  console.log(`not in the list: ${missing.join(", ") || "none"}`);
  console.log(`after "${LAST_READ}", to be looked up: ${unread.join(", ")}`);
  process.exitCode = missing.length ? 1 : 0;
}
