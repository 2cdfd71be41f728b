// The one client of the page, handed to every component through the context.
import type { Client } from "@parlor/sdk";
import { createContext } from "svelte";

export const [getClient, setClient] = createContext<Client>();
