/**
 * A profile in a file (Node): a header, then one JSON event or consent a line, appended and flushed. One process at a time.
 *
 * A line that a crash has cut is the last one, and is dropped when the file is opened again. The file is written anew,
 * beside itself, when twice the events that are kept have been appended, and when it is of version 1, which knew no consent.
 */

import { open, readFile, rename, type FileHandle } from "node:fs/promises";

import { checkWhole } from "./arguments";
import { ProfileError } from "./errors";
import {
  checkedConsent,
  closedError,
  fromRecord,
  inTime,
  shed,
  toRecord,
  withConsent,
  withEvent,
  type Consent,
  type Event,
  type EventRecord,
  type Kept,
  type ProfileStore,
} from "./profile";

const FORMAT = "xrec-profile";
const VERSION = 2;
const HEADER = headerLine(VERSION);

/** What is kept of one user in the file at a path. */
export class FileProfile implements ProfileStore {
  private lines = 0;
  private isTorn = false;
  private turn: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly path: string,
    private readonly maxEvents: number,
    private kept: Kept,
    private file: FileHandle | null,
  ) {
    this.lines = countOf(kept);
  }

  /** Open the file, or make it. */
  static async open(path: string, maxEvents: number): Promise<FileProfile> {
    checkWhole("max_events", maxEvents, 1);
    return orUnavailable(async () => {
      const { kept: found, isWhole } = parse(await readOrEmpty(path));
      const kept = { ...found, events: shed(found.events, maxEvents) };
      if (!isWhole || kept.events !== found.events) await rewrite(path, kept);
      return new FileProfile(path, maxEvents, kept, await open(path, "a", 0o600));
    });
  }

  add(event: Event): Promise<void> {
    return this.append(toRecord(event), (kept) => withEvent(kept, event, this.maxEvents));
  }

  setConsent(consent: Consent): Promise<void> {
    return this.append(consent, (kept) => withConsent(kept, consent));
  }

  async read(): Promise<Kept> {
    if (!this.file) throw closedError();
    return this.kept;
  }

  forget(): Promise<number> {
    return this.inTurn(async () => {
      const { events, consents } = this.kept;
      await this.replace({ events: [], consents });
      return events.length;
    });
  }

  close(): Promise<void> {
    const closed = this.turn.then(async () => {
      const file = this.file;
      this.file = null;
      await file?.close();
    });
    this.turn = closed;
    return closed;
  }

  private append(record: Consent | EventRecord, change: (kept: Kept) => Kept): Promise<void> {
    return this.inTurn(async () => {
      const kept = change(this.kept);
      // A line that could be written in part only must not run into the next one.
      if (this.isTorn) await this.replace(this.kept);
      this.isTorn = true;
      await this.file!.appendFile(lineOf(record));
      await this.file!.datasync();
      this.isTorn = false;
      this.kept = kept;
      if (++this.lines > 2 * this.maxEvents) await this.replace(kept);
    });
  }

  /** One write after the other; what fails leaves what is kept as it was. */
  private inTurn<T>(write: (file: FileHandle) => Promise<T>): Promise<T> {
    const done = this.turn.then(() =>
      orUnavailable(async () => {
        if (!this.file) throw closedError();
        return write(this.file);
      }),
    );
    this.turn = done.catch(() => undefined);
    return done;
  }

  private async replace(kept: Kept): Promise<void> {
    await rewrite(this.path, kept);
    const before = this.file;
    this.file = before && (await open(this.path, "a"));
    await before?.close();
    [this.kept, this.lines, this.isTorn] = [kept, countOf(kept), false];
  }
}

/** Return the text of a file; "" where there is none. */
export async function readOrEmpty(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return "";
    throw cause;
  });
}

/** Return what a file of at most this version keeps; not whole, where it must be written anew before anything is appended. */
export function parse(text: string): { kept: Kept; isWhole: boolean } {
  let kept: Kept = { events: [], consents: [] };
  if (text === "") return { kept, isWhole: false };
  const lines = text.split("\n");
  const cut = lines.pop();
  const version = versionOf(lines.shift() ?? cut ?? "");
  try {
    const records = lines.map((line) => JSON.parse(line) as Consent | EventRecord);
    for (const record of records) if ("purpose" in record) kept = withConsent(kept, checkedConsent(record));
    const events = records.flatMap((record) => ("purpose" in record ? [] : [fromRecord(record)]));
    kept = { ...kept, events: events.sort(inTime) };
  } catch (cause) {
    throw new ProfileError("profile.damaged", "the profile's file is damaged; delete it and start anew", { cause });
  }
  return { kept, isWhole: cut === "" && version === VERSION };
}

/** Return the version that a header says; ProfileError where it is none, or above `newest`. */
export function versionOf(line: string, newest: number = VERSION): number {
  const { format, format_version: version } = headerOf(line);
  if (format !== FORMAT) throw new ProfileError("profile.not_a_profile", "the file is not a profile of xrec");
  if (typeof version !== "number" || version > newest) {
    throw new ProfileError("profile.newer", "a newer SDK wrote the profile; update the app");
  }
  return version;
}

/** Return the first line of a profile's file. */
export function headerLine(version: number): string {
  return `${JSON.stringify({ format: FORMAT, format_version: version })}\n`;
}

function headerOf(line: string): { format?: unknown; format_version?: unknown } {
  try {
    return Object(JSON.parse(line)) as object;
  } catch {
    return {}; // not JSON: not a profile either
  }
}

function countOf({ events, consents }: Kept): number {
  return events.length + consents.length;
}

function lineOf(record: Consent | EventRecord): string {
  return `${JSON.stringify(record)}\n`;
}

function rewrite(path: string, { events, consents }: Kept): Promise<void> {
  return replaceFile(path, [HEADER, ...[...consents, ...events.map(toRecord)].map(lineOf)].join(""));
}

/** Write a file anew, whole or not at all. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const part = `${path}.part`;
  const file = await open(part, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(part, path);
}

/** Act; what goes wrong with the file is a ProfileError. */
export async function orUnavailable<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (cause instanceof ProfileError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ENOSPC") throw new ProfileError("profile.full", "the disk is full; nothing was written", { cause });
    throw new ProfileError("profile.unavailable", `the profile can't be opened, read or written: ${code}`, { cause });
  }
}
