// Members: who is in a chat, in which role; adding, removing, leaving.
//
// The list is asked for when somebody looks at it and again when the log says that it changed. Joins and leaves
// as lines of a conversation are messages.ts; the positions that come with the list are receipts.ts.

import { toUser } from "./accounts";
import { Cell, type Readable } from "./cell";
import type { Account, Core, Listener } from "./core";
import { accountOf } from "./core";
import { path } from "./http";
import type { Member, Members, Role } from "./index";
import type { Timer } from "./runtime";
import type { Change } from "./sync";
import { isFields, isId, isSeq, type Page, readAll, readUser, type WireParticipant } from "./wire";

type MemberList = { readonly state: "loading" | "ready" | "failed"; readonly members: readonly Member[] };

const PAGE = 200;
/** Lists asked for at once. */
const LOADS = 2;
/** Several joins in a row are one reload. */
const RELOAD_DELAY_MS = 300;
const LOADING: MemberList = { state: "loading", members: [] };

export class MembersState implements Members, Listener {
  readonly #cells = new Map<string, Cell<MemberList>>();
  /** Read on the present connection: changes since then came as events. */
  readonly #fresh = new Set<string>();
  readonly #queue = new Set<string>();
  readonly #loading = new Set<string>();
  readonly #reloads = new Map<string, Timer>();

  constructor(private readonly core: Core) {}

  of(chatId: string): Readable<MemberList> {
    let cell = this.#cells.get(chatId);
    if (cell === undefined) {
      cell = new Cell<MemberList>(LOADING, {
        onFirst: () => {
          if (!this.#fresh.has(chatId) || this.#cells.get(chatId)?.get().state !== "ready") this.load(chatId);
        },
      });
      this.#cells.set(chatId, cell);
    }
    return cell;
  }

  async add(chatId: string, userIds: readonly string[]): Promise<void> {
    const body = { user_ids: userIds, client_id: this.core.keys.next() };
    await this.core.http.call("POST", path`/chats/${chatId}/participants`, { body });
    this.#reload(chatId);
  }

  async remove(chatId: string, userId: string): Promise<void> {
    await this.core.http.call("DELETE", path`/chats/${chatId}/participants/${userId}`);
    this.#reload(chatId);
  }

  async setRole(chatId: string, userId: string, role: Role): Promise<void> {
    await this.core.http.call("PATCH", path`/chats/${chatId}/participants/${userId}`, { body: { role } });
    this.#reload(chatId);
  }

  async leave(chatId: string): Promise<void> {
    const { userId, replica } = accountOf(this.core);
    await this.core.http.call("DELETE", path`/chats/${chatId}/participants/${userId}`);
    await replica.addChat(chatId, null);
  }

  /** Reads the list in the background, unless it was read on this connection. */
  load(chatId: string): void {
    if (this.#loading.has(chatId) || this.core.account() === null) return;
    this.#queue.add(chatId);
    this.#next();
  }

  loadIfStale(chatId: string): void {
    if (!this.#fresh.has(chatId)) this.load(chatId);
  }

  onOpen(_account: Account): void {
    for (const [chatId, cell] of this.#cells) if (cell.watched) this.load(chatId);
  }

  onChange(change: Change): void {
    for (const event of change.events) {
      if (event.kind === "join" || event.kind === "leave" || event.kind === "role")
        this.#reload(event.chat_id);
    }
    for (const chatId of change.removed) {
      this.#fresh.delete(chatId);
      this.#cells.get(chatId)?.set(LOADING);
    }
    if (change.reset) this.#fresh.clear();
  }

  onLive(): void {
    for (const [chatId, cell] of this.#cells) if (cell.watched) this.load(chatId);
  }

  onDown(): void {
    this.#fresh.clear();
  }

  onClose(): void {
    this.#fresh.clear();
    this.#queue.clear();
    for (const timer of this.#reloads.values()) this.core.runtime.clearTimeout(timer);
    this.#reloads.clear();
    for (const [chatId, cell] of this.#cells) {
      cell.set(LOADING);
      if (!cell.watched) this.#cells.delete(chatId);
    }
  }

  #reload(chatId: string): void {
    this.#fresh.delete(chatId);
    if (this.#cells.get(chatId)?.watched !== true || this.#reloads.has(chatId)) return;
    const timer = this.core.runtime.setTimeout(() => {
      this.#reloads.delete(chatId);
      this.load(chatId);
    }, RELOAD_DELAY_MS);
    this.#reloads.set(chatId, timer);
  }

  #next(): void {
    for (const chatId of this.#queue) {
      if (this.#loading.size >= LOADS) return;
      this.#queue.delete(chatId);
      this.#loading.add(chatId);
      void this.#fetch(chatId).finally(() => {
        this.#loading.delete(chatId);
        this.#next();
      });
    }
  }

  async #fetch(chatId: string): Promise<void> {
    const account = this.core.account();
    if (account === null) return;
    const cell = this.#cells.get(chatId);
    this.#fresh.add(chatId);
    try {
      const members: Member[] = [];
      let cursor: string | null = null;
      do {
        const page: Page<unknown> = await this.core.http.get(path`/chats/${chatId}/participants`, {
          limit: PAGE,
          cursor,
        });
        const items = readAll(page.items, readParticipant);
        members.push(...items.map(toMember));
        cursor = typeof page.next === "string" ? page.next : null;
        await account.replica.mutate(async (_, change) => {
          for (const { user } of items) change.users.set(user.user_id, user);
        });
      } while (cursor !== null);
      await account.replica.setRecipients(chatId, members);
      if (this.core.account() !== account) return;
      this.#cells.get(chatId)?.set({ state: "ready", members });
    } catch {
      this.#fresh.delete(chatId);
      // An old list is better than none.
      if (cell?.get().state === "loading" && this.core.account() === account)
        cell.set({ state: "failed", members: [] });
    }
  }
}

function readParticipant(value: unknown): WireParticipant | null {
  if (!isFields(value) || !isId(value.user_id)) return null;
  const user = readUser(value.user);
  if (user === null) return null;
  return {
    user_id: value.user_id,
    user,
    role: typeof value.role === "string" ? value.role : "member",
    joined_at: typeof value.joined_at === "string" ? value.joined_at : "",
    joined_seq: isSeq(value.joined_seq) ? value.joined_seq : 1,
    delivered_seq: isSeq(value.delivered_seq) ? value.delivered_seq : null,
    read_seq: isSeq(value.read_seq) ? value.read_seq : null,
  };
}

function toMember(participant: WireParticipant): Member {
  return {
    userId: participant.user_id,
    user: toUser(participant.user),
    role: participant.role,
    joinedAt: participant.joined_at || null,
    deliveredSeq: participant.delivered_seq,
    readSeq: participant.read_seq,
  };
}
