// Journeys of messages: seen, kept, ordered, once.
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

test("opening the app fetches no history but that of the open chat", async () => {
  const lou = await world.person("lou");
  const names = ["mo", "ned", "oda"];
  const others = [];
  for (const name of names) {
    const other = await world.person(name);
    others.push(other);
    await other.opensChatWith(lou);
    await other.saysMany(
      other.chatId,
      Array.from({ length: 12 }, (_, i) => `${name} ${i + 1}`),
    );
    await lou.opens(name);
    await lou.hears(`${name} 12`);
    await other.seesTick(`${name} 12`, "Read");
  }
  const [{ chatId }] = others;
  const history = (traffic) => traffic.requests.filter((request) => /\/(messages|events)$/.test(request));
  const pages = (traffic) => traffic.sent.filter((frame) => frame.t === "sync");
  const told = (traffic) =>
    traffic.received.filter((frame) => frame.t === "event" || frame.t === "events").map((one) => one.chat_id);

  // A device that holds nothing yet: the list alone.
  let traffic;
  const phone = await world.otherDevice(lou, (fresh) => {
    traffic = fresh.watchTraffic();
  });
  for (const name of names) await phone.rowOf(name).getByText(`${name} 12`).waitFor();
  await phone.rowOf("mo").getByRole("img", { name: "Online" }).waitFor();
  assert.deepEqual([history(traffic), pages(traffic), told(traffic)], [[], [], []], "the list alone");

  // The address of one chat: that chat, and nothing of the others.
  await phone.page.goto(phone.addressOf(chatId));
  await phone.page.reload();
  await phone.hears("mo 12");
  await phone.seesSubtitle("Online");
  assert.deepEqual([...new Set(history(traffic))], [`GET /api/v1/chats/${chatId}/messages`]);
  assert.deepEqual(pages(traffic), []);

  // Once more: what was fetched is kept, and nothing is fetched again.
  const before = history(traffic).length;
  await phone.page.reload();
  await phone.hears("mo 12");
  await phone.seesSubtitle("Online");
  assert.equal(history(traffic).length, before);
  for (const person of [lou, phone, ...others]) await person.context.close();
});

test("older messages load on the way up without a jump, and a long chat keeps the page small", async () => {
  const pia = await world.person("pia");
  const ralf = await world.person("ralf");
  await pia.opensChatWith(ralf);
  const { chatId } = pia;
  const MANY = 2_000;
  await ralf.saysMany(
    chatId,
    Array.from({ length: MANY }, (_, i) => `line ${i + 1}${i % 7 === 0 ? "\nand a second one" : ""}`),
  );
  const { body } = await pia.calls("GET", `/chats/${chatId}/messages?limit=1`);
  const newest = body.messages[0].message_id;
  assert.equal((await pia.calls("PUT", `/messages/${newest}/status`, { status: "read" })).status, 200);
  const phone = await world.otherDevice(pia);
  const traffic = phone.watchTraffic();
  await phone.opens("ralf");
  await phone.hears(`line ${MANY}`);
  const scroller = phone.page.getByRole("log");
  await phone.until(() => {
    const log = document.querySelector('[role="log"]');
    return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
  });
  const bounded = async () => {
    const rows = await phone.page.locator("main article").count();
    const nodes = await phone.page.evaluate(() => document.querySelectorAll("*").length);
    assert.ok(rows < 120, `${rows} rows`);
    assert.ok(nodes < 4_000, `${nodes} elements`);
  };
  await bounded();

  // The wheel, again and again. After each turn every row that stays on screen moved by the turn and no more.
  const places = () =>
    scroller.evaluate((log) => {
      const { top, bottom } = log.getBoundingClientRect();
      const shown = [...log.querySelectorAll("article")].map((row) => [
        row.dataset.key,
        row.getBoundingClientRect().top,
        row.getBoundingClientRect().bottom,
      ]);
      return Object.fromEntries(
        shown.filter(([, a, b]) => b > top && a < bottom).map(([key, a]) => [key, a]),
      );
    });
  const settled = () =>
    scroller.evaluate(
      (log) =>
        new Promise((resolve) => {
          let last = -1;
          let same = 0;
          const look = () => {
            same = log.scrollTop === last ? same + 1 : 0;
            last = log.scrollTop;
            if (same > 6) resolve();
            else requestAnimationFrame(look);
          };
          look();
        }),
    );
  const TURN = 400;
  await scroller.hover();
  const pages = () => traffic.requests.filter((request) => request.endsWith("/messages")).length;
  const first = pages();
  let turns = 0;
  while (pages() < first + 5) {
    await settled();
    const before = await places();
    await phone.page.mouse.wheel(0, -TURN);
    await settled();
    const after = await places();
    const both = Object.keys(before).filter((key) => key in after);
    assert.ok(both.length > 0, "a part of the screen stays");
    for (const key of both) {
      const moved = after[key] - before[key];
      assert.ok(Math.abs(moved - TURN) <= 2, `row ${key} moved by ${moved} px in turn ${turns}`);
    }
    turns += 1;
    assert.ok(turns < 200, "older messages are loaded");
  }
  await bounded();

  // To the very first message, as fast as a hand can.
  while ((await phone.page.getByText("This is the beginning of your chat with ralf.").count()) === 0) {
    await scroller.evaluate((log) => {
      log.scrollTop = 0;
    });
    await settled();
    await bounded();
  }
  await phone.hears("line 2");
  await bounded();
  await phone.page.keyboard.press("Escape");
  await phone.composer.focus();
  await phone.page.keyboard.press("Escape");
  await phone.hears(`line ${MANY}`);
  await bounded();
  for (const person of [pia, ralf, phone]) await person.context.close();
});

test("on a phone a conversation opens at its end, and no time stands on the words of any direction", async () => {
  const sara = await world.person("sara");
  const tom = await world.person("tom", { viewport: { width: 390, height: 844 }, hasTouch: true });
  await sara.opensChatWith(tom);
  const { chatId } = sara;
  await sara.saysMany(
    chatId,
    Array.from({ length: 60 }, (_, i) => `line ${i + 1} ${"and a few more words ".repeat(i % 5)}`),
  );
  const hebrew = "\u05e9\u05dc\u05d5\u05dd";
  const texts = [hebrew, `${hebrew} `.repeat(12).trim(), "short", "```\ncode\n```"];
  await sara.saysMany(chatId, texts);
  for (let n_words = 1; n_words < 12; n_words++) await tom.saysMany(chatId, ["word ".repeat(n_words).trim()]);
  await sara.says("last");
  await sara.seesTick("last", "Delivered");
  const { body } = await sara.calls("GET", `/chats/${chatId}/messages?limit=1`);
  await tom.calls("PUT", `/messages/${body.messages[0].message_id}/status`, { status: "read" });
  await tom.seesUnread("sara", 0);
  await tom.opens("sara");
  await tom.hears("last");
  await tom.until(() => document.querySelector('[role="log"]').classList.contains("placed"));
  const rest = await tom.page
    .getByRole("log")
    .evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight);
  assert.ok(rest < 1, `${rest} px below the fold`);
  const covered = await tom.page.locator("main article").evaluateAll((rows) =>
    rows.flatMap((row) => {
      const time = row.querySelector("time").getBoundingClientRect();
      const words = document.createTreeWalker(row.querySelector(".body"), NodeFilter.SHOW_TEXT);
      const boxes = [];
      while (words.nextNode()) {
        const range = document.createRange();
        range.selectNodeContents(words.currentNode);
        boxes.push(...range.getClientRects());
      }
      const on = boxes.some(
        (box) =>
          box.width > 0 &&
          box.left < time.right &&
          box.right > time.left &&
          box.top < time.bottom &&
          box.bottom > time.top,
      );
      return on ? [row.textContent] : [];
    }),
  );
  assert.deepEqual(covered, []);
  const lonely = await tom.page
    .getByRole("log")
    .evaluate(
      (log) =>
        [...log.querySelectorAll(".day, article")].filter(
          (one, i, all) => one.matches(".day") && !all[i + 1]?.matches("article"),
        ).length,
    );
  assert.equal(lonely, 0, "a day line without anything under it");
  await tom.goesOffline();
  await tom.says("kept");
  await tom.seesSubtitle("Offline, 1 message waiting");
  const cut = await tom.subtitle.evaluate((line) =>
    [line, ...line.querySelectorAll("*")].some(
      (one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0,
    ),
  );
  assert.equal(cut, false, "what the connection says is there whole");
  for (const person of [sara, tom]) await person.context.close();
});
