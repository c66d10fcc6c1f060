// Markdown of a model as HTML that may be shown. What a model writes is never trusted: marked makes HTML of it,
// DOMPurify leaves of that what formats text, and the page's CSP runs no script that is not the server's own file.

import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import kotlin from "highlight.js/lib/languages/kotlin";
import makefile from "highlight.js/lib/languages/makefile";
import markdown from "highlight.js/lib/languages/markdown";
import php from "highlight.js/lib/languages/php";
import python from "highlight.js/lib/languages/python";
import ruby from "highlight.js/lib/languages/ruby";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import swift from "highlight.js/lib/languages/swift";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { Marked, type Tokens } from "marked";

const LANGUAGES = {
  bash, c, cpp, css, diff, go, ini, java, javascript, json, kotlin, makefile, markdown, php, python, ruby, rust,
  sql, swift, typescript, xml, yaml,
};
for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);

/** Longer code is shown without colours: an answer must not be held up by them. */
const LONGEST_COLOURED = 20_000;

function escape(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}

function code({ text, lang }: Tokens.Code): string {
  const language = (lang ?? "").trim().split(/\s+/)[0]?.toLowerCase() ?? "";
  const known = hljs.getLanguage(language) && text.length <= LONGEST_COLOURED;
  const body = known ? hljs.highlight(text, { language, ignoreIllegals: true }).value : escape(text);
  const label = escape(language || "text");
  return (
    `<div class="code"><div class="code-head"><span>${label}</span>` +
    `<button type="button" class="quiet" data-copy aria-label="Copy this code">Copy</button></div>` +
    `<pre tabindex="0" role="region" aria-label="Code, ${label}"><code>${body}</code></pre></div>`
  );
}

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    code,
    // A picture of a model's would be fetched from wherever it says.
    image: ({ text, href }: Tokens.Image) => `<span class="no-picture">[${escape(text || href)}]</span>`,
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escape(text),
  },
});

const TAGS = [
  "a", "p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3",
  "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "button", "sup", "sub", "input",
];
const ATTRIBUTES = [
  "href", "class", "align", "start", "data-copy", "type", "aria-label", "tabindex", "role", "checked", "disabled",
  "target", "rel",
];

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    const href = node.getAttribute("href") ?? "";
    // Everything else, javascript: among it, leads nowhere.
    if (!/^(https?:|mailto:)/i.test(href)) node.removeAttribute("href");
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.tagName === "INPUT" && node.getAttribute("type") !== "checkbox") node.remove();
  if (node.tagName === "BUTTON" && !node.hasAttribute("data-copy")) node.remove();
});

/** HTML for `dangerouslySetInnerHTML`; where the browser has Trusted Types, one of them. */
export function render(text: string): string {
  const html = marked.parse(text, { async: false });
  return DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    RETURN_TRUSTED_TYPE: true,
  }) as unknown as string;
}
