// Chats: the ordered list, what each row shows, and making, changing and removing chats.
//
// A row is computed from the replica's record, the outbox, the draft and the other person's profile; it is a new
// object only if one of these changed. Members are members.ts, the conversation itself is messages.ts.

import type { AccountsState } from "./accounts";
import { Cell, type Readable } from "./cell";
import type { Account, Core, Listener } from "./core";
import { accountOf } from "./core";
import { path } from "./http";
import type { Chat, Chats, MessageEntry } from "./index";
import { type MessagesState, messageEntry, waitingEntry } from "./messages";
import type { ChatRecord, EntryRecord } from "./store";
import type { Change } from "./sync";
import { readChat } from "./wire";

const NOTHING = { unread: 0, mentions: 0, unreadChats: 0 };

export class ChatsState implements Chats, Listener {
  readonly ready = new Cell(false);
  readonly list = new Cell<readonly Chat[]>([]);
  readonly order = new Cell<readonly string[]>([]);
  readonly totals = new Cell(NOTHING);
  readonly #cells = new Map<string, Cell<Chat | null>>();
  readonly #rows = new Map<string, Chat>();
  /** One entry object for one state of the last message. */
  readonly #lastEntries = new WeakMap<EntryRecord, MessageEntry | null>();

  constructor(
    private readonly core: Core,
    private readonly accounts: AccountsState,
    private readonly messages: MessagesState,
  ) {
    accounts.onLearned((userIds) => this.#onNames(userIds));
    messages.onDraft((chatId) => this.#publish([chatId]));
  }

  chat(chatId: string): Readable<Chat | null> {
    let cell = this.#cells.get(chatId);
    if (cell === undefined) {
      cell = new Cell<Chat | null>(this.#rows.get(chatId) ?? null);
      this.#cells.set(chatId, cell);
    }
    return cell;
  }

  direct(userId: string): Promise<string> {
    const { userId: me } = accountOf(this.core);
    // The caller is a member anyhow; a chat with nobody else is the one with oneself.
    return this.#create({ type: "one_on_one", participants: userId === me ? [] : [userId] });
  }

  createGroup(request: { title: string; participants: readonly string[] }): Promise<string> {
    return this.#create({ type: "group", title: request.title, participants: request.participants });
  }

  async update(
    chatId: string,
    change: { title?: string; topic?: string; settings?: Record<string, unknown> },
  ): Promise<void> {
    const { replica } = accountOf(this.core);
    const chat = readChat(await this.core.http.call("PATCH", path`/chats/${chatId}`, { body: change }));
    if (chat !== null) await replica.addChat(chatId, chat);
  }

  async remove(chatId: string): Promise<void> {
    const { replica } = accountOf(this.core);
    await this.core.http.call("DELETE", path`/chats/${chatId}`);
    await replica.addChat(chatId, null);
  }

  async #create(body: Record<string, unknown>): Promise<string> {
    const { replica } = accountOf(this.core);
    const call = { body: { ...body, client_id: this.core.keys.next() } };
    const chat = readChat(await this.core.http.call("POST", "/chats", call));
    if (chat === null) throw new Error("the server described no chat");
    await replica.addChat(chat.chat_id, chat);
    return chat.chat_id;
  }

  onOpen(account: Account): void {
    this.#publish([...account.replica.chats.keys()]);
    if (account.replica.listed) this.ready.set(true);
  }

  onChange(change: Change): void {
    if (change.reset) {
      for (const chatId of [...this.#rows.keys()]) this.#drop(chatId);
      this.ready.set(false);
    }
    for (const chatId of change.removed) this.#drop(chatId);
    if (change.reset || change.removed.size > 0 || change.chats.size > 0)
      this.#publish([...change.chats.keys()]);
    if (change.listed) this.ready.set(true);
  }

  onOutbox(chatId: string): void {
    this.#publish([chatId]);
  }

  onClose(): void {
    for (const chatId of [...this.#rows.keys()]) this.#drop(chatId);
    for (const [chatId, cell] of this.#cells) if (!cell.watched) this.#cells.delete(chatId);
    this.ready.set(false);
    this.#publish([]);
  }

  #onNames(userIds: ReadonlySet<string>): void {
    const named = [...this.#rows.values()].filter((row) => row.peerId !== null && userIds.has(row.peerId));
    if (named.length > 0) this.#publish(named.map((row) => row.chatId));
  }

  #drop(chatId: string): void {
    this.#rows.delete(chatId);
    this.#cells.get(chatId)?.set(null);
  }

  #publish(chatIds: readonly string[]): void {
    const account = this.core.account();
    for (const chatId of chatIds) {
      const record = account?.replica.chats.get(chatId);
      if (account === null || record === undefined) continue;
      const row = this.#row(account, record);
      const before = this.#rows.get(chatId);
      if (before !== undefined && sameRow(before, row)) continue;
      this.#rows.set(chatId, row);
      this.#cells.get(chatId)?.set(row);
    }
    const list = [...this.#rows.values()].sort(newestFirst);
    const before = this.list.get();
    if (list.length === before.length && list.every((row, i) => row === before[i])) return;
    this.list.set(list);
    const order = this.order.get();
    if (list.length !== order.length || list.some((row, i) => row.chatId !== order[i])) {
      this.order.set(list.map((row) => row.chatId));
    }
    const totals = { ...NOTHING };
    for (const row of list) {
      totals.unread += row.unread;
      totals.mentions += row.mentions;
      if (row.unread > 0) totals.unreadChats += 1;
    }
    const old = this.totals.get();
    const same =
      old.unread === totals.unread &&
      old.mentions === totals.mentions &&
      old.unreadChats === totals.unreadChats;
    if (!same) this.totals.set(totals);
  }

  #row(account: Account, record: ChatRecord): Chat {
    const { chat } = record;
    const outbox = account.outbox.of(record.chatId);
    const newest = outbox.at(-1);
    const inLog = newest?.acked != null && newest.acked.seq <= record.knownSeq;
    const lastMessage =
      newest !== undefined && !inLog
        ? waitingEntry(newest, account.userId)
        : this.#last(record.last, account.userId);
    const peer =
      chat.peer === null
        ? null
        : (this.accounts.known(chat.peer.user_id)?.displayName ?? chat.peer.display_name);
    return {
      chatId: record.chatId,
      type: chat.type,
      title: chat.title,
      name: chat.title ?? peer,
      topic: chat.topic,
      peerId: chat.peer?.user_id ?? null,
      role: chat.role,
      participantsCount: chat.participants_count,
      settings: chat.settings,
      createdAt: chat.created_at,
      updatedAt: lastMessage?.createdAt || chat.created_at,
      headSeq: record.headSeq,
      readSeq: record.readSeq,
      unread: record.unread,
      mentions: record.mentions,
      lastMessage,
      draft: this.messages.draftOf(record.chatId),
      waiting: outbox.filter(({ state }) => state === "waiting").length,
      failed: outbox.filter(({ state }) => state === "failed").length,
    };
  }

  #last(record: EntryRecord | null, me: string): MessageEntry | null {
    if (record === null) return null;
    let entry = this.#lastEntries.get(record);
    if (entry === undefined) {
      entry = messageEntry(record, me);
      this.#lastEntries.set(record, entry);
    }
    return entry;
  }
}

function newestFirst(a: Chat, b: Chat): number {
  if (a.updatedAt !== b.updatedAt) return a.updatedAt < b.updatedAt ? 1 : -1;
  return a.chatId < b.chatId ? 1 : -1;
}

function sameRow(a: Chat, b: Chat): boolean {
  return (Object.keys(b) as (keyof Chat)[]).every((key) => a[key] === b[key]);
}
