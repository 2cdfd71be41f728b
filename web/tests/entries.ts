// Entries for tests, with only what a test is about.
import type { Chat, MessageEntry, NoticeEntry } from "@parlor/sdk";

let n_made = 0;

export function message(fields: Partial<MessageEntry> = {}): MessageEntry {
  n_made += 1;
  const seq = fields.seq === undefined ? n_made : fields.seq;
  return {
    kind: "message",
    key: `m${n_made}`,
    messageId: String(n_made),
    clientId: null,
    chatId: "1",
    seq,
    senderId: "2",
    mine: false,
    type: "text",
    text: "words",
    replyTo: null,
    attachments: [],
    createdAt: "2026-03-10T09:00:00.000Z",
    editedAt: null,
    deleted: false,
    reactions: [],
    sending: fields.mine ? "accepted" : null,
    failure: null,
    ...fields,
  };
}

export function notice(fields: Partial<NoticeEntry> = {}): NoticeEntry {
  n_made += 1;
  return {
    kind: "notice",
    key: `n${n_made}`,
    chatId: "1",
    seq: n_made,
    event: "join",
    createdAt: "2026-03-10T09:00:00.000Z",
    byId: "2",
    userId: "3",
    fields: {},
    fallback: null,
    ...fields,
  };
}

export function chat(fields: Partial<Chat> = {}): Chat {
  return {
    chatId: "1",
    type: "group",
    name: "Crew",
    title: "Crew",
    topic: null,
    peerId: null,
    unread: 0,
    mentions: 0,
    role: "member",
    ...fields,
  } as Chat;
}
