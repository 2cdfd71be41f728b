// What a person chose for this browser: looks and habits. Kept in localStorage, never sent.
// The root element carries the result as attributes; the tokens do the rest.

export interface Preferences {
  theme: "system" | "light" | "dark";
  contrast: "system" | "normal" | "more";
  density: "roomy" | "compact";
  enter: "send" | "line";
  letterKeys: "on" | "off";
  guide: "shown" | "hidden";
  listWidth: number;
}

const place = "parlor.preferences";
const defaults: Preferences = {
  theme: "system",
  contrast: "system",
  density: "roomy",
  enter: "send",
  letterKeys: "on",
  guide: "shown",
  listWidth: 320,
};

export const preferences = $state<Preferences>({ ...defaults, ...load() });

export function prefer(change: Partial<Preferences>): void {
  Object.assign(preferences, change);
  try {
    localStorage.setItem(place, JSON.stringify(preferences));
  } catch {
    // Storage is full or forbidden: the choice holds until the page is left.
  }
  apply();
}

/** Called once before the first paint; follows the system from then on. */
export function startAppearance(): void {
  apply();
  wishes.more.addEventListener("change", apply);
  wishes.dark.addEventListener("change", () => (system.dark = wishes.dark.matches));
}

const wishes = {
  more: matchMedia("(prefers-contrast: more)"),
  dark: matchMedia("(prefers-color-scheme: dark)"),
};
const system = $state({ dark: wishes.dark.matches });

/** Whether the page is dark now, for the button that turns it round. */
export const isDark = (): boolean =>
  preferences.theme === "system" ? system.dark : preferences.theme === "dark";

function apply(): void {
  const { dataset } = document.documentElement;
  if (preferences.theme === "system") delete dataset.theme;
  else dataset.theme = preferences.theme;
  const more = preferences.contrast === "more" || (preferences.contrast === "system" && wishes.more.matches);
  if (more) dataset.contrast = "more";
  else delete dataset.contrast;
}

function load(): Partial<Preferences> {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(place) ?? "{}");
    return typeof stored === "object" && stored !== null ? stored : {};
  } catch {
    return {};
  }
}
