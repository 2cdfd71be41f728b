// The life of the socket as named states: offline, connecting, resuming, live, closed.
//
// Here: tickets, hello, heartbeat, back-off, and what each close code means. Frames are read and handed on;
// what they mean is sync.ts, outbox.ts and presence.ts. Nothing here is stored.

import { Cell } from "./cell";
import { type Http, NetworkError, ProblemError } from "./http";
import type { ClosedReason, ConnectionState } from "./index";
import type { Runtime, SocketLike, Timer } from "./runtime";
import { readFrames, type ServerFrame, type WireTicket } from "./wire";

/** Full jitter: each wait is uniform in [0, min(cap, base · 2^n)]. */
const BACKOFF_BASE_MS = 1_000;
const BACKOFF_CAP_MS = 60_000;
/** Only a connection that held this long proves that the server has room again (promises, the reconnect rule). */
const HEALTHY_MS = 60_000;
/** From the attempt to `welcome`. */
const GREETING_MS = 20_000;
const DEFAULT_HEARTBEAT_MS = 15_000;

/** Codes after which coming back would not help; every other code means: come back with back-off. */
const FINAL_CODES: ReadonlyMap<number, ClosedReason> = new Map([
  [1003, "unsupported_data"],
  [1007, "invalid_payload"],
  [1009, "too_big"],
  [4001, "not_hello"],
  [4002, "unsupported_version"],
  [4003, "bad_credentials"],
  [4005, "session_revoked"],
  [4006, "too_many_connections"],
]);
const DRAINING = 4008;
/** Timers beyond 2^31 ms fire at once; a day is long enough for any delay. */
const LONGEST_TIMER_MS = 86_400_000;

/** Frames in one array; the smallest batch limit that a server is likely to set. */
const BATCH = 50;

export interface ClientFrame {
  readonly t: string;
  readonly [field: string]: unknown;
}

type TimerName = "retry" | "greeting" | "heartbeat" | "healthy";

export type Welcome = Extract<ServerFrame, { t: "welcome" }>;

export interface ConnectionOptions {
  server: string;
  runtime: Runtime;
  http: Http;
  /** Token mode gives the token; cookie mode gives null and a ticket is fetched for each attempt. */
  token: () => string | null;
  cookie: boolean;
  deviceName: string | undefined;
  /** The resume position, read anew for each attempt. */
  cursor: () => Promise<string | null>;
  onWelcome: (welcome: Welcome) => void;
  /** What came in one message, in order; never a `welcome`, `pong` or `reconnect`. */
  onFrames: (frames: ServerFrame[]) => void;
  /** The socket is gone: nothing in flight will be answered any more. */
  onDown: () => void;
  /** The server closed with a code that says the session is no longer good. */
  onSessionRefused: (code: number) => void;
}

export class Connection {
  readonly state: Cell<ConnectionState>;

  #socket: SocketLike | null = null;
  /** Rises with each attempt, so that answers for an abandoned attempt are recognised. */
  #attempt = 0;
  #failures = 0;
  #networkUp = true;
  #running = false;
  #heartbeatMs = DEFAULT_HEARTBEAT_MS;
  #heardAtMs = 0;
  #heardCount = 0;
  #drainDelayMs: number | null = null;
  /** Since when there is no welcomed socket. */
  #downAtMs: number;
  readonly #timers = new Map<TimerName, Timer>();
  #dropped = 0;

  constructor(private readonly options: ConnectionOptions) {
    this.#downAtMs = options.runtime.now();
    this.state = new Cell<ConnectionState>(this.#offline("stopped", null));
  }

  get live(): boolean {
    return this.state.get().state === "live";
  }

  /** Frames that could not be read since the start. */
  get dropped(): number {
    return this.#dropped;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#failures = 0;
    if (this.#networkUp) void this.#connect();
    else this.#scheduleRetry("network", this.#backoff());
  }

  stop(): void {
    this.#running = false;
    this.#abandon(1000);
    this.state.set(this.#offline("stopped", null));
  }

  /** Connects at once; a person asked for it, so it also leaves `closed`. */
  connectNow(): void {
    if (!this.#running) return;
    const { state } = this.state.get();
    if (state === "live" || state === "resuming" || state === "connecting") return;
    void this.#connect();
  }

  networkChanged(up: boolean): void {
    if (up === this.#networkUp) return;
    this.#networkUp = up;
    if (!this.#running || this.state.get().state === "closed") return;
    if (up) {
      if (this.state.get().state === "offline") void this.#connect();
      return;
    }
    this.#abandon(1000);
    // A browser may be wrong about the network (a server on this machine, a VPN): keep trying, slowly.
    this.#scheduleRetry("network", this.#jitter(BACKOFF_CAP_MS));
  }

  /** Hands frames to the socket, as one batch. False: there is no welcomed socket, nothing was sent. */
  send(...frames: ClientFrame[]): boolean {
    if (!this.live || this.#socket === null) return false;
    try {
      for (let i = 0; i < frames.length; i += BATCH) {
        const batch = frames.slice(i, i + BATCH);
        this.#socket.send(JSON.stringify(batch.length === 1 ? batch[0] : batch));
      }
      return true;
    } catch {
      // A socket that is already closing: its close event follows and starts the way back.
      return false;
    }
  }

  /** Closes and comes back with back-off: what was received could not be kept, so it must come again. */
  restart(): void {
    if (!this.#running || this.state.get().state === "closed") return;
    this.#lost();
  }

  setCatchingUp(catchingUp: boolean): void {
    const now = this.state.get();
    if (now.state === "live" && now.catchingUp !== catchingUp) this.state.set({ ...now, catchingUp });
  }

  async #connect(): Promise<void> {
    this.#abandon(1000);
    const attempt = this.#attempt;
    const { runtime, http } = this.options;
    this.state.set({ state: "connecting", sinceMs: this.#downAtMs });
    this.#arm("greeting", GREETING_MS, () => this.#lost());

    let hello: Record<string, unknown>;
    try {
      const cursor = await this.options.cursor();
      if (attempt !== this.#attempt) return;
      hello = { t: "hello", v: 1, ...(cursor === null ? {} : { cursor }) };
      if (this.options.cookie) {
        const body = cursor === null ? {} : { cursor };
        const answer = await http.call<WireTicket>("POST", "/ws/tickets", { body, timeoutMs: GREETING_MS });
        if (attempt !== this.#attempt) return;
        hello.ticket = answer.ticket;
      } else {
        hello.token = this.options.token();
      }
      if (this.options.deviceName !== undefined) hello.device_name = this.options.deviceName;
    } catch (error) {
      if (attempt === this.#attempt) this.#ticketRefused(error);
      return;
    }

    let socket: SocketLike;
    try {
      socket = new runtime.WebSocket(socketAddress(this.options.server));
    } catch {
      this.#lost();
      return;
    }
    this.#socket = socket;
    socket.onopen = () => {
      if (attempt !== this.#attempt) return;
      this.state.set({ state: "resuming", sinceMs: this.#downAtMs });
      try {
        socket.send(JSON.stringify(hello));
      } catch {
        this.#lost();
      }
    };
    socket.onmessage = (event) => {
      if (attempt === this.#attempt) this.#heard(event.data);
    };
    socket.onclose = (event) => {
      if (attempt === this.#attempt) this.#closed(event.code);
    };
    // An error is always followed by a close, which says more.
    socket.onerror = () => {};
  }

  #ticketRefused(error: unknown): void {
    // A 401 was already told to the session by http.ts, which stops this connection.
    if (!this.#running) return;
    const named = error instanceof ProblemError ? error.retryAfterMs : null;
    if (named !== null) {
      // The server spreads a crowd by this delay (reconnect rule 1), so it is kept as it is.
      this.#abandon(1000);
      this.#scheduleRetry("waiting", named);
      return;
    }
    if (!(error instanceof ProblemError || error instanceof NetworkError)) this.#dropped += 1;
    this.#lost();
  }

  #heard(data: unknown): void {
    const { runtime } = this.options;
    this.#heardAtMs = runtime.now();
    this.#heardCount += 1;
    const { frames, dropped } = readFrames(data);
    this.#dropped += dropped;
    let others: ServerFrame[] = [];
    const pass = () => {
      if (others.length > 0 && this.live) this.options.onFrames(others);
      others = [];
    };
    for (const frame of frames) {
      if (frame.t === "welcome") {
        pass();
        this.#welcomed(frame);
      } else if (frame.t === "reconnect") {
        this.#drainDelayMs = frame.after_ms;
      } else if (frame.t !== "pong") {
        others.push(frame);
      }
    }
    pass();
  }

  #welcomed(welcome: Welcome): void {
    if (this.state.get().state !== "resuming") return;
    const { runtime } = this.options;
    this.#clear("greeting");
    this.#heartbeatMs = welcome.heartbeat_ms;
    this.state.set({ state: "live", sinceMs: runtime.now(), catchingUp: false });
    this.#arm("healthy", HEALTHY_MS, () => {
      this.#failures = 0;
    });
    this.#watchSilence(false);
    this.options.onWelcome(welcome);
  }

  /** Pings after one silent heartbeat, gives up after a second: scripts do not see the protocol's own pings. */
  #watchSilence(pinged: boolean): void {
    const { runtime } = this.options;
    const armedAtMs = runtime.now();
    const since = pinged ? armedAtMs : this.#heardAtMs;
    const wait = Math.max(0, since + this.#heartbeatMs - armedAtMs);
    const heardBefore = this.#heardCount;
    this.#arm("heartbeat", wait, () => {
      if (this.#heardCount !== heardBefore) this.#watchSilence(false);
      else if (pinged) this.#lost();
      else {
        this.send({ t: "ping" });
        this.#watchSilence(true);
      }
    });
  }

  #closed(code: number): void {
    const reason = FINAL_CODES.get(code);
    if (reason !== undefined) {
      this.#abandon(null);
      this.state.set({ state: "closed", sinceMs: this.options.runtime.now(), code, reason });
      if (code === 4003 || code === 4005) this.options.onSessionRefused(code);
      return;
    }
    const drainDelayMs = this.#drainDelayMs;
    if (code === DRAINING && drainDelayMs !== null) {
      this.#abandon(null);
      this.#scheduleRetry("waiting", drainDelayMs);
      return;
    }
    this.#lost();
  }

  /** The attempt or the connection is over; the next one waits. */
  #lost(): void {
    this.#abandon(1000);
    if (!this.#running) return;
    this.#scheduleRetry(this.#networkUp ? "waiting" : "network", this.#backoff());
  }

  #backoff(): number {
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return this.#jitter(ceiling);
  }

  #jitter(ceilingMs: number): number {
    return Math.round(this.options.runtime.random() * ceilingMs);
  }

  #scheduleRetry(cause: "waiting" | "network", delayMs: number): void {
    const { runtime } = this.options;
    this.state.set(this.#offline(cause, runtime.now() + delayMs));
    this.#arm("retry", delayMs, () => {
      if (this.#running) void this.#connect();
    });
  }

  #offline(cause: "stopped" | "network" | "waiting", retryAtMs: number | null): ConnectionState {
    return { state: "offline", cause, sinceMs: this.#downAtMs, retryAtMs };
  }

  /** Forgets the attempt: its socket, timers and late answers. `closeCode` null: the socket is closed already. */
  #abandon(closeCode: number | null): void {
    this.#attempt += 1;
    if (this.live) this.#downAtMs = this.options.runtime.now();
    for (const timer of ["retry", "greeting", "heartbeat", "healthy"] as const) this.#clear(timer);
    this.#drainDelayMs = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    if (closeCode !== null) {
      try {
        socket.close(closeCode);
      } catch {
        // Not yet open or already gone: both are what is wanted.
      }
    }
    this.options.onDown();
  }

  #arm(name: TimerName, ms: number, run: () => void): void {
    this.#clear(name);
    const { runtime } = this.options;
    this.#timers.set(
      name,
      runtime.setTimeout(
        () => {
          this.#timers.delete(name);
          run();
        },
        Math.min(ms, LONGEST_TIMER_MS),
      ),
    );
  }

  #clear(name: TimerName): void {
    const timer = this.#timers.get(name);
    if (timer === undefined) return;
    this.#timers.delete(name);
    this.options.runtime.clearTimeout(timer);
  }
}

/** `https://host/prefix` → `wss://host/prefix/api/v1/ws`. */
export function socketAddress(server: string): string {
  return `${server.replace(/\/+$/, "").replace(/^http/, "ws")}/api/v1/ws`;
}
