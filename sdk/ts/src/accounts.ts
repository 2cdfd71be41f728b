// Accounts: the own profile, and what is known of other people.
//
// Signing in and out changes which account the client serves; that is client.ts. Here are profiles only.

import { Cell, type Readable } from "./cell";
import type { Account, Core, Listener } from "./core";
import { mayRetry, path } from "./http";
import type { Accounts, Me, Privacy, User } from "./index";
import type { Change } from "./sync";
import { type Page, readAll, readUser, type WirePrivacy, type WireUser } from "./wire";

/** People whose profile is asked for at once. */
const FETCHES = 4;
const RETRY_MS = 10_000;

export interface SessionActions {
  signUp(request: Parameters<Accounts["signUp"]>[0]): Promise<Me>;
  signIn(request: Parameters<Accounts["signIn"]>[0]): Promise<Me>;
  signOut(): Promise<void>;
  /** The account is gone on the server. */
  forget(): Promise<void>;
  changedMe(user: WireUser): Promise<void>;
}

export class AccountsState implements Accounts, Listener {
  readonly me = new Cell<Me | null>(null);
  readonly #users = new Map<string, Cell<User | null>>();
  readonly #wanted = new Set<string>();
  /** Learned or answered since the account was opened: not asked for again. */
  readonly #asked = new Set<string>();
  #fetching = 0;
  #onLearned: (userIds: ReadonlySet<string>) => void = () => {};

  constructor(
    private readonly core: Core,
    private readonly session: SessionActions,
  ) {}

  signUp(request: Parameters<Accounts["signUp"]>[0]): Promise<Me> {
    return this.session.signUp(request);
  }

  signIn(request: Parameters<Accounts["signIn"]>[0]): Promise<Me> {
    return this.session.signIn(request);
  }

  signOut(): Promise<void> {
    return this.session.signOut();
  }

  async update(change: { displayName?: string; privacy?: Partial<Privacy> }): Promise<Me> {
    const body = {
      ...(change.displayName === undefined ? {} : { display_name: change.displayName }),
      ...(change.privacy === undefined ? {} : { privacy: toWirePrivacy(change.privacy) }),
    };
    return this.#took(await this.core.http.call("PATCH", "/users/me", { body }));
  }

  async changePassword(request: { current: string; new: string }): Promise<void> {
    const body = { password: { current: request.current, new: request.new } };
    await this.#took(await this.core.http.call("PATCH", "/users/me", { body }));
  }

  async deleteAccount(password: string): Promise<void> {
    await this.core.http.call("DELETE", "/users/me", { body: { password } });
    await this.session.forget();
  }

  async lookUp(username: string): Promise<User | null> {
    const page = await this.core.http.get<Page<unknown>>("/users", { username });
    const user = readAll(page.items, readUser)[0];
    if (user === undefined) return null;
    this.learn([user]);
    return toUser(user);
  }

  user(userId: string): Readable<User | null> {
    return this.#cell(userId);
  }

  /** What is known now, without asking anybody. */
  known(userId: string): User | null {
    const me = this.me.get();
    if (me?.userId === userId) return me;
    return this.#users.get(userId)?.get() ?? null;
  }

  /** Told once, by the list of chats. */
  onLearned(run: (userIds: ReadonlySet<string>) => void): void {
    this.#onLearned = run;
  }

  learn(users: Iterable<WireUser>): void {
    const changed = new Set<string>();
    for (const wire of users) {
      this.#asked.add(wire.user_id);
      const cell = this.#cell(wire.user_id);
      const user = toUser(wire);
      if (sameUser(cell.get(), user)) continue;
      cell.set(user);
      changed.add(wire.user_id);
    }
    if (changed.size > 0) this.#onLearned(changed);
  }

  /** Asks the server again who we are; a change made on another device is told only as "changed". */
  async reload(): Promise<Me> {
    return this.#took(await this.core.http.get("/users/me"));
  }

  onOpen(_account: Account): void {
    for (const [userId, cell] of this.#users) if (cell.watched) this.#want(userId);
  }

  onChange(change: Change): void {
    if (change.users.size > 0) this.learn(change.users.values());
    if (change.profile) this.reload().catch(() => {});
  }

  onLive(): void {
    this.#fetch();
  }

  onClose(): void {
    this.me.set(null);
    this.#wanted.clear();
    this.#asked.clear();
    for (const [userId, cell] of this.#users) {
      cell.set(null);
      if (!cell.watched) this.#users.delete(userId);
    }
  }

  async #took(answer: unknown): Promise<Me> {
    const user = readUser(answer);
    const me = user && toMe(user);
    if (user === null || me === null) throw new Error("the server described no account");
    this.me.set(me);
    this.learn([user]);
    await this.session.changedMe(user);
    return me;
  }

  #cell(userId: string): Cell<User | null> {
    let cell = this.#users.get(userId);
    if (cell === undefined) {
      cell = new Cell<User | null>(null, { onFirst: () => this.#want(userId) });
      this.#users.set(userId, cell);
    }
    return cell;
  }

  #want(userId: string): void {
    if (this.core.account() === null || this.#asked.has(userId)) return;
    this.#wanted.add(userId);
    this.#fetch();
  }

  #fetch(): void {
    for (const userId of this.#wanted) {
      if (this.#fetching >= FETCHES) return;
      this.#wanted.delete(userId);
      if (this.#asked.has(userId)) continue;
      this.#asked.add(userId);
      this.#fetching += 1;
      void this.#fetchUser(userId).finally(() => {
        this.#fetching -= 1;
        this.#fetch();
      });
    }
  }

  async #fetchUser(userId: string): Promise<void> {
    const account = this.core.account();
    try {
      const user = readUser(await this.core.http.get(path`/users/${userId}`));
      if (user === null || account === null || this.core.account() !== account) return;
      await account.replica.mutate(async (_, change) => void change.users.set(userId, user));
    } catch (error) {
      if (!mayRetry(error)) return;
      this.core.runtime.setTimeout(() => {
        if (this.core.account() !== account) return;
        this.#asked.delete(userId);
        this.#want(userId);
      }, RETRY_MS);
    }
  }
}

export function toUser(user: WireUser): User {
  return {
    userId: user.user_id,
    username: user.username,
    displayName: user.display_name,
    createdAt: user.created_at || null,
    deleted: user.deleted === true,
  };
}

export function toMe(user: WireUser): Me {
  const { privacy } = user;
  return {
    ...toUser(user),
    email: user.email ?? null,
    admin: user.admin === true,
    privacy:
      privacy === undefined || privacy === null
        ? null
        : { online: privacy.online, lastSeen: privacy.last_seen, receipts: privacy.receipts },
  };
}

function toWirePrivacy(privacy: Partial<Privacy>): Partial<WirePrivacy> {
  const copy = (rule: Privacy["online"]) => ({ who: rule.who, except: [...rule.except] });
  return {
    ...(privacy.online ? { online: copy(privacy.online) } : {}),
    ...(privacy.lastSeen ? { last_seen: copy(privacy.lastSeen) } : {}),
    ...(privacy.receipts ? { receipts: copy(privacy.receipts) } : {}),
  };
}

function sameUser(a: User | null, b: User): boolean {
  return (
    a !== null &&
    a.username === b.username &&
    a.displayName === b.displayName &&
    a.createdAt === b.createdAt &&
    a.deleted === b.deleted
  );
}
