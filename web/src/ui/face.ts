// What a face shows: a hue from the id, so that it is the same on every device, and one or two letters.

/** 0 … 10: one of the eleven hues of the tokens. */
export function hueOf(id: string): number {
  let hash = 2166136261;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 16777619);
  // The last steps mix the high bits down: ids differ mostly in their last digits.
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 2246822507);
  hash ^= hash >>> 13;
  return (hash >>> 0) % 11;
}

const segmenter =
  typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "grapheme" }) : null;

/** The first letter of a person, the first letters of the first two words of a place. */
export function lettersOf(name: string, place: boolean): string {
  const words = name.split(/[\s\p{P}]+/u).filter((word) => /[\p{L}\p{N}\p{Emoji_Presentation}]/u.test(word));
  const some = place ? words.slice(0, 2) : words.slice(0, 1);
  const letters = some.map((word) => first(word).toLocaleUpperCase()).join("");
  return letters || first(name) || "?";
}

function first(word: string): string {
  if (!segmenter) return Array.from(word)[0] ?? "";
  for (const { segment } of segmenter.segment(word)) return segment;
  return "";
}
