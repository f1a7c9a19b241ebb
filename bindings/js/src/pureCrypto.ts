/** SHA-256 and Ed25519 in pure JavaScript, by the audited noble libraries. */

import { hashes, verify } from "@noble/ed25519";
import { sha256, sha512 } from "@noble/hashes/sha2.js";

import type { PureCrypto } from "./crypto";

/** The primitives without WebCrypto; signatures are checked as in RFC 8032, strictly. */
export const pureCrypto: PureCrypto = {
  sha256: (bytes) => sha256(bytes),
  verifyEd25519(signature, message, publicKey) {
    hashes.sha512 = sha512;
    try {
      return verify(signature, message, publicKey, { zip215: false });
    } catch {
      return false;
    }
  },
};
