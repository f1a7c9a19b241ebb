/**
 * A profile in a file (Node): a header, then one JSON event or consent a line, appended and flushed. One process at a time.
 *
 * A line that a crash has cut is the last one, and is dropped when the file is opened again. The file is written anew,
 * beside itself, when twice the events that are kept have been appended, and when it is of version 1, which knew no consent.
 */

import { checkWhole } from "./arguments";
import { ProfileError } from "./errors";
import { Journal, orUnavailable, readOrEmpty, replaceFile } from "./journal";
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

  private constructor(
    private readonly journal: Journal,
    private readonly maxEvents: number,
    private kept: Kept,
  ) {
    this.lines = countOf(kept);
  }

  /** Open the file, or make it. */
  static async open(path: string, maxEvents: number): Promise<FileProfile> {
    checkWhole("max_events", maxEvents, 1);
    return orUnavailable(async () => {
      const { kept: found, isWhole } = parse(await readOrEmpty(path));
      const kept = { ...found, events: shed(found.events, maxEvents) };
      if (!isWhole || kept.events !== found.events) await replaceFile(path, textOf(kept));
      return new FileProfile(await Journal.open(path), maxEvents, kept);
    });
  }

  add(event: Event): Promise<void> {
    return this.append(toRecord(event), (kept) => withEvent(kept, event, this.maxEvents));
  }

  setConsent(consent: Consent): Promise<void> {
    return this.append(consent, (kept) => withConsent(kept, consent));
  }

  async read(): Promise<Kept> {
    if (!this.journal.isOpen) throw closedError();
    return this.kept;
  }

  forget(): Promise<number> {
    return this.journal.inTurn(async () => {
      const { events, consents } = this.kept;
      await this.replace({ events: [], consents });
      return events.length;
    });
  }

  close(): Promise<void> {
    return this.journal.close();
  }

  private append(record: Consent | EventRecord, change: (kept: Kept) => Kept): Promise<void> {
    return this.journal.inTurn(async () => {
      const kept = change(this.kept);
      if (!(await this.journal.append(lineOf(record)))) return this.replace(kept);
      this.kept = kept;
      if (++this.lines > 2 * this.maxEvents) await this.replace(kept);
    });
  }

  private async replace(kept: Kept): Promise<void> {
    await this.journal.replace(textOf(kept));
    [this.kept, this.lines] = [kept, countOf(kept)];
  }
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

function textOf({ events, consents }: Kept): string {
  return [HEADER, ...[...consents, ...events.map(toRecord)].map(lineOf)].join("");
}
