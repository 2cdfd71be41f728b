// What travels: names for the generated types, and the readers that turn untrusted JSON into them.
//
// A reader never throws. What it cannot read it drops (a frame) or keeps as unknown (an event, whose `seq`
// must move all the same); unknown fields pass through untouched. No meaning is given here: that is sync.ts.

import type { components } from "./wire.gen";

type Schemas = components["schemas"];

export type WireUser = Schemas["User"];
export type WirePrivacy = Schemas["Privacy"];
export type WireSignedIn = Schemas["SignedIn"];
export type WireDevice = Schemas["Device"];
export type WireTicket = Schemas["Ticket"];
export type WireChat = Omit<Schemas["Chat"], "type" | "role" | "settings" | "last_message"> & {
  type: string;
  role: string;
  settings: Record<string, unknown>;
  last_message: WireMessage | null;
};
export type WireHead = Schemas["Head"];
export type WireParticipant = Omit<Schemas["Participant"], "role"> & { role: string };
/** The list of types is open: a newer server may know more of them. */
export type WireMessage = Omit<Schemas["Message"], "type"> & { type: string };
export type WireHistory = Omit<Schemas["History"], "messages"> & { messages: WireMessage[] };
export type WireMessageStatus = Schemas["MessageStatus"];
export type WireLimits = Schemas["Limits"];
export interface Page<T> {
  items: T[];
  next: string | null;
}

/** An event of a chat's log, as it came: `kind` decides which further fields it has. */
export interface WireEvent {
  chat_id: string;
  seq: number;
  kind: string;
  event_id?: unknown;
  created_at?: unknown;
  [field: string]: unknown;
}

export type ServerFrame =
  | {
      t: "welcome";
      user_id: string;
      cursor: string;
      heartbeat_ms: number;
      limits: Partial<Record<keyof WireLimits, unknown>>;
      heads: WireHead[];
      reset: boolean;
    }
  | { t: "ack"; id: string | null; message_id: string; chat_id: string; seq: number; created_at: string }
  | { t: "event"; event: WireEvent }
  | {
      t: "events";
      id: string | null;
      chat_id: string;
      events: WireEvent[];
      head_seq: number;
      epoch: string | null;
    }
  | { t: "head"; head: WireHead }
  | { t: "gap"; chat_id: string; after_seq: number; head_seq: number }
  | { t: "receipt"; chat_id: string; user_id: string; status: "delivered" | "read"; seq: number }
  | { t: "presence"; user_id: string; status: PresenceStatus; last_seen: string | null }
  | { t: "typing"; chat_id: string; user_id: string; active: boolean }
  | { t: "account"; kind: string; fields: Record<string, unknown> }
  | { t: "cursor"; cursor: string }
  | { t: "reconnect"; after_ms: number; reason: string }
  | {
      t: "error";
      id: string | null;
      code: string;
      detail: string;
      field: string | null;
      retry_after_ms: number | null;
    }
  | { t: "pong" };

export type PresenceStatus = "online" | "away" | "offline" | "hidden" | "unknown";

type Fields = Record<string, unknown>;

/** Reads one text frame: an object or an array of them. Returns what could be read and the number of what could not. */
export function readFrames(data: unknown): { frames: ServerFrame[]; dropped: number } {
  if (typeof data !== "string") return { frames: [], dropped: 1 };
  let parsed: unknown;
  try {
    parsed = JSON.parse(data);
  } catch {
    return { frames: [], dropped: 1 };
  }
  const items: unknown[] = Array.isArray(parsed) ? parsed : [parsed];
  const frames: ServerFrame[] = [];
  let dropped = 0;
  for (const item of items) {
    const frame = isFields(item) ? readFrame(item) : null;
    if (frame === null) dropped += 1;
    else frames.push(frame);
  }
  return { frames, dropped };
}

function readFrame(f: Fields): ServerFrame | null {
  switch (f.t) {
    case "welcome":
      if (!isId(f.user_id) || typeof f.cursor !== "string") return null;
      return {
        t: "welcome",
        user_id: f.user_id,
        cursor: f.cursor,
        heartbeat_ms: isPositive(f.heartbeat_ms) ? f.heartbeat_ms : 15_000,
        limits: isFields(f.limits) ? f.limits : {},
        heads: readAll(f.heads, readHead),
        reset: f.reset === true,
      };
    case "ack":
      if (!isId(f.message_id) || !isId(f.chat_id) || !isSeq(f.seq)) return null;
      return {
        t: "ack",
        id: text(f.id),
        message_id: f.message_id,
        chat_id: f.chat_id,
        seq: f.seq,
        created_at: text(f.created_at) ?? "",
      };
    case "event": {
      const event = readEvent(f);
      return event && { t: "event", event };
    }
    case "events":
      if (!isId(f.chat_id) || !isSeq(f.head_seq)) return null;
      return {
        t: "events",
        id: text(f.id),
        chat_id: f.chat_id,
        events: readAll(f.events, readEvent).filter((event) => event.chat_id === f.chat_id),
        head_seq: f.head_seq,
        epoch: text(f.epoch),
      };
    case "head": {
      const head = readHead(f);
      return head && { t: "head", head };
    }
    case "gap":
      if (!isId(f.chat_id) || !isSeq(f.head_seq)) return null;
      return {
        t: "gap",
        chat_id: f.chat_id,
        after_seq: isSeq(f.after_seq) ? f.after_seq : 0,
        head_seq: f.head_seq,
      };
    case "receipt":
      if (!isId(f.chat_id) || !isId(f.user_id) || !isSeq(f.seq)) return null;
      if (f.status !== "delivered" && f.status !== "read") return null;
      return { t: "receipt", chat_id: f.chat_id, user_id: f.user_id, status: f.status, seq: f.seq };
    case "presence":
      if (!isId(f.user_id)) return null;
      return {
        t: "presence",
        user_id: f.user_id,
        status: presenceStatus(f.status),
        last_seen: text(f.last_seen),
      };
    case "typing":
      if (!isId(f.chat_id) || !isId(f.user_id)) return null;
      return { t: "typing", chat_id: f.chat_id, user_id: f.user_id, active: f.active === true };
    case "account":
      return typeof f.kind === "string" ? { t: "account", kind: f.kind, fields: f } : null;
    case "cursor":
      return typeof f.cursor === "string" ? { t: "cursor", cursor: f.cursor } : null;
    case "reconnect":
      return {
        t: "reconnect",
        after_ms: isPositive(f.after_ms) ? f.after_ms : 0,
        reason: text(f.reason) ?? "",
      };
    case "error":
      return {
        t: "error",
        id: text(f.id),
        code: text(f.code) ?? "internal",
        detail: text(f.detail) ?? "",
        field: text(f.field),
        retry_after_ms: isPositive(f.retry_after_ms) ? f.retry_after_ms : null,
      };
    case "pong":
      return { t: "pong" };
    default:
      return null;
  }
}

/** The frame's tag is no field of the event. */
function readEvent(value: unknown): WireEvent | null {
  if (!isFields(value) || !isId(value.chat_id) || !isSeq(value.seq) || value.seq < 1) return null;
  if (typeof value.kind !== "string") return null;
  const { t: _, id: __, ...event } = value;
  return event as WireEvent;
}

export function readHead(value: unknown): WireHead | null {
  if (!isFields(value) || !isId(value.chat_id) || !isSeq(value.seq)) return null;
  return {
    chat_id: value.chat_id,
    seq: value.seq,
    unread: isSeq(value.unread) ? value.unread : 0,
    mentions: isSeq(value.mentions) ? value.mentions : 0,
    delivered_seq: isSeq(value.delivered_seq) ? value.delivered_seq : 0,
    read_seq: isSeq(value.read_seq) ? value.read_seq : 0,
  };
}

export function readMessage(value: unknown): WireMessage | null {
  if (!isFields(value) || !isId(value.message_id) || !isId(value.chat_id) || !isId(value.sender_id))
    return null;
  if (!isSeq(value.seq) || value.seq < 1) return null;
  return {
    ...value,
    message_id: value.message_id,
    chat_id: value.chat_id,
    sender_id: value.sender_id,
    seq: value.seq,
    type: text(value.type) ?? "text",
    message: text(value.message) ?? "",
    attachments: Array.isArray(value.attachments) ? value.attachments.filter(isId) : [],
    client_id: text(value.client_id),
    reply_to: isId(value.reply_to) ? value.reply_to : null,
    created_at: text(value.created_at) ?? "",
    edited_at: text(value.edited_at),
    deleted: value.deleted === true,
    reactions: readAll(value.reactions, readReaction),
    status: value.status === "read" || value.status === "delivered" ? value.status : "sent",
    state_seq: isSeq(value.state_seq) ? Math.max(value.state_seq, value.seq) : value.seq,
  };
}

function readReaction(value: unknown): WireMessage["reactions"][number] | null {
  if (!isFields(value) || typeof value.emoji !== "string") return null;
  return {
    emoji: value.emoji,
    count: isSeq(value.count) ? value.count : 0,
    user_ids: Array.isArray(value.user_ids) ? value.user_ids.filter(isId) : [],
  };
}

export function readChat(value: unknown): WireChat | null {
  if (!isFields(value) || !isId(value.chat_id) || !isSeq(value.head_seq)) return null;
  const created = text(value.created_at) ?? "";
  return {
    ...value,
    chat_id: value.chat_id,
    type: text(value.type) ?? "group",
    title: text(value.title),
    topic: text(value.topic),
    created_at: created,
    updated_at: text(value.updated_at) ?? created,
    head_seq: value.head_seq,
    role: text(value.role) ?? "member",
    participants_count: isSeq(value.participants_count) ? value.participants_count : 0,
    settings: isFields(value.settings) ? value.settings : {},
    peer: readUser(value.peer),
    last_message: readMessage(value.last_message),
    unread: isSeq(value.unread) ? value.unread : 0,
    mentions: isSeq(value.mentions) ? value.mentions : 0,
    joined_seq: isSeq(value.joined_seq) ? value.joined_seq : 1,
    delivered_seq: isSeq(value.delivered_seq) ? value.delivered_seq : 0,
    read_seq: isSeq(value.read_seq) ? value.read_seq : 0,
  };
}

export function readUser(value: unknown): WireUser | null {
  if (!isFields(value) || !isId(value.user_id)) return null;
  const username = text(value.username) ?? "";
  return {
    ...value,
    user_id: value.user_id,
    username,
    display_name: text(value.display_name) || username || value.user_id,
    created_at: text(value.created_at) ?? "",
  };
}

export function presenceStatus(value: unknown): PresenceStatus {
  return value === "online" || value === "away" || value === "offline" || value === "hidden"
    ? value
    : "unknown";
}

/** Reads a list, leaving out what cannot be read. */
export function readAll<T>(value: unknown, read: (item: unknown) => T | null): T[] {
  return Array.isArray(value) ? value.map(read).filter((item): item is T & {} => item !== null) : [];
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isId(value: unknown): value is string {
  return typeof value === "string" && /^[1-9][0-9]{0,18}$/.test(value);
}

export function isSeq(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isPositive(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value > 0;
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}
