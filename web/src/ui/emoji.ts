// The small set of emoji that is always at hand. The full picker with names comes as data, on demand, later.
export const quickReactions = ["👍", "❤️", "😂", "🎉", "😮", "🙏"] as const;

export const emojis = [
  "😀", "😄", "😂", "🙂", "😉", "😊", "😍", "😎",
  "🤔", "😮", "😬", "😢", "😭", "😡", "😴", "🤒",
  "👍", "👎", "👏", "🙏", "👋", "👌", "💪", "🤝",
  "❤️", "💔", "🎉", "🔥", "⭐", "✅", "❌", "❓",
  "👀", "💡", "📌", "📅", "☕", "🍕", "🎂", "🌧️",
] as const;
