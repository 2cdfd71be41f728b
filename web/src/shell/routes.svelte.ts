// Where one is, as the address says: `#/chat/ID`, `#/chat/ID/details`, `#/settings/SECTION`, else the list.
//
// A hash needs no help from the server and survives any path prefix. Each entry of the history knows how deep
// it is, so that a "back" button can use the browser's own Back instead of adding one more step.

export type Route =
  | { place: "home" }
  | { place: "chat"; chatId: string; panel: "details" | null }
  | { place: "settings"; section: string | null };

export function parseRoute(hash: string): Route {
  const parts = hash.replace(/^#\/?/, "").split("/").map(decode);
  const [place, one, two] = parts;
  if (place === "chat" && one && /^\d+$/.test(one)) {
    return { place: "chat", chatId: one, panel: two === "details" ? "details" : null };
  }
  if (place === "settings") return { place: "settings", section: one || null };
  return { place: "home" };
}

export function routeHash(route: Route): string {
  if (route.place === "chat") return `#/chat/${route.chatId}${route.panel ? `/${route.panel}` : ""}`;
  if (route.place === "settings")
    return `#/settings${route.section ? `/${encodeURIComponent(route.section)}` : ""}`;
  return "#/";
}

class Router {
  current = $state.raw<Route>({ place: "home" });

  start(): () => void {
    const read = () => {
      this.current = parseRoute(location.hash);
    };
    read();
    addEventListener("popstate", read);
    addEventListener("hashchange", read);
    return () => {
      removeEventListener("popstate", read);
      removeEventListener("hashchange", read);
    };
  }

  go(route: Route): void {
    if (routeHash(route) === routeHash(this.current)) return;
    history.pushState({ depth: this.#depth() + 1 }, "", routeHash(route));
    this.current = route;
  }

  /** Goes without a new step: for corrections, not for moves of the person. */
  replace(route: Route): void {
    history.replaceState({ depth: this.#depth() }, "", routeHash(route));
    this.current = route;
  }

  /** The browser's Back where it stays in the app, else `otherwise`. */
  back(otherwise: Route): void {
    if (this.#depth() > 0) history.back();
    else this.replace(otherwise);
  }

  #depth(): number {
    const state: unknown = history.state;
    return typeof state === "object" && state !== null && "depth" in state ? Number(state.depth) || 0 : 0;
  }
}

export const router = new Router();

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
