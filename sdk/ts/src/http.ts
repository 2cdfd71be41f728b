// The one place that speaks HTTP: builds the request, reads the answer, and turns refusals into one error.
//
// No retries here: a GET is retried by whoever wants the answer, a POST by whoever holds its key.

import type { ResponseLike, Runtime } from "./runtime";

/** The server refused (RFC 9457). The request had no effect, except for status 500 and above. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  readonly status: number;
  /** Stable, snake_case: `not_found`, `forbidden`, `invalid`, `rate_limited`, … */
  readonly code: string;
  /** One sentence for a developer. */
  readonly detail: string;
  /** The field to blame, if one is. */
  readonly field: string | null;
  /** How long to wait before trying again, in milliseconds; null if the server did not say. */
  readonly retryAfterMs: number | null;

  constructor(problem: {
    status: number;
    code: string;
    detail: string;
    field?: string | null;
    retryAfterMs?: number | null;
  }) {
    super(`${problem.code}: ${problem.detail}`);
    this.status = problem.status;
    this.code = problem.code;
    this.detail = problem.detail;
    this.field = problem.field ?? null;
    this.retryAfterMs = problem.retryAfterMs ?? null;
  }
}

/** No answer came: offline, cut or timed out. Whether the server acted is unknown. */
export class NetworkError extends Error {
  override readonly name = "NetworkError";
}

export type Query = Record<string, string | number | null | undefined>;

export interface Call {
  query?: Query;
  body?: unknown;
  idempotencyKey?: string;
  /** Default 30,000. */
  timeoutMs?: number;
  /** Sent without the token: it is about to be replaced. */
  anonymous?: boolean;
  /** A 401 of this call says "wrong password" or "nobody yet", not "session lost". */
  keepsSession?: boolean;
}

export interface HttpOptions {
  server: string;
  runtime: Runtime;
  /** null in cookie mode. */
  token: () => string | null;
  cookie: boolean;
  onSessionLost: () => void;
}

const TIMEOUT_MS = 30_000;

export class Http {
  readonly #base: string;

  constructor(private readonly options: HttpOptions) {
    this.#base = options.server.replace(/\/+$/, "");
  }

  get<T>(path: string, query?: Query): Promise<T> {
    return this.call("GET", path, query ? { query } : {});
  }

  /** Calls `/api/v1` + `path`. Resolves with the decoded body, `null` if there is none. */
  async call<T>(method: string, path: string, call: Call = {}): Promise<T> {
    const { runtime } = this.options;
    const headers: Record<string, string> = { accept: "application/json" };
    if (this.options.cookie) {
      // Without this header the server refuses every change that only a cookie vouches for (CSRF).
      headers["x-parlor-client"] = "web";
    } else {
      const token = this.options.token();
      if (token !== null && !call.anonymous) headers.authorization = `Bearer ${token}`;
    }
    if (call.idempotencyKey !== undefined) headers["idempotency-key"] = call.idempotencyKey;
    if (call.body !== undefined) headers["content-type"] = "application/json";

    const abort = new AbortController();
    const timer = runtime.setTimeout(() => abort.abort(), call.timeoutMs ?? TIMEOUT_MS);
    let response: ResponseLike;
    let text: string;
    try {
      response = await runtime.fetch(`${this.#base}/api/v1${path}${queryString(call.query)}`, {
        method,
        headers,
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
        credentials: this.options.cookie ? "same-origin" : "omit",
        signal: abort.signal,
      });
      text = await response.text();
    } catch (cause) {
      throw new NetworkError(`no answer from the server to ${method} ${path}`, { cause });
    } finally {
      runtime.clearTimeout(timer);
    }

    if (response.status >= 200 && response.status < 300) {
      if (text === "") return null as T;
      try {
        return JSON.parse(text) as T;
      } catch (cause) {
        // A proxy's sign-in page, for example: it is no answer of the server.
        throw new NetworkError(`the answer to ${method} ${path} is not JSON`, { cause });
      }
    }
    const problem = readProblem(response, text);
    if (response.status === 401 && !call.keepsSession) this.options.onSessionLost();
    throw problem;
  }
}

/** Reads a refusal; a body that is no problem document (a proxy's page) still gives a usable error. */
export function readProblem(response: ResponseLike, text: string): ProblemError {
  let body: Record<string, unknown> = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) body = parsed as Record<string, unknown>;
  } catch {
    // The status still speaks.
  }
  const header = Number(response.headers.get("retry-after") ?? Number.NaN);
  const seconds = typeof body.retry_after === "number" ? body.retry_after : header;
  return new ProblemError({
    status: response.status,
    code: typeof body.code === "string" ? body.code : codeOf(response.status),
    detail:
      typeof body.detail === "string"
        ? body.detail
        : typeof body.title === "string"
          ? body.title
          : `the server answered ${response.status}`,
    field: typeof body.field === "string" ? body.field : null,
    retryAfterMs: Number.isFinite(seconds) && seconds >= 0 ? Math.round(seconds * 1000) : null,
  });
}

function codeOf(status: number): string {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "forbidden";
  if (status === 404) return "not_found";
  if (status === 409) return "conflict";
  if (status === 413) return "too_large";
  if (status === 422) return "invalid";
  if (status === 429) return "rate_limited";
  if (status === 502 || status === 503 || status === 504) return "unavailable";
  return status >= 500 ? "internal" : "bad_request";
}

/** May the same request succeed when it is sent again unchanged? */
export function mayRetry(error: unknown): boolean {
  if (error instanceof NetworkError) return true;
  if (error instanceof ProblemError) return error.status === 429 || error.status >= 500;
  return false;
}

function queryString(query: Query | undefined): string {
  if (query === undefined) return "";
  const pairs = Object.entries(query)
    .filter((pair): pair is [string, string | number] => pair[1] !== null && pair[1] !== undefined)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
}

/** A path from typed parts: each value is encoded, so that no id or emoji can reach another route. */
export function path(strings: TemplateStringsArray, ...values: string[]): string {
  return strings.reduce(
    (whole, part, i) => whole + part + (i < values.length ? segment(values[i] ?? "") : ""),
    "",
  );
}

function segment(value: string): string {
  const encoded = encodeURIComponent(value);
  // `.` and `..` survive encoding but would be resolved away as path segments.
  return encoded === "." || encoded === ".." || encoded === "" ? "%00" : encoded;
}
