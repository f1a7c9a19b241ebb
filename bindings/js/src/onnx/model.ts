/** Read an ONNX model (onnx.proto, IR version 10): nodes, constants, and tensors whose bytes lie in items.bin. */

import { decodeUtf8 } from "../utf8";
import { fieldsOf, varintsOf, type Field } from "./protobuf";
import { isType, sizeOf, Type, zeros, type Data, type Tensor } from "./tensor";

const EXTERNAL = 1;

/** The value of an attribute. */
export type Attribute = number | string | readonly number[];

/** One operation of a graph; an input that is left out has the name "". */
export interface Node {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** A graph, its nodes in the order in which they run; `external` names the constants that lie in items.bin. */
export interface Graph {
  readonly opset: number;
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Tensor>;
  readonly external: ReadonlySet<string>;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** Return the graph in a model's bytes; throw Error where they aren't one that can be understood. */
export function readModel(model: Uint8Array, items: Uint8Array): Graph {
  let [graph, opset]: [Uint8Array | null, number] = [null, 0];
  for (const field of fieldsOf(model)) {
    if (field.number === 7) graph = bytesOf(field);
    if (field.number === 8) {
      const version = readOpset(bytesOf(field));
      if (version.domain !== "") throw new Error(`it needs operators of ${version.domain}`);
      opset = version.value;
    }
  }
  if (!graph) throw new Error("it holds no graph");
  return readGraph(graph, opset, items);
}

function readOpset(bytes: Uint8Array): { domain: string; value: number } {
  let [domain, value] = ["", 0];
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) domain = textOf(field);
    if (field.number === 2) value = field.value;
  }
  return { domain, value };
}

function readGraph(bytes: Uint8Array, opset: number, items: Uint8Array): Graph {
  const nodes: Node[] = [];
  const constants = new Map<string, Tensor>();
  const external = new Set<string>();
  const [inputs, outputs]: [string[], string[]] = [[], []];
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) nodes.push(readNode(bytesOf(field)));
    if (field.number === 5) {
      const { name, tensor, isExternal } = readTensor(bytesOf(field), items);
      constants.set(name, tensor);
      if (isExternal) external.add(name);
    }
    if (field.number === 11) inputs.push(readName(bytesOf(field)));
    if (field.number === 12) outputs.push(readName(bytesOf(field)));
  }
  return { opset, nodes, constants, external, inputs, outputs };
}

function readName(bytes: Uint8Array): string {
  for (const field of fieldsOf(bytes)) if (field.number === 1) return textOf(field);
  throw new Error("an input or output has no name");
}

function readNode(bytes: Uint8Array): Node {
  let operator = "";
  const [inputs, outputs]: [string[], string[]] = [[], []];
  const attributes = new Map<string, Attribute>();
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) inputs.push(textOf(field));
    if (field.number === 2) outputs.push(textOf(field));
    if (field.number === 4) operator = textOf(field);
    if (field.number === 5) attributes.set(...readAttribute(bytesOf(field)));
    if (field.number === 7 && textOf(field) !== "") throw new Error(`it needs operators of ${textOf(field)}`);
  }
  return { operator, inputs, outputs, attributes };
}

function readAttribute(bytes: Uint8Array): [string, Attribute] {
  let name = "";
  let value: Attribute | null = null;
  const list: number[] = [];
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) name = textOf(field);
    if (field.number === 2 || field.number === 3) value = field.value;
    if (field.number === 4) value = textOf(field);
    if (field.number === 8) list.push(...varintsOf(field));
  }
  return [name, value ?? list];
}

function readTensor(bytes: Uint8Array, items: Uint8Array): { name: string; tensor: Tensor; isExternal: boolean } {
  const dims: number[] = [];
  const listed: number[] = [];
  const place = new Map<string, string>();
  let [type, name, location]: [number, string, number] = [0, "", 0];
  let raw: Uint8Array | null = null;
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) dims.push(...varintsOf(field).map((size) => size | 0)); // see dimsOf
    if (field.number === 2) type = field.value;
    if (field.number === 4) listed.push(...floatsOf(field));
    if (field.number === 5 || field.number === 7) listed.push(...varintsOf(field));
    if (field.number === 8) name = textOf(field);
    if (field.number === 9) raw = bytesOf(field);
    if (field.number === 13) place.set(...readEntry(bytesOf(field)));
    if (field.number === 14) location = field.value;
  }
  if (!isType(type)) throw new Error(`tensor ${name} has element type ${type}`);
  const isExternal = location === EXTERNAL;
  if (isExternal) raw = externalBytes(place, items);
  const data = raw ? dataOf(type, raw) : Object.assign(zeros(type, [listed.length]).data, listed);
  if (data.length !== sizeOf(dims)) throw new Error(`tensor ${name} has ${data.length} elements, shape ${dims.join()}`);
  return { name, tensor: { type, dims, data }, isExternal };
}

function externalBytes(place: ReadonlyMap<string, string>, items: Uint8Array): Uint8Array {
  const [offset, length] = [Number(place.get("offset") ?? 0), Number(place.get("length"))];
  const isInside = place.get("location") === "items.bin" && offset >= 0 && length >= 0 && offset + length <= items.length;
  if (!isInside) throw new Error("external data lie outside items.bin");
  return items.subarray(offset, offset + length);
}

function readEntry(bytes: Uint8Array): [string, string] {
  let [key, value] = ["", ""];
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) key = textOf(field);
    if (field.number === 2) value = textOf(field);
  }
  return [key, value];
}

function dataOf(type: Type, raw: Uint8Array): Data {
  if (type === Type.uint8 || type === Type.bool) return raw;
  if (type === Type.int8) return new Int8Array(raw.buffer, raw.byteOffset, raw.length);
  if (type === Type.int64) return wholeNumbers(raw);
  const { buffer, byteOffset } = raw.byteOffset % 4 === 0 ? raw : raw.slice();
  const count = raw.length / 4;
  return type === Type.int32 ? new Int32Array(buffer, byteOffset, count) : new Float32Array(buffer, byteOffset, count);
}

function wholeNumbers(raw: Uint8Array): Float64Array {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  const at = (place: number) => view.getInt32(8 * place + 4, true) * 2 ** 32 + view.getUint32(8 * place, true);
  return Float64Array.from({ length: raw.length / 8 }, (_, place) => at(place));
}

function floatsOf(field: Field): number[] {
  if (!field.bytes) return [field.value];
  return Array.from(dataOf(Type.float, field.bytes));
}

function bytesOf(field: Field): Uint8Array {
  if (!field.bytes) throw new Error(`field ${field.number} holds a number`);
  return field.bytes;
}

function textOf(field: Field): string {
  return decodeUtf8(bytesOf(field));
}
