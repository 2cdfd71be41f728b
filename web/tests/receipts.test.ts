// Reading and its words: what counts as read, and how receipts are told.
import type { Ticks } from "@parlor/sdk";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Reading } from "../src/receipts/reading";
import { reachOf, wordsFor } from "../src/receipts/words";
import { message } from "./entries";

/** Stands in for the browser's observer: the test says what is on screen. */
class Screen {
  static last: Screen;
  readonly watched = new Set<unknown>();
  constructor(private readonly tell: (changes: unknown[]) => void) {
    Screen.last = this;
  }
  observe(row: unknown) {
    this.watched.add(row);
  }
  unobserve(row: unknown) {
    this.watched.delete(row);
  }
  disconnect() {
    this.watched.clear();
  }
  shows(target: unknown, ratio: number, height = 20) {
    this.tell([
      {
        target,
        isIntersecting: ratio > 0,
        intersectionRatio: ratio,
        intersectionRect: { height },
      },
    ]);
  }
}

describe("reading", () => {
  const root = { clientHeight: 600 } as Element;
  const row = (name: string) => ({ name }) as unknown as Element;
  let looking = true;
  let read: number[] = [];
  let reading: Reading;

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("IntersectionObserver", Screen);
    looking = true;
    read = [];
    reading = new Reading(
      root,
      () => looking,
      (seq) => read.push(seq),
    );
  });
  afterEach(() => {
    reading.end();
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("counts a message that stood on the screen for a moment, and not one that flew past", () => {
    const [one, two] = [row("one"), row("two")];
    reading.watch(one, 1);
    reading.watch(two, 2);
    Screen.last.shows(one, 1);
    vi.advanceTimersByTime(100);
    expect(read).toEqual([]);
    vi.advanceTimersByTime(200);
    expect(read).toEqual([1]);
    Screen.last.shows(two, 1);
    vi.advanceTimersByTime(100);
    Screen.last.shows(two, 0);
    vi.advanceTimersByTime(1_000);
    expect(read).toEqual([1]);
  });

  it("counts nothing while nobody looks, and everything shown when somebody looks again", () => {
    const [one, two] = [row("one"), row("two")];
    reading.watch(one, 4);
    reading.watch(two, 5);
    looking = false;
    Screen.last.shows(one, 1);
    Screen.last.shows(two, 1);
    vi.advanceTimersByTime(10_000);
    expect(read).toEqual([]);
    looking = true;
    reading.check();
    vi.advanceTimersByTime(300);
    expect(read).toEqual([5]);
  });

  it("takes most of a row, or half a screen of a very tall one", () => {
    const [half, tall] = [row("half"), row("tall")];
    reading.watch(half, 1);
    reading.watch(tall, 2);
    Screen.last.shows(half, 0.5, 20);
    vi.advanceTimersByTime(300);
    expect(read).toEqual([]);
    Screen.last.shows(tall, 0.1, 320);
    vi.advanceTimersByTime(300);
    expect(read).toEqual([2]);
  });

  it("never goes back, and forgets rows that are gone", () => {
    const [one, nine] = [row("one"), row("nine")];
    const leave = reading.watch(nine, 9);
    Screen.last.shows(nine, 1);
    leave();
    vi.advanceTimersByTime(300);
    expect(read).toEqual([]);
    reading.watch(nine, 9);
    Screen.last.shows(nine, 1);
    vi.advanceTimersByTime(300);
    reading.watch(one, 1);
    Screen.last.shows(nine, 0);
    Screen.last.shows(one, 1);
    vi.advanceTimersByTime(300);
    expect(read).toEqual([9]);
  });
});

describe("receipts in words", () => {
  const ticks = (cursors: [string, number, number][], deliveredSeq = 0, readSeq = 0): Ticks =>
    ({
      deliveredSeq,
      readSeq,
      cursors: new Map(
        cursors.map(([userId, delivered, read]) => [userId, { deliveredSeq: delivered, readSeq: read }]),
      ),
    }) as Ticks;
  const own = message({ mine: true, seq: 5 });
  const told = (...args: Parameters<typeof wordsFor>) => {
    const words = wordsFor(...args);
    return words && [...words.strong, ...words.rest].map((part) => part.text).join("");
  };

  it("say how far it came with one person", () => {
    expect(told(own, ticks([]), 1, true, true)).toBe("Sent");
    expect(told(own, ticks([["2", 5, 0]], 5), 1, true, true)).toBe("Delivered");
    expect(told(own, ticks([["2", 5, 5]], 5, 5), 1, true, true)).toBe("Read");
  });

  it("count in groups, and read implies reached", () => {
    expect(reachOf(5, ticks([["2", 0, 7]]), 3)).toEqual({ all: 3, reached: 1, read: 1 });
    const some = ticks([
      ["2", 9, 9],
      ["3", 5, 0],
      ["4", 4, 4],
    ]);
    expect(told(own, some, 3, false, true)).toBe("Read by 1 of 3, reached 2");
    expect(told(own, ticks([["3", 5, 0]]), 3, false, true)).toBe("Reached 1 of 3");
    expect(told(own, ticks([]), 3, false, true)).toBe("Sent, not yet on another device");
  });

  it("say what a waiting message waits for, and nothing under a failed one", () => {
    const waiting = message({ mine: true, seq: null, messageId: null, sending: "waiting" });
    expect(told(waiting, ticks([]), 1, true, true)).toBe("Waiting for the server");
    expect(told(waiting, ticks([]), 1, true, false)).toBe("Goes out when you are online");
    expect(told({ ...waiting, sending: "failed" }, ticks([]), 1, true, true)).toBeNull();
  });
});
