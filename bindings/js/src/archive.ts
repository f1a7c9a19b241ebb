/** Read a bundle out of one uncompressed zip, refusing everything that a zip can do besides holding files. */

import { crc32 } from "./crc32";
import { BundleDamaged } from "./errors";
import { isSame } from "./idTable";
import { refuseLength, type Source } from "./source";
import { decodeUtf8 } from "./utf8";

const MAX_MEMBERS = 128;
const [END, CENTRAL, LOCAL] = [0x06054b50, 0x02014b50, 0x04034b50];
const [END_BYTES, CENTRAL_BYTES, LOCAL_BYTES] = [22, 46, 30];
const MAX_COMMENT_BYTES = 65_535;

interface Member {
  readonly path: string;
  readonly rawName: Uint8Array;
  readonly flags: number;
  readonly method: number;
  readonly crc: number;
  readonly storedBytes: number;
  readonly bytes: number;
  readonly mode: number;
  readonly at: number;
}

/** The files of a zip: members stored, not compressed, all at the top or all in one folder `NAME.xrec/`. */
export class ZipSource implements Source {
  private readonly view: DataView;
  private readonly members: ReadonlyMap<string, Member>;

  constructor(private readonly zip: Uint8Array) {
    this.view = new DataView(zip.buffer, zip.byteOffset, zip.byteLength);
    this.members = namedMembers(readDirectory(zip, this.view));
  }

  async names(): Promise<ReadonlySet<string>> {
    return new Set(this.members.keys());
  }

  async read(name: string, maxBytes: number): Promise<Uint8Array> {
    const member = this.members.get(name)!;
    refuseLength(name, member.bytes, maxBytes);
    const { zip, view } = this;
    if (member.at + LOCAL_BYTES > zip.length || view.getUint32(member.at, true) !== LOCAL) malformed(`${name} is cut`);
    const nameAt = member.at + LOCAL_BYTES;
    const nameEnd = nameAt + view.getUint16(member.at + 26, true);
    const contentAt = nameEnd + view.getUint16(member.at + 28, true);
    if (!isSame(zip.subarray(nameAt, nameEnd), member.rawName)) malformed(`${name} has two names in the zip`);
    if (contentAt + member.bytes > zip.length) malformed(`${name} is cut`);
    const content = zip.subarray(contentAt, contentAt + member.bytes);
    if (crc32(content) !== member.crc) malformed(`${name} does not match its checksum`);
    return content;
  }
}

function malformed(message: string): never {
  throw new BundleDamaged("bundle.zip_malformed", `the zip can't be read: ${message}`);
}

function readDirectory(zip: Uint8Array, view: DataView): Member[] {
  const end = findEnd(view);
  const [count, bytes, at] = [view.getUint16(end + 10, true), view.getUint32(end + 12, true), view.getUint32(end + 16, true)];
  if (view.getUint32(end + 4, true) !== 0 || at + bytes > end) malformed("its directory lies outside it");
  if (count > MAX_MEMBERS) malformed(`it holds ${count} members, at most ${MAX_MEMBERS} expected`);
  const members: Member[] = [];
  let place = at;
  while (members.length < count) {
    const member = readEntry(zip, view, place, end);
    members.push(member.entry);
    place = member.next;
  }
  if (place !== at + bytes) malformed("its directory is cut");
  return members;
}

function findEnd(view: DataView): number {
  const last = view.byteLength - END_BYTES;
  for (let at = last; at >= Math.max(0, last - MAX_COMMENT_BYTES); at--) {
    if (view.getUint32(at, true) === END && view.getUint16(at + 20, true) === last - at) return at;
  }
  return malformed("it has no end record");
}

function readEntry(zip: Uint8Array, view: DataView, at: number, end: number): { entry: Member; next: number } {
  if (at + CENTRAL_BYTES > end || view.getUint32(at, true) !== CENTRAL) malformed("its directory is cut");
  const [nameBytes, extraBytes, noteBytes] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
  const next = at + CENTRAL_BYTES + nameBytes + extraBytes + noteBytes;
  if (next > end) malformed("its directory is cut");
  const rawName = zip.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes);
  const entry: Member = {
    path: nameOf(rawName),
    rawName,
    flags: view.getUint16(at + 8, true),
    method: view.getUint16(at + 10, true),
    crc: view.getUint32(at + 16, true),
    storedBytes: view.getUint32(at + 20, true),
    bytes: view.getUint32(at + 24, true),
    mode: view.getUint32(at + 38, true) >>> 16,
    at: view.getUint32(at + 42, true),
  };
  return { entry, next };
}

function nameOf(raw: Uint8Array): string {
  try {
    return decodeUtf8(raw);
  } catch {
    return String.fromCharCode(...raw);
  }
}

function namedMembers(all: readonly Member[]): Map<string, Member> {
  const files = all.filter((member) => !isFolder(member));
  const folders = new Set(files.map((file) => file.path.slice(0, Math.max(0, file.path.lastIndexOf("/")))));
  if (folders.size > 1 || [...folders].some((folder) => folder.includes("/"))) {
    throw new BundleDamaged("bundle.zip_path", "the zip holds several folders");
  }
  const members = new Map<string, Member>();
  for (const file of files) {
    const name = file.path.slice(file.path.lastIndexOf("/") + 1);
    if (members.has(name)) malformed(`it holds ${name} twice`);
    members.set(name, file);
  }
  return members;
}

function isFolder({ path, flags, method, storedBytes, bytes, mode }: Member): boolean {
  if (/[\0\\:]|^\//.test(path) || path.split("/").includes("..")) {
    throw new BundleDamaged("bundle.zip_path", `the zip holds the path ${JSON.stringify(path)}`);
  }
  if (flags & 1) malformed(`${path} is encrypted`);
  if (method !== 0 || storedBytes !== bytes) {
    throw new BundleDamaged("bundle.zip_compressed", `${path} in the zip is compressed`);
  }
  const kind = mode & 0xf000;
  if (kind !== 0 && kind !== 0x8000 && kind !== 0x4000) {
    throw new BundleDamaged("bundle.not_plain", `${path} in the zip is a link or a device`);
  }
  if (!path.endsWith("/")) return false;
  if (bytes || path.indexOf("/") !== path.length - 1) {
    throw new BundleDamaged("bundle.zip_path", `the zip holds the folder ${JSON.stringify(path)}`);
  }
  return true;
}
