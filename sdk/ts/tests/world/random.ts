// Seeded randomness: a failing run prints its seed, and `PARLOR_SEED=n npm test` replays it.

export class Random {
  #state: number;

  constructor(readonly seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1) (mulberry32). */
  readonly next = (): number => {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };

  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.below(256));
  }
}

/** The seeds of a property: always the same ones, the one that failed, or with `PARLOR_SEED=fresh` new ones. */
export function seeds(count: number): number[] {
  const given = process.env.PARLOR_SEED;
  if (given !== undefined && given !== "fresh") return [Number(given)];
  const first = given === "fresh" ? Date.now() % 1_000_000 : 1;
  return Array.from({ length: count }, (_, i) => first * 1_000 + i);
}
