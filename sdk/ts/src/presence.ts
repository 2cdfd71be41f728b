// Presence: who is here, who is typing, and what is on the own screen.
//
// Nothing here is stored or ordered: all of it may be lost, and is unknown while there is no connection.

import { Cell, type Readable } from "./cell";
import type { Core, Listener } from "./core";
import type { Presence, Presences } from "./index";
import type { Timer } from "./runtime";
import type { Change } from "./sync";
import type { ServerFrame } from "./wire";

const WATCH_DELAY_MS = 100;
/** People who leave the screen stay watched for a moment: scrolling back is common. */
const UNWATCH_DELAY_MS = 2_000;
const TYPING_REPEAT_MS = 3_000;
const TYPING_IDLE_MS = 5_000;
/** Who stopped without saying so (a cut line) is not shown longer than this. */
const TYPING_SHOWN_MS = 8_000;

const UNKNOWN: Presence = { status: "unknown", lastSeen: null };
const NOBODY: readonly string[] = [];

export class PresencesState implements Presences, Listener {
  readonly #people = new Map<string, Cell<Presence>>();
  #watched = "";
  #watchTimer: Timer | null = null;

  readonly #typing = new Map<string, Cell<readonly string[]>>();
  readonly #typingTimers = new Map<string, Timer>();
  #own: { chatId: string; toldAtMs: number; idle: Timer } | null = null;
  /** Null until the application said it: a bot has no screen. */
  #focus: { chat_id: string | null; visible: boolean } | null = null;

  constructor(private readonly core: Core) {}

  of(userId: string): Readable<Presence> {
    let cell = this.#people.get(userId);
    if (cell === undefined) {
      cell = new Cell<Presence>(UNKNOWN, {
        onFirst: () => this.#watchSoon(WATCH_DELAY_MS),
        onLast: () => this.#watchSoon(UNWATCH_DELAY_MS),
      });
      this.#people.set(userId, cell);
    }
    return cell;
  }

  typing(chatId: string): Readable<readonly string[]> {
    return this.#typingCell(chatId);
  }

  setTyping(chatId: string, active: boolean): void {
    const { runtime, connection } = this.core;
    const own = this.#own;
    if (own !== null && (own.chatId !== chatId || !active)) {
      runtime.clearTimeout(own.idle);
      this.#own = null;
      connection.send({ t: "typing", chat_id: own.chatId, active: false });
    }
    if (!active) return;
    const nowMs = runtime.now();
    const again = this.#own;
    if (again !== null) runtime.clearTimeout(again.idle);
    const due = again === null || nowMs - again.toldAtMs >= TYPING_REPEAT_MS;
    if (due) connection.send({ t: "typing", chat_id: chatId, active: true });
    this.#own = {
      chatId,
      toldAtMs: due ? nowMs : again.toldAtMs,
      idle: runtime.setTimeout(() => this.setTyping(chatId, false), TYPING_IDLE_MS),
    };
  }

  setFocus(chatId: string | null, visible: boolean): void {
    if (this.#focus?.chat_id === chatId && this.#focus.visible === visible) return;
    this.#focus = { chat_id: chatId, visible };
    this.core.connection.send({ t: "focus", ...this.#focus });
  }

  onFrame(frame: Extract<ServerFrame, { t: "presence" | "typing" }>): void {
    if (frame.t === "presence") {
      const cell = this.#people.get(frame.user_id);
      const now = cell?.get();
      if (now?.status === frame.status && now.lastSeen === frame.last_seen) return;
      cell?.set({ status: frame.status, lastSeen: frame.last_seen });
    } else if (frame.user_id !== this.core.account()?.userId) {
      this.#types(frame.chat_id, frame.user_id, frame.active);
    }
  }

  /** A message ends its author's typing, before any frame says so. */
  onChange(change: Change): void {
    // Strangers see "hidden"; who shares a chat from now on may see more, but the server tells it only when asked.
    const met =
      change.answered.size > 0 ||
      change.events.some((event) => event.kind === "created" || event.kind === "join");
    if (met && [...this.#people.values()].some((cell) => cell.watched && cell.get().status === "hidden")) {
      this.#watched = "";
      this.#watchSoon(WATCH_DELAY_MS);
    }
    for (const event of change.events) {
      const message = event.kind === "message" ? (event.message as { sender_id?: unknown } | null) : null;
      if (typeof message?.sender_id === "string") this.#types(event.chat_id, message.sender_id, false);
    }
  }

  onLive(): void {
    this.#watched = "";
    this.#watchSoon(0);
    if (this.#focus !== null) this.core.connection.send({ t: "focus", ...this.#focus });
  }

  onDown(): void {
    const { runtime } = this.core;
    for (const [userId, cell] of this.#people) {
      cell.set(UNKNOWN);
      if (!cell.watched) this.#people.delete(userId);
    }
    for (const timer of this.#typingTimers.values()) runtime.clearTimeout(timer);
    this.#typingTimers.clear();
    for (const [chatId, cell] of this.#typing) {
      cell.set(NOBODY);
      if (!cell.watched) this.#typing.delete(chatId);
    }
    if (this.#watchTimer !== null) runtime.clearTimeout(this.#watchTimer);
    this.#watchTimer = null;
  }

  onClose(): void {
    this.onDown();
    if (this.#own !== null) this.core.runtime.clearTimeout(this.#own.idle);
    this.#own = null;
  }

  #types(chatId: string, userId: string, active: boolean): void {
    const { runtime } = this.core;
    const key = `${chatId} ${userId}`;
    const timer = this.#typingTimers.get(key);
    if (timer !== undefined) runtime.clearTimeout(timer);
    this.#typingTimers.delete(key);
    if (active) {
      this.#typingTimers.set(
        key,
        runtime.setTimeout(() => this.#types(chatId, userId, false), TYPING_SHOWN_MS),
      );
    }
    const cell = this.#typingCell(chatId);
    const is = cell.get().includes(userId);
    if (active && !is) cell.set([...cell.get(), userId]);
    else if (!active && is) cell.set(cell.get().filter((id) => id !== userId));
  }

  #typingCell(chatId: string): Cell<readonly string[]> {
    let cell = this.#typing.get(chatId);
    if (cell === undefined) {
      cell = new Cell<readonly string[]>(NOBODY);
      this.#typing.set(chatId, cell);
    }
    return cell;
  }

  #watchSoon(delayMs: number): void {
    if (!this.core.connection.live || this.#watchTimer !== null) return;
    this.#watchTimer = this.core.runtime.setTimeout(() => {
      this.#watchTimer = null;
      this.#watch();
    }, delayMs);
  }

  #watch(): void {
    const wanted = [...this.#people].filter(([, cell]) => cell.watched).map(([userId]) => userId);
    const user_ids = wanted.slice(0, this.core.limits().watch);
    const key = user_ids.join(" ");
    if (key === this.#watched) return;
    if (!this.core.connection.send({ t: "watch", user_ids })) return;
    this.#watched = key;
    const watched = new Set(user_ids);
    for (const [userId, cell] of this.#people) {
      // Nobody tells changes of these any more: what was known would grow stale.
      if (watched.has(userId)) continue;
      if (cell.watched) cell.set(UNKNOWN);
      else this.#people.delete(userId);
    }
  }
}
