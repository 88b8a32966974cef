// The official TypeScript SDK 2.x, told what to do by one JSON object a line (see sdk.py).
//     ts2.mjs auto|legacy
import { createInterface } from "node:readline";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const clients = new Map();
const mode = process.argv[2];

async function open({ to, url, key }) {
  const client = new Client({ name: "interop", version: "1" }, { versionNegotiation: { mode } });
  const requestInit = { headers: { Authorization: `Bearer ${key}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
  clients.set(to, client);
  return { version: client.getNegotiatedProtocolVersion() ?? "" };
}

const onprogress = ({ message }) => process.stdout.write(JSON.stringify({ progress: message ?? "" }) + "\n");

async function act(order) {
  if (order.op === "open") return open(order);
  const client = clients.get(order.to);
  if (order.op === "close") { await client.close(); return {}; }
  if (order.op === "list") {
    return { names: (await client.listTools()).tools.map((tool) => tool.name).sort() };
  }
  const answer = await client.callTool({ name: order.tool, arguments: order.arguments }, order.progress ? { onprogress } : {});
  const text = answer.content.map((block) => block.text ?? "").join("\n");
  return { text, error: answer.isError === true };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await act(JSON.parse(line));
  } catch (error) {
    answer = { text: `${error.name}: ${error.message}`, error: true, raised: true };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
