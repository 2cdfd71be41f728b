import { chromium } from "playwright-core";
const b = await chromium.launch({
  executablePath: "/usr/bin/chromium",
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
const errs = [];
const pages = {};
const R = Math.floor(Math.random() * 1e5)
  .toString(36)
  .replace(/[0-9]/g, "x");
const BEN = "benjamin" + R;
async function signup(n) {
  const c = await b.newContext({ viewport: { width: 1280, height: 800 } });
  const p = await c.newPage();
  pages[n] = p;
  p.setDefaultTimeout(6000);
  p.on("console", (m) => {
    if (m.type() === "error") errs.push(n + ": " + m.text());
  });
  p.on("pageerror", (e) => errs.push(n + " page: " + e.message));
  await p.goto("http://127.0.0.1:18082/");
  await p.getByRole("button", { name: "Create an account" }).click();
  await p.waitForTimeout(400);
  console.log((await p.locator("input").evaluateAll((x) => x.map((e) => e.name + ":" + e.type))).join(" "));
  for (const [k, v] of Object.entries({
    username: n,
    email: n + "@example.org",
    password: "correct horse battery",
  })) {
    const l = p.locator(`input[name=${k}]`);
    if (await l.count()) await l.fill(v);
  }
  await p.locator("button[type=submit]").click();
  await p.waitForTimeout(2000);
  return p;
}
try {
  const a = await signup("annabel" + R);
  await a.screenshot({ path: "/tmp/s2.png" });
  const ben = await signup(BEN);

  const stamp = Date.now();
  await a.getByRole("button", { name: "New chat" }).first().click();
  await a.waitForTimeout(500);
  console.log(
    "DLG",
    await a
      .locator("dialog[open]")
      .innerText()
      .catch(() => "none"),
  );
  console.log(
    (
      await a
        .locator("dialog[open] input, dialog[open] button")
        .evaluateAll((x) =>
          x.map(
            (e) =>
              e.tagName + " " + (e.name || "") + " " + (e.innerText || e.getAttribute("aria-label") || ""),
          ),
        )
    ).join("\n"),
  );
  const f = a.locator("dialog[open] input:not([type=radio])").first();
  await f.fill(BEN);
  await f.press("Enter");
  await a.waitForTimeout(900);
  await a.screenshot({ path: "/tmp/s3.png" });
  console.log(
    "DLG2",
    await a
      .locator("dialog[open]")
      .innerText()
      .catch(() => "none"),
  );
  const start = a
    .locator("dialog[open] button")
    .filter({ hasText: /write|start|chat|message/i })
    .first();
  if (await start.count()) {
    await start.click();
    await a.waitForTimeout(1200);
  }
  console.log("URL", a.url());
  const c = a.locator("textarea").first();
  await c.fill("Hello Ben");
  await c.press("Enter");
  await ben.getByText("Hello Ben").first().waitFor();
  console.log("BEN SEES IT");
  await ben.getByText("Hello Ben").first().click();
  await ben.waitForTimeout(1500);
  await a.waitForTimeout(500);
  await a.screenshot({ path: "/tmp/s4.png" });
  await ben.screenshot({ path: "/tmp/s5.png" });
  console.log("ANN:", (await a.locator("main").innerText()).slice(-300));
} catch (e) {
  console.log(String(e).slice(0, 500));
}
console.log(errs.slice(0, 10).join("\n"));
for (const n in pages) await pages[n].screenshot({ path: `/tmp/s-${n}.png` });
await b.close();
