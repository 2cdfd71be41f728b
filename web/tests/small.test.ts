// Small rules: actions, notices, addresses, names of devices.
import { describe, expect, it } from "vitest";
import { deviceName } from "../src/devices/name";
import { t } from "../src/i18n";
import { actionsFor } from "../src/messages/actions";
import { noticeParts } from "../src/messages/notice";
import { parseRoute, routeHash } from "../src/shell/routes.svelte";
import { message, notice } from "./entries";

describe("what can be done with a message", () => {
  const ids = (entry: Parameters<typeof actionsFor>[0], mayDelete = false) =>
    actionsFor(entry, mayDelete).map((one) => one.id);

  it("follows from whose it is and how far it came", () => {
    expect(ids(message())).toEqual(["react", "reply", "copy", "info"]);
    expect(ids(message(), true)).toContain("delete");
    expect(ids(message({ mine: true }))).toEqual(["react", "reply", "edit", "copy", "info", "delete"]);
    expect(ids(message({ mine: true, messageId: null, sending: "waiting" }))).toEqual(["copy", "discard"]);
    expect(ids(message({ mine: true, messageId: null, sending: "failed" }))).toEqual([
      "retry",
      "copy",
      "discard",
    ]);
    expect(ids(message({ deleted: true }), true)).toEqual([]);
  });
});

describe("a notice", () => {
  const told = (entry: Parameters<typeof noticeParts>[0], me: string | null = null) =>
    noticeParts(entry, me, "Ann", "Ben", false)
      ?.map((part) => part.text)
      .join("");

  it("says who did what, from one's own side too", () => {
    expect(told(notice())).toBe("Ann added Ben");
    expect(told(notice(), "2")).toBe("You added Ben");
    expect(told(notice(), "3")).toBe("Ann added you");
    expect(told(notice({ byId: "3" }))).toBe("Ben joined");
  });

  it("of a kind that is not known shows its own words, or nothing", () => {
    expect(told(notice({ event: "future", fallback: "Something happened" }))).toBe("Something happened");
    expect(told(notice({ event: "future" }))).toBeUndefined();
  });
});

describe("the address", () => {
  it("is read back as it was written", () => {
    for (const hash of ["#/", "#/chat/12345678901234567890", "#/chat/1/details", "#/settings/devices"])
      expect(routeHash(parseRoute(hash))).toBe(hash);
  });

  it("that makes no sense is the list", () => {
    for (const hash of ["", "#", "#/chat/abc", "#/chat/", "#/%E0%A4%A", "#/nowhere"])
      expect(parseRoute(hash)).toEqual({ place: "home" });
  });
});

describe("sentences", () => {
  it("choose their plural by rule and isolate words of the other direction", () => {
    expect(t("status.offlineWaiting", { count: 1 })).toBe("Offline, 1 message waiting");
    expect(t("status.offlineWaiting", { count: 2 })).toBe("Offline, 2 messages waiting");
    expect(t("chat.write", { chat: "\u05d3\u05e0\u05d4" })).toBe("Message \u2068\u05d3\u05e0\u05d4\u2069");
  });
});

describe("the name of a device", () => {
  it("is the browser and the system", () => {
    expect(deviceName("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")).toBe(
      "Firefox on Linux",
    );
    expect(
      deviceName(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
      ),
    ).toBe("Edge on Windows");
    expect(deviceName("curl/8")).toBe("Browser");
  });
});
