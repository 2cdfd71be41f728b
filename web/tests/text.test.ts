// The words of messages as a tree: what is marked, what stays as typed, what is never followed.
import { describe, expect, it } from "vitest";
import { isOnlyEmoji, parseText, plainText, safeHref } from "../src/messages/text";

const inlines = (text: string) => {
  const [block] = parseText(text);
  return block?.kind === "paragraph" ? block.inside : [];
};

describe("the tree of a text", () => {
  it("knows emphasis, code, lists, quotes and fences", () => {
    expect(inlines("a **b** *c* ~~d~~ `e`").map((one) => one.kind)).toEqual([
      "text",
      "strong",
      "text",
      "em",
      "text",
      "del",
      "text",
      "code",
    ]);
    expect(parseText("1. one\n2. two")).toMatchObject([{ kind: "list", ordered: true, start: 1 }]);
    expect(parseText("> said")).toMatchObject([{ kind: "quote" }]);
    expect(parseText("```rust\nfn main() {}\n```")).toEqual([
      { kind: "code", text: "fn main() {}", language: "rust" },
    ]);
  });

  it("leaves markup, headings, tables, images and rules as they were typed", () => {
    for (const text of [
      "<img src=x onerror=alert(1)>",
      "<script>alert(1)</script>",
      "# not a heading",
      "| a | b |\n|---|---|\n| 1 | 2 |",
      "---",
      "    four spaces are no code",
    ]) {
      expect(plainText(text, 1000)).toBe(text.replace(/\s+/g, " ").trim());
    }
  });

  it("follows only addresses of the web and of mail", () => {
    expect(safeHref("https://chat.example/a?b=1")).toBe("https://chat.example/a?b=1");
    expect(safeHref("mailto:ann@example.org")).toBe("mailto:ann@example.org");
    for (const href of [
      "javascript:alert(1)",
      "data:text/html,x",
      "file:///etc/passwd",
      "/here",
      "vbscript:x",
    ])
      expect(safeHref(href)).toBeNull();
    expect(inlines("[click](javascript:alert(1))")).toEqual([
      { kind: "text", text: "[click](javascript:alert(1))" },
    ]);
    expect(inlines("see https://a.example now")).toMatchObject([
      { kind: "text" },
      { kind: "link", href: "https://a.example/" },
      { kind: "text" },
    ]);
  });

  it("finds mentions, and not the addresses that look like them", () => {
    const mentions = (text: string) =>
      inlines(text).flatMap((one) => (one.kind === "mention" ? [one.text] : []));
    expect(mentions("@ann: ask @ben.b, please")).toEqual(["@ann", "@ben.b"]);
    expect(mentions("hello @\u05d3\u05e0\u05d4")).toEqual(["@\u05d3\u05e0\u05d4"]);
    expect(mentions("a@b and @@c and x.@d")).toEqual([]);
  });

  it("stays in bounds with quotes in quotes in quotes", () => {
    const deep = `${">".repeat(200)} bottom`;
    expect(plainText(deep, 1000)).toContain("bottom");
  });
});

describe("one line of it", () => {
  it("drops the markings and keeps the words", () => {
    expect(plainText("**Bold**, `code` and [a link](https://a.example)")).toBe("Bold, code and a link");
    expect(plainText("- one\n- two")).toBe("one, two");
    expect(plainText("  spread \n over   lines ")).toBe("spread over lines");
  });

  it("ends with an ellipsis where it is cut", () => {
    expect(plainText("abcdef", 4)).toBe("abc\u2026");
    expect(plainText("ab cdef", 4)).toBe("ab\u2026");
    expect(plainText("abcd", 4)).toBe("abcd");
  });
});

describe("emoji alone", () => {
  it("are up to three, joined ones counting by their parts", () => {
    for (const text of ["\u{1f44d}", "\u{1f44d}\u{1f3fd}", "\u2764\ufe0f", "\u{1f389} \u{1f389} \u{1f389}"])
      expect(isOnlyEmoji(text), text).toBe(true);
    for (const text of ["", "ok", "\u{1f44d} ok", "\u{1f389}\u{1f389}\u{1f389}\u{1f389}", "123"])
      expect(isOnlyEmoji(text), text).toBe(false);
  });
});
