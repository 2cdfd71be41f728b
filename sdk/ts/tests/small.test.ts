// The small parts: ids, keys, cells, HTTP.

import { describe, expect, it } from "vitest";
import { Cell } from "../src/cell";
import { socketAddress } from "../src/connection";
import { path, readProblem } from "../src/http";
import { KeyMaker } from "../src/ids";
import { compareIds } from "../src/index";
import { readFrames } from "../src/wire";
import { Random } from "./world/random";

describe("ids and keys", () => {
  it("are ordered beyond 2^53, as numbers would be", () => {
    const ids = ["9223372036854775807", "9", "10", "9007199254740993", "9007199254740992"];
    const byNumber = [...ids].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
    expect([...ids].sort(compareIds)).toEqual(byNumber);
    expect(compareIds("7", "7")).toBe(0);
  });

  it("rise with each call, within a millisecond and when the clock steps back", () => {
    const random = new Random(3);
    let nowMs = 1_767_225_600_000;
    const keys = new KeyMaker({ now: () => nowMs, randomBytes: (count) => random.bytes(count) });
    const made: string[] = [];
    for (let i = 0; i < 10_000; i += 1) {
      if (i % 1_000 === 500) nowMs -= 10_000;
      if (i % 1_000 === 900) nowMs += 20_000;
      made.push(keys.next());
    }
    expect(made).toEqual([...made].sort());
    expect(new Set(made).size).toBe(made.length);
    expect(
      made.every((key) => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(key)),
    ).toBe(true);
  });
});

describe("a cell", () => {
  it("keeps the Svelte store contract", () => {
    const cell = new Cell(1);
    const seen: number[] = [];
    const stop = cell.subscribe((value) => seen.push(value));
    cell.set(2);
    cell.set(2);
    stop();
    stop();
    cell.set(3);
    expect(seen).toEqual([1, 2]);
    expect(cell.get()).toBe(3);
  });

  it("tells when somebody begins and ends to look", () => {
    const hooks: string[] = [];
    const cell = new Cell(0, { onFirst: () => hooks.push("first"), onLast: () => hooks.push("last") });
    const run = () => {};
    const one = cell.subscribe(run);
    const two = cell.subscribe(run);
    one();
    two();
    cell.subscribe(run)();
    expect(hooks).toEqual(["first", "last", "first", "last"]);
  });
});

describe("HTTP", () => {
  const answer = (status: number, headers: Record<string, string> = {}) => ({
    status,
    headers: { get: (name: string) => headers[name] ?? null },
    text: async () => "",
  });

  it("reads problems, and answers that are none", () => {
    const body = JSON.stringify({ code: "rate_limited", detail: "slow down", retry_after: 3 });
    expect(readProblem(answer(429), body)).toMatchObject({
      code: "rate_limited",
      retryAfterMs: 3_000,
      field: null,
    });
    expect(readProblem(answer(503, { "retry-after": "7" }), "<html>busy</html>")).toMatchObject({
      status: 503,
      code: "unavailable",
      retryAfterMs: 7_000,
    });
    expect(readProblem(answer(404), "null")).toMatchObject({ code: "not_found", retryAfterMs: null });
  });

  it("encodes every part of a path, so that no value reaches another route", () => {
    expect(path`/messages/${"1"}/reactions/${"👍🏽"}`).toBe(
      `/messages/1/reactions/${encodeURIComponent("👍🏽")}`,
    );
    expect(path`/chats/${"../users/me"}`).toBe("/chats/..%2Fusers%2Fme");
    expect(path`/chats/${".."}/x`).toBe("/chats/%00/x");
    expect(path`/chats/${""}/x`).toBe("/chats/%00/x");
  });

  it("finds the socket beside the server, with its prefix", () => {
    expect(socketAddress("https://chat.example/")).toBe("wss://chat.example/api/v1/ws");
    expect(socketAddress("http://127.0.0.1:8080/parlor")).toBe("ws://127.0.0.1:8080/parlor/api/v1/ws");
  });
});

describe("frames", () => {
  it("are read alone and in arrays, and the unreadable is counted", () => {
    const read = readFrames('[{"t":"pong"},{"t":"cursor","cursor":"c"},{"t":"nope"},7]');
    expect(read).toEqual({ frames: [{ t: "pong" }, { t: "cursor", cursor: "c" }], dropped: 2 });
  });
});
