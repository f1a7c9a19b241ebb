/** Look into an ONNX file before onnxruntime does: standard operators that the manifest names, no file but items.bin. */

import { decodeUtf8 } from "../utf8";
import { fieldsOf } from "./protobuf";

const MAX_DEPTH = 32;

/** What to do with a field of a message, by its number: look at its bytes, or into it. */
interface Rules {
  [number: number]: Rules | ((bytes: Uint8Array) => void);
}

/** Throw Error where a graph asks for more than these operators. Numbers are those of onnx.proto. */
export function checkGraph(model: Uint8Array, operators: readonly string[]): void {
  const tensor: Rules = { 13: checkPlace };
  const graph: Rules = { 5: tensor, 15: refuse };
  const attribute: Rules = { 5: tensor, 6: graph, 10: tensor, 11: graph, 22: refuse, 23: refuse };
  const domain = oneOf(["", "ai.onnx"]);
  graph[1] = { 4: oneOf(operators), 5: attribute, 7: domain };
  walk(model, { 7: graph, 8: { 1: domain }, 20: refuse, 25: refuse }, 0);
}

function walk(message: Uint8Array, rules: Rules, depth: number): void {
  if (depth > MAX_DEPTH) refuse();
  for (const { number, bytes } of fieldsOf(message)) {
    const rule = bytes && rules[number];
    if (typeof rule === "function") rule(bytes!);
    else if (rule) walk(bytes!, rule, depth + 1);
  }
}

function refuse(): never {
  throw new Error("it holds functions, training, sparse tensors or deep graphs");
}

function oneOf(names: readonly string[]): (bytes: Uint8Array) => void {
  return (bytes) => {
    const name = decodeUtf8(bytes);
    if (!names.includes(name)) throw new Error(`it names ${name}, expected ${names.join()}`);
  };
}

/** Check one entry of where a tensor's bytes lie. */
function checkPlace(bytes: Uint8Array): void {
  const [key, value] = [...fieldsOf(bytes)].map((field) => field.bytes && decodeUtf8(field.bytes));
  if (key === "location" && value !== "items.bin") throw new Error(`it names ${value}, expected items.bin`);
}
