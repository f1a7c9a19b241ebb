/**
 * A profile in a file (Node): a header, then one JSON event a line, appended and flushed. One process at a time.
 *
 * A line that a crash has cut is the last one, and is dropped when the file is opened again. The file is written anew,
 * beside itself, when twice the events that are kept have been appended.
 */

import { open, readFile, rename, type FileHandle } from "node:fs/promises";

import { ProfileError } from "./errors";
import {
  checkMaxEvents,
  closedError,
  fromRecord,
  insert,
  isBefore,
  shed,
  toRecord,
  type Event,
  type EventRecord,
  type ProfileStore,
} from "./profile";

const FORMAT = "xrec-profile";
const VERSION = 1;
const HEADER = `${JSON.stringify({ format: FORMAT, format_version: VERSION })}\n`;

/** The events of one user in the file at a path. */
export class FileProfile implements ProfileStore {
  private lines = 0;
  private isTorn = false;
  private turn: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly path: string,
    private readonly maxEvents: number,
    private kept: readonly Event[],
    private file: FileHandle | null,
  ) {
    this.lines = kept.length;
  }

  /** Open the file, or make it. */
  static async open(path: string, maxEvents: number): Promise<FileProfile> {
    checkMaxEvents(maxEvents);
    return orUnavailable(async () => {
      const { events, isWhole } = parse(await readOrEmpty(path));
      const kept = shed(events, maxEvents);
      if (!isWhole || kept !== events) await rewrite(path, kept);
      return new FileProfile(path, maxEvents, kept, await open(path, "a", 0o600));
    });
  }

  add(event: Event): Promise<void> {
    return this.inTurn(async () => {
      // A line that could be written in part only must not run into the next one.
      if (this.isTorn) await this.replace(this.kept);
      this.isTorn = true;
      await this.file!.appendFile(`${JSON.stringify(toRecord(event))}\n`);
      await this.file!.datasync();
      this.isTorn = false;
      this.kept = shed(insert(this.kept, event), this.maxEvents);
      if (++this.lines > 2 * this.maxEvents) await this.replace(this.kept);
    });
  }

  async events(): Promise<readonly Event[]> {
    if (!this.file) throw closedError();
    return this.kept;
  }

  forget(): Promise<number> {
    return this.inTurn(async () => {
      const count = this.kept.length;
      await this.replace([]);
      return count;
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

  /** One write after the other; what fails leaves the events as they were. */
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

  private async replace(kept: readonly Event[]): Promise<void> {
    await rewrite(this.path, kept);
    const before = this.file;
    this.file = before && (await open(this.path, "a"));
    await before?.close();
    [this.kept, this.lines, this.isTorn] = [kept, kept.length, false];
  }
}

async function readOrEmpty(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return "";
    throw cause;
  });
}

/** Return the events of a file; not whole, where it must be written anew before anything is appended. */
function parse(text: string): { events: readonly Event[]; isWhole: boolean } {
  if (text === "") return { events: [], isWhole: false };
  const lines = text.split("\n");
  const cut = lines.pop();
  checkHeader(lines.shift() ?? cut ?? "");
  try {
    const events = lines.map((line) => fromRecord(JSON.parse(line) as EventRecord));
    return { events: events.sort((a, b) => (isBefore(a, b) ? -1 : 1)), isWhole: cut === "" };
  } catch (cause) {
    throw new ProfileError("profile.damaged", "the profile's file is damaged; delete it and start anew", { cause });
  }
}

function checkHeader(line: string): void {
  const { format, format_version: version } = headerOf(line);
  if (format !== FORMAT) throw new ProfileError("profile.not_a_profile", "the file is not a profile of xrec");
  if (typeof version !== "number" || version > VERSION) {
    throw new ProfileError("profile.newer", "a newer SDK wrote the profile; update the app");
  }
}

function headerOf(line: string): { format?: unknown; format_version?: unknown } {
  try {
    return Object(JSON.parse(line)) as object;
  } catch {
    return {}; // not JSON: not a profile either
  }
}

async function rewrite(path: string, events: readonly Event[]): Promise<void> {
  const part = `${path}.part`;
  const file = await open(part, "w", 0o600);
  try {
    await file.writeFile(HEADER + events.map((event) => `${JSON.stringify(toRecord(event))}\n`).join(""));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(part, path);
}

async function orUnavailable<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (cause instanceof ProfileError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ENOSPC") throw new ProfileError("profile.full", "the disk is full; nothing was written", { cause });
    throw new ProfileError("profile.unavailable", `the profile can't be opened, read or written: ${code}`, { cause });
  }
}
