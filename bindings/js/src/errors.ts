/**
 * The errors of xrec, by what the caller would do differently; codes are those of docs/errors.md in every language.
 *
 *     XrecError
 *     ├── UsageError            an argument is wrong: fix the call
 *     ├── BundleError           a bundle can't be used: keep the previous one
 *     │   ├── BundleDamaged     bytes are missing, changed or malformed: fetch it again
 *     │   ├── BundleUntrusted   not signed by a pinned key, or older than the floor: never use it
 *     │   └── BundleUnsupported made for another format or a newer SDK: update the app
 *     └── ProfileError          the local profile can't be opened or written
 */

/** Base of every error that xrec raises on purpose; `code` is stable across releases and languages. */
export class XrecError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** An argument is wrong; the call must be fixed. */
export class UsageError extends XrecError {}

/** A bundle can't be used; keep the previous one. */
export class BundleError extends XrecError {}

/** Bytes of the bundle are missing, changed or malformed; fetch it again. */
export class BundleDamaged extends BundleError {}

/** The bundle is not signed by a pinned key, or older than the newest that was loaded; never use it. */
export class BundleUntrusted extends BundleError {}

/** The bundle is of another format version or needs a newer SDK; update the app. */
export class BundleUnsupported extends BundleError {}

/** The local profile can't be opened, read or written. */
export class ProfileError extends XrecError {}
