// Times in words. The zone of the run is Europe/Berlin (see package.json).
import { afterEach, describe, expect, it, vi } from "vitest";
import { clockTime, dayLine, dayNumber, exactTime, lastSeen, listTime, shortMoment } from "../src/i18n/dates";

const at = (text: string) => new Date(text);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const now = at("2026-03-10T14:30:00+01:00");
const ago = (ms: number) => lastSeen(now.getTime() - ms, now);

describe("last seen", () => {
  it("says just now, then minutes and hours with their plurals", () => {
    expect(ago(0)).toBe("Last seen just now");
    expect(ago(59_999)).toBe("Last seen just now");
    expect(ago(MINUTE)).toBe("Last seen 1 minute ago");
    expect(ago(2 * MINUTE - 1)).toBe("Last seen 1 minute ago");
    expect(ago(2 * MINUTE)).toBe("Last seen 2 minutes ago");
    expect(ago(5 * MINUTE)).toBe("Last seen 5 minutes ago");
    expect(ago(59 * MINUTE)).toBe("Last seen 59 minutes ago");
    expect(ago(HOUR)).toBe("Last seen 1 hour ago");
    expect(ago(14 * HOUR)).toBe("Last seen 14 hours ago");
  });

  it("says yesterday with the time of day, then days, then the date", () => {
    expect(ago(15 * HOUR)).toBe("Last seen yesterday at 23:30");
    expect(ago(38 * HOUR)).toBe("Last seen yesterday at 00:30");
    expect(ago(39 * HOUR)).toBe("Last seen 2 days ago");
    expect(lastSeen("2026-03-04T10:00:00Z", now)).toBe("Last seen 6 days ago");
    expect(lastSeen("2026-03-03T10:00:00Z", now)).toBe("Last seen on 3 Mar");
    expect(lastSeen("2025-11-18T10:00:00Z", now)).toBe("Last seen on 18 Nov 2025");
  });

  it("counts hours over midnight before it says yesterday", () => {
    const night = at("2026-03-10T01:00:00+01:00");
    expect(lastSeen("2026-03-09T22:00:00+01:00", night)).toBe("Last seen 3 hours ago");
    expect(lastSeen("2026-03-09T12:00:00+01:00", night)).toBe("Last seen yesterday at 12:00");
  });

  it("never lies in the future when clocks differ", () => {
    expect(lastSeen(now.getTime() + 5 * MINUTE, now)).toBe("Last seen just now");
  });

  it("takes yesterday and the time from the person's own zone", () => {
    // In UTC both are of the ninth; in Berlin the second is of the tenth, half past midnight.
    const morning = at("2026-03-10T12:00:00+01:00");
    expect(lastSeen("2026-03-09T22:30:00Z", morning)).toBe("Last seen yesterday at 23:30");
    expect(lastSeen("2026-03-09T23:30:00Z", morning)).toBe("Last seen 11 hours ago");
  });
});

describe("days", () => {
  it("are whole over the changes of the clock", () => {
    // 29 March 2026 has 23 hours in Berlin, 25 October has 25.
    expect(dayNumber("2026-03-29T23:30:00+02:00") - dayNumber("2026-03-28T23:30:00+01:00")).toBe(1);
    expect(dayNumber("2026-10-26T00:10:00+01:00") - dayNumber("2026-10-25T00:10:00+02:00")).toBe(1);
    expect(lastSeen("2026-03-28T20:00:00+01:00", "2026-03-29T20:00:00+02:00")).toBe(
      "Last seen yesterday at 20:00",
    );
  });

  it("are named in lines", () => {
    expect(dayLine("2026-03-10T08:00:00+01:00", now)).toMatch(/^Today, Tuesday,? 10 March$/);
    expect(dayLine("2026-03-09T23:59:00+01:00", now)).toMatch(/^Yesterday, Monday,? 9 March$/);
    expect(dayLine("2026-03-08T12:00:00+01:00", now)).toMatch(/^Sunday,? 8 March$/);
    expect(dayLine("2025-12-31T12:00:00+01:00", now)).toMatch(/^Wednesday,? 31 December 2025$/);
  });

  it("shorten with distance in lists", () => {
    expect(listTime("2026-03-10T09:16:00+01:00", now)).toBe("09:16");
    expect(listTime("2026-03-09T09:16:00+01:00", now)).toBe("Mon");
    expect(listTime("2026-03-04T09:16:00+01:00", now)).toBe("Wed");
    expect(listTime("2026-03-03T09:16:00+01:00", now)).toBe("3 Mar");
    expect(listTime("2025-11-18T09:16:00+01:00", now)).toBe("18 Nov 2025");
    // A clock that runs behind the server's shows no day of the future.
    expect(listTime("2026-03-10T14:35:00+01:00", now)).toBe("14:35");
  });

  it("stand before the time where the time alone would mislead", () => {
    expect(shortMoment("2026-03-10T09:16:00+01:00", now)).toBe("09:16");
    expect(shortMoment("2026-03-09T09:16:00+01:00", now)).toBe("9 Mar, 09:16");
    expect(exactTime("2026-03-09T09:16:05+01:00")).toMatch(/9 March 2026.*09:16:05.*(CET|GMT\+1)/);
  });
});

describe("another region", () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
  });

  it("has its own order of day and month", async () => {
    vi.resetModules();
    vi.stubGlobal("navigator", { languages: ["de-DE", "en-US"], language: "de-DE" });
    const there = await import("../src/i18n/dates");
    expect(there.listTime("2026-03-03T09:16:00+01:00", now)).toBe("Mar 3");
    expect(there.lastSeen("2026-03-10T14:29:00+01:00", now)).toBe("Last seen 1 minute ago");
    // Sentences are English, the hours are the person's.
    expect(there.clockTime("2026-03-10T21:05:00+01:00")).toBe(clockTime("2026-03-10T21:05:00+01:00"));
  });
});
