/** Where the files of a bundle come from: the seam between checking and the disk or the network. */

import { BundleDamaged } from "./errors";

/** The files of a bundle; reading anything but a plain file throws BundleDamaged. */
export interface Source {
  /** Return the name of each file, or null where they can't be listed (a folder over HTTP). */
  names(): Promise<ReadonlySet<string> | null>;
  /** Return the bytes of a file; throw BundleDamaged `bundle.size_mismatch` where it has more. */
  read(name: string, maxBytes: number): Promise<Uint8Array>;
}

/** Throw BundleDamaged for a file that is longer than it may be. */
export function refuseLength(name: string, bytes: number, maxBytes: number): void {
  if (bytes > maxBytes) {
    throw new BundleDamaged("bundle.size_mismatch", `${name} has ${bytes} bytes, at most ${maxBytes} expected`);
  }
}
