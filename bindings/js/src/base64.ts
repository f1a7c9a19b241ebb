/** Base64 in its one spelling: padded, no spaces, no spare bits. */

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Return the bytes of a base64 text, or null where it is not the one spelling of any bytes. */
export function decodeBase64(text: string): Uint8Array | null {
  const letters = [...text.replace(/={1,2}$/, "")];
  const bits = letters.map((letter) => ALPHABET.indexOf(letter).toString(2).padStart(6, "0")).join("");
  const isRight = text.length % 4 === 0 && /^([01]{8})*0{0,4}$/.test(bits); // -1, for no letter, has a sign
  return isRight ? Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => parseInt(byte, 2)) : null;
}
