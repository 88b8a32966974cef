// A TypeScript client that signs in by itself: `node oauth.mjs sdk|client URL`.  It prints `URL …` where it
// would open a browser, reads from stdin where the browser ends, and calls; then again with a token that
// is no longer good, so that it must refresh.
import readline from "node:readline";

const [, , which, where] = process.argv;
const CALLBACK = "http://127.0.0.1:33418/callback";
let Client, StreamableHTTPClientTransport;
if (which === "sdk") {
  ({ Client } = await import("@modelcontextprotocol/sdk/client/index.js"));
  ({ StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js"));
} else {
  ({ Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client"));
}

const kept = {};
const provider = {
  redirectUrl: CALLBACK,
  clientMetadata: {
    client_name: `TypeScript ${which}`,
    redirect_uris: [CALLBACK],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => "interop",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (state) => { kept.discovery = state; },
  redirectToAuthorization: (url) => console.log(`URL ${url.href}`),
};

async function connected() {
  const transport = new StreamableHTTPClientTransport(new URL(where), { authProvider: provider });
  const client = new Client({ name: which, version: "1" });
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (error.constructor.name !== "UnauthorizedError") throw error;
    const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
    const answer = new URL((await lines.next()).value).searchParams;
    await transport.finishAuth(which === "sdk" ? answer.get("code") : answer);
    return connected();
  }
}

const client = await connected();
const first = await client.callTool({ name: "add", arguments: { a: 1, b: 2 } });
console.log(`SUM ${first.content[0].text}`);
kept.tokens = { ...kept.tokens, access_token: "no-longer-good" };
const second = await client.callTool({ name: "add", arguments: { a: 2, b: 2 } });
console.log(`SUM ${second.content[0].text}`);
process.exit(0);
