// Journeys of presence: who is here, who was, who is writing.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World } from "./world.mjs";

/** An orderly close shows at most so late. */
const GRACE_MS = 10_000;
/** The server tells last seen by whole minutes, so a few seconds can be a minute. */
const JUST_NOW = /^Last seen (just now|1 minute ago)$/;

let world;
before(async () => {
  world = await World.start();
});
after(async () => {
  await world.end();
});

test("who closes the tab is shown as gone within the grace, and as online after coming back", async () => {
  const ada = await world.person("ada");
  const bo = await world.person("bo");
  await ada.opensChatWith(bo);
  await ada.seesSubtitle("Online");
  const dot = ada.rowOf("bo").getByRole("img", { name: "Online" });
  await dot.waitFor();
  const left = Date.now();
  await bo.page.close();
  await ada.seesSubtitle(JUST_NOW);
  assert.ok(Date.now() - left < GRACE_MS, `shown after ${Date.now() - left} ms`);
  await dot.waitFor({ state: "detached" });
  const again = await bo.otherTab();
  await ada.seesSubtitle("Online");
  await dot.waitFor();
  for (const person of [ada, again]) await person.context.close();
});

test("how long ago somebody was last seen counts on by itself", async () => {
  const cem = await world.person("cem");
  const dora = await world.person("dora");
  await cem.page.clock.install();
  await cem.page.reload();
  await cem.opensChatWith(dora);
  await cem.seesSubtitle("Online");
  await dora.page.close();
  await cem.seesSubtitle(JUST_NOW);
  // The clock of the browser goes ahead, as after a laptop slept; the server's stays.
  await cem.page.clock.fastForward("01:00");
  await cem.seesSubtitle(/^Last seen (1 minute|2 minutes) ago$/);
  await cem.page.clock.fastForward("04:00");
  await cem.seesSubtitle(/^Last seen [56] minutes ago$/);
  for (const person of [cem, dora]) await person.context.close();
});

test("the others see who is typing, and that it ends", async () => {
  const ed = await world.person("ed");
  const fay = await world.person("fay");
  const gil = await world.person("gil");
  await ed.makesGroup("Band", [fay, gil]);
  for (const person of [fay, gil]) await person.opens("Band");
  await ed.composer.pressSequentially("I am just");
  for (const person of [fay, gil]) await person.page.locator("main").getByText("ed is typing").waitFor();
  assert.equal(await ed.page.getByText("ed is typing").count(), 0, "one's own writing is no news");
  await fay.composer.pressSequentially("me too");
  await gil.page.locator("main").getByText("ed and fay are typing").waitFor();
  await gil.page.goto(gil.addressOf(null));
  await ed.composer.pressSequentially(" here");
  await gil.rowOf("Band").getByText("typing").waitFor();
  await ed.composer.press("Enter");
  await fay.hears("I am just here");
  await fay.page.getByText("ed is typing").waitFor({ state: "detached" });
  await fay.composer.fill("");
  await gil.rowOf("Band").getByText("typing").waitFor({ state: "detached" });
  for (const person of [ed, fay, gil]) await person.context.close();
});
