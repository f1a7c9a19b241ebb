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

/** A message's fields by their numbers. */
type Message = ReadonlyMap<number, readonly Field[]>;

/** Return the graph in a model's bytes; throw Error where they aren't one that can be understood. */
export function readModel(model: Uint8Array, items: Uint8Array): Graph {
  const message = read(model);
  if (message.has(20) || message.has(25)) throw new Error("it holds functions or training steps");
  const versions = allOf(message, 8).map(readInner);
  versions.forEach((version) => demandStandard(textOf(version, 1)));
  return readGraph(readInner(oneOf(message, 7)), versions.length ? numberOf(versions[0], 2) : 0, items);
}

function demandStandard(domain: string): void {
  if (domain !== "") throw new Error(`it needs operators of ${domain}`);
}

function readGraph(message: Message, opset: number, items: Uint8Array): Graph {
  const constants = new Map<string, Tensor>();
  const external = new Set<string>();
  for (const field of allOf(message, 5)) {
    const tensor = readInner(field);
    const [name, isExternal] = [textOf(tensor, 8), numberOf(tensor, 14) === EXTERNAL];
    constants.set(name, readTensor(tensor, name, isExternal ? externalBytes(tensor, items) : null));
    if (isExternal) external.add(name);
  }
  const names = (number: number) => allOf(message, number).map((field) => textOf(readInner(field), 1));
  return { opset, nodes: allOf(message, 1).map(readNode), constants, external, inputs: names(11), outputs: names(12) };
}

function readNode(field: Field): Node {
  const node = readInner(field);
  demandStandard(textOf(node, 7));
  const attributes = new Map(allOf(node, 5).map(readAttribute));
  const texts = (number: number) => allOf(node, number).map((one) => decodeUtf8(bytesOf(one)));
  return { operator: textOf(node, 4), inputs: texts(1), outputs: texts(2), attributes };
}

function readAttribute(field: Field): [string, Attribute] {
  const attribute = readInner(field);
  const [number] = [...allOf(attribute, 2), ...allOf(attribute, 3)];
  const value = number ? number.value : attribute.has(4) ? textOf(attribute, 4) : allOf(attribute, 8).flatMap(varintsOf);
  return [textOf(attribute, 1), value];
}

function readTensor(message: Message, name: string, external: Uint8Array | null): Tensor {
  const dims = allOf(message, 1).flatMap(varintsOf).map((size) => size | 0); // see dimsOf
  const type = numberOf(message, 2);
  if (!isType(type)) throw new Error(`tensor ${name} has element type ${type}`);
  const raw = external ?? (message.has(9) ? bytesOf(oneOf(message, 9)) : null);
  const listed = [...allOf(message, 4).flatMap(floatsOf), ...[5, 7].flatMap((number) => allOf(message, number).flatMap(varintsOf))];
  const data = raw ? dataOf(type, raw) : Object.assign(zeros(type, [listed.length]).data, listed);
  if (data.length !== sizeOf(dims)) throw new Error(`tensor ${name} has another shape`);
  return { type, dims, data };
}

function externalBytes(message: Message, items: Uint8Array): Uint8Array {
  const place = new Map(allOf(message, 13).map(readInner).map((entry) => [textOf(entry, 1), textOf(entry, 2)]));
  const [offset, length] = [Number(place.get("offset") ?? 0), Number(place.get("length"))];
  const isInside = place.get("location") === "items.bin" && offset >= 0 && length >= 0 && offset + length <= items.length;
  if (!isInside) throw new Error("it reads outside items.bin");
  return items.subarray(offset, offset + length);
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

function read(bytes: Uint8Array): Message {
  const message = new Map<number, Field[]>();
  for (const field of fieldsOf(bytes)) {
    const before = message.get(field.number);
    if (before) before.push(field);
    else message.set(field.number, [field]);
  }
  return message;
}

function readInner(field: Field | undefined): Message {
  return read(bytesOf(field));
}

function allOf(message: Message, number: number): readonly Field[] {
  return message.get(number) ?? [];
}

/** The last field of a number, which is the one that counts, where only one is meant. */
function oneOf(message: Message, number: number): Field | undefined {
  return allOf(message, number).at(-1);
}

function numberOf(message: Message, number: number): number {
  return oneOf(message, number)?.value ?? 0;
}

function textOf(message: Message, number: number): string {
  return message.has(number) ? decodeUtf8(bytesOf(oneOf(message, number))) : "";
}

function bytesOf(field: Field | undefined): Uint8Array {
  if (!field?.bytes) throw new Error("a field is missing");
  return field.bytes;
}
