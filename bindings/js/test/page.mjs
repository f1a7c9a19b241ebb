/** What a page of the browser tests does: the task that its address names, started by the page itself, under its policy. */

const { searchParams } = new URL(location.href);
const entry = searchParams.get("entry");

const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const asked = async () => (await fetch("/asked.json")).json();
const codeOf = (loading) => loading.then(() => null, (error) => error.code);

const TASKS = {
  /** Walk every case and every damaged bundle, or the first `most` of each; give what is wrong. */
  async walk() {
    const [{ Recommender }, walker] = [await import(`/dist/${entry}.js`), await import("/build/walk.js")];
    const { key, ...all } = await asked();
    const [cases, recipes] = [all.cases, all.recipes].map((list) => list.slice(0, searchParams.get("most") ?? undefined));
    const [failures, providers] = [[], searchParams.get("providers")?.split(",")];
    const load = (bundle, options) => Recommender.load(bundle, { ...options, providers });
    for (const one of cases) {
      failures.push(...(await walker.walkCase(load, await bytes(`/${one.bundle}.zip`), key, one)));
    }
    for (const [place, recipe] of recipes.entries()) {
      const code = await walker.codeOf(load, await bytes(`/bad/${place}.zip`), key, recipe);
      if (code !== recipe.code) failures.push(`${recipe.name}: ${code} instead of ${recipe.code}`);
    }
    return [`${cases.length} cases, ${recipes.length} recipes`, ...failures];
  },

  /** Try to make code, and to load the engine that needs it. */
  async forbidden() {
    const { Recommender } = await import("/dist/browser.js");
    const { key } = await asked();
    const code = await codeOf(Recommender.load("/pool.xrec.zip", { trustedKeys: [key] }));
    try {
      return [code, new Function("return 'made'")()];
    } catch (error) {
      return [code, error.name];
    }
  },

  /** Ask for WebGPU where there is no adapter: alone, then with WebAssembly to fall back to; and for what is no provider. */
  async adapter() {
    const { Recommender } = await import("/dist/browser.js");
    const { key } = await asked();
    const load = (providers) => Recommender.load("/pool.xrec.zip", { trustedKeys: [key], providers });
    const list = async (recommender) => (await recommender.recommend({ k: 5 })).map(({ itemId }) => itemId).join();
    const same = (await list(await load(["webgpu", "wasm"]))) === (await list(await load(undefined)));
    return [await codeOf(load(["webgpu"])), await codeOf(load(["cuda"])), await codeOf(load([])), same];
  },

  /** Load by the address of a zip, of a folder, and of nothing. */
  async urls() {
    const { Recommender } = await import("/dist/core.js");
    const { key } = await asked();
    const load = (url) => Recommender.load(url, { trustedKeys: [key] });
    const loaded = await Promise.all(["/pool.xrec.zip", "/pool.xrec/", `${location.origin}/lowpass.xrec/`].map(load));
    const counts = loaded.map(({ bundle }) => bundle.manifest.itemCount);
    return [...counts, await codeOf(load("/none.zip")), await codeOf(load("/unsigned.xrec/"))];
  },

  /** Make the next bundle of a delta, load it, and try the delta with more after its end, and on the bundle of a folder. */
  async delta() {
    const [{ applyDelta }, { Recommender }] = [await import("/dist/delta.js"), await import("/dist/core.js")];
    const { key, delta } = await asked();
    const [content, trust] = [Uint8Array.from(atob(delta), (letter) => letter.charCodeAt(0)), { trustedKeys: [key] }];
    const { bundle } = await Recommender.load(await applyDelta("/lowpass.xrec/", content, trust), trust);
    const more = codeOf(applyDelta("/lowpass.xrec.zip", new Uint8Array([...content, 0]), trust));
    return [bundle.manifest.release, await more, await codeOf(applyDelta("/pool.xrec.zip", content, trust))];
  },

  /** Ask several lists at once, and one after the other; give how many there are and how many differ. */
  async together() {
    const { Recommender } = await import(`/dist/${entry}.js`);
    const { key } = await asked();
    const recommender = await Recommender.load("/pool.xrec.zip", { trustedKeys: [key] });
    await recommender.setConsent("personalise", true);
    await recommender.record("view", "sku-9", { device: "pc", atMs: 5 });
    const list = async (k) => JSON.stringify((await recommender.recommend({ k })).map(({ itemId }) => itemId));
    const sizes = [3, 30, 7, 140, 1, 12];
    const together = await Promise.all(sizes.map(list));
    let wrong = 0;
    for (const [place, k] of sizes.entries()) wrong += Number(together[place] !== (await list(k)));
    return [together.length, wrong];
  },

  /** Record four events into a profile of at most three, after one that nobody has consented to. */
  async record() {
    const recommender = await withProfile();
    const refused = await codeOf(recommender.record("view", "sku-9", { device: "pc" }));
    await recommender.setConsent("personalise", true, { policy: "2026-11" });
    for (let at = 0; at < 4; at++) await recommender.record("view", `sku-${at}`, { device: "pc", atMs: 1000 + at });
    const kept = await recommender.profile.read();
    return [refused, kept === (await recommender.profile.read()), ...kept.events.map(({ itemId }) => itemId)];
  },

  /** Withdraw the consent in another page than the one that records; give what is kept, and what may be read. */
  async withdraw() {
    const [here, there] = [await withProfile(), await withProfile()];
    const list = async (options) => (await here.recommend({ k: 5, filterSeen: true, ...options })).map(({ itemId }) => itemId).join();
    const own = await list({});
    await there.setConsent("personalise", false);
    const plain = await list({ personalised: false });
    const isHidden = own !== plain && (await list({})) === plain;
    const refused = await codeOf(here.record("view", "sku-9", { device: "pc" }));
    const { events, consent } = await here.exportMyData();
    return [isHidden, refused, events.length, consent.personalise, (await here.profile.read()).consents.length];
  },

  /** Open a profile of version 1, which knew no consent. */
  async older() {
    const database = await new Promise((resolve) => {
      const request = indexedDB.open("older", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("events", { keyPath: "id" }).createIndex("inTime", ["atMs", "id"]);
        request.result.createObjectStore("changes");
      };
      request.onsuccess = () => resolve(request.result);
    });
    const event = { id: "a", atMs: 1, event: "view", itemId: "sku-9", device: "pc", value: null, recommendationId: null };
    const transaction = database.transaction("events", "readwrite");
    transaction.objectStore("events").add(event);
    await new Promise((resolve) => (transaction.oncomplete = resolve));
    database.close();
    const { IndexedDbProfile } = await import("/dist/browser.js");
    const profile = await IndexedDbProfile.open("older", 3);
    return [await codeOf(profile.add({ ...event, id: "b" })), await profile.read()];
  },

  /** Forget what an earlier page recorded. */
  async forget() {
    const recommender = await withProfile();
    const forgotten = await recommender.forget();
    const { events } = await recommender.exportMyData();
    await recommender.close();
    return [forgotten, events.length, await codeOf(recommender.recommend())];
  },
};

async function withProfile() {
  const [{ Recommender }, { IndexedDbProfile }] = [await import("/dist/core.js"), await import("/dist/browser.js")];
  const { key } = await asked();
  return Recommender.load("/pool.xrec.zip", { trustedKeys: [key], profile: await IndexedDbProfile.open("profile", 3) });
}

const answer = document.createElement("pre");
answer.id = "answer";
try {
  answer.textContent = JSON.stringify(await TASKS[searchParams.get("task")]());
} catch (error) {
  answer.textContent = JSON.stringify(`${error}\n${error.stack}`);
}
document.body.append(answer);
