// Devices: the sessions of the account, and ending one.
//
// The own session is opened and ended by client.ts; tickets for sockets are connection.ts.

import type { Core } from "./core";
import { path } from "./http";
import type { Device, Devices } from "./index";
import type { Page, WireDevice } from "./wire";

export class DevicesState implements Devices {
  constructor(private readonly core: Core) {}

  async list(): Promise<readonly Device[]> {
    const page = await this.core.http.get<Page<WireDevice>>("/sessions");
    return page.items.map((device) => ({
      deviceId: device.device_id,
      name: device.name,
      createdAt: device.created_at,
      lastUsedAt: device.last_used_at,
      current: device.current,
    }));
  }

  async revoke(deviceId: string): Promise<void> {
    await this.core.http.call("DELETE", path`/sessions/${deviceId}`);
  }
}
