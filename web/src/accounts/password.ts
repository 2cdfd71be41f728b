// Changing the password is shown only where the client can do it.
export interface CanChangePassword {
  changePassword(request: { current: string; new: string }): Promise<unknown>;
}

export function canChangePassword(accounts: object): accounts is CanChangePassword {
  return "changePassword" in accounts && typeof accounts.changePassword === "function";
}
