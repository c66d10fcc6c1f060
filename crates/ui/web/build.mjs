// Makes the bundle that the program embeds: the files of ../assets, and ../src/bundle.rs, which names them by
// their contents. The same sources give the same bytes; `--check` says whether those are the committed ones.

import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const MOST_GZIP_BYTES = 400_000;
const here = new URL(".", import.meta.url).pathname;
const assets = `${here}../assets`;

async function bundle(entry, extra) {
  const result = await build({
    entryPoints: [`${here}${entry}`],
    absWorkingDir: here,
    bundle: true,
    minify: true,
    write: false,
    target: ["chrome109", "firefox115", "safari16.4"],
    legalComments: "none",
    logLevel: "warning",
    ...extra,
  });
  return Buffer.from(result.outputFiles[0].contents);
}

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex").slice(0, 16);

const script = await bundle("src/main.tsx", {
  format: "esm",
  jsx: "automatic",
  jsxImportSource: "preact",
  define: { "process.env.NODE_ENV": '"production"' },
});
const style = await bundle("styles/main.css", {});
const icon = await readFile(`${here}icon.svg`);

/** Whose code the script has in it, and under which licence: their terms ask for it. */
const BUNDLED = ["preact", "marked", "dompurify", "highlight.js"];
const licenses = Buffer.from(
  (
    await Promise.all(
      BUNDLED.map(async (name) => {
        const folder = `${here}node_modules/${name}`;
        const { version, license } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
        const files = ["LICENSE", "LICENSE.md"].map((file) => readFile(`${folder}/${file}`, "utf8").catch(() => ""));
        const text = (await Promise.all(files)).find((text) => text);
        if (!text) throw new Error(`${name} has no licence`);
        return `${name} ${version} (${license})\n\n${text.trim()}\n`;
      }),
    )
  ).join(`\n${"-".repeat(80)}\n\n`),
);

const named = [
  ["app.js", "text/javascript; charset=utf-8", script],
  ["app.css", "text/css; charset=utf-8", style],
  ["icon.svg", "image/svg+xml", icon],
  ["licenses.txt", "text/plain; charset=utf-8", licenses],
].map(([file, type, bytes]) => {
  const [stem, end] = file.split(".");
  return { file, type, bytes, name: `${stem}-${digest(bytes)}.${end}` };
});
const [{ name: scriptName }, { name: styleName }, { name: iconName }, { name: licensesName }] = named;
const page = Buffer.from(
  (await readFile(`${here}index.html`, "utf8"))
    .replace("{script}", scriptName)
    .replace("{style}", styleName)
    .replace("{icon}", iconName)
    .replace("{licenses}", licensesName),
);

const rust = `//! Made by web/build.mjs: what the page consists of, by names that change with the contents.

use super::asset::Asset;

/// The page itself.
pub(super) const PAGE: Asset = Asset {
    name: "",
    content_type: "text/html; charset=utf-8",
    bytes: include_bytes!("../assets/index.html"),
    etag: "\\"${digest(page)}\\"",
};

/// What it loads.
pub(super) const FILES: &[Asset] = &[
${named
  .map(
    ({ file, type, name, bytes }) => `    Asset {
        name: "${name}",
        content_type: "${type}",
        bytes: include_bytes!("../assets/${file}"),
        etag: "\\"${digest(bytes)}\\"",
    },
`,
  )
  .join("")}];
`;

const files = [
  [`${assets}/index.html`, page],
  ...named.map(({ file, bytes }) => [`${assets}/${file}`, bytes]),
  [`${here}../src/bundle.rs`, Buffer.from(rust)],
];

const compressed = [page, ...named.map(({ bytes }) => bytes)].reduce((sum, bytes) => sum + gzipSync(bytes, { level: 9 }).length, 0);
console.log(`bundle: ${compressed} bytes compressed`);
if (compressed > MOST_GZIP_BYTES) {
  console.error(`more than ${MOST_GZIP_BYTES}`);
  process.exit(1);
}

if (process.argv.includes("--check")) {
  for (const [path, bytes] of files) {
    const committed = await readFile(path).catch(() => Buffer.alloc(0));
    if (!committed.equals(bytes)) {
      console.error(`${path} is not what the sources give: npm run build`);
      process.exit(1);
    }
  }
} else {
  await mkdir(assets, { recursive: true });
  for (const [path, bytes] of files) await writeFile(path, bytes);
}
