/** A small fake of `wx` behind the adapter's own interface: files and storage in memory, a network that can be cut. */

import type { Weixin } from "../examples/mini-program/weixin";

/** What the phone has; `offered` is what the network gives, a status, or null where there is none. */
export class FakeWeixin {
  readonly files = new Map<string, ArrayBuffer>();
  readonly storage = new Map<string, string>();
  readonly requests: string[] = [];
  offered: ArrayBuffer | number | null = null;
  isFull = false;

  /** Return `wx`; it answers later, as the real one does. */
  get wx(): Weixin {
    const { files, storage } = this;
    const later = (act: () => void) => void Promise.resolve().then(act);
    const answer = <T>({ success, fail }: { success(found: T): void; fail(reason: { errMsg: string }): void }, found: () => T) =>
      later(() => {
        let value: T;
        try {
          value = found();
        } catch (error) {
          return fail({ errMsg: (error as Error).message });
        }
        success(value);
      });
    const found = <T>(value: T | undefined, message: string): T => {
      if (value === undefined) throw new Error(message);
      return value;
    };
    const room = () => {
      if (this.isFull) throw new Error("setStorage:fail exceed storage max size 10Mb");
    };
    return {
      env: { USER_DATA_PATH: "wxfile://usr" },
      request: (asked) => {
        this.requests.push(asked.url);
        answer(asked, () => {
          const offered = found(this.offered ?? undefined, "request:fail");
          return typeof offered === "number" ? { data: new ArrayBuffer(0), statusCode: offered } : { data: offered, statusCode: 200 };
        });
      },
      getFileSystemManager: () => ({
        readFile: (asked) => answer(asked, () => ({ data: found(files.get(asked.filePath), "readFile:fail no such file").slice(0) })),
        writeFile: (asked) => answer(asked, () => (room(), void files.set(asked.filePath, asked.data.slice(0)))),
        rename: (asked) =>
          answer(asked, () => {
            files.set(asked.newPath, found(files.get(asked.oldPath), "rename:fail no such file"));
            files.delete(asked.oldPath);
          }),
      }),
      getStorage: (asked) => answer(asked, () => ({ data: JSON.parse(found(storage.get(asked.key), "getStorage:fail data not found")) as unknown })),
      setStorage: (asked) => answer(asked, () => (room(), void storage.set(asked.key, JSON.stringify(asked.data)))),
      removeStorage: (asked) => answer(asked, () => void storage.delete(asked.key)),
    };
  }
}

export { fetchUpdate, openRecommender } from "../examples/mini-program/weixin";
export { homePage } from "../examples/mini-program/page";
