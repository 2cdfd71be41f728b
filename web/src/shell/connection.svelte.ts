// The connection in words. Short drops stay unsaid: two seconds of grace, after thirty "Try now".
import type { Client } from "@parlor/sdk";
import { t } from "../i18n";
import { fastNow } from "./clock.svelte";
import { follow } from "./follow.svelte";

export interface ConnectionWords {
  text: string;
  tryNow: boolean;
  /** Only reloading helps. */
  reload: boolean;
}

const GRACE_MS = 2_000;
const TRY_NOW_MS = 30_000;

/** Null while all is well. `waiting`: own messages that have not gone out. */
export function connectionWords(
  client: Client,
  waiting: () => number,
): { readonly current: ConnectionWords | null } {
  const connection = follow(() => client.connection);
  const current = $derived.by((): ConnectionWords | null => {
    const now = connection.current;
    if (now.state === "live") return null;
    if (now.state === "closed") {
      if (now.reason === "unsupported_version")
        return { text: t("status.outdated"), tryNow: false, reload: true };
      if (now.reason === "too_many_connections")
        return { text: t("status.elsewhere"), tryNow: true, reload: false };
      return { text: t("status.closed"), tryNow: true, reload: false };
    }
    const gone_ms = fastNow() - goneSince(now.sinceMs);
    if (gone_ms < GRACE_MS) return null;
    const offline = now.state === "offline" && (now.cause === "network" || gone_ms > TRY_NOW_MS);
    const count = waiting();
    const text =
      count > 0
        ? t("status.offlineWaiting", { count })
        : t(offline ? "status.offline" : "status.reconnecting");
    return {
      text,
      tryNow: gone_ms >= TRY_NOW_MS || (now.state === "offline" && now.cause === "network"),
      reload: false,
    };
  });
  return {
    get current() {
      return current;
    },
  };
}

/** Attempts come and go; what counts is when the last live moment ended. */
let gone = 0;
function goneSince(since: number): number {
  return gone === 0 ? since : Math.min(gone, since);
}
/** Followed once by the frame. */
export function noteConnection(state: string): void {
  if (state === "live") gone = 0;
  else if (gone === 0) gone = Date.now();
}
