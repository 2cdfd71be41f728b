// Journeys of receipts: what counts as delivered, what as read, and how much is unread.
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

test("what waited comes with the first sync after a fresh sign-in, and only then is it delivered", async () => {
  const ann = await world.person("ann");
  const ben = await world.person("ben");
  await ann.opensChatWith(ben);
  await ann.says("one");
  await ann.seesTick("one", "Delivered");
  await ben.context.close();
  await ann.seesSubtitle("Last seen");
  const sent = await ann.saysAndIsAcked("waiting for you");
  await ann.seesTick("waiting for you", "Sent");
  assert.equal((await ann.calls("GET", `/messages/${sent}/status`)).body.status, "sent");

  let traffic;
  const phone = await world.otherDevice(ben, (fresh) => {
    traffic = fresh.watchTraffic();
  });
  await phone.rowOf("ann").getByText("waiting for you").waitFor();
  await phone.seesUnread("ann", 2);
  await ann.seesTick("waiting for you", "Delivered");
  assert.equal((await ann.calls("GET", `/messages/${sent}/status`)).body.status, "delivered");
  const kinds = traffic.received.map((frame) => frame.t);
  const came = traffic.received.findIndex((frame) => frame.message?.message_id === sent);
  assert.equal(kinds[0], "welcome");
  assert.ok(came > 0, "the message came by the first sync of the socket");
  assert.deepEqual(
    traffic.requests.filter((request) => request.endsWith("/messages")),
    [],
    "and not by asking for history",
  );
  for (const person of [ann, phone]) await person.context.close();
});

test("unread falls to nothing when it was read, and stays so after a reload and on a second device", async () => {
  const cleo = await world.person("cleo");
  const dan = await world.person("dan");
  const eva = await world.person("eva");
  await cleo.opensChatWith(dan);
  await eva.opensChatWith(dan);
  for (const text of ["one", "two", "three"]) await cleo.says(text);
  await eva.says("from eva");
  await dan.seesUnread("cleo", 3);
  await dan.seesUnread("eva", 1);
  await dan.until(() => document.title.startsWith("(4)"));
  await dan.page.reload();
  await dan.seesUnread("cleo", 3);
  await dan.seesUnread("eva", 1);
  await dan.opens("cleo");
  await dan.seesUnread("cleo", 0);
  await dan.seesUnread("eva", 1);
  await cleo.seesTick("three", "Read");
  await dan.page.goto(dan.addressOf(null));
  await dan.page.reload();
  await dan.seesUnread("eva", 1);
  await dan.seesUnread("cleo", 0);
  await dan.until(() => document.title.startsWith("(1)"));
  const phone = await world.otherDevice(dan);
  await phone.seesUnread("eva", 1);
  await phone.seesUnread("cleo", 0);
  // Reading on one device clears the other.
  await phone.opens("eva");
  await phone.seesUnread("eva", 0);
  await dan.seesUnread("eva", 0);
  for (const person of [cleo, dan, eva, phone]) await person.context.close();
});

test("a message is not read while another chat is open, and is once its own is shown", async () => {
  const finn = await world.person("finn");
  const gus = await world.person("gus");
  const hana = await world.person("hana");
  await finn.opensChatWith(gus);
  await finn.says("first");
  await hana.opensChatWith(gus);
  await hana.says("hello");
  await gus.opens("hana");
  await gus.hears("hello");
  await finn.says("second");
  await gus.seesUnread("finn", 2);
  // A whole exchange in the open chat passes, and the other one is still unread.
  await gus.says("hello hana");
  await hana.hears("hello hana");
  await gus.seesTick("hello hana", "Read");
  await finn.seesTick("second", "Delivered");
  await gus.seesUnread("finn", 2);
  await gus.opens("finn");
  await finn.seesTick("second", "Read");
  await gus.seesUnread("finn", 0);
  for (const person of [finn, gus, hana]) await person.context.close();
});

test("a message is not read while its tab is behind another one, and is once it has the focus", async () => {
  const ivo = await world.person("ivo");
  const jo = await world.person("jo");
  await ivo.opensChatWith(jo);
  await ivo.says("first");
  const traffic = jo.watchTraffic();
  await jo.page.reload();
  await jo.opens("ivo");
  await ivo.seesTick("first", "Read");
  await jo.looksAway();
  const visible = () => traffic.sent.filter((frame) => frame.t === "focus").at(-1)?.visible;
  assert.equal(visible(), false, "the server is told that nobody looks");
  await ivo.says("second");
  await jo.hears("second");
  await ivo.seesTick("second", "Delivered");
  await jo.seesUnread("ivo", 1);
  await ivo.says("third");
  await jo.hears("third");
  await ivo.seesTick("third", "Delivered");
  await jo.seesUnread("ivo", 2);
  const read = () => traffic.sent.filter((frame) => frame.t === "receipt" && frame.status === "read");
  const before = read().length;
  await jo.looksBack();
  await ivo.seesTick("third", "Read");
  await jo.seesUnread("ivo", 0);
  assert.equal(visible(), true);
  assert.ok(read().length > before);
  for (const person of [ivo, jo]) await person.context.close();
});

test("reading in one tab clears the other, and what one tab sends the other shows", async () => {
  const kim = await world.person("kim");
  const lea = await world.person("lea");
  await kim.opensChatWith(lea);
  await kim.says("for both tabs");
  const tab = await lea.otherTab();
  for (const one of [lea, tab]) await one.seesUnread("kim", 1);
  await lea.opens("kim");
  await lea.hears("for both tabs");
  await tab.seesUnread("kim", 0);
  await tab.opens("kim");
  await tab.says("from the second tab");
  await lea.hears("from the second tab");
  await lea.says("from the first tab");
  await tab.hears("from the first tab");
  await kim.says("once more");
  for (const one of [lea, tab]) await one.hears("once more");
  const all = ["for both tabs", "from the second tab", "from the first tab", "once more"];
  for (const one of [kim, lea, tab]) assert.deepEqual(await one.sees(), all);
  // Either tab may go; the other one stays connected.
  await lea.page.close();
  await kim.says("and now");
  await tab.hears("and now");
  await kim.seesSubtitle("Online");
  for (const person of [kim, tab]) await person.context.close();
});
