// Stories about the session: who is signed in, online and offline, and what stays on the device.

import { describe, expect, it } from "vitest";
import { memoryStore, NetworkError, ProblemError } from "../src/index";
import { follow, texts, World } from "./world/world";

describe("the session", () => {
  it("finds nobody, then signs in and connects", async () => {
    const world = new World();
    world.server.cookieUser = null;
    const client = world.client();
    const states = follow(client.session);
    await client.start();
    expect(client.session.get()).toEqual({ state: "signed_out", reason: "none" });
    const wrong = client.accounts.signIn({ login: "nobody", password: "x" });
    await expect(wrong).rejects.toMatchObject({ status: 401, code: "bad_credentials" });
    expect(client.session.get()).toEqual({ state: "signed_out", reason: "none" });
    const me = await client.accounts.signIn({ login: "ann", password: "x" });
    expect(me).toMatchObject({ userId: world.ann, username: "ann", displayName: "ann" });
    await world.rest();
    expect(client.connection.get().state).toBe("live");
    expect(states.values.at(-1)).toMatchObject({ state: "signed_in", userId: world.ann });
  });

  it("shows the cache of the last account without a network, and connects when it returns", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    const first = await world.live(store);
    world.server.say(chat, world.bob, "yesterday");
    await world.rest();
    await first.stop();
    world.server.online = false;
    const client = world.client(store);
    await client.start();
    expect(client.session.get()).toMatchObject({ state: "signed_in", userId: world.ann });
    expect(client.chats.list.get()[0]).toMatchObject({
      name: "bob",
      unread: 1,
      lastMessage: { text: "yesterday" },
    });
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["yesterday"]);
    world.server.online = true;
    client.connectNow();
    await world.rest(2_000);
    expect(client.connection.get().state).toBe("live");
  });

  it("finds the session by itself when the server was away at the start", async () => {
    const world = new World();
    world.server.online = false;
    const client = world.client();
    await client.start();
    expect(client.session.get()).toEqual({ state: "signed_out", reason: "none" });
    world.server.online = true;
    await world.rest(10_000);
    expect(client.session.get()).toMatchObject({ state: "signed_in", userId: world.ann });
  });

  it("is lost with a 401, and the unsent stays for the next time", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    client.networkChanged(false);
    await client.messages.send(chat.chatId, { text: "unsent" });
    client.messages.setDraft(chat.chatId, "and a draft");
    world.server.cookieUser = null;
    client.networkChanged(true);
    await world.rest(2_000);
    expect(client.session.get()).toEqual({ state: "signed_out", reason: "lost" });
    expect(client.messages.draft(chat.chatId).get()).toBe("");
    await client.accounts.signIn({ login: "ann", password: "x" });
    expect(client.messages.draft(chat.chatId).get()).toBe("and a draft");
    await world.rest(2_000);
    expect([...chat.messages.values()].map((message) => message.message)).toEqual(["unsent"]);
  });

  it("signs out for good: the device forgets, the server too", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    const client = await world.live(store);
    client.messages.setDraft(chat.chatId, "secret");
    world.server.online = false;
    await expect(client.accounts.signOut()).rejects.toBeInstanceOf(NetworkError);
    expect(client.session.get().state).toBe("signed_in");
    world.server.online = true;
    await client.accounts.signOut();
    expect(client.session.get()).toEqual({ state: "signed_out", reason: "signed_out" });
    expect(world.server.cookieUser).toBeNull();
    expect(client.chats.list.get()).toEqual([]);
    expect(client.connection.get()).toMatchObject({ state: "offline", cause: "stopped" });
    await client.accounts.signIn({ login: "ann", password: "x" });
    await world.rest(2_000);
    expect(client.messages.draft(chat.chatId).get()).toBe("");
  });

  it("follows the cookie when another account signed in beside it", async () => {
    const world = new World();
    world.server.chat([world.ann, world.cleo]);
    const chat = world.server.chat([world.bob, world.cleo]);
    const store = memoryStore();
    const first = await world.live(store);
    await first.stop();
    world.server.cookieUser = world.bob;
    const client = await world.live(store);
    expect(client.session.get()).toMatchObject({ state: "signed_in", userId: world.bob });
    expect(client.chats.order.get()).toEqual([chat.chatId]);
  });

  it("tells a bot its token, and uses it", async () => {
    const world = new World();
    const tokens: (string | null)[] = [];
    const auth = { token: null, onToken: (token: string | null) => void tokens.push(token) };
    const client = world.client(memoryStore(), auth);
    world.server.cookieUser = null;
    await client.start();
    await client.accounts.signIn({ login: "bob", password: "x" });
    await world.rest();
    expect(client.connection.get().state).toBe("live");
    await client.accounts.signOut();
    expect(tokens).toEqual([`token-${world.bob}`, null]);
  });

  it("hands refusals on as they came", async () => {
    const world = new World();
    const client = await world.live();
    const answer = {
      status: 422,
      body: { type: "x", title: "t", status: 422, code: "invalid", detail: "too short", field: "title" },
    };
    world.server.refusals.push({ match: /POST \/chats/, answer, times: 1 });
    const refused = client.chats.createGroup({ title: "", participants: [world.bob] });
    await expect(refused).rejects.toBeInstanceOf(ProblemError);
    world.server.refusals.push({ match: /POST \/chats/, answer, times: 1 });
    await expect(client.chats.createGroup({ title: "", participants: [] })).rejects.toMatchObject({
      status: 422,
      code: "invalid",
      field: "title",
      retryAfterMs: null,
    });
  });

  it("changes the password, and a wrong one is no lost session", async () => {
    const world = new World();
    const client = await world.live();
    await client.accounts.changePassword({ current: "old one", new: "a better one" });
    expect(world.server.requests.at(-1)).toMatchObject({
      method: "PATCH",
      path: "/users/me",
      body: { password: { current: "old one", new: "a better one" } },
    });
    const body = { status: 422, code: "invalid", detail: "not it", field: "password.current" };
    world.server.refusals.push({ match: /PATCH \/users\/me/, answer: { status: 422, body }, times: 1 });
    const refused = client.accounts.changePassword({ current: "wrong", new: "a better one" });
    await expect(refused).rejects.toMatchObject({ status: 422, field: "password.current" });
    expect(client.session.get().state).toBe("signed_in");
  });
});
