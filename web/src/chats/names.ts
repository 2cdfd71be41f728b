// What a chat is called, and what its face shows.
import type { Chat } from "@parlor/sdk";
import { t } from "../i18n";
import type { IconName } from "../ui/icons";

export const isSaved = (chat: Chat): boolean => chat.type === "one_on_one" && chat.peerId === null;

export function chatName(chat: Chat): string {
  if (isSaved(chat)) return t("list.saved");
  return chat.name ?? t(chat.type === "one_on_one" ? "unknownPerson" : "list.unnamed");
}

/** Round is a person, squared is a place; the hue is the person's in a one-to-one chat. */
export function chatFace(chat: Chat): { id: string; name: string; square: boolean; icon?: IconName } {
  const face = {
    id: chat.peerId ?? chat.chatId,
    name: chatName(chat),
    square: chat.type !== "one_on_one" || isSaved(chat),
  };
  return isSaved(chat) ? { ...face, icon: "mark" } : face;
}

/** Whether the reader may rename, add, remove. */
export const manages = (chat: Chat): boolean => chat.role === "owner" || chat.role === "admin";
