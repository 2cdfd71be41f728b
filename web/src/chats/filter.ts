// The tabs of the list.
import type { Chat } from "@parlor/sdk";

export type Filter = "all" | "unread" | "direct" | "groups";

export function passes(chat: Chat, filter: Filter): boolean {
  switch (filter) {
    case "all":
      return true;
    case "unread":
      return chat.unread > 0 || chat.mentions > 0;
    case "direct":
      return chat.type === "one_on_one";
    case "groups":
      return chat.type === "group";
  }
}
