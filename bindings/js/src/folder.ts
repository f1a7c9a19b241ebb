/** Read a bundle from the disk (Node): a folder, whose links and devices are refused, or one zip. */

import { constants } from "node:fs";
import { lstat, open, readdir } from "node:fs/promises";
import { join } from "node:path";

import { ZipSource } from "./archive";
import { BundleDamaged } from "./errors";
import { refuseLength, type Source } from "./source";

/** Return the source at a path. */
export async function diskSource(path: string): Promise<Source> {
  const status = await lstat(path).catch((cause: unknown) => {
    throw new BundleDamaged("bundle.not_found", `there is no bundle at ${JSON.stringify(path)}`, { cause });
  });
  if (status.isDirectory()) return new FolderSource(path);
  if (status.isFile()) return new ZipSource(await readPlain(path, "the zip", Infinity));
  const message = "the bundle is neither a folder nor a zip file (links are not followed)";
  throw new BundleDamaged("bundle.not_plain", message);
}

class FolderSource implements Source {
  constructor(private readonly folder: string) {}

  async names(): Promise<ReadonlySet<string>> {
    const entries = await readdir(this.folder, { withFileTypes: true }).catch((cause: unknown) => {
      throw new BundleDamaged("bundle.unreadable", "the bundle's folder can't be read", { cause });
    });
    const other = entries.find((entry) => !entry.isFile());
    if (other) throw new BundleDamaged("bundle.not_plain", `${JSON.stringify(other.name)} in the bundle is not a plain file`);
    return new Set(entries.map((entry) => entry.name));
  }

  read(name: string, maxBytes: number): Promise<Uint8Array> {
    return readPlain(join(this.folder, name), name, maxBytes);
  }
}

async function readPlain(path: string, name: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const file = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
    try {
      const status = await file.stat();
      if (!status.isFile()) throw new BundleDamaged("bundle.not_plain", `${name} is not a plain file`);
      refuseLength(name, status.size, maxBytes);
      // A buffer of its own size: what the file has grown by since is not read, and the checks see a changed file.
      const bytes = new Uint8Array(status.size);
      let at = 0;
      while (at < bytes.length) {
        const { bytesRead } = await file.read(bytes, at, bytes.length - at, at);
        if (bytesRead === 0) return bytes.subarray(0, at);
        at += bytesRead;
      }
      return bytes;
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof BundleDamaged) throw cause;
    throw new BundleDamaged("bundle.unreadable", `${name} can't be read`, { cause });
  }
}
