/** Check the signature of a manifest against pinned keys: Ed25519 over the manifest's bytes. */

import { decodeBase64 } from "./base64";
import type { Crypto } from "./crypto";
import { BundleUntrusted, UsageError } from "./errors";

export const MAX_SIGNATURE_FILE_BYTES = 1024;
// The one spelling that the exporter writes, so that a signature file cannot be changed unseen.
const SPELLING = /^\{"algorithm":"ed25519","key":"(ed25519:[A-Za-z0-9+/=]+)","signature":"([A-Za-z0-9+/=]+)"\}$/;

/** Return the pinned key that signed these bytes; throw BundleUntrusted where none did. */
export async function verifySignature(
  manifestBytes: Uint8Array,
  signatureBytes: Uint8Array,
  trustedKeys: readonly string[],
  crypto: Crypto,
): Promise<string> {
  const { key, publicKey, signature } = readSignature(signatureBytes);
  if (!trustedKeys.includes(key)) {
    throw new BundleUntrusted("bundle.key_untrusted", `the bundle is signed by ${key}, which is not pinned`);
  }
  if (!(await crypto.verifyEd25519(signature, manifestBytes, publicKey))) {
    throw new BundleUntrusted("bundle.signature_invalid", "manifest.json is not what its signature was made for");
  }
  return key;
}

/** Throw UsageError unless every key is spelt `ed25519:<base64 of 32 bytes>`. */
export function checkTrustedKeys(trustedKeys: readonly string[]): void {
  const isRight = Array.isArray(trustedKeys) && trustedKeys.every((key) => typeof key === "string" && keyBytes(key));
  if (!isRight) {
    const message = `trustedKeys is ${JSON.stringify(trustedKeys)}; expected a list of ed25519:<base64 of 32 bytes>`;
    throw new UsageError("usage.trusted_keys", message);
  }
}

function keyBytes(key: string): Uint8Array | null {
  const bytes = key.startsWith("ed25519:") ? decodeBase64(key.slice(8)) : null;
  return bytes?.length === 32 ? bytes : null;
}

function readSignature(bytes: Uint8Array): { key: string; publicKey: Uint8Array; signature: Uint8Array } {
  const match = bytes.length <= MAX_SIGNATURE_FILE_BYTES ? SPELLING.exec(String.fromCharCode(...bytes)) : null;
  const [publicKey, signature] = match ? [keyBytes(match[1]), decodeBase64(match[2])] : [null, null];
  if (!match || !publicKey || signature?.length !== 64) {
    throw new BundleUntrusted("bundle.signature_malformed", "manifest.sig is not as xrec writes it");
  }
  return { key: match[1], publicKey, signature };
}
