// Turns what the SDK throws into a sentence for people. Forms look at `field` and `code` first.
import { NetworkError, ProblemError } from "@parlor/sdk";
import { t } from "../i18n";
import { clockTime } from "../i18n/dates";

export function explain(error: unknown): string {
  if (error instanceof NetworkError) return t("problem.offline");
  if (!(error instanceof ProblemError)) return t("problem.other");
  if (error.status === 429) {
    return error.retryAfterMs !== null && error.retryAfterMs >= 60_000
      ? t("problem.tooMany", { time: clockTime(Date.now() + error.retryAfterMs) })
      : t("problem.tooManySoon");
  }
  switch (error.code) {
    case "bad_credentials":
      return t("door.wrong");
    case "registration_closed":
      return t("door.closed");
    case "username_taken":
      return t("door.taken");
    case "email_taken":
      return t("door.emailTaken");
    case "weak_password":
      return t("door.weak");
    case "last_owner":
      return t("details.lastOwner");
    case "too_large":
      return t("problem.tooLong");
    case "forbidden":
      return t("problem.forbidden");
    case "not_found":
      return t("problem.gone");
    case "unavailable":
      return t("problem.restarting");
  }
  // The server names the value it refuses in plain words; better than none.
  if (error.status === 422) return error.detail ? sentence(error.detail) : t("problem.invalid");
  return t("problem.other");
}

export const fieldOf = (error: unknown): string | null =>
  error instanceof ProblemError
    ? (error.field ??
      { username_taken: "username", email_taken: "email", weak_password: "password" }[error.code] ??
      null)
    : null;

export const codeOf = (error: unknown): string | null => (error instanceof ProblemError ? error.code : null);

function sentence(detail: string): string {
  const text = detail.charAt(0).toLocaleUpperCase() + detail.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
