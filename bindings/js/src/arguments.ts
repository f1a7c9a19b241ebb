/** Check what a caller gives. */

import { UsageError } from "./errors";
import { hasLoneSurrogate } from "./utf8";

const MAX_TEXT = 512;

/** Throw UsageError `usage.NAME` unless a value is a whole number within the bounds. */
export function checkWhole(name: string, value: number, least: number, most = Infinity): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new UsageError(`usage.${name}`, `${name} is ${String(value)}; expected a whole number from ${least} to ${most}`);
}

/** Throw UsageError `usage.NAME` unless a value is a text that every profile can keep. */
export function checkText(name: string, text: unknown): void {
  const isRight = typeof text === "string" && text !== "" && [...text].length <= MAX_TEXT;
  if (!isRight || text.includes("\0") || hasLoneSurrogate(text)) {
    const message = `${name} is ${JSON.stringify(text)}; expected a text of 1 to ${MAX_TEXT} characters`;
    throw new UsageError(`usage.${name}`, message);
  }
}
