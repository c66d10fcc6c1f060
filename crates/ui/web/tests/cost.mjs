// What watching costs: not a test, but where the figure in docs/serving.md comes from. `node tests/cost.mjs`
//
// - processor time of the server and its runner for each look at the status and the map of experts, while idle;
// - speed of answers, and processor time of server and runner for each token, with and without the Live view open
//   beside them, in turns. The browser's own work is not the server's: on a machine with few cores it shows in speeds.

import { readFileSync, readdirSync } from "node:fs";
import { forget, launch, newHome, open, serve } from "./harness.mjs";

const PAIRS = Number(process.argv[2] ?? 8);
const LOOKS = 60;

/** Nanoseconds that all threads of a process and of its children have run. */
function ran(pid) {
  const own = readdirSync(`/proc/${pid}/task`).map((task) => {
    try {
      return Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
    } catch {
      return 0;
    }
  });
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(/\s+/).filter(Boolean);
  const others = readdirSync(`/proc/${pid}/task`).flatMap((task) => {
    try {
      return readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(/\s+/).filter(Boolean);
    } catch {
      return [];
    }
  });
  const kin = new Set([...children, ...others]);
  return own.reduce((sum, time) => sum + time, 0) + [...kin].reduce((sum, child) => sum + ran(child), 0);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function speed(origin, pid) {
  const before = ran(pid);
  const format = { type: "array", items: { type: "integer" }, minItems: 1500 };
  const options = { num_predict: 600, temperature: 0, seed: 1 };
  const body = JSON.stringify({ model: "demo", messages: [{ role: "user", content: "Count." }], stream: false, format, options });
  const answer = await (await fetch(`${origin}/api/chat`, { method: "POST", body })).json();
  return { rate: answer.eval_count / (answer.eval_duration / 1e9), cpu: (ran(pid) - before) / answer.eval_count / 1e6 };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const home = newHome();
const server = await serve(home);
await speed(server.origin, server.pid);
const spent = async (work) => {
  const before = ran(server.pid);
  for (let look = 0; look < LOOKS; look += 1) {
    await work();
    await pause(250);
  }
  return (ran(server.pid) - before) / LOOKS / 1e6;
};
const nothing = await spent(async () => {});
for (const path of ["/api/hypura/status", "/api/hypura/experts?model=demo"]) {
  const all = await spent(async () => (await fetch(server.origin + path)).text());
  console.log(`${path}: ${(all - nothing).toFixed(3)} ms of processor time for each look`);
}

const browser = await launch();
const pairs = [];
for (let pair = 0; pair < PAIRS; pair += 1) {
  const measured = {};
  for (const watched of pair % 2 ? [true, false] : [false, true]) {
    const page = watched ? await open(browser, server.origin, "/ui#/live") : null;
    if (page) await page.page.locator(".model-card").waitFor();
    measured[watched] = await speed(server.origin, server.pid);
    await page?.context.close();
  }
  const [alone, watched] = [measured[false], measured[true]];
  pairs.push({ rate: watched.rate / alone.rate, cpu: watched.cpu / alone.cpu });
  const show = ({ rate, cpu }) => `${rate.toFixed(1)} tok/s and ${cpu.toFixed(2)} ms a token`;
  console.log(`pair ${pair + 1}: ${show(alone)} alone, ${show(watched)} with the page open`);
}
for (const kind of ["rate", "cpu"]) console.log(`median of the ratios, ${kind}: ${median(pairs.map((pair) => pair[kind])).toFixed(3)}`);
await browser.close();
await server.stop();
forget(home);
