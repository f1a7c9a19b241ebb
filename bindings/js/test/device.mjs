/** What a device of the sync tests does, in Node and in a page: record, forget, consent, say how it stands. */

const TIMING = { waitMs: 2_000, gatherMs: 20, lookEveryMs: 200, firstDelayMs: 50, longestDelayMs: 400 };

/** Return a device over a profile, syncing with the server at `url` under a token. */
export async function deviceOver(profile, url, token) {
  const sync = () => profile.startSync(url, () => token, { timing: TIMING });
  await sync();
  return {
    async record(item, count) {
      for (let place = 0; place < count; place++) {
        const event = { id: newId(), atMs: Date.now(), event: "view", itemId: `${item}-${place}`, device: "pc" };
        await profile.add({ ...event, value: null, recommendationId: null });
      }
    },
    forget: (itemId) => profile.forget(itemId === undefined ? {} : { itemId }),
    consent: (purpose, granted) => profile.setConsent({ purpose, granted, policy: "" }),
    stop: () => profile.stopSync(),
    start: sync,
    async look() {
      const [{ events, consents }, { standing }, status] = [await profile.read(), await profile.state(), await profile.syncStatus()];
      return {
        state: status.state,
        queued: status.queued,
        dead: status.dead,
        error: status.lastError,
        epoch: standing.epoch,
        digest: standing.digest,
        diverged: standing.is_diverged,
        consent: Object.fromEntries(consents.map(({ purpose, granted }) => [purpose, granted])),
        events: events.map(({ id, atMs, itemId }) => [id, atMs, itemId]),
      };
    },
    close: () => profile.close(),
  };
}

/** Return a new UUIDv7. */
function newId() {
  const random = crypto.getRandomValues(new Uint8Array(10));
  const digits = Date.now().toString(16).padStart(12, "0") + Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const versioned = `${digits.slice(0, 12)}7${digits.slice(13, 16)}8${digits.slice(17)}`;
  return versioned.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

if (globalThis.window) {
  const { openProfile } = await import("/dist/syncBrowser.js");
  const asked = new URL(location.href).searchParams;
  globalThis.device = await deviceOver(await openProfile(asked.get("profile")), asked.get("server"), asked.get("token"));
  document.body.append(Object.assign(document.createElement("pre"), { id: "answer", textContent: "true" }));
}
