// An in-memory client with sample chats, to look at every place without a server. Development only:
// vite.config.ts puts it in the place of make-client.ts in the mode "fake" and refuses to build that mode.
//
// `?as=` chooses the scene: nothing (signed in), `door`, `first` (no chats), `offline`, `setup`, `lost`, `empty`.
import {
  type Chat,
  type Client,
  type ConnectionState,
  type Entry,
  type Me,
  type Member,
  type MessageEntry,
  type MessagesWindow,
  type NoticeEntry,
  type Presence,
  ProblemError,
  type Readable,
  type SessionState,
  type Ticks,
  type User,
} from "@parlor/sdk";

class Cell<T> implements Readable<T> {
  readonly #runs = new Set<(value: T) => void>();
  constructor(private value: T) {}
  get(): T {
    return this.value;
  }
  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const run of [...this.#runs]) run(value);
  }
  subscribe(run: (value: T) => void): () => void {
    const own = (value: T) => run(value);
    this.#runs.add(own);
    own(this.value);
    return () => this.#runs.delete(own);
  }
}
const lazy = <T>(make: (id: string) => T) => {
  const all = new Map<string, Cell<T>>();
  return (id: string): Cell<T> => {
    let cell = all.get(id);
    if (!cell) all.set(id, (cell = new Cell(make(id))));
    return cell;
  };
};
const after = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));
const refuse = (status: number, code: string, detail: string, field: string | null = null) =>
  new ProblemError({ status, code, detail, field });

const scene = new URLSearchParams(location.search).get("as") ?? "";
const now = Date.now();
const MIN = 60_000;
const DAY = 86_400_000;
const at = (ms: number) => new Date(ms).toISOString();
/** Today at a time of day, if that has passed; else as long ago as it would be. */
const today = (hours: number, minutes: number) => {
  const date = new Date(now);
  date.setHours(hours, minutes, 0, 0);
  return date.getTime();
};

const names = [
  "mira",
  "ben",
  "clara",
  "farid",
  "edda",
  "hugo",
  "greta",
  "dev",
  "ann",
  "jonas",
  "yusuf",
  "noor",
];
const users = new Map<string, User>(
  names.map((username, i) => [
    String(101 + i),
    {
      userId: String(101 + i),
      username,
      displayName: username === "yusuf" ? "يوسف" : username.charAt(0).toUpperCase() + username.slice(1),
      createdAt: at(now - 90 * DAY),
      deleted: false,
    },
  ]),
);
const idOf = (name: string) => String(101 + names.indexOf(name));
const meId = idOf("mira");
const rule = { who: "everyone", except: [] } as const;
const me: Me = {
  ...(users.get(meId) as User),
  email: "mira@riverside-bikes.example",
  admin: true,
  privacy: { online: rule, lastSeen: rule, receipts: { who: "contacts", except: [] } },
};

let nextId = 9000;
const freshId = () => String(++nextId);

function message(
  chatId: string,
  seq: number,
  by: string,
  text: string,
  ms: number,
  more: Partial<MessageEntry> = {},
): MessageEntry {
  const mine = by === "mira";
  return {
    kind: "message",
    key: `m${chatId}-${seq}`,
    messageId: `${chatId}${String(seq).padStart(5, "0")}`,
    clientId: null,
    chatId,
    seq,
    senderId: idOf(by),
    mine,
    type: "text",
    text,
    replyTo: null,
    attachments: [],
    createdAt: at(ms),
    editedAt: null,
    deleted: false,
    reactions: [],
    sending: mine ? "accepted" : null,
    failure: null,
    ...more,
  };
}
function notice(
  chatId: string,
  seq: number,
  event: string,
  by: string,
  who: string | null,
  ms: number,
  fields = {},
): NoticeEntry {
  return {
    kind: "notice",
    key: `n${chatId}-${seq}`,
    chatId,
    seq,
    event,
    createdAt: at(ms),
    byId: idOf(by),
    userId: who === null ? null : idOf(who),
    fields,
    fallback: null,
  };
}
const reaction = (emoji: string, ...by: string[]) => ({
  emoji,
  count: by.length,
  userIds: by.map(idOf),
  mine: by.includes("mira"),
});

// ---- the sample chats ---------------------------------------------------------------------------------------

interface Sample {
  chat: Chat;
  entries: Entry[];
  members: string[];
  ticks: Ticks;
}
const samples = new Map<string, Sample>();

function add(
  chatId: string,
  type: Chat["type"],
  title: string | null,
  members: string[],
  entries: Entry[],
  more: Partial<Chat> = {},
  cursors: Record<string, [number, number]> = {},
): void {
  const peer = type === "one_on_one" ? (members.find((name) => name !== "mira") ?? null) : null;
  const last = entries.findLast((entry): entry is MessageEntry => entry.kind === "message") ?? null;
  const headSeq = entries.reduce((head, entry) => Math.max(head, entry.seq ?? 0), 0);
  const positions = members
    .filter((name) => name !== "mira")
    .map(
      (name) =>
        [
          idOf(name),
          { deliveredSeq: cursors[name]?.[0] ?? headSeq, readSeq: cursors[name]?.[1] ?? headSeq },
        ] as const,
    );
  samples.set(chatId, {
    members,
    entries,
    ticks: {
      cursors: new Map(positions),
      deliveredSeq: Math.min(...positions.map(([, p]) => p.deliveredSeq)),
      readSeq: Math.min(...positions.map(([, p]) => p.readSeq)),
    },
    chat: {
      chatId,
      type,
      title,
      name: title ?? (peer ? (users.get(idOf(peer))?.displayName ?? null) : null),
      topic: null,
      peerId: peer ? idOf(peer) : null,
      role: "member",
      participantsCount: members.length,
      settings: {},
      createdAt: at(now - 60 * DAY),
      updatedAt: last?.createdAt ?? entries.at(-1)?.createdAt ?? at(now),
      headSeq,
      readSeq: headSeq,
      unread: 0,
      mentions: 0,
      lastMessage: last,
      draft: "",
      waiting: 0,
      failed: 0,
      ...more,
    },
  });
}

const older: Entry[] = [];
const words = [
  "The rack by the window is free again.",
  "Good, then the tandem goes there until Friday.",
  "Two people asked about the **winter check** today. I gave them the list.",
  "Who has the torque wrench?",
  "It hangs behind the door, third hook.",
  "Thanks, found it.",
  "Delivery came: chains, cables, and *finally* the long spokes.",
  "I counted 46 spokes, we ordered 48. Shall I write to them?",
  "Yes please, and ask for the invoice as well.",
  "Done.",
];
for (let i = 0; i < 140; i++) {
  const by = ["ben", "farid", "mira", "clara", "hugo"][(i * 7 + (i >> 2)) % 5] ?? "ben";
  const ms = today(16, 0) - (2 + Math.floor((140 - i) / 30)) * DAY + (i % 30) * 7 * MIN;
  older.push(message("1", i + 2, by, words[(i * 3 + 1) % words.length] ?? "", ms));
}
const crew = ["edda", "mira", "ben", "farid", "clara", "hugo", "greta", "dev", "ann", "jonas", "noor"];
const y = today(17, 50) - DAY;
add(
  "1",
  "group",
  "Workshop crew",
  crew,
  [
    notice("1", 1, "created", "edda", null, now - 60 * DAY),
    ...older,
    message("1", 150, "mira", "Who tells the owner of the green roadster that the hub is late?", y + MIN),
    message(
      "1",
      151,
      "farid",
      "Done, she is fine with it. Could we look at the dynamo while it is on the stand?",
      y + 5 * MIN,
      {
        reactions: [reaction("👍", "mira", "ben", "edda")],
      },
    ),
    notice("1", 152, "join", "edda", "noor", y + 20 * MIN, {}),
    message(
      "1",
      153,
      "ben",
      "Morning! The compressor is losing pressure again, so I switched it off.",
      today(8, 56),
      {
        reactions: [reaction("😬", "mira", "farid", "clara"), reaction("🔧", "hugo")],
      },
    ),
    message(
      "1",
      154,
      "ben",
      "What I did so far:\n\n1. drained the tank\n2. checked the valve\n3. new tape on the `G1/4` fitting\n\n```\npressure 09:00  6.2 bar\npressure 09:20  5.1 bar\n```",
      today(8, 57),
    ),
    message("1", 155, "mira", "Thanks for catching it. Is it the fitting by the door again?", today(8, 59)),
    message("1", 156, "ben", "Yes, same one. Ten minutes with new tape, I think.", today(9, 12), {
      replyTo: "100155",
    }),
    message(
      "1",
      157,
      "clara",
      "@mira could you open up on Thursday? I am at the dentist until half past ten.",
      today(9, 14),
    ),
    message(
      "1",
      158,
      "farid",
      "I can do the till until Clara is in. The rota is at https://rota.riverside-bikes.example/week/48",
      today(9, 16),
    ),
  ],
  { topic: "Stand rota, parts and repairs in progress", role: "admin", unread: 3, mentions: 1, readSeq: 155 },
  Object.fromEntries(crew.map((name, i) => [name, [158, i < 8 ? 158 : 154]])),
);
add(
  "2",
  "one_on_one",
  null,
  ["mira", "ben"],
  [
    notice("2", 1, "created", "mira", null, now - 50 * DAY),
    message("2", 2, "ben", "Are you still up for fixing the trailer hitch this afternoon?", today(8, 31)),
    message("2", 3, "mira", "Yes! I have the M8 bolts, but no washers.", today(8, 36)),
    message("2", 4, "mira", "Could you bring four?", today(8, 36) + 20_000),
    message("2", 5, "ben", "Will do. Also found the drawing.", today(8, 38)),
    message("2", 6, "mira", "See you at the stand", today(8, 41)),
    ...(scene === "offline"
      ? [
          message("2", 7, "mira", "Running ten minutes late, the bridge is up again", today(9, 20)),
          message("2", 8, "mira", "Start without me if you like", today(9, 22)),
          message("2", 0, "mira", "In the tunnel now", today(9, 24), {
            seq: null,
            messageId: null,
            clientId: "c1",
            key: "c1",
            sending: "waiting",
          }),
          message("2", 0, "mira", "And the long list of parts for the trailer, as promised", today(9, 24), {
            seq: null,
            messageId: null,
            clientId: "c2",
            key: "c2",
            sending: "failed",
            failure: { code: "forbidden", detail: "not allowed" },
          }),
        ]
      : []),
  ],
  scene === "offline" ? { waiting: 1, failed: 0 } : {},
  scene === "offline" ? { ben: [7, 6] } : {},
);
add(
  "3",
  "group",
  "Saturday ride",
  ["mira", "hugo", "ben", "greta", "ann"],
  [
    message("3", 2, "ann", "Is the ferry running?", today(8, 50)),
    message("3", 3, "hugo", "Yes, every half hour", today(9, 5)),
    message("3", 4, "hugo", "Meet 8:30 at the bridge, lights on", today(9, 11)),
  ],
  { unread: 3, readSeq: 1 },
);
add(
  "4",
  "group",
  "Trustees",
  ["mira", "ann", "edda"],
  [message("4", 2, "ann", "@mira can you sign the minutes?", now - DAY * 1.2)],
  { unread: 1, mentions: 1, readSeq: 1, role: "owner" },
);
add(
  "5",
  "one_on_one",
  null,
  ["mira", "greta"],
  [message("5", 2, "greta", "Come to dinner on Friday?", now - DAY * 1.4)],
  { draft: "I would love to, but the week after is better, if that also works for you" },
);
add(
  "6",
  "one_on_one",
  null,
  ["mira", "dev"],
  [message("6", 2, "dev", "old rack, front and back", now - DAY * 1.5)],
);
add(
  "7",
  "one_on_one",
  null,
  ["mira", "yusuf"],
  [
    message("7", 2, "yusuf", "هل وصلت قطع الغيار اليوم؟ أحتاج سلسلة من نوع KMC X8.", now - DAY * 2),
    message("7", 3, "mira", "نعم، وصلت قبل قليل.", now - DAY * 2 + MIN),
  ],
);
add(
  "8",
  "one_on_one",
  null,
  ["mira"],
  [message("8", 2, "mira", "Torque: stem 5 Nm, seat post 6 Nm", now - DAY * 3)],
);
add(
  "9",
  "group",
  "Kitchen and coffee",
  ["mira", "jonas", "noor", "ann"],
  [message("9", 2, "jonas", "Filter papers are in the cupboard", now - DAY * 6)],
);
for (let i = 0; i < 14; i++) {
  const name =
    [
      "Spring clean",
      "Insurance",
      "Newsletter",
      "Key holders",
      "Tool library",
      "Bike kitchen",
      "School visits",
    ][i % 7] ?? "";
  add(
    String(20 + i),
    "group",
    i < 7 ? name : `${name} ${2020 + i - 7}`,
    ["mira", "ben", "edda"],
    [message(String(20 + i), 2, "edda", "Let us keep this one for next year.", now - DAY * (12 + i * 9))],
  );
}
if (scene === "first") samples.clear();
if (scene === "empty") {
  samples.clear();
  add("2", "one_on_one", null, ["mira", "ben"], [notice("2", 1, "created", "mira", null, now)]);
}

// ---- the client ---------------------------------------------------------------------------------------------

export function makeClient(): Client {
  const signedOut = { door: "none", setup: "none", lost: "lost" }[scene] as "none" | "lost" | undefined;
  const session = new Cell<SessionState>({ state: "unknown" });
  const connection = new Cell<ConnectionState>({ state: "connecting", sinceMs: now });
  const meCell = new Cell<Me | null>(null);
  const list = new Cell<readonly Chat[]>([]);
  const order = new Cell<readonly string[]>([]);
  const totals = new Cell({ unread: 0, mentions: 0, unreadChats: 0 });
  const ready = new Cell(false);
  const chatCell = lazy<Chat | null>((id) => samples.get(id)?.chat ?? null);
  const ticksCell = lazy<Ticks>(
    (id) => samples.get(id)?.ticks ?? { deliveredSeq: 0, readSeq: 0, cursors: new Map() },
  );
  const typingCell = lazy<readonly string[]>((id) =>
    id === "1" && scene !== "offline" ? [idOf("clara")] : [],
  );
  const draftCell = lazy<string>((id) => samples.get(id)?.chat.draft ?? "");
  const userCell = lazy<User | null>((id) => users.get(id) ?? null);
  const presenceCell = lazy<Presence>((id) => {
    const name = names[Number(id) - 101] ?? "";
    if (["ben", "farid", "edda", "mira"].includes(name)) return { status: "online", lastSeen: null };
    if (["greta", "clara"].includes(name)) return { status: "away", lastSeen: at(now - 9 * MIN) };
    return { status: "offline", lastSeen: at(now - (Number(id) - 100) * 37 * MIN) };
  });
  const membersCell = lazy<{ state: "ready"; members: readonly Member[] }>((id) => ({
    state: "ready",
    members: (samples.get(id)?.members ?? []).map((name) => ({
      userId: idOf(name),
      user: users.get(idOf(name)) ?? null,
      role:
        id === "1" && name === "edda"
          ? "owner"
          : name === "mira"
            ? (samples.get(id)?.chat.role ?? "member")
            : "member",
      joinedAt: at(now - 40 * DAY),
      deliveredSeq: null,
      readSeq: null,
    })),
  }));
  const PAGE = 50;
  const loaded = new Map<string, number>();
  const windowCell = lazy<MessagesWindow>((id) => ({
    chatId: id,
    state: "loading",
    entries: [],
    hasOlder: false,
    hasNewer: false,
    loadingOlder: false,
    loadingNewer: false,
    problem: null,
  }));

  function redrawWindow(id: string, change: Partial<MessagesWindow> = {}) {
    const all = samples.get(id)?.entries ?? [];
    const n = loaded.get(id) ?? PAGE;
    const cell = windowCell(id);
    cell.set({
      ...cell.get(),
      state: "ready",
      entries: all.slice(-n),
      hasOlder: all.length > n,
      loadingOlder: false,
      ...change,
    });
  }
  function redrawList() {
    const chats = [...samples.values()]
      .map((one) => one.chat)
      .sort((a, b) => b.updatedAt.localeCompare(a.updatedAt));
    list.set(chats);
    const ids = chats.map((chat) => chat.chatId);
    if (ids.join() !== order.get().join()) order.set(ids);
    for (const chat of chats) chatCell(chat.chatId).set(chat);
    totals.set({
      unread: chats.reduce((sum, chat) => sum + chat.unread, 0),
      mentions: chats.reduce((sum, chat) => sum + chat.mentions, 0),
      unreadChats: chats.filter((chat) => chat.unread > 0).length,
    });
  }
  function change(id: string, patch: Partial<Chat>) {
    const sample = samples.get(id);
    if (!sample) return;
    sample.chat = { ...sample.chat, ...patch };
    redrawList();
  }
  function put(id: string, entries: Entry[]) {
    const sample = samples.get(id);
    if (!sample) return;
    sample.entries = entries;
    const last = entries.findLast((entry): entry is MessageEntry => entry.kind === "message") ?? null;
    change(id, {
      lastMessage: last,
      updatedAt: last?.createdAt ?? sample.chat.updatedAt,
      headSeq: entries.reduce((head, entry) => Math.max(head, entry.seq ?? 0), 0),
      waiting: entries.filter((entry) => entry.kind === "message" && entry.sending === "waiting").length,
    });
    redrawWindow(id);
  }
  function patchEntry(messageId: string, patch: Partial<MessageEntry>) {
    for (const [id, sample] of samples) {
      if (!sample.entries.some((entry) => entry.kind === "message" && entry.messageId === messageId))
        continue;
      put(
        id,
        sample.entries.map((entry) =>
          entry.kind === "message" && entry.messageId === messageId ? { ...entry, ...patch } : entry,
        ),
      );
    }
  }
  function find(messageId: string): MessageEntry | null {
    for (const sample of samples.values()) {
      for (const entry of sample.entries) {
        if (entry.kind === "message" && entry.messageId === messageId) return entry;
      }
    }
    return null;
  }
  function enter() {
    meCell.set(me);
    redrawList();
    ready.set(true);
    session.set({ state: "signed_in", userId: meId, me });
    connection.set(
      scene === "offline"
        ? { state: "offline", cause: "waiting", sinceMs: now - 40_000, retryAtMs: now + 20_000 }
        : { state: "live", sinceMs: now, catchingUp: false },
    );
  }
  function arrive(chatId: string, by: string, text: string) {
    const sample = samples.get(chatId);
    if (!sample) return;
    const seq = sample.chat.headSeq + 1;
    put(chatId, [...sample.entries, message(chatId, seq, by, text, Date.now())]);
    change(chatId, { unread: (samples.get(chatId)?.chat.unread ?? 0) + 1 });
  }

  const client: Client = {
    session,
    connection,
    storage: new Cell({ persistent: true, problem: null }),
    limits: new Cell({
      messageBytes: 16384,
      frameBytes: 65536,
      batch: 100,
      attachments: 10,
      page: 200,
      titleChars: 100,
      topicChars: 500,
      usernameChars: 50,
      groupMembers: 1000,
      sendsPerSecond: 20,
      sendsBurst: 100,
      connectionsPerUser: 10,
      watch: 500,
    }),
    accounts: {
      me: meCell,
      async signUp(request) {
        await after(300);
        if (scene === "setup" && request.invite !== "lamp-otter-4417")
          throw refuse(403, "setup_code_required", "the code is needed");
        if (request.username === "ben") throw refuse(409, "username_taken", "taken", "username");
        enter();
        return me;
      },
      async signIn(request) {
        await after(300);
        if (request.password === "wrong") throw refuse(401, "bad_credentials", "no match");
        enter();
        return me;
      },
      async signOut() {
        session.set({ state: "signed_out", reason: "signed_out" });
      },
      async update(patch) {
        await after(200);
        const next = {
          ...(meCell.get() ?? me),
          ...(patch.displayName ? { displayName: patch.displayName } : {}),
        };
        if (patch.privacy && next.privacy) next.privacy = { ...next.privacy, ...patch.privacy };
        meCell.set(next);
        userCell(meId).set(next);
        return next;
      },
      async deleteAccount() {
        await after(200);
        throw refuse(401, "bad_credentials", "no match");
      },
      async lookUp(username) {
        await after(250);
        return [...users.values()].find((user) => user.username === username.toLowerCase()) ?? null;
      },
      user: userCell,
      async changePassword() {
        await after(200);
      },
    },
    devices: {
      async list() {
        await after(100);
        return [
          {
            deviceId: "1",
            name: "Firefox on Linux",
            createdAt: at(now - 20 * DAY),
            lastUsedAt: at(now),
            current: true,
          },
          {
            deviceId: "2",
            name: "Safari on iPhone",
            createdAt: at(now - 8 * DAY),
            lastUsedAt: at(now - 3 * 3_600_000),
            current: false,
          },
          {
            deviceId: "3",
            name: null,
            createdAt: at(now - 40 * DAY),
            lastUsedAt: at(now - 30 * DAY),
            current: false,
          },
        ];
      },
      async revoke() {
        await after(200);
      },
    },
    chats: {
      ready,
      list,
      order,
      totals,
      chat: chatCell,
      async direct(userId) {
        const found = [...samples.values()].find(
          (one) => one.chat.peerId === userId || (userId === meId && one.chat.chatId === "8"),
        );
        if (found) return found.chat.chatId;
        const id = freshId();
        add(
          id,
          "one_on_one",
          null,
          ["mira", names[Number(userId) - 101] ?? "ben"],
          [notice(id, 1, "created", "mira", null, Date.now())],
        );
        redrawList();
        return id;
      },
      async createGroup({ title, participants }) {
        await after(200);
        const id = freshId();
        add(
          id,
          "group",
          title,
          ["mira", ...participants.map((one) => names[Number(one) - 101] ?? "ben")],
          [notice(id, 1, "created", "mira", null, Date.now())],
          { role: "owner" },
        );
        redrawList();
        return id;
      },
      async update(chatId, patch) {
        await after(200);
        change(chatId, {
          ...(patch.title ? { title: patch.title, name: patch.title } : {}),
          ...(patch.topic !== undefined ? { topic: patch.topic } : {}),
          ...(patch.settings ? { settings: patch.settings } : {}),
        });
      },
      async remove(chatId) {
        samples.delete(chatId);
        chatCell(chatId).set(null);
        redrawList();
      },
    },
    members: {
      of: membersCell,
      async add(chatId, ids) {
        await after(200);
        const cell = membersCell(chatId);
        cell.set({
          state: "ready",
          members: [
            ...cell.get().members,
            ...ids.map((userId) => ({
              userId,
              user: users.get(userId) ?? null,
              role: "member",
              joinedAt: at(Date.now()),
              deliveredSeq: null,
              readSeq: null,
            })),
          ],
        });
      },
      async remove(chatId, userId) {
        const cell = membersCell(chatId);
        cell.set({ state: "ready", members: cell.get().members.filter((one) => one.userId !== userId) });
      },
      async setRole(chatId, userId, role) {
        const cell = membersCell(chatId);
        cell.set({
          state: "ready",
          members: cell.get().members.map((one) => (one.userId === userId ? { ...one, role } : one)),
        });
      },
      async leave(chatId) {
        if (samples.get(chatId)?.chat.role === "owner")
          throw refuse(409, "last_owner", "the last owner stays");
        samples.delete(chatId);
        chatCell(chatId).set(null);
        redrawList();
      },
    },
    messages: {
      of(chatId) {
        const cell = windowCell(chatId);
        if (cell.get().state === "loading") void after(60).then(() => redrawWindow(chatId));
        return cell;
      },
      async loadOlder(chatId) {
        redrawWindow(chatId, { loadingOlder: true });
        await after(350);
        loaded.set(chatId, (loaded.get(chatId) ?? PAGE) + PAGE);
        redrawWindow(chatId);
      },
      async loadNewer() {},
      async jumpTo(chatId) {
        loaded.set(chatId, 1000);
        redrawWindow(chatId);
      },
      async jumpToNewest() {},
      async send(chatId, { text, replyTo }) {
        const sample = samples.get(chatId);
        const clientId = freshId();
        if (!sample) return clientId;
        const waiting = message(chatId, 0, "mira", text, Date.now(), {
          key: clientId,
          clientId,
          messageId: null,
          seq: null,
          sending: "waiting",
          replyTo: replyTo ?? null,
        });
        draftCell(chatId).set("");
        put(chatId, [...sample.entries, waiting]);
        if (scene === "offline") return clientId;
        setTimeout(() => {
          const now = samples.get(chatId);
          if (!now) return;
          const seq = now.chat.headSeq + 1;
          put(
            chatId,
            now.entries.map((entry) =>
              entry.key === clientId
                ? {
                    ...waiting,
                    seq,
                    messageId: `${chatId}${String(seq).padStart(5, "0")}`,
                    sending: "accepted",
                  }
                : entry,
            ),
          );
          change(chatId, { readSeq: seq, unread: 0, mentions: 0 });
          setTimeout(() => {
            const ticks = ticksCell(chatId).get();
            const cursors = new Map(
              [...ticks.cursors].map(([id, one]) => [id, { ...one, deliveredSeq: seq }]),
            );
            ticksCell(chatId).set({ cursors, deliveredSeq: seq, readSeq: ticks.readSeq });
          }, 700);
        }, 400);
        return clientId;
      },
      async retry() {},
      async discard(clientId) {
        for (const [id, sample] of samples) {
          if (sample.entries.some((entry) => entry.key === clientId))
            put(
              id,
              sample.entries.filter((entry) => entry.key !== clientId),
            );
        }
      },
      async edit(messageId, text) {
        await after(150);
        patchEntry(messageId, { text, editedAt: at(Date.now()) });
      },
      async delete(messageId) {
        await after(150);
        patchEntry(messageId, { text: "", deleted: true, reactions: [] });
      },
      async react(messageId, emoji) {
        const entry = find(messageId);
        if (!entry) return;
        const had = entry.reactions.find((one) => one.emoji === emoji);
        const reactions = had
          ? entry.reactions.map((one) =>
              one === had
                ? { ...one, count: one.count + 1, userIds: [...one.userIds, meId], mine: true }
                : one,
            )
          : [...entry.reactions, { emoji, count: 1, userIds: [meId], mine: true }];
        patchEntry(messageId, { reactions });
      },
      async unreact(messageId, emoji) {
        const entry = find(messageId);
        if (!entry) return;
        patchEntry(messageId, {
          reactions: entry.reactions
            .map((one) =>
              one.emoji === emoji
                ? {
                    ...one,
                    count: one.count - 1,
                    mine: false,
                    userIds: one.userIds.filter((id) => id !== meId),
                  }
                : one,
            )
            .filter((one) => one.count > 0),
        });
      },
      async get(messageId) {
        return find(messageId);
      },
      draft: draftCell,
      setDraft(chatId, text) {
        draftCell(chatId).set(text);
        change(chatId, { draft: text });
      },
    },
    receipts: {
      ticks: ticksCell,
      async recipients(messageId) {
        await after(150);
        const entry = find(messageId);
        const { cursors } = ticksCell(entry?.chatId ?? "1").get();
        return [...cursors].map(([userId, one], i) => {
          const seq = entry?.seq ?? 0;
          const status =
            i === 8 ? "hidden" : one.readSeq >= seq ? "read" : one.deliveredSeq >= seq ? "delivered" : "sent";
          const time = at(Date.parse(entry?.createdAt ?? at(now)) + i * 90_000);
          return {
            userId,
            status,
            updatedAt: status === "sent" || status === "hidden" ? null : time,
            deliveredAt: null,
            readAt: null,
          };
        });
      },
      markRead(chatId, seq) {
        const chat = samples.get(chatId)?.chat;
        if (!chat || seq <= chat.readSeq) return;
        const left = (samples.get(chatId)?.entries ?? []).filter(
          (entry) => entry.kind === "message" && !entry.mine && (entry.seq ?? 0) > seq,
        ).length;
        change(chatId, { readSeq: seq, unread: left, mentions: left === 0 ? 0 : chat.mentions });
      },
    },
    presence: {
      of: presenceCell,
      typing: typingCell,
      setTyping() {},
    },
    async start() {
      await after(30);
      if (signedOut || scene === "setup") session.set({ state: "signed_out", reason: signedOut ?? "none" });
      else enter();
    },
    async stop() {},
    connectNow() {
      connection.set({ state: "live", sinceMs: Date.now(), catchingUp: false });
    },
    networkChanged() {},
    setFocus() {},
  };
  // For trying things by hand: fake.arrive("1", "ben", "Hello").
  Object.assign(window, { fake: { arrive, client } });
  return client;
}
