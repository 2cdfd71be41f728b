// A clock that only moves when a test says so.

import type { Timer } from "../../src/runtime";

interface Armed {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class FakeTime {
  nowMs = Date.parse("2026-01-01T00:00:00.000Z");
  #order = 0;
  readonly #timers = new Map<number, Armed>();

  readonly setTimeout = (run: () => void, ms: number): Timer => {
    const order = ++this.#order;
    this.#timers.set(order, { atMs: this.nowMs + Math.max(0, ms), order, run });
    return order as unknown as Timer;
  };

  readonly clearTimeout = (timer: Timer): void => {
    this.#timers.delete(timer as unknown as number);
  };

  /** Fires every timer up to then, each at its own time, and lets its consequences happen. */
  async advance(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers.values()]
        .filter((timer) => timer.atMs <= endMs)
        .sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0];
      if (due === undefined) break;
      this.#timers.delete(due.order);
      this.nowMs = Math.max(this.nowMs, due.atMs);
      due.run();
      await settle();
    }
    this.nowMs = endMs;
  }
}

/** Lets everything happen that needs no time: promises, and the turns that the fake IndexedDB takes. */
export async function settle(turns = 2): Promise<void> {
  for (let i = 0; i < turns; i += 1) await new Promise((resolve) => setImmediate(resolve));
}
