/** The reference server in a process of its own, and devices that share a profile through it: Python, Node, a page. */

import { spawn, execFileSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";

import type { Page } from "playwright-core";

import { openProfile } from "../src/sync/node";
import { MemoryDisk, SyncedProfile } from "../src/sync/public";
import type { Site } from "./chromium";
import { PYTHON, PYTHON_PATH } from "./python";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const ENV = { ...process.env, PYTHONPATH: PYTHON_PATH };
const SERVER = "from xrec_server.cli import main; main()";
const SUBJECT = "anna";

/** How a device stands. */
export interface Look {
  readonly state: string;
  readonly queued: number;
  readonly dead: number;
  readonly error: string | null;
  readonly epoch: number;
  readonly digest: string;
  readonly diverged: boolean;
  readonly consent: Readonly<Record<string, boolean>>;
  readonly events: readonly (readonly [id: string, atMs: number, itemId: string])[];
}

/** One device. */
export interface Device {
  record(item: string, count: number): Promise<unknown>;
  forget(itemId?: string): Promise<unknown>;
  consent(purpose: string, granted: boolean): Promise<unknown>;
  look(): Promise<Look>;
  close(): Promise<unknown>;
  stop?(): Promise<unknown>;
  start?(): Promise<unknown>;
}

/** The server over files in a folder; it may be killed and started again, at the same port. */
export class Server {
  private child: ChildProcess | null = null;
  port = 0;

  constructor(
    readonly folder: string,
    private readonly origins: readonly string[],
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get keys(): string {
    return join(this.folder, "dev");
  }

  token(): string {
    return execFileSync(PYTHON, ["-c", SERVER, "keygen-dev", this.keys, "--subject", SUBJECT], { env: ENV, stdio: "pipe" }).toString().trim();
  }

  async start(): Promise<void> {
    const files = ["--database", join(this.folder, "profiles.db"), "--ledger", join(this.folder, "ledger.db")];
    const keys = ["--keys", join(this.keys, "jwks.json"), "--secret", join(this.keys, "secret"), "--port", String(this.port)];
    const words = ["-c", SERVER, "serve", ...files, ...keys, ...this.origins.flatMap((one) => ["--origin", one]), "--events-per-minute", "1000000"];
    this.child = spawn(PYTHON, words, { env: ENV, stdio: ["ignore", "pipe", "ignore"] });
    const [line] = (await once(createInterface(this.child.stdout!), "line")) as [string];
    this.port = (JSON.parse(line) as { port: number }).port;
  }

  async kill(): Promise<void> {
    if (!this.child) return;
    const gone = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await gone;
    this.child = null;
  }
}

/** A device of the Python SDK, in a process of its own. */
export class PythonDevice implements Device {
  private readonly child: ChildProcess;
  private readonly lines: Interface;
  private readonly ended: Promise<never>;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(server: Server, path: string) {
    const words = [join(ROOT, "tests/e2e/device.py"), path, server.url, server.keys, SUBJECT];
    this.child = spawn(PYTHON, words, { env: ENV, stdio: ["pipe", "pipe", "inherit"] });
    this.lines = createInterface(this.child.stdout!);
    this.ended = once(this.child, "exit").then(() => Promise.reject(new Error("the Python device has ended")));
    this.ended.catch(() => undefined);
  }

  record = (item: string, count: number) => this.ask({ do: "record", item, count });
  forget = (itemId?: string) => this.ask({ do: "forget", named: itemId === undefined ? {} : { item_id: itemId } });
  consent = (purpose: string, granted: boolean) => this.ask({ do: "consent", purpose, granted });
  look = () => this.ask({ do: "look" }) as Promise<Look>;

  async close(): Promise<void> {
    const gone = once(this.child, "exit");
    this.child.stdin!.end();
    await gone;
  }

  private ask(asked: object): Promise<unknown> {
    const answered = this.turn.then(async () => {
      const answer = once(this.lines, "line");
      this.child.stdin!.write(`${JSON.stringify(asked)}\n`);
      const [line] = (await Promise.race([answer, this.ended])) as [string];
      const said = JSON.parse(line) as { refused?: string } | null;
      if (said?.refused) throw new Error(said.refused);
      return said;
    });
    this.turn = answered.catch(() => undefined);
    return answered;
  }
}

/** Return a device of this package in Node: over a file, or in memory. */
export async function nodeDevice(server: Server, path: string | null): Promise<Device> {
  const { deviceOver } = (await import(new URL("./device.mjs", import.meta.url).href)) as {
    deviceOver(profile: SyncedProfile, url: string, token: string): Promise<Device>;
  };
  return deviceOver(path === null ? new SyncedProfile(new MemoryDisk()) : await openProfile(path), server.url, server.token());
}

/** Return a device in a page of Chromium, over IndexedDB. */
export async function pageDevice(server: Server, site: Site, policy: string, profile: string): Promise<Device & { page: Page }> {
  const page = await site.visit(policy, { server: server.url, token: server.token(), profile });
  await page.waitForSelector("#answer", { state: "attached" });
  const ask = (method: string, ...given: unknown[]): Promise<unknown> =>
    page.evaluate(
      ([name, words]) => {
        const { device } = globalThis as unknown as { device: Record<string, (...words: unknown[]) => unknown> };
        return device[name](...words);
      },
      [method, given] as const,
    );
  return {
    page,
    record: (item, count) => ask("record", item, count),
    forget: (itemId) => ask("forget", ...(itemId === undefined ? [] : [itemId])),
    consent: (purpose, granted) => ask("consent", purpose, granted),
    look: () => ask("look") as Promise<Look>,
    stop: () => ask("stop"),
    start: () => ask("start"),
    async close() {
      await ask("close");
      await page.close();
    },
  };
}

/** Wait until something is so of the looks of all devices, and return them; fail after two minutes, saying how they stand. */
export async function until(devices: readonly Device[], holds: (looks: readonly Look[]) => boolean): Promise<readonly Look[]> {
  const end = Date.now() + 120_000;
  for (;;) {
    const looks = await Promise.all(devices.map((device) => device.look()));
    if (holds(looks)) return looks;
    if (Date.now() > end) {
      const brief = looks.map(({ events, ...rest }) => ({ ...rest, items: events.map(([, , item]) => item) }));
      throw new Error(`it did not come about: ${JSON.stringify(brief, null, 1)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Return whether all devices are in step with the server: all is said, all is heard, and their digests are equal. */
export function areInStep(looks: readonly Look[]): boolean {
  const isQuiet = looks.every(({ state, queued, diverged }) => state === "up_to_date" && queued === 0 && !diverged);
  return isQuiet && new Set(looks.map(({ digest, epoch }) => `${epoch} ${digest}`)).size === 1;
}

/** Return whether all devices are in step and show the same events at the same times. */
export function areAlike(looks: readonly Look[]): boolean {
  return areInStep(looks) && new Set(looks.map(({ events }) => JSON.stringify(events))).size === 1;
}
