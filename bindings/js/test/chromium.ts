/** A real Chromium over a small HTTP server on the loopback. */

import { existsSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium, type BrowserContext, type Page } from "playwright-core";

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const KINDS: Readonly<Record<string, string>> = { js: "text/javascript", mjs: "text/javascript", wasm: "application/wasm" };
const ORT = "/node_modules/onnxruntime-web/dist";
const IMPORTS = {
  "onnxruntime-web/wasm": `${ORT}/ort.wasm.bundle.min.mjs`,
  "onnxruntime-web/webgpu": `${ORT}/ort.webgpu.bundle.min.mjs`,
};
/** What gives Chromium a WebGPU adapter where there is no GPU. */
export const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** The policy of a page that may run scripts of its own, and nothing that is made at run time. */
export const STRICT = "default-src 'self'; script-src 'self' 'nonce-map'";
/** The same, but WebAssembly may be compiled. */
export const WITH_WASM = "default-src 'self'; script-src 'self' 'nonce-map' 'wasm-unsafe-eval'";

/** Return whether there is a Chromium; say aloud where there is none. */
export function hasChromium(): boolean {
  const isThere = existsSync(CHROMIUM);
  if (!isThere) console.warn(`SKIPPED: no Chromium at ${CHROMIUM} (apt-get install chromium, or set CHROMIUM)`);
  return isThere;
}

/** The built package, a page that runs `script`, and `files` by their paths. */
export class Site {
  private constructor(
    private readonly server: Server,
    private readonly context: BrowserContext,
  ) {}

  /** Serve, and start the browser. */
  static async open(script: string, files: ReadonlyMap<string, Uint8Array | string>, args: readonly string[] = []): Promise<Site> {
    const server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, "http://localhost");
      const content = pathname === "/" ? page(script) : (files.get(pathname) ?? packageFile(pathname));
      if (content === null) return void response.writeHead(404).end();
      const kind = pathname === "/" ? "text/html" : (KINDS[pathname.split(".").pop()!] ?? "application/octet-stream");
      const policy = searchParams.get("csp");
      response.writeHead(200, { "content-type": kind, ...(policy ? { "content-security-policy": policy } : {}) });
      response.end(content);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...args] });
    return new Site(server, await browser.newContext());
  }

  /** Where the pages come from. */
  get origin(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Open a page under a policy. */
  async visit(policy: string, task: Readonly<Record<string, string>>): Promise<Page> {
    const page = await this.context.newPage();
    page.setDefaultTimeout(120_000);
    await page.goto(`${this.origin}/?${new URLSearchParams({ csp: policy, ...task })}`);
    return page;
  }

  /** Open a page under a policy, which runs its task by itself, and return the answer that it shows. */
  async ask(policy: string, task: Readonly<Record<string, string>>): Promise<unknown> {
    const page = await this.visit(policy, task);
    const answer = await page.waitForSelector("#answer");
    const text = await answer.textContent();
    await page.close();
    return JSON.parse(text!);
  }

  async close(): Promise<void> {
    await this.context.browser()!.close();
    this.server.close();
  }
}

function page(script: string): string {
  const map = `<script type="importmap" nonce="map">${JSON.stringify({ imports: IMPORTS })}</script>`;
  return `<!doctype html><title>xrec</title>${map}<body><script type="module" src="${script}"></script>`;
}

function packageFile(path: string): Buffer | null {
  if (!/^\/(dist|build|test|bench|node_modules\/onnxruntime-web\/dist)\/[\w.-]+$/.test(path)) return null;
  const file = join(PACKAGE, path);
  return existsSync(file) ? readFileSync(file) : null;
}
