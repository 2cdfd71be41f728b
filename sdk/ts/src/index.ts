// The public door of the SDK: every type and function that an application may use, and nothing else.
//
// A view holds cells (`Readable`) and calls actions; it never sees a frame, a cursor or the store.
// What travels is in docs/protocol.md; how it is kept gap-free is in sync.ts.
//
// Conventions, valid for everything below:
//  - Ids are decimal strings above 2^53: never turn them into numbers. Order them with `compareIds`.
//  - `seq` is a position in the log of one chat: a number, 1 for the first event.
//  - Times that the server gives are RFC 3339 strings in UTC with milliseconds; times that the client
//    gives are epoch milliseconds and end in `AtMs`.
//  - Every promise that talks to the server rejects with `ProblemError` (the server refused) or
//    `NetworkError` (no answer: the outcome is unknown). Nothing else is thrown on purpose.
//  - Values in cells are never mutated; a changed thing is a new object, an unchanged thing the same one,
//    so keyed lists redraw only what changed.

import type { Readable } from "./cell";
import type { ProblemError } from "./http";
import type { Runtime } from "./runtime";
import type { StoreProvider } from "./store";

export type { Readable } from "./cell";
export { createClient } from "./client";
export { NetworkError, ProblemError } from "./http";
export { compareIds } from "./ids";
export { messageStatus } from "./receipts";
export type { Runtime, SocketLike } from "./runtime";
export type { Store, StoreProvider } from "./store";
export { indexedDbStore, memoryStore } from "./store";

// ---------------------------------------------------------------------------------------------------------
// The client

export interface ClientOptions {
  /** Origin of the server, `https://chat.example` (a path prefix is kept). The socket address follows from it. */
  server: string;
  /**
   * `"cookie"` (the default): a page of the server's own origin; the browser holds the session, sockets open
   * with a one-time ticket. `{ token }`: a bot or an application; `{ token: null }` until `signIn` gives one; `onToken` hears
   * of each new token (keep it like a password) and of null when the session ends.
   */
  auth?: "cookie" | { token: string | null; onToken?: (token: string | null) => void };
  /** Told to the server at sign-in and shown in the list of devices. */
  deviceName?: string;
  /** Where the cache, the outbox and the drafts live. Default: IndexedDB if there is one, else memory. */
  store?: StoreProvider;
  /** Clock, randomness, network and timers; each defaults to the one of `globalThis`. */
  runtime?: Partial<Runtime>;
}

/** One account on one server. Create it with `createClient`, call `start()` once. */
export interface Client {
  /** Who is signed in. Views branch on this first. */
  readonly session: Readable<SessionState>;
  /** The life of the socket. */
  readonly connection: Readable<ConnectionState>;
  /** Whether what the client keeps will survive a reload. */
  readonly storage: Readable<StorageState>;
  /** Limits the server named at the last welcome (defaults of the protocol before that). */
  readonly limits: Readable<Limits>;

  readonly accounts: Accounts;
  readonly devices: Devices;
  readonly chats: Chats;
  readonly members: Members;
  readonly messages: Messages;
  readonly receipts: Receipts;
  readonly presence: Presences;

  /**
   * Shows what the store knows of the last account at once (also offline), asks the server who is signed in,
   * and connects. Resolves when `session` is no longer `unknown`. Calling it twice is harmless.
   */
  start(): Promise<void>;
  /** Closes the socket and the store; the session stays. The client can be started again. */
  stop(): Promise<void>;
  /** "Try now": connects at once instead of waiting for the back-off; also leaves `closed`. */
  connectNow(): void;
  /** Pass on the browser's `online` and `offline` events. */
  networkChanged(online: boolean): void;
  /**
   * Pass on which chat is on screen, and whether the page is visible and focused. The server decides by it
   * whether to notify; it is no receipt: reading is told by `receipts.markRead`.
   */
  setFocus(chatId: string | null, visible: boolean): void;
}

export type SessionState =
  /** Before `start()` has found out. */
  | { readonly state: "unknown" }
  /**
   * `none`: nobody was signed in. `signed_out`: by this client. `lost`: the server does not know the session
   * any more (expired, revoked from another device); local data, outbox and drafts of the account are kept.
   */
  | { readonly state: "signed_out"; readonly reason: "none" | "signed_out" | "lost" }
  | { readonly state: "signed_in"; readonly userId: string; readonly me: Me };

/** `sinceMs`: when the present connection was welcomed; in all other states, when the last one was lost. */
export type ConnectionState =
  /**
   * No socket. `stopped`: not started, or nobody signed in. `network`: the application said that the network
   * is gone. `waiting`: the next attempt is at `retryAtMs` (epoch milliseconds).
   */
  | {
      readonly state: "offline";
      readonly cause: "stopped" | "network" | "waiting";
      readonly sinceMs: number;
      readonly retryAtMs: number | null;
    }
  | { readonly state: "connecting"; readonly sinceMs: number }
  /** The socket is open, the client said hello; what was missed comes next. */
  | { readonly state: "resuming"; readonly sinceMs: number }
  /** Welcomed. `catchingUp` is true while chats are still being paged up to their heads. */
  | { readonly state: "live"; readonly sinceMs: number; readonly catchingUp: boolean }
  /** The server closed for good; only `connectNow()` or a new sign-in leaves this state. */
  | {
      readonly state: "closed";
      readonly sinceMs: number;
      readonly code: number;
      readonly reason: ClosedReason;
    };

export type ClosedReason =
  | "not_hello" // 4001
  | "unsupported_version" // 4002: this client is too old, reload the application
  | "bad_credentials" // 4003
  | "session_revoked" // 4005
  | "too_many_connections" // 4006: a newer window of the same person took the place
  | "unsupported_data" // 1003
  | "invalid_payload" // 1007
  | "too_big"; // 1009

export interface StorageState {
  /** False: memory only; unsent messages and drafts are lost with the page. */
  readonly persistent: boolean;
  /** Why it is not persistent; null if it is, or if the application asked for memory. */
  readonly problem: "unavailable" | "full" | "failed" | null;
}

export interface Limits {
  readonly messageBytes: number;
  readonly frameBytes: number;
  readonly batch: number;
  readonly attachments: number;
  readonly page: number;
  readonly titleChars: number;
  readonly topicChars: number;
  readonly usernameChars: number;
  readonly groupMembers: number;
  readonly sendsPerSecond: number;
  readonly sendsBurst: number;
  readonly connectionsPerUser: number;
  readonly watch: number;
}

// ---------------------------------------------------------------------------------------------------------
// Accounts and devices

/** What anybody may see of a person. */
export interface User {
  readonly userId: string;
  readonly username: string;
  /** Falls back to the username, never empty. */
  readonly displayName: string;
  readonly createdAt: string | null;
  /** The account is gone; what it wrote may remain. */
  readonly deleted: boolean;
}

/** What a person sees of themselves. */
export interface Me extends User {
  readonly email: string | null;
  /** Administers the server. */
  readonly admin: boolean;
  readonly privacy: Privacy | null;
}

export interface PrivacyRule {
  readonly who: "everyone" | "contacts" | "nobody";
  readonly except: readonly string[];
}
export interface Privacy {
  readonly online: PrivacyRule;
  readonly lastSeen: PrivacyRule;
  readonly receipts: PrivacyRule;
}

export interface Accounts {
  /** Own profile; null while signed out. */
  readonly me: Readable<Me | null>;
  /** Errors: `username_taken`, `email_taken`, `invalid` with `field`, 429 with `retryAfterMs`. Signs in and connects. */
  signUp(request: {
    username: string;
    email: string;
    password: string;
    displayName?: string;
    invite?: string;
  }): Promise<Me>;
  /** `login` is a username or an email address. The same error for an unknown name and a wrong password. */
  signIn(request: { login: string; password: string }): Promise<Me>;
  /**
   * Ends the session and forgets everything local of the account, unsent messages included. In cookie mode it
   * rejects with `NetworkError` and changes nothing while the server cannot be reached: only the server can end
   * the browser's cookie.
   */
  signOut(): Promise<void>;
  /** Only the fields given are changed. */
  update(change: { displayName?: string; privacy?: Partial<Privacy> }): Promise<Me>;
  /**
   * This session stays, all others end. Errors: 422 with `field` `password.current` (not the password in force)
   * or `password.new` (too short; code `weak_password` if it is easy to guess).
   */
  changePassword(request: { current: string; new: string }): Promise<void>;
  /** Shuts the account at once; erasure follows on the server. */
  deleteAccount(password: string): Promise<void>;
  /** Exact look-up by username; null if there is none, or none that may be known. */
  lookUp(username: string): Promise<User | null>;
  /**
   * A person's public profile; null until known. The first subscription asks the server if the person is new,
   * so a list of names costs nothing for people who were seen before.
   */
  user(userId: string): Readable<User | null>;
}

export interface Device {
  readonly deviceId: string;
  readonly name: string | null;
  readonly createdAt: string | null;
  readonly lastUsedAt: string | null;
  readonly current: boolean;
}

export interface Devices {
  list(): Promise<readonly Device[]>;
  /** Signs another device out within a second. */
  revoke(deviceId: string): Promise<void>;
}

// ---------------------------------------------------------------------------------------------------------
// Chats and members

export type ChatType = "one_on_one" | "group" | "channel" | "broadcast" | "support" | (string & {});
export type Role = "owner" | "admin" | "member" | (string & {});

/** A chat as the list shows it. */
export interface Chat {
  readonly chatId: string;
  readonly type: ChatType;
  /** As the server has it; null for one-to-one chats. */
  readonly title: string | null;
  /** What to show: the title, the other person's name, "Saved messages" is null: the app names it. */
  readonly name: string | null;
  readonly topic: string | null;
  /** The other person of a one-to-one chat; null elsewhere, and for a chat with oneself. */
  readonly peerId: string | null;
  readonly role: Role;
  readonly participantsCount: number;
  /** Chat settings as the server has them (`members_may_add`, `posting`, `history`, …). */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly createdAt: string;
  /** Time of the last message, else of the last change: the list is ordered by it, newest first. */
  readonly updatedAt: string;
  readonly headSeq: number;
  /** Own read position. */
  readonly readSeq: number;
  readonly unread: number;
  readonly mentions: number;
  /** The newest message, waiting ones included; null in an empty chat. */
  readonly lastMessage: MessageEntry | null;
  /** Text being written; empty if none. */
  readonly draft: string;
  /** Own messages not acknowledged yet, and those refused for good. */
  readonly waiting: number;
  readonly failed: number;
}

export interface Chats {
  /** False until the list is known from the store or the server. */
  readonly ready: Readable<boolean>;
  /** All own chats, most recent first. Entries that did not change keep their identity. */
  readonly list: Readable<readonly Chat[]>;
  /** Only the ids, in the same order: changes when the order changes, not with every tick or count. */
  readonly order: Readable<readonly string[]>;
  /** Sums for the page title. */
  readonly totals: Readable<{
    readonly unread: number;
    readonly mentions: number;
    readonly unreadChats: number;
  }>;
  /** One chat; null if it is not known, or no longer. */
  chat(chatId: string): Readable<Chat | null>;
  /** The one-to-one chat with a person, made if there is none (with oneself: pass the own id). Answers its id. */
  direct(userId: string): Promise<string>;
  /** A group with the caller as owner. Answers the id. */
  createGroup(request: { title: string; participants: readonly string[] }): Promise<string>;
  /** Only the fields given are changed. Errors: 403 `forbidden`, `invalid` with `field`. */
  update(
    chatId: string,
    change: { title?: string; topic?: string; settings?: Record<string, unknown> },
  ): Promise<void>;
  /** One-to-one: cleared and hidden for oneself. Elsewhere: closed for all (owners only). */
  remove(chatId: string): Promise<void>;
}

export interface Member {
  readonly userId: string;
  readonly user: User | null;
  readonly role: Role;
  readonly joinedAt: string | null;
  /** Positions when the list was read, null where hidden; `Receipts.ticks` has the present ones. */
  readonly deliveredSeq: number | null;
  readonly readSeq: number | null;
}

export interface Members {
  /** Present members; `loading` until the first answer. The first subscription loads them. */
  of(
    chatId: string,
  ): Readable<{ readonly state: "loading" | "ready" | "failed"; readonly members: readonly Member[] }>;
  add(chatId: string, userIds: readonly string[]): Promise<void>;
  remove(chatId: string, userId: string): Promise<void>;
  setRole(chatId: string, userId: string, role: Role): Promise<void>;
  /** Errors: 409 `last_owner` unless another owner is named first. */
  leave(chatId: string): Promise<void>;
}

// ---------------------------------------------------------------------------------------------------------
// Messages

export interface Reaction {
  readonly emoji: string;
  readonly count: number;
  /** The first 20 who chose it. */
  readonly userIds: readonly string[];
  /** True if the caller is among them (known exactly up to 20 people, and for own acts of this client). */
  readonly mine: boolean;
}

/** Why a message was not sent. The text is kept until `retry` or `discard`. */
export interface SendFailure {
  /** Stable code of the server (`not_found`, `forbidden`, `too_large`, …), or `not_stored` if the device could not keep it. */
  readonly code: string;
  readonly detail: string;
}

export interface MessageEntry {
  readonly kind: "message";
  /** Stable key for keyed lists: does not change when a waiting message is acknowledged. */
  readonly key: string;
  /** null while it waits in the outbox. */
  readonly messageId: string | null;
  readonly clientId: string | null;
  readonly chatId: string;
  /** null while it waits in the outbox. */
  readonly seq: number | null;
  readonly senderId: string;
  readonly mine: boolean;
  /** `text`, or a type this client may not know: then show `text`. */
  readonly type: string;
  readonly text: string;
  /** Message id of what it answers. */
  readonly replyTo: string | null;
  readonly attachments: readonly string[];
  readonly createdAt: string;
  readonly editedAt: string | null;
  /** A tombstone: the text is gone everywhere. */
  readonly deleted: boolean;
  readonly reactions: readonly Reaction[];
  /** `null` for what others sent. How far an accepted message has come: `messageStatus(entry, ticks)`. */
  readonly sending: "waiting" | "accepted" | "failed" | null;
  /** Set with `sending: "failed"`. */
  readonly failure: SendFailure | null;
}

/** Something that happened in the chat and is no message: show it as a line. */
export interface NoticeEntry {
  readonly kind: "notice";
  readonly key: string;
  readonly chatId: string;
  readonly seq: number;
  /** `created`, `join`, `leave`, `role`, `settings`; or a kind this client does not know, then `fallback` is the text. */
  readonly event: string;
  readonly createdAt: string | null;
  /** Who did it, and to whom. */
  readonly byId: string | null;
  readonly userId: string | null;
  /** The event's own fields, as they came. */
  readonly fields: Readonly<Record<string, unknown>>;
  readonly fallback: string | null;
}

export type Entry = MessageEntry | NoticeEntry;

/** The loaded part of a chat, ascending; waiting and failed own messages stand at its end. */
export interface MessagesWindow {
  readonly chatId: string;
  /** `loading`: nothing to show yet. `failed`: the first page could not be loaded, `problem` says why; `loadOlder` tries again. */
  readonly state: "loading" | "ready" | "failed";
  readonly entries: readonly Entry[];
  /** More exists before the first entry. */
  readonly hasOlder: boolean;
  /** More exists after the last entry: true only after a jump. */
  readonly hasNewer: boolean;
  readonly loadingOlder: boolean;
  readonly loadingNewer: boolean;
  readonly problem: ProblemError | Error | null;
}

export interface OutgoingMessage {
  text: string;
  /** Default `text`. */
  type?: string;
  /** Message id. */
  replyTo?: string | null;
}

export interface Messages {
  /** The window of a chat. The first subscription fills it from the store and the server; it lives while it is subscribed. */
  of(chatId: string): Readable<MessagesWindow>;
  /** Adds up to 50 older entries. Resolves when they are in the window. */
  loadOlder(chatId: string): Promise<void>;
  loadNewer(chatId: string): Promise<void>;
  /** Shows the surroundings of a message. Errors: 404 if it is gone or may not be known. */
  jumpTo(chatId: string, messageId: string): Promise<void>;
  jumpToNewest(chatId: string): Promise<void>;

  /**
   * Puts a message into the outbox: it is in the window in the same turn. Resolves with its `clientId` when it
   * is stored on this device (the draft of the chat is cleared in the same step), long before it is sent.
   * It is sent until the server acknowledged it, stored there once, in the order of the calls.
   */
  send(chatId: string, message: OutgoingMessage): Promise<string>;
  /** Queues a failed message again, at the end. */
  retry(clientId: string): Promise<void>;
  /** Forgets a waiting or failed message. What is already on its way may still arrive. */
  discard(clientId: string): Promise<void>;

  /** Needs a connection. Errors: 403, 404, 413. */
  edit(messageId: string, text: string): Promise<void>;
  /** For everyone; leaves a tombstone. */
  delete(messageId: string): Promise<void>;
  react(messageId: string, emoji: string): Promise<void>;
  unreact(messageId: string, emoji: string): Promise<void>;
  /** One message, from the store or the server: what a reply quotes. Null if it may not be known. */
  get(messageId: string): Promise<MessageEntry | null>;

  /** Text being written in a chat. */
  draft(chatId: string): Readable<string>;
  /** Kept on this device, at once in memory and shortly after in the store. */
  setDraft(chatId: string, text: string): void;
}

// ---------------------------------------------------------------------------------------------------------
// Receipts and presence

/** `waiting` and `failed` are this device's word, the others the server's. */
export type MessageStatus = "waiting" | "failed" | "sent" | "delivered" | "read";

/**
 * How far a chat's other members have come: one small value per chat, so ticks move without touching the
 * messages. Combine it with an entry by `messageStatus(entry, ticks)`.
 */
export interface Ticks {
  /** Up to this `seq` every recipient has stored, or read, everything. 0: nothing is known. */
  readonly deliveredSeq: number;
  readonly readSeq: number;
  /** Each known recipient's positions; people who send no receipts are absent. */
  readonly cursors: ReadonlyMap<string, { readonly deliveredSeq: number; readonly readSeq: number }>;
}

export interface RecipientStatus {
  readonly userId: string;
  /** `hidden`: this person sends no receipts. */
  readonly status: "sent" | "delivered" | "read" | "hidden";
  readonly updatedAt: string | null;
  readonly deliveredAt: string | null;
  readonly readAt: string | null;
}

export interface Receipts {
  ticks(chatId: string): Readable<Ticks>;
  /** Who got and read one own message, and when. */
  recipients(messageId: string): Promise<readonly RecipientStatus[]>;
  /**
   * Everything up to `seq` was on a visible, focused screen. The view decides that. Never goes back; works
   * offline and is told later. (`delivered` is told by the SDK, after the store kept the message.)
   */
  markRead(chatId: string, seq: number): void;
}

export interface Presence {
  readonly status: "online" | "away" | "offline" | "hidden" | "unknown";
  readonly lastSeen: string | null;
}

export interface Presences {
  /** A person's presence. The server is asked to watch exactly the people whose cells have subscribers. */
  of(userId: string): Readable<Presence>;
  /** Ids of the others who are writing in a chat now. */
  typing(chatId: string): Readable<readonly string[]>;
  /** Call it at each key press; it is told at most every 3 s and ends by itself after 5 s, or when a message is sent. */
  setTyping(chatId: string, active: boolean): void;
}
