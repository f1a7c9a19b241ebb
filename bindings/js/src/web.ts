/** Read a bundle over HTTP: one zip, or the folder at a URL that ends with "/", file by file. */

import { ZipSource } from "./archive";
import { BundleDamaged } from "./errors";
import { refuseLength, type Source } from "./source";

const MAX_ZIP_BYTES = 2 ** 31;

/** Return the source at a URL, or of the bytes of a zip. */
export async function webSource(bundle: string | URL | Uint8Array | ArrayBuffer): Promise<Source> {
  if (bundle instanceof Uint8Array) return new ZipSource(bundle);
  if (bundle instanceof ArrayBuffer) return new ZipSource(new Uint8Array(bundle));
  const url = String(bundle);
  if (url.endsWith("/")) return new WebFolder(url);
  return new ZipSource(await fetchBytes(url, "the bundle", MAX_ZIP_BYTES, "bundle.not_found"));
}

class WebFolder implements Source {
  constructor(private readonly url: string) {}

  async names(): Promise<null> {
    return null;
  }

  read(name: string, maxBytes: number): Promise<Uint8Array> {
    return fetchBytes(this.url + name, name, maxBytes, "bundle.file_missing");
  }
}

async function fetchBytes(url: string, name: string, maxBytes: number, missing: string): Promise<Uint8Array> {
  try {
    const response = await fetch(url);
    if (response.status === 404 || response.status === 410) {
      throw new BundleDamaged(missing, `there is no ${name} at ${url}`);
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await readBounded(response, name, maxBytes);
  } catch (cause) {
    if (cause instanceof BundleDamaged) throw cause;
    throw new BundleDamaged("bundle.unreadable", `${name} can't be fetched: ${String(cause)}`, { cause });
  }
}

async function readBounded(response: Response, name: string, maxBytes: number): Promise<Uint8Array> {
  if (!response.body) return new Uint8Array(await response.arrayBuffer());
  const reader = response.body.getReader();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    length += next.value.length;
    if (length > maxBytes) await reader.cancel();
    refuseLength(name, length, maxBytes);
    parts.push(next.value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
