/** A profile in IndexedDB (browsers): one database a name, shared by the tabs of an origin. */

import { openDB, type DBSchema, type IDBPDatabase } from "idb";

import { ProfileError } from "./errors";
import { checkMaxEvents, closedError, shed, type Event, type ProfileStore } from "./profile";

const VERSION = 1;

interface Schema extends DBSchema {
  events: { key: string; value: Event; indexes: { inTime: [number, string] } };
  changes: { key: string; value: number };
}

/** The events of one user in the database of a name. */
export class IndexedDbProfile implements ProfileStore {
  private last: { readonly change: number; readonly events: readonly Event[] } | null = null;
  private isClosed = false;

  private constructor(
    private readonly database: IDBPDatabase<Schema>,
    private readonly maxEvents: number,
  ) {}

  /** Open the database, or make it. */
  static async open(name: string, maxEvents: number): Promise<IndexedDbProfile> {
    checkMaxEvents(maxEvents);
    const database = await orUnavailable(() =>
      openDB<Schema>(name, VERSION, {
        upgrade(fresh) {
          fresh.createObjectStore("events", { keyPath: "id" }).createIndex("inTime", ["atMs", "id"]);
          fresh.createObjectStore("changes");
        },
      }),
    );
    return new IndexedDbProfile(database, maxEvents);
  }

  add(event: Event): Promise<void> {
    return this.write(async (events) => {
      await events.add(event);
      const spare = (await events.count()) > this.maxEvents;
      if (!spare) return;
      const all = await events.index("inTime").getAll();
      const kept = new Set(shed(all, this.maxEvents));
      for (const old of all) if (!kept.has(old)) await events.delete(old.id);
    });
  }

  async events(): Promise<readonly Event[]> {
    this.checkOpen();
    return orUnavailable(async () => {
      const transaction = this.database.transaction(["events", "changes"]);
      const change = (await transaction.objectStore("changes").get("count")) ?? 0;
      if (this.last?.change !== change) {
        const events = await transaction.objectStore("events").index("inTime").getAll();
        this.last = { change, events };
      }
      await transaction.done;
      return this.last.events;
    });
  }

  forget(): Promise<number> {
    return this.write(async (events) => {
      const count = await events.count();
      await events.clear();
      return count;
    });
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.database.close();
  }

  /** Write, and count the change, so that every tab reads again; durable once this resolves. */
  private async write<T>(act: (events: EventStore) => Promise<T>): Promise<T> {
    this.checkOpen();
    return orUnavailable(async () => {
      const transaction = this.database.transaction(["events", "changes"], "readwrite", { durability: "strict" });
      const changes = transaction.objectStore("changes");
      const answer = await act(eventStore(transaction));
      await changes.put(((await changes.get("count")) ?? 0) + 1, "count");
      await transaction.done;
      return answer;
    });
  }

  private checkOpen(): void {
    if (this.isClosed) throw closedError();
  }
}

function eventStore(transaction: ReturnType<typeof writing>) {
  return transaction.objectStore("events");
}

function writing(database: IDBPDatabase<Schema>) {
  return database.transaction(["events", "changes"], "readwrite");
}

type EventStore = ReturnType<typeof eventStore>;

async function orUnavailable<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (cause instanceof ProfileError) throw cause;
    const name = cause instanceof DOMException ? cause.name : String(cause);
    if (name === "QuotaExceededError") throw new ProfileError("profile.full", "the disk is full; nothing was written", { cause });
    if (name === "VersionError") throw new ProfileError("profile.newer", "a newer SDK wrote the profile", { cause });
    throw new ProfileError("profile.unavailable", `the profile can't be opened, read or written: ${name}`, { cause });
  }
}
