/** The shop on one device, which the address names: `shop.html?device=phone`. */

import { aisle, basket, home, privacy, product, search, type Shown } from "./pages";
import type { Aisle } from "./aisles";
import { element, replace, type Child } from "./dom";
import { isOffline, whenNetworkChanges } from "./network";
import { Session, type Question } from "./session";
import type { Language, Shared } from "./store";
import { textsOf, type Say } from "./texts";

const DEVICES = ["phone", "pc", "mini_program"];
const NOTICE_MS = 3500;
const MOST_QUERY = 200;
const asked = new URL(location.href).searchParams.get("device");
const device = DEVICES.find((name) => name === asked) ?? (matchMedia("(max-width: 40rem)").matches ? "phone" : "pc");
const holder = document.querySelector("#shop")!;
const [header, main, banner, status] = [
  element("header", { class: "top" }),
  element("main", { id: "lists", tabindex: -1 }),
  element("aside", { class: "ask", hidden: true }),
  element("p", { class: "said", role: "status", "aria-live": "polite" }),
];

document.documentElement.dataset.device = device;
holder.append(header, main, banner, status);
main.append(element("p", { class: "note loading" }, textsOf(navigator.language.startsWith("zh") ? "zh" : "en").loading));

let notice: { readonly say: Say; readonly end: ReturnType<typeof setTimeout> } | null = null;

function announce(say: Say, language: Language): void {
  clearTimeout(notice?.end);
  const end = setTimeout(() => ((notice = null), status.classList.remove("fresh")), NOTICE_MS);
  notice = { say, end };
  drawNotice(language);
  status.classList.add("fresh");
}

function drawNotice(language: Language): void {
  const text = notice?.say(textsOf(language));
  if (text && text !== status.textContent) status.textContent = text;
}

/** Which page the address asks for. */
function pageOf(shown: Shown): Promise<Child[]> | Child[] {
  const [, name = "", ...rest] = location.hash.split("/");
  const argument = decodeURIComponent(rest.join("/"));
  if (name === "item") return product(shown, argument);
  if (name === "aisle") return aisle(shown, argument as Aisle);
  if (name === "search") return search(shown, argument);
  if (name === "basket") return basket(shown);
  return name === "privacy" ? privacy(shown) : home(shown);
}

function drawHeader(session: Session, shared: Shared): void {
  const texts = textsOf(shared.language);
  document.documentElement.lang = shared.language;
  document.title = texts.shop;
  const count = Object.values(shared.basket).reduce((sum, one) => sum + one, 0);
  const query = header.querySelector("input")?.value ?? "";
  const go = (event: Event) => {
    event.preventDefault();
    const wanted = header.querySelector("input")!.value.trim();
    location.hash = wanted ? `#/search/${encodeURIComponent(wanted)}` : "#/";
  };
  const turn = () => void session.store.change(({ language }) => ({ language: language === "en" ? "zh" : "en" }));
  const here = (hash: string) => ({ href: hash, "aria-current": (location.hash || "#/") === hash ? "page" : null });
  replace(
    header,
    element("a", { class: "skip", href: "#lists", onclick: (event) => (event.preventDefault(), main.focus()) }, texts.skip),
    element("a", { class: "brand", href: "#/", "data-key": "brand" }, element("img", { src: "/icon.svg", alt: "", width: 28, height: 28 }), texts.shop),
    element(
      "form",
      { role: "search", onsubmit: go },
      element("input", { type: "search", maxlength: MOST_QUERY, "aria-label": texts.searchLabel, placeholder: texts.search, value: query, "data-key": "search", enterkeyhint: "search" }),
    ),
    element(
      "nav",
      { "aria-label": texts.shop },
      element("a", { ...here("#/"), "data-key": "home" }, texts.home),
      element("a", { ...here("#/basket"), "data-key": "basket" }, texts.basket, element("b", { class: "badge", hidden: !count }, String(count))),
      element("a", { ...here("#/privacy"), "data-key": "privacy" }, texts.privacy),
      element("button", { type: "button", class: "language", onclick: turn, "data-key": "language", lang: shared.language === "en" ? "zh" : "en" }, texts.other),
    ),
    isOffline() ? element("p", { class: "offline", role: "status" }, element("b", {}, texts.offline), ` ${texts.offlineMore}`) : null,
  );
}

function drawBanner(session: Session, { language }: Shared, question: Question | null): void {
  const texts = textsOf(language);
  const [title, text] = question === "again" ? [texts.askAgainTitle, texts.askAgain] : [texts.askTitle, texts.ask];
  const answer = (agrees: boolean) => () => void session.consent(agrees);
  banner.hidden = question === null;
  banner.setAttribute("aria-label", texts.privacy);
  replace(
    banner,
    element("p", {}, element("b", {}, title)),
    element("p", {}, text),
    element(
      "div",
      { class: "actions" },
      element("button", { type: "button", class: "primary", onclick: answer(true), "data-key": "yes" }, texts.yes),
      element("button", { type: "button", onclick: answer(false), "data-key": "no" }, texts.no),
    ),
  );
}

async function start(): Promise<void> {
  const session = await Session.open(device);
  let turn = 0;
  const draw = async () => {
    const own = ++turn;
    const shared = await session.store.read();
    const page = await pageOf({ session, shared, announce: (say) => announce(say, shared.language) });
    const question = await session.question();
    if (own !== turn) return; // something newer is being drawn
    drawHeader(session, shared);
    drawBanner(session, shared, question);
    drawNotice(shared.language);
    replace(main, ...page);
    main.dataset.drawn = String(own);
  };
  let said = "";
  const tell = async () => {
    const standing = await session.standing();
    if (said === (said = JSON.stringify(standing))) return;
    session.store.say({ kind: "standing", standing });
  };
  session.profile.onChange(() => void draw().then(tell));
  session.store.listen(({ kind }) => {
    if (kind === "changed") void session.follow().then(draw);
    if (kind === "forget" && device === DEVICES[0]) void session.forget();
  });
  let wasOffline = isOffline();
  whenNetworkChanges(() => {
    if (wasOffline && !isOffline()) void session.reconnect().then(tell);
    wasOffline = isOffline();
    void draw();
  });
  window.addEventListener("hashchange", async () => {
    await draw();
    scrollTo(0, 0);
    const [, name, argument] = location.hash.split("/");
    if (name === "item") await session.act("view", decodeURIComponent(argument));
    const query = name === "search" ? decodeURIComponent(argument ?? "").slice(0, MOST_QUERY) : "";
    if (query) await session.act("search", { query });
  });
  await draw();
  setInterval(() => void tell(), 400);
  // Search and aisles want every item; they are read once nothing else is to be done.
  setTimeout(() => session.catalogue.index(), 1000);
}

start().catch((error: unknown) => {
  const texts = textsOf(navigator.language.startsWith("zh") ? "zh" : "en");
  replace(main, element("p", { class: "note", role: "alert" }, `${texts.failed} ${String(error)}`));
});
