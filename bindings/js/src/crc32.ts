/** CRC-32 (the one of zip and zlib): the hash of ids.bin and the check of a zip's members. */

import { encodeUtf8 } from "./utf8";

const TABLE = new Uint32Array(256);

/** Return the CRC-32 of bytes, an unsigned 32-bit number. */
export function crc32(bytes: Uint8Array): number {
  if (TABLE[1] === 0) fillTable();
  let crc = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) crc = TABLE[(crc ^ bytes[at]) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Return the CRC-32 of a text's UTF-8 bytes. */
export function crc32OfText(text: string): number {
  return crc32(encodeUtf8(text));
}

function fillTable(): void {
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
    TABLE[byte] = crc >>> 0;
  }
}
