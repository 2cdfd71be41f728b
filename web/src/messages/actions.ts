// The one list of what can be done with a message. The bar, the menu, the keys and the long press all ask it,
// so that nothing exists only on hover.
import type { MessageEntry } from "@parlor/sdk";
import { t } from "../i18n";
import type { IconName } from "../ui/icons";

export type ActionId = "react" | "reply" | "edit" | "copy" | "info" | "delete" | "retry" | "discard";

export interface Action {
  id: ActionId;
  label: string;
  icon: IconName;
  turn?: boolean;
  /** The key that does it while the message has the focus. */
  key?: string;
  danger?: boolean;
}

/** `mayDelete`: the person may delete what others wrote. */
export function actionsFor(entry: MessageEntry, mayDelete: boolean): Action[] {
  if (entry.deleted) return [];
  const copy: Action = { id: "copy", label: t("message.copy"), icon: "copy", key: "C" };
  if (entry.sending === "failed") {
    return [
      { id: "retry", label: t("retry"), icon: "send", turn: true },
      copy,
      { id: "discard", label: t("remove"), icon: "trash", danger: true },
    ];
  }
  if (entry.messageId === null)
    return [copy, { id: "discard", label: t("remove"), icon: "trash", danger: true }];
  const actions: Action[] = [
    { id: "react", label: t("message.react"), icon: "react", key: "+" },
    { id: "reply", label: t("message.reply"), icon: "reply", turn: true, key: "R" },
  ];
  if (entry.mine && entry.type === "text")
    actions.push({ id: "edit", label: t("message.edit"), icon: "pencil", key: "E" });
  actions.push(copy, { id: "info", label: t("message.info"), icon: "info" });
  if (entry.mine || mayDelete) {
    actions.push({ id: "delete", label: t("message.delete"), icon: "trash", key: "Del", danger: true });
  }
  return actions;
}

/** Which action a key press on a message asks for; null if none. */
export function actionOfKey(event: KeyboardEvent): ActionId | null {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  if (event.key === "+" || event.key === "=") return "react";
  if (event.key === "Delete") return "delete";
  if (event.shiftKey) return null;
  const letters: Record<string, ActionId> = { r: "reply", e: "edit", c: "copy" };
  return letters[event.key.toLowerCase()] ?? null;
}
