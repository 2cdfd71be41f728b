// The second line of a chat without messages.
import type { Chat } from "@parlor/sdk";
import { t } from "../i18n";

export function noticePreview(chat: Chat): string {
  return chat.topic ?? t("list.nothing");
}
