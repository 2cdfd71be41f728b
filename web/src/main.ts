// The start: looks first, so that nothing flashes, then the app, then the client.
import { mount } from "svelte";
import { direction, language } from "./i18n";
import App from "./shell/App.svelte";
import { makeClient } from "./shell/make-client";
import { startAppearance } from "./shell/preferences.svelte";
import "./styles/index.css";

document.documentElement.lang = language;
document.documentElement.dir = direction;
startAppearance();

const target = document.getElementById("app");
if (!target) throw new Error("the page has no #app");
mount(App, { target, props: { client: makeClient() } });
