// What the SDK needs from outside: clock, randomness, network, timers.
//
// Everything is injected so that a test can drive it, and so that the SDK never touches `window` or
// `document`. Nothing else in the SDK reads the clock, draws a random number or opens a connection.

/** The part of a WebSocket that the SDK uses; the browser's and Node's fit. */
export interface SocketLike {
  send(text: string): void;
  close(code?: number, reason?: string): void;
  onopen: (() => void) | null;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
  onerror: (() => void) | null;
}

/** The part of a `Response` that the SDK uses. */
export interface ResponseLike {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  text(): Promise<string>;
}

export interface RequestLike {
  method: string;
  headers: Record<string, string>;
  body?: string;
  credentials: "same-origin" | "include" | "omit";
  signal: AbortSignal;
}

export type Timer = { readonly timer: unique symbol };

export interface Runtime {
  /** Epoch milliseconds. */
  now(): number;
  /** Uniform in [0, 1): the jitter of the back-off. */
  random(): number;
  /** Cryptographic randomness: keys of messages. */
  randomBytes(count: number): Uint8Array;
  fetch(url: string, init: RequestLike): Promise<ResponseLike>;
  WebSocket: new (url: string) => SocketLike;
  setTimeout(run: () => void, ms: number): Timer;
  clearTimeout(timer: Timer): void;
}

export function defaultRuntime(given: Partial<Runtime> = {}): Runtime {
  const runtime: Runtime = {
    now: () => Date.now(),
    random: () => Math.random(),
    randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
    fetch: (url, init) => fetch(url, init),
    // Node 20 has no WebSocket of its own: a bot passes one in. Reading the global late keeps import free of effects.
    WebSocket: (globalThis as unknown as { WebSocket: Runtime["WebSocket"] }).WebSocket,
    setTimeout: (run, ms) => setTimeout(run, ms) as unknown as Timer,
    clearTimeout: (timer) => clearTimeout(timer as unknown as number),
  };
  return { ...runtime, ...given };
}
