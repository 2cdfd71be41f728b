// Now, as a reactive value. It ticks only while something on screen reads it.
import { createSubscriber } from "svelte/reactivity";

function ticking(every_ms: number): () => number {
  let now = Date.now();
  const subscribe = createSubscriber((update) => {
    const timer = setInterval(() => {
      now = Date.now();
      update();
    }, every_ms);
    return () => clearInterval(timer);
  });
  return () => {
    subscribe();
    // After a pause without readers the last tick is old.
    if (Date.now() - now > every_ms) now = Date.now();
    return now;
  };
}

/** For "last seen 5 minutes ago" and for day changes. */
export const slowNow = ticking(15_000);
/** For seconds that count: how long the connection is gone. */
export const fastNow = ticking(1_000);
