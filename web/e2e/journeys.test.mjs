// Journeys of people through the real app, served by the real binary, in a real browser.
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

test("a message is seen without reload and its ticks go from sent to delivered to read", async () => {
  const ann = await world.person("ann");
  const ben = await world.person("ben");
  await ann.opensChatWith(ben);
  await ann.says("Hello Ben");
  const preview = ben.page.getByRole("navigation").getByText("Hello Ben");
  await preview.waitFor();
  await ann.seesTick("Hello Ben", "Delivered");
  const sent = Date.now();
  await ann.says("Are you there?");
  await ben.page.getByRole("navigation").getByText("Are you there?").waitFor();
  assert.ok(Date.now() - sent < 1_000, `seen after ${Date.now() - sent} ms`);
  await ben.opens("ann");
  await ben.hears("Hello Ben");
  await ann.seesTick("Hello Ben", "Read");
  await ben.says("Yes");
  await ann.hears("Yes");
  await ann.context.close();
  await ben.context.close();
});

test("messages wait for who is offline, come in order, and are there after a reload and on a new device", async () => {
  const cleo = await world.person("cleo");
  const dan = await world.person("dan");
  await cleo.opensChatWith(dan);
  await cleo.says("zero");
  await dan.opens("cleo");
  await dan.hears("zero");
  await dan.goesOffline();
  for (const text of ["one", "two", "three"]) await cleo.says(text);
  await cleo.seesTick("three", "Sent");
  await dan.comesBack();
  await dan.hears("three");
  assert.deepEqual(await dan.sees(), ["zero", "one", "two", "three"]);
  await cleo.seesTick("three", "Read");
  for (const person of [cleo, dan]) {
    await person.reloads();
    await person.hears("three");
    assert.deepEqual(await person.sees(), ["zero", "one", "two", "three"]);
  }
  const phone = await world.otherDevice(dan);
  await phone.opens("cleo");
  await phone.hears("three");
  assert.deepEqual(await phone.sees(), ["zero", "one", "two", "three"]);
  for (const person of [cleo, dan, phone]) await person.context.close();
});

test("a message written while the server is killed arrives once", async () => {
  const eva = await world.person("eva");
  const finn = await world.person("finn");
  await eva.opensChatWith(finn);
  await eva.says("before");
  await finn.opens("eva");
  await finn.hears("before");
  await world.killServer();
  await eva.says("while it was away");
  await world.startServer();
  await finn.hears("while it was away");
  await eva.seesTick("while it was away", "Read");
  await eva.says("after");
  await finn.hears("after");
  for (const person of [eva, finn]) {
    await person.reloads();
    await person.hears("after");
    assert.deepEqual(await person.sees(), ["before", "while it was away", "after"]);
    await person.context.close();
  }
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

test("words that look like markup stay words", async () => {
  const jo = await world.person("jo");
  const kim = await world.person("kim");
  await jo.opensChatWith(kim);
  const attacks = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "<svg/onload=alert(1)>",
  ];
  let dialogs = 0;
  kim.page.on("dialog", (dialog) => {
    dialogs += 1;
    dialog.dismiss();
  });
  for (const attack of attacks) await jo.says(attack);
  await jo.says("done");
  await kim.opens("jo");
  await kim.hears("done");
  const links = await kim.page.locator("main article a").evaluateAll((all) => all.map((a) => a.href));
  assert.deepEqual(links, []);
  assert.equal(await kim.page.locator("main article :is(img, script)").count(), 0);
  assert.equal(dialogs, 0);
  for (const person of [jo, kim]) await person.context.close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const [width, height] of [
    [1440, 900],
    [390, 844],
  ]) {
    test(`there are no barriers at ${width} px, ${colorScheme}`, async () => {
      const suffix = `${width}${colorScheme}`;
      const lea = await world.person(`lea${suffix}`, { viewport: { width, height }, colorScheme });
      const max = await world.person(`max${suffix}`);
      await lea.hasNoBarriers("the first page");
      await lea.opensChatWith(max);
      await lea.says("Hello");
      await lea.seesTick("Hello", "Delivered");
      await max.opens(lea.name);
      await max.says("Hello back");
      await lea.hears("Hello back");
      await lea.hasNoBarriers("a conversation");
      for (const person of [lea, max]) await person.context.close();
    });
  }
}
