// What screen readers are told of their own accord. Two live regions exist, empty, from the first paint.
class Announcer {
  polite = $state("");
  urgent = $state("");

  say(text: string): void {
    // The same text twice would not be read again: a blank at the end makes it another one.
    this.polite = this.polite === text ? `${text}\u00a0` : text;
  }
  alert(text: string): void {
    this.urgent = this.urgent === text ? `${text}\u00a0` : text;
  }
}

export const announcer = new Announcer();
