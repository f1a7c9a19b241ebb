/** Read the manifest of a bundle with every bound checked; whether its bytes may be trusted is decided before. */

import { CONTEXT } from "./context";
import { BundleDamaged, BundleUnsupported } from "./errors";
import type { RepeatRule, Vocabulary } from "./history";
import { decodeUtf8, hasLoneSurrogate } from "./utf8";
import { VERSION } from "./version";

export const BLOCK_ITEMS = 128;
export const MAX_MANIFEST_BYTES = 2 ** 20;
export const MAX_ITEMS = 10_000_000;
const FORMAT_VERSION = 1;
const SECTION_ALIGNMENT = 65_536;
const MAX_FILE_BYTES = 2 ** 33;
const MAX_WIDTH = 4096;
const MAX_HISTORY = 10_000;
const QUERY_BUCKETS = 4096;
const MAX_NAMES = 256;
const MAX_FILES = 64;
const MAX_TIME_MS = 2 ** 53;
/** Numbers of each item that a ranker reads besides its row. */
const RANKER_FEATURES = 2;
const REQUIRED_FILES = [
  "card.md",
  "catalog.bin",
  "conformance.json",
  "encoder.onnx",
  "ids.bin",
  "items.bin",
  "scorer.onnx",
];
const FILE_NAME = /^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$/;
const SHA256 = /^[0-9a-f]{64}$/;
const SDK_VERSION = /^\d{1,6}\.\d{1,6}\.\d{1,6}$/;
const CREATED_AT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)$/;

/** What a file of the bundle must be: its sha256 in hex and its size. */
export interface FileRecord {
  readonly sha256: string;
  readonly bytes: number;
}


/** Where a section lies in items.bin. */
export interface Section {
  readonly offset: number;
  readonly bytes: number;
}

/** What the ranker's probability is of: one of `events` with the item within `horizonMs` from now. */
export interface RankerRecord {
  readonly events: readonly string[];
  readonly horizonMs: number;
}

/** What manifest.json says, checked; docs/bundle-format.md explains each field. */
export interface Manifest {
  readonly name: string;
  readonly release: number;
  readonly createdAt: string;
  readonly minimumSdk: string;
  readonly itemCount: number;
  readonly width: number;
  readonly opset: number;
  readonly irVersion: number;
  readonly operators: readonly string[];
  readonly vocabulary: Vocabulary;
  readonly seenEvents: readonly string[];
  readonly filterSeen: boolean;
  readonly repeat: RepeatRule | null;
  readonly ranker: RankerRecord | null;
  readonly items: { table: Section; scale: Section | null; bias: Section; prior: Section | null; features: Section | null };
  readonly files: ReadonlyMap<string, FileRecord>;
  readonly parity: Readonly<Record<string, unknown>>;
  readonly model: Readonly<Record<string, unknown>>;
}

/** Return the number of blocks of 128 items. */
export function blockCount(manifest: Manifest): number {
  return Math.ceil(manifest.itemCount / BLOCK_ITEMS);
}

/**
 * Return the manifest in these bytes. Throws BundleDamaged where a value is missing or out of bounds, BundleUnsupported
 * for another format version or a newer SDK than this one.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const top = new Fields(loadJson(bytes), "manifest.json");
  if (top.values.format !== "xrec-bundle") fail(`format is ${String(top.values.format)}, expected xrec-bundle`);
  const version = top.integer("format_version", 1, 2 ** 31);
  if (version !== FORMAT_VERSION) {
    const message = `the bundle is of format ${version}; this SDK reads ${FORMAT_VERSION}`;
    throw new BundleUnsupported("bundle.format_version", message);
  }
  const minimumSdk = top.text("minimum_sdk", SDK_VERSION);
  if (isNewer(minimumSdk, VERSION)) {
    throw new BundleUnsupported("bundle.sdk_too_old", `the bundle needs SDK ${minimumSdk}; this one is ${VERSION}`);
  }
  const itemCount = top.integer("item_count", 1, MAX_ITEMS);
  const width = top.integer("width", 1, MAX_WIDTH);
  const files = readFiles(top.child("files"));
  const seen = top.child("seen");
  const ranker = readRanker(top);
  return {
    name: top.text("name"),
    release: top.integer("release", 1, 2 ** 53),
    createdAt: top.text("created_at", CREATED_AT),
    minimumSdk,
    itemCount,
    width,
    opset: top.integer("opset", 1, 1000),
    irVersion: top.integer("ir_version", 1, 1000),
    operators: top.names("operators"),
    vocabulary: readVocabulary(top.child("vocabulary")),
    seenEvents: seen.names("events"),
    filterSeen: seen.boolean("filter"),
    repeat: readRepeat(top),
    ranker,
    items: readItems(top, { itemCount, width, hasRanker: ranker !== null }, files.get("items.bin")!.bytes),
    files,
    parity: top.child("parity").values,
    model: top.child("model").values,
  };
}

function fail(message: string): never {
  throw new BundleDamaged("bundle.manifest_malformed", `manifest.json: ${message}`);
}

function loadJson(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new BundleDamaged("bundle.manifest_size", `manifest.json has more than ${MAX_MANIFEST_BYTES} bytes`);
  }
  let fields: unknown;
  let isDistinct = false;
  try {
    const text = decodeUtf8(bytes);
    fields = JSON.parse(text);
    isDistinct = writtenKeys(text) === heldKeys(fields);
  } catch (cause) {
    fail(`it is not JSON: ${String(cause)}`);
  }
  if (!isObject(fields)) fail("it is not a JSON object");
  if (!isDistinct) fail("a key occurs twice");
  return fields;
}

function writtenKeys(json: string): number {
  let count = 0;
  for (const match of json.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?/g)) if (match[1]) count++;
  return count;
}

function heldKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let count = Array.isArray(value) ? 0 : Object.keys(value).length;
  for (const inner of Object.values(value)) count += heldKeys(inner);
  return count;
}

/** Return whether a value of JSON is an object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNewer(version: string, than: string): boolean {
  const [left, right] = [version, than].map((text) => text.replace(/\d+/g, (part) => part.padStart(6, "0")));
  return left > right; // of like lengths, so that the order of texts is that of numbers
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "" && [...value].length <= 200 && !hasLoneSurrogate(value);
}

/** One JSON object of the manifest, read value by value with bounds. */
class Fields {
  constructor(
    readonly values: Readonly<Record<string, unknown>>,
    private readonly path: string,
  ) {}

  has(key: string): boolean {
    return Object.hasOwn(this.values, key);
  }

  child(key: string): Fields {
    return new Fields(this.read(key, isObject, "an object"), `${this.path}.${key}`);
  }

  integer(key: string, low: number, high: number): number {
    const isRight = (value: unknown): value is number => isInteger(value, low, high);
    return this.read(key, isRight, `an integer from ${low} to ${high}`);
  }

  number(key: string): number {
    const isRight = (value: unknown): value is number => typeof value === "number" && Math.abs(value) <= 1e6;
    return this.read(key, isRight, "a number of at most a million");
  }

  boolean(key: string): boolean {
    return this.read(key, (value) => typeof value === "boolean", "true or false");
  }

  text(key: string, pattern = /./s): string {
    const isRight = (value: unknown): value is string => isName(value) && pattern.test(value);
    return this.read(key, isRight, `a short text that matches ${pattern.source}`);
  }

  names(key: string): readonly string[] {
    const isRight = (value: unknown): value is string[] =>
      Array.isArray(value) && value.length <= MAX_NAMES && value.every(isName) && new Set(value).size === value.length;
    return this.read(key, isRight, `a list of at most ${MAX_NAMES} distinct short texts`);
  }

  private read<T>(key: string, isRight: (value: unknown) => value is T, expected: string): T {
    const value = this.has(key) ? this.values[key] : undefined;
    return isRight(value) ? value : fail(`${this.path}.${key} must be ${expected}`);
  }
}

function isInteger(value: unknown, low: number, high: number): value is number {
  return Number.isInteger(value) && low <= (value as number) && (value as number) <= high;
}

function readVocabulary(fields: Fields): Vocabulary {
  const edges = fields.values.gap_edges_ms as number[];
  const isAfter = (edge: unknown, place: number) => isInteger(edge, (place ? edges[place - 1] : 0) + 1, MAX_TIME_MS);
  if (!Array.isArray(edges) || !edges.length || edges.length > MAX_NAMES || !edges.every(isAfter)) {
    fail("vocabulary.gap_edges_ms must be ascending times");
  }
  const events = fields.names("events");
  if (!events.length) fail("vocabulary.events is empty");
  const queryBuckets = fields.has("query_buckets") ? fields.integer("query_buckets", 1, 2 ** 31) : 0;
  if (queryBuckets && queryBuckets !== QUERY_BUCKETS) {
    throw new BundleUnsupported("bundle.query_buckets", `searches in ${queryBuckets} buckets; this SDK knows ${QUERY_BUCKETS}`);
  }
  return {
    events,
    devices: fields.names("devices"),
    gapEdgesMs: edges,
    maxHistory: fields.integer("max_history", 1, MAX_HISTORY),
    distinctItems: fields.boolean("distinct_items"),
    queryBuckets,
  };
}

function readRepeat(top: Fields): RepeatRule | null {
  if (top.has("repeat") && top.values.repeat === null) return null;
  const fields = top.child("repeat");
  return {
    weight: fields.number("weight"),
    halfLifeMs: fields.integer("half_life_ms", 1, MAX_TIME_MS),
    events: fields.names("events"),
  };
}

function readRanker(top: Fields): RankerRecord | null {
  if (top.values.ranker == null) return null;
  const fields = top.child("ranker");
  const context = fields.names("context");
  if (context.join() !== CONTEXT.join()) {
    throw new BundleUnsupported("bundle.ranker_context", `the ranker reads ${context.join()}; this SDK knows ${CONTEXT.join()}`);
  }
  return { events: fields.names("events"), horizonMs: fields.integer("horizon_ms", 1, MAX_TIME_MS) };
}

function readFiles(fields: Fields): Map<string, FileRecord> {
  const names = Object.keys(fields.values);
  const missing = REQUIRED_FILES.filter((name) => !fields.has(name));
  if (missing.length) fail(`files must name ${missing.join(", ")}`);
  if (names.length > MAX_FILES) fail(`files names more than ${MAX_FILES} files`);
  const records = new Map<string, FileRecord>();
  for (const name of names) {
    if (!FILE_NAME.test(name) || name.length > 64 || name === "manifest.json" || name === "manifest.sig") {
      fail(`files: ${JSON.stringify(name)} is no file name`);
    }
    const record = fields.child(name);
    records.set(name, { sha256: record.text("sha256", SHA256), bytes: record.integer("bytes", 0, MAX_FILE_BYTES) });
  }
  return records;
}

function readItems(
  top: Fields,
  { itemCount, width, hasRanker }: { itemCount: number; width: number; hasRanker: boolean },
  fileBytes: number,
): Manifest["items"] {
  const format = top.has("table_format") ? top.text("table_format") : "int8";
  const isFloat = format === "fp32";
  if (!isFloat && format !== "int8") throw new BundleUnsupported("bundle.table_format", `this SDK reads no ${format} items`);
  const fields = top.child("items");
  const padded = Math.ceil(itemCount / BLOCK_ITEMS) * BLOCK_ITEMS;
  let end = 0;
  const section = (name: string, bytes: number): Section => {
    const said = fields.child(name);
    const offset = said.integer("offset", 0, MAX_FILE_BYTES);
    if (said.integer("bytes", 0, MAX_FILE_BYTES) !== bytes) fail(`items.${name}.bytes must be ${bytes}`);
    if (offset % SECTION_ALIGNMENT || offset < end || offset + bytes > fileBytes) {
      fail(`items.${name}.offset must be a multiple of ${SECTION_ALIGNMENT}, in the file, in order`);
    }
    end = offset + bytes;
    return { offset, bytes };
  };
  return {
    table: section("table", (isFloat ? 4 : 1) * padded * width),
    scale: isFloat ? null : section("scale", 4 * padded),
    bias: section("bias", 4 * padded),
    prior: fields.has("prior") && fields.values.prior === null ? null : section("prior", 4 * padded),
    features: hasRanker ? section("features", 4 * RANKER_FEATURES * padded) : null,
  };
}
