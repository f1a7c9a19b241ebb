/** Three devices side by side, with what they measured, the switch that cuts the network, and the way to be forgotten. */

import { element, replace } from "./dom";
import { cutNetwork, isOffline, whenNetworkChanges } from "./network";
import { Store, type Measured, type Standing } from "./store";
import { textsOf } from "./texts";

const DEVICES = ["phone", "pc", "mini_program"];
const LAST_LISTS = 50;

/** Return the release that the server offers, null where it can't be reached. */
async function serverRelease(): Promise<number | null> {
  try {
    return ((await (await fetch("/release.json", { cache: "no-store" })).json()) as { release: number }).release;
  } catch {
    return null;
  }
}

function frame(device: string): HTMLElement {
  return element(
    "figure",
    { class: "device", "data-device": device },
    element("figcaption", {}),
    element("div", { class: "screen" }, element("iframe", { src: `/shop.html?device=${device}`, name: device, title: device })),
  );
}

async function start(): Promise<void> {
  const store = await Store.open();
  const [head, panel] = [element("header", {}), element("section", { class: "panel" })];
  const frames = DEVICES.map(frame);
  const tabs = element("div", { class: "tabs", role: "group" });
  document.querySelector("#showcase")!.append(head, tabs, element("div", { class: "devices", "data-shown": "phone" }, ...frames), panel);
  const times: number[] = [];
  let [last, release]: [Measured | null, number | null] = [null, null];

  const standings = new Map<string, Standing>();

  const fact = (name: string, value: string, key: string) =>
    element("div", {}, element("dt", {}, name), element("dd", { "data-fact": key }, value));

  const draw = async () => {
    const { language, isServed } = await store.read();
    const texts = textsOf(language);
    const said = texts.showcase;
    document.documentElement.lang = language;
    document.title = said.title;
    const turn = () => void store.change((shared) => ({ language: shared.language === "en" ? "zh" : "en" }));
    const cut = () => void cutNetwork(!isOffline());
    replace(
      head,
      element("div", {}, element("h1", {}, said.title), element("p", {}, said.claim)),
      element(
        "div",
        { class: "controls" },
        element(
          "label",
          { class: "cut" },
          element("input", { type: "checkbox", role: "switch", checked: isOffline(), onchange: cut, "data-key": "cut" }),
          said.offline,
        ),
        element("button", { type: "button", onclick: turn, "data-key": "language", lang: language === "en" ? "zh" : "en" }, texts.other),
        element("button", { type: "button", class: "danger", onclick: () => store.say({ kind: "forget" }), "data-key": "forget" }, texts.forget),
      ),
    );
    frames.forEach((one, place) => {
      const name = texts.devices[DEVICES[place]];
      one.querySelector("figcaption")!.textContent = name;
      one.querySelector("iframe")!.title = `${texts.shop}: ${name}`;
    });
    const shownNow = document.querySelector<HTMLElement>(".devices")!;
    replace(
      tabs,
      ...DEVICES.map((device) =>
        element("button", { type: "button", "aria-pressed": String(shownNow.dataset.shown === device), "data-key": device, onclick: () => ((shownNow.dataset.shown = device), void draw()) }, texts.devices[device]),
      ),
    );
    const milliseconds = (value: number) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
    const sorted = [...times].sort((a, b) => a - b);
    const kept = standings.get(DEVICES[0])?.events ?? {};
    const counts = DEVICES.map((device) => `${texts.devices[device]}\u00a0${kept[device] ?? 0}`);
    const total = Object.values(kept).reduce((sum, count) => sum + count, 0);
    const inStep = DEVICES.map((device) => `${texts.devices[device]}\u00a0${said.stands(standings.get(device)?.sync, standings.get(device)?.queued ?? 0)}`);
    replace(
      panel,
      element(
        "dl",
        {},
        fact(said.last, last ? `${milliseconds(last.listMs)} (${texts.devices[last.device]})` : said.waiting, "last"),
        fact(said.median, sorted.length ? milliseconds(sorted[sorted.length >> 1]) : said.waiting, "median"),
        fact(said.load, last ? milliseconds(last.loadMs) : said.waiting, "load"),
        fact(said.bundle, last ? `${(last.bytes / 1e6).toFixed(2)} MB` : said.waiting, "bundle"),
        fact(said.catalogue, last ? said.items(last.items.toLocaleString(language)) : said.waiting, "catalogue"),
        fact(said.release, last ? String(last.release) : said.waiting, "release"),
        fact(said.signature, last ? `✓ ${said.verified} (${last.key.slice(8, 16)}…)` : said.waiting, "signature"),
        fact(said.events, `${total} (${counts.join(", ")})`, "events"),
        fact(said.sync, isServed ? inStep.join(", ") : said.shared, "sync"),
        fact(said.server, release === null ? said.serverGone : said.serverHas(release), "server"),
      ),
    );
  };

  const ask = async () => {
    release = await serverRelease();
    await draw();
  };
  store.listen((message) => {
    if (message.kind === "measured") {
      last = message.measured;
      times.push(last.listMs);
      times.splice(0, times.length - LAST_LISTS);
    }
    if (message.kind === "standing") standings.set(message.standing.device, message.standing);
    void draw();
  });
  whenNetworkChanges(() => void ask());
  await ask();
}

void start();
