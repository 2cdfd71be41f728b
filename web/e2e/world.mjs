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

  /** The first time on a free port, later on the same one. */
  async startServer() {
    const child = spawn(
      binary,
      ["serve", "--listen", `127.0.0.1:${this.#port}`, "--data", join(this.#folder, "data")],
      {
        env: { ...process.env, PARLOR_RATE_LIMITS: "off", PARLOR_LOG: "error" },
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

  /** The same account in another browser. */
  async otherDevice(person) {
    const other = await Person.open(this, this.#browser, person.name, {});
    await other.signsIn();
    return other;
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
    const person = new Person();
    person.world = world;
    person.name = name;
    person.context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    person.page = await person.context.newPage();
    person.page.setDefaultTimeout(PATIENCE);
    person.page.on("pageerror", (error) => world.complaints.push(`${name}: ${error.stack}`));
    person.page.on("console", (message) => {
      // Requests that fail while the network or the server is away, or before sign-in, are expected.
      if (message.type() === "error" && !/Failed to load resource|WebSocket connection/.test(message.text()))
        world.complaints.push(`${name}: ${message.text()}`);
    });
    await person.page.goto(world.url);
    return person;
  }

  async signsUp() {
    const { page, name } = this;
    await page.getByRole("button", { name: "Create an account" }).click();
    await page.locator("input[name=username]").fill(name);
    await page.locator("input[name=email]").fill(`${name}@example.org`);
    await page.locator("input[name=password]").fill("correct horse battery");
    await page.locator("button[type=submit]").click();
    await page.getByRole("button", { name: "New chat" }).first().waitFor();
  }

  async signsIn() {
    const { page, name } = this;
    await page.locator("input[name=login]").fill(name);
    await page.locator("input[name=password]").fill("correct horse battery");
    await page.locator("button[type=submit]").click();
    await page.getByRole("button", { name: "New chat" }).first().waitFor();
  }

  async opensChatWith(other) {
    const { page } = this;
    await page.getByRole("button", { name: "New chat" }).first().click();
    const dialog = page.locator("dialog[open]");
    await dialog.locator("input:not([type=radio])").first().fill(other.name);
    await page.keyboard.press("Enter");
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
      await page.keyboard.press("Enter");
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

  get composer() {
    return this.page.locator("textarea").first();
  }

  async says(text) {
    await this.composer.fill(text);
    await this.composer.press("Enter");
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

  async goesOffline() {
    await this.context.setOffline(true);
  }

  async comesBack() {
    await this.context.setOffline(false);
  }

  async reloads() {
    await this.page.reload();
    await this.composer.waitFor();
  }

  /** axe finds nothing on the page as it stands. */
  async hasNoBarriers(place) {
    await this.page.evaluate(await (await import("node:fs/promises")).readFile(axePath, "utf8"));
    const { violations } = await this.page.evaluate(() => globalThis.axe.run());
    const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(" ")}`);
    assert.deepEqual(told, [], place);
  }
}
