/** The aisles of the shop: the first whose words occur in an item's department and category. */

/** The aisles in the order in which the shop shows them. */
export const AISLES = [
  "produce",
  "dairy",
  "bread",
  "meat",
  "fish",
  "deli",
  "pantry",
  "frozen",
  "drinks",
  "snacks",
  "baby",
  "care",
  "household",
  "pets",
  "flowers",
] as const;
export type Aisle = (typeof AISLES)[number];

const ELSEWHERE = /^(FUEL|COUPON|TRAVEL|AUTOMOTIVE|GM MERCH|MISCELLANEOUS)/;
const WORDS: readonly (readonly [Aisle, RegExp])[] = [
  ["pantry", /PEANUT BUTTER|CREAM OF|COCONUT MILK|SALAD DRESSING|SOUP|BREADER|BREAD CRUMB|STUFFING/],
  ["pets", /\b(CAT|DOG|PET|BIRD|KITTY|CATFD|DOGFD|LITTER)\b/],
  ["baby", /BABY|INFANT|DIAPER/],
  ["flowers", /FLORAL|GARDEN/],
  ["dairy", /FLUID MILK|CHOCOLATE MILK/],
  ["frozen", /FRZN|FROZEN|ICE CREAM|ICE MILK|SHERB|ICE\b|PIZZA\//],
  ["fish", /SEAFOOD|FISH|SHRIMP|TUNA|SALMON/],
  ["produce", /^PRODUCE(?!.*(POPCORN|DRESSING|DIPS))|^SALAD BAR/],
  ["drinks", /SOFT DRINK|SFT DRNK|BEER|JUICE|WATER|COFFEE\b(?! CAKE)|TEA\b|TEAS\b|WINE|SPIRITS|DRINK|LIQUOR|COCKTAIL|NECTAR/],
  ["snacks", /CHIPS|CANDY|COOKIE|CRACKER|SNACK|PRETZEL|POPCORN|GUM\b|CHOC|NUTS|\bBARS\b|DIPS|SNK/],
  ["dairy", /MILK|CHEESE|YOGURT|EGG|BUTTER|CREAM|MARGARINE|MARG/],
  ["bread", /BREAD|BAGEL|ROLLS|BUNS|PASTRY|CAKE|DONUT|MUFFIN|PIES|SWEET GOODS|TORTILLA/],
  ["deli", /^DELI|^CHEF|^RESTAURANT/],
  ["meat", /MEAT|BEEF|CHICKEN|PORK|\bHAM\b|TURKEY|SAUSAGE|BACON|BOLOGNA|LUNCH/],
  ["household", /DETERGENT|SOFTENER|TOWEL|TISSUE|CLEAN|FOIL|TRASH|BATTER|BULB|CANDLE|LAUNDRY|BLEACH|DISH|AIR CARE|PAPER|PLATES|CUPS|LIGHT/],
  ["care", /^DRUG GM|^COSMETICS|SHAMPOO|TOOTH|SOAP|DEODOR|HYGN|VITAMIN|LOTION/],
];

/** Return the aisle of a catalogue entry, null for what stands in none. */
export function aisleOf(entry: Readonly<Record<string, unknown>>): Aisle | null {
  const words = `${String(entry.department)} ${String(entry.category)}`;
  if (ELSEWHERE.test(words)) return null;
  return WORDS.find(([, pattern]) => pattern.test(words))?.[0] ?? "pantry";
}
