// Looks at every place of the app with the fake client: pictures into a folder outside the tree, and on each
// place axe-core and the rules of the page (nothing scrolls sideways, no target below 24 px, no inline styles).
//
//   npm run look -- [OUT] [only=NAME,…] [axe=off] [sizes=1440,834,390] [themes=light,dark]
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { createServer } from "vite";

const require = createRequire(import.meta.url);
const axePath = require.resolve("axe-core/axe.min.js");
const args = process.argv.slice(2);
const option = (name, otherwise) =>
  args.find((arg) => arg.startsWith(`${name}=`))?.slice(name.length + 1) ?? otherwise;
const out = args.find((arg) => !arg.includes("=")) ?? join(tmpdir(), "parlor-look");
const only = option("only", "").split(",").filter(Boolean);
const sizes = option("sizes", "1440,834,390").split(",").map(Number);
const themes = option("themes", "light,dark").split(",");
const withAxe = option("axe", "on") === "on";
mkdirSync(out, { recursive: true });

const heights = { 1440: 900, 834: 1112, 390: 844 };
const press = (keys) => async (page) => {
  await page.keyboard.press(keys);
  await page.waitForTimeout(250);
};
/** name, scene, hash, what to do first. */
const places = [
  ["list", "", "#/"],
  ["conversation", "", "#/chat/1"],
  ["direct-offline", "offline", "#/chat/2"],
  ["rtl-text", "", "#/chat/7"],
  ["empty-chat", "empty", "#/chat/2"],
  ["details", "", "#/chat/1/details"],
  ["details-direct", "", "#/chat/2/details"],
  ["first-run", "first", "#/"],
  ["door", "door", "#/"],
  [
    "door-error",
    "lost",
    "#/",
    async (page) => {
      await page.getByLabel("Username or email").fill("mira");
      await page.getByLabel("Password", { exact: true }).fill("wrong");
      await page.getByRole("button", { name: "Sign in" }).click();
      await page.waitForTimeout(500);
    },
  ],
  [
    "set-up",
    "setup",
    "#/",
    async (page) => {
      await page.getByRole("button", { name: "Create an account" }).click();
      await page.getByLabel("Username").fill("mira");
      await page.getByLabel("Email").fill("mira@riverside-bikes.example");
      await page.getByLabel("Password", { exact: true }).fill("the lamp is on tonight");
      await page.getByRole("button", { name: "Create account" }).click();
      await page.waitForTimeout(600);
    },
  ],
  [
    "switcher",
    "",
    "#/chat/1",
    async (page) => {
      await press("Control+k")(page);
      await page.keyboard.type("ri");
      await page.waitForTimeout(200);
    },
  ],
  ["shortcuts", "", "#/chat/1", press("Control+/")],
  ["settings", "", "#/settings"],
  [
    "new-group",
    "",
    "#/chat/1",
    async (page) => {
      await press("Alt+Shift+N")(page);
      await page.getByRole("radio", { name: "Group", exact: true }).check();
      await page.getByLabel("Group name").fill("Wheel building evening");
      await page.locator("dialog button", { hasText: "@ben" }).click();
      await page.waitForTimeout(200);
      await page.getByLabel("Add people").fill("clara");
      await page.waitForTimeout(1000);
    },
  ],
  [
    "message-menu",
    "",
    "#/chat/1",
    async (page) => {
      await page.locator("article").last().focus();
      await page.keyboard.press("Shift+F10");
      await page.waitForTimeout(300);
    },
  ],
  [
    "reply",
    "",
    "#/chat/1",
    async (page) => {
      await page.locator("article").last().focus();
      await page.keyboard.press("r");
      await page.keyboard.type("Lovely, I bring the keys.");
      await page.keyboard.press("Shift+Enter");
      await page.keyboard.type("See you there");
      await page.waitForTimeout(300);
    },
  ],
  [
    "delete",
    "",
    "#/chat/1",
    async (page) => {
      await page.locator("article.own").last().focus();
      await page.keyboard.press("Delete");
      await page.waitForTimeout(300);
    },
  ],
  [
    "message-details",
    "",
    "#/chat/1",
    async (page) => {
      await page.locator("button.readers").click();
      await page.waitForTimeout(500);
    },
  ],
  ["compact", "", "#/chat/1", null, { density: "compact" }],
  ["contrast", "", "#/chat/1", null, { contrast: "more" }],
].filter(([name]) => only.length === 0 || only.includes(name));

const server = await createServer({
  root: fileURLToPath(new URL("..", import.meta.url)),
  mode: "fake",
  server: { port: 0, host: "127.0.0.1" },
  logLevel: "error",
});
await server.listen();
const base = server.resolvedUrls.local[0];
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
let failures = 0;
const complain = (where, what) => {
  failures++;
  console.log(`${where}: ${what}`);
};

for (const width of sizes) {
  for (const theme of themes) {
    const context = await browser.newContext({
      viewport: { width, height: heights[width] ?? 900 },
      deviceScaleFactor: width < 700 ? 2 : 1,
      colorScheme: theme,
      hasTouch: width < 700,
      locale: "en-GB",
      reducedMotion: "reduce",
    });
    for (const [name, scene, hash, first, preferences] of places) {
      const where = `${name}-${width}-${theme}`;
      const page = await context.newPage();
      page.on("pageerror", (error) => complain(where, `error: ${error.message}`));
      page.on("console", (message) => {
        if (message.type() === "error") complain(where, `console: ${message.text()}`);
      });
      await page.addInitScript((stored) => {
        localStorage.setItem("parlor.preferences", JSON.stringify(stored ?? {}));
      }, preferences);
      await page.goto(`${base}?as=${scene}${hash}`);
      await page.waitForTimeout(700);
      try {
        await first?.(page);
      } catch (error) {
        complain(where, `could not be reached: ${String(error).split("\n")[0]}`);
      }
      await page.screenshot({ path: `${out}/${where}.png` });
      const faults = await page.evaluate(rules);
      for (const fault of faults) complain(where, fault);
      if (withAxe) {
        await page.addScriptTag({ path: axePath });
        const { violations } = await page.evaluate(() =>
          globalThis.axe.run(document, { resultTypes: ["violations"] }),
        );
        for (const one of violations) {
          complain(
            where,
            `axe ${one.id}: ${one.nodes
              .map((node) => node.target.join(" "))
              .slice(0, 4)
              .join(" | ")}`,
          );
        }
      }
      await page.close();
    }
    await context.close();
  }
}
await browser.close();
await server.close();
console.log(
  `${places.length * sizes.length * themes.length} looks, ${failures} complaints, pictures in ${out}`,
);
process.exit(failures === 0 ? 0 : 1);

/** Runs in the page. */
function rules() {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) faults.push(`scrolls sideways: ${root.scrollWidth} > ${innerWidth}`);
  for (const element of document.querySelectorAll(
    "button, a, input:not([type=radio]), textarea, [role=option]",
  )) {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.height === 0 || getComputedStyle(element).clipPath !== "none") continue;
    const inText = element.closest("p, .text, .other") !== null;
    if (!inText && (box.width < 23.5 || box.height < 23.5)) {
      faults.push(
        `small target ${Math.round(box.width)}×${Math.round(box.height)}: ${element.className || element.tagName} ${element.textContent?.slice(0, 20)}`,
      );
    }
  }
  for (const element of document.querySelectorAll("main *, nav *, aside *, dialog *")) {
    const style = getComputedStyle(element);
    if (
      style.overflowX === "hidden" &&
      element.scrollWidth > element.clientWidth + 1 &&
      style.textOverflow !== "ellipsis" &&
      style.clipPath === "none" &&
      element.textContent?.trim()
    ) {
      faults.push(`cut without an ellipsis: ${element.className || element.tagName}`);
    }
  }
  return faults;
}
