// The official TypeScript SDK 1.x, told what to do by one JSON object a line (see sdk.py).
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const clients = new Map();

async function open({ to, url, key }) {
  const client = new Client({ name: "interop", version: "1" });
  const requestInit = { headers: { Authorization: `Bearer ${key}` } };
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
  await client.connect(transport);
  clients.set(to, client);
  return { version: transport.protocolVersion ?? "" };
}

const onprogress = ({ message }) => process.stdout.write(JSON.stringify({ progress: message ?? "" }) + "\n");

async function act(order) {
  if (order.op === "open") return open(order);
  const client = clients.get(order.to);
  if (order.op === "close") { await client.close(); return {}; }
  if (order.op === "list") {
    return { names: (await client.listTools()).tools.map((tool) => tool.name).sort() };
  }
  const tasks = client.experimental.tasks;
  if (order.op === "task") {
    const wish = { name: order.tool, arguments: order.arguments };
    for await (const step of tasks.callToolStream(wish, CallToolResultSchema, { task: { ttl: 60000 } })) {
      if (step.type === "taskCreated" && order.only === "created") return { text: step.task.taskId };
      if (step.type === "error") throw step.error;
      if (step.type === "result") return { text: step.result.content.map((block) => block.text ?? "").join("\n") };
    }
  }
  if (order.op === "get") return { text: (await tasks.getTask(order.task)).status };
  if (order.op === "cancel") return { text: (await tasks.cancelTask(order.task)).status };
  const answer = await client.callTool({ name: order.tool, arguments: order.arguments }, undefined, order.progress ? { onprogress } : {});
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
