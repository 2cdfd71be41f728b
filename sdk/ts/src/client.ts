// Puts the nouns together: one client, at most one account at a time, and the session that decides which.
//
// Here: starting, signing in and out, losing a session, and the routing of frames to whoever wants them.

import { AccountsState, toMe } from "./accounts";
import { Cell, type Readable } from "./cell";
import { ChatsState } from "./chats";
import { Connection, type Welcome } from "./connection";
import type { Account, Core, Listener } from "./core";
import { DevicesState } from "./devices";
import { Http, mayRetry, ProblemError } from "./http";
import { KeyMaker } from "./ids";
import type { Client, ClientOptions, ConnectionState, Limits, Me, SessionState, StorageState } from "./index";
import { MembersState } from "./members";
import { MessagesState } from "./messages";
import { Outbox } from "./outbox";
import { PresencesState } from "./presence";
import { ReceiptsState } from "./receipts";
import { defaultRuntime, type Timer } from "./runtime";
import {
  indexedDbStore,
  memoryStore,
  type Snapshot,
  type Store,
  type StoreProvider,
  trimHistory,
} from "./store";
import { Replica } from "./sync";
import { isSeq, readUser, type ServerFrame, type WireSignedIn, type WireUser } from "./wire";

const DEFAULT_LIMITS: Limits = {
  messageBytes: 16_384,
  frameBytes: 65_536,
  batch: 100,
  attachments: 10,
  page: 200,
  titleChars: 100,
  topicChars: 500,
  usernameChars: 50,
  groupMembers: 1_000,
  sendsPerSecond: 20,
  sendsBurst: 100,
  connectionsPerUser: 10,
  watch: 500,
};

const WHO_AM_I_RETRY_MS = 5_000;

/** Makes a client. It does nothing before `start()`. */
export function createClient(options: ClientOptions): Client {
  return new ParlorClient(options);
}

class ParlorClient implements Client {
  readonly session = new Cell<SessionState>({ state: "unknown" });
  readonly storage: Cell<StorageState>;
  readonly limits = new Cell<Limits>(DEFAULT_LIMITS);
  readonly accounts: AccountsState;
  readonly devices: DevicesState;
  readonly chats: ChatsState;
  readonly members: MembersState;
  readonly messages: MessagesState;
  readonly receipts: ReceiptsState;
  readonly presence: PresencesState;

  readonly #core: Core;
  readonly #connection: Connection;
  readonly #server: string;
  readonly #cookie: boolean;
  readonly #deviceName: string | undefined;
  readonly #onToken: (token: string | null) => void;
  readonly #listeners: readonly Listener[];
  #stores: StoreProvider;
  #token: string | null = null;
  #account: Account | null = null;
  #started = false;
  /** Starting, signing in, leaving: one after the other. */
  #acts: Promise<unknown> = Promise.resolve();
  #whoAmITimer: Timer | null = null;

  constructor(options: ClientOptions) {
    const auth = options.auth ?? "cookie";
    const runtime = defaultRuntime(options.runtime);
    this.#server = options.server.replace(/\/+$/, "");
    this.#cookie = auth === "cookie";
    this.#onToken = auth === "cookie" ? () => {} : (auth.onToken ?? (() => {}));
    if (auth !== "cookie") this.#token = auth.token;
    this.#deviceName = options.deviceName;
    const canPersist = typeof indexedDB !== "undefined";
    this.#stores = options.store ?? (canPersist ? indexedDbStore() : memoryStore());
    const problem = options.store === undefined && !canPersist ? "unavailable" : null;
    this.storage = new Cell<StorageState>({ persistent: this.#stores.persistent, problem });

    const http = new Http({
      server: this.#server,
      runtime,
      token: () => this.#token,
      cookie: this.#cookie,
      onSessionLost: () => this.#lost(),
    });
    this.#connection = new Connection({
      server: this.#server,
      runtime,
      http,
      token: () => this.#token,
      cookie: this.#cookie,
      deviceName: this.#deviceName,
      cursor: async () => this.#account?.replica.cursor ?? null,
      onWelcome: (welcome) => this.#onWelcome(welcome),
      onFrames: (frames) => this.#onFrames(frames),
      onDown: () => this.#onDown(),
      onSessionRefused: (code) => {
        if (code === 4005) this.#lost();
        // A bad ticket may be an old one; whether the session is gone is for the session to say.
        else this.#askWhoAmI().catch(() => {});
      },
    });
    this.#core = {
      runtime,
      http,
      connection: this.#connection,
      keys: new KeyMaker(runtime),
      limits: () => this.limits.get(),
      account: () => this.#account,
    };

    this.accounts = new AccountsState(this.#core, {
      signUp: (request) => this.#enter("/users", signUpBody(request)),
      signIn: ({ login, password }) => this.#enter("/sessions", { login, password }),
      signOut: () => this.#signOut(),
      forget: () => this.#act(() => this.#leave("signed_out", "forget")),
      changedMe: (user) => this.#changedMe(user),
    });
    this.devices = new DevicesState(this.#core);
    this.messages = new MessagesState(this.#core);
    this.chats = new ChatsState(this.#core, this.accounts, this.messages);
    this.members = new MembersState(this.#core);
    this.receipts = new ReceiptsState(this.#core);
    this.presence = new PresencesState(this.#core);
    this.receipts.onTicksWanted((chatId) => this.members.loadIfStale(chatId));
    this.messages.onSend((chatId) => this.presence.setTyping(chatId, false));
    // Names before rows, rows before conversations: a view that hears of a message finds its chat and author.
    this.#listeners = [this.accounts, this.chats, this.members, this.receipts, this.presence, this.messages];
  }

  get connection(): Readable<ConnectionState> {
    return this.#connection.state;
  }

  start(): Promise<void> {
    if (this.#started) return this.#acts.then(() => {});
    this.#started = true;
    return this.#act(() => this.#restore());
  }

  async stop(): Promise<void> {
    this.#started = false;
    this.#clearWhoAmI();
    await this.#act(async () => {
      await this.#close();
      this.session.set({ state: "unknown" });
    });
  }

  connectNow(): void {
    this.#connection.connectNow();
  }

  networkChanged(online: boolean): void {
    this.#connection.networkChanged(online);
    if (online && this.#whoAmITimer !== null) this.#askWhoAmI().catch(() => {});
  }

  setFocus(chatId: string | null, visible: boolean): void {
    this.presence.setFocus(chatId, visible);
  }

  // -------------------------------------------------------------------------------------------------------
  // The session

  #act<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#acts.then(run);
    this.#acts = result.catch(() => {});
    return result;
  }

  async #restore(): Promise<void> {
    const last = await this.#stores.lastUser(this.#server).catch(() => {
      this.#withoutStorage();
      return null;
    });
    if (!this.#cookie && this.#token === null) {
      this.session.set({ state: "signed_out", reason: "none" });
      return;
    }
    if (last !== null) {
      await this.#open(last);
      // The cache is on screen; whether it is still us is found out beside it.
      this.#askWhoAmI().catch(() => {});
      return;
    }
    try {
      await this.#recognise();
    } catch (error) {
      if (this.session.get().state === "unknown") this.session.set({ state: "signed_out", reason: "none" });
      if (mayRetry(error)) this.#askWhoAmILater();
    }
  }

  /** Asks the server who is signed in, and serves that account. */
  async #recognise(): Promise<void> {
    // Nobody signed in is an ordinary answer here, not a lost session, unless an account is open.
    const user = readUser(
      await this.#core.http.call("GET", "/users/me", { keepsSession: this.#account === null }),
    );
    if (user === null || !this.#started) return;
    if (this.#account?.userId === user.user_id) {
      await this.#changedMe(user);
      return;
    }
    // Another account signed in beside us (the cookie belongs to the whole browser).
    await this.#close();
    await this.#open(user);
  }

  #askWhoAmI(): Promise<void> {
    this.#clearWhoAmI();
    return this.#act(() => this.#recognise()).catch((error: unknown) => {
      if (mayRetry(error)) this.#askWhoAmILater();
    });
  }

  #askWhoAmILater(): void {
    if (!this.#started || this.#account !== null) return;
    this.#whoAmITimer ??= this.#core.runtime.setTimeout(() => {
      this.#whoAmITimer = null;
      if (this.#started && this.#account === null) this.#askWhoAmI().catch(() => {});
    }, WHO_AM_I_RETRY_MS);
  }

  #clearWhoAmI(): void {
    if (this.#whoAmITimer !== null) this.#core.runtime.clearTimeout(this.#whoAmITimer);
    this.#whoAmITimer = null;
  }

  #enter(route: "/users" | "/sessions", body: Record<string, unknown>): Promise<Me> {
    return this.#act(async () => {
      const device = this.#deviceName === undefined ? {} : { device_name: this.#deviceName };
      const call = { body: { ...body, ...device }, anonymous: true, keepsSession: true };
      const answer = await this.#core.http.call<WireSignedIn>("POST", route, call);
      const user = readUser(answer.user);
      if (user === null) throw new Error("the server described no account");
      this.#started = true;
      this.#clearWhoAmI();
      await this.#close();
      if (!this.#cookie) {
        this.#token = answer.session.token ?? null;
        this.#onToken(this.#token);
      }
      await this.#open(user);
      return toMe(user);
    });
  }

  #signOut(): Promise<void> {
    return this.#act(async () => {
      if (this.#account === null) return;
      try {
        await this.#core.http.call("DELETE", "/sessions/current", {
          keepsSession: true,
        });
      } catch (error) {
        // A cookie that nobody ended would sign the next person in: then this is no sign-out.
        const gone = error instanceof ProblemError && error.status === 401;
        if (this.#cookie && !gone) throw error;
      }
      await this.#leave("signed_out", "forget");
    });
  }

  /** The server does not know the session any more. Everything local stays for the next sign-in. */
  #lost(): void {
    const account = this.#account;
    if (account === null) return;
    this.#connection.stop();
    this.#act(async () => {
      if (this.#account === account) await this.#leave("lost", "keep");
    }).catch(() => {});
  }

  async #leave(reason: "signed_out" | "lost", data: "keep" | "forget"): Promise<void> {
    const account = this.#account;
    await this.#close();
    if (!this.#cookie) {
      this.#token = null;
      this.#onToken(null);
    }
    await this.#stores.setLastUser(this.#server, null).catch(() => {});
    if (account !== null && data === "forget") {
      await this.#stores.remove(this.#server, account.userId).catch(() => {});
    }
    this.session.set({ state: "signed_out", reason });
  }

  async #changedMe(user: WireUser): Promise<void> {
    if (this.#account?.userId !== user.user_id) return;
    const me = toMe(user);
    this.accounts.me.set(me);
    this.accounts.learn([user]);
    this.session.set({ state: "signed_in", userId: user.user_id, me });
    await this.#stores.setLastUser(this.#server, user).catch(() => {});
  }

  // -------------------------------------------------------------------------------------------------------
  // The account

  async #open(user: WireUser): Promise<void> {
    const { runtime, http, keys } = this.#core;
    let store: Store;
    let snapshot: Snapshot;
    try {
      store = await this.#stores.open(this.#server, user.user_id);
      snapshot = await store.load();
    } catch {
      this.#withoutStorage();
      store = await this.#stores.open(this.#server, user.user_id);
      snapshot = await store.load();
    }
    // A cut that fails (another window was quicker, the disk is full) leaves what was there, cut or not.
    snapshot = await trimHistory(store, snapshot).catch(() => store.load());
    const replica: Replica = new Replica({
      runtime,
      http,
      connection: this.#connection,
      store,
      me: user.user_id,
      onChange: (change) => {
        if (this.#account?.replica !== replica) return;
        this.#account.outbox.onChange(change);
        for (const listener of this.#listeners) listener.onChange?.(change);
      },
      onStale: () => {
        this.#act(() => this.#reopen(replica, user)).catch(() => {});
      },
      onStorageProblem: (problem) => this.storage.set({ persistent: false, problem }),
      ownWords: () => ({ outbox: outbox.all(), drafts: this.messages.drafts() }),
    });
    const outbox = new Outbox({
      runtime,
      connection: this.#connection,
      replica,
      keys,
      onUpdate: (chatId) => {
        if (this.#account?.replica !== replica) return;
        for (const listener of this.#listeners) listener.onOutbox?.(chatId);
      },
    });
    replica.open(snapshot);
    this.#account = { userId: user.user_id, replica, outbox };
    outbox.open(snapshot.outbox);
    this.accounts.learn([...snapshot.users, user]);
    this.messages.openDrafts(snapshot.drafts);
    for (const listener of this.#listeners) listener.onOpen?.(this.#account);
    await this.#changedMe(user);
    this.#connection.start();
  }

  async #close(): Promise<void> {
    const account = this.#account;
    if (account === null) return;
    await this.messages.flushDrafts();
    this.#connection.stop();
    this.#account = null;
    account.outbox.close();
    account.replica.close();
    for (const listener of this.#listeners) listener.onClose?.();
  }

  /** Another window started the cache again: take over what it has, words in writing included. */
  async #reopen(replica: Replica, user: WireUser): Promise<void> {
    if (this.#account?.replica !== replica) return;
    const writing = new Map(this.messages.drafts());
    await this.#close();
    await this.#open(user);
    this.messages.openDrafts(writing);
  }

  #withoutStorage(): void {
    this.#stores = memoryStore();
    this.storage.set({ persistent: false, problem: "unavailable" });
  }

  // -------------------------------------------------------------------------------------------------------
  // Frames

  #onWelcome(welcome: Welcome): void {
    const account = this.#account;
    if (account === null) return;
    if (welcome.user_id !== account.userId) {
      // The cookie changed hands while we slept: nothing of that stream belongs into this account's store.
      this.#connection.stop();
      this.#askWhoAmI().catch(() => {});
      return;
    }
    this.limits.set(limitsOf(welcome.limits));
    account.replica.onFrames([welcome]);
    // After the welcome is applied: a reset must be known before positions are told.
    void account.replica.serial(async () => {
      if (this.#account !== account || !this.#connection.live) return;
      account.outbox.onLive();
      for (const listener of this.#listeners) listener.onLive?.();
    });
  }

  #onFrames(frames: ServerFrame[]): void {
    const account = this.#account;
    if (account === null) return;
    for (const frame of frames) {
      if (frame.t === "ack") account.outbox.onFrame(frame);
      else if (frame.t === "presence" || frame.t === "typing") this.presence.onFrame(frame);
      else if (frame.t === "error") {
        account.outbox.onFrame(frame);
        if (frame.id !== null) this.receipts.onError(frame.id, frame.code, frame.retry_after_ms);
      }
    }
    account.replica.onFrames(frames);
  }

  #onDown(): void {
    this.#account?.replica.onDown();
    this.#account?.outbox.onDown();
    for (const listener of this.#listeners) listener.onDown?.();
  }
}

function signUpBody(request: Parameters<Client["accounts"]["signUp"]>[0]): Record<string, unknown> {
  const { username, email, password, displayName, invite } = request;
  return {
    username,
    email,
    password,
    ...(displayName === undefined ? {} : { display_name: displayName }),
    ...(invite === undefined ? {} : { invite }),
  };
}

function limitsOf(limits: Welcome["limits"]): Limits {
  const read = (name: keyof Welcome["limits"], fallback: number) => {
    const value = limits[name];
    return isSeq(value) && value > 0 ? value : fallback;
  };
  const d = DEFAULT_LIMITS;
  return {
    messageBytes: read("message_bytes", d.messageBytes),
    frameBytes: read("frame_bytes", d.frameBytes),
    batch: read("batch", d.batch),
    attachments: read("attachments", d.attachments),
    page: read("page", d.page),
    titleChars: read("title_chars", d.titleChars),
    topicChars: read("topic_chars", d.topicChars),
    usernameChars: read("username_chars", d.usernameChars),
    groupMembers: read("group_members", d.groupMembers),
    sendsPerSecond: read("sends_per_second", d.sendsPerSecond),
    sendsBurst: read("sends_burst", d.sendsBurst),
    connectionsPerUser: read("connections_per_user", d.connectionsPerUser),
    watch: read("watch", d.watch),
  };
}
