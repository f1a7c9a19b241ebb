/** A synced profile in IndexedDB (browsers): one database a name, shared by the tabs of an origin; a tab hears of another's changes. */

import { closedError, type Consent } from "../profile";
import { answerOf, endOf, openDatabase, orUnavailable } from "../profileIndexedDb";
import { after, type Disk, type Written } from "./disk";
import { consented, EMPTY, type Local, type State, type Step } from "./state";
import { keyOf, type Dead, type Queued, type Row, type Standing } from "./values";

const VERSION = 3;
// `events` are those that were never queued, as an IndexedDbProfile has them; `consents` are its consents, until taken up.
const STORES = ["events", "consents", "changes", "rows", "queue", "state"];

/** The state in the database of a name. */
export class IndexedDbDisk implements Disk {
  readonly installation = null;
  private last: { readonly change: number; readonly state: State } | null = null;
  private isClosed = false;

  private constructor(
    readonly name: string,
    private readonly database: IDBDatabase,
  ) {}

  /** Open the database, or make it; an IndexedDbProfile's is taken up. */
  static async open(name: string, nowMs: number): Promise<IndexedDbDisk> {
    const database = await orUnavailable(async () =>
      openDatabase(name, VERSION, (fresh) => {
        for (const store of ["rows", "queue", "state"]) fresh.createObjectStore(store);
      }),
    );
    // A newer SDK in another tab must not wait for this one.
    database.onversionchange = () => database.close();
    const disk = new IndexedDbDisk(name, database);
    await disk.transact(async (transaction) => {
      const store = transaction.objectStore("consents");
      const consents = await answerOf<Consent[]>(store.getAll());
      for (const consent of consents) {
        const { state } = await disk.load(transaction);
        await disk.write(transaction, consented(state, consent, nowMs));
      }
      if (consents.length) store.clear();
    });
    return disk;
  }

  read(): Promise<State> {
    if (this.isClosed) return Promise.reject(closedError());
    return orUnavailable(async () => (await this.load(this.database.transaction(STORES))).state);
  }

  change<T>(rule: (state: State) => Written<T>): Promise<T> {
    return this.transact(async (transaction) => {
      const { steps, answer } = rule((await this.load(transaction)).state);
      if (steps.length) await this.write(transaction, steps);
      return answer;
    });
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.database.close();
  }

  private async transact<T>(act: (transaction: IDBTransaction) => Promise<T>): Promise<T> {
    if (this.isClosed) throw closedError();
    const before = this.last;
    return orUnavailable(async () => {
      const transaction = this.database.transaction(STORES, "readwrite", { durability: "strict" });
      const done = endOf(transaction);
      done.catch(() => undefined); // where act() fails first, that is what is said
      try {
        const answer = await act(transaction);
        await done;
        return answer;
      } catch (cause) {
        this.last = before; // what was not committed is not known
        abort(transaction);
        throw cause;
      }
    });
  }

  /** Read the state, unless it is the one that this tab knows. */
  private async load(transaction: IDBTransaction): Promise<{ change: number; state: State }> {
    const change = (await answerOf<number | undefined>(transaction.objectStore("changes").get("count"))) ?? 0;
    if (this.last?.change !== change) this.last = { change, state: await stateOf(transaction) };
    return this.last;
  }

  /** Write steps over the state that was loaded in this transaction, and count the change, so that every tab reads again. */
  private async write(transaction: IDBTransaction, steps: readonly Step[]): Promise<void> {
    const { change, state } = this.last!;
    const [rows, queue, events, kept, changes] = ["rows", "queue", "events", "state", "changes"].map((store) => transaction.objectStore(store));
    for (const step of steps) {
      for (const key of step.drop_rows) rows.delete(key);
      for (const row of step.put_rows) rows.put(row, keyOf(row));
      for (const dseq of step.drop_queue) queue.delete(dseq);
      for (const one of step.put_queue) queue.put(one, one.op.dseq);
      for (const id of step.drop_local) events.delete(id);
      for (const event of step.put_local) events.put(event);
      kept.put(step.standing, "standing");
      kept.put(step.dead, "dead");
    }
    await answerOf(changes.put(change + 1, "count"));
    this.last = { change: change + 1, state: after(state, steps) };
  }
}

async function stateOf(transaction: IDBTransaction): Promise<State> {
  const all = <T>(store: string) => answerOf<T[]>(transaction.objectStore(store).getAll());
  const kept = transaction.objectStore("state");
  const [rows, queue, events] = [await all<Row>("rows"), await all<Queued>("queue"), await all<Local>("events")];
  const standing = (await answerOf<Standing | undefined>(kept.get("standing"))) ?? EMPTY.standing;
  const dead = (await answerOf<Dead[] | undefined>(kept.get("dead"))) ?? [];
  const local = new Map(events.map((event) => [event.id, { ...event, contactMs: event.contactMs ?? 0 }]));
  return { standing, rows: new Map(rows.map((row) => [keyOf(row), row])), queue, local, dead };
}

function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch {
    // It has ended already.
  }
}
