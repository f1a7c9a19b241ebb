/** Draw the picture of an item from its aisle and id: the same one each time, from no file and no network. */

import { AISLES, type Aisle } from "./aisles";
import { drawn } from "./dom";

/** For each aisle the hue of its tiles and what is drawn, in a box of 48 by 48. */
const DRAWINGS: Readonly<Record<Aisle, readonly [number, string]>> = {
  produce: [105, "M24 16c-9-5-15 2-14 10s6 14 10 14c2 0 2-1 4-1s2 1 4 1c4 0 9-6 10-14s-5-15-14-10zM24 16c0-4 2-7 6-8"],
  dairy: [205, "M19 8h10v6l4 6v18a2 2 0 0 1-2 2H17a2 2 0 0 1-2-2V20l4-6zM15 26h18M19 14h10"],
  bread: [35, "M12 22c-3-2-3-9 4-10h16c7 1 7 8 4 10v14a2 2 0 0 1-2 2H14a2 2 0 0 1-2-2zM20 20v10M28 20v10"],
  meat: [5, "M30 9c7 0 11 5 10 11-1 7-8 11-14 11l-7 7c-1 1-3 1-4 0s0-3 0-3-3 1-4-1 0-3 1-4l7-7c0-7 4-14 11-14zM30 17a3 3 0 1 0 1 6"],
  fish: [190, "M7 24c6-10 20-11 27 0 3-3 5-5 8-5-2 3-2 7 0 10-3 0-5-2-8-5-7 11-21 10-27 0zM15 22h.1M23 17c2 4 2 10 0 14"],
  deli: [20, "M9 34h30l-3 5H12zM12 29c0-8 5-14 12-14s12 6 12 14M9 29h30v5H9zM19 21l2 2M27 20l2 2"],
  pantry: [45, "M14 10h20v6H14zM12 16h24v22a2 2 0 0 1-2 2H14a2 2 0 0 1-2-2zM12 24h24M12 33h24"],
  frozen: [215, "M24 8v32M10 16l28 16M38 16 10 32M20 10l4 4 4-4M20 38l4-4 4 4"],
  drinks: [165, "M16 8h16l-2 32H18zM15 18h18M22 8l2-4h5"],
  snacks: [320, "M14 9c3 2 5 2 7 0 2 2 4 2 6 0 2 2 4 2 7 0v30c-3-2-5-2-7 0-2-2-4-2-6 0-2-2-4-2-7 0zM20 20h8M19 26h10"],
  baby: [275, "M24 10a6 6 0 0 1 6 6c4 2 6 6 6 11 0 8-5 13-12 13s-12-5-12-13c0-5 2-9 6-11a6 6 0 0 1 6-6zM20 26h.1M28 26h.1M20 32c2 3 6 3 8 0"],
  care: [250, "M20 8h10l-2 6h-6zM18 14h14a3 3 0 0 1 3 3v21a2 2 0 0 1-2 2H17a2 2 0 0 1-2-2V17a3 3 0 0 1 3-3zM21 26h6M24 23v6"],
  household: [60, "M19 8h12l5 6M25 8v8M18 16h14c3 4 4 7 4 12v10a2 2 0 0 1-2 2H16a2 2 0 0 1-2-2V28c0-5 1-8 4-12zM19 28h10"],
  pets: [25, "M24 24c6 0 10 5 10 10 0 4-4 5-10 5s-10-1-10-5c0-5 4-10 10-10zM13 23h.1M19 15h.1M29 15h.1M35 23h.1"],
  flowers: [340, "M24 26V40M24 26c-6 0-9-3-9-7s4-5 5-4c0-4 2-6 4-6s4 2 4 6c1-1 5 0 5 4s-3 7-9 7zM24 36c3-4 6-5 9-5"],
};

/** What is drawn instead where a title says it. */
const SPECIAL: readonly (readonly [RegExp, string])[] = [
  [/\begg/i, "M24 8c7 0 12 11 12 18s-5 13-12 13-12-6-12-13S17 8 24 8zM18 27c0 4 2 6 5 7"],
  [/cheese|butter/i, "M8 28 34 10c5 3 7 9 6 18zM8 28v10h32V28zM22 33h.1M31 24a2 2 0 1 0 .1 0M33 33h.1"],
  [/lettuce|salad|spinach|broccoli|cabbage|herb|celery|greens/i, "M24 40V20M24 40C13 38 9 30 11 22c3-1 5 0 7 2 0-7 2-12 6-15 4 3 6 8 6 15 2-2 4-3 7-2 2 8-2 16-13 18zM24 30l5-4M24 34l-6-4"],
  [/banana/i, "M13 9c0 14 8 24 24 25 3 0 4 3 1 4C20 42 8 28 10 10c0-2 3-3 3-1z"],
  [/strawberr|berries|cherr|grape/i, "M24 16c8-3 13 1 12 8-1 8-8 15-12 16-4-1-11-8-12-16-1-7 4-11 12-8zM17 14l7 2 7-2M24 16V9M19 24h.1M28 23h.1M23 30h.1"],
  [/potato|onion|carrot|pepper|tomato|squash|cucumber|mushroom/i, "M14 18c5-7 15-7 20 0 5 8 1 20-10 20S9 26 14 18zM24 13c0-3 2-5 5-6M20 13c-2-2-4-3-6-2M19 25h.1M28 24h.1M24 31h.1"],
  [/coffee|\btea/i, "M11 16h22v14a8 8 0 0 1-8 8h-6a8 8 0 0 1-8-8zM33 20h3a4 4 0 0 1 0 9h-3M18 11V8M25 11V8"],
  [/yogurt|soup|cereal|oat/i, "M8 22h32c0 9-6 16-12 16h-8C14 38 8 31 8 22zM16 17c0-3 2-3 2-6M25 17c0-3 2-3 2-6"],
];

/** Return the picture of an item, which says nothing that its title does not say beside it. */
export function tile(aisle: Aisle, itemId: string, title = ""): SVGElement {
  const seed = [...itemId].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7);
  const [hue, usual] = DRAWINGS[aisle];
  const path = SPECIAL.find(([words]) => words.test(title))?.[1] ?? usual;
  const turn = hue + (seed % 31) - 15;
  const ground = (light: number, more: number) => `hsl(${turn + more} 52% ${light}%)`;
  const spot = { cx: 20 + (seed % 60), cy: 15 + ((seed >>> 4) % 60), r: 26 + ((seed >>> 9) % 22) };
  return drawn(
    "svg",
    { viewBox: "0 0 100 100", preserveAspectRatio: "xMidYMid slice", class: "tile", "aria-hidden": "true", focusable: "false" },
    drawn("rect", { width: 100, height: 100, fill: ground(91, 0) }),
    drawn("circle", { ...spot, fill: ground(85, 14) }),
    drawn("circle", { cx: 100 - spot.cx, cy: 100 - spot.cy, r: spot.r / 2, fill: ground(95, -14) }),
    drawn(
      "g",
      { transform: `rotate(${((seed >>> 3) % 13) - 6} 50 50) translate(16 16) scale(1.42)` },
      drawn("path", {
        d: path,
        fill: ground(97, 0),
        stroke: ground(30, 0),
        "stroke-width": 2.2,
        "stroke-linecap": "round",
        "stroke-linejoin": "round",
      }),
    ),
  );
}

/** Return the picture of an aisle. */
export function aisleTile(aisle: Aisle): SVGElement {
  return tile(aisle, `aisle ${AISLES.indexOf(aisle)}`);
}
