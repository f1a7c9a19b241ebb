/**
 * A file that grows by lines (Node), each flushed before it counts, and is written anew, beside itself, when its owner wants
 * that. One process at a time. What goes wrong with the file is a ProfileError.
 */

import { open, readFile, rename, type FileHandle } from "node:fs/promises";

import { ProfileError } from "./errors";
import { closedError } from "./profile";

/** The file at a path; what is said of it in turn happens in turn. */
export class Journal {
  private isTorn = false;
  private turn: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly path: string,
    private file: FileHandle | null,
  ) {}

  /** Open a file that is there, to append to it. */
  static async open(path: string): Promise<Journal> {
    return new Journal(path, await open(path, "a", 0o600));
  }

  get isOpen(): boolean {
    return this.file !== null;
  }

  /** One write after the other; what fails leaves what its owner keeps as it was. */
  inTurn<T>(write: () => Promise<T>): Promise<T> {
    const done = this.turn.then(() =>
      orUnavailable(async () => {
        if (!this.file) throw closedError();
        return write();
      }),
    );
    this.turn = done.catch(() => undefined);
    return done;
  }

  /** Append a line, in turn; false where the last one could be written in part only: the file must be written anew. */
  async append(line: string): Promise<boolean> {
    if (this.isTorn) return false;
    this.isTorn = true;
    await this.file!.appendFile(line);
    await this.file!.datasync();
    this.isTorn = false;
    return true;
  }

  /** Write the whole file anew, in turn. */
  async replace(text: string): Promise<void> {
    await replaceFile(this.path, text);
    const before = this.file;
    this.file = await open(this.path, "a");
    this.isTorn = false;
    await before?.close();
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
}

/** Return the text of a file; "" where there is none. */
export async function readOrEmpty(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return "";
    throw cause;
  });
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
