// The words of a message as a tree: a small, safe part of Markdown. Never markup: Text.svelte turns the tree
// into elements one by one.
//
// What is not in the list below stays as it was typed: no HTML, no images, no tables, no headings, and an
// address becomes a link only with http, https or mailto.
import { Lexer, type Token, Tokenizer, type Tokens } from "marked";

export type Inline =
  | { kind: "text"; text: string }
  | { kind: "strong" | "em" | "del"; inside: Inline[] }
  | { kind: "code"; text: string }
  | { kind: "link"; href: string; inside: Inline[] }
  | { kind: "mention"; text: string }
  | { kind: "break" };

export type Block =
  | { kind: "paragraph"; inside: Inline[] }
  | { kind: "code"; text: string; language: string }
  | { kind: "quote"; inside: Block[] }
  | { kind: "list"; ordered: boolean; start: number; items: Block[][] };

const MAX_DEPTH = 8;
const cache = new Map<string, Block[]>();

export function parseText(text: string): Block[] {
  const known = cache.get(text);
  if (known) return known;
  const blocks = parse(text);
  if (cache.size > 500) cache.clear();
  cache.set(text, blocks);
  return blocks;
}

/** One line without markings, for previews, quotes and announcements. */
export function plainText(text: string, max = 200): string {
  const flat = parseText(text.length > 2000 ? text.slice(0, 2000) : text)
    .map(flattenBlock)
    .join(" ")
    .replace(/\s+/g, " ")
    .trim();
  return flat.length > max ? `${flat.slice(0, max - 1).trimEnd()}…` : flat;
}

/** One to three emoji and nothing else. */
export function isOnlyEmoji(text: string): boolean {
  return (
    /^(?:\p{Emoji_Presentation}|\p{Emoji}\uFE0F|\p{Emoji_Modifier_Base}\p{Emoji_Modifier}|\u200d|\s){1,12}$/u.test(
      text,
    ) && Array.from(text.replace(/\s|\u200d|\uFE0F|\p{Emoji_Modifier}/gu, "")).length <= 3
  );
}

/** Only addresses that may be followed; null for everything else. */
export function safeHref(href: string): string | null {
  try {
    const url = new URL(href);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** Kinds of Markdown that a chat does not have: for them the lexer goes on and takes the text as it stands. */
class SmallTokenizer extends Tokenizer {
  override html = nothing;
  override tag = nothing;
  override heading = nothing;
  override lheading = nothing;
  override table = nothing;
  override hr = nothing;
  override def = nothing;
  override reflink = nothing;
  /** Indented text is indented text; code has fences. */
  override code = nothing;
}
function nothing(): undefined {
  return undefined;
}

function parse(text: string): Block[] {
  if (!/[*_`~>\-+\d.:@#\\[\n]/.test(text)) return [{ kind: "paragraph", inside: [{ kind: "text", text }] }];
  try {
    const lexer = new Lexer({ gfm: true, breaks: true, tokenizer: new SmallTokenizer() });
    return blocksOf(lexer.lex(text), 0);
  } catch {
    return [{ kind: "paragraph", inside: [{ kind: "text", text }] }];
  }
}

function blocksOf(tokens: Token[], depth: number): Block[] {
  const blocks: Block[] = [];
  for (const token of tokens) {
    switch (token.type) {
      case "space":
        break;
      case "code":
        blocks.push({
          kind: "code",
          text: token.text as string,
          language: (token as Tokens.Code).lang ?? "",
        });
        break;
      case "blockquote":
        if (depth < MAX_DEPTH) {
          blocks.push({ kind: "quote", inside: blocksOf((token as Tokens.Blockquote).tokens, depth + 1) });
        } else blocks.push(literal(token.raw));
        break;
      case "list": {
        const list = token as Tokens.List;
        if (depth >= MAX_DEPTH) {
          blocks.push(literal(list.raw));
          break;
        }
        blocks.push({
          kind: "list",
          ordered: list.ordered,
          start: typeof list.start === "number" ? list.start : 1,
          items: list.items.map((item) => blocksOf(item.tokens, depth + 1)),
        });
        break;
      }
      case "paragraph":
      case "text": {
        const inner = (token as Tokens.Paragraph).tokens;
        blocks.push({ kind: "paragraph", inside: inner ? inlinesOf(inner, depth) : withMentions(token.raw) });
        break;
      }
      default:
        blocks.push(literal(token.raw));
    }
  }
  return blocks;
}

function inlinesOf(tokens: Token[], depth: number): Inline[] {
  const out: Inline[] = [];
  for (const token of tokens) {
    switch (token.type) {
      case "strong":
      case "em":
      case "del":
        if (depth >= MAX_DEPTH) out.push(...withMentions(token.raw));
        else out.push({ kind: token.type, inside: inlinesOf((token as Tokens.Strong).tokens, depth + 1) });
        break;
      case "codespan":
        out.push({ kind: "code", text: (token as Tokens.Codespan).text });
        break;
      case "br":
        out.push({ kind: "break" });
        break;
      case "link": {
        const link = token as Tokens.Link;
        const href = safeHref(link.href);
        if (href === null || depth >= MAX_DEPTH) out.push({ kind: "text", text: link.raw });
        else out.push({ kind: "link", href, inside: inlinesOf(link.tokens, MAX_DEPTH) });
        break;
      }
      case "escape":
        out.push({ kind: "text", text: (token as Tokens.Escape).text });
        break;
      case "text": {
        const inner = (token as Tokens.Text).tokens;
        if (inner) out.push(...inlinesOf(inner, depth));
        else out.push(...withMentions((token as Tokens.Text).text));
        break;
      }
      default:
        out.push({ kind: "text", text: token.raw });
    }
  }
  return out;
}

const literal = (raw: string): Block => ({
  kind: "paragraph",
  inside: [{ kind: "text", text: raw.trimEnd() }],
});

function withMentions(text: string): Inline[] {
  return text
    .split(/((?<![\p{L}\p{N}_@.])@[\p{L}\p{N}_][\p{L}\p{N}_.-]*(?<![.-]))/u)
    .filter((piece) => piece !== "")
    .map((piece) => ({ kind: piece.startsWith("@") && piece.length > 1 ? "mention" : "text", text: piece }));
}

function flattenBlock(block: Block): string {
  switch (block.kind) {
    case "paragraph":
      return flatten(block.inside);
    case "code":
      return block.text;
    case "quote":
      return block.inside.map(flattenBlock).join(" ");
    case "list":
      return block.items.map((item) => item.map(flattenBlock).join(" ")).join(", ");
  }
}

function flatten(inlines: readonly Inline[]): string {
  return inlines
    .map((one) => ("inside" in one ? flatten(one.inside) : one.kind === "break" ? " " : one.text))
    .join("");
}
