/** `@xrec/sdk/core` in a WeChat mini-program: the bundle over wx.request and kept in a file, the profile in wx's storage. */

import {
  BundleDamaged,
  fromRecord,
  ProfileError,
  Recommender,
  toRecord,
  withConsent,
  withEvent,
  XrecError,
  type Consent,
  type Event,
  type EventRecord,
  type Kept,
  type ProfileStore,
} from "@xrec/sdk/core";

const PROFILE = "xrec-profile";
const CONSENTS = "xrec-consents";
const RELEASE = "xrec-release";
const MOST_EVENTS = 1000; // about 200 kB of JSON; a key of wx's storage holds 1 MB

interface Answered<T> {
  success(found: T): void;
  fail(reason: { errMsg: string }): void;
}

/** The part of `wx` that is used (developers.weixin.qq.com/miniprogram/dev/api). */
export interface Weixin {
  readonly env: { readonly USER_DATA_PATH: string };
  request(asked: { url: string; responseType: "arraybuffer" } & Answered<{ data: ArrayBuffer; statusCode: number }>): unknown;
  getFileSystemManager(): {
    readFile(asked: { filePath: string } & Answered<{ data: ArrayBuffer }>): void;
    writeFile(asked: { filePath: string; data: ArrayBuffer } & Answered<unknown>): void;
    rename(asked: { oldPath: string; newPath: string } & Answered<unknown>): void;
  };
  getStorage(asked: { key: string } & Answered<{ data: unknown }>): void;
  setStorage(asked: { key: string; data: unknown } & Answered<unknown>): void;
  removeStorage(asked: { key: string } & Answered<unknown>): void;
}

/** What the mini-program decides. */
export interface Options {
  /** Where the zip of the bundle is; its host must be among the mini-program's request domains. */
  readonly url: string;
  readonly trustedKeys: readonly string[];
}

function asked<T>(call: (answered: Answered<T>) => void): Promise<T> {
  return new Promise((success, reject) => call({ success, fail: ({ errMsg }) => reject(new Error(errMsg)) }));
}

/**
 * Return the Recommender of the bundle on the phone, or, at the first start or where that one is damaged, of the one at
 * the URL. Throws XrecError where neither can be had.
 */
export async function openRecommender(wx: Weixin, { url, trustedKeys }: Options): Promise<Recommender> {
  const profile = await StorageProfile.open(wx);
  const minimumRelease = await keptRelease(wx);
  const kept = await readBundle(wx);
  if (kept) {
    const load = Recommender.load(kept, { trustedKeys, minimumRelease, profile });
    const found = await load.catch((error: unknown) => {
      if (error instanceof BundleDamaged) return null; // such as cut by a full phone: fetch it again
      throw error;
    });
    if (found) return found;
  }
  const fresh = await fetchBundle(wx, url);
  const recommender = await Recommender.load(fresh, { trustedKeys, minimumRelease, profile });
  await keepBundle(wx, fresh, recommender);
  return recommender;
}

/**
 * Fetch what the URL offers and keep it for the next start, if it is a newer release in order. Returns the release that
 * the next start will have. Throws XrecError, and leaves what is kept, where the bundle is refused or can't be fetched.
 */
export async function fetchUpdate(wx: Weixin, { url, trustedKeys }: Options): Promise<number> {
  const minimumRelease = await keptRelease(wx);
  const fresh = await fetchBundle(wx, url);
  const recommender = await Recommender.load(fresh, { trustedKeys, minimumRelease });
  const { release } = recommender.bundle.manifest;
  if (release > minimumRelease) await keepBundle(wx, fresh, recommender);
  await recommender.close();
  return release;
}

function pathOf(wx: Weixin): string {
  return `${wx.env.USER_DATA_PATH}/bundle.xrec.zip`;
}

async function fetchBundle(wx: Weixin, url: string): Promise<ArrayBuffer> {
  const { data, statusCode } = await asked<{ data: ArrayBuffer; statusCode: number }>((answered) => {
    wx.request({ url, responseType: "arraybuffer", ...answered });
  }).catch((cause: unknown) => {
    throw new BundleDamaged("bundle.unreadable", `the bundle can't be fetched: ${String(cause)}`, { cause });
  });
  if (statusCode === 200) return data;
  const code = statusCode === 404 ? "bundle.not_found" : "bundle.unreadable";
  throw new BundleDamaged(code, `the bundle can't be fetched: ${statusCode}`);
}

async function readBundle(wx: Weixin): Promise<ArrayBuffer | null> {
  const reading = asked<{ data: ArrayBuffer }>((answered) => wx.getFileSystemManager().readFile({ filePath: pathOf(wx), ...answered }));
  return reading.then(({ data }) => data, () => null); // not there before the first start
}

/** The file is whole or not there: a part is renamed. The floor rises after it, so that no crash leaves it above the file. */
async function keepBundle(wx: Weixin, bytes: ArrayBuffer, { bundle }: Recommender): Promise<void> {
  const files = wx.getFileSystemManager();
  const part = `${pathOf(wx)}.part`;
  try {
    await asked((answered) => files.writeFile({ filePath: part, data: bytes, ...answered }));
    await asked((answered) => files.rename({ oldPath: part, newPath: pathOf(wx), ...answered }));
    await asked((answered) => wx.setStorage({ key: RELEASE, data: bundle.manifest.release, ...answered }));
  } catch {
    // A phone without room recommends all the same, and fetches again at its next start.
  }
}

/** The newest release that was ever kept: an older one is refused, whoever offers it. */
async function keptRelease(wx: Weixin): Promise<number> {
  const release = await readStorage(wx, RELEASE);
  return typeof release === "number" ? release : 0;
}

function readStorage(wx: Weixin, key: string): Promise<unknown> {
  return asked<{ data: unknown }>((answered) => wx.getStorage({ key, ...answered })).then(({ data }) => data, () => null);
}

/** What is kept of one user in wx's storage: the events under one key, what they consented to under another. */
export class StorageProfile implements ProfileStore {
  private turn: Promise<unknown> = Promise.resolve();
  private isClosed = false;

  private constructor(
    private readonly wx: Weixin,
    private kept: Kept,
  ) {}

  static async open(wx: Weixin): Promise<StorageProfile> {
    const [stored, consents] = [await readStorage(wx, PROFILE), await readStorage(wx, CONSENTS)];
    try {
      const events = ((stored ?? []) as EventRecord[]).map(fromRecord);
      return new StorageProfile(wx, { events, consents: (consents ?? []) as Consent[] });
    } catch (cause) {
      throw new ProfileError("profile.damaged", "the profile in wx's storage is damaged; remove it and start anew", { cause });
    }
  }

  add(event: Event): Promise<void> {
    return this.inTurn(async () => {
      const kept = withEvent(this.kept, event, MOST_EVENTS);
      await asked((answered) => this.wx.setStorage({ key: PROFILE, data: kept.events.map(toRecord), ...answered }));
      this.kept = kept;
    });
  }

  setConsent(consent: Consent): Promise<void> {
    return this.inTurn(async () => {
      const kept = withConsent(this.kept, consent);
      await asked((answered) => this.wx.setStorage({ key: CONSENTS, data: kept.consents, ...answered }));
      this.kept = kept;
    });
  }

  async read(): Promise<Kept> {
    this.checkOpen();
    return this.kept;
  }

  forget(): Promise<number> {
    return this.inTurn(async () => {
      const { events, consents } = this.kept;
      await asked((answered) => this.wx.removeStorage({ key: PROFILE, ...answered }));
      this.kept = { events: [], consents };
      return events.length;
    });
  }

  async close(): Promise<void> {
    await this.turn;
    this.isClosed = true;
  }

  private checkOpen(): void {
    if (this.isClosed) throw new ProfileError("profile.closed", "the profile is closed; open it again");
  }

  /** One write after the other; what fails leaves what is kept as it was. */
  private inTurn<T>(write: () => Promise<T>): Promise<T> {
    const done = this.turn.then(async () => {
      this.checkOpen();
      try {
        return await write();
      } catch (cause) {
        if (cause instanceof XrecError) throw cause;
        const code = /exceed|quota|limit/i.test(String(cause)) ? "profile.full" : "profile.unavailable";
        throw new ProfileError(code, `wx's storage can't be written: ${String(cause)}`, { cause });
      }
    });
    this.turn = done.catch(() => undefined);
    return done;
  }
}
