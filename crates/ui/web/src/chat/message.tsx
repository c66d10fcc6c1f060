// One message, and what can be done with it.

import { useMemo, useState } from "preact/hooks";
import { count, digits, seconds, shortName } from "../lib/format";
import { render } from "../lib/markdown";
import type { Message } from "../lib/conversations";
import { useShared } from "../lib/signal";
import { latest } from "../lib/watch";
import { Icon } from "../parts/icons";
import { LoadBar } from "../status/loading";
import { Attachments } from "./attachments";

interface Props {
  message: Message;
  /** An answer to it is being written, or it is that answer. */
  live: boolean;
  /** Nothing may be changed while an answer comes. */
  busy: boolean;
  isLast: boolean;
  onEdit: (text: string) => void;
  onRegenerate: () => void;
}

async function copy(text: string, button: HTMLElement): Promise<void> {
  await navigator.clipboard?.writeText(text).catch(() => {});
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
}

/** Buttons of code blocks: what is in them was written by a model, so they have no handlers of their own. */
function onCopyClick(event: MouseEvent): void {
  const button = (event.target as HTMLElement).closest<HTMLElement>("[data-copy]");
  const code = button?.closest(".code")?.querySelector("code");
  if (button && code) void copy(code.textContent ?? "", button);
}

function Thinking({ message, live }: { message: Message; live: boolean }) {
  const html = useMemo(() => render(message.thinking ?? ""), [message.thinking]);
  const over = message.text !== "" || !live;
  const took = message.thinking_s === undefined ? "" : ` for ${seconds(message.thinking_s)}`;
  return (
    <details class="thinking">
      <summary>
        <Icon name="thought" /> {over ? `Thought${took}` : "Thinking…"}
      </summary>
      <div class="prose" dangerouslySetInnerHTML={{ __html: html }} />
    </details>
  );
}

function Figures({ message }: { message: Message }) {
  const { figures } = message;
  if (!figures) return null;
  const cached = figures.cached_tokens > 0 ? `, ${count(figures.cached_tokens)} of them cached` : "";
  return (
    <span class="muted small" title={`Prompt: ${count(figures.prompt_tokens)} tokens${cached}, ${seconds(figures.prompt_s)}`}>
      {count(figures.tokens)} tokens · {digits(figures.tokens_per_s)} tok/s · {seconds(figures.total_s)}
      {figures.reason === "length" ? " · cut at the limit" : ""}
    </span>
  );
}

function Editor({ text, onSave, onCancel }: { text: string; onSave: (text: string) => void; onCancel: () => void }) {
  const [draft, change] = useState(text);
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        onSave(draft);
      }}
    >
      <textarea
        aria-label="Edit the message"
        value={draft}
        autofocus
        rows={Math.min(draft.split("\n").length + 1, 12)}
        onInput={(event) => change(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Escape" && onCancel()}
      />
      <div class="row end">
        <button type="button" class="quiet" onClick={onCancel}>
          Cancel
        </button>
        <button type="submit" class="primary" disabled={!draft.trim()}>
          Send again
        </button>
      </div>
    </form>
  );
}

function User({ message, busy, onEdit }: Props) {
  const [editing, edit] = useState(false);
  if (editing) {
    const save = (text: string) => {
      edit(false);
      onEdit(text);
    };
    return <Editor text={message.text} onSave={save} onCancel={() => edit(false)} />;
  }
  return (
    <>
      <div class="bubble">
        <Attachments files={message.attachments ?? []} />
        {message.text}
      </div>
      <div class="actions">
        <button type="button" class="quiet icon-only" aria-label="Edit this message" disabled={busy} onClick={() => edit(true)}>
          <Icon name="edit" />
        </button>
        <button type="button" class="quiet icon-only" aria-label="Copy this message" onClick={(event) => void copy(message.text, event.currentTarget)}>
          <Icon name="copy" />
        </button>
      </div>
    </>
  );
}

/** Before the first token: for the model, or for what it reads first. */
function Waiting() {
  const loading = useShared(latest)?.loading;
  return (
    <div role="status">
      <p class="waiting muted">
        <i class="pulse" /> {loading ? `loading ${shortName(loading.name)}` : "waiting for the first token"}
      </p>
      {loading && <LoadBar loading={loading} />}
    </div>
  );
}

function Assistant({ message, live, busy, isLast, onRegenerate }: Props) {
  const html = useMemo(() => render(message.text), [message.text]);
  return (
    <>
      <h2 class="who">{shortName(message.model ?? "assistant")}</h2>
      {message.thinking && <Thinking message={message} live={live} />}
      {message.text && <div class="prose" onClick={onCopyClick} dangerouslySetInnerHTML={{ __html: html }} />}
      {live && !message.text && !message.thinking && (
        <Waiting />
      )}
      {message.error && (
        <p class="problem" role="alert">
          {message.error}
        </p>
      )}
      {!live && (
        <div class="actions">
          <button type="button" class="quiet icon-only" aria-label="Copy this answer" onClick={(event) => void copy(message.text, event.currentTarget)}>
            <Icon name="copy" />
          </button>
          {isLast && (
            <button type="button" class="quiet icon-only" aria-label="Regenerate" disabled={busy} onClick={onRegenerate}>
              <Icon name="again" />
            </button>
          )}
          <Figures message={message} />
        </div>
      )}
    </>
  );
}

export function MessageView(props: Props) {
  const { role } = props.message;
  return (
    <article class={`message ${role}`} aria-label={role === "user" ? "You" : "Answer"} aria-busy={props.live}>
      {role === "user" ? <User {...props} /> : <Assistant {...props} />}
    </article>
  );
}
