/** `@xrec/sdk/core`: xrec in pure JavaScript, without WebAssembly and without eval: strict CSPs, mini-programs, jitless. */

import { platformCrypto } from "./crypto";
import { ProfileError } from "./errors";
import { load, type Host, type LoadOptions } from "./load";
import { createCoreSession } from "./onnx/engine";
import { Recommender as Loaded } from "./recommender";
import { webSource } from "./web";

export * from "./public";

/** What stands for a bundle: the bytes of its zip, or the URL of the zip, or of its folder, which ends with "/". */
export type BundleLocation = string | URL | Uint8Array | ArrayBuffer;

const host: Host<BundleLocation> = {
  crypto: platformCrypto(),
  createSession: createCoreSession,
  openSource: webSource,
  async openProfile() {
    throw new ProfileError("profile.unavailable", "pass core a ProfileStore");
  },
};

/** Recommend to one user from one bundle. */
export type Recommender = Loaded;
export const Recommender = {
  /** Open a bundle, checked, and return its Recommender; throws XrecError with a code of docs/errors.md. */
  load: (bundle: BundleLocation, options: LoadOptions = {}): Promise<Recommender> => load(host, bundle, options),
};
