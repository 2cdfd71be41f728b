// When each chat was last looked at in this page: "3 new since 09:05". Memory only; a reload forgets it.
const looks = new Map<string, number>();

export function lastLook(chatId: string): string | null {
  const at = looks.get(chatId);
  return at === undefined ? null : new Date(at).toISOString();
}

export function looked(chatId: string): void {
  looks.set(chatId, Date.now());
}
