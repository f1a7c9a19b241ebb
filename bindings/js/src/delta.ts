/**
 * `@xrec/sdk/delta`: make the next release of a bundle from the one at hand and a small signed file, as xrec_sdk/delta.py does.
 *
 * The new manifest's signature is checked before anything else is read, every file against the signed manifest, and the
 * finished zip as any bundle.
 */

import { ZipSource } from "./archive";
import { openBundle, readChecked, type Checked } from "./bundle";
import { crc32 } from "./crc32";
import { platformCrypto } from "./crypto";
import { BundleDamaged, BundleUnsupported, BundleUntrusted, UsageError } from "./errors";
import { MAX_MANIFEST_BYTES, parseManifest, type Manifest } from "./manifest";
import { checkTrustedKeys, MAX_SIGNATURE_FILE_BYTES, verifySignature } from "./signature";
import { decodeUtf8, encodeUtf8 } from "./utf8";
import { webSource } from "./web";

const MAGIC = "XRECDLT1";
const [HEADER_BYTES, MAX_PLAN_BYTES] = [16, 2 ** 26];
/** What a step `[kind, place, bytes]` appends: the next new bytes, bytes of the old file, or both added up, modulo 256. */
const [NEW, OLD, SUM] = [0, 1, 2];
const [END, CENTRAL, LOCAL] = [0x06054b50, 0x02014b50, 0x04034b50];

type Bytes = Uint8Array<ArrayBuffer>;
type Step = readonly [kind: number, place: number, bytes: number];

/** What an app demands of the new bundle. */
export interface DeltaOptions {
  /** The public keys that the app pins, at least one: a delta is always signed. */
  readonly trustedKeys: readonly string[];
  /** The newest release that this app has loaded before. */
  readonly minimumRelease?: number;
}

/**
 * Return the zip of the next bundle, for `Recommender.load` and to be kept in the place of `base`: a bundle's zip, or the URL
 * of its zip or folder. Throws as `load` does, for the old bundle, the delta and the new bundle, and besides BundleDamaged
 * `bundle.delta_malformed` or `bundle.delta_base` (the delta is of another bundle), BundleUnsupported
 * `bundle.delta_unavailable` where the platform can't unpack (no DecompressionStream).
 */
export async function applyDelta(
  base: string | URL | Uint8Array | ArrayBuffer,
  delta: Uint8Array | ArrayBuffer,
  { trustedKeys, minimumRelease = 0 }: DeltaOptions,
): Promise<Uint8Array> {
  checkTrustedKeys(trustedKeys);
  if (!trustedKeys.length) throw new UsageError("usage.trusted_keys", "pin at least one key; a delta is always signed");
  if (typeof DecompressionStream !== "function") {
    throw new BundleUnsupported("bundle.delta_unavailable", "there is no DecompressionStream; fetch the whole bundle");
  }
  const crypto = platformCrypto();
  const content = delta instanceof Uint8Array ? delta : new Uint8Array(delta);
  const { manifestBytes, signatureBytes, packed } = readHead(content);
  await verifySignature(manifestBytes, signatureBytes, trustedKeys, crypto);
  const manifest = parseManifest(manifestBytes);
  const old = await readChecked(await webSource(base), { trustedKeys }, crypto);
  if (manifest.release < Math.max(minimumRelease, old.manifest.release + 1)) {
    const message = `the delta gives release ${manifest.release}; ${old.manifest.release} is there, ${minimumRelease} was loaded before`;
    throw new BundleUntrusted("bundle.rollback", message);
  }
  const files = rebuilt(manifest, old, await unpacked(manifest, packed), await sha256Of(old.manifestBytes));
  const zip = zipOf([["manifest.json", manifestBytes], ["manifest.sig", signatureBytes], ...files]);
  await openBundle(new ZipSource(zip), { trustedKeys, minimumRelease }, crypto);
  return zip;
}

async function sha256Of(bytes: Uint8Array): Promise<string> {
  return Array.from(await platformCrypto().sha256(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function malformed(message: string): never {
  throw new BundleDamaged("bundle.delta_malformed", message);
}

function readHead(content: Uint8Array) {
  const isDelta = content.length >= HEADER_BYTES && String.fromCharCode(...content.subarray(0, 8)) === MAGIC;
  if (!isDelta) malformed(`the delta does not begin with ${MAGIC}`);
  const view = new DataView(content.buffer, content.byteOffset);
  const [manifest, signature] = [view.getUint32(8, true), view.getUint32(12, true)];
  if (manifest > MAX_MANIFEST_BYTES || signature > MAX_SIGNATURE_FILE_BYTES) {
    malformed(`the delta says a manifest of ${manifest} and a signature of ${signature} bytes`);
  }
  const [signatureAt, packedAt] = [HEADER_BYTES + manifest, HEADER_BYTES + manifest + signature];
  const part = (from: number, to?: number) => content.slice(from, to);
  return { manifestBytes: part(HEADER_BYTES, signatureAt), signatureBytes: part(signatureAt, packedAt), packed: part(packedAt) };
}

/** Return the plan and the new bytes. They can't be more than the files that the signed manifest names, which bounds them. */
async function unpacked(manifest: Manifest, packed: Bytes): Promise<{ plan: Record<string, unknown>; literal: Uint8Array }> {
  const most = [...manifest.files.values()].reduce((sum, { bytes }) => sum + bytes, 4 + MAX_PLAN_BYTES);
  try {
    const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
    const parts: Bytes[] = [];
    let length = 0;
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      length += next.value.length;
      if (length > most) {
        await reader.cancel();
        throw new Error("more than its bundle");
      }
      parts.push(next.value as Bytes);
    }
    const whole = new Uint8Array(await new Blob(parts).arrayBuffer());
    // Node's stream says nothing of what stands after the end; a zlib stream ends with this sum.
    const sum = new DataView(packed.buffer, packed.byteOffset + packed.length - 4).getUint32(0);
    if (sum !== adler32(whole)) throw new Error("more or less than it says");
    const size = new DataView(whole.buffer).getUint32(0, true);
    const plan: unknown = JSON.parse(decodeUtf8(whole.subarray(4, 4 + size)));
    if (!isObject(plan)) throw new Error("a plan that is no object");
    return { plan, literal: whole.subarray(4 + size) };
  } catch (cause) {
    throw new BundleDamaged("bundle.delta_malformed", `the delta can't be unpacked: ${String(cause)}`, { cause });
  }
}

/** Return the checksum of RFC 1950. */
function adler32(bytes: Uint8Array): number {
  let [low, high] = [1, 0];
  for (let at = 0; at < bytes.length; at++) {
    low = (low + bytes[at]) % 65521;
    high = (high + low) % 65521;
  }
  return ((high << 16) | low) >>> 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return each file of the new bundle as the plan makes it. */
function rebuilt(
  manifest: Manifest,
  old: Checked,
  { plan, literal }: Awaited<ReturnType<typeof unpacked>>,
  base: string,
): [string, Uint8Array][] {
  if (plan.base !== base) {
    throw new BundleDamaged("bundle.delta_base", `the delta is not of release ${old.manifest.release} that is at hand`);
  }
  const steps = isObject(plan.files) ? plan.files : {};
  const names = [...manifest.files.keys()];
  if (Object.keys(steps).length !== names.length || !names.every((name) => Object.hasOwn(steps, name))) {
    malformed("the delta does not make the files that its manifest names");
  }
  let at = 0;
  return [...manifest.files].map(([name, { bytes }]) => {
    const made = follow(checkedSteps(steps[name]), old.contents.get(name) ?? new Uint8Array(), literal.subarray(at), bytes);
    if (made.content.length !== bytes) {
      throw new BundleDamaged("bundle.hash_mismatch", `the delta does not make ${name} as its manifest names it`);
    }
    at += made.used;
    return [name, made.content];
  });
}

function checkedSteps(steps: unknown): readonly Step[] {
  const isStep = (step: unknown): step is Step => {
    const isWhole = Array.isArray(step) && step.length === 3 && step.every((one) => Number.isInteger(one) && one >= 0);
    return isWhole && step[0] <= SUM;
  };
  return Array.isArray(steps) && steps.every(isStep) ? steps : malformed("a step of the delta is not [kind, place, bytes]");
}

/** Return a file of at most so many bytes made by its steps, and how many of the new bytes it took. */
function follow(steps: readonly Step[], old: Uint8Array, literal: Uint8Array, bytes: number): { content: Uint8Array; used: number } {
  const content = new Uint8Array(bytes);
  let [length, used] = [0, 0];
  for (const [kind, place, size] of steps) {
    if (length + size > bytes) malformed("the delta makes a file too long");
    if ((kind !== OLD && used + size > literal.length) || (kind !== NEW && place + size > old.length)) {
      malformed("a step of the delta reaches past the end of what there is");
    }
    const target = content.subarray(length, length + size);
    target.set(kind === OLD ? old.subarray(place, place + size) : literal.subarray(used, used + size));
    if (kind === SUM) for (let byte = 0; byte < size; byte++) target[byte] += old[place + byte];
    length += size;
    used += kind === OLD ? 0 : size;
  }
  return { content: content.subarray(0, length), used };
}

/** Return a zip of these files, stored, in the order in which they are given. */
function zipOf(files: readonly (readonly [name: string, content: Uint8Array])[]): Bytes {
  const [parts, directory]: [Uint8Array[], Uint8Array[]] = [[], []];
  let at = 0;
  for (const [name, content] of files) {
    const path = encodeUtf8(name);
    const fields = [[2, 20], [2, 0x800], [2, 0], [4, 0x210000], [4, crc32(content)], [4, content.length], [4, content.length], [2, path.length], [2, 0]] as const;
    const head = packed([[4, LOCAL], ...fields]);
    directory.push(packed([[4, CENTRAL], [2, 20], ...fields, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), path);
    parts.push(head, path, content);
    at += head.length + path.length + content.length;
  }
  const bytes = directory.reduce((sum, { length }) => sum + length, 0);
  const end = packed([[4, END], [4, 0], [2, files.length], [2, files.length], [4, bytes], [4, at], [2, 0]]);
  const zip = new Uint8Array(at + bytes + end.length);
  let place = 0;
  for (const part of [...parts, ...directory, end]) {
    zip.set(part, place);
    place += part.length;
  }
  return zip;
}

/** Return numbers of 2 or 4 bytes, the least byte first. */
function packed(fields: readonly (readonly [bytes: 2 | 4, value: number])[]): Uint8Array {
  return Uint8Array.from(fields.flatMap(([bytes, value]) => Array.from({ length: bytes }, (_, place) => (value >>> (8 * place)) & 0xff)));
}
