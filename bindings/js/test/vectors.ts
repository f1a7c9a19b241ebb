/** Read the shared vectors from tests/vectors, and damage bundles by its recipes. */

import { createHash, createPrivateKey, sign } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { crc32 } from "../src/crc32";
import type { Case, Recipe } from "./walk";

export const VECTORS = fileURLToPath(new URL("../../../tests/vectors/", import.meta.url));

type Files = Map<string, Buffer>;
interface Step {
  readonly op: string;
  readonly file?: string;
  readonly at?: number;
  readonly bytes?: number;
  readonly xor?: number;
  readonly hex?: string;
  readonly text?: string;
  readonly path?: string[];
  readonly value?: unknown;
  readonly bundle?: string;
  readonly source?: string;
}
interface Faults {
  readonly folder?: string;
  readonly rename?: Readonly<Record<string, string>>;
  readonly twice?: string;
  readonly more?: number;
  readonly encrypted?: string;
  readonly compressed?: string;
  readonly link?: string;
  readonly wrong_crc?: string;
  readonly misnamed?: string;
  readonly cut?: number;
}
export interface WholeRecipe extends Recipe {
  readonly bundle?: string;
  readonly steps: readonly Step[];
  readonly resign?: true | "only";
  readonly zip?: Faults;
}

const json = <T>(name: string): T => JSON.parse(readFileSync(join(VECTORS, name), "utf8")) as T;

export const INDEX = json<{ key: string; signing_phrase: string; cases: string[]; bundles: string[]; bad: string }>("index.json");
export const BAD = json<{ bundle: string; recipes: WholeRecipe[] }>(INDEX.bad);

/** What the other encoders answer, in the place of the encoder of one bundle. */
export const ENCODERS = json<{
  bundle: string;
  tolerance: number;
  histories: Record<"rows" | "events" | "devices" | "gaps", number[]>[];
  users: Record<string, number[][]>;
}>("encoders.json");

/** Return the graph of one of {@link ENCODERS}. */
export function readEncoder(name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(VECTORS, "encoders", `${name}.onnx`)));
}

/** Return a case by its name in the index. */
export function readCase(name: string): Case {
  return json<Case>(name);
}

/** Return the files of a bundle of the vectors. */
export function readBundle(bundle: string): Files {
  const folder = join(VECTORS, bundle);
  return new Map(readdirSync(folder).sort().map((name) => [name, readFileSync(join(folder, name))]));
}

/** Return a bundle of the vectors as a zip. */
export function zipOf(bundle: string): Uint8Array {
  return writeZip(readBundle(bundle), {});
}

/** Return the zip that a recipe makes. */
export function damagedZip(recipe: WholeRecipe): Uint8Array {
  const files = readBundle(recipe.bundle ?? BAD.bundle);
  for (const step of recipe.steps) apply(step, files);
  if (recipe.resign === true) rehash(recipe, files);
  if (recipe.resign) files.set("manifest.sig", signature(files.get("manifest.json")!));
  return writeZip(files, recipe.zip ?? {});
}

function apply(step: Step, files: Files): void {
  const name = step.file ?? "manifest.json";
  const content = Buffer.from(files.get(name) ?? []);
  const { at = 0, bytes = 0, hex = "" } = step;
  const raw = Buffer.from(hex, "hex");
  const changes: Record<string, () => Buffer | null> = {
    remove: () => null,
    flip: () => (content.writeUInt8(content[at] ^ step.xor!, at), content),
    cut: () => content.subarray(0, bytes),
    drop: () => Buffer.concat([content.subarray(0, at), content.subarray(at + bytes)]),
    append: () => Buffer.concat([content, raw]),
    prepend: () => Buffer.concat([raw, content]),
    pad: () => Buffer.concat([content, Buffer.alloc(bytes - content.length, " ")]),
    write: () => (raw.copy(content, at), content),
    fill: () => content.fill(raw, at, at + bytes),
    text: () => Buffer.from(step.text!),
    copy: () => readBundle(step.bundle!).get(step.source ?? name)!,
    manifest: () => setIn(content, step.path!, step.value),
  };
  const changed = changes[step.op]();
  if (changed) files.set(name, changed);
  else files.delete(name);
}

function setIn(manifest: Buffer, path: readonly string[], value: unknown): Buffer {
  const fields = JSON.parse(manifest.toString()) as Record<string, unknown>;
  const inner = path.slice(0, -1).reduce((holder, key) => holder[key] as Record<string, unknown>, fields);
  inner[path[path.length - 1]] = value;
  return Buffer.from(JSON.stringify(fields));
}

function rehash(recipe: WholeRecipe, files: Files): void {
  const manifest = JSON.parse(files.get("manifest.json")!.toString()) as { files: Record<string, object> };
  for (const [name, record] of Object.entries(manifest.files)) {
    const content = files.get(name);
    const isTouched = recipe.steps.some(({ op, path }) => op === "manifest" && path![0] === "files" && path![1] === name);
    if (!content || isTouched) continue;
    Object.assign(record, { sha256: createHash("sha256").update(content).digest("hex"), bytes: content.length });
  }
  files.set("manifest.json", Buffer.from(JSON.stringify(manifest)));
}

function signature(manifest: Buffer): Buffer {
  const seed = createHash("sha256").update(INDEX.signing_phrase).digest();
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const signed = sign(null, manifest, key).toString("base64");
  return Buffer.from(JSON.stringify({ algorithm: "ed25519", key: INDEX.key, signature: signed }));
}

function writeZip(files: Files, faults: Faults): Uint8Array {
  const prefix = faults.folder ?? "x.xrec/";
  const members = Array.from(files, ([name, content]) => ({ name, path: faults.rename?.[name] ?? prefix + name, content }));
  members.push(...members.filter(({ name }) => name === faults.twice));
  for (let more = 0; more < (faults.more ?? 0); more++) {
    members.push({ name: String(more), path: prefix + more, content: Buffer.alloc(0) });
  }
  const [body, directory]: [Buffer[], Buffer[]] = [[], []];
  let at = 0;
  for (const { name, path, content } of members) {
    const raw = Buffer.from(path);
    const [flags, method] = [0x800 | Number(name === faults.encrypted), name === faults.compressed ? 8 : 0];
    const crc = (crc32(content) ^ Number(name === faults.wrong_crc)) >>> 0;
    const mode = name === faults.link ? 0o120777 : 0o100644;
    const sizes = pack([flags, 2], [method, 2], [0, 2], [0x21, 2], [crc, 4], [content.length, 4], [content.length, 4]);
    const rest = pack([raw.length, 2], [0, 2], [0, 2], [0, 2], [0, 2], [mode * 65536, 4], [at, 4]);
    directory.push(pack([0x02014b50, 4], [0x0314, 2], [20, 2]), sizes, rest, raw);
    const own = name === faults.misnamed ? Buffer.concat([raw.subarray(0, -1), Buffer.from("?")]) : raw;
    const member = Buffer.concat([pack([0x04034b50, 4], [20, 2]), sizes, pack([own.length, 2], [0, 2]), own, content]);
    body.push(member);
    at += member.length;
  }
  const bytes = directory.reduce((sum, part) => sum + part.length, 0);
  const count = members.length;
  const end = pack([0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [bytes, 4], [at, 4], [0, 2]);
  const whole = Buffer.concat([...body, ...directory, end]);
  return new Uint8Array(faults.cut === undefined ? whole : whole.subarray(0, faults.cut));
}

function pack(...fields: readonly [value: number, bytes: number][]): Buffer {
  const packed = Buffer.alloc(fields.reduce((sum, [, bytes]) => sum + bytes, 0));
  let at = 0;
  for (const [value, bytes] of fields) at = packed.writeUIntLE(value, at, bytes);
  return packed;
}
