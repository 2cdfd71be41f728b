// The world of the browser journeys: the real binary on a free port and a temporary folder, and people in real
// browser contexts. Nothing here is mocked.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const axePath = require.resolve("axe-core/axe.min.js");
const binary =
  process.env.SERVER_BINARY ??
  join(
    process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../target", import.meta.url)),
    "debug/parlor",
  );

/** Longer than anything takes that works. */
export const PATIENCE = 15_000;

export class World {
  #process = null;
  #folder = mkdtempSync(join(tmpdir(), "parlor-e2e-"));
  #browser = null;
  #port = 0;
  /** What the consoles said that they should not. */
  complaints = [];

  static async start() {
    const world = new World();
    assert.ok(existsSync(binary), `no server at ${binary}: build it first`);
    await world.startServer();
    world.#browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
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
    return world;
  }

  /** The first time on a free port, later on the same one. `settings`: environment variables of this run. */
  async startServer(settings = {}) {
    const child = spawn(
      binary,
      ["serve", "--listen", `127.0.0.1:${this.#port}`, "--data", join(this.#folder, "data")],
      {
        env: { ...process.env, PARLOR_RATE_LIMITS: "off", PARLOR_LOG: "error", ...settings },
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    this.#process = child;
    const line = await new Promise((resolve, reject) => {
      child.stdout.once("data", (data) => resolve(String(data)));
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    });
    this.#port = Number(/127\.0\.0\.1:(\d+)/.exec(line)[1]);
  }

  /** As a power button would: no farewell. */
  async killServer() {
    const child = this.#process;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}/`;
  }

  /** A new person with a browser of their own, signed up through the app. */
  async person(name, options = {}) {
    const person = await Person.open(this, this.#browser, name, options);
    await person.signsUp();
    return person;
  }

  /** The same account in another browser. `fresh` looks on from before the sign-in. */
  async otherDevice(person, fresh = () => {}) {
    const other = await this.browserOf(person.name);
    other.password = person.password;
    fresh(other);
    await other.signsIn();
    return other;
  }

  /** A browser in which nobody is signed in. */
  async browserOf(name, options = {}) {
    return Person.open(this, this.#browser, name, options);
  }

  async end() {
    await this.#browser?.close();
    await this.killServer();
    rmSync(this.#folder, { recursive: true, force: true });
    assert.deepEqual(this.complaints, [], "the consoles stay silent");
  }
}

class Person {
  static async open(world, browser, name, options) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    const person = await Person.openTab(world, context, name);
    await person.page.goto(world.url);
    return person;
  }

  static async openTab(world, context, name) {
    const person = new Person();
    person.world = world;
    person.name = name;
    person.password = "correct horse battery";
    person.context = context;
    person.page = await context.newPage();
    person.page.setDefaultTimeout(PATIENCE);
    person.page.on("pageerror", (error) => world.complaints.push(`${name}: ${error.stack}`));
    person.page.on("console", (message) => {
      // Requests that fail while the network or the server is away, or before sign-in, are expected.
      if (message.type() === "error" && !/Failed to load resource|WebSocket connection/.test(message.text()))
        world.complaints.push(`${name}: ${message.text()}`);
    });
    return person;
  }

  /** A second tab of the same browser, at a chat or at the list. */
  async otherTab(chatId = null) {
    const tab = await Person.openTab(this.world, this.context, this.name);
    await tab.page.goto(tab.addressOf(chatId));
    await tab.page.getByRole("button", { name: "New chat" }).first().waitFor();
    return tab;
  }

  async signsUp() {
    const { page, name } = this;
    await page.getByRole("button", { name: "Create an account" }).click();
    await page.locator("input[name=username]").fill(name);
    await page.locator("input[name=email]").fill(`${name}@example.org`);
    await page.locator("input[name=password]").fill(this.password);
    await page.locator("button[type=submit]").click();
    await page.getByRole("button", { name: "New chat" }).first().waitFor();
  }

  async signsIn() {
    await this.knocks();
    await this.page.getByRole("button", { name: "New chat" }).first().waitFor();
  }

  /** Fills in name and password, and does not wait for what comes of it. */
  async knocks() {
    const { page, name } = this;
    await page.locator("input[name=login]").fill(name);
    await page.locator("input[name=password]").fill(this.password);
    await page.locator("button[type=submit]").click();
  }

  async goesToSettings(section) {
    await this.page.goto(`${this.world.url}#/settings/${section}`);
    await this.page.getByRole("heading", { name: "Settings" }).waitFor();
  }

  async changesPassword(current, wanted) {
    await this.page.getByRole("button", { name: "Change password" }).click();
    await this.page.getByLabel("Present password").fill(current);
    await this.page.getByLabel("New password").fill(wanted);
    await this.page.getByRole("button", { name: "Change password" }).click();
  }

  /** The stores of accounts that this browser keeps. */
  async databases() {
    const all = await this.page.evaluate(async () => (await indexedDB.databases()).map(({ name }) => name));
    return all.filter((name) => name.startsWith("parlor "));
  }

  async opensChatWith(other) {
    const { page } = this;
    await page.getByRole("button", { name: "New chat" }).first().click();
    const dialog = page.locator("dialog[open]");
    await dialog.locator("input:not([type=radio])").first().fill(other.name);
    await dialog.getByText(`@${other.name}`).click();
    await this.isIn(other.name);
  }

  /** Waits until the open chat is this one. */
  async isIn(title) {
    await this.page.getByRole("textbox", { name: `Message ${title}` }).waitFor();
  }

  async makesGroup(title, others) {
    const { page } = this;
    await page.getByRole("button", { name: "New chat" }).first().click();
    const dialog = page.locator("dialog[open]");
    await dialog.getByRole("radio", { name: "Group" }).check();
    await dialog.getByLabel("Group name").fill(title);
    for (const other of others) {
      await dialog.getByLabel("Add people").fill(other.name);
      await dialog.getByText(`@${other.name}`).click();
    }
    await dialog.getByRole("button", { name: "Create group" }).click();
    await this.isIn(title);
  }

  /** Opens a chat from the list. */
  async opens(title) {
    await this.page.getByRole("navigation").getByText(title, { exact: true }).first().click();
    await this.isIn(title);
  }

  /** The id of the open chat, as the address says. */
  get chatId() {
    return /#\/chat\/(\d+)/.exec(this.page.url())[1];
  }

  addressOf(chatId) {
    return `${this.world.url}#/${chatId === null ? "" : `chat/${chatId}`}`;
  }

  /** The row of a chat in the list. */
  rowOf(title) {
    return this.page
      .getByRole("navigation")
      .locator("a[data-chat]")
      .filter({ has: this.page.getByText(title, { exact: true }) });
  }

  /** Waits until the list shows so many unread messages of a chat. */
  async seesUnread(title, count) {
    const row = this.rowOf(title);
    await row.waitFor();
    if (count === 0) await row.getByRole("img", { name: /unread/ }).waitFor({ state: "detached" });
    else await row.getByRole("img", { name: `${count} unread`, exact: true }).waitFor();
  }

  /** The line under the name of the open chat: presence, or how the connection is. */
  get subtitle() {
    return this.page.locator("main header .sub");
  }

  async seesSubtitle(text) {
    await this.subtitle.getByText(text).waitFor();
  }

  get composer() {
    return this.page.locator("textarea").first();
  }

  async says(text) {
    await this.composer.fill(text);
    await this.composer.press("Enter");
  }

  /** Says it, and answers the id that the server gave it. */
  async saysAndIsAcked(text) {
    await this.says(text);
    await this.seesTick(text, "Sent");
    const { body } = await this.calls("GET", `/chats/${this.chatId}/messages?limit=1`);
    assert.equal(body.messages[0].message, text);
    return body.messages[0].message_id;
  }

  /** The texts of others and own, in the order of the screen. */
  async sees() {
    return this.page
      .locator("main article")
      .evaluateAll((rows) => rows.map((row) => row.querySelector(".text")?.textContent?.trim() ?? ""));
  }

  async hears(text) {
    await this.page.locator("main article").getByText(text, { exact: true }).waitFor();
  }

  /** Waits until the row of an own message shows a tick of this name. */
  async seesTick(text, tick) {
    const row = this.page.locator("main article").filter({ hasText: text }).last();
    await row.locator(`[aria-label="${tick}"], [title="${tick}"]`).first().waitFor({ state: "attached" });
  }

  /** Waits until something holds that this person's page is asked for. */
  async until(what, argument) {
    await this.page.waitForFunction(what, argument);
  }

  /** Another tab comes to the front: the app is open, and nobody looks at it. */
  async looksAway() {
    // Browsers under automation pretend that every page has the focus: the pretence ends here.
    this.devtools ??= await this.context.newCDPSession(this.page);
    await this.devtools.send("Emulation.setFocusEmulationEnabled", { enabled: false });
    this.inFront = await this.context.newPage();
    await this.inFront.bringToFront();
    await this.until(() => !document.hasFocus());
  }

  async looksBack() {
    await this.inFront.close();
    await this.page.bringToFront();
    await this.until(() => document.visibilityState === "visible" && document.hasFocus());
  }

  /** Notes what the page asks of the server and what its sockets carry, from now on. */
  watchTraffic() {
    const traffic = { requests: [], sent: [], received: [] };
    const frames = (payload) => [JSON.parse(payload)].flat();
    this.page.on("request", (request) => {
      const { pathname } = new URL(request.url());
      if (pathname.startsWith("/api/")) traffic.requests.push(`${request.method()} ${pathname}`);
    });
    this.page.on("websocket", (socket) => {
      socket.on("framesent", ({ payload }) => traffic.sent.push(...frames(payload)));
      socket.on("framereceived", ({ payload }) => traffic.received.push(...frames(payload)));
    });
    return traffic;
  }

  /** A call to the server with the cookie of this browser. */
  async calls(method, path, body) {
    return this.page.evaluate(
      async ([method, path, body]) => {
        const answer = await fetch(`api/v1${path}`, {
          method,
          headers: {
            "x-parlor-client": "web",
            ...(body === undefined ? {} : { "content-type": "application/json" }),
          },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
        const text = await answer.text();
        return { status: answer.status, body: text === "" ? null : JSON.parse(text) };
      },
      [method, path, body],
    );
  }

  /** Writes many messages at once, past the app. */
  async saysMany(chatId, texts) {
    for (let from = 0; from < texts.length; from += 100) {
      const messages = texts.slice(from, from + 100).map((message) => ({ chat_id: chatId, message }));
      const { status, body } = await this.calls("POST", "/messages/batch", { messages });
      assert.equal(status, 200);
      assert.ok(body.results.every((one) => one.status === 201));
    }
  }

  async goesOffline() {
    await this.context.setOffline(true);
  }

  async comesBack() {
    await this.context.setOffline(false);
  }

  async reloads(shown = this.composer) {
    await this.page.reload();
    await shown.waitFor();
  }

  /** axe finds nothing on the page as it stands. */
  async hasNoBarriers(place) {
    await this.page.evaluate(await (await import("node:fs/promises")).readFile(axePath, "utf8"));
    const { violations } = await this.page.evaluate(() => globalThis.axe.run());
    const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(" ")}`);
    assert.deepEqual(told, [], place);
  }
}
