import type { Client, ClientOptions } from "./index";

export function createClient(options: ClientOptions): Client {
  throw new Error(`not wired yet: ${options.server}`);
}
