// Stories about the socket: when it comes back, how fast, and when not at all.

import { describe, expect, it } from "vitest";
import { memoryStore } from "../src/index";
import { follow, World } from "./world/world";

const RETURNING = [1000, 1001, 1006, 1011, 4004, 4007, 4009, 4999];
const FINAL = [
  [1003, "unsupported_data"],
  [1007, "invalid_payload"],
  [1009, "too_big"],
  [4001, "not_hello"],
  [4002, "unsupported_version"],
  [4003, "bad_credentials"],
  [4006, "too_many_connections"],
] as const;

function close(world: World, code: number): void {
  for (const socket of [...world.server.sockets]) socket.closeFrom(code);
}

describe("the connection", () => {
  it("goes through its states, with a ticket that carries the cursor", async () => {
    const world = new World();
    world.server.chat([world.ann, world.bob]);
    const client = world.client();
    const states = follow(client.connection);
    await client.start();
    await world.rest(3_000);
    expect(states.values.map((value) => value.state)).toEqual(
      expect.arrayContaining(["offline", "connecting", "resuming", "live"]),
    );
    expect(states.values.at(-1)).toMatchObject({ state: "live", catchingUp: false });
    const first = world.server.requests.find(({ path }) => path === "/ws/tickets");
    expect(first).toMatchObject({ body: {}, headers: { "x-parlor-client": "web" } });
    close(world, 1006);
    await world.rest(2_000);
    const last = world.server.requests.filter(({ path }) => path === "/ws/tickets").at(-1);
    expect(last?.body).toEqual({ cursor: world.heard("hello").at(-1)?.cursor });
    expect(world.heard("hello").at(-1)).toMatchObject({ v: 1, ticket: expect.any(String) });
    expect(world.heard("hello").at(-1)).not.toHaveProperty("token");
  });

  it("sends the token in token mode, and neither cookie nor header", async () => {
    const world = new World();
    const client = world.client(memoryStore(), { token: `token-${world.ann}` });
    world.server.cookieUser = null;
    await client.start();
    await world.rest();
    expect(client.connection.get().state).toBe("live");
    expect(world.heard("hello")[0]).toMatchObject({ token: `token-${world.ann}` });
    expect(world.server.requests.some(({ path }) => path === "/ws/tickets")).toBe(false);
    expect(world.server.requests[0]?.headers).not.toHaveProperty("x-parlor-client");
  });

  for (const code of RETURNING) {
    it(`comes back after ${code}`, async () => {
      const world = new World();
      const client = await world.live();
      close(world, code);
      expect(client.connection.get()).toMatchObject({ state: "offline", cause: "waiting" });
      await world.rest(1_100);
      expect(client.connection.get().state).toBe("live");
    });
  }

  for (const [code, reason] of FINAL) {
    it(`stays away after ${code}, until somebody asks`, async () => {
      const world = new World();
      const client = await world.live();
      close(world, code);
      expect(client.connection.get()).toMatchObject({ state: "closed", code, reason });
      client.networkChanged(false);
      client.networkChanged(true);
      await world.rest(600_000);
      expect(client.connection.get()).toMatchObject({ state: "closed", code });
      expect(client.session.get().state).toBe("signed_in");
      client.connectNow();
      await world.rest(2_000);
      expect(client.connection.get().state).toBe("live");
    });
  }

  it("gives the session up after 4005, and keeps what it stored", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    const client = await world.live(store);
    world.server.online = false;
    await client.messages.send(chat.chatId, { text: "unsent" });
    close(world, 4005);
    await world.rest(120_000);
    expect(client.session.get()).toEqual({ state: "signed_out", reason: "lost" });
    expect(client.chats.list.get()).toEqual([]);
    world.server.online = true;
    await client.accounts.signIn({ login: "ann", password: "x" });
    await world.rest(3_000);
    expect([...chat.messages.values()].map((message) => message.message)).toEqual(["unsent"]);
  });

  it("comes back after a drain when the server said, not before", async () => {
    const world = new World();
    const client = await world.live();
    for (const socket of [...world.server.sockets])
      socket.tell({ t: "reconnect", after_ms: 9_000, reason: "drain" });
    await world.rest();
    close(world, 4008);
    await world.rest(8_900);
    expect(client.connection.get().state).toBe("offline");
    await world.rest(200);
    expect(client.connection.get().state).toBe("live");
  });

  it("keeps the delay that a refused ticket names", async () => {
    const world = new World();
    const client = await world.live();
    const answer = {
      status: 503,
      body: { code: "unavailable", detail: "full" },
      headers: { "retry-after": "40" },
    };
    world.server.refusals.push({ match: /ws\/tickets/, answer, times: 1 });
    close(world, 1006);
    await world.rest(1_000);
    const state = client.connection.get();
    expect(state).toMatchObject({ state: "offline", cause: "waiting" });
    expect(state.state === "offline" && (state.retryAtMs ?? 0) - world.time.nowMs).toBeGreaterThan(38_000);
    await world.rest(41_000);
    expect(client.connection.get().state).toBe("live");
  });

  it("backs off with full jitter up to a minute, and forgets it only after a healthy minute", async () => {
    const world = new World();
    const client = await world.live();
    const ceilings: number[] = [];
    // The longest possible wait shows the ceiling.
    world.jitter = () => 0.999999;
    const waits = follow(client.connection);
    world.server.online = false;
    close(world, 1006);
    await world.time.advance(300_000);
    let startMs = 0;
    for (const value of waits.values) {
      if (value.state === "offline" && value.retryAtMs !== null) ceilings.push(value.retryAtMs);
      else if (value.state === "connecting") startMs = value.sinceMs;
    }
    expect(startMs).toBeGreaterThan(0);
    const gaps = ceilings.slice(1).map((at, i) => Math.round((at - (ceilings[i] ?? 0)) / 1000));
    expect(gaps.slice(0, 7)).toEqual([2, 4, 8, 16, 32, 60, 60]);
    world.server.online = true;
    client.connectNow();
    await world.rest(5_000);
    // Five seconds of health prove nothing.
    close(world, 1006);
    const soon = client.connection.get();
    expect(soon.state === "offline" && (soon.retryAtMs ?? 0) - world.time.nowMs).toBeGreaterThan(50_000);
    client.connectNow();
    await world.rest(61_000);
    close(world, 1006);
    const later = client.connection.get();
    expect(later.state === "offline" && (later.retryAtMs ?? 0) - world.time.nowMs).toBeLessThanOrEqual(1_000);
  });

  it("spreads the waits over the whole range", async () => {
    const world = new World(5);
    const client = await world.live();
    const waits: number[] = [];
    for (let i = 0; i < 40; i += 1) {
      close(world, 1006);
      const state = client.connection.get();
      if (state.state === "offline") waits.push((state.retryAtMs ?? 0) - world.time.nowMs);
      client.connectNow();
      await world.rest(61_000);
    }
    expect(Math.min(...waits)).toBeLessThan(200);
    expect(Math.max(...waits)).toBeGreaterThan(800);
  });

  it("pings a silent server, and leaves when nothing comes", async () => {
    const world = new World();
    const client = await world.live();
    await world.rest(20_000);
    expect(world.heard("ping").length).toBeGreaterThan(0);
    expect(client.connection.get().state).toBe("live");
    // The line is cut without a word: sent frames vanish, nothing comes.
    world.server.online = false;
    await world.rest(20_000);
    expect(client.connection.get().state).toBe("live");
    await world.rest(10_000);
    expect(client.connection.get().state).not.toBe("live");
  });

  it("gives up a greeting that never ends", async () => {
    const world = new World();
    world.server.onFrame = () => {};
    const client = world.client();
    await client.start();
    await world.rest(1_000);
    expect(client.connection.get().state).toBe("resuming");
    await world.rest(20_000);
    expect(["offline", "connecting", "resuming"]).toContain(client.connection.get().state);
    expect(world.server.requests.filter(({ path }) => path === "/ws/tickets").length).toBeGreaterThan(1);
  });

  it("closes when the network goes, and comes back the moment it returns", async () => {
    const world = new World();
    const client = await world.live();
    client.networkChanged(false);
    expect(client.connection.get()).toMatchObject({ state: "offline", cause: "network" });
    client.networkChanged(true);
    await world.rest(100);
    expect(client.connection.get().state).toBe("live");
  });

  it("tells since when it is away, over all tries", async () => {
    const world = new World();
    const client = await world.live();
    const leftAtMs = world.time.nowMs;
    world.server.online = false;
    close(world, 1006);
    await world.rest(50_000);
    expect(client.connection.get().sinceMs).toBe(leftAtMs);
  });
});
