/** Where a synced profile's state is: the seam to the disk, and a disk that ends with the program. */

import { closedError } from "../profile";
import { applied, EMPTY, type State, type Step } from "./state";

/** What a rule wants written, and what it answers; `erases` where nothing of what it drops may be left on the disk. */
export interface Written<T> {
  readonly steps: readonly Step[];
  readonly answer: T;
  readonly erases?: boolean;
}

/** A disk; failures are ProfileErrors. */
export interface Disk {
  /** What names the profile to other tabs; null where there are none. */
  readonly name: string | null;
  /** What tells this installation from a copy of its files; null where the disk can't say. */
  readonly installation: string | null;
  /** Return the state as it was last committed by whoever: the same object as long as nothing has changed. */
  read(): Promise<State>;
  /** Commit what a rule makes of the state, whole or not at all, before anyone else; durable once it resolves. */
  change<T>(rule: (state: State) => Written<T>): Promise<T>;
  close(): Promise<void>;
}

/** Return the state after some steps. */
export function after(state: State, steps: readonly Step[]): State {
  return steps.reduce(applied, state);
}

/** A disk that ends with the program. */
export class MemoryDisk implements Disk {
  readonly name = null;
  readonly installation = null;
  private state: State | null = EMPTY;

  async read(): Promise<State> {
    if (!this.state) throw closedError();
    return this.state;
  }

  async change<T>(rule: (state: State) => Written<T>): Promise<T> {
    if (!this.state) throw closedError();
    const { steps, answer } = rule(this.state);
    this.state = after(this.state, steps);
    return answer;
  }

  async close(): Promise<void> {
    this.state = null;
  }
}
