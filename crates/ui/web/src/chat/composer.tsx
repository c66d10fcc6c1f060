// Where a message is written.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Attachment } from "../lib/conversations";
import { can } from "../lib/installed";
import { shortName } from "../lib/format";
import { Icon } from "../parts/icons";
import { accepted, read, refusal } from "./attach";
import { Attachments } from "./attachments";

interface Props {
  model: string;
  busy: boolean;
  think: boolean | null;
  onThink: (think: boolean) => void;
  onSend: (text: string, attachments: Attachment[]) => void;
  onStop: () => void;
}

export function Composer({ model, busy, think, onThink, onSend, onStop }: Props) {
  const [text, setText] = useState("");
  const [files, setFiles] = useState<Attachment[]>([]);
  const [problem, setProblem] = useState("");
  const [over, setOver] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const senses = { vision: can(model, "vision"), audio: can(model, "audio") };
  useEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, 240)}px`;
  }, [text]);
  useEffect(() => setProblem(""), [model]);

  const attach = async (list: Iterable<File>) => {
    setProblem("");
    for (const file of list) {
      const why = refusal(file, shortName(model), senses);
      if (why) setProblem(why);
      else {
        const attachment = await read(file);
        setFiles((before) => [...before, attachment]);
      }
    }
  };
  const send = () => {
    if (busy || !model || (!text.trim() && files.length === 0)) return;
    // A model that was chosen after the file may lack the sense.
    const why = files.map((file) => refusal({ type: file.type, size: 0 }, shortName(model), senses)).find(Boolean);
    if (why) return setProblem(why);
    onSend(text, files);
    setText("");
    setFiles([]);
  };
  return (
    <form
      class={`composer ${over ? "over" : ""}`}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        void attach(event.dataTransfer?.files ?? []);
      }}
    >
      {problem && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <Attachments files={files} onRemove={(at) => setFiles(files.filter((_, index) => index !== at))} />
      <textarea
        ref={area}
        rows={1}
        value={text}
        aria-label="Message"
        placeholder={`Message ${model ? shortName(model) : "a model"}`}
        onInput={(event) => setText(event.currentTarget.value)}
        onPaste={(event) => {
          const pasted = event.clipboardData?.files;
          if (pasted?.length) {
            event.preventDefault();
            void attach(pasted);
          }
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send();
          }
        }}
      />
      <div class="composer-row">
        <input
          ref={picker}
          type="file"
          hidden
          multiple
          accept={accepted(senses)}
          data-testid="file"
          onChange={(event) => {
            void attach([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
        {(senses.vision || senses.audio) && (
          <button type="button" class="quiet icon-only" aria-label="Attach a picture or a sound" onClick={() => picker.current?.click()}>
            <Icon name="clip" />
          </button>
        )}
        {can(model, "thinking") && (
          <button type="button" class={`quiet toggle ${think === false ? "" : "on"}`} aria-pressed={think !== false} onClick={() => onThink(think === false)}>
            <Icon name="thought" /> Think
          </button>
        )}
        <span class="muted small hint">Enter sends, Shift+Enter begins a line</span>
        {busy ? (
          <button type="button" class="primary round" aria-label="Stop" onClick={onStop}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="primary round" aria-label="Send" disabled={!model || (!text.trim() && files.length === 0)}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}
