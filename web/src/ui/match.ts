// Finding by a few letters: every word typed must begin a word of the name, or stand inside it.

const fold = (text: string): string => text.normalize("NFD").replace(/\p{M}/gu, "").toLocaleLowerCase();

/** 0 is no match; higher is better. */
export function matchScore(name: string, query: string): number {
  const hay = fold(name);
  const words = fold(query).split(/\s+/).filter(Boolean);
  if (words.length === 0) return 1;
  let score = 0;
  for (const word of words) {
    const at = hay.indexOf(word);
    if (at < 0) return 0;
    const starts = at === 0 || startsWord(hay, word);
    score += at === 0 ? 4 : starts ? 3 : 1;
  }
  return score;
}

/** The name cut into pieces, those that match marked; for underlining. */
export function matchPieces(name: string, query: string): { text: string; hit: boolean }[] {
  const words = fold(query).split(/\s+/).filter(Boolean);
  const letters = Array.from(name);
  // Folding may change lengths, so letters are compared one by one.
  const folded = letters.map(fold);
  const hit = letters.map(() => false);
  for (const word of words) {
    let at = -1;
    for (let start = 0; start < letters.length && at < 0; start++) {
      if (folded.slice(start).join("").startsWith(word)) at = start;
    }
    for (let i = at, length = 0; at >= 0 && i < letters.length && length < word.length; i++) {
      hit[i] = true;
      length += folded[i]?.length ?? 0;
    }
  }
  const pieces: { text: string; hit: boolean }[] = [];
  letters.forEach((letter, i) => {
    const last = pieces.at(-1);
    if (last && last.hit === hit[i]) last.text += letter;
    else pieces.push({ text: letter, hit: hit[i] ?? false });
  });
  return pieces;
}

function startsWord(hay: string, word: string): boolean {
  return hay.split(/[\s\p{P}]+/u).some((part) => part.startsWith(word));
}
