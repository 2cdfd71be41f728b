// The list of chats: tabs, names, order under the hand.
import { describe, expect, it } from "vitest";
import { passes } from "../src/chats/filter";
import { chatFace, chatName, isSaved, manages } from "../src/chats/names";
import { SteadyOrder } from "../src/chats/order.svelte";
import { noticePreview } from "../src/chats/preview";
import { matchPieces, matchScore } from "../src/ui/match";
import { chat } from "./entries";

describe("the tabs", () => {
  it("take what their name says", () => {
    const direct = chat({ type: "one_on_one", peerId: "7" });
    const group = chat({ unread: 2 });
    const mentioned = chat({ type: "channel", mentions: 1 });
    const all = [direct, group, mentioned];
    const shown = (filter: Parameters<typeof passes>[1]) => all.filter((one) => passes(one, filter));
    expect(shown("all")).toEqual(all);
    expect(shown("unread")).toEqual([group, mentioned]);
    expect(shown("direct")).toEqual([direct]);
    expect(shown("groups")).toEqual([group]);
  });
});

describe("what a chat is called", () => {
  it("is never empty", () => {
    expect(chatName(chat())).toBe("Crew");
    expect(chatName(chat({ name: null }))).toBe("Unnamed group");
    expect(chatName(chat({ type: "one_on_one", peerId: "7", name: null }))).toBe("Somebody");
    const saved = chat({ type: "one_on_one", peerId: null, name: null });
    expect(isSaved(saved)).toBe(true);
    expect(chatName(saved)).toBe("Saved messages");
  });

  it("goes with a round face for a person and a squared one for a place", () => {
    expect(chatFace(chat({ type: "one_on_one", peerId: "7", name: "Ann" }))).toMatchObject({
      id: "7",
      square: false,
    });
    expect(chatFace(chat())).toMatchObject({ id: "1", square: true });
  });

  it("may be changed by owners and admins", () => {
    expect((["owner", "admin", "member"] as const).map((role) => manages(chat({ role })))).toEqual([
      true,
      true,
      false,
    ]);
  });

  it("is followed by the topic while nothing was said", () => {
    expect(noticePreview(chat({ topic: "Boats" }))).toBe("Boats");
    expect(noticePreview(chat())).toBe("No messages yet");
  });
});

describe("the order of the list", () => {
  it("stands still while it is held, and lets news in at the top", () => {
    const order = new SteadyOrder();
    expect(order.of(["a", "b", "c"])).toEqual(["a", "b", "c"]);
    order.held = true;
    expect(order.of(["c", "a", "b"])).toEqual(["a", "b", "c"]);
    expect(order.of(["d", "c", "a", "b"])).toEqual(["d", "a", "b", "c"]);
    expect(order.of(["d", "c", "b"])).toEqual(["d", "b", "c"]);
    order.held = false;
    expect(order.of(["d", "c", "b"])).toEqual(["d", "c", "b"]);
  });
});

describe("finding by a few letters", () => {
  it("prefers the beginning, then beginnings of words, then the inside", () => {
    const scores = ["Rita", "Ana Rita", "Margarita"].map((name) => matchScore(name, "rit"));
    expect([...scores].sort((a, b) => b - a)).toEqual(scores);
    expect(matchScore("Rita", "x")).toBe(0);
    expect(matchScore("Ana Rita", "rit an")).toBeGreaterThan(0);
    expect(matchScore("Zo\u00eb", "zoe")).toBeGreaterThan(0);
    expect(matchScore("anything", "")).toBe(1);
  });

  it("marks what was found", () => {
    expect(matchPieces("Ana Rita", "ri")).toEqual([
      { text: "Ana ", hit: false },
      { text: "Ri", hit: true },
      { text: "ta", hit: false },
    ]);
  });
});
