/** The network, all of it: one request at a time to the sync server, bounded in bytes and time, that may be cut. */

import { UsageError } from "../errors";
import { decodeUtf8 } from "../utf8";
import { LIMITS, SyncError } from "./values";

const GZIP_FROM_BYTES = 1_024;
const ANSWER_MS = 60_000;
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];
export const UNREACHABLE = "sync.unreachable";
export const UNAUTHORISED = "sync.unauthorised";
const REFUSED = "sync.refused";

/** Gives the bearer token of the user; asked before the first request and whenever the server no longer takes it. */
export type TokenProvider = () => string | Promise<string>;

/** The server could not be asked or did not answer; `retryAfterMs` is what it said about when to come again. */
export class AskError extends SyncError {
  constructor(
    code: string,
    message: string,
    readonly status = 0,
    readonly retryAfterMs = 0,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** Return the address without a slash at its end; UsageError unless it is https, or http to this machine. */
export function checkUrl(url: string): string {
  let parts: URL | null = null;
  try {
    parts = new URL(url);
  } catch {
    // said below
  }
  const isSafe = parts?.protocol === "https:" || (parts?.protocol === "http:" && LOOPBACK.includes(parts.hostname));
  if (!parts || !isSafe || parts.search || parts.hash || parts.username) {
    throw new UsageError("usage.sync_url", `the sync server is ${JSON.stringify(url)}; expected https://host, or http to localhost`);
  }
  return parts.href.replace(/\/+$/, "");
}

/** One request at a time to the server at `url`. */
export class Line {
  private token = "";
  private current: AbortController | null = null;

  constructor(
    private readonly url: string,
    private readonly tokenProvider: TokenProvider,
  ) {}

  /** Return the body of a 200 answer; AskError for anything else. `waitMs` is how long the server may hold it back. */
  async ask(method: string, path: string, body: Uint8Array | null = null, waitMs = 0): Promise<Uint8Array> {
    if (this.token) {
      try {
        return await this.request(method, path, body, waitMs);
      } catch (failure) {
        if (!(failure instanceof AskError) || failure.status !== 401) throw failure;
      }
    }
    this.token = await this.freshToken();
    return this.request(method, path, body, waitMs);
  }

  /** End whatever request is under way; it fails as unreachable. */
  cut(): void {
    this.current?.abort();
  }

  private async freshToken(): Promise<string> {
    let token: unknown;
    try {
      token = await this.tokenProvider();
    } catch (cause) {
      throw new AskError(UNAUTHORISED, "the token provider failed", 0, 0, { cause });
    }
    if (typeof token === "string" && /^[\x21-\x7e]+$/.test(token)) return token;
    throw new AskError(UNAUTHORISED, "the token provider gave no token");
  }

  private async request(method: string, path: string, body: Uint8Array | null, waitMs: number): Promise<Uint8Array> {
    const controller = new AbortController();
    this.current = controller;
    const timer = setTimeout(() => controller.abort(), waitMs + ANSWER_MS);
    let [answer, bytes]: [Response, Uint8Array] = [null!, null!];
    try {
      const headers: Record<string, string> = { Authorization: `Bearer ${this.token}` };
      if (body) headers["Content-Type"] = "application/json";
      const sent = body && body.length >= GZIP_FROM_BYTES ? await zipped(body) : null;
      if (sent) headers["Content-Encoding"] = "gzip";
      const options: RequestInit = { method, headers, body: (sent ?? body) as BodyInit | null, signal: controller.signal };
      answer = await fetch(this.url + path, { ...options, cache: "no-store", credentials: "omit", redirect: "error" });
      bytes = await bounded(answer);
    } catch (cause) {
      throw new AskError(UNREACHABLE, "the sync server can't be reached", 0, 0, { cause });
    } finally {
      clearTimeout(timer);
      this.current = null;
    }
    if (answer.status !== 200) throw refusalOf(answer, bytes);
    return bytes;
  }
}

async function zipped(body: Uint8Array): Promise<Uint8Array | null> {
  if (typeof CompressionStream !== "function") return null;
  const stream = new Blob([body as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return what comes, as inflated; throw where it is too much. */
async function bounded(answer: Response): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = answer.body?.getReader();
  for (;;) {
    const { done = true, value } = (await reader?.read()) ?? {};
    if (done || !value) break;
    parts.push(value);
    length += value.length;
    if (length <= LIMITS.answer_bytes) continue;
    await reader!.cancel();
    throw new Error(`the answer is longer than ${LIMITS.answer_bytes} bytes`);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function refusalOf(answer: Response, bytes: Uint8Array): AskError {
  const isUnauthorised = answer.status === 401 || answer.status === 403;
  const wait = answer.headers.get("Retry-After") ?? "";
  const retryAfterMs = /^\d{1,6}$/.test(wait) ? Number(wait) * 1000 : 0;
  const code = isUnauthorised ? UNAUTHORISED : codeOf(bytes);
  return new AskError(code, `the sync server answered with status ${answer.status}`, answer.status, retryAfterMs);
}

function codeOf(bytes: Uint8Array): string {
  try {
    const { code } = JSON.parse(decodeUtf8(bytes)) as { code?: unknown };
    return typeof code === "string" ? code.slice(0, 64) : REFUSED;
  } catch {
    return REFUSED;
  }
}
