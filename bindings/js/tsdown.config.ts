import { defineConfig } from "tsdown";

const shared = { minify: true, target: "es2022", platform: "neutral" } as const;

export default defineConfig([
  {
    ...shared,
    entry: {
      browser: "src/browser.ts",
      node: "src/node.ts",
      core: "src/core.ts",
      indexeddb: "src/profileIndexedDb.ts",
      element: "src/element.ts",
      delta: "src/delta.ts",
      sync: "src/sync/node.ts",
      syncBrowser: "src/sync/browser.ts",
    },
    format: ["esm", "cjs"],
    dts: true,
    deps: { neverBundle: [/^onnxruntime-/, /^node:/], onlyBundle: ["@noble/ed25519", "@noble/hashes"] },
  },
  // What runs where no test framework does: in a browser, in node --jitless, and the benchmark.
  {
    ...shared,
    entry: { walk: "test/walk.ts", engines: "bench/engines.ts" },
    outDir: "build",
    format: "esm",
    dts: false,
    deps: { neverBundle: [/^node:/, "playwright-core"] },
  },
  // The mini-program's adapter in one file, as its tools would make it.
  {
    ...shared,
    entry: { miniProgram: "test/fakeWeixin.ts" },
    outDir: "build",
    clean: false,
    format: "cjs",
    outExtensions: () => ({ js: ".js" }),
    outputOptions: { codeSplitting: false },
    dts: false,
    deps: { onlyBundle: ["@noble/ed25519", "@noble/hashes"] },
  },
]);
