/** `@xrec/sdk` in browsers: onnxruntime-web's WebAssembly, bundles over HTTP, profiles in IndexedDB. */

import { platformCrypto } from "./crypto";
import { UsageError } from "./errors";
import { load, type Host, type LoadOptions } from "./load";
import { ortSessions, type Ort } from "./ort";
import { IndexedDbProfile } from "./profileIndexedDb";
import { Recommender as Loaded } from "./recommender";
import { webSource } from "./web";

export { IndexedDbProfile } from "./profileIndexedDb";
export * from "./public";

/** What stands for a bundle: the bytes of its zip, or the URL of the zip, or of its folder, which ends with "/". */
export type BundleLocation = string | URL | Uint8Array | ArrayBuffer;

/** What may run the graphs; what WebGPU can't run of them runs in WebAssembly. */
export type Provider = "wasm" | "webgpu";

/** What the app decides when it loads a bundle in a browser. */
export interface BrowserLoadOptions extends LoadOptions {
  /**
   * The first one that is here runs the graphs; WebAssembly where it is left out. `["webgpu", "wasm"]` falls back where
   * there is no adapter; `["webgpu"]` throws UsageError `usage.providers` there.
   */
  readonly providers?: readonly Provider[];
}

type WebOrt = Ort & { readonly env: { readonly wasm: { numThreads?: number } } };

function setThreads(ort: Ort, threads: number): void {
  (ort as WebOrt).env.wasm.numThreads = threads;
}

const host: Omit<Host<BundleLocation>, "createSession"> = {
  crypto: platformCrypto(),
  openSource: webSource,
  openProfile: (name, maxEvents) => IndexedDbProfile.open(name, maxEvents),
};

async function sessionsOf(providers: readonly Provider[]): Promise<Host<BundleLocation>["createSession"]> {
  for (const provider of providers) {
    if (provider === "wasm") return ortSessions(async () => (await import("onnxruntime-web/wasm")) as Ort, setThreads);
    const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<object | null> } };
    if (provider === "webgpu" && (await gpu?.requestAdapter())) {
      return ortSessions(async () => (await import("onnxruntime-web/webgpu")) as Ort, setThreads, ["webgpu", "cpu"]);
    }
  }
  const message = `of the providers ${JSON.stringify(providers)} none is here; add "wasm" to fall back`;
  throw new UsageError("usage.providers", message);
}

/** Recommend to one user from one bundle. */
export type Recommender = Loaded;
export const Recommender = {
  /** Open a bundle, checked, and return its Recommender; throws XrecError with a code of docs/errors.md. */
  load: async (bundle: BundleLocation, options: BrowserLoadOptions = {}): Promise<Recommender> =>
    load({ ...host, createSession: await sessionsOf(options.providers ?? ["wasm"]) }, bundle, options),
};
