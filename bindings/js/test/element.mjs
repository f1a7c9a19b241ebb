/** A page with a list of recommendations. */

import { Recommender } from "/dist/core.js";
import { defineRecommendations } from "/dist/element.js";
import { openProfile } from "/dist/syncBrowser.js";

const { key } = await (await fetch("/asked.json")).json();
globalThis.profile = await openProfile("element");
globalThis.said = [];
for (const type of ["xrec-ready", "xrec-select", "xrec-error"]) {
  addEventListener(type, ({ detail }) => said.push([type, detail.itemId ?? detail.code ?? detail.recommender.bundle.manifest.name]));
}
let loads = 0;
const counted = { load: (...given) => (loads++, Recommender.load(...given)) };
globalThis.loads = () => loads;
defineRecommendations(counted, { trustedKeys: [key], profile });
