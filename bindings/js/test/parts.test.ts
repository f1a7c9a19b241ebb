/** The small parts against the platform's own: UTF-8, base64, SHA-256, Ed25519, the error function, event ids. */

import { generateKeyPairSync, randomBytes, sign } from "node:crypto";

import { describe, expect, test } from "vitest";

import { decodeBase64 } from "../src/base64";
import { crc32 } from "../src/crc32";
import { platformCrypto } from "../src/crypto";
import { newEventId } from "../src/eventId";
import { erf } from "../src/onnx/elementwise";
import { pureCrypto } from "../src/pureCrypto";
import { decodeByHand, encodeByHand } from "../src/utf8";

/** Numbers from 0 to 1 that are the same every time (Park and Miller). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

test("UTF-8 by hand is what TextDecoder and TextEncoder make of it (seed 1)", () => {
  const random = seeded(1);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const text = "plain, café, 商品, 🛒, \ufeff, \u{10ffff}, \ud7ff\ue000";
  expect(decodeByHand(encodeByHand(text.repeat(500)))).toBe(text.repeat(500));
  expect(encodeByHand(text)).toEqual(new TextEncoder().encode(text));
  const bytes = encodeByHand(text);
  let refused = 0;
  for (let round = 0; round < 5000; round++) {
    const changed = bytes.slice(0, 1 + Math.floor(random() * bytes.length));
    changed[Math.floor(random() * changed.length)] = Math.floor(random() * 256);
    const outcome = (decode: () => string) => {
      try {
        return decode();
      } catch {
        return "refused";
      }
    };
    const expected = outcome(() => decoder.decode(changed));
    expect(outcome(() => decodeByHand(changed))).toBe(expected);
    refused += Number(expected === "refused");
  }
  expect(refused).toBeGreaterThan(1000);
});

test("base64 is accepted in one spelling only", () => {
  for (let length = 0; length < 40; length++) {
    const bytes = randomBytes(length);
    expect(Buffer.from(decodeBase64(bytes.toString("base64"))!)).toEqual(bytes);
  }
  for (const text of ["A", "AA", "AAA", "AB==", "AAB=", "A===", "AA==AA==", "AA=A", "A A=", "AA-_"]) {
    expect(decodeBase64(text)).toBe(null);
  }
});

test("CRC-32 of its check text", () => {
  expect(crc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926);
});

test("the error function is right to float32's step", () => {
  // Values of erf to 10 digits, from Python's math.erf.
  const table = [[0, 0], [0.1, 0.1124629160], [0.3, 0.3286267595], [0.499, 0.5196206560], [0.5, 0.5204998778], [1, 0.8427007929]];
  for (const [x, y] of [...table, [2, 0.9953222650], [3, 0.9999779095], [6, 1]]) {
    expect(Math.abs(erf(x) - y)).toBeLessThan(2e-7);
    expect(erf(-x)).toBeCloseTo(-erf(x), 15);
  }
});

test("event ids ascend, whatever the clock does", () => {
  const ids = Array.from({ length: 5000 }, newEventId);
  expect(ids).toEqual([...new Set(ids)].sort());
});

describe.each([
  ["WebCrypto", platformCrypto(() => Promise.reject(new Error("the fallback must not be needed")))],
  ["the fallback", { sha256: async (bytes: Uint8Array) => pureCrypto.sha256(bytes), verifyEd25519: async (...of: Parameters<typeof pureCrypto.verifyEd25519>) => pureCrypto.verifyEd25519(...of) }],
])("%s", (_, crypto) => {
  test("hashes the text of FIPS 180-4's first example", async () => {
    const hash = await crypto.sha256(new TextEncoder().encode("abc"));
    expect(Buffer.from(hash).toString("hex")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  test("accepts a signature and refuses each change of it, of the message and of the key", async () => {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const key = new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32));
    const message = new TextEncoder().encode("manifest");
    const signature = new Uint8Array(sign(null, message, privateKey));
    expect(await crypto.verifyEd25519(signature, message, key)).toBe(true);
    const flipped = (bytes: Uint8Array, at: number) => bytes.map((byte, place) => (place === at ? byte ^ 1 : byte));
    expect(await crypto.verifyEd25519(flipped(signature, 3), message, key)).toBe(false);
    expect(await crypto.verifyEd25519(flipped(signature, 40), message, key)).toBe(false);
    expect(await crypto.verifyEd25519(signature, flipped(message, 0), key)).toBe(false);
  });

  test("refuses the other signature of the same point, S + L (RFC 8032, section 5.1.7)", async () => {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const key = new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32));
    const message = new TextEncoder().encode("manifest");
    const signature = new Uint8Array(sign(null, message, privateKey));
    const order = Buffer.from("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", "hex");
    let carry = 0;
    for (let place = 0; place < 32; place++) {
      carry += signature[32 + place] + order[place];
      signature[32 + place] = carry & 0xff;
      carry >>= 8;
    }
    expect(await crypto.verifyEd25519(signature, message, key)).toBe(false);
  });
});
