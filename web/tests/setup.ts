// The person of the tests lives in Britain by language and in Berlin by clock (package.json), whatever machine runs them.
Object.defineProperty(globalThis, "navigator", {
  value: { languages: ["en-GB"], language: "en-GB" },
  configurable: true,
  writable: true,
});
