// Journeys through bad networks: what is said while the line is down, and what comes when it is back.
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

test("after five seconds without a network the app comes back by itself with exactly what it missed", async () => {
  const ann = await world.person("ann");
  const ben = await world.person("ben");
  await ann.opensChatWith(ben);
  await ann.says("before");
  const traffic = ben.watchTraffic();
  await ben.page.reload();
  await ben.opens("ann");
  await ben.hears("before");
  await ann.seesTick("before", "Read");
  await ben.goesOffline();
  const offline = Date.now();
  const missed = ["one", "two", "three", "four"];
  for (const text of missed) await ann.says(text);
  await ann.seesTick("four", "Sent");
  await ben.seesSubtitle("Offline");
  await ben.page.getByRole("main").getByRole("button", { name: "Try now" }).waitFor();
  await ben.says("written without a network");
  await ben.seesSubtitle("Offline, 1 message waiting");
  await ben.seesTick("written without a network", "Waiting");
  await ann.until((until) => Date.now() >= until, offline + 5_000);
  assert.deepEqual(await ben.sees(), ["before", "written without a network"]);
  traffic.received.length = 0;
  const asked = traffic.requests.length;
  await ben.comesBack();
  await ben.hears("four");
  await ann.hears("written without a network");
  await ben.seesSubtitle("Online");
  const whole = ["before", ...missed, "written without a network"];
  assert.deepEqual(await ben.sees(), whole);
  assert.deepEqual(await ann.sees(), whole);
  const came = traffic.received
    .flatMap((frame) => (frame.t === "events" ? frame.events : frame))
    .filter((frame) => frame.kind === "message")
    .map((event) => event.message.message);
  // The cursor may be a moment older than the cut: what is repeated is a run without a hole, and never shown twice.
  assert.deepEqual(
    came,
    whole.slice(-came.length),
    "the socket carried the rest of the log, each message once",
  );
  assert.ok(missed.every((text) => came.includes(text)));
  assert.deepEqual(
    traffic.requests.slice(asked).filter((request) => request.endsWith("/messages")),
    [],
    "by its cursor, not by loading the chat anew",
  );
  for (const person of [ann, ben]) await person.context.close();
});

test("when the server stops and starts again both sides reconnect by themselves and miss nothing", async () => {
  const cleo = await world.person("cleo");
  const dan = await world.person("dan");
  await cleo.opensChatWith(dan);
  await cleo.says("before");
  await dan.opens("cleo");
  await dan.hears("before");
  await world.killServer();
  for (const person of [cleo, dan]) await person.seesSubtitle("Reconnecting…");
  await cleo.says("while it was gone");
  await cleo.seesSubtitle("Offline, 1 message waiting");
  await world.startServer();
  await dan.hears("while it was gone");
  for (const person of [cleo, dan]) {
    await person.seesSubtitle("Online");
    assert.deepEqual(await person.sees(), ["before", "while it was gone"]);
  }
  for (const person of [cleo, dan]) await person.context.close();
});

test("a message that the server refuses is kept with its reason, and can be sent again", async () => {
  const eva = await world.person("eva");
  const finn = await world.person("finn");
  await eva.opensChatWith(finn);
  await eva.says("short");
  await eva.seesTick("short", "Delivered");
  const long = "much too long for that. ".repeat(20).trim();
  await world.killServer();
  await eva.says(long);
  await eva.seesTick(long, "Waiting");
  await world.startServer({ PARLOR_LIMITS__MESSAGE_BYTES: "100" });
  const row = eva.page.locator("main article").filter({ hasText: long });
  await row.getByText("Not sent: it is too long. Your text is kept.").waitFor();
  await eva
    .rowOf("finn")
    .locator("span", { hasText: /^Not sent$/ })
    .waitFor();
  await eva.page.reload();
  await row.getByText("Not sent: it is too long. Your text is kept.").waitFor();
  await row.getByRole("button", { name: "Retry" }).click();
  await row.getByText("Not sent: it is too long. Your text is kept.").waitFor();
  await world.killServer();
  await world.startServer();
  await eva.seesSubtitle("Online");
  await row.getByRole("button", { name: "Retry" }).click();
  await eva.seesTick(long, "Delivered");
  await finn.opens("eva");
  await finn.hears(long);
  assert.deepEqual(await finn.sees(), ["short", long]);
  for (const person of [eva, finn]) await person.context.close();
});
