// What the ticks say in words, under the last own message. Numbers count only people who send receipts.
import { type MessageEntry, messageStatus, type Ticks } from "@parlor/sdk";
import { type Part, parts } from "../i18n";

export interface Reach {
  all: number;
  reached: number;
  read: number;
}

/** How many of the recipients' cursors have passed a message. */
export function reachOf(seq: number, ticks: Ticks, recipients: number): Reach {
  let reached = 0;
  let read = 0;
  for (const cursor of ticks.cursors.values()) {
    if (cursor.readSeq >= seq) read++;
    if (Math.max(cursor.deliveredSeq, cursor.readSeq) >= seq) reached++;
  }
  // The sums may know more than the single cursors do (large groups are told counts only).
  if (ticks.readSeq >= seq) read = Math.max(read, recipients);
  if (ticks.deliveredSeq >= seq) reached = Math.max(reached, recipients);
  return { all: Math.max(recipients, reached), reached: Math.max(reached, read), read };
}

/** `strong` is the part that counts, `rest` follows it. */
export function wordsFor(
  entry: MessageEntry,
  ticks: Ticks,
  recipients: number,
  direct: boolean,
  online: boolean,
): { strong: Part[]; rest: Part[] } | null {
  const status = messageStatus(entry, ticks);
  if (status === "failed") return null;
  if (status === "waiting") {
    return { strong: [], rest: parts(online ? "receipt.waiting" : "receipt.waitingOffline") };
  }
  if (recipients === 0 || entry.seq === null) return null;
  if (direct) {
    if (status === "read") return { strong: parts("receipt.read"), rest: [] };
    return { strong: [], rest: parts(status === "delivered" ? "receipt.delivered" : "receipt.sent") };
  }
  const { all, reached, read } = reachOf(entry.seq, ticks, recipients);
  if (read > 0) {
    return { strong: parts("receipt.readBy", { read, all }), rest: parts("receipt.reached", { reached }) };
  }
  if (reached > 0) return { strong: [], rest: parts("receipt.reachedOnly", { reached, all }) };
  return { strong: [], rest: parts("receipt.sentGroup") };
}
