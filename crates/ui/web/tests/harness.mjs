// A real server with the demo model, a real browser, and what is held against every page: no error in the console,
// no request to anybody else, no violation of the accessibility rules.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const root = new URL("../../../../", import.meta.url).pathname;
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const binary = process.env.HYPURA ?? join(target, "release/hypura");
const demo = join(root, "assets/demo/demo-moe-Q4_K_M.gguf");
const axe = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** Where pictures are kept. */
export const pictures = join(target, "ui");
mkdirSync(pictures, { recursive: true });

function environment(home) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(OLLAMA|HF|HYPURA|XDG)_/.test(name));
  return {
    ...Object.fromEntries(kept),
    HOME: home,
    HYPURA_MODELS: join(home, "models"),
    HYPURA_DEMO: join(home, "demo.gguf"),
    HYPURA_OFFLINE: "1",
    NO_COLOR: "1",
  };
}

/** Runs the program to its end. */
export function run(home, ...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, args, { env: environment(home), stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (text) => (said += text));
    child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`hypura ${args.join(" ")}: ${code}\n${said}`))));
  });
}

/** On a disk, which a folder for temporary files may not be; with a model of its own, because the disk is measured beside it. */
export function newHome() {
  const home = mkdtempSync(join(pictures, "home-"));
  copyFileSync(demo, join(home, "demo.gguf"));
  return home;
}

/** A server on a free port; a third of the experts of the demo model fit. */
export async function serve(home, ...args) {
  const child = spawn(
    binary,
    ["serve", "--port", "0", "--memory", "1GiB", "--residency", "stream", "--stream-cache", "33%", ...args],
    { env: environment(home), stdio: ["ignore", "pipe", "pipe"] },
  );
  let log = "";
  child.stderr.on("data", (text) => (log += text));
  const lines = createInterface({ input: child.stdout });
  const line = await Promise.race([
    new Promise((resolve) => lines.once("line", resolve)),
    new Promise((_, reject) => child.once("exit", (code) => reject(new Error(`the server ended: ${code}\n${log}`)))),
  ]);
  const origin = /http:\/\/\S+/.exec(line)?.[0];
  assert(origin, line);
  return {
    origin,
    pid: child.pid,
    stop: () =>
      new Promise((resolve) => {
        child.once("exit", resolve);
        child.kill("SIGINT");
      }),
  };
}

export function forget(home) {
  rmSync(home, { recursive: true, force: true });
}

/** A browser of the system. */
export function launch() {
  const known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
  const executablePath = process.env.CHROMIUM ?? known.find((path) => existsSync(path));
  assert(executablePath, "no Chromium: scripts/bootstrap.sh --ui installs it");
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb"];
  return chromium.launch({ executablePath, args });
}

/** A window of its own, with nothing remembered. `errors`: what may be said in the console. */
export async function open(browser, origin, path = "/ui", { size = [1360, 860], scheme = "light", errors = [], before } = {}) {
  const context = await browser.newContext({
    viewport: { width: size[0], height: size[1] },
    colorScheme: scheme,
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const problems = [];
  const say = (text) => {
    if (!errors.some((allowed) => text.includes(allowed))) problems.push(text);
  };
  page.on("console", (message) => message.type() === "error" && say(message.text()));
  page.on("pageerror", (error) => say(String(error)));
  page.on("dialog", (dialog) => {
    problems.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(data|blob):/.test(url)) problems.push(`a request to ${url}`);
  });
  if (before) await before(page);
  await page.goto(origin + path);
  return {
    page,
    context,
    problems,
    /** Ends it; there must have been no problem. */
    close: async () => {
      await context.close();
      assert.deepEqual(problems, []);
    },
  };
}

/** Asks, and waits for the whole answer. */
export async function ask(page, text) {
  const answers = page.locator("article.assistant");
  const before = await answers.count();
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
  await answers.nth(before).waitFor();
  await settled(page);
  return answers.nth(before);
}

/** Waits until no answer is being written. */
export async function settled(page) {
  await page.waitForFunction(() => {
    const last = [...document.querySelectorAll("article.assistant")].at(-1);
    return last && last.getAttribute("aria-busy") !== "true" && !document.querySelector('button[aria-label="Stop"]');
  });
}

/** Holds the page against axe's rules, and keeps a picture of it. */
export async function look(page, name) {
  // Transitions of colours and widths are over then.
  await page.waitForTimeout(350);
  await page.screenshot({ path: join(pictures, `${name}.png`) });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const said = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html.slice(0, 120)} (${node.failureSummary})`).join("; ")}`);
  assert.deepEqual(said, [], name);
}

/** Work that keeps the model busy until it is dropped: an answer that has to be long. */
export function hog(origin) {
  const control = new AbortController();
  const format = { type: "array", items: { type: "integer" }, minItems: 1500 };
  const body = { model: "demo", messages: [{ role: "user", content: "Count." }], format, options: { num_predict: 4000 } };
  const work = fetch(`${origin}/api/chat`, { method: "POST", body: JSON.stringify(body), signal: control.signal })
    .then((response) => response.text())
    .catch(() => {});
  return async () => {
    control.abort();
    await work;
  };
}
