// Times as people write them, all through Intl. Pure functions of (time, now), so that they can be tested.
import { locale, t } from "./index";

type Moment = string | number | Date;
type HourCycle = "h11" | "h12" | "h23" | "h24";

const own = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions() as {
  hourCycle?: HourCycle;
};
const hours = own.hourCycle ? { hourCycle: own.hourCycle } : {};

const formats = {
  time: new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", ...hours }),
  weekday: new Intl.DateTimeFormat(locale, { weekday: "short" }),
  day: new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" }),
  dayYear: new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", year: "numeric" }),
  long: new Intl.DateTimeFormat(locale, { weekday: "long", day: "numeric", month: "long" }),
  longYear: new Intl.DateTimeFormat(locale, {
    weekday: "long",
    day: "numeric",
    month: "long",
    year: "numeric",
  }),
  exact: new Intl.DateTimeFormat(locale, {
    weekday: "long",
    day: "numeric",
    month: "long",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    timeZoneName: "short",
    ...hours,
  }),
};
const relative = new Intl.RelativeTimeFormat(locale, { numeric: "always" });

/** 09:16 */
export const clockTime = (at: Moment): string => formats.time.format(new Date(at));

/** The moment in full, with zone. */
export const exactTime = (at: Moment): string => formats.exact.format(new Date(at));

export const sameDay = (a: Moment, b: Moment): boolean => dayNumber(a) === dayNumber(b);

/** Whole days since some fixed day, in the zone of the person: differences survive changes of the clock. */
export function dayNumber(at: Moment): number {
  const date = new Date(at);
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000);
}

/** In lists: today 09:16, this week Mon, this year 18 Nov, else 18 Nov 2025. */
export function listTime(at: Moment, now: Moment): string {
  const date = new Date(at);
  const days = dayNumber(now) - dayNumber(at);
  if (days <= 0) return formats.time.format(date);
  if (days < 7) return formats.weekday.format(date);
  return date.getFullYear() === new Date(now).getFullYear()
    ? formats.day.format(date)
    : formats.dayYear.format(date);
}

/** Day lines: "Monday 23 November", with Today and Yesterday before it. */
export function dayLine(at: Moment, now: Moment): string {
  const date = new Date(at);
  const sameYear = date.getFullYear() === new Date(now).getFullYear();
  const day = (sameYear ? formats.long : formats.longYear).format(date);
  const days = dayNumber(now) - dayNumber(at);
  if (days === 0) return t("day.today", { day });
  if (days === 1) return t("day.yesterday", { day });
  return day;
}

/** Time of day if it was today, else day and time: for edited, read, last used. */
export function shortMoment(at: Moment, now: Moment): string {
  return sameDay(at, now) ? clockTime(at) : `${listDay(at, now)}, ${clockTime(at)}`;
}

function listDay(at: Moment, now: Moment): string {
  const sameYear = new Date(at).getFullYear() === new Date(now).getFullYear();
  return (sameYear ? formats.day : formats.dayYear).format(new Date(at));
}

/** "Last seen 5 minutes ago", then "yesterday at 21:14", and the date once that says more. */
export function lastSeen(at: Moment, now: Moment): string {
  const seconds = Math.max(0, (Number(new Date(now)) - Number(new Date(at))) / 1000);
  if (seconds < 60) return t("presence.lastSeenNow");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return t("presence.lastSeen", { ago: relative.format(-minutes, "minute") });
  const n_hours = Math.floor(minutes / 60);
  const days = dayNumber(now) - dayNumber(at);
  // In the small hours "3 hours ago" says more than "yesterday".
  if (days === 0 || n_hours < 12) return t("presence.lastSeen", { ago: relative.format(-n_hours, "hour") });
  if (days === 1) return t("presence.lastSeenYesterday", { time: clockTime(at) });
  if (days < 7) return t("presence.lastSeen", { ago: relative.format(-days, "day") });
  return t("presence.lastSeenAt", { time: listDay(at, now) });
}
