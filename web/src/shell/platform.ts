// How keys are named on this machine.
const mac = typeof navigator !== "undefined" && /Mac|iPhone|iPad/.test(navigator.platform);

/** "Ctrl K" or "⌘ K". */
export const keys = (text: string): string =>
  mac ? text.replace("Ctrl", "⌘").replace("Alt", "⌥").replace("Shift", "⇧") : text;

/** Ctrl, or ⌘ on a Mac. */
export const isCommand = (event: KeyboardEvent | MouseEvent): boolean =>
  mac ? event.metaKey && !event.ctrlKey : event.ctrlKey && !event.metaKey;
