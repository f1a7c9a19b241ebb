/** `@xrec/sdk` in Node: onnxruntime-node, bundles from the disk or the web, profiles in a file. */

import { fileURLToPath } from "node:url";

import { platformCrypto } from "./crypto";
import { diskSource } from "./folder";
import { load, type Host, type LoadOptions } from "./load";
import { ortSessions, type Ort } from "./ort";
import { FileProfile } from "./profileFile";
import { Recommender as Loaded } from "./recommender";
import { webSource } from "./web";

export { FileProfile } from "./profileFile";
export * from "./public";

/** What stands for a bundle: the path of its folder or zip, the bytes of the zip, or a URL of either (http, https). */
export type BundleLocation = string | URL | Uint8Array | ArrayBuffer;

const host: Host<BundleLocation> = {
  crypto: platformCrypto(),
  createSession: ortSessions(async () => await import("onnxruntime-node") as Ort, () => undefined),
  async openSource(bundle) {
    if (bundle instanceof URL && bundle.protocol === "file:") return diskSource(fileURLToPath(bundle));
    const isPath = typeof bundle === "string" && !/^https?:/.test(bundle);
    return isPath ? diskSource(bundle) : webSource(bundle);
  },
  openProfile: (path, maxEvents) => FileProfile.open(path, maxEvents),
};

/** Recommend to one user from one bundle. */
export type Recommender = Loaded;
export const Recommender = {
  /** Open a bundle, checked, and return its Recommender; throws XrecError with a code of docs/errors.md. */
  load: (bundle: BundleLocation, options: LoadOptions = {}): Promise<Recommender> => load(host, bundle, options),
};
