// Makes the real client. `npm run dev:fake` swaps this file for dev/fake.ts.
import { type Client, createClient } from "@parlor/sdk";
import { deviceName } from "../devices/name";

export function makeClient(): Client {
  return createClient({
    // The folder of the page, so that a path prefix of a proxy is kept.
    server: new URL(".", document.baseURI).href.replace(/\/$/, ""),
    auth: "cookie",
    deviceName: deviceName(navigator.userAgent),
  });
}
