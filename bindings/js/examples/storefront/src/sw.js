/**
 * The service worker: every file of one build and its bundle is on the device before it answers from any of them. A newer
 * worker takes over once no page of this one is open, so that no page is made of two builds.
 */

const FILES = __FILES__; // by path the hash; the build puts them in
const NAME = "__NAME__"; // and a name that changes with any of them
const CUT = "/cut";

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(NAME);
    // All or nothing: one that is cut short, missing, or of another build refuses them all, and the worker with them.
    await cache.addAll(Object.entries(FILES).map(([path, integrity]) => new Request(path, { cache: "no-cache", integrity })));
  };
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const takeOver = async () => {
    const names = await caches.keys();
    await Promise.all(names.filter((name) => name !== NAME && name !== "network").map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(takeOver());
});

// The switch lies in a cache: a worker may end and begin again at any time.
const isCut = async () => Boolean(await (await caches.open("network")).match(CUT));

// What is under way when the network is cut ends, as it would; a page that gives a request up is not heard here.
const underWay = new Set();
const overNetwork = async (request) => {
  const controller = new AbortController();
  underWay.add(controller);
  try {
    return await fetch(request, { signal: controller.signal });
  } catch {
    return Response.error();
  } finally {
    underWay.delete(controller);
  }
};

self.addEventListener("message", (event) => {
  const answer = async () => {
    const network = await caches.open("network");
    if (event.data.cut === true) {
      await network.put(CUT, new Response("cut"));
      for (const controller of underWay) controller.abort();
    }
    if (event.data.cut === false) await network.delete(CUT);
    const cut = await isCut();
    for (const client of await self.clients.matchAll()) client.postMessage({ cut });
  };
  event.waitUntil(answer());
});

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (new URL(url).origin !== location.origin) return;
  const answer = async () => {
    const cache = await caches.open(NAME);
    const kept = method === "GET" && (await cache.match(event.request, { ignoreSearch: true, ignoreVary: true }));
    if (kept) return kept;
    return (await isCut()) ? Response.error() : overNetwork(event.request);
  };
  event.respondWith(answer());
});
