// How the app is built and served while developing.
//
// `vite --mode fake` swaps the real client for an in-memory one with sample chats, so that every place can be
// looked at without a server; that mode is for development only and has no build.
import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig(({ mode, command }) => {
  const fake = mode === "fake";
  if (fake && command === "build") throw new Error("the fake client is never built into the app");
  return {
    // Relative addresses, so that the app also works below a path prefix.
    base: "./",
    plugins: [svelte()],
    resolve: fake ? { alias: [{ find: /^.*\/make-client$/, replacement: here("./dev/fake.ts") }] } : {},
    build: {
      outDir: "dist",
      emptyOutDir: true,
      target: "es2022",
      // From here on browsers know `:dir()`; for older ones it would be rewritten to languages, which is another thing.
      cssTarget: ["chrome120", "firefox119", "safari16.4"],
      // The content policy refuses `data:` addresses.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      sourcemap: false,
    },
    server: {
      proxy: {
        "/api": { target: process.env.PARLOR_SERVER ?? "http://127.0.0.1:8080", ws: true },
      },
    },
    test: { include: ["tests/**/*.test.ts"], environment: "node", setupFiles: ["tests/setup.ts"] },
  };
});
