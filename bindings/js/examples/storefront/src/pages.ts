/** The pages of the shop: each returns what stands in the middle of the screen. */

import type { Recommendation } from "@xrec/sdk/core";

import { aisleTile, tile } from "./tile";
import { AISLES, type Aisle } from "./aisles";
import type { Card } from "./catalogue";
import { breakable, element, type Child } from "./dom";
import type { Session } from "./session";
import type { Shared } from "./store";
import { reasonText, textsOf, type Say } from "./texts";

const SHELF = 12;
const PAGE = 24;

/** What a page needs: the session, what the user has said, and a way to say something aloud. */
export interface Shown {
  readonly session: Session;
  readonly shared: Shared;
  announce(say: Say): void;
}

/** Return the home page: what is picked, what to buy again, the aisles. */
export async function home(shown: Shown): Promise<Child[]> {
  const { session, shared } = shown;
  const texts = textsOf(shared.language);
  const bought = await session.bought();
  const picked = await session.list({ k: SHELF, filterSeen: true, maxPerCategory: 2, explain: bought.length > 0 });
  const again = bought.length ? await session.list({ k: SHELF, candidates: bought, filterSeen: false }) : null;
  return [
    shelf(shown, bought.length ? texts.forYou : texts.popular, picked.items, "picked", "h1"),
    again && shelf(shown, texts.again, again.items, "again"),
    element(
      "section",
      { "aria-labelledby": "aisles" },
      element("h2", { id: "aisles" }, texts.aisles),
      element("ul", { class: "aisles" }, ...AISLES.map((aisle) => aisleLink(aisle, shared))),
    ),
  ];
}

/** Return the items of an aisle, the user's own order. */
export async function aisle(shown: Shown, name: Aisle): Promise<Child[]> {
  const { session, shared } = shown;
  const candidates = session.catalogue.inAisle(name);
  const { items } = await session.list({ k: PAGE, candidates, filterSeen: false });
  return [shelf(shown, textsOf(shared.language).aisle[name], items, "aisle", "h1")];
}

/** Return what is found, the user's own order. */
export async function search(shown: Shown, query: string): Promise<Child[]> {
  const { session, shared } = shown;
  const texts = textsOf(shared.language);
  const found = session.catalogue.search(query);
  if (!found.length) return [element("p", { class: "note", role: "status" }, texts.nothing(query))];
  const { items } = await session.list({ k: PAGE, candidates: found, filterSeen: false });
  return [shelf(shown, texts.found(found.length, query), items, "found", "h1")];
}

/** Return an item's page. */
export async function product(shown: Shown, itemId: string): Promise<Child[]> {
  const { session, shared } = shown;
  const texts = textsOf(shared.language);
  const card = session.catalogue.card(itemId);
  if (!card) return home(shown);
  const alike = (await session.recommender.similar(itemId, SHELF)).filter((item) => session.catalogue.card(item.itemId));
  const count = shared.basket[itemId] ?? 0;
  return [
    element(
      "section",
      { class: "product" },
      element("div", { class: "picture" }, tile(card.aisle, itemId, card.title)),
      element(
        "div",
        { class: "facts" },
        element("p", { class: "kind" }, element("a", { href: `#/aisle/${card.aisle}` }, texts.aisle[card.aisle])),
        element("h1", {}, ...breakable(card.title)),
        element("p", { class: "detail" }, card.detail.join(" · ")),
        element("p", { class: "note" }, texts.noPrices),
        element("div", { class: "actions" }, buyButton(shown, card), addButton(shown, card, texts.add)),
        element("p", { class: "note", role: "status" }, count ? texts.inBasket(count) : ""),
      ),
    ),
    shelf(shown, texts.alike, alike, "alike"),
  ];
}

/** Return the basket. */
export function basket(shown: Shown): Child[] {
  const { session, shared, announce } = shown;
  const texts = textsOf(shared.language);
  const cards = Object.entries(shared.basket).map(([itemId, count]) => [session.catalogue.card(itemId), count] as const);
  const order = () => void session.order().then((isKept) => announce((said) => (isKept ? said.ordered : said.orderedUnasked)));
  const lines = cards.map(([card, count]) => card && basketLine(shown, card, count));
  return [
    element("h1", {}, texts.basket),
    lines.length ? element("ul", { class: "lines" }, ...lines) : element("p", { class: "note" }, texts.empty),
    lines.length ? element("button", { class: "primary wide", type: "button", onclick: order, "data-key": "order" }, texts.order) : null,
    element("p", { class: "note" }, texts.everywhere),
  ];
}

/** Return the page on which the user decides about their data. */
export async function privacy(shown: Shown): Promise<Child[]> {
  const { session, shared, announce } = shown;
  const texts = textsOf(shared.language);
  const { events, consent } = await session.recommender.exportMyData();
  const forget = () => void session.forget().then(() => announce((said) => said.forgotten));
  return [
    element("h1", {}, texts.privacy),
    element(
      "div",
      { class: "switches" },
      toggle(shown, consent.personalise),
    ),
    element("p", { class: "note", role: "status" }, texts.kept(events.length)),
    element("p", { class: "note" }, texts.unknownEvents),
    element(
      "div",
      { class: "actions" },
      element("button", { type: "button", class: "danger", onclick: forget, "data-key": "forget" }, texts.forget),
      element("button", { type: "button", onclick: () => void download(session), "data-key": "download" }, texts.download),
    ),
  ];
}

function shelf(shown: Shown, title: string, items: readonly Recommendation[], key: string, level: "h1" | "h2" = "h2"): HTMLElement {
  const cards = items.map((item) => {
    const card = shown.session.catalogue.card(item.itemId);
    return card && cardOf(shown, card, item, key);
  });
  return element(
    "section",
    { "aria-labelledby": `shelf-${key}`, class: "shelf" },
    element(level, { id: `shelf-${key}` }, title),
    element("ul", { class: "cards", "data-shelf": key }, ...cards),
  );
}

function cardOf(shown: Shown, card: Card, item: Recommendation, key: string): HTMLElement {
  const { shared, session } = shown;
  const texts = textsOf(shared.language);
  const [first] = item.reasons;
  const because = first && session.catalogue.card(first.itemId);
  const chance = item.probability === null ? null : texts.chance(percent(item.probability));
  return element(
    "li",
    { class: "card", "data-item": card.itemId },
    element(
      "a",
      { href: `#/item/${encodeURIComponent(card.itemId)}`, title: chance, "data-key": `${key}-open-${card.itemId}` },
      tile(card.aisle, card.itemId, card.title),
      element("span", { class: "title" }, ...breakable(card.title)),
      element("span", { class: "detail" }, card.detail.join(" · ")),
    ),
    because ? element("p", { class: "why" }, ...breakable(reasonText(texts, first, because.title))) : null,
    element("div", { class: "actions" }, buyButton(shown, card, key), addButton(shown, card, texts.addShort, key)),
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

function buyButton({ session, shared, announce }: Shown, { itemId, title }: Card, key = "product"): HTMLElement {
  const texts = textsOf(shared.language);
  const buy = () => void session.act("purchase", itemId).then((isKept) => announce((said) => (isKept ? said.bought(title) : said.orderedUnasked)));
  const words = { type: "button", class: "primary", "aria-label": `${texts.buy}: ${title}`, "data-key": `${key}-buy-${itemId}` };
  return element("button", { ...words, onclick: buy }, texts.buy);
}

function addButton({ session, shared, announce }: Shown, { itemId, title }: Card, text: string, key = "product"): HTMLElement {
  const texts = textsOf(shared.language);
  const add = () => void session.put(itemId, 1).then(() => announce((said) => said.added(title)));
  const words = { type: "button", "aria-label": `${texts.add}: ${title}`, "data-key": `${key}-add-${itemId}` };
  return element("button", { ...words, onclick: add }, text);
}

function basketLine({ session, shared }: Shown, card: Card, count: number): HTMLElement {
  const texts = textsOf(shared.language);
  const change = (more: number, sign: string, label: string) =>
    element(
      "button",
      { type: "button", "aria-label": `${label}: ${card.title}`, onclick: () => void session.put(card.itemId, more), "data-key": `${label}-${card.itemId}` },
      sign,
    );
  return element(
    "li",
    { class: "line" },
    tile(card.aisle, card.itemId, card.title),
    element("a", { href: `#/item/${encodeURIComponent(card.itemId)}` }, element("span", { class: "title" }, ...breakable(card.title)), element("span", { class: "detail" }, card.detail.join(" · "))),
    element("span", { class: "count" }, change(-1, "−", texts.less), element("b", {}, String(count)), change(1, "+", texts.more)),
  );
}

function toggle({ session, shared }: Shown, agrees: boolean): HTMLElement {
  const texts = textsOf(shared.language);
  const flip = () => void session.consent(!agrees);
  const box = element("input", { type: "checkbox", role: "switch", id: "remembers", checked: agrees, onchange: flip, "data-key": "remembers", "aria-describedby": "remembers-more" });
  return element(
    "div",
    { class: "switch" },
    element("label", { for: "remembers" }, texts.remembers),
    box,
    element("p", { class: "note", id: "remembers-more" }, texts.remembersMore),
  );
}

function aisleLink(name: Aisle, { language }: Shared): HTMLElement {
  return element("li", {}, element("a", { href: `#/aisle/${name}`, "data-key": `aisle-${name}` }, aisleTile(name), element("span", {}, textsOf(language).aisle[name])));
}

async function download(session: Session): Promise<void> {
  const data = JSON.stringify({ ...(await session.recommender.exportMyData()), ...(await session.store.read()) }, null, 1);
  const url = URL.createObjectURL(new Blob([data], { type: "application/json" }));
  element("a", { href: url, download: "corner-shop.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after this has returned
}
