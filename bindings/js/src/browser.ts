/** `@xrec/sdk` in browsers: onnxruntime-web's WebAssembly, bundles over HTTP, profiles in IndexedDB. */

import { platformCrypto } from "./crypto";
import { load, type Host, type LoadOptions } from "./load";
import { ortSessions, type Ort } from "./ort";
import { IndexedDbProfile } from "./profileIndexedDb";
import { Recommender as Loaded } from "./recommender";
import { webSource } from "./web";

export { IndexedDbProfile } from "./profileIndexedDb";
export * from "./public";

/** What stands for a bundle: the bytes of its zip, or the URL of the zip, or of its folder, which ends with "/". */
export type BundleLocation = string | URL | Uint8Array | ArrayBuffer;

type WebOrt = Ort & { readonly env: { readonly wasm: { numThreads?: number } } };

const host: Host<BundleLocation> = {
  crypto: platformCrypto(async () => (await import("./pureCrypto")).pureCrypto),
  createSession: ortSessions(
    async () => (await import("onnxruntime-web/wasm")) as Ort,
    (ort, threads) => {
      (ort as WebOrt).env.wasm.numThreads = threads;
    },
  ),
  openSource: webSource,
  openProfile: (name, maxEvents) => IndexedDbProfile.open(name, maxEvents),
};

/** Recommend to one user from one bundle. */
export type Recommender = Loaded;
export const Recommender = {
  /** Open a bundle, checked, and return its Recommender; throws XrecError with a code of docs/errors.md. */
  load: (bundle: BundleLocation, options: LoadOptions = {}): Promise<Recommender> => load(host, bundle, options),
};
