// Words, numbers and dates for the person in front of the screen.
//
// `t` gives a sentence as text; `parts` gives it in pieces, so that names can stand in <bdi>. A second language
// needs a file like en.ts and a line in `catalogs`; nothing else in the app knows which language it speaks.
import { en } from "./en";

type Plural = Partial<Record<Intl.LDMLPluralRule, string>> & { other: string };
type Text = string | Plural;
type Catalog = Record<keyof typeof en, Text>;

export type Key = keyof typeof en;

type Places<S> = S extends `${string}{${infer Name}}${infer Rest}` ? Name | Places<Rest> : never;
type Form<T> = T extends string ? T : T[keyof T];
type Values<K extends Key> = Record<
  Places<Form<(typeof en)[K]>> | ((typeof en)[K] extends string ? never : "count"),
  string | number
>;
/** No second argument for sentences without places. */
type Args<K extends Key> = [keyof Values<K>] extends [never] ? [] : [values: Values<K>];

const catalogs: Record<string, Catalog> = { en };

const wished = typeof navigator === "undefined" ? ["en"] : navigator.languages;
const language = wished.map((tag) => tag.split("-")[0] ?? "en").find((tag) => tag in catalogs) ?? "en";
const catalog = catalogs[language] ?? en;

/**
 * The locale of dates and numbers: the person's own region of the language the sentences are in, since a German
 * weekday inside an English sentence helps nobody. The hour cycle is the person's in any case.
 */
export const locale = wished.find((tag) => tag.split("-")[0] === language) ?? language;
export const direction: "ltr" | "rtl" = /^(ar|fa|he|ur|ckb|ps|sd|yi)\b/.test(language) ? "rtl" : "ltr";
export { language };

const plurals = new Intl.PluralRules(locale);
const numbers = new Intl.NumberFormat(locale);

export type Part = { text: string; place: string | null };

/** The sentence in pieces: fixed text has `place: null`, a value has the name of its place. */
export function parts<K extends Key>(key: K, ...[values]: Args<K>): Part[] {
  const given = (values ?? {}) as Record<string, string | number>;
  const entry: Text = catalog[key];
  const form =
    typeof entry === "string" ? entry : (entry[plurals.select(Number(given.count ?? 0))] ?? entry.other);
  return form
    .split(/(\{\w+\})/)
    .filter((piece) => piece !== "")
    .map((piece) => {
      const name = /^\{(\w+)\}$/.exec(piece)?.[1];
      if (name === undefined) return { text: piece, place: null };
      const value = given[name];
      return { text: typeof value === "number" ? numbers.format(value) : (value ?? ""), place: name };
    });
}

/** The sentence as text, for attributes and announcements; values of another direction are isolated. */
export function t<K extends Key>(key: K, ...args: Args<K>): string {
  return parts(key, ...args)
    .map((part) =>
      part.place !== null && hasRightToLeft(part.text) ? `\u2068${part.text}\u2069` : part.text,
    )
    .join("");
}

export const number = (value: number): string => numbers.format(value);

export const list = (items: readonly string[]): string =>
  new Intl.ListFormat(locale, { type: "conjunction" }).format(items);

function hasRightToLeft(text: string): boolean {
  return /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/.test(text);
}
