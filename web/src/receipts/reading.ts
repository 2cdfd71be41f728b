// Decides what was read: a message counts when it was on a visible, focused screen for a moment.
//
// One observer for the whole list. A row that is taller than the screen counts once it fills half of it.

const DWELL_MS = 250;

export class Reading {
  readonly #rows = new Map<Element, number>();
  readonly #shown = new Set<Element>();
  readonly #observer: IntersectionObserver;
  readonly #canBeSeen: () => boolean;
  readonly #read: (seq: number) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #highest = 0;

  constructor(root: Element, canBeSeen: () => boolean, read: (seq: number) => void) {
    this.#canBeSeen = canBeSeen;
    this.#read = read;
    this.#observer = new IntersectionObserver((changes) => this.#onChanges(changes, root), {
      root,
      threshold: [0, 0.3, 0.6, 0.9],
    });
  }

  watch(row: Element, seq: number): () => void {
    this.#rows.set(row, seq);
    this.#observer.observe(row);
    return () => {
      this.#rows.delete(row);
      this.#shown.delete(row);
      this.#observer.unobserve(row);
    };
  }

  /** Call it when the page is shown or focused again. */
  check(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!this.#canBeSeen()) return;
      let highest = this.#highest;
      for (const row of this.#shown) highest = Math.max(highest, this.#rows.get(row) ?? 0);
      if (highest > this.#highest) {
        this.#highest = highest;
        this.#read(highest);
      }
    }, DWELL_MS);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#observer.disconnect();
  }

  #onChanges(changes: IntersectionObserverEntry[], root: Element): void {
    for (const change of changes) {
      const enough =
        change.isIntersecting &&
        (change.intersectionRatio >= 0.6 || change.intersectionRect.height >= root.clientHeight / 2);
      if (enough) this.#shown.add(change.target);
      else this.#shown.delete(change.target);
    }
    this.check();
  }
}
