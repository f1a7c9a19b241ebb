import { defineConfig } from "vitest/config";

// Two workers at most: a browser, a compiler and onnxruntime on a small machine get in each other's way. The time limits are for
// what hangs, not for what is slow.
export default defineConfig({ test: { include: ["test/*.test.ts"], maxWorkers: 2, testTimeout: 120_000, hookTimeout: 300_000 } });
