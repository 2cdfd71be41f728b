// What every noun shares: the outside, and the account that is signed in.
//
// Nouns are made once and outlive accounts; an `Account` is made at each sign-in and closed at sign-out.
// Nothing is decided here.

import type { Connection } from "./connection";
import type { Http } from "./http";
import type { KeyMaker } from "./ids";
import type { Limits } from "./index";
import type { Outbox } from "./outbox";
import type { Runtime } from "./runtime";
import type { Change, Replica } from "./sync";

export interface Account {
  readonly userId: string;
  readonly replica: Replica;
  readonly outbox: Outbox;
}

export interface Core {
  readonly runtime: Runtime;
  readonly http: Http;
  readonly connection: Connection;
  readonly keys: KeyMaker;
  limits(): Limits;
  /** null while nobody is signed in. */
  account(): Account | null;
}

/** A noun that follows the replica. Each method is optional: a noun listens only to what concerns it. */
export interface Listener {
  /** An account was opened: its chats are in the replica. */
  onOpen?(account: Account): void;
  /** The account is gone: forget everything of it. */
  onClose?(): void;
  /** A step was stored. */
  onChange?(change: Change): void;
  /** Own unsent messages of a chat changed. */
  onOutbox?(chatId: string): void;
  /** Welcomed. Called again after each reconnect. */
  onLive?(): void;
  onDown?(): void;
}

export class SignedOutError extends Error {
  override readonly name = "SignedOutError";
}

export function accountOf(core: Core): Account {
  const account = core.account();
  if (account === null) throw new SignedOutError("nobody is signed in");
  return account;
}
