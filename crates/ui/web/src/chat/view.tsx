// A conversation.

import { useEffect, useRef, useState } from "preact/hooks";
import { answer, running, stop } from "../lib/answer";
import {
  conversations, find, newConversation, newId, put, titleOf, type Attachment, type Conversation,
} from "../lib/conversations";
import { chosen, installed } from "../lib/installed";
import { digits, seconds, shortName } from "../lib/format";
import { go } from "../lib/route";
import { useShared } from "../lib/signal";
import { latest, loaded } from "../lib/watch";
import { Icon } from "../parts/icons";
import { LivePanel } from "../status/panel";
import { Composer } from "./composer";
import { MessageView } from "./message";
import { ModelPicker } from "./picker";
import { ChatSettings } from "./settings";

const IDEAS = ["What is a lynx?", "Explain how a cache decides what to evict.", "Write a function in Rust that reverses a list."];

/** In one line, where the panel has no room. */
function Strip({ model: name }: { model: string }) {
  const model = loaded(useShared(latest), name);
  if (!model || model.state === "idle") return null;
  const slot = model.slots[0];
  return (
    <p class="strip small" role="status">
      {model.state === "prompt" && slot ? (
        <>
          <i class="pulse" /> prompt {slot.prompt_done_tokens} of {slot.prompt_tokens}
          {slot.prompt_left_s !== null && `, ${seconds(slot.prompt_left_s)} left`}
        </>
      ) : (
        <>
          <i class="pulse" /> {digits(model.decode?.tokens_per_s)} tok/s
          {model.decode?.bound && ` · bound by ${model.decode.bound}`}
        </>
      )}
    </p>
  );
}

function Welcome({ onIdea }: { onIdea: (text: string) => void }) {
  const models = useShared(installed);
  const name = useShared(chosen);
  return (
    <div class="welcome">
      <h1>{name ? `Ask ${shortName(name)}` : "Hypura"}</h1>
      {models?.length === 0 ? (
        <p class="muted">
          No model is installed. <code>hypura pull NAME</code> brings one.
        </p>
      ) : (
        <>
          <p class="muted">It runs on this machine. What you write stays in this browser.</p>
          <div class="ideas">
            {IDEAS.map((idea) => (
              <button key={idea} type="button" class="idea" onClick={() => onIdea(idea)}>
                {idea}
              </button>
            ))}
          </div>
        </>
      )}
    </div>
  );
}

/** Keeps the end in sight while an answer comes, unless the reader has scrolled up. */
function useFollowing(changes: unknown) {
  const area = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    const element = area.current;
    if (element && follows.current) element.scrollTop = element.scrollHeight;
  }, [changes]);
  const onScroll = () => {
    const element = area.current;
    if (element) follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < 80;
  };
  return { area, onScroll };
}

export function ChatView({ id, onMenu }: { id: string; onMenu: () => void }) {
  useShared(conversations);
  const name = useShared(chosen);
  const writing = useShared(running);
  const [tuning, tune] = useState(false);
  const [draft, setDraft] = useState(() => newConversation(""));
  const conversation = find(id) ?? draft;
  const model = conversation.messages.length > 0 && conversation.model ? conversation.model : name;
  const busy = writing.has(conversation.id);
  const { area, onScroll } = useFollowing(conversation.messages);
  useEffect(() => {
    if (!find(id)) setDraft(newConversation(""));
  }, [id]);

  const change = (changes: Partial<Conversation>) => {
    const next = { ...conversation, ...changes };
    if (find(conversation.id)) put(next);
    else setDraft(next);
  };
  /** Keeps these messages, and has the last of them answered. */
  const ask = (messages: Conversation["messages"]) => {
    const first = messages.find((message) => message.role === "user")?.text ?? "";
    const title = conversation.messages.length === 0 ? titleOf(first) : conversation.title;
    const next = { ...conversation, model, title, changed: Date.now(), messages };
    put(next);
    if (id !== next.id) go("chat", next.id);
    void answer(next);
  };
  const send = (text: string, attachments: Attachment[]) => {
    const message = { id: newId(), role: "user" as const, text, ...(attachments.length ? { attachments } : {}) };
    ask([...conversation.messages, message]);
  };
  const { messages } = conversation;
  return (
    <div class="chat-layout">
      <main class="chat" id="main" tabIndex={-1}>
        <header class="chat-head">
          <button type="button" class="quiet icon-only only-narrow" aria-label="Conversations" onClick={onMenu}>
            <Icon name="menu" />
          </button>
          {messages.length > 0 && <h1 class="visually-hidden">{conversation.title}</h1>}
          <ModelPicker value={model} onPick={(picked) => change({ model: picked })} />
          <Strip model={model} />
          <button type="button" class="quiet icon-only" aria-label="Settings of this chat" onClick={() => tune(true)}>
            <Icon name="tune" />
          </button>
        </header>
        <div class="messages" ref={area} onScroll={onScroll} tabIndex={0} role="log" aria-label="Conversation" aria-live="off">
          {messages.length === 0 ? (
            <Welcome onIdea={(idea) => model && send(idea, [])} />
          ) : (
            messages.map((message, index) => (
              <MessageView
                key={message.id}
                message={message}
                live={busy && index === messages.length - 1 && message.role === "assistant"}
                busy={busy}
                isLast={index === messages.length - 1}
                onEdit={(text) => ask([...messages.slice(0, index), { ...message, text }])}
                onRegenerate={() => ask(messages.slice(0, index))}
              />
            ))
          )}
        </div>
        <Composer
          model={model}
          busy={busy}
          think={conversation.think}
          onThink={(think) => change({ think })}
          onSend={send}
          onStop={() => stop(conversation.id)}
        />
      </main>
      <LivePanel model={model} />
      {tuning && <ChatSettings conversation={conversation} onChange={change} onClose={() => tune(false)} />}
    </div>
  );
}
