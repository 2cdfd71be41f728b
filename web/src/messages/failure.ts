// Why a message was not sent, in words that say what is safe and what to do.
import type { SendFailure } from "@parlor/sdk";
import { t } from "../i18n";

export function failureText(failure: SendFailure | null): string {
  switch (failure?.code) {
    case "not_found":
      return t("message.notSent.gone");
    case "forbidden":
      return t("message.notSent.forbidden");
    case "too_large":
      return t("message.notSent.tooLong");
    case "not_stored":
      return t("message.notSent.stored");
    default:
      return t("message.notSent.other");
  }
}
