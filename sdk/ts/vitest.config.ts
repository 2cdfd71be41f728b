import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Every clock in the tests is the fake one, so a test that hangs is a bug and not a slow machine.
    testTimeout: 5_000,
  },
});
