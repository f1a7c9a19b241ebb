/** Core answers the vectors with no compiler at all: `node --jitless` has neither machine code nor WebAssembly. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { expect, test } from "vitest";

import { INDEX, readCase, VECTORS, zipOf } from "./vectors";

test("core answers every case under node --jitless", () => {
  const folder = mkdtempSync(join(tmpdir(), "xrec-"));
  try {
    for (const bundle of INDEX.bundles) writeFileSync(join(folder, `${bundle}.zip`), zipOf(bundle));
    const script = fileURLToPath(new URL("./jitless.mjs", import.meta.url));
    const printed = execFileSync(process.execPath, ["--jitless", script, VECTORS, folder], { encoding: "utf8" });
    const calls = INDEX.cases.reduce((sum, name) => sum + readCase(name).calls.length, 0);
    expect(printed.trim()).toBe(`${INDEX.cases.length} cases, ${calls} calls`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
