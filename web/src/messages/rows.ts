// From the entries of a chat to the rows of its list: day lines, the new line, groups of one author.
//
// Rows that did not change keep their identity, so the list draws only what is new.
import type { Entry, MessageEntry, NoticeEntry } from "@parlor/sdk";
import { dayNumber } from "../i18n/dates";

export type Row = DayRow | NewRow | MessageRow | NoticeRow;

export interface DayRow {
  kind: "day";
  key: string;
  at: string;
}
export interface NewRow {
  kind: "new";
  key: "new";
  count: number;
  since: string | null;
}
export interface MessageRow {
  kind: "message";
  key: string;
  entry: MessageEntry;
  /** The first of its author's group: it has the face and the name. */
  first: boolean;
  /** The last of its group: its band ends here. */
  last: boolean;
  /** The newest own message: its receipts are written out. */
  newestOwn: boolean;
}
export interface NoticeRow {
  kind: "notice";
  key: string;
  entry: NoticeEntry;
}

/** Where reading stopped when the chat was opened; fixed until it is left. */
export interface NewLine {
  /** The first message above this position that is not one's own. */
  afterSeq: number;
  /** Messages counted up to here. */
  untilSeq: number;
  /** When reading stopped, if that is known. */
  since: string | null;
}

const GROUP_GAP_MS = 5 * 60_000;

/** Makes the rows of one chat again and again, remembering the last ones. */
export class Rows {
  #last = new Map<string, Row>();

  /** `tells`: whether a notice has words; one without gets no row, and no day line stands over it alone. */
  build(
    entries: readonly Entry[],
    line: NewLine | null,
    tells: (notice: NoticeEntry) => boolean = () => true,
  ): Row[] {
    const rows: Row[] = [];
    const newestOwn = entries.findLast(
      (entry) => entry.kind === "message" && entry.mine && !entry.deleted && entry.sending !== "failed",
    );
    let day = Number.NaN;
    let group: MessageEntry | null = null;
    let lineStands = line === null;

    const close = () => {
      const row = rows.at(-1);
      if (row?.kind === "message") row.last = true;
    };
    for (const entry of entries) {
      if (entry.kind === "notice" && !tells(entry)) continue;
      const at = entry.createdAt;
      if (at !== null && dayNumber(at) !== day) {
        day = dayNumber(at);
        close();
        group = null;
        rows.push({ kind: "day", key: `day-${day}`, at });
      }
      if (!lineStands && line && startsNew(entry, line.afterSeq)) {
        close();
        group = null;
        lineStands = true;
        rows.push({ kind: "new", key: "new", count: countNew(entries, line), since: line.since });
      }
      if (entry.kind === "notice") {
        close();
        group = null;
        rows.push({ kind: "notice", key: entry.key, entry });
        continue;
      }
      const first =
        group === null ||
        group.senderId !== entry.senderId ||
        (group.sending === "failed") !== (entry.sending === "failed") ||
        Date.parse(entry.createdAt) - Date.parse(group.createdAt) >= GROUP_GAP_MS;
      if (first) close();
      rows.push({
        kind: "message",
        key: entry.key,
        entry,
        first,
        last: false,
        newestOwn: entry === newestOwn,
      });
      group = entry;
    }
    close();

    const known = this.#last;
    this.#last = new Map();
    return rows.map((row) => {
      const before = known.get(row.key);
      const same = before !== undefined && equal(before, row) ? before : row;
      this.#last.set(row.key, same);
      return same;
    });
  }
}

function startsNew(entry: Entry, afterSeq: number): boolean {
  return (
    entry.kind === "message" && !entry.mine && !entry.deleted && entry.seq !== null && entry.seq > afterSeq
  );
}

function countNew(entries: readonly Entry[], line: NewLine): number {
  return entries.filter((entry) => startsNew(entry, line.afterSeq) && (entry.seq ?? 0) <= line.untilSeq)
    .length;
}

function equal(a: Row, b: Row): boolean {
  if (a.kind === "message" && b.kind === "message") {
    return a.entry === b.entry && a.first === b.first && a.last === b.last && a.newestOwn === b.newestOwn;
  }
  if (a.kind === "notice" && b.kind === "notice") return a.entry === b.entry;
  if (a.kind === "new" && b.kind === "new") return a.count === b.count && a.since === b.since;
  return a.kind === "day" && b.kind === "day";
}
