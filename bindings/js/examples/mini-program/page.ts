/** A page of a mini-program: its list follows each tap, from the bundle on the phone. */

import { type Recommendation, type Recommender } from "@xrec/sdk/core";

import { fetchUpdate, openRecommender, type Options, type Weixin } from "./weixin";

/** What the page shows; `index.wxml` lists `items`, calls `tap` with an item's id, and `consent` with the switch. */
export interface Data {
  readonly items: readonly { readonly itemId: string; readonly title: string; readonly why: string }[];
  readonly failure: string;
  /** Whether the user has consented to be recommended to by what they buy. */
  readonly personalises: boolean;
}

interface Page {
  readonly data: Data;
  setData(data: Partial<Data>): void;
}

/** Return what is handed to `Page(...)`. */
export function homePage(wx: Weixin, options: Options) {
  let opening: Promise<Recommender> | null = null;
  const open = () => (opening ??= openRecommender(wx, options));
  const show = async (page: Page) => {
    try {
      const recommender = await open();
      const items = await recommender.recommend({ k: 10, context: { device: "mini_program" }, explain: true });
      const { personalise } = await recommender.consent();
      page.setData({ items: items.map(shown), failure: "", personalises: personalise });
    } catch (error) {
      opening = null; // the next time begins anew
      page.setData({ failure: String(error) });
    }
  };
  return {
    data: { items: [], failure: "", personalises: false } as Data,
    async onShow(this: Page) {
      await show(this);
      void fetchUpdate(wx, options).catch(() => undefined); // for the next start; offline is no error
    },
    async tap(this: Page, { currentTarget }: { currentTarget: { dataset: { id: string } } }) {
      const recommender = await open();
      const { personalise } = await recommender.consent();
      if (personalise) await recommender.record("purchase", currentTarget.dataset.id, { device: "mini_program" });
      await show(this);
    },
    async consent(this: Page, { detail }: { detail: { value: boolean } }) {
      await (await open()).setConsent("personalise", detail.value);
      await show(this);
    },
  };
}

function shown({ itemId, title, reasons }: Recommendation): Data["items"][number] {
  return { itemId, title, why: reasons[0]?.text ?? "" };
}
