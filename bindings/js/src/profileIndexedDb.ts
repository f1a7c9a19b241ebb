/** A profile in IndexedDB (browsers): one database a name, shared by the tabs of an origin. */

import { checkWhole } from "./arguments";
import { ProfileError } from "./errors";
import { checkConsented, closedError, shed, type Consent, type Event, type Kept, type ProfileStore } from "./profile";

const VERSION = 2;
const STORES = ["events", "consents", "changes"];

/** What is kept of one user in the database of a name. */
export class IndexedDbProfile implements ProfileStore {
  private last: { readonly change: number | undefined; readonly kept: Kept } | null = null;
  private isClosed = false;

  private constructor(
    private readonly database: IDBDatabase,
    private readonly maxEvents: number,
  ) {}

  /** Open the database, or make it. */
  static async open(name: string, maxEvents: number): Promise<IndexedDbProfile> {
    checkWhole("max_events", maxEvents, 1);
    const database = await orUnavailable(async () => openDatabase(name));
    return new IndexedDbProfile(database, maxEvents);
  }

  add(event: Event): Promise<void> {
    return this.write(async (transaction) => {
      const events = transaction.objectStore("events");
      checkConsented(await answerOf<Consent[]>(transaction.objectStore("consents").getAll()));
      await answerOf(events.add(event));
      if ((await answerOf(events.count())) <= this.maxEvents) return;
      const all = await answerOf<Event[]>(events.index("inTime").getAll());
      const kept = new Set(shed(all, this.maxEvents));
      for (const old of all) if (!kept.has(old)) events.delete(old.id);
    });
  }

  setConsent(consent: Consent): Promise<void> {
    return this.write(async (transaction) => void transaction.objectStore("consents").put(consent));
  }

  async read(): Promise<Kept> {
    this.checkOpen();
    return orUnavailable(async () => {
      const transaction = this.database.transaction(STORES);
      const change = await answerOf<number | undefined>(transaction.objectStore("changes").get("count"));
      if (!this.last || this.last.change !== change) {
        const events = await answerOf<Event[]>(transaction.objectStore("events").index("inTime").getAll());
        const consents = await answerOf<Consent[]>(transaction.objectStore("consents").getAll());
        this.last = { change, kept: { events, consents } };
      }
      return this.last.kept;
    });
  }

  forget(): Promise<number> {
    return this.write(async (transaction) => {
      const events = transaction.objectStore("events");
      const count = await answerOf(events.count());
      events.clear();
      return count;
    });
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.database.close();
  }

  /** Write, and count the change, so that every tab reads again; durable once this resolves. */
  private async write<T>(act: (transaction: IDBTransaction) => Promise<T>): Promise<T> {
    this.checkOpen();
    return orUnavailable(async () => {
      const transaction = this.database.transaction(STORES, "readwrite", { durability: "strict" });
      const done = endOf(transaction);
      done.catch(() => undefined); // where act() fails first, that is what is said
      const answer = await act(transaction);
      const changes = transaction.objectStore("changes");
      changes.put(((await answerOf<number | undefined>(changes.get("count"))) ?? 0) + 1, "count");
      await done;
      return answer;
    });
  }

  private checkOpen(): void {
    if (this.isClosed) throw closedError();
  }
}

/** Open a profile's database at a version; `upgrade` makes what is new in a version above this one's. */
export function openDatabase(name: string, version = VERSION, upgrade?: (database: IDBDatabase) => void): Promise<IDBDatabase> {
  const request = indexedDB.open(name, version);
  request.onupgradeneeded = ({ oldVersion }) => {
    const database = request.result;
    if (oldVersion < 1) {
      database.createObjectStore("events", { keyPath: "id" }).createIndex("inTime", ["atMs", "id"]);
      database.createObjectStore("changes");
    }
    if (oldVersion < 2) database.createObjectStore("consents", { keyPath: "purpose" });
    upgrade?.(database);
  };
  return answerOf(request);
}

/** Return what a request answers. */
export function answerOf<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error as DOMException);
  });
}

/** Resolve once a transaction is committed. */
export function endOf(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error as DOMException);
  });
}

/** Act; what goes wrong with the database is a ProfileError. */
export async function orUnavailable<T>(act: () => Promise<T>): Promise<T> {
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
