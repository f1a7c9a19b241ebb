/** The service worker, which keeps the shop on the device, and the switch that cuts the network off. */

let isCut = false;
const listeners = new Set<() => void>();

/** Return whether the network is gone, or cut off. */
export function isOffline(): boolean {
  return isCut || !navigator.onLine;
}

/** Hear when that changes. */
export function whenNetworkChanges(hear: () => void): void {
  listeners.add(hear);
}

/** Cut the network off for every page of the shop, or let it in again. */
export async function cutNetwork(cut: boolean): Promise<void> {
  const { active } = await navigator.serviceWorker.ready;
  active?.postMessage({ cut });
}

function tell(): void {
  for (const hear of listeners) hear();
}

window.addEventListener("online", tell);
window.addEventListener("offline", tell);
if ("serviceWorker" in navigator) {
  navigator.serviceWorker.addEventListener("message", ({ data }) => {
    isCut = (data as { cut: boolean }).cut;
    tell();
  });
  void navigator.serviceWorker.register("/sw.js").then(async () => {
    (await navigator.serviceWorker.ready).active?.postMessage("how is it?");
  });
}
