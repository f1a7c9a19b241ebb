/** The page of the benchmark: it measures the engine that its address names and shows what came out. */

import { measure } from "/bench/ask.mjs";

const entry = new URL(location.href).searchParams.get("entry");
const { Recommender } = await import(`/dist/${entry}.js`);
const { key, cases, rounds } = await (await fetch("/asked.json")).json();
const bundle = new Uint8Array(await (await fetch("/bundle.zip")).arrayBuffer());
const answer = document.createElement("pre");
answer.textContent = JSON.stringify(await measure(Recommender.load, bundle, key, cases, rounds));
answer.id = "answer";
document.body.append(answer);
