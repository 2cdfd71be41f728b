// The people one already knows here: partners of one-to-one chats. For suggestions; the server has no directory.
import type { Client, User } from "@parlor/sdk";
import { people } from "../accounts/people.svelte";
import { follow } from "../shell/follow.svelte";

export function knownPeople(client: Client): { readonly all: readonly User[] } {
  const chats = follow(() => client.chats.list);
  const ids = $derived(chats.current.flatMap((chat) => (chat.peerId === null ? [] : [chat.peerId])));
  const found = people(client, () => ids);
  return {
    get all() {
      return found.users.filter((user): user is User => user !== null && !user.deleted);
    },
  };
}
