// What the linter watches over: the compiler's own rules, Svelte's, and two bans of the house
// (no markup from strings, the SDK only through its door).
import js from "@eslint/js";
import globals from "globals";
import svelte from "eslint-plugin-svelte";
import ts from "typescript-eslint";
import svelteConfig from "./svelte.config.js";

const noMarkupFromStrings = ["innerHTML", "outerHTML", "insertAdjacentHTML", "srcdoc"].map((property) => ({
  property,
  message: "Text becomes elements, never markup (security.md C7).",
}));

export default ts.config(
  { ignores: ["dist/", "public/"] },
  js.configs.recommended,
  ...ts.configs.recommended,
  ...svelte.configs.recommended,
  {
    languageOptions: { globals: { ...globals.browser } },
    rules: {
      "no-restricted-properties": ["error", ...noMarkupFromStrings],
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            { group: ["**/sdk/ts/**", "@parlor/sdk/*"], message: "Only the public entry @parlor/sdk." },
          ],
        },
      ],
      "no-console": "error",
      "svelte/no-at-html-tags": "error",
      // Transitions and style:x={…} go through properties, which the content policy allows; svelte-check
      // fails on a comment that ignores nothing.
      "svelte/no-unused-svelte-ignore": "off",
      "svelte/no-inline-styles": "off",
      // Sets and maps here are read in one go, never watched; a space between two elements is meant.
      "svelte/prefer-svelte-reactivity": "off",
      "svelte/no-useless-mustaches": "off",
      // TypeScript checks names better.
      "no-undef": "off",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
    },
  },
  {
    files: ["**/*.svelte", "**/*.svelte.ts"],
    languageOptions: { parserOptions: { parser: ts.parser, svelteConfig } },
  },
  {
    files: ["dev/**/*.mjs", "e2e/**/*.mjs", "*.config.*"],
    languageOptions: { globals: { ...globals.node, ...globals.browser } },
    rules: { "no-console": "off" },
  },
);
