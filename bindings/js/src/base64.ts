/** Base64 in its one spelling: padded, no spaces, no spare bits. */

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Return the bytes of a base64 text, or null where it is not the one spelling of any bytes. */
export function decodeBase64(text: string): Uint8Array | null {
  const body = text.replace(/={1,2}$/, "");
  if (text.length % 4 !== 0) return null;
  const bytes = new Uint8Array(Math.floor((body.length * 3) / 4));
  let [bits, count, at] = [0, 0, 0];
  for (const letter of body) {
    const value = ALPHABET.indexOf(letter);
    if (value < 0) return null;
    bits = ((bits << 6) | value) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes[at++] = bits >> count;
    }
  }
  return (bits & ((1 << count) - 1)) === 0 ? bytes : null;
}
