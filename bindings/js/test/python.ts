/** The Python of this repository, which some tests ask: `XREC_PYTHON`, or that of .venv. */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const OWN = join(ROOT, ".venv/bin/python");

export const PYTHON = process.env.XREC_PYTHON ?? (existsSync(OWN) ? OWN : "python3");
export const PYTHON_PATH = ["sdk", "server"].map((name) => join(ROOT, name)).join(":");

/** Return whether there is a Python with the SDK and the server; say aloud where there is none. */
export function hasPython(): boolean {
  const env = { ...process.env, PYTHONPATH: PYTHON_PATH };
  const isThere = spawnSync(PYTHON, ["-c", "import xrec_server.app, urllib3"], { env }).status === 0;
  if (!isThere) console.warn(`SKIPPED: ${PYTHON} has no xrec_server (make test makes .venv, or set XREC_PYTHON)`);
  return isThere;
}
