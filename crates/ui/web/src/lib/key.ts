// The server's key: for this tab alone, until it is closed.

const NAME = "hypura.key";

export function getKey(): string {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return memory;
  }
}

/** Where a browser keeps nothing, the key lasts as long as the page. */
let memory = "";

export function setKey(key: string): void {
  memory = key;
  try {
    sessionStorage.setItem(NAME, key);
  } catch {
    // It is in memory.
  }
}
