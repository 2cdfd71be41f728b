// Ids of the server and keys of the client.
//
// Server ids are 64-bit decimal strings. JavaScript loses integers above 2^53, so nothing here parses them.

/** Orders two server ids: negative if `a` is older. Ids have no leading zeros, so length decides first. */
export function compareIds(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}

const SEQUENCE_BITS = 12;

/**
 * Makes UUIDv7 keys that rise with each call, also within one millisecond and when the clock steps back:
 * the server's index of keys is then append-only, and keys sort in issue order.
 */
export class KeyMaker {
  #lastMs = 0;
  #sequence = 0;

  constructor(private readonly runtime: { now(): number; randomBytes(count: number): Uint8Array }) {}

  next(): string {
    const nowMs = Math.floor(this.runtime.now());
    const bytes = Uint8Array.from(this.runtime.randomBytes(16));
    if (nowMs > this.#lastMs) {
      this.#lastMs = nowMs;
      // The top bit starts clear, which leaves room to count up inside the millisecond.
      this.#sequence = (((bytes[6] ?? 0) & 0x07) << 8) | (bytes[7] ?? 0);
    } else if (++this.#sequence >= 1 << SEQUENCE_BITS) {
      this.#lastMs += 1;
      this.#sequence = 0;
    }
    let ms = this.#lastMs;
    for (let i = 5; i >= 0; i -= 1) {
      bytes[i] = ms % 256;
      ms = Math.floor(ms / 256);
    }
    bytes[6] = 0x70 | (this.#sequence >> 8);
    bytes[7] = this.#sequence & 0xff;
    bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }
}
