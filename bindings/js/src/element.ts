/** `@xrec/sdk/element`: `<xrec-recommendations>`, a list of recommendations that an app themes by CSS parts. */

import { UsageError } from "./errors";
import type { LoadOptions } from "./load";
import type { ProfileStore } from "./profile";
import type { Recommender } from "./recommender";
import type { Recommendation } from "./results";

const NAME = "xrec-recommendations";
const ATTRIBUTES = ["bundle", "profile", "k", "category", "max-per-category", "explain", "label"];
const STYLE = `:host { display: block } :host([hidden]) { display: none }
ol { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.5rem }
button { font: inherit; color: inherit; text-align: start; cursor: pointer; padding: 0.5rem 0.75rem }
[part="reason"] { display: block; font-size: smaller; opacity: 0.75 }`;

/** The `Recommender` of an entry of this package: `@xrec/sdk` or `@xrec/sdk/core`. */
export interface Loader {
  load(bundle: string, options: LoadOptions): Promise<Recommender>;
}

/** The element: `refresh()` asks again, `recommender` is what it asks once it is loaded. */
export interface RecommendationsElement extends HTMLElement {
  readonly recommender: Promise<Recommender> | null;
  refresh(): Promise<void>;
}

/** What the events carry; `xrec-select` may be prevented. None of it is recorded: that is the app's. */
export interface RecommendationsEvents {
  "xrec-ready": CustomEvent<{ readonly recommender: Recommender }>;
  "xrec-select": CustomEvent<Recommendation>;
  "xrec-error": CustomEvent<{ readonly code: string; readonly message: string }>;
}

/**
 * Define `<xrec-recommendations bundle="/shop.xrec/" k="10" label="Picked for you">`, over an entry's Recommender. The pinned
 * keys come from the app's code, never from the page. Elements of one bundle and profile share one Recommender; a profile
 * that can say so (`onChange`) has the lists drawn again.
 *
 * Attributes: `bundle`, `profile` (a name, where `options` has none), `k`, `category`, `max-per-category`, `explain`, `label`.
 * Parts: `title`, `list`, `item`, `select`, `name`, `reason`, `status`; the slot `empty` is shown where there is nothing.
 */
export function defineRecommendations(loader: Loader, options: LoadOptions, name: string = NAME): void {
  const loaded = new Map<string, Promise<Recommender>>();
  const load = (bundle: string, profile: string | null): Promise<Recommender> => {
    const key = JSON.stringify([bundle, profile]);
    let recommender = loaded.get(key);
    if (!recommender) {
      recommender = loader.load(bundle, { ...options, ...(profile !== null && !options.profile && { profile }) });
      recommender.catch(() => loaded.delete(key)); // asked again, it is tried again
      loaded.set(key, recommender);
    }
    return recommender;
  };

  class Recommendations extends HTMLElement implements RecommendationsElement {
    static readonly observedAttributes = ATTRIBUTES;
    recommender: Promise<Recommender> | null = null;
    private readonly root = this.attachShadow({ mode: "open", delegatesFocus: true });
    private turn = 0;
    private drawn: Promise<void> = Promise.resolve();
    private isQueued = false;
    private unhear: (() => void) | null = null;
    private ready: Recommender | null = null;

    constructor() {
      super();
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      this.root.adoptedStyleSheets = [sheet];
    }

    connectedCallback(): void {
      this.queue();
    }

    disconnectedCallback(): void {
      this.unhear?.();
      [this.unhear, this.ready] = [null, null];
    }

    attributeChangedCallback(): void {
      this.queue();
    }

    /** Resolves once what was asked last is drawn. */
    refresh(): Promise<void> {
      return (this.drawn = this.redraw());
    }

    private async redraw(): Promise<void> {
      const own = ++this.turn;
      const bundle = this.getAttribute("bundle");
      if (!this.isConnected || bundle === null) return;
      this.setAttribute("aria-busy", "true");
      try {
        this.recommender = load(bundle, this.getAttribute("profile"));
        const recommender = await this.recommender;
        const items = await recommender.recommend(this.asked());
        if (own !== this.turn) return await this.drawn; // something newer is being drawn
        this.draw(items, "");
        if (this.ready !== recommender) this.greet(recommender);
      } catch (failure) {
        if (own !== this.turn) return await this.drawn;
        const { code = "unknown", message } = failure as { code?: string; message: string };
        this.draw([], message);
        this.say("xrec-error", { code, message });
      } finally {
        if (own === this.turn) this.setAttribute("aria-busy", "false");
      }
    }

    /** Refresh once, after all that is being set has been set. */
    private queue(): void {
      if (this.isQueued) return;
      this.isQueued = true;
      queueMicrotask(() => {
        this.isQueued = false;
        void this.refresh();
      });
    }

    private asked() {
      const cap = this.getAttribute("max-per-category");
      const category = this.getAttribute("category");
      return {
        k: this.numberOf("k", 10),
        maxPerCategory: cap === null ? null : this.numberOf("max-per-category", 1),
        where: category === null ? null : { category },
        explain: this.hasAttribute("explain"),
      };
    }

    private numberOf(attribute: string, otherwise: number): number {
      const text = this.getAttribute(attribute);
      if (text === null) return otherwise;
      if (/^\d{1,6}$/.test(text)) return Number(text);
      throw new UsageError(`usage.${attribute.replace(/-/g, "_")}`, `${attribute} is ${JSON.stringify(text)}; expected a whole number`);
    }

    private greet(recommender: Recommender): void {
      this.unhear?.();
      const { onChange } = recommender.profile as ProfileStore & { onChange?(hear: () => void): () => void };
      this.unhear = onChange?.call(recommender.profile, () => this.queue()) ?? null;
      this.ready = recommender;
      this.say("xrec-ready", { recommender });
    }

    private draw(items: readonly Recommendation[], failure: string): void {
      const label = this.getAttribute("label");
      const focused = this.root.activeElement?.getAttribute("data-item");
      const status = part("p", "status", failure);
      status.setAttribute("role", "status");
      const list = part("ol", "list");
      list.setAttribute("role", "list"); // without markers some browsers forget that it is one
      if (label !== null) list.setAttribute("aria-label", label);
      list.append(...items.map((item) => this.itemOf(item)));
      const empty = document.createElement("slot");
      empty.name = "empty";
      const shown = items.length ? [list] : failure ? [status] : [empty];
      this.root.replaceChildren(...(label === null ? [] : [part("h2", "title", label)]), ...shown);
      if (focused) this.root.querySelector<HTMLElement>(`[data-item=${CSS.escape(focused)}]`)?.focus();
    }

    private itemOf(item: Recommendation): HTMLElement {
      const [line, select] = [part("li", "item"), part("button", "select")];
      select.setAttribute("type", "button");
      select.setAttribute("data-item", item.itemId);
      select.addEventListener("click", () => this.say("xrec-select", item));
      select.append(part("span", "name", item.title));
      if (item.reasons.length) select.append(part("span", "reason", item.reasons[0].text));
      line.append(select);
      return line;
    }

    private say(type: keyof RecommendationsEvents, detail: unknown): void {
      this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true, cancelable: type === "xrec-select" }));
    }
  }

  customElements.define(name, Recommendations);
}

function part(tag: string, name: string, text = ""): HTMLElement {
  const element = document.createElement(tag);
  element.setAttribute("part", name);
  element.textContent = text;
  return element;
}
