// The order in which the list shows the chats. While the pointer or the focus is in it, no row moves: a click
// must land on what was there when the hand set out. New chats still come in at the top.

export class SteadyOrder {
  held = $state(false);
  #shown: readonly string[] = [];

  of(wanted: readonly string[]): readonly string[] {
    if (!this.held) return (this.#shown = wanted);
    const present = new Set(wanted);
    const kept = this.#shown.filter((id) => present.has(id));
    const known = new Set(kept);
    const fresh = wanted.filter((id) => !known.has(id));
    return (this.#shown =
      fresh.length === 0 && kept.length === this.#shown.length ? this.#shown : [...fresh, ...kept]);
  }
}
