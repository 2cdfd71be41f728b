// Whether anybody can see this page: the window is shown and has the focus. Reading depends on it.
import { createSubscriber } from "svelte/reactivity";

const subscribe = createSubscriber((update) => {
  const events = ["focus", "blur"] as const;
  for (const name of events) addEventListener(name, update);
  document.addEventListener("visibilitychange", update);
  return () => {
    for (const name of events) removeEventListener(name, update);
    document.removeEventListener("visibilitychange", update);
  };
});

export function pageIsRead(): boolean {
  subscribe();
  return document.visibilityState === "visible" && document.hasFocus();
}
