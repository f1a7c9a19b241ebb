/** UTF-8 both ways, strictly, on platforms with and without TextDecoder (mini-programs lack it). */

const decoder = typeof TextDecoder === "function" ? new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }) : null;
const encoder = typeof TextEncoder === "function" ? new TextEncoder() : null;
const PIECE_BYTES = 4096;
const LONE_SURROGATE = /[\ud800-\udfff]/u; // with u, a whole pair is one character

/** Return whether a text holds half of a surrogate pair, which has no bytes in UTF-8. */
export function hasLoneSurrogate(text: string): boolean {
  return LONE_SURROGATE.test(text);
}

/** Return the text of UTF-8 bytes; throw where they are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string {
  return decoder ? decoder.decode(bytes) : decodeByHand(bytes);
}

/** Return the UTF-8 bytes of a text without lone surrogates. */
export function encodeUtf8(text: string): Uint8Array {
  return encoder ? encoder.encode(text) : encodeByHand(text);
}

/** {@link decodeUtf8} without the platform's: percent signs stand for the bytes, piece by piece, each of whole characters. */
export function decodeByHand(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    let end = at + PIECE_BYTES;
    while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) end++;
    const escaped = Array.from(bytes.subarray(at, end), (byte) => `%${byte.toString(16).padStart(2, "0")}`);
    text += decodeURIComponent(escaped.join(""));
    at = end;
  }
  return text;
}

/** {@link encodeUtf8} without the platform's. */
export function encodeByHand(text: string): Uint8Array {
  const bytes = encodeURIComponent(text).match(/%..|[^]/g) ?? [];
  return Uint8Array.from(bytes, (byte) => (byte[1] ? parseInt(byte.slice(1), 16) : byte.charCodeAt(0)));
}
