// Journeys of an account: from the first sign-up to its deletion.
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

const WRONG = "That name and password do not match.";

test("an account is made, left, entered again, given another password, and deleted", async () => {
  const ann = await world.person("ann");
  const ben = await world.person("ben");
  await ann.opensChatWith(ben);
  await ann.says("remember me");
  await ann.seesTick("remember me", "Delivered");

  await ann.goesToSettings("account");
  await ann.page.getByRole("button", { name: "Sign out on this device" }).click();
  await ann.page.getByRole("alertdialog").getByRole("button", { name: "Sign out" }).click();
  await ann.page.locator("input[name=login]").waitFor();
  assert.equal((await ann.calls("GET", "/users/me")).status, 401);
  await ann.page.reload();
  await ann.page.locator("input[name=login]").waitFor();
  assert.deepEqual(await ann.databases(), [], "nothing of the account stays in the browser");

  ann.password = "not the password";
  await ann.knocks();
  await ann.page.getByText(WRONG).waitFor();
  ann.password = "correct horse battery";
  await ann.signsIn();
  await ann.rowOf("ben").getByText("remember me").waitFor();

  const phone = await world.otherDevice(ann);
  await ann.goesToSettings("account");
  await ann.changesPassword("not the password", "another long sentence");
  await ann.page.getByText("That is not your present password.").waitFor();
  await ann.page.getByLabel("Present password").fill(ann.password);
  await ann.page.getByLabel("New password").fill("password1");
  await ann.page.getByRole("button", { name: "Change password" }).click();
  await ann.page.getByText("This password is easy to guess.").waitFor();
  await ann.page.getByLabel("New password").fill("another long sentence");
  await ann.page.getByRole("button", { name: "Change password" }).click();
  await ann.page.getByText("Password changed. All other devices were signed out.").waitFor();
  await phone.page.getByRole("main").getByText("This device was signed out.").waitFor();
  await phone.knocks();
  await phone.page.getByText(WRONG).waitFor();
  phone.password = ann.password = "another long sentence";
  await phone.signsIn();
  assert.equal((await ann.calls("GET", "/users/me")).status, 200, "the device that changed it stays");

  await ann.page.getByRole("button", { name: "Delete account" }).click();
  const asked = ann.page.locator("dialog[open]");
  await asked.getByLabel("Your password", { exact: true }).fill("not the password");
  await asked.getByRole("button", { name: "Delete account" }).click();
  await asked.getByText("That is not your present password.").waitFor();
  await asked.getByLabel("Your password", { exact: true }).fill(ann.password);
  await asked.getByRole("button", { name: "Delete account" }).click();
  await ann.page.locator("input[name=login]").waitFor();
  await phone.page.getByRole("main").getByText("This device was signed out.").waitFor();
  await ann.knocks();
  await ann.page.getByText(WRONG).waitFor();
  for (const person of [ann, ben, phone]) await person.context.close();
});
