// No barriers: axe finds nothing, on every place of the app, in each width and theme.
import { after, before, test } from "node:test";
import { World } from "./world.mjs";

let world;
before(async () => {
  world = await World.start();
});
after(async () => {
  await world.end();
});

const widths = { wide: [1440, 900], tablet: [834, 1112], phone: [390, 844] };

/** Walks through the app, and stops everywhere to look. */
async function walk(size, colorScheme) {
  const [width, height] = widths[size];
  const options = { viewport: { width, height }, colorScheme };
  const suffix = `${size}-${colorScheme}`;
  const visitor = await world.browserOf(`visitor-${suffix}`, options);
  await visitor.page.locator("input[name=login]").waitFor();
  await visitor.hasNoBarriers("signing in");
  await visitor.knocks();
  await visitor.page.getByText("That name and password do not match.").waitFor();
  await visitor.hasNoBarriers("signing in with a wrong password");
  await visitor.page.getByRole("button", { name: "Create an account" }).click();
  await visitor.page.locator("input[name=username]").waitFor();
  await visitor.hasNoBarriers("signing up");
  await visitor.context.close();

  const lea = await world.person(`lea-${suffix}`, options);
  const max = await world.person(`max-${suffix}`);
  await lea.hasNoBarriers("the first page");
  await lea.page.getByRole("button", { name: "New chat" }).first().click();
  await lea.page.locator("dialog[open] input[type=text]").first().waitFor();
  await lea.hasNoBarriers("a new chat");
  await lea.page.getByRole("radio", { name: "Group", exact: true }).check();
  await lea.hasNoBarriers("a new group");
  await lea.page.keyboard.press("Escape");
  await lea.opensChatWith(max);
  await lea.says("Hello");
  await lea.seesTick("Hello", "Delivered");
  await max.opens(lea.name);
  await max.says("Hello back");
  await max.says("\u05e9\u05dc\u05d5\u05dd, and **that** is `code`");
  await lea.hears("Hello back");
  await lea.hasNoBarriers("a conversation");
  await lea.page.locator("main header .who").click();
  await lea.page.getByRole("heading", { name: "Details" }).waitFor();
  await lea.hasNoBarriers("the details of a person");
  await lea.page.goto(lea.addressOf(null));
  await lea.makesGroup("Choir", [max]);
  await lea.page.locator("main header .who").click();
  await lea.page.getByRole("heading", { name: "Details" }).waitFor();
  await lea.page.getByRole("heading", { name: "People, 2" }).waitFor();
  await lea.hasNoBarriers("the details of a group");
  await lea.goesToSettings("you");
  await lea.page.getByText("This device", { exact: true }).waitFor();
  await lea.hasNoBarriers("the settings");
  await lea.page.getByRole("button", { name: "Change password" }).click();
  await lea.hasNoBarriers("changing the password");
  for (const person of [lea, max]) await person.context.close();
}

test("there are no barriers on a wide screen, light", () => walk("wide", "light"));
test("there are no barriers on a wide screen, dark", () => walk("wide", "dark"));
test("there are no barriers on a tablet, light", () => walk("tablet", "light"));
test("there are no barriers on a tablet, dark", () => walk("tablet", "dark"));
test("there are no barriers on a phone, light", () => walk("phone", "light"));
test("there are no barriers on a phone, dark", () => walk("phone", "dark"));
