// From entries to rows: days, groups of one author, the new line.
import { describe, expect, it } from "vitest";
import { tells } from "../src/messages/notice";
import { Rows, type Row } from "../src/messages/rows";
import { message, notice } from "./entries";

const kinds = (rows: readonly Row[]) => rows.map((row) => row.kind);
const groups = (rows: readonly Row[]) =>
  rows.flatMap((row) => (row.kind === "message" ? [`${row.first ? "[" : ""}${row.last ? "]" : ""}`] : []));

describe("the rows of a chat", () => {
  it("have a line before each day, in the person's own zone", () => {
    const rows = new Rows().build(
      [
        message({ createdAt: "2026-03-09T22:30:00Z" }),
        // Half past midnight in Berlin.
        message({ createdAt: "2026-03-09T23:30:00Z" }),
      ],
      null,
    );
    expect(kinds(rows)).toEqual(["day", "message", "day", "message"]);
  });

  it("group what one author says within five minutes", () => {
    const at = (minute: string) => `2026-03-10T09:${minute}:00.000Z`;
    const rows = new Rows().build(
      [
        message({ createdAt: at("00") }),
        message({ createdAt: at("04") }),
        message({ createdAt: at("09") }),
        message({ createdAt: at("10"), senderId: "3" }),
        message({ createdAt: at("11") }),
      ],
      null,
    );
    expect(groups(rows)).toEqual(["[", "]", "[]", "[]", "[]"]);
  });

  it("break a group at a notice, and at what failed", () => {
    const own = { mine: true, senderId: "9" };
    const rows = new Rows().build(
      [message(), notice(), message(), message(own), message({ ...own, sending: "failed", seq: null })],
      null,
    );
    expect(groups(rows)).toEqual(["[]", "[]", "[]", "[]"]);
  });

  it("show no day line over a notice without words", () => {
    const entries = [
      notice({ event: "created", createdAt: "2026-01-01T09:00:00Z" }),
      message({ createdAt: "2026-03-10T09:00:00Z" }),
    ];
    expect(kinds(new Rows().build(entries, null, (one) => tells(one, true)))).toEqual(["day", "message"]);
    expect(kinds(new Rows().build(entries, null, (one) => tells(one, false)))).toEqual([
      "day",
      "notice",
      "day",
      "message",
    ]);
    expect(new Rows().build(entries.slice(0, 1), null, (one) => tells(one, true))).toEqual([]);
  });

  it("put the new line before the first new message of another, and never before one's own", () => {
    const entries = [
      message({ seq: 1 }),
      message({ seq: 2, mine: true }),
      message({ seq: 3, deleted: true }),
      message({ seq: 4 }),
      message({ seq: 5 }),
    ];
    const rows = new Rows().build(entries, { afterSeq: 1, untilSeq: 4, since: null });
    expect(kinds(rows)).toEqual(["day", "message", "message", "message", "new", "message", "message"]);
    expect(rows[4]).toMatchObject({ kind: "new", count: 1 });
    expect(kinds(new Rows().build(entries, { afterSeq: 5, untilSeq: 9, since: null }))).not.toContain("new");
  });

  it("write receipts out under the newest own message only", () => {
    const rows = new Rows().build(
      [
        message({ mine: true }),
        message({ mine: true }),
        message(),
        message({ mine: true, sending: "failed", seq: null }),
      ],
      null,
    );
    expect(rows.flatMap((row) => (row.kind === "message" ? [row.newestOwn] : []))).toEqual([
      false,
      true,
      false,
      false,
    ]);
  });

  it("keep their identity where nothing changed", () => {
    const builder = new Rows();
    const entries = [message(), message(), message({ senderId: "3" })];
    const before = builder.build(entries, null);
    const after = builder.build([...entries, message({ senderId: "4" })], null);
    for (const [i, row] of before.entries()) expect(after[i]).toBe(row);
    // The last row of a group that goes on is another one.
    const longer = builder.build([...entries, message({ senderId: "3" })], null);
    expect(longer[2]).toBe(before[2]);
    expect(longer[3]).not.toBe(before[3]);
  });
});
