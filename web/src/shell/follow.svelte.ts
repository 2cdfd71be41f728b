// The bridge from the SDK's cells to Svelte: reading `.current` inside a component follows the cell.
//
// Values are whole and never mutated, so nothing here is deep state. The cell may depend on reactive values;
// when they change, the old cell is left and the new one followed.
import { createSubscriber } from "svelte/reactivity";
import type { Readable } from "@parlor/sdk";

export interface Followed<T> {
  readonly current: T;
}

export function follow<T>(cell: () => Readable<T>): Followed<T> {
  const source = $derived.by(() => {
    const now = cell();
    let seen: T;
    const subscribe = createSubscriber((update) => {
      let first = true;
      return now.subscribe((value) => {
        // The first call repeats what was just read, unless the subscription itself filled the cell.
        if (!first || !Object.is(value, seen)) update();
        first = false;
      });
    });
    return {
      read: () => {
        subscribe();
        return (seen = now.get());
      },
    };
  });
  return {
    get current() {
      return source.read();
    },
  };
}
