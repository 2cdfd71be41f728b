// Names of people, followed. Components ask here instead of keeping copies of profiles.
import type { Client, User } from "@parlor/sdk";
import { createSubscriber } from "svelte/reactivity";
import { t } from "../i18n";
import { follow } from "../shell/follow.svelte";

/** One person; the name is never empty. */
export function person(client: Client, userId: () => string) {
  const user = follow(() => client.accounts.user(userId()));
  return {
    get user(): User | null {
      return user.current;
    },
    get name(): string {
      return user.current?.displayName ?? t("unknownPerson");
    },
  };
}

/** Several people at once, in the order of the ids. */
export function people(client: Client, userIds: () => readonly string[]) {
  const source = $derived.by(() => {
    const cells = userIds().map((id) => client.accounts.user(id));
    const subscribe = createSubscriber((update) => {
      const seen = cells.map((cell) => cell.get());
      const ends = cells.map((cell, index) => {
        let first = true;
        return cell.subscribe((value) => {
          if (!first || !Object.is(value, seen[index])) update();
          first = false;
        });
      });
      return () => ends.forEach((end) => end());
    });
    return () => {
      subscribe();
      return cells.map((cell) => cell.get());
    };
  });
  return {
    get users(): readonly (User | null)[] {
      return source();
    },
    get names(): string[] {
      return source().map((user) => user?.displayName ?? t("unknownPerson"));
    },
  };
}
