// A server of the protocol in memory: logs, cursors, tickets, and a network that can be told to misbehave.
//
// It is written from docs/protocol.md and not from the SDK, so that the two can disagree. What it leaves out is
// what no test needs: rights, limits, privacy.

import type { RequestLike, ResponseLike, SocketLike } from "../../src/runtime";
import type { WireChat, WireEvent, WireMessage, WireUser } from "../../src/wire";
import type { Random } from "./random";
import type { FakeTime } from "./time";

export interface LogChat {
  chatId: string;
  type: string;
  title: string | null;
  members: string[];
  joinedSeq: Map<string, number>;
  log: WireEvent[];
  /** Present state of each message. */
  messages: Map<string, WireMessage>;
  delivered: Map<string, number>;
  read: Map<string, number>;
}

interface Frame {
  t: string;
  [field: string]: unknown;
}

type Answer = { status: number; body?: unknown; headers?: Record<string, string> };

export class FakeServer {
  readonly chats = new Map<string, LogChat>();
  readonly users = new Map<string, WireUser>();
  readonly sockets = new Set<FakeSocket>();
  /** Every frame that clients sent, in order. */
  readonly heard: Frame[] = [];
  readonly requests: { method: string; path: string; body: unknown; headers: Record<string, string> }[] = [];
  epoch = "epoch-1";
  heartbeatMs = 15_000;
  /** The person behind the cookie. */
  cookieUser: string | null = null;
  online = true;
  /** Answers the next matching call instead of the server. */
  readonly refusals: { match: RegExp; answer: Answer; times: number }[] = [];
  /** Decides the answer to the next sends instead of the server. */
  refuseSend: ((frame: Frame) => Frame | "silence" | null) | null = null;
  /** What happens to each `event` frame on its way. */
  eventFault: (() => "pass" | "drop" | "repeat" | "delay") | null = null;
  replayLimit = 100;

  #id = 2n ** 60n;
  #ticket = 0;
  readonly #tickets = new Map<string, string>();
  readonly #keys = new Map<string, { messageId: string; chatId: string; seq: number; createdAt: string }>();
  /** Own streams: what each user must be told about chats. */
  readonly #own = new Map<string, { kind: string; chat_id: string; reason?: string }[]>();

  constructor(
    private readonly time: FakeTime,
    private readonly random: Random,
  ) {}

  id(): string {
    this.#id += BigInt(1 + this.random.below(1000));
    return this.#id.toString();
  }

  stamp(): string {
    return new Date(this.time.nowMs).toISOString();
  }

  user(name: string): string {
    const user_id = this.id();
    this.users.set(user_id, {
      user_id,
      username: name,
      display_name: name,
      created_at: this.stamp(),
    } as WireUser);
    return user_id;
  }

  chat(members: string[], type = members.length > 2 ? "group" : "one_on_one"): LogChat {
    const chat: LogChat = {
      chatId: this.id(),
      type,
      title: type === "group" ? "a group" : null,
      members: [...members],
      joinedSeq: new Map(members.map((id) => [id, 1])),
      log: [],
      messages: new Map(),
      delivered: new Map(members.map((id) => [id, 1])),
      read: new Map(members.map((id) => [id, 1])),
    };
    this.chats.set(chat.chatId, chat);
    this.append(chat, "created", {
      by: members[0],
      members: members.map((user_id) => ({ user_id, role: "member" })),
    });
    for (const userId of members) this.tellOwn(userId, { kind: "chat_added", chat_id: chat.chatId });
    return chat;
  }

  append(chat: LogChat, kind: string, fields: Record<string, unknown>, eventId = this.id()): WireEvent {
    const event: WireEvent = {
      chat_id: chat.chatId,
      seq: chat.log.length + 1,
      kind,
      event_id: eventId,
      created_at: this.stamp(),
      ...fields,
    };
    chat.log.push(event);
    for (const socket of this.sockets) {
      if (!socket.greeted || !chat.members.includes(socket.userId)) continue;
      this.#pass(socket, chat, event);
    }
    return event;
  }

  #pass(socket: FakeSocket, chat: LogChat, event: WireEvent): void {
    const frame = () => ({ t: "event", ...this.present(chat, event) });
    const fate = this.eventFault?.() ?? "pass";
    if (fate === "drop") return;
    if (fate === "delay") {
      this.time.setTimeout(() => socket.tell(frame()), 1 + this.random.below(400));
      return;
    }
    socket.tell(frame());
    if (fate === "repeat") socket.tell(frame());
  }

  /** An event as it is handed out: a message in its present state, an edit without a text that no longer holds. */
  present(chat: LogChat, event: WireEvent): WireEvent {
    if (event.kind === "message") return { ...event, message: chat.messages.get(String(event.event_id)) };
    if (event.kind === "edit") {
      const state = chat.messages.get(String(event.message_id));
      if (state === undefined || state.deleted || state.message !== event.message) {
        const { message: _, ...rest } = event;
        return rest as WireEvent;
      }
    }
    return event;
  }

  say(chat: LogChat, senderId: string, text: string, key: string | null = null): WireMessage {
    const messageId = this.id();
    const message: WireMessage = {
      message_id: messageId,
      chat_id: chat.chatId,
      seq: chat.log.length + 1,
      sender_id: senderId,
      type: "text",
      message: text,
      attachments: [],
      client_id: key,
      reply_to: null,
      created_at: this.stamp(),
      edited_at: null,
      deleted: false,
      reactions: [],
      status: "sent",
      state_seq: chat.log.length + 1,
    };
    chat.messages.set(messageId, message);
    this.append(chat, "message", {}, messageId);
    return message;
  }

  edit(chat: LogChat, messageId: string, text: string): void {
    const message = chat.messages.get(messageId);
    if (message === undefined || message.deleted) return;
    const state_seq = chat.log.length + 1;
    const edited_at = this.stamp();
    chat.messages.set(messageId, { ...message, message: text, edited_at, state_seq });
    this.append(chat, "edit", { message_id: messageId, message: text, edited_at, by: message.sender_id });
  }

  delete(chat: LogChat, messageId: string): void {
    const message = chat.messages.get(messageId);
    if (message === undefined || message.deleted) return;
    const state_seq = chat.log.length + 1;
    chat.messages.set(messageId, {
      ...message,
      message: "",
      attachments: [],
      reactions: [],
      deleted: true,
      state_seq,
    });
    this.append(chat, "delete", { message_id: messageId, by: message.sender_id });
  }

  react(chat: LogChat, messageId: string, userId: string, emoji: string): void {
    const message = chat.messages.get(messageId);
    if (message === undefined || message.deleted) return;
    const old = message.reactions.find((reaction) => reaction.emoji === emoji);
    const added = !old?.user_ids.includes(userId);
    const user_ids = added
      ? [...(old?.user_ids ?? []), userId]
      : (old?.user_ids ?? []).filter((id) => id !== userId);
    const next = { emoji, count: user_ids.length, user_ids };
    const reactions =
      old === undefined
        ? [...message.reactions, next]
        : message.reactions.map((one) => (one.emoji === emoji ? next : one)).filter((one) => one.count > 0);
    chat.messages.set(messageId, { ...message, reactions, state_seq: chat.log.length + 1 });
    this.append(chat, "reaction", { message_id: messageId, user_id: userId, emoji, added });
  }

  reads(chat: LogChat, userId: string, seq: number, status: "delivered" | "read" = "read"): void {
    this.#receipt(chat, userId, status, seq);
  }

  /** As after restoring a backup: the last events of every chat are gone, and the epoch is another one. */
  restore(epoch: string, lose: number): void {
    this.epoch = epoch;
    for (const chat of this.chats.values()) {
      const kept = Math.max(1, chat.log.length - lose);
      for (const event of chat.log.splice(kept)) {
        if (event.kind !== "message") continue;
        chat.messages.delete(String(event.event_id));
        for (const [key, sent] of this.#keys) if (sent.messageId === event.event_id) this.#keys.delete(key);
      }
      for (const cursors of [chat.delivered, chat.read]) {
        for (const [id, seq] of cursors) cursors.set(id, Math.min(seq, kept));
      }
      // Only whole states survive in this toy: fold again what is left.
      for (const message of chat.messages.values()) message.state_seq = Math.min(message.state_seq, kept);
    }
    for (const socket of [...this.sockets]) socket.cut();
  }

  tellOwn(userId: string, step: { kind: string; chat_id: string; reason?: string }): void {
    const own = this.#own.get(userId) ?? [];
    this.#own.set(userId, own);
    own.push(step);
    for (const socket of this.sockets) {
      if (socket.greeted && socket.userId === userId) socket.tell({ t: "account", seq: own.length, ...step });
    }
  }

  tellCursors(): void {
    for (const socket of this.sockets)
      if (socket.greeted) socket.tell({ t: "cursor", cursor: this.cursor(socket.userId) });
  }

  /** A cursor of this toy: the epoch and the head of every chat at that moment. */
  cursor(userId: string): string {
    const heads = Object.fromEntries([...this.chats.values()].map((chat) => [chat.chatId, chat.log.length]));
    return JSON.stringify({ epoch: this.epoch, userId, own: this.#own.get(userId)?.length ?? 0, heads });
  }

  // -------------------------------------------------------------------------------------------------------
  // The socket

  readonly WebSocket = ((server: FakeServer) =>
    class extends FakeSocket {
      constructor(url: string) {
        super(server, url);
        server.sockets.add(this);
        queueMicrotask(() => {
          if (server.online) this.open();
          else this.closeFrom(1006);
        });
      }
    })(this);

  onFrame(socket: FakeSocket, text: string): void {
    const parsed: Frame | Frame[] = JSON.parse(text);
    for (const frame of Array.isArray(parsed) ? parsed : [parsed]) {
      this.heard.push(frame);
      if (frame.t === "hello") this.#hello(socket, frame);
      else if (frame.t === "send") this.#send(socket, frame);
      else if (frame.t === "sync") this.#sync(socket, frame);
      else if (frame.t === "ping") socket.tell({ t: "pong" });
      else if (frame.t === "receipt") {
        const chat = this.chats.get(String(frame.chat_id));
        if (chat !== undefined) {
          this.#receipt(chat, socket.userId, frame.status as "delivered" | "read", Number(frame.seq));
        }
      } else if (frame.t === "watch") {
        for (const user_id of frame.user_ids as string[]) {
          socket.tell({ t: "presence", user_id, status: "online", last_seen: null });
        }
      }
    }
  }

  #hello(socket: FakeSocket, frame: Frame): void {
    const userId =
      typeof frame.ticket === "string"
        ? this.#tickets.get(frame.ticket)
        : String(frame.token ?? "").replace("token-", "");
    if (typeof frame.ticket === "string") this.#tickets.delete(frame.ticket);
    if (userId === undefined || !this.users.has(userId)) {
      socket.closeFrom(4003);
      return;
    }
    socket.userId = userId;
    socket.greeted = true;
    const told = typeof frame.cursor === "string" ? JSON.parse(frame.cursor) : null;
    const known = told !== null && told.epoch === this.epoch && told.userId === userId ? told : null;
    const mine = [...this.chats.values()].filter((chat) => chat.members.includes(userId));
    const changed = mine.filter(
      (chat) => known === null || chat.log.length > (known.heads[chat.chatId] ?? 0),
    );
    socket.tell({
      t: "welcome",
      v: 1,
      user_id: userId,
      device_id: "7",
      cursor:
        known === null ? JSON.stringify({ epoch: this.epoch, userId, own: 0, heads: {} }) : frame.cursor,
      heartbeat_ms: this.heartbeatMs,
      server_time: this.stamp(),
      limits: { watch: 500, page: 200 },
      heads: changed.map((chat) => this.head(chat, userId)),
      ...(told !== null && known === null ? { reset: true } : {}),
    });
    const own = this.#own.get(userId) ?? [];
    if (known !== null) {
      for (const [i, step] of own.slice(known.own).entries())
        socket.tell({ t: "account", seq: known.own + i + 1, ...step });
    }
    for (const chat of changed) {
      const after = known === null ? (chat.delivered.get(userId) ?? 0) : (known.heads[chat.chatId] ?? 0);
      const missed = chat.log.slice(after, after + this.replayLimit);
      for (const event of missed) this.#pass(socket, chat, event);
      const last = missed.at(-1)?.seq ?? after;
      if (last < chat.log.length) {
        socket.tell({ t: "gap", chat_id: chat.chatId, after_seq: last, head_seq: chat.log.length });
      }
    }
    socket.tell({ t: "cursor", cursor: this.cursor(userId) });
  }

  head(chat: LogChat, userId: string): Frame {
    const read_seq = chat.read.get(userId) ?? 0;
    return {
      t: "head",
      chat_id: chat.chatId,
      seq: chat.log.length,
      unread: this.unread(chat, userId),
      mentions: 0,
      delivered_seq: chat.delivered.get(userId) ?? 0,
      read_seq,
    };
  }

  unread(chat: LogChat, userId: string): number {
    const read = chat.read.get(userId) ?? 0;
    return [...chat.messages.values()].filter(
      (message) => message.seq > read && !message.deleted && message.sender_id !== userId,
    ).length;
  }

  #send(socket: FakeSocket, frame: Frame): void {
    const chat = this.chats.get(String(frame.chat_id));
    const refusal = this.refuseSend?.(frame) ?? null;
    if (refusal === "silence") return;
    if (refusal !== null) {
      socket.tell({ ...refusal, id: frame.id });
      return;
    }
    if (chat === undefined || !chat.members.includes(socket.userId)) {
      socket.tell({ t: "error", id: frame.id, code: "not_found", detail: "no such chat" });
      return;
    }
    const key = `${socket.userId} ${frame.client_id}`;
    let sent = this.#keys.get(key);
    if (sent === undefined) {
      const message = this.say(chat, socket.userId, String(frame.message), String(frame.client_id));
      sent = {
        messageId: message.message_id,
        chatId: chat.chatId,
        seq: message.seq,
        createdAt: message.created_at,
      };
      this.#keys.set(key, sent);
    }
    socket.tell({
      t: "ack",
      id: frame.id,
      message_id: sent.messageId,
      chat_id: sent.chatId,
      seq: sent.seq,
      created_at: sent.createdAt,
      status: "sent",
    });
  }

  #sync(socket: FakeSocket, frame: Frame): void {
    const chat = this.chats.get(String(frame.chat_id));
    if (chat === undefined || !chat.members.includes(socket.userId)) {
      socket.tell({ t: "error", id: frame.id, code: "not_found", detail: "no such chat" });
      return;
    }
    const after = Number(frame.after_seq);
    if (after > chat.log.length) {
      socket.tell({ t: "error", id: frame.id, code: "reset", detail: "ahead of the log" });
      return;
    }
    const from = Math.max(after, (chat.joinedSeq.get(socket.userId) ?? 1) - 1);
    socket.tell({
      t: "events",
      id: frame.id,
      chat_id: chat.chatId,
      events: chat.log
        .slice(from, from + Number(frame.limit ?? 50))
        .map((event) => this.present(chat, event)),
      head_seq: chat.log.length,
      epoch: this.epoch,
    });
  }

  #receipt(chat: LogChat, userId: string, status: "delivered" | "read", seq: number): void {
    if (seq > chat.log.length) return;
    const move = (cursors: Map<string, number>) => {
      cursors.set(userId, Math.max(cursors.get(userId) ?? 0, seq));
    };
    move(chat.delivered);
    if (status === "read") move(chat.read);
    for (const socket of this.sockets) {
      if (socket.greeted && socket.userId !== userId && chat.members.includes(socket.userId)) {
        socket.tell({
          t: "receipt",
          chat_id: chat.chatId,
          user_id: userId,
          status,
          seq,
          message_id: "1",
          at: this.stamp(),
        });
      }
    }
  }

  // -------------------------------------------------------------------------------------------------------
  // HTTP

  readonly fetch = async (url: string, init: RequestLike): Promise<ResponseLike> => {
    await Promise.resolve();
    if (!this.online) throw new TypeError("network is gone");
    const { pathname, searchParams } = new URL(url);
    const path = pathname.replace("/api/v1", "");
    const body = init.body === undefined ? undefined : JSON.parse(init.body);
    this.requests.push({ method: init.method, path, body, headers: init.headers });
    const answer = this.#refusal(`${init.method} ${path}`) ?? this.#answer(init, path, searchParams, body);
    const text = answer.body === undefined ? "" : JSON.stringify(answer.body);
    return {
      status: answer.status,
      headers: { get: (name) => answer.headers?.[name] ?? null },
      text: async () => text,
    };
  };

  #refusal(call: string): Answer | null {
    const refusal = this.refusals.find((one) => one.times > 0 && one.match.test(call));
    if (refusal === undefined) return null;
    refusal.times -= 1;
    return refusal.answer;
  }

  #caller(init: RequestLike): string | null {
    const bearer = init.headers.authorization?.replace("Bearer token-", "");
    return bearer !== undefined && this.users.has(bearer) ? bearer : this.cookieUser;
  }

  #answer(init: RequestLike, path: string, query: URLSearchParams, body: Record<string, unknown>): Answer {
    const { method } = init;
    if (method === "POST" && (path === "/sessions" || path === "/users")) {
      const name = body.login ?? body.username;
      const user = [...this.users.values()].find((one) => one.username === name);
      if (user === undefined) return problem(401, "bad_credentials");
      const isWeb = init.headers["x-parlor-client"] === "web";
      if (isWeb) this.cookieUser = user.user_id;
      const token = isWeb ? {} : { token: `token-${user.user_id}` };
      return { status: 201, body: { user, session: { ...token, device_id: "7", expires_at: this.stamp() } } };
    }
    const me = this.#caller(init);
    if (me === null) return problem(401, "unauthenticated");
    const [, noun, id, sub, subId] = path.split("/").map(decodeURIComponent);
    const route = `${method} ${noun}/${id === undefined ? "" : "x"}${sub === undefined ? "" : `/${sub}`}`;
    const chat = noun === "chats" && id !== undefined ? this.chats.get(id) : undefined;
    if (noun === "chats" && id !== undefined && !chat?.members.includes(me)) return problem(404, "not_found");
    if (path === "/users/me") return { status: 200, body: { ...this.users.get(me), email: "a@b.example" } };
    if (path === "/sessions/current") {
      this.cookieUser = null;
      return { status: 204 };
    }
    if (path === "/ws/tickets") {
      const ticket = `ticket-${++this.#ticket}`;
      this.#tickets.set(ticket, me);
      return { status: 200, body: { ticket, expires_in: 30 } };
    }
    if (route === "GET users/x") {
      const user = this.users.get(id ?? "");
      return user === undefined ? problem(404, "not_found") : { status: 200, body: user };
    }
    if (route === "GET chats/") {
      const items = [...this.chats.values()]
        .filter((one) => one.members.includes(me))
        .map((one) => this.describe(one, me));
      const from = Number(query.get("cursor") ?? 0);
      const page = items.slice(from, from + 2);
      return { status: 200, body: { items: page, next: from + 2 < items.length ? String(from + 2) : null } };
    }
    if (route === "POST chats/") {
      const members = [me, ...(body.participants as string[])];
      const old = [...this.chats.values()].find(
        (one) =>
          one.type === "one_on_one" &&
          one.members.length === members.length &&
          members.every((m) => one.members.includes(m)),
      );
      if (body.type === "one_on_one" && old !== undefined)
        return { status: 200, body: this.describe(old, me) };
      return { status: 201, body: this.describe(this.chat(members, String(body.type)), me) };
    }
    if (chat !== undefined) return this.#chatAnswer(route, chat, me, query, subId);
    const home = [...this.chats.values()].find(
      (one) => one.messages.has(id ?? "") && one.members.includes(me),
    );
    const message = home?.messages.get(id ?? "");
    if (noun === "messages" && (home === undefined || message === undefined))
      return problem(404, "not_found");
    if (home !== undefined && message !== undefined) {
      if (route === "GET messages/x") return { status: 200, body: message };
      if (route === "PATCH messages/x") {
        this.edit(home, message.message_id, String(body.message));
        return { status: 200, body: home.messages.get(message.message_id) };
      }
      if (route === "DELETE messages/x") {
        this.delete(home, message.message_id);
        return { status: 204 };
      }
      if (route.endsWith("/reactions")) {
        this.react(home, message.message_id, me, subId ?? "");
        return { status: 200, body: home.messages.get(message.message_id) };
      }
    }
    return problem(404, "not_found");
  }

  #chatAnswer(
    route: string,
    chat: LogChat,
    me: string,
    query: URLSearchParams,
    _subId: string | undefined,
  ): Answer {
    if (route === "GET chats/x") return { status: 200, body: this.describe(chat, me) };
    if (route === "GET chats/x/participants") {
      const items = chat.members.map((user_id) => ({
        user_id,
        user: this.users.get(user_id),
        role: "member",
        joined_at: this.stamp(),
        joined_seq: 1,
        delivered_seq: chat.delivered.get(user_id) ?? 0,
        read_seq: chat.read.get(user_id) ?? 0,
      }));
      return { status: 200, body: { items, next: null } };
    }
    if (route === "GET chats/x/messages") {
      const from = chat.joinedSeq.get(me) ?? 1;
      const all = [...chat.messages.values()]
        .filter((message) => message.seq >= from)
        .sort((a, b) => a.seq - b.seq);
      const limit = Number(query.get("limit") ?? 50);
      const at = (name: string) => chat.messages.get(query.get(name) ?? "")?.seq;
      const [before, after, around] = [at("before"), at("after"), at("around")];
      const anchor = query.get("before") ?? query.get("after") ?? query.get("around");
      if (anchor !== null && !chat.messages.has(anchor)) return problem(404, "not_found");
      let page = all.slice(-limit);
      let rest = all.length - page.length;
      if (before !== undefined) {
        const older = all.filter((message) => message.seq < before);
        page = older.slice(-limit);
        rest = older.length - page.length;
      } else if (after !== undefined) {
        const newer = all.filter((message) => message.seq > after);
        page = newer.slice(0, limit);
        rest = newer.length - page.length;
      } else if (around !== undefined) {
        const i = all.findIndex((message) => message.seq === around);
        page = all.slice(Math.max(0, i - limit / 2), i + limit / 2);
        rest = all.length - page.length;
      }
      return { status: 200, body: { messages: page, has_more: rest > 0, head_seq: chat.log.length } };
    }
    return problem(404, "not_found");
  }

  describe(chat: LogChat, me: string): WireChat {
    const others = chat.members.filter((id) => id !== me);
    const peer = chat.type === "one_on_one" ? this.users.get(others[0] ?? "") : undefined;
    const messages = [...chat.messages.values()].sort((a, b) => a.seq - b.seq);
    return {
      chat_id: chat.chatId,
      type: chat.type,
      title: chat.title,
      topic: null,
      created_at: "2026-01-01T00:00:00.000Z",
      updated_at: this.stamp(),
      head_seq: chat.log.length,
      role: "member",
      participants_count: chat.members.length,
      settings: { history: "joined", members_may_add: false },
      peer: peer ?? null,
      last_message: messages.at(-1) ?? null,
      unread: this.unread(chat, me),
      mentions: 0,
      joined_seq: chat.joinedSeq.get(me) ?? 1,
      delivered_seq: chat.delivered.get(me) ?? 0,
      read_seq: chat.read.get(me) ?? 0,
    };
  }
}

function problem(status: number, code: string): Answer {
  return { status, body: { type: "about:blank", title: code, status, code, detail: code } };
}

export class FakeSocket implements SocketLike {
  onopen: (() => void) | null = null;
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  userId = "";
  greeted = false;
  #state: "connecting" | "open" | "closed" = "connecting";

  constructor(
    private readonly server: FakeServer,
    readonly url: string,
  ) {}

  open(): void {
    if (this.#state !== "connecting") return;
    this.#state = "open";
    this.onopen?.();
  }

  send(text: string): void {
    if (this.#state !== "open") throw new Error("the socket is not open");
    // What a cut line swallows is swallowed in silence.
    if (this.server.online) queueMicrotask(() => this.#state === "open" && this.server.onFrame(this, text));
  }

  close(): void {
    this.#state = "closed";
    this.greeted = false;
    this.server.sockets.delete(this);
  }

  tell(frame: unknown): void {
    this.raw(JSON.stringify(frame));
  }

  raw(data: unknown): void {
    queueMicrotask(() => {
      if (this.#state === "open") this.onmessage?.({ data });
    });
  }

  closeFrom(code: number): void {
    if (this.#state === "closed") return;
    this.close();
    this.onclose?.({ code, reason: "" });
  }

  cut(): void {
    this.closeFrom(1006);
  }
}
