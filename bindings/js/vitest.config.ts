import { defineConfig } from "vitest/config";

// Two workers at most: a browser, a compiler and onnxruntime on a small machine get in each other's way.
export default defineConfig({ test: { include: ["test/*.test.ts"], maxWorkers: 2, testTimeout: 30_000 } });
