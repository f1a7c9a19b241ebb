/**
 * Reduce a search to what a model reads of it: the buckets that its hashed n-grams fall into, never the text; xrec_sdk/query.py
 * and xrec_sdk/ngrams.py do the same. Loaded where a search is recorded or a bundle reads searches; it imports nothing, so that
 * who needs it not has no part of it: `hash` is the CRC-32 of a text's UTF-8 bytes.
 */

import type { History } from "./history";

// B histories, L events in a history, G buckets of the query that has the most

const BUCKETS = 4096;
const MAX_BUCKETS = 250;
const PREFIX = "query~";
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LENGTHS = [3, 4, 5];
/** 々〆〇, kana, Han, Hangul, Han of compatibility and the further extensions. */
const CJK = /[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\u{20000}-\u{3ffff}]/u;
/** Letters, digits and their marks, but for the variation selectors. */
const WORD = /[\p{L}\p{N}]|(?![\ufe00-\ufe0f])[\p{Mn}\p{Mc}]/u;
const CHEROKEE = /[\u13a0-\u13fd\uab70-\uabbf]/;

/**
 * Return the n-grams of a text in its order, repeated as they are there: of a word 3 to 5 characters of `<word>` and that
 * whole, of CJK single characters and pairs.
 */
export function grams(text: string): string[] {
  const folded = Array.from(text.normalize("NFKC"), foldCase).join("").normalize("NFKC");
  const runs: { readonly kind: string; readonly characters: string[] }[] = [];
  for (const character of folded) {
    const kind = CJK.test(character) ? "cjk" : WORD.test(character) ? "word" : "";
    if (runs.at(-1)?.kind === kind) runs.at(-1)!.characters.push(character);
    else runs.push({ kind, characters: [character] });
  }
  return runs.flatMap(({ kind, characters }) => {
    if (kind === "cjk") return [...characters, ...windows(characters, 2)];
    return kind ? ofWord(["<", ...characters, ">"]) : [];
  });
}

/** Fold the case of a character fully, as Unicode's CaseFolding.txt says and no method of JavaScript does. */
function foldCase(character: string): string {
  if (character === "ı") return character;
  if (CHEROKEE.test(character)) return character.toUpperCase();
  return character.toLowerCase().toUpperCase().toLowerCase();
}

function ofWord(marked: readonly string[]): string[] {
  const shorter = LENGTHS.filter((length) => length < marked.length);
  return [...shorter.flatMap((length) => windows(marked, length)), marked.join("")];
}

function windows(characters: readonly string[], length: number): string[] {
  return characters.slice(length - 1).map((_, at) => characters.slice(at, at + length).join(""));
}

type Hash = (text: string) => number;

/** Return the reduced form of a query; one without letters and digits has no buckets. */
export function reduceQuery(text: string, hash: Hash): string {
  const found = new Set(grams(text).map((gram) => hash(gram) % BUCKETS));
  const first = [...found].sort((a, b) => a - b).slice(0, MAX_BUCKETS);
  return PREFIX + first.map((bucket) => ALPHABET[bucket >> 6] + ALPHABET[bucket & 63]).join("");
}

/** Return the row that stands for a search in a history, below 0 and the same for equal queries; null for another item id. */
export function queryRow(itemId: string, hash: Hash): number | null {
  return itemId.startsWith(PREFIX) ? -1 - (hash(itemId) & 0x7fffffff) : null;
}

/** Return the buckets of a reduced query, ascending; none where it is not as {@link reduceQuery} writes it. */
export function bucketsOf(reduced: string): number[] {
  const values = Array.from(reduced.slice(PREFIX.length), (character) => ALPHABET.indexOf(character));
  const found: number[] = [];
  for (let at = 0; at < values.length; at += 2) found.push((values[at] << 6) | (values[at + 1] ?? -1));
  const isAscending = found.every((bucket, place) => bucket > (found[place - 1] ?? -1));
  const isRight = reduced.startsWith(PREFIX) && !values.includes(-1) && found.length <= MAX_BUCKETS;
  return isRight && isAscending ? found : [];
}

/** Return the buckets of each event of histories of one length, (B, L, G) int32, -1 where there are no more. */
export function bucketTable(histories: readonly History[]): { readonly data: Int32Array; readonly dims: readonly number[] } {
  const found = histories.flatMap(({ queries }) => queries.map(bucketsOf));
  const dims = [histories.length, histories[0].rows.length, Math.max(1, ...found.map(({ length }) => length))];
  const data = new Int32Array(dims[0] * dims[1] * dims[2]).fill(-1);
  const next = found.values();
  histories.forEach(({ rows }, one) => {
    rows.forEach((row, place) => row < 0 && data.set(next.next().value!, (one * dims[1] + place) * dims[2]));
  });
  return { data, dims };
}
