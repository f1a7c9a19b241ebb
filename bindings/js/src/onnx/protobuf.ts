/** Read the wire format of Protocol Buffers, every length checked (protobuf.dev, "Encoding"). */

/** A field: its number, and its value as a number, or as bytes. */
export interface Field {
  readonly number: number;
  readonly value: number;
  readonly bytes: Uint8Array | null;
}

/** Return the fields of a message in order; throw where the bytes are not one. */
export function* fieldsOf(message: Uint8Array): Generator<Field> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let at = 0;
  while (at < message.length) {
    const tag = readVarint(message, at);
    const [number, wire] = [Math.floor(tag.value / 8), tag.value % 8];
    at = tag.next;
    if (wire === 0) {
      const { value, next } = readVarint(message, at);
      at = next;
      yield { number, value, bytes: null };
    } else if (wire === 2) {
      const length = readVarint(message, at);
      const end = length.next + length.value;
      if (length.value < 0 || end > message.length) throw new Error("a message is cut");
      yield { number, value: 0, bytes: message.subarray(length.next, end) };
      at = end;
    } else if (wire === 5 || wire === 1) {
      const end = at + (wire === 5 ? 4 : 8);
      if (end > message.length) throw new Error("a message is cut");
      yield { number, value: wire === 5 ? view.getFloat32(at, true) : view.getFloat64(at, true), bytes: null };
      at = end;
    } else {
      throw new Error(`wire type ${wire}`);
    }
  }
}

/** Return the whole numbers of a repeated field, which may come one by one or packed. */
export function varintsOf(field: Field): number[] {
  if (!field.bytes) return [field.value];
  const values: number[] = [];
  for (let at = 0; at < field.bytes.length; ) {
    const { value, next } = readVarint(field.bytes, at);
    values.push(value);
    at = next;
  }
  return values;
}

/** An int64, which is exact to 2^53 either way; one below zero takes ten bytes, the last of which is 1. */
function readVarint(bytes: Uint8Array, from: number): { value: number; next: number } {
  let [value, complement, scale] = [0, 0, 1];
  for (let at = from; at < bytes.length && at < from + 10; at++, scale *= 128) {
    const bits = bytes[at] & 0x7f;
    if (scale === 2 ** 63 && bytes[at] === 1) return { value: -complement - 1, next: at + 1 };
    value += bits * scale;
    complement += (0x7f - bits) * scale;
    if (bytes[at] < 0x80) return { value, next: at + 1 };
  }
  throw new Error("a message is cut");
}
