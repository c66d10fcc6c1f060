// What a conversation tells its model before anything else, and how freely it chooses.

import type { Conversation } from "../lib/conversations";
import { Dialog } from "../parts/dialog";

interface Props {
  conversation: Conversation;
  onChange: (change: Partial<Conversation>) => void;
  onClose: () => void;
}

export function ChatSettings({ conversation, onChange, onClose }: Props) {
  const { system, temperature } = conversation;
  return (
    <Dialog title="This chat" onClose={onClose}>
      <div class="stack">
        <label>
          System prompt
          <textarea rows={5} value={system} placeholder="As the model has it" onInput={(event) => onChange({ system: event.currentTarget.value })} />
        </label>
        <label>
          <span class="row">
            Temperature <span class="muted">{temperature === null ? "as the model has it" : temperature.toFixed(1)}</span>
          </span>
          <input
            type="range"
            min="0"
            max="2"
            step="0.1"
            value={temperature ?? 0.8}
            onInput={(event) => onChange({ temperature: Number(event.currentTarget.value) })}
          />
        </label>
        <button type="button" class="quiet" onClick={() => onChange({ temperature: null })} disabled={temperature === null}>
          Temperature as the model has it
        </button>
      </div>
    </Dialog>
  );
}
