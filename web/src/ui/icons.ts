// The names of the sprite; Sprite.svelte holds the drawings.
export type IconName =
  | "search" | "compose" | "plus" | "smile" | "react" | "send" | "close" | "back" | "down" | "arrow-down"
  | "more" | "reply" | "people" | "person" | "person-plus" | "mark" | "gear" | "check" | "warn" | "cloud"
  | "key" | "eye" | "eye-off" | "clock" | "moon" | "sun" | "pencil" | "out" | "shield" | "copy" | "trash"
  | "keyboard" | "device" | "info";
