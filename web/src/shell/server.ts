// How this server is called. Until it can tell its own name, the address stands for it.
import { t } from "../i18n";

/** The address without scheme, as people would type it. */
export const serverHost = (): string => location.host;

export function serverName(): string {
  const { hostname } = location;
  const onlyNumbers = /^[\d.]+$|^\[/.test(hostname) || hostname === "localhost";
  return onlyNumbers ? t("app") : hostname;
}
