/** Experiments: the arm that a user is in, decided on the device, and what the id of a list says of its origin. */

import { platformCrypto } from "./crypto";
import { UsageError } from "./errors";
import { newEventId } from "./eventId";
import { encodeUtf8 } from "./utf8";

/** One way that an experiment compares. */
export interface Arm {
  readonly experiment: string;
  readonly name: string;
}

/**
 * Return the arm of a unit; the same for the same arguments, on every device and in every language.
 *
 * `unit` is a text that stays as it is for whom the experiment should stay as it is: the app's id of the user, the same on
 * all their devices, or of the installation. It is hashed here and leaves the device nowhere. `arms` are names and shares, in
 * order; a plain object has an order of its own for names of digits: give a Map, or pairs. The first 8 bytes of SHA-256 of
 * `xrec-arm NUL experiment NUL unit`, as a fraction, fall into one share.
 *
 * Throws UsageError `usage.arm` for a name that is not 1 to 64 of `A-Z a-z 0-9 _ -`, or shares of no sum.
 */
export async function assign(
  experiment: string,
  unit: string,
  arms: Readonly<Record<string, number>> | Iterable<readonly [string, number]>,
): Promise<Arm> {
  const shares = Symbol.iterator in arms ? [...arms] : Object.entries(arms);
  for (const name of [experiment, ...shares.map(([name]) => name)]) checkName(name);
  const sum = shares.reduce((sum, [, share]) => sum + share, 0);
  if (!shares.every(([, share]) => Number.isFinite(share) && share >= 0) || !sum) {
    const found = JSON.stringify(shares.map(([, share]) => share));
    throw new UsageError("usage.arm", `the shares are ${found}; expected numbers from 0, one of them above it`);
  }
  const digest = await platformCrypto().sha256(encodeUtf8(`xrec-arm\0${experiment}\0${unit}`));
  const view = new DataView(digest.buffer, digest.byteOffset);
  let left = ((view.getUint32(0) * 2 ** 32 + view.getUint32(4)) / 2 ** 64) * sum;
  for (const [name, share] of shares) {
    if (left < share) return { experiment, name };
    left -= share;
  }
  return { experiment, name: shares.filter(([, share]) => share > 0).pop()![0] }; // What rounding left is the last one's.
}

/** Return a new id of a list, which says the bundle's release and the arm: `UUIDv7.3` or `UUIDv7.3.rank=new`. */
export function listId(release: number, arm: Arm | null): string {
  const id = `${newEventId()}.${release}`;
  if (!arm) return id;
  const { experiment, name } = arm;
  for (const one of [experiment, name]) checkName(one);
  return `${id}.${experiment}=${name}`;
}

function checkName(name: unknown): void {
  if (typeof name === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(name)) return;
  throw new UsageError("usage.arm", `the name is ${JSON.stringify(name)}; expected 1 to 64 of A-Z a-z 0-9 _ -`);
}
