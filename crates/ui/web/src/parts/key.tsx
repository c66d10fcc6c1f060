// Asks for the server's key.

import { useState } from "preact/hooks";
import { ApiError, status } from "../lib/api";
import { getKey, setKey } from "../lib/key";
import { Dialog } from "./dialog";

export function KeyDialog({ onDone, onClose }: { onDone: () => void; onClose: () => void }) {
  const [key, change] = useState("");
  const [problem, setProblem] = useState(getKey() ? "The server does not take this key." : "");
  const submit = async (event: Event) => {
    event.preventDefault();
    setKey(key.trim());
    try {
      await status();
      onDone();
    } catch (error) {
      setProblem(error instanceof ApiError && error.status === 401 ? "The server does not take this key." : String(error));
    }
  };
  return (
    <Dialog title="This server wants a key" onClose={onClose} kind="narrow">
      <form onSubmit={submit} class="stack">
        <p class="muted">It was started with --api-key. The key stays in this tab and is forgotten with it.</p>
        <label>
          Key
          <input type="password" autocomplete="off" value={key} autofocus onInput={(event) => change(event.currentTarget.value)} />
        </label>
        {problem && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" class="primary" disabled={!key.trim()}>
          Continue
        </button>
      </form>
    </Dialog>
  );
}
