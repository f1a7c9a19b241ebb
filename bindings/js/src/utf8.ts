/** UTF-8 both ways, strictly, on platforms with and without TextDecoder (mini-programs lack it). */

const decoder = typeof TextDecoder === "function" ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }) : null;
const encoder = typeof TextEncoder === "function" ? new TextEncoder() : null;
const LONE_SURROGATE = /[\ud800-\udfff]/u; // with u, a whole pair is one character

/** Return whether a text holds half of a surrogate pair, which has no bytes in UTF-8. */
export function hasLoneSurrogate(text: string): boolean {
  return LONE_SURROGATE.test(text);
}

/** Return the text of UTF-8 bytes; throw TypeError where they are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string {
  return decoder ? decoder.decode(bytes) : decodeByHand(bytes);
}

/** Return the UTF-8 bytes of a text without lone surrogates. */
export function encodeUtf8(text: string): Uint8Array {
  return encoder ? encoder.encode(text) : encodeByHand(text);
}

/** {@link decodeUtf8} without the platform: overlong forms, surrogates and cut characters are refused. */
export function decodeByHand(bytes: Uint8Array): string {
  const parts: string[] = [];
  let part = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length === 0 || at + length > bytes.length) throw new TypeError("the bytes are not UTF-8");
    let point = length === 1 ? first : first & (0x7f >> length);
    for (let place = at + 1; place < at + length; place++) {
      if ((bytes[place] & 0xc0) !== 0x80) throw new TypeError("the bytes are not UTF-8");
      point = (point << 6) | (bytes[place] & 0x3f);
    }
    const least = length === 3 ? 0x800 : length === 4 ? 0x10000 : 0;
    if (point < least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
      throw new TypeError("the bytes are not UTF-8");
    }
    part += String.fromCodePoint(point);
    at += length;
    if (part.length > 4096) {
      parts.push(part);
      part = "";
    }
  }
  return parts.join("") + part;
}

/** {@link encodeUtf8} without the platform. */
export function encodeByHand(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const letter of text) {
    const point = letter.codePointAt(0)!;
    if (point < 0x80) bytes.push(point);
    else if (point < 0x800) bytes.push(0xc0 | (point >> 6), 0x80 | (point & 0x3f));
    else if (point < 0x10000) bytes.push(0xe0 | (point >> 12), 0x80 | ((point >> 6) & 0x3f), 0x80 | (point & 0x3f));
    else {
      bytes.push(0xf0 | (point >> 18), 0x80 | ((point >> 12) & 0x3f), 0x80 | ((point >> 6) & 0x3f));
      bytes.push(0x80 | (point & 0x3f));
    }
  }
  return Uint8Array.from(bytes);
}
