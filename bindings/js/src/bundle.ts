/** Open a bundle without trusting it: nothing of it is used before its signature, names, sizes and hashes have passed. */

import { Catalog } from "./catalog";
import type { Crypto } from "./crypto";
import { BundleDamaged, BundleUntrusted, UsageError } from "./errors";
import { IdTable } from "./idTable";
import {
  BLOCK_ITEMS,
  MAX_MANIFEST_BYTES,
  blockCount,
  parseManifest,
  type FileRecord,
  type Manifest,
  type Section,
} from "./manifest";
import { checkTrustedKeys, MAX_SIGNATURE_FILE_BYTES, verifySignature } from "./signature";
import type { Source } from "./source";
import { decodeUtf8 } from "./utf8";

const MANIFEST = "manifest.json";
const SIGNATURE = "manifest.sig";

/** What the app demands of a bundle. */
export interface TrustOptions {
  /** The public keys that the app pins, each `ed25519:<base64 of 32 bytes>`. */
  readonly trustedKeys?: readonly string[];
  /** Admit a bundle that has no signature; one that has a signature still needs a pinned key, if any key is pinned. */
  readonly allowUnsigned?: boolean;
  /** The newest release that this app has loaded before; older ones are refused. */
  readonly minimumRelease?: number;
}

/**
 * A bundle that has passed every check. `table` is int8 [nb, d, 128] with `scale` float32 [nb, 128], or float32 [nb, 128, d]
 * with an empty one; `bias` and `prior` are float32 [nb, 128] (a prior that the bundle lacks is zero; a bias of -inf is of an item that is not offered); `features` are float32 [2, 128 nb], none without a ranker; `key` is the pinned key that signed it, null where unsigned ones were allowed.
 */
export interface Bundle {
  readonly manifest: Manifest;
  readonly ids: IdTable;
  readonly catalog: Catalog;
  readonly items: Uint8Array;
  readonly table: Int8Array | Float32Array;
  readonly scale: Float32Array;
  readonly bias: Float32Array;
  readonly prior: Float32Array;
  readonly features: Float32Array;
  readonly encoder: Uint8Array;
  readonly scorer: Uint8Array;
  readonly conformance: Uint8Array;
  readonly card: string;
  readonly key: string | null;
}

/** Throw UsageError unless the app pins keys that are spelt right, or says that it needs none. */
export function checkTrust({ trustedKeys = [], allowUnsigned = false }: TrustOptions): void {
  checkTrustedKeys(trustedKeys);
  if (!trustedKeys.length && !allowUnsigned) {
    throw new UsageError("usage.trusted_keys", "pin a key in trustedKeys, or say allowUnsigned: true");
  }
}

/** The files of a bundle that have passed: signature, names, sizes and hashes; none has been looked into. */
export interface Checked {
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly contents: ReadonlyMap<string, Uint8Array>;
  readonly key: string | null;
}

/** Return the bundle of a source, checked; `trust` has passed checkTrust. Throws BundleError. */
export async function openBundle(source: Source, trust: TrustOptions, crypto: Crypto): Promise<Bundle> {
  return assemble(await readChecked(source, trust, crypto));
}

/** Return the files of a source, checked as {@link openBundle} checks them. */
export async function readChecked(source: Source, trust: TrustOptions, crypto: Crypto): Promise<Checked> {
  const names = await source.names();
  const manifestBytes = await readFirst(source, names, MANIFEST, MAX_MANIFEST_BYTES, "bundle.manifest_size");
  const key = await checkSignature(source, names, manifestBytes, trust, crypto);
  const manifest = parseManifest(manifestBytes);
  const { minimumRelease = 0 } = trust;
  if (manifest.release < minimumRelease) {
    const message = `the bundle is release ${manifest.release}; release ${minimumRelease} was loaded before`;
    throw new BundleUntrusted("bundle.rollback", message);
  }
  if (names) checkNames(names, manifest);
  return { manifest, manifestBytes, contents: await readAll(source, manifest, crypto), key };
}

/** Return the item vector of a row, (d,) float32; zeros for a search, whose row is below 0. */
export function itemVector(bundle: Bundle, row: number): Float32Array {
  const { table, scale } = bundle;
  const { width } = bundle.manifest;
  if (row < 0) return new Float32Array(width);
  if (table instanceof Float32Array) return table.slice(row * width, (row + 1) * width);
  const first = Math.floor(row / BLOCK_ITEMS) * width * BLOCK_ITEMS + (row % BLOCK_ITEMS);
  const vector = new Float32Array(width);
  for (let place = 0; place < width; place++) vector[place] = table[first + place * BLOCK_ITEMS] * scale[row];
  return vector;
}

async function readFirst(
  source: Source,
  names: ReadonlySet<string> | null,
  name: string,
  maxBytes: number,
  code: string,
): Promise<Uint8Array> {
  if (names && !names.has(name)) throw new BundleDamaged("bundle.file_missing", `the bundle has no ${name}`);
  try {
    return await source.read(name, maxBytes);
  } catch (cause) {
    // Nothing has said yet how long manifest.json and manifest.sig are, so that too long has a code of its own.
    if (!(cause instanceof BundleDamaged) || cause.code !== "bundle.size_mismatch") throw cause;
    const Kind = name === MANIFEST ? BundleDamaged : BundleUntrusted;
    throw new Kind(code, `${name} has more than ${maxBytes} bytes`, { cause });
  }
}

async function checkSignature(
  source: Source,
  names: ReadonlySet<string> | null,
  manifestBytes: Uint8Array,
  { trustedKeys = [], allowUnsigned = false }: TrustOptions,
  crypto: Crypto,
): Promise<string | null> {
  if (!trustedKeys.length) return null; // checkTrust has seen that the app allows it
  try {
    const code = "bundle.signature_malformed";
    const bytes = await readFirst(source, names, SIGNATURE, MAX_SIGNATURE_FILE_BYTES, code);
    return await verifySignature(manifestBytes, bytes, trustedKeys, crypto);
  } catch (cause) {
    if (!(cause instanceof BundleDamaged) || cause.code !== "bundle.file_missing") throw cause;
    if (allowUnsigned) return null;
    throw new BundleUntrusted("bundle.unsigned", "the bundle has no manifest.sig", { cause });
  }
}

function checkNames(names: ReadonlySet<string>, manifest: Manifest): void {
  const missing = [...manifest.files.keys()].filter((name) => !names.has(name));
  if (missing.length) throw new BundleDamaged("bundle.file_missing", `the bundle has no ${missing.join(", ")}`);
  const extra = [...names].find((name) => !manifest.files.has(name) && name !== MANIFEST && name !== SIGNATURE);
  if (extra !== undefined) {
    const message = `the bundle holds ${JSON.stringify(extra)}, which its manifest does not name`;
    throw new BundleDamaged("bundle.file_extra", message);
  }
}

async function readAll(source: Source, manifest: Manifest, crypto: Crypto): Promise<Map<string, Uint8Array>> {
  const contents = new Map<string, Uint8Array>();
  for (const [name, record] of manifest.files) {
    const content = await source.read(name, record.bytes);
    await checkFile(name, content, record, crypto);
    contents.set(name, content);
  }
  return contents;
}

async function checkFile(name: string, content: Uint8Array, record: FileRecord, crypto: Crypto): Promise<void> {
  if (content.length !== record.bytes) {
    const message = `${name} has ${content.length} bytes, its manifest says ${record.bytes}`;
    throw new BundleDamaged("bundle.size_mismatch", message);
  }
  const hash = Array.from(await crypto.sha256(content), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hash !== record.sha256) {
    throw new BundleDamaged("bundle.hash_mismatch", `${name} is not the file that its manifest names`);
  }
}

function assemble({ manifest, contents, key }: Checked): Bundle {
  const ids = new IdTable(contents.get("ids.bin")!);
  const catalog = new Catalog(contents.get("catalog.bin")!);
  for (const [name, count] of [["ids.bin", ids.count], ["catalog.bin", catalog.count]] as const) {
    if (count !== manifest.itemCount) {
      throw new BundleDamaged("bundle.count_mismatch", `${name} holds ${count} items, not ${manifest.itemCount}`);
    }
  }
  const items = aligned(contents.get("items.bin")!);
  const floats = ({ offset, bytes }: Section) => new Float32Array(items.buffer, items.byteOffset + offset, bytes / 4);
  const { table, scale, bias, prior, features } = manifest.items;
  const bundle: Bundle = {
    manifest,
    ids,
    catalog,
    items,
    table: scale ? new Int8Array(items.buffer, items.byteOffset + table.offset, table.bytes) : floats(table),
    scale: scale ? floats(scale) : new Float32Array(),
    bias: floats(bias),
    prior: prior ? floats(prior) : new Float32Array(blockCount(manifest) * BLOCK_ITEMS),
    features: features ? floats(features) : new Float32Array(),
    encoder: contents.get("encoder.onnx")!,
    scorer: contents.get("scorer.onnx")!,
    conformance: contents.get("conformance.json")!,
    card: cardText(contents.get("card.md")!),
    key,
  };
  checkItems(bundle);
  return bundle;
}

function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 4 === 0 ? bytes : bytes.slice(); // a member of a zip may begin anywhere
}

function checkItems({ manifest, table, scale, bias, prior, features }: Bundle): void {
  const fail = (what: string): never => {
    throw new BundleDamaged("bundle.items_malformed", `items.bin holds ${what}`);
  };
  for (const [name, values] of Object.entries({ feature: features, prior, "scale or float": scale.length ? scale : table })) {
    if (!values.every(Number.isFinite)) fail(`a ${name} that is not finite`);
  }
  // -inf too for an item that is known from histories and no longer offered.
  const isRight = bias.every((value, row) => (row < manifest.itemCount ? value < Infinity : value === -Infinity));
  if (!isRight) fail("a bias of inf or NaN, or an allowed pad row");
}

function cardText(bytes: Uint8Array): string {
  try {
    return decodeUtf8(bytes);
  } catch (cause) {
    throw new BundleDamaged("bundle.card_malformed", "card.md is not UTF-8", { cause });
  }
}
