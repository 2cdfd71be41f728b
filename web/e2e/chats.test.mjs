// Journeys of chats and their members: which chats there are, and who sees what.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World } from "./world.mjs";

let world;
before(async () => {
  world = await World.start();
});
after(async () => {
  await world.end();
});

test("a group of three hears everybody, and a draft is kept for each chat", async () => {
  const gus = await world.person("gus");
  const hana = await world.person("hana");
  const ivo = await world.person("ivo");
  await gus.makesGroup("Workshop", [hana, ivo]);
  await gus.says("welcome");
  for (const person of [hana, ivo]) {
    await person.opens("Workshop");
    await person.hears("welcome");
    await person.says(`${person.name} is here`);
  }
  for (const person of [gus, hana, ivo]) {
    await person.hears("hana is here");
    await person.hears("ivo is here");
  }
  await gus.composer.fill("not finished");
  await gus.opensChatWith(hana);
  assert.equal(await gus.composer.inputValue(), "");
  await gus.opens("Workshop");
  assert.equal(await gus.composer.inputValue(), "not finished");
  for (const person of [gus, hana, ivo]) await person.context.close();
});

test("opening a chat with the same person twice gives the same chat, and a third person learns nothing of it", async () => {
  const jan = await world.person("jan");
  const kaja = await world.person("kaja");
  const leo = await world.person("leo");
  await jan.opensChatWith(kaja);
  const { chatId } = jan;
  await jan.says("between us");
  await jan.page.goto(jan.addressOf(null));
  await jan.opensChatWith(kaja);
  assert.equal(jan.chatId, chatId);
  await jan.hears("between us");
  await kaja.opensChatWith(jan);
  assert.equal(kaja.chatId, chatId);
  await kaja.hears("between us");
  for (const person of [jan, kaja]) {
    assert.equal(await person.page.getByRole("navigation").locator("a[data-chat]").count(), 1);
  }

  await leo.page.getByText("No chats yet.").waitFor();
  await leo.page.goto(leo.addressOf(chatId));
  await leo.page.getByText("This chat is no longer there, or no longer yours to see.").waitFor();
  await leo.reloads(leo.page.getByText("This chat is no longer there"));
  assert.equal(await leo.page.getByText("between us").count(), 0);
  assert.equal(await leo.page.locator("a[data-chat]").count(), 0);
  const unknown = await leo.calls("GET", "/chats/1");
  const closed = await leo.calls("GET", `/chats/${chatId}`);
  assert.equal(closed.status, 404);
  assert.equal(closed.body.detail, unknown.body.detail, "forbidden and absent look alike");
  assert.equal((await leo.calls("GET", `/chats/${chatId}/messages`)).status, 404);
  for (const person of [jan, kaja, leo]) await person.context.close();
});

test("in a group of five each sees each message once and in the same order", async () => {
  const people = [];
  for (const name of ["mia", "nils", "olga", "piet", "quin"]) people.push(await world.person(name));
  const [mia, ...others] = people;
  await mia.makesGroup("Choir", others);
  for (const person of others) await person.opens("Choir");
  // All five write at the same time, and then once more.
  for (const round of ["first", "second"]) {
    await Promise.all(people.map((person) => person.says(`${person.name}, ${round}`)));
  }
  const said = people.flatMap(({ name }) => [`${name}, first`, `${name}, second`]);
  for (const person of people) for (const text of said) await person.hears(text);
  const order = await mia.sees();
  assert.deepEqual([...order].sort(), [...said].sort(), "each once");
  for (const person of others) assert.deepEqual(await person.sees(), order, person.name);
  for (const person of people) {
    await person.reloads();
    await person.hears(order.at(-1));
    assert.deepEqual(await person.sees(), order, `${person.name} after a reload`);
    await person.context.close();
  }
});

test("a chat is found, written in and left by the keyboard alone", async () => {
  const rosa = await world.person("rosa");
  const sven = await world.person("sven");
  await rosa.opensChatWith(sven);
  await rosa.says("an early word");
  await rosa.page.goto(rosa.addressOf(null));
  const { keyboard } = rosa.page;
  const focused = () =>
    rosa.page.evaluate(() => {
      const { activeElement: at } = document;
      return at?.getAttribute("aria-label") ?? at?.textContent ?? "";
    });
  await keyboard.press("Control+k");
  await rosa.page.locator("dialog[open]").waitFor();
  assert.equal(await focused(), "Search or jump to");
  await keyboard.press("Escape");
  await rosa.page.locator("dialog[open]").waitFor({ state: "detached" });
  await keyboard.press("Control+k");
  await keyboard.type("sve");
  await rosa.page.getByRole("option", { name: "sven", selected: true }).waitFor();
  await keyboard.press("Enter");
  await rosa.isIn("sven");
  await rosa.until(() => document.activeElement?.tagName === "TEXTAREA");
  await keyboard.type("by hand");
  await keyboard.press("Enter");
  await rosa.seesTick("by hand", "Delivered");
  // The empty field gives the arrow to the messages, and Escape brings it back.
  await keyboard.press("ArrowUp");
  await rosa.until(() => document.activeElement?.tagName === "ARTICLE");
  assert.match(await focused(), /by hand/);
  await keyboard.press("ArrowUp");
  await rosa.until(() => document.activeElement?.getAttribute("aria-label")?.includes("an early word"));
  await keyboard.press("r");
  await rosa.page.getByText("Reply to").waitFor();
  await rosa.until(() => document.activeElement?.tagName === "TEXTAREA");
  await keyboard.press("Escape");
  await rosa.page.getByText("Reply to").waitFor({ state: "detached" });
  await keyboard.press("Alt+Shift+D");
  await rosa.page.getByRole("complementary", { name: "Details" }).waitFor();
  await keyboard.press("Alt+Shift+D");
  await rosa.page.getByRole("complementary", { name: "Details" }).waitFor({ state: "detached" });
  // A new chat: the field has the focus, so the name can be typed at once.
  await keyboard.press("Alt+Shift+N");
  await rosa.page.locator("dialog[open]").waitFor();
  assert.equal(
    await rosa.page.evaluate(() => document.activeElement?.tagName),
    "INPUT",
    "the name can be typed at once",
  );
  await keyboard.press("Escape");
  await rosa.page.locator("dialog[open]").waitFor({ state: "detached" });
  for (const person of [rosa, sven]) await person.context.close();
});
