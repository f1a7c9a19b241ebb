/** SHA-256 and Ed25519: WebCrypto's where the platform has them, pure JavaScript where it has not. */

/** The two primitives in pure JavaScript. */
export interface PureCrypto {
  sha256(bytes: Uint8Array): Uint8Array;
  verifyEd25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
}

/** The primitives that opening a bundle needs. */
export interface Crypto {
  sha256(bytes: Uint8Array): Promise<Uint8Array>;
  verifyEd25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): Promise<boolean>;
}

/**
 * Return WebCrypto with a fallback, which is loaded where it is first needed: over plain HTTP and in mini-programs there
 * is no WebCrypto, and older browsers have it without Ed25519.
 */
export function platformCrypto(loadPure = async (): Promise<PureCrypto> => (await import("./pureCrypto")).pureCrypto): Crypto {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  return {
    async sha256(bytes) {
      if (!subtle) return (await loadPure()).sha256(bytes);
      return new Uint8Array(await subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
    },
    async verifyEd25519(signature, message, publicKey) {
      const key = subtle && (await importKey(subtle, publicKey));
      if (!subtle || !key) return (await loadPure()).verifyEd25519(signature, message, publicKey);
      const [signed, bytes] = [signature as Uint8Array<ArrayBuffer>, message as Uint8Array<ArrayBuffer>];
      return subtle.verify("Ed25519", key, signed, bytes);
    },
  };
}

async function importKey(subtle: SubtleCrypto, publicKey: Uint8Array): Promise<CryptoKey | null> {
  try {
    return await subtle.importKey("raw", publicKey as Uint8Array<ArrayBuffer>, "Ed25519", false, ["verify"]);
  } catch {
    return null; // No Ed25519 here, or no such point: the fallback decides which.
  }
}
