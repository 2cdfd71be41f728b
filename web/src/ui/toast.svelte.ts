// One short word at the bottom, one at a time. Plain ones leave after 6 s, but wait under pointer and focus.
class Toasts {
  text = $state<string | null>(null);
  held = $state(false);
  #timer: ReturnType<typeof setTimeout> | undefined;

  show(text: string): void {
    this.text = text;
    this.#start();
  }
  hold(): void {
    this.held = true;
    clearTimeout(this.#timer);
  }
  release(): void {
    this.held = false;
    if (this.text !== null) this.#start();
  }
  close(): void {
    this.text = null;
    this.held = false;
    clearTimeout(this.#timer);
  }
  #start(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!this.held) this.close();
    }, 6000);
  }
}

export const toasts = new Toasts();
