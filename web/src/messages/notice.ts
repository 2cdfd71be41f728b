// What happened in a chat, as a sentence. Null for what is not worth a line.
import type { NoticeEntry } from "@parlor/sdk";
import { type Part, parts, t } from "../i18n";

/** Whether there is a sentence for it at all. */
export const tells = (entry: NoticeEntry, direct: boolean): boolean =>
  noticeParts(entry, null, "", "", direct) !== null;

export function noticeParts(
  entry: NoticeEntry,
  meId: string | null,
  by: string,
  who: string,
  direct: boolean,
): Part[] | null {
  const byMe = entry.byId !== null && entry.byId === meId;
  const toMe = entry.userId !== null && entry.userId === meId;
  const self = entry.byId === null || entry.byId === entry.userId;
  const fields = entry.fields as { changes?: { title?: unknown; topic?: unknown }; role?: unknown };
  switch (entry.event) {
    case "created":
      if (direct) return null;
      return byMe ? parts("notice.createdYou") : parts("notice.created", { by });
    case "join":
      if (self) return toMe ? parts("notice.joinYou") : parts("notice.join", { who });
      if (toMe) return parts("notice.addedYou", { by });
      return byMe ? parts("notice.youAdded", { who }) : parts("notice.added", { by, who });
    case "leave":
      if (self) return toMe ? parts("notice.leftYou") : parts("notice.left", { who });
      return byMe ? parts("notice.youRemoved", { who }) : parts("notice.removed", { by, who });
    case "role": {
      const role = roleWord(fields.role);
      if (toMe) return parts("notice.roleYou", { by, role });
      return byMe ? parts("notice.roleByYou", { who, role }) : parts("notice.role", { by, who, role });
    }
    case "settings": {
      const { title, topic } = fields.changes ?? {};
      if (typeof title === "string") {
        return byMe ? parts("notice.titleYou", { title }) : parts("notice.title", { by, title });
      }
      if (typeof topic === "string" && topic !== "") {
        return byMe ? parts("notice.topicYou", { topic }) : parts("notice.topic", { by, topic });
      }
      return byMe ? parts("notice.settingsYou") : parts("notice.settings", { by });
    }
    default:
      return entry.fallback ? [{ text: entry.fallback, place: "fallback" }] : null;
  }
}

function roleWord(role: unknown): string {
  return role === "owner" || role === "admin" ? t(`notice.role.${role}`) : t("notice.role.member");
}
