/** What the frames and tabs share beside the profile: basket, language, what the account agreed to; each hears of the others' changes. */

import type { SyncState } from "@xrec/sdk/sync";
import { openDB, type IDBPDatabase } from "idb";

const NAME = "corner-shop";

export type Language = "en" | "zh";

/** What lies in the basket, by item, and the like. */
export interface Shared {
  /** Whether the shop may remember the user; null before they have said so, and once they are forgotten. */
  readonly agreed: boolean | null;
  /** How often they have answered or been forgotten, and up to which of these each device has said it to its profile. */
  readonly answers: number;
  readonly said: Readonly<Record<string, number>>;
  /** Whether there was a sync server when the shop was last reached. */
  readonly isServed: boolean;
  readonly basket: Readonly<Record<string, number>>;
  readonly language: Language;
  /** The newest release that was ever opened: an older one is refused, whoever offers it. */
  readonly release: number;
}

/** How a list was made, for who watches. */
export interface Measured {
  readonly device: string;
  readonly listMs: number;
  readonly loadMs: number;
  readonly items: number;
  readonly release: number;
  readonly bytes: number;
  readonly key: string;
}

/** How a device stands: the events that it keeps, by the device on which they were done, and its sync. */
export interface Standing {
  readonly device: string;
  readonly events: Readonly<Record<string, number>>;
  readonly sync: SyncState;
  readonly queued: number;
}

export type Message =
  | { kind: "changed" }
  | { kind: "forget" }
  | { kind: "measured"; measured: Measured }
  | { kind: "standing"; standing: Standing };

const FRESH: Shared = {
  agreed: null,
  answers: 0,
  said: {},
  isServed: false,
  basket: {},
  language: languageOf(navigator.language),
  release: 0,
};

function languageOf(tag: string): Language {
  return tag.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The shared state, in IndexedDB, and the channel between the frames. */
export class Store {
  readonly #channel = new BroadcastChannel(NAME);

  private constructor(private readonly database: IDBPDatabase) {}

  static async open(): Promise<Store> {
    return new Store(await openDB(NAME, 1, { upgrade: (fresh) => void fresh.createObjectStore("shared") }));
  }

  async read(): Promise<Shared> {
    return { ...FRESH, ...((await this.database.get("shared", "state")) as Partial<Shared> | undefined) };
  }

  /** Change the state in one transaction, and let everyone know, this frame too. */
  async change(change: (shared: Shared) => Partial<Shared>): Promise<void> {
    const transaction = this.database.transaction("shared", "readwrite");
    const before = { ...FRESH, ...((await transaction.store.get("state")) as Partial<Shared> | undefined) };
    await transaction.store.put({ ...before, ...change(before) }, "state");
    await transaction.done;
    this.say({ kind: "changed" });
  }

  /** Back to the first visit, but for what says nothing of the user. */
  forget(): Promise<void> {
    return this.change(({ language, release, isServed, answers, said }) => {
      return { ...FRESH, language, release, isServed, answers: answers + 1, said };
    });
  }

  say(message: Message): void {
    this.#channel.postMessage(message);
    window.dispatchEvent(new CustomEvent(NAME, { detail: message }));
  }

  /** Hear what any frame says, this one too. */
  listen(hear: (message: Message) => unknown): void {
    this.#channel.addEventListener("message", ({ data }) => hear(data as Message));
    window.addEventListener(NAME, (event) => hear((event as CustomEvent<Message>).detail));
  }
}
