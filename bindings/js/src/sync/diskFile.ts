/**
 * A synced profile in a file (Node): a header, then one JSON step a transaction a line, appended and flushed. One process at
 * a time.
 *
 * A line that a crash has cut is the last one, and is dropped. The file is written anew, beside itself, when it has grown to
 * twice what is kept and 250 kB, and when something was erased. A FileProfile's file is taken up.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { realpath } from "node:fs/promises";

import { closedError } from "../profile";
import { ProfileError } from "../errors";
import { Journal, orUnavailable, readOrEmpty, replaceFile } from "../journal";
import { headerLine, parse, versionOf } from "../profileFile";
import { after, type Disk, type Written } from "./disk";
import { consented, EMPTY, wholeOf, type State, type Step } from "./state";

const VERSION = 3;
const SPARE_BYTES = 250_000;
const EMPTY_STEP = wholeOf(EMPTY);

/** The state in the file at a path. */
export class FileDisk implements Disk {
  readonly name = null;

  private constructor(
    private readonly journal: Journal,
    readonly installation: string,
    private state: State,
    private bytes: number,
    private wholeBytes: number,
  ) {}

  /** Open the file, or make it. */
  static open(path: string, nowMs: number): Promise<FileDisk> {
    return orUnavailable(async () => {
      const state = stateOf(await readOrEmpty(path), nowMs);
      const text = textOf([wholeOf(state)]);
      await replaceFile(path, text);
      const installation = installationOf(await realpath(path));
      return new FileDisk(await Journal.open(path), installation, state, text.length, text.length);
    });
  }

  async read(): Promise<State> {
    if (!this.journal.isOpen) throw closedError();
    return this.state;
  }

  change<T>(rule: (state: State) => Written<T>): Promise<T> {
    return this.journal.inTurn(async () => {
      const { steps, answer, erases = false } = rule(this.state);
      if (steps.length) await this.write(steps, erases);
      return answer;
    });
  }

  close(): Promise<void> {
    return this.journal.close();
  }

  private async write(steps: readonly Step[], erases: boolean): Promise<void> {
    const [state, line] = [after(this.state, steps), lineOf(steps)];
    const isLong = this.bytes + line.length > 2 * this.wholeBytes + SPARE_BYTES;
    if (!erases && !isLong && (await this.journal.append(line))) {
      this.bytes += line.length;
    } else {
      const text = textOf([wholeOf(state)]);
      await this.journal.replace(text);
      [this.bytes, this.wholeBytes] = [text.length, text.length];
    }
    this.state = state;
  }
}

/** Return an id that a copy of the file, or the same file on another machine, does not have. */
function installationOf(path: string): string {
  let machine = "";
  try {
    machine = readFileSync("/etc/machine-id", "utf8").trim();
  } catch {
    // Not every system has one.
  }
  return createHash("sha256").update(`${machine} ${path}`).digest("hex").slice(0, 16);
}

function textOf(steps: readonly Step[]): string {
  return headerLine(VERSION) + lineOf(steps);
}

function lineOf(steps: readonly Step[]): string {
  return `${JSON.stringify(steps)}\n`;
}

function stateOf(text: string, nowMs: number): State {
  if (text === "") return EMPTY;
  const [header, ...lines] = text.split("\n");
  if (versionOf(header, VERSION) < VERSION) return takenUp(text, nowMs);
  lines.pop(); // what a crash has cut, or nothing
  try {
    return lines.reduce((state, line) => after(state, stepsOf(line)), EMPTY);
  } catch (cause) {
    throw new ProfileError("profile.damaged", "the profile's file is damaged; delete it and start anew", { cause });
  }
}

function stepsOf(line: string): Step[] {
  const steps = JSON.parse(line) as Step[];
  const isPart = (step: Step, name: keyof Step) => Array.isArray(step[name]) === Array.isArray(EMPTY_STEP[name]) && step[name];
  const names = Object.keys(EMPTY_STEP) as (keyof Step)[];
  if (!steps.every((step) => names.every((name) => isPart(step, name)))) throw new Error("a step lacks a part");
  return steps;
}

/** Return the state of a FileProfile's file: its events were never queued. */
function takenUp(text: string, nowMs: number): State {
  const { events, consents } = parse(text).kept;
  const local = new Map(events.map((event) => [event.id, { ...event, contactMs: 0 }]));
  return consents.reduce((state, consent) => after(state, consented(state, consent, nowMs)), { ...EMPTY, local } as State);
}
