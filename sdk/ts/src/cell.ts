// One observable value. Everything that a view may watch in this SDK is a cell.
//
// The shape is the Svelte store contract: `subscribe(run)` calls `run` at once with the current value and
// returns the function that ends the subscription. There is no derived-store algebra here: a noun computes
// its value and sets it, and views combine cells with the tools of their own framework.

/** A value that can be read now and followed from now on. */
export interface Readable<T> {
  /** Calls `run` at once with the current value and again after each change, until the returned function is called. */
  subscribe(run: (value: T) => void): () => void;
  /** The current value, without following it. */
  get(): T;
}

export interface CellHooks {
  /** Called before the first subscriber is told the value. */
  onFirst?: () => void;
  /** Called after the last subscriber has left. */
  onLast?: () => void;
}

/** The writable side of a `Readable`; it stays inside the SDK. */
export class Cell<T> implements Readable<T> {
  #value: T;
  readonly #runs = new Set<(value: T) => void>();
  readonly #hooks: CellHooks;

  constructor(value: T, hooks: CellHooks = {}) {
    this.#value = value;
    this.#hooks = hooks;
  }

  get(): T {
    return this.#value;
  }

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const run of [...this.#runs]) if (this.#runs.has(run)) run(value);
  }

  update(change: (value: T) => T): void {
    this.set(change(this.#value));
  }

  subscribe(run: (value: T) => void): () => void {
    // Each subscription is its own function, so the same `run` may subscribe twice.
    const own = (value: T) => run(value);
    this.#runs.add(own);
    if (this.#runs.size === 1) this.#hooks.onFirst?.();
    own(this.#value);
    return () => {
      if (this.#runs.delete(own) && this.#runs.size === 0) this.#hooks.onLast?.();
    };
  }

  get watched(): boolean {
    return this.#runs.size > 0;
  }
}
